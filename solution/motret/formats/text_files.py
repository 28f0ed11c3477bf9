"""formats.text_files."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from motret.errors import DataError

# ---- ids


def canonical_ids(raw: Iterable[str], width: int | None = None) -> tuple[str, ...]:
    """Each id in the one form all files meet in: numbers zero-padded to `width`, ids with letters as they are, no space around.

    width: digits; None takes the widest numeric id in `raw`, its zeros counted. A number that needs more digits keeps them.
    """
    names = [name.strip() for name in raw]
    digits = max((len(name) for name in names if is_number(name)), default=1) if width is None else width
    return tuple((name.lstrip("0") or "0").zfill(digits) if is_number(name) else name for name in names)


def query_key(name: str) -> str:
    """What two ids of one query have in common: "01", "1" and "1 " are the same query."""
    return canonical_ids([name], width=1)[0]


def is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def id_order(name: str) -> tuple[bool, int, str]:
    """Sorting key: numbers by value, then names."""
    return (False, len(query_key(name)), query_key(name)) if is_number(name) else (True, 0, name)


# ---- text

_SECONDS = r"(?:nan|\d+(?:\.\d*)?(?:e[+-]?\d+)?)"
_TAGGED = r"[^\s/]+/[^\s/#]+"
_HUMANML3D = re.compile(rf"#(?:{_TAGGED}(?: {_TAGGED})*|[^#]*)#{_SECONDS}#{_SECONDS}\s*$", re.I)
"""What HumanML3D writes behind a caption: its words with their kinds, and the seconds it is about."""


def read_bytes(path: Path) -> bytes:
    """The whole file; one that is missing or unreadable is a DataError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}", "see that it is there and may be read") from error


def read_text(path: Path) -> str:
    """The file's UTF-8 text, a byte order mark dropped. Other encodings are a DataError that names the first wrong byte."""
    try:
        return read_bytes(path).decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(path, f"not UTF-8 at byte {error.start}", "save it as UTF-8") from error


def read_captions(path: Path) -> tuple[str, ...]:
    """The captions of a text file, one a line; blank lines are nothing.

    Of HumanML3D's lines `caption#tokens#from#to`, from and to in seconds, only the caption is kept.
    Any other '#' is part of a caption.
    """
    captions = (_HUMANML3D.sub("", line).strip() for line in re.split(r"[\r\n]+", read_text(path)))
    found = tuple(caption for caption in captions if caption)
    if not found:
        raise DataError(path, "no caption in it", "write one caption a line, or leave the file out")
    return found


def csv_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row of CSV text, blank lines as no cells; path only names the file in errors."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in rows:
            yield rows.line_num, cells
    except csv.Error as error:
        raise DataError(path, f"line {rows.line_num}: not CSV, {error}", "see to its quotes and commas") from error


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The named columns of a CSV file with a header: line number and stripped, non-empty cells of each row that is not blank."""
    lines = csv_rows(path, read_text(path))
    header = [name.strip() for name in next(lines, (1, []))[1]]
    if missing := [name for name in columns if name not in header]:
        raise DataError(path, f"no column {', '.join(missing)} in its header", f"write the header {','.join(columns)}")
    for line, row in lines:
        if not any(cell.strip() for cell in row):
            continue
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        if empty := [name for name in columns if not cells.get(name)]:
            raise DataError(path, f"line {line}, column {empty[0]}: empty", "fill it in or take the line out")
        yield line, tuple(cells[name] for name in columns)


# ---- words


def preview(names: Iterable[str], limit: int = 3) -> str:
    """The first few names and how many more there are."""
    ordered = sorted(names, key=id_order)
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return ", ".join(ordered[:limit]) + more
