"""Ids and text: the one form of an id that all files share, captions, lists and CSV.

A file that is missing, not UTF-8 or not of its form is a `DataError` with path, problem and fix.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from motret.errors import DataError

# ---- ids


def canonical_ids(raw: Iterable[str], width: int | None = None) -> tuple[str, ...]:
    """Each id in the form that all files share: stripped, and numbers zero-padded.

    width: digits of a number; None takes those of the widest number in `raw`, zeros included. A
    number that needs more digits keeps them.
    """
    names = [name.strip() for name in raw]
    if width is None:
        width = max((len(name) for name in names if is_number(name)), default=1)
    return tuple(
        (name.lstrip("0") or "0").zfill(width) if is_number(name) else name for name in names
    )


def query_key(name: str) -> str:
    """The form in which ids of one query are equal: "01", "1" and "1 " are the same query."""
    return canonical_ids([name], width=1)[0]


def is_number(name: str) -> bool:
    """Whether an id is a number: ASCII digits alone."""
    return name.isascii() and name.isdecimal()


def id_order(name: str) -> tuple[bool, int, str]:
    """Sorting key of ids: numbers by value, then other ids by name."""
    if not is_number(name):
        return True, 0, name
    key = query_key(name)
    return False, len(key), key


def preview(names: Iterable[str], limit: int = 3) -> str:
    """The first few ids in order and how many more there are: "1, 2, 3 and 7 more"."""
    ordered = sorted(names, key=id_order)
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return ", ".join(ordered[:limit]) + more


# ---- text

_SECONDS = r"(?:nan|\d+(?:\.\d*)?(?:e[+-]?\d+)?)"
_TAGGED_WORD = r"[^\s/]+/[^\s/#]+"
_HUMANML3D_SUFFIX = re.compile(
    rf"#(?:{_TAGGED_WORD}(?: {_TAGGED_WORD})*|[^#]*)#{_SECONDS}#{_SECONDS}\s*$", re.I
)
"""What HumanML3D writes after a caption: tagged words, start and end in seconds."""


def read_bytes(path: Path) -> bytes:
    """The whole file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable_error(path, error) from error


def unreadable_error(path: Path, error: OSError) -> DataError:
    """The error of a file that the system does not let us read."""
    problem = f"cannot be read: {error.strerror or error}"
    return DataError(path, problem, "check that it is there and readable")


def read_text(path: Path) -> str:
    """The file's UTF-8 text without a byte order mark."""
    try:
        return read_bytes(path).decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(path, f"not UTF-8 at byte {error.start}", "save it as UTF-8") from error


def read_captions(path: Path) -> tuple[str, ...]:
    """The captions of a text file, one per line without blank ones; DataError for none at all.

    Of a HumanML3D line `caption#tokens#start#end` (seconds) only the caption is kept. Any other '#'
    belongs to the caption.
    """
    lines = re.split(r"[\r\n]+", read_text(path))
    captions = (_HUMANML3D_SUFFIX.sub("", line).strip() for line in lines)
    nonempty = tuple(caption for caption in captions if caption)
    if not nonempty:
        raise DataError(path, "no caption in it", "write one caption per line, or remove the file")
    return nonempty


# ---- CSV


def csv_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row of CSV text; blank lines have none. path: for errors."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        problem = f"line {reader.line_num}: not CSV, {error}"
        raise DataError(path, problem, "correct its quotes and commas") from error


def read_csv(
    path: Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The named columns of a CSV file with a header, other columns ignored.

    optional: further columns, whose cells are "" where they are empty or missing.
    Yields line number and stripped cells of each row that is not blank. DataError where a column is
    missing from the header or a cell is empty.
    """
    rows = csv_rows(path, read_text(path))
    header = [name.strip() for name in next(rows, (1, []))[1]]
    if missing := [name for name in columns if name not in header]:
        problem = f"no column {', '.join(missing)} in its header"
        raise DataError(path, problem, f"write the header {','.join(columns)}")
    for line_number, row in rows:
        if not any(cell.strip() for cell in row):
            continue
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        if empty := [name for name in columns if not cells.get(name)]:
            problem = f"line {line_number}, column {empty[0]}: empty"
            raise DataError(path, problem, "fill it in or remove the line")
        yield line_number, tuple(cells.get(name, "") for name in (*columns, *optional))
