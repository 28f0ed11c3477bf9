"""Captions in the mirror: left and right change places, clockwise and counterclockwise too, wherever a side is meant.

"Right" also means straight, at once and correct, and "left" is what somebody did who went away: such words stay. A caption is decided
as a whole: each of its side words changes or stays for a reason, or the caption is not mirrored at all (None).

The rules see "@" in place of every "left" and "right", so they see the same in a caption and in its mirror; and a word changes only
where it would mean a side whichever of the two stood there. That makes mirroring its own inverse.
"""

import functools
import itertools
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from motret.utils import files

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
"""Each spelling has one of its own on the other side, so that it comes back; "anticlockwise" has none."""
_OTHER = _PAIRS | {there: here for here, there in _PAIRS.items()}

_END, _START = r"(?![^\W_])", r"(?<![^\W_])"
_WORD = re.compile(rf"(?:(?:counter|anti)[\s-]?)?clock[\s-]?wise{_END}|[^\W_]+", re.I)
_OCLOCK = re.compile(rf"o['’]?\s?clock{_END}", re.I)
_NO_SIDE = re.compile(
    r"(?:up|out|down|forth|al?|b|f|w|play|copy|birth|sta?)right\w*|right(?:ed|ing|eous\w*|ful\w*|ly)|cleft\w*|leftovers?|clock(?:s|ed)?"
)
"""Words with "left", "right" or "clock" in them that name no side; "stright" is how some write "straight"."""
_SPELT_WELL = re.compile("(?:left|right)s?|lefty|[cdhrw]?eft|cleft|l[io]ft|le[ens]?t|[abfw]?right|[befhlmnstw]ight")
"""Words one letter away from "left" or "right"."""

_BODY = (
    r"(?:(?:upper|lower|fore|mid|index|big|outer|inner|front|back|rear)[\s-]*)?"
    r"(?:hand(?:s|ed|edly|rail)?|(?:fore|upper)?arms?|armpits?|leg(?:s|ged)?|foot(?:ed)?|feet|knees?|elbows?|shoulders?|wrists?|ankles?"
    r"|hips?|side[sd]?|ears?|eyes?|cheeks?|palms?|fists?|fingers?|thumbs?|thighs?|calf|calves|shins?|heels?|toes?|biceps?|triceps?"
    r"|ribs?|limbs?|buttocks?|chest|shoes?|socks?|boots?|gloves?|pockets?|hooks?|jabs?|punch(?:es)?|(?:side)?kicks?|uppercuts?)"
)
_GAP = r"[^\w@]+"
_JOINING = r"(?:and|or|then|to|than|over|n|vs|versus)"
_LATERAL = (
    r"(?:turn|veer|pivot|twist|lean|bank|bend|sway|drift|tilt|swivel|side\s?step|shift|strafe|slide|shuffle|dodge|swerve|rotate|curve"
    r"|face|spin)(?:s|e?d|ing)?|bent|spun|slid|spinning|sidestepp(?:ed|ing)|(?:straf|slid|shuffl|dodg|swerv|rotat|curv|fac)ing"
)


def _before(words: str) -> re.Pattern[str]:
    return re.compile(rf"{_START}(?:{words})\s+$")


def _after(words: str) -> re.Pattern[str]:
    return re.compile(rf"\s+(?:{words}){_END}")


