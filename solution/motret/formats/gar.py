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

from motret.errors import DataError
from motret.formats.text_files import canonical_ids, preview, read_text
from motret.skeleton import PARTS
from motret.utils.files import content_hash, read_json, write_json, write_text

UNDEFINED = "undefined"
GAR_FILES = ("gar_train.json", "gar_val.json")
"""The GAR files that may stand in the texts/ of a data folder."""
ENTRY_KEYS = {"id", "caption", "part_descriptions"}
FORMAT_FIX = 'write a JSON list of {"id", "caption", "part_descriptions": {part: text}}, as UTF-8'

PartDescriptions = dict[str, str | None]
"""Each of the five parts and its text, None where it is undefined."""


@dataclass(frozen=True)
class PartTexts:
    """Part descriptions by canonical id, in the order of the file."""

    parts: dict[str, PartDescriptions]
    captions: dict[str, str | None]
    """The caption of each id, None where the entry has none."""
    notes: tuple[str, ...]
    """What was odd in the file and what was made of it, a line of each kind with its number and examples."""


class _Notes(defaultdict[str, list[str]]):
    """What is odd, and the ids where it is."""

    def __init__(self) -> None:
        super().__init__(list)

    def notes(self) -> tuple[str, ...]:
        return tuple(f"{len(ids)} {what}: {preview(ids)}" for what, ids in self.items())


# ---- reading


def find_gar_files(root: Path) -> list[Path]:
    """The GAR files that a data folder has."""
    return [file for name in GAR_FILES if (file := root / "texts" / name).is_file()]


def read_gar(path: Path, id_width: int | None = None) -> PartTexts:
    """The part descriptions of a GAR file.

    id_width: digits of numeric ids, best the data set's own; None takes the widest of the file. The rules, each use counted in `notes`:
    - ids are numbers or strings in any form ("00001", 1, "1\\n"); in an object by id the key is the id, whatever the entry says;
    - of several entries with one id, or several values under one key, the first counts;
    - an entry that is no object, or has no id, is left out;
    - a missing part is undefined, and so is one whose value is empty or no string; "undefined" is read in any case, with space or a stop;
    - part names may have spaces or hyphens for underscores, and capitals; unknown parts and unknown keys are ignored.
    A file that cannot be read, is no JSON or UTF-8, or holds no entry at all is a DataError.
    """
    odd = _Notes()
    parts: dict[str, PartDescriptions] = {}
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
        raise DataError(path, "no entry with an id in it", FORMAT_FIX)
    return PartTexts(parts, captions, odd.notes())


def _parse(path: Path, odd: _Notes) -> object:
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
        raise DataError(path, f"no JSON: {error}", FORMAT_FIX) from error


def _entries(data: object, odd: _Notes) -> Iterator[tuple[str, dict]]:
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


def _parts(given: object, name: str, odd: _Notes) -> PartDescriptions:
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


def _text(value: object, what: str, name: str, odd: _Notes) -> str | None:
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
    write_text(path, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


def write_generated_gar(path: Path, record: Path, entries: Iterable[tuple[str, str | None, Mapping[str, str | None]]], use: Path) -> None:
    """`write_gar`, and in `record` what was written. DataError where `path` is no longer that: what a person wrote there is kept.

    use: where the file is to be copied for training to use it.
    """
    if path.is_file() and read_json(record) != content_hash(path.read_bytes()):
        fix = f"copy it to {use} to train on it, or move it away to have it written anew"
        raise DataError(path, "is not as it was written here, so it may have been edited: it is left alone", fix)
    write_gar(path, entries)
    write_json(record, content_hash(path.read_bytes()))
