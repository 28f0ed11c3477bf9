"""Captions in the mirror: left and right change places, clockwise and counterclockwise too, wherever a side is meant.

"Right" also means straight, at once and correct, and "left" is what somebody did who leaves: such words stay. What is meant is told by
the words before and after, so a few captions are misread; where a caption says nothing else of sides that does no harm.
"""

import re

_SWAPS = {
    "left": "right",
    "lefts": "rights",
    "leftward": "rightward",
    "leftwards": "rightwards",
    "leftmost": "rightmost",
    "lefthand": "righthand",
    "lefthanded": "righthanded",
    "clockwise": "counterclockwise",
}
_OTHER = _SWAPS | {there: here for here, there in _SWAPS.items()}
_TURNING = r"(?:counter|anti)[\s-]?clockwise"
_SIDE = re.compile(rf"(?<![^\W_]){_TURNING}(?![^\W_])|(?<![^\W_])(?:{'|'.join(_OTHER)})(?![^\W_])", re.I)

_POINTING = r"(?:the|his|her|their|its|your|my|own|to|left|(?:left|right)\W+(?:and|or|then|to)(?:\W+then)?)"
_VEERING = (
    r"(?:(?:turn|veer|pivot|twist|lean|bank)(?:s|ed|ing)?|(?:swerv|rotat|curv)(?:e|es|ed|ing)|spin(?:s|ning)?|spun|facing|faces?)(?:\W+to)?"
)
_SURELY_SIDE = re.compile(rf"(?<![^\W_])(?:{_POINTING}|{_VEERING})\W+$", re.I)
"""Before the word: what makes it a side whatever follows."""
_STRAIGHT = re.compile(
    r"\W+(?:away|after|afterwards|before|behind|beside|besides|next\s+to|in\s+(?:front|the\s+(?:middle|cent(?:er|re))|between)|here|there|now"
    r"|then|when|where|at|up|down|above|below|under|underneath|over|through|into|onto|on\s+top|across|past|along|against|opposite|between"
    r"|off|out|by|near|close)(?![^\W_])",
    re.I,
)
"""After "right": straight, at once."""
_CORRECT = re.compile(
    r"[\s-]+(?:way|times?|moments?|place|spot|order|answer|amount|angled?|angles|timing|distance|side\s+up)(?![^\W_])", re.I
)
_ALL_RIGHT = re.compile(r"(?<![^\W_])(?:all|that'?s)\s+$", re.I)
_OBJECT = re.compile(r"\s+(?:the|his|her|their|its|him|them|it|alone)(?![^\W_])", re.I)
"""After "left": what somebody left, or how."""
_BEING = re.compile(r"(?<![^\W_])(?:is|are|was|were|be|been|being|gets?|got|has|have|had|having)\s+$", re.I)
_PLACE = re.compile(
    r"(?:\W+(?:and|or|to)\W+right|[\s-]+(?:of|side|hand|handed|arm|leg|foot|knee|elbow|shoulder|hip|fist|palm|wrist|heel))", re.I
)


def mirror(text: str) -> str:
    """The text of the mirrored motion; capitals stay where they are.

    Twice gives the text again, but for "anticlockwise" and the like, which come back as "counterclockwise", and for a "left" in a place
    where "right" would mean something else ("kicks left up").
    """
    return _SIDE.sub(lambda match: _swapped(match) if _is_side(match) else match[0], text)


def _is_side(match: re.Match[str]) -> bool:
    word, before, after = match[0].lower(), match.string[: match.start()], match.string[match.end() :]
    if word == "right":
        if _CORRECT.match(after) or _ALL_RIGHT.search(before):
            return False
        return bool(_SURELY_SIDE.search(before)) or not _STRAIGHT.match(after)
    if word == "left":
        if _BEING.search(before):
            return bool(_PLACE.match(after))
        return bool(_SURELY_SIDE.search(before)) or not _OBJECT.match(after)
    return True


def _swapped(match: re.Match[str]) -> str:
    word = match[0]
    other = _OTHER.get(word.lower(), "clockwise")
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other