_BEFORE = {
    "owner": re.compile(
        rf"{_START}(?:(?:the|his|her|their|thier|there|its|it['’]s|your|my|our|own|both|tot?\s+he|to|from|towards?|of|with|behind|onto)[\s-]+"
        r"(?:far\s+)?|(?:top|bottom|upper|lower|front|rear|far|diagonal|diagonally|slightly|more)[\s-]+|an?\s+[^\W_]+\s+)$"
        r"|(?:['’]s|s['’])\s+$"
    ),
    "lateral verb": _before(rf"(?:{_LATERAL})(?:\s+to)?"),
    "other side": re.compile(rf"@(?:{_GAP}{_BODY})?(?:{_GAP}{_JOINING}){{1,3}}{_GAP}$|@\s*[,/&+-]\s*$"),
    "all": _before(r"all|that['’]?s"),
    "the": _before("the"),
    "up": re.compile(rf"{_START}up[\s-]+$"),
    "upright": re.compile(
        rf"{_START}(?:(?:stand|stood|sit|sat|get|got|stay)(?:s|ed|ing|ting)?\s+(?:back\s+)?|an?\s+)up[\s-]+$|{_START}up-$"
    ),
    "going": _before(r"(?:walk|step|stepp|move|mov|run|runn|jump|hop|hopp|go|jog|jogg|skip|march|limp|crawl)(?:s|es|e?d|ing)?|went|ran"),
    "beginning": re.compile(rf"(?:^|[,.;:]\s*|{_START}(?:and|but|just)\s+)$"),
    "being": _before("is|are|was|were|be|been|being|gets?|got|has|have|had|having"),
    "somebody": _before(
        "person|man|woman|boy|girl|guy|he|she|they|who|figure|someone|somebody|people|character|individual|actor|dancer|player"
        "|other|everyone|everybody"
    ),
}
"""What may stand before a side word."""
_AFTER = {
    "body": re.compile(rf"(?:[\s_-]+|{_GAP}s\s+){_BODY}{_END}"),
    "other side": re.compile(rf"{_GAP}(?:{_JOINING}{_GAP}){{1,3}}(?:(?:the|his|her|their){_GAP})?@|\s*[,/&+-]+\s*@"),
    "angle": re.compile(r"[\s-]+angle"),
    "correct": re.compile(rf"[\s-]+(?:way|times?|moments?|place|spot|order|answer|amount|timing|distance){_END}"),
    "side up": re.compile(rf"[\s-]+side[\s-]+up{_END}"),
    "at once": _after(r"away(?!\s+from)|now|here|there|back\s+up"),
    "near": _after(r"behind|beside|besides|next\s+to|in\s+(?:front|the\s+(?:middle|cent(?:er|re))|between)|between|near|close"),
    "when": _after("after|afterwards|before|when|where|as|at|once"),
    "way": _after(r"up|down|over|through|into|onto|on\s+top|across|past|along|against|opposite|off|out|by|above|below|under|underneath"),
    "back": _after("back|around|away"),
    "soon": _after("after|afterwards|away|back|now"),
    "then": _after("then"),
    "posture": _after("position|posture|stance"),
    "of": _after("of"),
    "object": _after("the|his|her|their|its|him|them|it|alone"),
    "leaving": re.compile(
        rf"\s*(?:$|[.,;:!?])|\s+(?:the|his|her|their|its|him|them|it|and|then|before|after|again|alone|through|by|from|for|with){_END}"
    ),
}
"""What may stand after it."""
_WINDOW = 64
"""Characters before and after a word that are looked at, so that the work grows with the text and no faster."""


