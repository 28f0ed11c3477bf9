"""Ids and text: the one form of an id that all files share, captions, lists and CSV.

A file that is missing, not UTF-8 or not of its form is a `DataError` with path, problem and fix.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from motret import errors
from motret.errors import DataError
from motret.utils import reading
from motret.utils.reading import read_text

MAX_CAPTION_BYTES = 1_000_000
"""Size of a file of captions at most."""
MAX_CAPTION_LENGTH = 5000
"""Characters of a caption at most; text encoders read the first 77 to 512 words."""

MAX_DIGITS = 64
"""Digits of a number at most: all numbers are padded to the width of the widest."""

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


def id_problem(name: str) -> str:
    """Why a name cannot be an id, empty where it can.

    Ids are written into CSV files and pages, and printed. So they are no paths, hold nothing that
    steers a terminal, and do not begin as what a spreadsheet runs.
    """
    if "/" in name or "\\" in name or ".." in name or name in ("", "."):
        return "is a path"
    return cell_problem(name)


def cell_problem(name: str) -> str:
    """Why a name cannot be a cell of a CSV file, empty where it can; other than empty."""
    if not _is_utf8(name):
        return "is not UTF-8"
    if errors.printable(name) != name:
        return "holds control characters"
    if name[0] in "=@" or (name[0] in "+-" and not re.fullmatch(r"[+-][\d.]+", name)):
        return f"begins with {name[0]!r}, which a spreadsheet would run"
    return ""


def _is_utf8(name: str) -> bool:
    """Whether a file's name is UTF-8; other bytes stand as halves of surrogate pairs in it."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def query_key(name: str) -> str:
    """The form in which ids of one query are equal: "01", "1" and "1 " are the same query."""
    return canonical_ids([name], width=1)[0]


def is_number(name: str) -> bool:
    """Whether an id is a number: ASCII digits alone, and not more than any number has."""
    return name.isascii() and name.isdecimal() and len(name) <= MAX_DIGITS


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

_NO_TAG, _NO_WORD = re.compile(r"[\s#]"), re.compile(r"[\s/]")
_SECONDS = re.compile(r"nan|\d+(?:\.\d*)?(?:e[+-]?\d+)?", re.I)


def read_captions(path: Path, within: Path | None = None) -> tuple[str, ...]:
    """The captions of a text file, one per line without blank ones; DataError for none at all.

    Of a HumanML3D line `caption#tokens#start#end` (seconds) only the caption is kept. Any other '#'
    belongs to the caption. within: a folder that the file must lie in, wherever a link leads; None
    follows links.
    """
    if within is not None:
        reading.check_inside(path, within)
    lines = re.split(r"[\r\n]+", read_text(path, MAX_CAPTION_BYTES))
    captions = (without_humanml3d_suffix(line).strip() for line in lines)
    nonempty = tuple(caption for caption in captions if caption)
    if not nonempty:
        raise DataError(path, "no caption in it", "write one caption per line, or remove the file")
    longest = max(map(len, nonempty))
    if longest > MAX_CAPTION_LENGTH:
        problem = f"a caption of {longest:,} characters, at most {MAX_CAPTION_LENGTH:,} are read"
        raise DataError(path, problem, "shorten it, or write one caption per line")
    return nonempty


def without_humanml3d_suffix(line: str) -> str:
    """A line without what HumanML3D writes after a caption: `#word/TAG word/TAG#start#end`.

    The time is linear in the line's length.
    """
    head, first, end = line.rstrip().rpartition("#")
    head, second, start = head.rpartition("#")
    if not (first and second and _SECONDS.fullmatch(start) and _SECONDS.fullmatch(end)):
        return line
    words = head.split(" ")
    n_tagged = next(
        (index for index, word in enumerate(reversed(words)) if not _is_tagged(word)),
        len(words),
    )
    first_tagged = len(words) - n_tagged
    # the leftmost '#' that tagged words alone follow
    for index in range(max(first_tagged - 1, 0), len(words)):
        if (position := _start_of_tagged(words[index])) is not None:
            return " ".join([*words[:index], words[index][:position]])
    caption, mark, _ = head.rpartition("#")  # tokens of another form
    return caption if mark else line


def _is_tagged(word: str) -> bool:
    """Whether a word is tagged: `word/TAG`."""
    body, _, tag = word.rpartition("/")
    return bool(body and tag and not _NO_WORD.search(body) and not _NO_TAG.search(tag))


def _start_of_tagged(word: str) -> int | None:
    """Position of the first '#' of a word that a tagged word follows; None where there is none."""
    body, slash, tag = word.rpartition("/")
    if not slash or not tag or _NO_TAG.search(tag):
        return None
    earliest = max((match.end() for match in _NO_WORD.finditer(body)), default=0)
    position = word.find("#", earliest, len(body) - 1)
    return position if position >= 0 else None


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
