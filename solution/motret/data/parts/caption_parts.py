"""What a caption says of each part of the body: its clauses, sorted by the parts that they name."""

import re
from collections.abc import Iterable

from motret.formats.gar import PartDescriptions
from motret.skeleton import PARTS

_LIMBS = {
    "arm": r"arms?|forearms?|hands?|elbows?|wrists?|fists?|palms?|fingers?",
    "leg": r"legs?|foot|feet|knees?|heels?|toes?|ankles?|thighs?|shins?",
}
_LIMB = "|".join(_LIMBS.values())
_PLURAL = (
    r"arms|forearms|hands|elbows|wrists|fists|palms|fingers"
    r"|legs|feet|knees|heels|toes|ankles|thighs|shins"
)
_ARTICLE = r"(?:(?:the|his|her|their|its|a|an)\s+)?"

# limbs: "his right or left arm", "both arms and legs", "raises arms", "arms"
_SIDED = re.compile(
    rf"\b(?P<side>right|left)\b(?:\s+(?:and|or)\s+{_ARTICLE}(?P<other>right|left)\b)?"
    r"(?:\s+(?:upper|lower|front|back|bent|straight))*"
    rf"[\s-]+(?P<limb>{_LIMB})\b(?![\s-]+side)(?:\s+and\s+(?P<more>{_LIMB})\b)?",
    re.I,
)
_BOTH = re.compile(
    rf"\b(?:both|two|the|his|her|their|its)\s+(?:two\s+)?(?P<limb>{_PLURAL})\b"
    rf"(?:\s+and\s+(?P<more>{_PLURAL})\b)?",
    re.I,
)
_AFTER_VERB = re.compile(
    r"\b(?:claps?|clapping|puts?|putting|places?|placing|shakes?|shaking|holds?|holding|joins?"
    r"|joining|raises?|raising|lifts?|lifting|waves?|waving|crosses|crossing|swings?|swinging"
    r"|stretches|stretching|spreads?|spreading|lowers?|lowering|bends?|bending|with)"
    rf"\s+(?P<limb>{_PLURAL})\b",
    re.I,
)
_ALONE = re.compile(
    r"(?<!left )(?<!right )\b(?P<limb>arms|forearms|elbows|wrists|fists|legs|knees|thighs)\b", re.I
)
_FEET_AS_MEASURE = re.compile(
    r"\btwo\s+feet\s+(?:away|apart|forwards?|back|backwards?|ahead|to|of|from|long|high|left|right)\b",
    re.I,
)

# a part that is a place, not what moves: "above the head", "on his knees"
_POSSESSIVES = r"(?:(?:the|his|her|their|its|own)\s+)*"
_PLACE = re.compile(
    r"\b(?:to|towards?|of|against|at|behind|above|over|near|around|between)\s+"
    + _POSSESSIVES
    + "$",
    re.I,
)
_ON = re.compile(rf"\b(?:on|onto)\s+{_POSSESSIVES}$", re.I)

# the torso, by its words and by what only it does
_TORSO = re.compile(
    r"\b(?:torso|trunk|upper\s+body|waist|chest|spine|hips|head)\b(?![\s-]+(?:high|height|level)\b)",
    re.I,
)
_TORSO_VERB = re.compile(
    r"\b(?:(?:bends?|bending)\s+(?:deeply\s+|slightly\s+)?"
    r"(?:forwards?|backwards?|over|down|sideways|to\s+the\s+(?:left|right)|at\s+the\s+waist)"
    r"|bows?|bowing|(?:leans?|leaning)|squats?|squatting|crouch(?:es|ing)?|(?:sits?|sitting)"
    r"|(?:turns?|turning|spins?|spinning|twists?|twisting|rotates?|rotating)"
    r"(?:\s+(?:around|round|back|left|right|sideways|to\s+(?:the|his|her|their)\s+(?:left|right))\b"
    r"|\s*$))(?!\w)",
    re.I,
)

CONTEXT_SIZE = 128
"""Characters before a part that tell whether it is a place."""

# where a clause ends
_VERB = (
    "raise|lift|lower|kick|punch|wave|clap|bend|stretch|swing|hold|put|place|point|push|pull|throw"
    "|catch|grab|reach|touch|shake|turn|spin|twist|lean|bow|squat|crouch|sit|stand|step|walk|run"
    "|jump|hop|move|rotate|step|bring|take|use|extend|straighten|dance|march|start|stop"
)
_CLAUSE_END = re.compile(
    r"[.,;:!?]+|\b(?:and\s+then|then|while|whereas|before|after|but|when)\b"
    rf"|\band\b(?=\s+(?:\w+ly\s+)?(?:(?:{_VERB})(?:s|es|ing|ed)?\b"
    r"|sits|sitting|the\s+other|one\s+|someone|another|raising|moving|waving))",
    re.I,
)


def parts_from_caption(caption: str) -> PartDescriptions:
    """The clauses of a caption that name each part; None for the parts it does not name.

    A limb counts with its side ("the left leg") or as a pair ("both arms"); "a hand" does not say
    which. A limb or the head as a place ("above the head", "to the left knee") does not count. The
    torso is named by its own words or by what only it does ("bends forward").
    """
    clauses_of: dict[str, list[str]] = {part: [] for part in PARTS}
    for clause in map(str.strip, _CLAUSE_END.split(caption)):
        for part in _named_parts(clause):
            clauses_of[part].append(clause)
    return {part: ", ".join(clauses) or None for part, clauses in clauses_of.items()}


def _named_parts(clause: str) -> set[str]:
    """The parts that a clause names."""
    parts: set[str] = set()
    for match in _SIDED.finditer(clause):
        if not _stands_before(_PLACE, clause, match.start()):
            sides = [side.lower() for side in (match["side"], match["other"]) if side]
            parts |= _limb_parts(sides, (match["limb"], match["more"]))
    for match in (*_BOTH.finditer(clause), *_AFTER_VERB.finditer(clause), *_ALONE.finditer(clause)):
        is_measure = _FEET_AS_MEASURE.match(clause, match.start())
        if not is_measure and not _stands_before(_PLACE, clause, match.start()):
            parts |= _limb_parts(("left", "right"), (match["limb"], match.groupdict().get("more")))
    if _TORSO_VERB.search(clause) or any(
        not any(_stands_before(pattern, clause, match.start()) for pattern in (_PLACE, _ON))
        for match in _TORSO.finditer(clause)
    ):
        parts.add("torso")
    return parts


def _stands_before(pattern: re.Pattern[str], clause: str, end: int) -> bool:
    """Whether a pattern that ends in `$` matches what stands before a position of a clause.

    It sees no more than `CONTEXT_SIZE` characters, so that the work grows with the clause and no
    faster.
    """
    return bool(pattern.search(clause, max(0, end - CONTEXT_SIZE), end))


def _limb_parts(sides: Iterable[str], words: Iterable[str | None]) -> set[str]:
    """The parts of these sides that words for limbs name; None names nothing."""
    limbs = [_limb(word) for word in words if word]
    return {f"{side}_{limb}" for side in sides for limb in limbs}


def _limb(word: str) -> str:
    """The limb, "arm" or "leg", that a word names."""
    return next(limb for limb, words in _LIMBS.items() if re.fullmatch(words, word, re.I))