def _misspelt(word: str) -> set[str]:
    """What one slip of the finger makes of a word."""
    cuts = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    slips = {a + b[1:] for a, b in cuts if b} | {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    slips |= {a + letter + b[1:] for a, b in cuts if b for letter in string.ascii_lowercase}
    return slips | {a + letter + b for a, b in cuts for letter in string.ascii_lowercase}


_SLIPS = frozenset(word for word in _misspelt("left") | _misspelt("right") if not _SPELT_WELL.fullmatch(word))


class _Sense(Enum):
    SIDE = "a side"
    OTHER = "something else"
    SOFT = "something else, unless a side is named elsewhere in the caption"
    DOUBT = "one or the other"


_CODE = 1  # raise it with any change of the rules that no table or pattern shows
RULES = files.content_hash(
    _CODE, _OTHER, sorted(_SLIPS), _WINDOW, [rule.pattern for rule in (_WORD, _OCLOCK, _NO_SIDE, *_BEFORE.values(), *_AFTER.values())]
)
"""Changes with the rules of this module: part of the key of whatever is kept of mirrored captions."""


@functools.lru_cache(1 << 17)
def mirror_caption(text: str) -> str | None:
    """The text of the mirrored motion, capitals as they were; None where it is not certain which of its words change.

    Whatever is not None comes back: `mirror(mirror(text)) == text`. A text that names no side is its own mirror.
    """
    mirrored = _exchange(text)
    return None if mirrored is None or _exchange(mirrored) != text else mirrored


def mirror_captions(texts: Iterable[str]) -> dict[str, str]:
    """The mirror of each text that has one."""
    return {text: mirrored for text in texts if (mirrored := mirror_caption(text)) is not None}


def _exchange(text: str) -> str | None:
    words = [match for match in _WORD.finditer(text) if _may_be_side(match[0])]
    if any(match[0].lower() not in _OTHER for match in words) or _OCLOCK.search(text):
        return None
    edges = [0, *(edge for match in words for edge in match.span()), len(text)]
    gaps = [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
    senses = _senses([gap.lower() for gap in gaps], [match[0].lower() for match in words])
    if _Sense.DOUBT in senses or (_Sense.SIDE in senses and _Sense.SOFT in senses):
        return None
    said = [_swapped(match[0]) if sense is _Sense.SIDE else match[0] for match, sense in zip(words, senses, strict=True)]
    return _woven(gaps, said)


@functools.lru_cache(1 << 16)
def _may_be_side(word: str) -> bool:
    """Whether a word may name a side: a known one, a misspelt one, or one run together with another word."""
    word = word.lower()
    if word in _OTHER or word in _SLIPS or word.endswith("kwise"):
        return True
    return ("left" in word or "right" in word or "clock" in word) and not _NO_SIDE.fullmatch(word)


def _senses(gaps: Sequence[str], words: Sequence[str]) -> list[_Sense]:
    """What each side word means; gaps: the text before, between and after them, in lower case as they are."""
    marks = ["@" if word in ("left", "right") else "@s" for word in words]
    text = _woven(gaps, marks)
    found = []
    end = 0
    for gap, word, mark in zip(gaps, words, marks, strict=False):
        start = end + len(gap)
        end = start + len(mark)
        context = _Context(text[max(0, start - _WINDOW) : start], text[end : end + _WINDOW])
        found.append(_sense(word, context) if mark == "@" else _Sense.SIDE)
    return found


@dataclass(frozen=True)
class _Context:
    """The text before and after a side word."""

    before: str
    after: str

    def follows(self, *names: str) -> bool:
        """Whether the word follows what one of these patterns describes."""
        return any(_BEFORE[name].search(self.before) for name in names)

    def precedes(self, *names: str) -> bool:
        return any(_AFTER[name].match(self.after) for name in names)


def _sense(word: str, context: _Context) -> _Sense:
    """What a "left" or "right" means; a side only where the other word would mean one too."""
    right, left = _right(context), _left(context)
    if right is left is _Sense.SIDE:
        return _Sense.SIDE
    sense = right if word == "right" else left
    return _Sense.DOUBT if sense is _Sense.SIDE else sense


def _right(context: _Context) -> _Sense:
    """What "right" would mean: straight ("right behind"), at once, correct, a square angle, the end of "upright", or a side."""
    follows, precedes = context.follows, context.precedes
    if precedes("angle") or (precedes("side up") and not follows("owner")):
        return _Sense.OTHER
    if precedes("correct"):
        return _Sense.OTHER if follows("the") else _Sense.DOUBT
    if precedes("body"):
        return _Sense.SIDE
    if follows("all", "upright") or (follows("up") and precedes("posture")):
        return _Sense.OTHER
    if follows("owner"):
        return _Sense.SIDE
    if follows("other side") or precedes("other side"):
        return _Sense.DOUBT if precedes("soon") else _Sense.SIDE
    if precedes("at once"):
        return _Sense.OTHER
    if precedes("back") or follows("up") or (precedes("then") and follows("beginning")):
        return _Sense.DOUBT
    if follows("lateral verb") or not precedes("near", "when", "way"):
        return _Sense.SIDE
    return _Sense.DOUBT if precedes("way") or (precedes("when") and follows("going")) else _Sense.SOFT


def _left(context: _Context) -> _Sense:
    """What "left" would mean: gone away, remaining, or a side."""
    if context.precedes("body", "of", "other side") or context.follows("owner", "lateral verb", "other side"):
        return _Sense.SIDE
    if context.follows("being"):
        return _Sense.OTHER
    if context.follows("somebody"):
        return _Sense.OTHER if context.precedes("leaving") else _Sense.DOUBT
    return _Sense.SOFT if context.precedes("object") else _Sense.SIDE


def _swapped(word: str) -> str:
    other = _OTHER[word.lower()]
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other


def _woven(gaps: Sequence[str], words: Sequence[str]) -> str:
    """Gaps and the words between them as one text."""
    return "".join(piece for pair in itertools.zip_longest(gaps, words, fillvalue="") for piece in pair)
