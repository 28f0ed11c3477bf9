"""Part descriptions: what is said of each of the five parts of the body, read from GAR JSON, written to it, or found in a caption.

A GAR file is a list of entries `{"id", "caption", "part_descriptions": {part: text}}`, or an object that holds them by id. A part
that nothing is known of is `"undefined"` in the file and None here. Whatever in a file is odd but harmless is left out and counted.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from motret.challenge import canonical_ids, read_text, some
from motret.faults import DataFault
from motret.files import digest, read_json, write_json, write_whole
from motret.skeleton import PARTS

UNDEFINED = "undefined"
FILES = ("gar_train.json", "gar_val.json")
"""The GAR files that may stand in the texts/ of a data folder."""
ENTRY_KEYS = {"id", "caption", "part_descriptions"}
MEND = 'write a JSON list of {"id", "caption", "part_descriptions": {part: text}}, as UTF-8'

Parts = dict[str, str | None]
"""Each of the five parts and its text, None where it is undefined."""


@dataclass(frozen=True)
class PartTexts:
    """Part descriptions by canonical id, in the order of the file."""

    parts: dict[str, Parts]
    captions: dict[str, str | None]
    """The caption of each id, None where the entry has none."""
    notes: tuple[str, ...]
    """What was odd in the file and what was made of it, a line of each kind with its number and examples."""


class _Oddities(defaultdict[str, list[str]]):
    """What is odd, and the ids where it is."""

    def __init__(self) -> None:
        super().__init__(list)

    def notes(self) -> tuple[str, ...]:
        return tuple(f"{len(ids)} {what}: {some(ids)}" for what, ids in self.items())


# ---- reading


def files(root: Path) -> list[Path]:
    """The GAR files that a data folder has."""
    return [file for name in FILES if (file := root / "texts" / name).is_file()]


def read_gar(path: Path, id_width: int | None = None) -> PartTexts:
    """The part descriptions of a GAR file.

    id_width: digits of numeric ids, best the data set's own; None takes the widest of the file. The rules, each use counted in `notes`:
    - ids are numbers or strings in any form ("00001", 1, "1\\n"); in an object by id the key is the id, whatever the entry says;
    - of several entries with one id, or several values under one key, the first counts;
    - an entry that is no object, or has no id, is left out;
    - a missing part is undefined, and so is one whose value is empty or no string; "undefined" is read in any case, with space or a stop;
    - part names may have spaces or hyphens for underscores, and capitals; unknown parts and unknown keys are ignored.
    A file that cannot be read, is no JSON or UTF-8, or holds no entry at all is a DataFault.
    """
    odd = _Oddities()
    parts: dict[str, Parts] = {}
    captions: dict[str, str | None] = {}
    kept = list(_entries(_parse(path, odd), odd))
    for name, entry in zip(canonical_ids([raw for raw, _ in kept], id_width), (entry for _, entry in kept), strict=True):
        if name in parts:
            odd["entries with the id of an earlier one, left out"].append(name)
            continue
        for _ in entry.keys() - ENTRY_KEYS:
            odd["unknown keys, ignored"].append(name)
        captions[name] = _text(entry.get("caption"), "captions", name, odd)
        parts[name] = _parts(entry.get("part_descriptions"), name, odd)
    if not parts:
        raise DataFault(path, "no entry with an id in it", MEND)
    return PartTexts(parts, captions, odd.notes())


def _parse(path: Path, odd: _Oddities) -> object:
    """The JSON of a file; a key that stands twice in one object keeps its first value."""

    def first_wins(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in pairs:
            if key in found:
                odd["keys written twice in one object, the first counts"].append(key)
            found.setdefault(key, value)
        return found

    try:
        return json.loads(read_text(path), object_pairs_hook=first_wins)
    except (ValueError, RecursionError) as error:
        raise DataFault(path, f"no JSON: {error}", MEND) from error


def _entries(data: object, odd: _Oddities) -> Iterator[tuple[str, dict]]:
    """The raw id of each usable entry, and the entry."""
    if isinstance(data, dict) and not isinstance(data.get("part_descriptions"), dict):
        named = list(data.items())
    else:
        rows = data if isinstance(data, list) else [data]  # an object with part descriptions of its own is a list of one
        named = [(entry.get("id") if isinstance(entry, dict) else None, entry) for entry in rows]
    for place, (raw, entry) in enumerate(named, 1):
        name = str(raw).strip() if isinstance(raw, str | int) and not isinstance(raw, bool) else ""
        if not isinstance(entry, dict):
            odd["entries that are no object, left out"].append(name or f"entry {place}")
        elif not name:
            odd["entries without an id, left out"].append(f"entry {place}")
        else:
            yield name, entry


def _parts(given: object, name: str, odd: _Oddities) -> Parts:
    """The five parts of an entry."""
    if not isinstance(given, dict):
        odd["entries without part descriptions, all parts undefined"].append(name)
        given = {}
    found: dict[str, str | None] = {}
    for key, value in given.items():
        part = re.sub(r"[\s_-]+", "_", key.strip().lower())
        if part not in PARTS:
            odd["unknown parts, ignored"].append(name)
        elif part in found:
            odd["parts written in two ways, the first counts"].append(name)
        else:
            found[part] = _text(value, "parts", name, odd)
    return {part: found.get(part) for part in PARTS}


def _text(value: object, what: str, name: str, odd: _Oddities) -> str | None:
    """A value as text on one line; None for undefined, empty, and anything but a string."""
    if not isinstance(value, str):
        if what == "parts" or value is not None:
            odd[f"{what} that are no text, taken as undefined"].append(name)
        return None
    text = " ".join(value.encode("utf-8", "replace").decode("utf-8").split())  # half a surrogate pair, which JSON can hold, is no text
    return None if text.rstrip(".").strip().lower() in ("", UNDEFINED) else text


# ---- writing


def write_gar(path: Path, entries: Iterable[tuple[str, str | None, Mapping[str, str | None]]]) -> None:
    """Writes id, caption and part texts of each entry as GAR JSON that a person can read and edit, whole or not at all."""
    rows = [
        {"id": name, "caption": caption or "", "part_descriptions": {part: parts.get(part) or UNDEFINED for part in PARTS}}
        for name, caption, parts in entries
    ]
    text = json.dumps(rows, indent=1, ensure_ascii=False)
    write_whole(path, lambda beside: beside.write_text(f"{text}\n", encoding="utf-8"))


def write_ours(path: Path, record: Path, entries: Iterable[tuple[str, str | None, Mapping[str, str | None]]], use: Path) -> None:
    """`write_gar`, and in `record` what was written. DataFault where `path` is no longer that: what a person wrote there is kept.

    use: where the file is to be copied for training to use it.
    """
    if path.is_file() and read_json(record) != digest(path.read_bytes()):
        mend = f"copy it to {use} to train on it, or move it away to have it written anew"
        raise DataFault(path, "is not as it was written here, so it may have been edited: it is left alone", mend)
    write_gar(path, entries)
    write_json(record, digest(path.read_bytes()))


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


def parts_from_caption(caption: str) -> Parts:
    """The clauses of a caption that name each part; None for the parts it does not speak of.

    A limb counts with its side ("the left leg") or as a pair ("both arms"); "a hand" does not say which. A limb or the head as a
    place ("above the head", "to the left knee") counts for nothing. The torso is named by its own words or by what only it does
    ("bends forward").
    """
    found: dict[str, list[str]] = {part: [] for part in PARTS}
    for clause in map(str.strip, _CUT.split(caption)):
        for part in _named(clause):
            found[part].append(clause)
    return {part: ", ".join(clauses) or None for part, clauses in found.items()}


def _named(clause: str) -> set[str]:
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
