"""Part descriptions in GAR JSON: what each of the five body parts does, in words.

A GAR file is a list of entries `{"id", "caption", "part_descriptions": {part: text}}`, or an object
of such entries by id. A part without description is `"undefined"` in the file and None here. What
is odd but harmless in a file is skipped and counted.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motret.errors import DataError
from motret.formats.text_files import MAX_CAPTION_LENGTH, canonical_ids, preview, read_text
from motret.skeleton import PARTS
from motret.utils import reading
from motret.utils.files import content_hash, write_json, write_text

UNDEFINED = "undefined"
GAR_FILES = ("gar_train.json", "gar_val.json")
"""The GAR files that texts/ of a data folder may hold."""
ENTRY_KEYS = {"id", "caption", "part_descriptions"}
FORMAT_FIX = 'write a JSON list of {"id", "caption", "part_descriptions": {part: text}}, as UTF-8'

PartDescriptions = dict[str, str | None]
"""The description of each of the five parts, None where it is undefined."""
Entry = tuple[str, str | None, Mapping[str, str | None]]
"""Id, caption and part descriptions."""


@dataclass(frozen=True)
class PartTexts:
    """The content of a GAR file by canonical id, in the order of the file."""

    parts: dict[str, PartDescriptions]
    captions: dict[str, str | None]
    """The caption of each id, None where the entry has none."""
    notes: tuple[str, ...]
    """What is odd in the file: one line per kind, with how often, what was done, and examples."""


class _Notes(defaultdict[str, list[str]]):
    """Kind of oddity -> the ids that have it."""

    def __init__(self) -> None:
        super().__init__(list)

    def lines(self) -> tuple[str, ...]:
        return tuple(f"{len(ids)} {kind}: {preview(ids)}" for kind, ids in self.items())


# ---- reading


def find_gar_files(root: Path) -> list[Path]:
    """The GAR files of a data folder."""
    return [path for name in GAR_FILES if reading.is_file(path := root / "texts" / name)]


def read_gar(path: Path, id_width: int | None = None, within: Path | None = None) -> PartTexts:
    """The part descriptions of a GAR file.

    id_width: digits of numeric ids, as in the data set; None takes the widest id of the file;
    within: a folder that the file must lie in, wherever a link leads; None follows links.
    The rules, each use of which is counted in `notes`:
    - ids are numbers or strings in any form ("00001", 1, "1\\n"); in an object by id the key is the
      id, whatever the entry says;
    - of several entries with one id, or several values under one key, the first counts;
    - an entry that is no object, or has no id, is left out;
    - a missing part is undefined, as is one whose value is empty, no string or far too long;
      "undefined" may have capitals, spaces around it and a full stop;
    - part names may have spaces or hyphens for underscores, and capitals;
    - unknown parts and unknown keys are ignored.
    DataError for a file that cannot be read, is not JSON in UTF-8, or holds no entry at all.
    """
    if within is not None:
        reading.check_inside(path, within)
    notes = _Notes()
    entries = list(_iterate_entries(_parse_json(path, notes), notes))
    ids = canonical_ids([raw for raw, _ in entries], id_width)
    parts: dict[str, PartDescriptions] = {}
    captions: dict[str, str | None] = {}
    for name, (_, entry) in zip(ids, entries, strict=True):
        if name in parts:
            notes["entries with the id of an earlier one, left out"].append(name)
            continue
        for _ in entry.keys() - ENTRY_KEYS:
            notes["unknown keys, ignored"].append(name)
        captions[name] = _parse_text(entry.get("caption"), "captions", name, notes)
        parts[name] = _parse_parts(entry.get("part_descriptions"), name, notes)
    if not parts:
        raise DataError(path, "no entry with an id in it", FORMAT_FIX)
    return PartTexts(parts, captions, notes.lines())


def _parse_json(path: Path, notes: _Notes) -> object:
    """The content of a JSON file; of a key that is twice in one object the first value counts."""

    def keep_first(pairs: list[tuple[str, object]]) -> dict[str, object]:
        content: dict[str, object] = {}
        for key, value in pairs:
            if key in content:
                notes["keys twice in one object, the first counts"].append(key)
            content.setdefault(key, value)
        return content

    text = read_text(path, reading.MAX_JSON_BYTES)
    with reading.boundary(path, "not JSON", FORMAT_FIX):
        return json.loads(text, object_pairs_hook=keep_first)


def _iterate_entries(content: object, notes: _Notes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Raw id and content of each usable entry."""
    raw_entries: list[tuple[object, object]]
    if isinstance(content, dict) and not isinstance(content.get("part_descriptions"), dict):
        raw_entries = list(content.items())
    else:
        listed = (
            content if isinstance(content, list) else [content]
        )  # a single entry is a list of one
        raw_entries = [
            (entry.get("id") if isinstance(entry, dict) else None, entry) for entry in listed
        ]
    for position, (raw, entry) in enumerate(raw_entries, 1):
        is_id = isinstance(raw, str | int) and not isinstance(raw, bool)
        name = str(raw).strip() if is_id else ""
        if not isinstance(entry, dict):
            notes["entries that are no object, left out"].append(name or f"entry {position}")
        elif not name:
            notes["entries without an id, left out"].append(f"entry {position}")
        else:
            yield name, entry


