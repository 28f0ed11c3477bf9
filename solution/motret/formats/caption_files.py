"""Files of captions without motions: what several people wrote of one motion, in JSON or text."""

from pathlib import Path

from motret.errors import DataError
from motret.formats.text_files import MAX_CAPTION_LENGTH, read_captions
from motret.utils import reading

JSON_FORM = 'write {"<id>": ["<caption>", "<caption>"], ...}'


def read_caption_sets(path: Path) -> tuple[tuple[str, ...], ...]:
    """The distinct captions of each motion, of motions with two at least.

    path: a JSON file, id -> captions; or a folder of text files, one for each motion, with one
    caption per line. DataError where it is neither, or names no two captions of one motion.
    """
    sets = _read_folder(path) if reading.is_folder(path) else _read_json(path)
    usable = tuple(captions for captions in map(_distinct, sets) if len(captions) > 1)
    if not usable:
        fix = "give captions of which two at least tell one motion"
        raise DataError(path, "has no motion with two captions", fix)
    return usable


def _distinct(captions: tuple[str, ...]) -> tuple[str, ...]:
    # JSON can hold half a surrogate pair, which UTF-8 cannot
    texts = (caption.encode("utf-8", "replace").decode("utf-8").strip() for caption in captions)
    return tuple(dict.fromkeys(text for text in texts if text))


def _read_folder(folder: Path) -> list[tuple[str, ...]]:
    paths = [path for path in reading.list_folder(folder) if path.suffix == ".txt"]
    if not paths:
        raise DataError(folder, "has no .txt file", "give a folder of <id>.txt, or a JSON file")
    return [read_captions(path) for path in paths]


def _read_json(path: Path) -> list[tuple[str, ...]]:
    content = reading.read_json(path, JSON_FORM, max_bytes=reading.MAX_JSON_BYTES)
    if not isinstance(content, dict):
        raise DataError(path, f"holds a {type(content).__name__}", JSON_FORM)
    for name, captions in content.items():
        is_list = isinstance(captions, list)
        if not is_list or not all(isinstance(caption, str) for caption in captions):
            raise DataError(path, f"{name!r} is no list of captions", JSON_FORM)
        longest = max(map(len, captions), default=0)
        if longest > MAX_CAPTION_LENGTH:
            problem = f"{name!r} has a caption of {longest:,} characters"
            fix = f"shorten it: at most {MAX_CAPTION_LENGTH:,} are read"
            raise DataError(path, problem, fix)
    return [tuple(captions) for captions in content.values()]
