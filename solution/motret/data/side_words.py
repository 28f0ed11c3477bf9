"""Words that may name a side, and what a "left" or a "right" means in its context.

"Right" also means straight, at once and correct, and "left" also means gone away. The rules see "@"
in place of every "left" and "right", so that they decide the same in a caption and in its mirror.
"""

import functools
import re
import string
from dataclasses import dataclass
from enum import Enum

_PAIRS = {
    "left": "right",
    "lefts": "rights",
    "leftward": "rightward",
    "leftwards": "rightwards",
    "leftmost": "rightmost",
    "lefthand": "righthand",
    "lefthanded": "righthanded",
    "leftside": "rightside",
    "clockwise": "counterclockwise",
    "clock-wise": "counter-clockwise",
    "clock wise": "counter clockwise",
}
"""Each spelling has one on the other side, so that it comes back; "anticlockwise" has none."""
OPPOSITE = _PAIRS | {right: left for left, right in _PAIRS.items()}
"""Each side word in lower case and the word for the other side."""

_END, _START = r"(?![^\W_])", r"(?<![^\W_])"
WORD = re.compile(rf"(?:(?:counter|anti)[\s-]?)?clock[\s-]?wise{_END}|[^\W_]+", re.I)
OCLOCK = re.compile(rf"o['’]?\s?clock{_END}", re.I)


# ---- which words may name a side


_NO_SIDE = re.compile(
    r"(?:up|out|down|forth|al?|b|f|w|play|copy|birth|sta?)right\w*"
    r"|right(?:ed|ing|eous\w*|ful\w*|ly)|cleft\w*|leftovers?|clock(?:s|ed)?"
)
"""Words with "left", "right" or "clock" in them that name no side; "stright" is how some write
"straight"."""
_CORRECT = re.compile(
    "(?:left|right)s?|lefty|[cdhrw]?eft|cleft|l[io]ft|le[ens]?t|[abfw]?right|[befhlmnstw]ight"
)
"""Words one letter away from "left" or "right" that are words of their own."""


def _typos(word: str) -> set[str]:
    """All words that one wrong, missing, additional or swapped letter makes of a word."""
    splits = [(word[:index], word[index:]) for index in range(len(word) + 1)]
    letters = string.ascii_lowercase
    missing = {head + tail[1:] for head, tail in splits if tail}
    swapped = {head + tail[1] + tail[0] + tail[2:] for head, tail in splits if len(tail) > 1}
    replaced = {head + letter + tail[1:] for head, tail in splits if tail for letter in letters}
    added = {head + letter + tail for head, tail in splits for letter in letters}
    return missing | swapped | replaced | added


_MISSPELT = frozenset(
    word for word in _typos("left") | _typos("right") if not _CORRECT.fullmatch(word)
)


@functools.lru_cache(1 << 16)
def may_name_side(word: str) -> bool:
    """Whether a word may name a side: a side word, a misspelt one, or one run together with another
    word."""
    word = word.lower()
    if word in OPPOSITE or word in _MISSPELT or word.endswith("kwise"):
        return True
    has_side = "left" in word or "right" in word or "clock" in word
    return has_side and not _NO_SIDE.fullmatch(word)


# ---- what may stand before and after a "left" or "right", which is "@" in these patterns


_BODY = (
    r"(?:(?:upper|lower|fore|mid|index|big|outer|inner|front|back|rear)[\s-]*)?"
    r"(?:hand(?:s|ed|edly|rail)?|(?:fore|upper)?arms?|armpits?|leg(?:s|ged)?|foot(?:ed)?|feet|knees?"
    r"|elbows?|shoulders?|wrists?|ankles?|hips?|side[sd]?|ears?|eyes?|cheeks?|palms?|fists?|fingers?"
    r"|thumbs?|thighs?|calf|calves|shins?|heels?|toes?|biceps?|triceps?|ribs?|limbs?|buttocks?|chest"
    r"|shoes?|socks?|boots?|gloves?|pockets?|hooks?|jabs?|punch(?:es)?|(?:side)?kicks?|uppercuts?)"
)
_GAP = r"[^\w@]+"
_JOINING = r"(?:and|or|then|to|than|over|n|vs|versus)"
_LATERAL = (
    r"(?:turn|veer|pivot|twist|lean|bank|bend|sway|drift|tilt|swivel|side\s?step|shift|strafe|slide"
    r"|shuffle|dodge|swerve|rotate|curve|face|spin)(?:s|e?d|ing)?|bent|spun|slid|spinning"
    r"|sidestepp(?:ed|ing)|(?:straf|slid|shuffl|dodg|swerv|rotat|curv|fac)ing"
)


