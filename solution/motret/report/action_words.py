"""Action words: categories of captions that come from the captions themselves.

A word's stem is what is left of it without an ending (-s, -es, -ed, -ing), a doubled last letter, -e or -y, so that "waves" and
"waving" are one word. A stem is an action word where it stands in at least `LEAST` captions, is no word of the stop list (persons,
bodies, places, numbers, words without content), and ends in -s or -ing in at least a fifth of its uses, as verbs do and most
adjectives and singular nouns do not. A caption belongs to every action word in it.
"""

from collections import Counter
from collections.abc import Sequence

from motret.data.captions import words

MIN_COUNT = 3
MIN_VERB_SHARE = 0.2
"""Share of a stem's uses that end in -s or -ing from which on it counts as an action."""

_NO_ACTIONS = """
a about above across after again against ahead all along also an and another any apart are around as at away back backs backward
backwards be because been before behind being below beside between both but by can clockwise close counter counterclockwise did
different direction directions do does doing done down during each either end enough even every far fast few first for forward
forwards from front goes gets get getting got had half has have having he her here high him his how i if in inside into is it its
itself just keeps keep keeping left less line lines little lot lots low makes make making many middle more most much near next no
normal not nothing of off on once one ones onto opposite or other others out outside over own pace place places quick quickly quite rather
right round same second seconds several she side sides sideways slight slightly slow slowly small so some something spot start
starts starting still style than that the their them themselves then there they thing things third this three through time times
to together too toward towards twice two under until up upon upper upward upwards use uses using very was way ways well were what
when where which while who with without
person persons people someone somebody man woman men women human humans partner partners pair couple guy
arm arms body bodies chest elbow elbows face faces facing feet finger fingers fist fists foot forearm forearms hand hands head
heads heel heels hip hips knee knees leg legs palm palms shoulder shoulders thigh thighs toe toes torso waist wrist wrists
air ball degree degrees distance energy floor form ground height level look looks movement movements pose poses
position positions shape step-by-step set sets
"""


def stem(word: str) -> str:
    """What a word has in common with its other forms."""
    for ending in ("ing", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 2 and not word.endswith("ss"):
            word = word.removesuffix(ending)
            break
    word = word.removesuffix("e") if len(word) > 2 else word
    word = word[:-1] if len(word) > 2 and word[-1] == word[-2] else word
    return word[:-1] if len(word) > 2 and word[-1] in "iy" else word


_STOPPED = frozenset(stem(word) for word in _NO_ACTIONS.split())


def action_words(captions: Sequence[str], most: int = 20) -> dict[str, str]:
    """Stem -> its commonest form in -s or -ing, of the `most` commonest action words of some captions, commonest first."""
    seen: Counter[str] = Counter()
    uses: Counter[str] = Counter()
    verbal: dict[str, Counter[str]] = {}
    for caption in captions:
        said = words(caption)
        seen.update({stem(word) for word in said})
        for word in said:
            uses[stem(word)] += 1
            if word.endswith(("s", "ing")) and not word.endswith("ss"):
                verbal.setdefault(stem(word), Counter())[word] += 1
    kept = [
        name
        for name, forms in verbal.items()
        if seen[name] >= MIN_COUNT and name not in _STOPPED and name.isalpha() and forms.total() >= MIN_VERB_SHARE * uses[name]
    ]
    kept.sort(key=lambda name: (-seen[name], name))
    return {name: max(verbal[name], key=lambda form: (verbal[name][form], form)) for name in kept[:most]}


def actions_in(caption: str, actions: dict[str, str]) -> list[str]:
    """The stems among `actions` that a caption holds, in its own order."""
    return list(dict.fromkeys(name for word in words(caption) if (name := stem(word)) in actions))
