"""Captions as text: when two of them are the same, which sides one names, and whether it names
persons by their order, or both persons."""

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_ORDER = re.compile(
    r"\b(?:first|second|1st|2nd|former|latter"
    r"|(?:person|people|actor|individual|man|woman|dancer|player)\s*#?(?:1|2|two|a|b))\b",
    re.I,
)
_PERSON = (
    r"(?:person|persons|people|one|man|men|woman|women|guys?|girls?|boys?|figures?|humans?"
    r"|individuals?|actors?|dancers?|players?|partners?|characters?)"
)
_THING = (
    r"(?:arms?|hands?|legs?|foot|feet|knees?|elbows?|shoulders?|fists?|palms?|wrists?|ankles?"
    r"|heels?|toes?|hips?|eyes?|ears?|sides?|ways?|directions?|ends?|times?|steps?|objects?)"
)
"""What "other", "second" and "both" may speak of besides a person."""
_PLACES = re.compile(
    r"\b(?:(?:facing|opposite|next to|apart from|away from|close to|near|backs? to)"
    r" (?:each other|one another)|both (?:looking|facing)"
    r"|one (?:behind|beside|after|in front of) (?:the other|another))\b"
)
"""Where the two are, which says nothing of what the second one does."""
_BOTH_PERSONS = re.compile(
    rf"\b(?:two|2|both|these|the) (?:people|persons|men|women|guys|girls|boys|figures|humans"
    r"|individuals|actors|dancers|players|partners|characters)\b"
    r"|\b(?:each other|one another|together|the two of them|the latter)\b"
    rf"|\bboth(?! (?:\w+ ){{0,2}}{_THING}\b)"
    rf"|\b(?:other|another|second|2nd) {_PERSON}\b"
    r"|\b(?:person|actor|dancer|player) (?:2|two|b)\b"
)
_OTHER = re.compile(
    rf"(?P<thing>\b(?:one|a) {_THING} (?:(?!while|and|the)\w+ ){{0,4}})?"
    rf"\b(?:the other|another|the second|the 2nd)\b(?! {_THING}\b)"
)
_NEW_PERSON = re.compile(
    rf"(?<!like )(?<!as )\b(?:(?:a|an|one) (?!other )(?:\w+ )?{_PERSON}|someone|somebody"
    r"|one of them)\b"
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


def names_both_persons(caption: str) -> bool:
    """Whether a caption says what both persons do, as its words show.

    It does if it has one of these: two or both people; "each other", "one another", "together";
    "both", "the other", "another" or "the second" that is not followed by a part of the body, a
    side, a way or an object; a second person by number; two persons that are each introduced ("a
    man ... a woman"). These say nothing of a second person: where the two are ("facing each
    other"), the other of two limbs ("one foot in front of the other"), a comparison ("like a young
    person").
    """
    text = _PLACES.sub("", normalize(caption))
    if _BOTH_PERSONS.search(text) or len(_NEW_PERSON.findall(text)) > 1:
        return True
    return any(match["thing"] is None for match in _OTHER.finditer(text))


def named_sides(caption: str) -> str:
    """The sides a caption names, in order, without repetitions: L, R, A (counterclockwise) or C
    (clockwise) each."""
    sides = "".join(match.lastgroup or "" for match in _SIDE.finditer(normalize(caption)))
    return re.sub(r"(.)\1+", r"\1", sides)


def opposite_sides(sides: str) -> str:
    """What `named_sides` gives for the same caption in the mirror."""
    return sides.translate(_OPPOSITE)
