"""Captions as text: when two of them are the same, which sides one names, and whether it names
persons by their order."""

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_ORDER = re.compile(
    r"\b(?:first|second|1st|2nd|former|latter"
    r"|(?:person|people|actor|individual|man|woman|dancer|player)\s*#?(?:1|2|two|a|b))\b",
    re.I,
)
_SIDE = re.compile(
    r"\b(?:(?P<L>left)|(?P<R>right)|(?P<A>(?:counter|anti) ?clockwise)|(?P<C>clockwise))"
)
_OPPOSITE = str.maketrans("LRAC", "RLCA")


def words(caption: str) -> list[str]:
    """The words of a caption in lower case, without punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", caption).lower())


def normalize(caption: str) -> str:
    """The form in which captions are compared: case, punctuation and spacing do not count."""
    return " ".join(words(caption))


def mentions_person_order(caption: str) -> bool:
    """Whether a caption may name persons by their order ("the first person", "person 2").

    A "first" of time counts too, to be safe.
    """
    return bool(_ORDER.search(caption))


def named_sides(caption: str) -> str:
    """The sides a caption names, in order, without repetitions: L, R, A (counterclockwise) or C
    (clockwise) each."""
    sides = "".join(match.lastgroup or "" for match in _SIDE.finditer(normalize(caption)))
    return re.sub(r"(.)\1+", r"\1", sides)


def opposite_sides(sides: str) -> str:
    """What `named_sides` gives for the same caption in the mirror."""
    return sides.translate(_OPPOSITE)
