"""Files of captions without motions: what several people wrote of one motion, in JSON or text."""

import json
from pathlib import Path

from motret.errors import DataError
from motret.formats.text_files import read_captions, read_text

JSON_FORM = 'write {"<id>": ["<caption>", "<caption>"], ...}'


def read_caption_sets(path: Path) -> tuple[tuple[str, ...], ...]:
    """The distinct captions of each motion, of motions with two at least.

    path: a JSON file, id -> captions; or a folder of text files, one for each motion, with one
    caption per line. DataError where it is neither, or names no two captions of one motion.
    """
    sets = _read_folder(path) if path.is_dir() else _read_json(path)
    usable = tuple(captions for captions in map(_distinct, sets) if len(captions) > 1)
    if not usable:
        fix = "give captions of which two at least tell one motion"
        raise DataError(path, "has no motion with two captions", fix)
    return usable


def _distinct(captions: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(caption.strip() for caption in captions if caption.strip()))


def _read_folder(folder: Path) -> list[tuple[str, ...]]:
    paths = sorted(folder.glob("*.txt"))
    if not paths:
        raise DataError(folder, "has no .txt file", "give a folder of <id>.txt, or a JSON file")
    return [read_captions(path) for path in paths]


def _read_json(path: Path) -> list[tuple[str, ...]]:
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(path, f"not JSON: {error}", JSON_FORM) from error
    if not isinstance(content, dict):
        raise DataError(path, f"holds a {type(content).__name__}", JSON_FORM)
    for name, captions in content.items():
        is_list = isinstance(captions, list)
        if not is_list or not all(isinstance(caption, str) for caption in captions):
            raise DataError(path, f"{name!r} is no list of captions", JSON_FORM)
    return [tuple(captions) for captions in content.values()]
