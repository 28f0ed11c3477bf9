"""data.parts.caption_parts."""

import re

from motret.formats.gar import PartDescriptions
from motret.skeleton import PARTS

# ---- captions

_LIMBS = {
    "arm": r"arms?|forearms?|hands?|elbows?|wrists?|fists?|palms?|fingers?",
    "leg": r"legs?|foot|feet|knees?|heels?|toes?|ankles?|thighs?|shins?",
}
_LIMB = "|".join(_LIMBS.values())
_ARTICLE = r"(?:(?:the|his|her|their|its|a|an)\s+)?"
_SIDED = re.compile(
    rf"\b(?P<side>right|left)\b(?:\s+(?:and|or)\s+{_ARTICLE}(?P<other>right|left)\b)?(?:\s+(?:upper|lower|front|back|bent|straight))*"
    rf"[\s-]+(?P<limb>{_LIMB})\b(?![\s-]+side)(?:\s+and\s+(?P<more>{_LIMB})\b)?",
    re.I,
)
_PLURAL = r"arms|forearms|hands|elbows|wrists|fists|palms|fingers|legs|feet|knees|heels|toes|ankles|thighs|shins"
_BOTH = re.compile(rf"\b(?:both|two|the|his|her|their|its)\s+(?:two\s+)?(?P<limb>{_PLURAL})\b(?:\s+and\s+(?P<more>{_PLURAL})\b)?", re.I)
_BARE = re.compile(
    r"\b(?:claps?|clapping|puts?|putting|places?|placing|shakes?|shaking|holds?|holding|joins?|joining|raises?|raising|lifts?|lifting|waves?|waving|crosses|crossing"
    rf"|swings?|swinging|stretches|stretching|spreads?|spreading|lowers?|lowering|bends?|bending|with)\s+(?P<limb>{_PLURAL})\b",
    re.I,
)
_MEASURE = re.compile(r"\btwo\s+feet\s+(?:away|apart|forwards?|back|backwards?|ahead|to|of|from|long|high|left|right)\b", re.I)
_PLACE = re.compile(r"\b(?:to|towards?|of|against|at|behind|above|over|near|around|between)\s+(?:(?:the|his|her|their|its|own)\s+)*$", re.I)
_ON = re.compile(r"\b(?:on|onto)\s+(?:(?:the|his|her|their|its|own)\s+)*$", re.I)
_FREE = re.compile(r"(?<!left )(?<!right )\b(?P<limb>arms|forearms|elbows|wrists|fists|legs|knees|thighs)\b", re.I)
_TRUNK = re.compile(r"\b(?:torso|trunk|upper\s+body|waist|chest|spine|hips|head)\b(?![\s-]+(?:high|height|level)\b)", re.I)
_BODY = re.compile(
    r"\b(?:(?:bends?|bending)\s+(?:deeply\s+|slightly\s+)?(?:forwards?|backwards?|over|down|sideways|to\s+the\s+(?:left|right)|at\s+the\s+waist)"
    r"|bows?|bowing|(?:leans?|leaning)|squats?|squatting|crouch(?:es|ing)?|(?:sits?|sitting)"
    r"|(?:turns?|turning|spins?|spinning|twists?|twisting|rotates?|rotating)"
    r"(?:\s+(?:around|round|back|left|right|sideways|to\s+(?:the|his|her|their)\s+(?:left|right))\b|\s*$))(?!\w)",
    re.I,
)
_VERB = (
    "raise|lift|lower|kick|punch|wave|clap|bend|stretch|swing|hold|put|place|point|push|pull|throw|catch|grab|reach|touch|shake|turn|spin"
    "|twist|lean|bow|squat|crouch|sit|stand|step|walk|run|jump|hop|move|rotate|step|bring|take|use|extend|straighten|dance|march|start|stop"
)
_CUT = re.compile(
    r"[.,;:!?]+|\b(?:and\s+then|then|while|whereas|before|after|but|when)\b"
    rf"|\band\b(?=\s+(?:\w+ly\s+)?(?:(?:{_VERB})(?:s|es|ing|ed)?\b|sits|sitting|the\s+other|one\s+|someone|another|raising|moving|waving))",
    re.I,
)


def parts_from_caption(caption: str) -> PartDescriptions:
    """The clauses of a caption that name each part; None for the parts it does not speak of.

    A limb counts with its side ("the left leg") or as a pair ("both arms"); "a hand" does not say which. A limb or the head as a
    place ("above the head", "to the left knee") counts for nothing. The torso is named by its own words or by what only it does
    ("bends forward").
    """
    found: dict[str, list[str]] = {part: [] for part in PARTS}
    for clause in map(str.strip, _CUT.split(caption)):
        for part in _named_parts(clause):
            found[part].append(clause)
    return {part: ", ".join(clauses) or None for part, clauses in found.items()}


def _named_parts(clause: str) -> set[str]:
    """The parts that a clause names."""
    parts: set[str] = set()
    for match in _SIDED.finditer(clause):
        if not _PLACE.search(clause[: match.start()]):
            limbs = [_limb(word) for word in (match["limb"], match["more"]) if word]
            parts.update(f"{side.lower()}_{limb}" for side in (match["side"], match["other"]) if side for limb in limbs)
    for match in (*_BOTH.finditer(clause), *_BARE.finditer(clause), *_FREE.finditer(clause)):
        if not _PLACE.search(clause[: match.start()]) and not _MEASURE.match(clause, match.start()):
            limbs = [_limb(word) for word in (match["limb"], match.groupdict().get("more")) if word]
            parts.update(f"{side}_{limb}" for side in ("left", "right") for limb in limbs)
    trunk = (match for match in _TRUNK.finditer(clause) if not (_PLACE.search(before := clause[: match.start()]) or _ON.search(before)))
    if next(trunk, None) or _BODY.search(clause):
        parts.add("torso")
    return parts


def _limb(word: str) -> str:
    """ "arm" or "leg", by what of it a caption names."""
    return next(limb for limb, words in _LIMBS.items() if re.fullmatch(words, word, re.I))
