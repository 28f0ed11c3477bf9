"""Captions as text: when two of them say the same, which sides one names, and whether it tells the persons by their order."""

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


def words(caption: str) -> list[str]:
    """The words of a caption in lower case, without punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", caption).lower())


def normalise(caption: str) -> str:
    """The form in which captions are compared: case, punctuation and spacing do not count."""
    return " ".join(words(caption))


_ORDER = re.compile(
    r"\b(?:first|second|1st|2nd|former|latter|(?:person|people|actor|individual|man|woman|dancer|player)\s*#?(?:1|2|two|a|b))\b", re.I
)


def mentions_person_order(caption: str) -> bool:
    """Whether a caption may tell the persons by their order ("the first person", "person 2"); a "first" of time counts too, to be safe."""
    return bool(_ORDER.search(caption))


_SIDE = re.compile(r"\b(?:(?P<L>left)|(?P<R>right)|(?P<A>(?:counter|anti) ?clockwise)|(?P<C>clockwise))")
_OPPOSITE = str.maketrans("LRAC", "RLCA")


def named_sides(caption: str) -> str:
    """The sides a caption names in their order, repetitions left out: L, R, A (counterclockwise) or C (clockwise) each."""
    named = "".join(match.lastgroup for match in _SIDE.finditer(normalise(caption)))
    return re.sub(r"(.)\1+", r"\1", named)


def opposite_sides(named: str) -> str:
    """What `caption_mirror` gives for the same caption in the mirror."""
    return named.translate(_OPPOSITE)