def _parse_parts(content: object, name: str, notes: _Notes) -> PartDescriptions:
    """The five parts of an entry."""
    if not isinstance(content, dict):
        notes["entries without part descriptions, all parts undefined"].append(name)
        content = {}
    texts: dict[str, str | None] = {}
    for key, value in content.items():
        part = re.sub(r"[\s_-]+", "_", key.strip().lower())
        if part not in PARTS:
            notes["unknown parts, ignored"].append(name)
        elif part in texts:
            notes["parts written in two ways, the first counts"].append(name)
        else:
            texts[part] = _parse_text(value, "parts", name, notes)
    return {part: texts.get(part) for part in PARTS}


def _parse_text(value: object, kind: str, name: str, notes: _Notes) -> str | None:
    """A value as text on one line; None for undefined, empty, and anything but a string.

    kind: "parts" | "captions"; a caption may be missing, a part may not be null.
    """
    if not isinstance(value, str):
        if kind == "parts" or value is not None:
            notes[f"{kind} that are no text, read as undefined"].append(name)
        return None
    # JSON can hold half a surrogate pair, which UTF-8 cannot
    text = " ".join(value.encode("utf-8", "replace").decode("utf-8").split())
    if len(text) > MAX_CAPTION_LENGTH:
        problem = f"of more than {MAX_CAPTION_LENGTH} characters, read as undefined"
        notes[f"{kind} {problem}"].append(name)
        return None
    return None if text.rstrip(".").strip().lower() in ("", UNDEFINED) else text


# ---- writing


def write_gar(path: Path, entries: Iterable[Entry]) -> None:
    """Writes entries as GAR JSON that a person can read and edit, whole or not at all."""
    content = [
        {
            "id": name,
            "caption": caption or "",
            "part_descriptions": {part: parts.get(part) or UNDEFINED for part in PARTS},
        }
        for name, caption, parts in entries
    ]
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_generated_gar(path: Path, hash_path: Path, entries: Iterable[Entry], use: Path) -> None:
    """`write_gar` that never replaces what a person has edited.

    hash_path: where the hash of the written file is stored. DataError where `path` no longer has
    that hash. use: where the file must be copied for training to use it; for the error.
    """
    is_file = reading.is_file(path)
    if is_file and reading.quiet_json(hash_path) != content_hash(reading.read_bytes(path)):
        problem = "was changed since this script wrote it, perhaps by hand, and is left as it is"
        fix = f"copy it to {use} to train on it, or move it away to have it written anew"
        raise DataError(path, problem, fix)
    write_gar(path, entries)
    write_json(hash_path, content_hash(reading.read_bytes(path)))