def _before(words: str) -> re.Pattern[str]:
    return re.compile(rf"{_START}(?:{words})\s+$")


def _after(words: str) -> re.Pattern[str]:
    return re.compile(rf"\s+(?:{words}){_END}")


_BEFORE = {
    "owner": re.compile(  # the @, his @, to the far @, an open @, somebody's @
        rf"{_START}(?:(?:the|his|her|their|thier|there|its|it['’]s|your|my|our|own|both|tot?\s+he|to"
        r"|from|towards?|of|with|behind|onto)[\s-]+"
        r"(?:far\s+)?|(?:top|bottom|upper|lower|front|rear|far|diagonal|diagonally|slightly|more)"
        r"[\s-]+|an?\s+[^\W_]+\s+)$"
        r"|(?:['’]s|s['’])\s+$"
    ),
    "lateral verb": _before(rf"(?:{_LATERAL})(?:\s+to)?"),
    "other side": re.compile(  # @ and @, @ leg over @, @/@
        rf"@(?:{_GAP}{_BODY})?(?:{_GAP}{_JOINING}){{1,3}}{_GAP}$|@\s*[,/&+-]\s*$"
    ),
    "all": _before(r"all|that['’]?s"),
    "the": _before("the"),
    "up": re.compile(rf"{_START}up[\s-]+$"),
    "upright": re.compile(  # stands up @, an up @
        rf"{_START}(?:(?:stand|stood|sit|sat|get|got|stay)(?:s|ed|ing|ting)?\s+(?:back\s+)?|an?\s+)"
        rf"up[\s-]+$|{_START}up-$"
    ),
    "going": _before(
        r"(?:walk|step|stepp|move|mov|run|runn|jump|hop|hopp|go|jog|jogg|skip|march|limp|crawl)"
        r"(?:s|es|e?d|ing)?|went|ran"
    ),
    "beginning": re.compile(rf"(?:^|[,.;:]\s*|{_START}(?:and|but|just)\s+)$"),
    "being": _before("is|are|was|were|be|been|being|gets?|got|has|have|had|having"),
    "somebody": _before(
        "person|man|woman|boy|girl|guy|he|she|they|who|figure|someone|somebody|people|character"
        "|individual|actor|dancer|player|other|everyone|everybody"
    ),
}
_AFTER = {
    "body": re.compile(rf"(?:[\s_-]+|{_GAP}s\s+){_BODY}{_END}"),
    "other side": re.compile(
        rf"{_GAP}(?:{_JOINING}{_GAP}){{1,3}}(?:(?:the|his|her|their){_GAP})?@|\s*[,/&+-]+\s*@"
    ),
    "angle": re.compile(r"[\s-]+angle"),
    "correct": re.compile(  # the @ way, the @ moment
        rf"[\s-]+(?:way|times?|moments?|place|spot|order|answer|amount|timing|distance){_END}"
    ),
    "side up": re.compile(rf"[\s-]+side[\s-]+up{_END}"),
    "at once": _after(r"away(?!\s+from)|now|here|there|back\s+up"),
    "near": _after(
        r"behind|beside|besides|next\s+to|in\s+(?:front|the\s+(?:middle|cent(?:er|re))|between)"
        r"|between|near|close"
    ),
    "when": _after("after|afterwards|before|when|where|as|at|once"),
    "way": _after(
        r"up|down|over|through|into|onto|on\s+top|across|past|along|against|opposite|off|out|by|above"
        r"|below|under|underneath"
    ),
    "back": _after("back|around|away"),
    "soon": _after("after|afterwards|away|back|now"),
    "then": _after("then"),
    "posture": _after("position|posture|stance"),
    "of": _after("of"),
    "object": _after("the|his|her|their|its|him|them|it|alone"),
    "leaving": re.compile(
        rf"\s*(?:$|[.,;:!?])|\s+(?:the|his|her|their|its|him|them|it|and|then|before|after|again|alone"
        rf"|through|by|from|for|with){_END}"
    ),
}
CONTEXT_SIZE = 64
"""Characters before and after a word that the rules see, so that the work grows with the text and
no faster."""
RULES = (
    OPPOSITE,
    sorted(_MISSPELT),
    CONTEXT_SIZE,
    [rule.pattern for rule in (WORD, OCLOCK, _NO_SIDE, *_BEFORE.values(), *_AFTER.values())],
)
"""All tables and patterns of this module, to be hashed."""


