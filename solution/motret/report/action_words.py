"""Action words: verbs that several captions share, found in the captions themselves.

The stem of a word is what is left without an ending (-s, -es, -ed, -ing), a doubled last letter, -e
or -y, so that "waves" and "waving" have one stem. A stem is an action word if it is in at least
`MIN_COUNT` captions, is not a stop word (persons, bodies, places, numbers, words without content),
and ends in -s or -ing in at least `MIN_VERB_SHARE` of its uses, as verbs do and most adjectives and
singular nouns do not. A caption belongs to every action word in it.
"""

from collections import Counter
from collections.abc import Sequence

from motret.data.captions import words

MIN_COUNT = 3
MIN_VERB_SHARE = 0.2
"""Share of a stem's uses that end in -s or -ing."""

_STOP_WORDS = """
a about above across after again against ahead all along also an and another any apart are around
as at away back backs backward backwards be because been before behind being below beside between
both but by can clockwise close counter counterclockwise did different direction directions do
does doing done down during each either end enough even every far fast few first for forward
forwards from front goes gets get getting got had half has have having he her here high him his
how i if in inside into is it its itself just keeps keep keeping left less line lines little lot
lots low makes make making many middle more most much near next no normal not nothing of off on
once one ones onto opposite or other others out outside over own pace place places quick quickly
quite rather right round same second seconds several she side sides sideways slight slightly slow
slowly small so some something spot start starts starting still style than that the their them
themselves then there they thing things third this three through time times to together too toward
towards twice two under until up upon upper upward upwards use uses using very was way ways well
were what when where which while who with without
person persons people someone somebody man woman men women human humans partner partners pair
couple guy
arm arms body bodies chest elbow elbows face faces facing feet finger fingers fist fists foot
forearm forearms hand hands head heads heel heels hip hips knee knees leg legs palm palms shoulder
shoulders thigh thighs toe toes torso waist wrist wrists
air ball degree degrees distance energy floor form ground height level look looks movement
movements pose poses position positions shape step-by-step set sets
"""


def stem(word: str) -> str:
    """What the forms of a word have in common."""
    for ending in ("ing", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 2 and not word.endswith("ss"):
            word = word.removesuffix(ending)
            break
    word = word.removesuffix("e") if len(word) > 2 else word
    word = word[:-1] if len(word) > 2 and word[-1] == word[-2] else word
    return word[:-1] if len(word) > 2 and word[-1] in "iy" else word


_STOP_STEMS = frozenset(stem(word) for word in _STOP_WORDS.split())


def action_words(captions: Sequence[str], max_words: int = 20) -> dict[str, str]:
    """The most frequent action words of some captions: stem -> its most frequent -s or -ing form.

    Most frequent first, at most `max_words`.
    """
    caption_counts: Counter[str] = Counter()
    uses: Counter[str] = Counter()
    verb_forms: dict[str, Counter[str]] = {}
    for caption in captions:
        caption_words = words(caption)
        caption_counts.update({stem(word) for word in caption_words})
        for word in caption_words:
            uses[stem(word)] += 1
            if word.endswith(("s", "ing")) and not word.endswith("ss"):
                verb_forms.setdefault(stem(word), Counter())[word] += 1
    actions = [
        name
        for name, forms in verb_forms.items()
        if caption_counts[name] >= MIN_COUNT
        and name not in _STOP_STEMS
        and name.isalpha()
        and forms.total() >= MIN_VERB_SHARE * uses[name]
    ]
    actions.sort(key=lambda name: (-caption_counts[name], name))
    return {
        name: max(verb_forms[name], key=lambda form: (verb_forms[name][form], form))
        for name in actions[:max_words]
    }


def actions_in(caption: str, actions: dict[str, str]) -> list[str]:
    """The stems of a caption that are among `actions`, in the caption's order."""
    stems = (stem(word) for word in words(caption))
    return list(dict.fromkeys(name for name in stems if name in actions))