@dataclass(frozen=True)
class Context:
    """The text before and after a word, in lower case, with "@" for every "left" and "right"."""

    before: str
    after: str

    def follows(self, *names: str) -> bool:
        """Whether the word follows what one of these patterns of `_BEFORE` describes."""
        return any(_BEFORE[name].search(self.before) for name in names)

    def precedes(self, *names: str) -> bool:
        """Whether the word precedes what one of these patterns of `_AFTER` describes."""
        return any(_AFTER[name].match(self.after) for name in names)


# ---- what a "left" or "right" means


class Meaning(Enum):
    """What a word means; NO_SIDE_ALONE: no side, unless another word of the caption names one."""

    SIDE = "a side"
    NO_SIDE = "something else"
    NO_SIDE_ALONE = "something else, unless a side is named elsewhere in the caption"
    UNCERTAIN = "one or the other"


def meaning_of(word: str, context: Context) -> Meaning:
    """What a "left" or "right" means: a side only where the other of the two would mean one too."""
    right, left = _meaning_of_right(context), _meaning_of_left(context)
    if right is left is Meaning.SIDE:
        return Meaning.SIDE
    meaning = right if word == "right" else left
    return Meaning.UNCERTAIN if meaning is Meaning.SIDE else meaning


def _meaning_of_right(context: Context) -> Meaning:
    """What "right" would mean: straight ("right behind"), at once, correct, a square angle, the end
    of "upright", or a side."""
    follows, precedes = context.follows, context.precedes
    if precedes("angle") or (precedes("side up") and not follows("owner")):
        return Meaning.NO_SIDE  # at a right angle, right side up
    if precedes("correct"):  # the right way
        return Meaning.NO_SIDE if follows("the") else Meaning.UNCERTAIN
    if precedes("body"):  # right hand
        return Meaning.SIDE
    if follows("all", "upright") or (follows("up") and precedes("posture")):
        return Meaning.NO_SIDE  # all right, stands up right
    if follows("owner"):  # to the right
        return Meaning.SIDE
    if follows("other side") or precedes("other side"):  # left and right
        return Meaning.UNCERTAIN if precedes("soon") else Meaning.SIDE
    if precedes("at once"):  # right away
        return Meaning.NO_SIDE
    if precedes("back") or follows("up") or (precedes("then") and follows("beginning")):
        return Meaning.UNCERTAIN  # steps right back
    if follows("lateral verb") or not precedes("near", "when", "way"):  # turns right
        return Meaning.SIDE
    if precedes("way") or (precedes("when") and follows("going")):  # moves right up, steps right at
        return Meaning.UNCERTAIN
    return Meaning.NO_SIDE_ALONE  # right behind, right after


def _meaning_of_left(context: Context) -> Meaning:
    """What "left" would mean: gone away, remaining, or a side."""
    if context.precedes("body", "of", "other side"):  # left hand, left of, left and right
        return Meaning.SIDE
    if context.follows("owner", "lateral verb", "other side"):  # to the left, turns left
        return Meaning.SIDE
    if context.follows("being"):  # is left, has left
        return Meaning.NO_SIDE
    if context.follows("somebody"):  # the person left the room
        return Meaning.NO_SIDE if context.precedes("leaving") else Meaning.UNCERTAIN
    return Meaning.NO_SIDE_ALONE if context.precedes("object") else Meaning.SIDE
