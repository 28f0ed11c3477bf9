"""Reads the competition's input: ids, captions, motions, the training set (`queries` reads the test); every check and its error.

Whatever is wrong is a `DataFault` that names the file, the fault and the mend. Nothing is ever unpickled, and no path is built
from what a data file says: ids are looked up among the files that a folder holds.
"""

import csv
import io
import math
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from motret import arrays
from motret.faults import DataFault
from motret.skeleton import PERSONS_BY_COLUMNS, SMPL

Text = TypeVar("Text")

NO_DATA = "put the competition's data there or give --data_dir; `python solution/sample.py` makes a generated one"
RESAVE = "save it again with np.save as a numeric array (frames, 192 or 384), or leave it out"
BODY_FILE = "holistic.npy"
"""The one name under which a motion is (frames, joints, 3): positions alone, as the layout of split_joints/ has them."""
CANDIDATE = re.compile(r"motion_\d+\.npy")
"""Candidates of a test may have that form too."""


@dataclass(frozen=True)
class Skip:
    """A training file left out, and why: a line of the data report."""

    file: str
    wrong: str


@dataclass(frozen=True)
class TrainingSet:
    """The motions that have captions, in the order of train.txt and val.txt (sorted where there is no train.txt)."""

    root: Path
    ids: tuple[str, ...]
    """Canonical ids, each once."""
    paths: tuple[Path, ...]
    """The motion file of each id."""
    captions: tuple[tuple[str, ...], ...]
    """The captions of each id, at least one."""
    groups: dict[str, str] | None
    """The group of each id, by groups.csv; None where there is no such file."""
    skipped: tuple[Skip, ...]
    rotations: bool = True
    """Whether the motions hold joint rotations."""
    skeleton: str = SMPL.name
    """The joints of their bodies, as `Skeleton.table` tells them."""
    fps: float | None = None
    """Frames a second, where the data say so."""

    def only(self, ids: Iterable[str]) -> "TrainingSet":
        """The same set restricted to some of its canonical ids, in its own order. An id it does not hold: DataFault."""
        wanted = set(ids)
        if unknown := wanted.difference(self.ids):
            raise DataFault(self.root, f"no training motion {some(unknown)}", "make the folds again for this data")
        kept = [row for row, name in enumerate(self.ids) if name in wanted]
        return replace(
            self,
            ids=tuple(self.ids[row] for row in kept),
            paths=tuple(self.paths[row] for row in kept),
            captions=tuple(self.captions[row] for row in kept),
            groups=None if self.groups is None else {self.ids[row]: self.groups[self.ids[row]] for row in kept},
        )


@dataclass(frozen=True)
class Query:
    """One folder of data/test: its captions and its candidates, by rising number k of motion_<k>.npy."""

    id: str
    """The folder's name, as it stands."""
    captions: tuple[str, ...]
    candidates: tuple[int, ...]
    paths: tuple[Path, ...]


# ---- ids


def canonical_ids(raw: Iterable[str], width: int | None = None) -> tuple[str, ...]:
    """Each id in the one form all files meet in: numbers zero-padded to `width`, ids with letters as they are, no space around.

    width: digits; None takes the widest numeric id in `raw`, its zeros counted. A number that needs more digits keeps them.
    """
    names = [name.strip() for name in raw]
    digits = max((len(name) for name in names if _is_number(name)), default=1) if width is None else width
    return tuple((name.lstrip("0") or "0").zfill(digits) if _is_number(name) else name for name in names)


def query_key(name: str) -> str:
    """What two ids of one query have in common: "01", "1" and "1 " are the same query."""
    return canonical_ids([name], width=1)[0]


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def id_order(name: str) -> tuple[bool, int, str]:
    """Sorting key: numbers by value, then names."""
    return (False, len(query_key(name)), query_key(name)) if _is_number(name) else (True, 0, name)


# ---- text

_SECONDS = r"(?:nan|\d+(?:\.\d*)?(?:e[+-]?\d+)?)"
_TAGGED = r"[^\s/]+/[^\s/#]+"
_HUMANML3D = re.compile(rf"#(?:{_TAGGED}(?: {_TAGGED})*|[^#]*)#{_SECONDS}#{_SECONDS}\s*$", re.I)
"""What HumanML3D writes behind a caption: its words with their kinds, and the seconds it is about."""


def read_bytes(path: Path) -> bytes:
    """The whole file; one that is missing or unreadable is a DataFault."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataFault(path, f"cannot be read: {error.strerror or error}", "see that it is there and may be read") from error


def read_text(path: Path) -> str:
    """The file's UTF-8 text, a byte order mark dropped. Other encodings are a DataFault that names the first wrong byte."""
    try:
        return read_bytes(path).decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataFault(path, f"not UTF-8 at byte {error.start}", "save it as UTF-8") from error


def read_captions(path: Path) -> tuple[str, ...]:
    """The captions of a text file, one a line; blank lines are nothing.

    Of HumanML3D's lines `caption#tokens#from#to`, from and to in seconds, only the caption is kept.
    Any other '#' is part of a caption.
    """
    captions = (_HUMANML3D.sub("", line).strip() for line in re.split(r"[\r\n]+", read_text(path)))
    found = tuple(caption for caption in captions if caption)
    if not found:
        raise DataFault(path, "no caption in it", "write one caption a line, or leave the file out")
    return found


def csv_lines(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row of CSV text, blank lines as no cells; path only names the file in errors."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in rows:
            yield rows.line_num, cells
    except csv.Error as error:
        raise DataFault(path, f"line {rows.line_num}: not CSV, {error}", "see to its quotes and commas") from error


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The named columns of a CSV file with a header: line number and stripped, non-empty cells of each row that is not blank."""
    lines = csv_lines(path, read_text(path))
    header = [name.strip() for name in next(lines, (1, []))[1]]
    if missing := [name for name in columns if name not in header]:
        raise DataFault(path, f"no column {', '.join(missing)} in its header", f"write the header {','.join(columns)}")
    for line, row in lines:
        if not any(cell.strip() for cell in row):
            continue
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        if empty := [name for name in columns if not cells.get(name)]:
            raise DataFault(path, f"line {line}, column {empty[0]}: empty", "fill it in or take the line out")
        yield line, tuple(cells[name] for name in columns)


# ---- motions


def read_motion(path: Path, min_frames: int = 1, repairs: list[str] | None = None) -> np.ndarray:
    """The raw motion of a file, (frames, 192 | 384, or 3 * joints of a `BODY_FILE`) float32, writable; faults as in `parse_motion`."""
    return np.array(parse_motion(read_bytes(path), path, min_frames, repairs))


def parse_motion(data: bytes, path: Path, min_frames: int = 1, repairs: list[str] | None = None) -> np.ndarray:
    """The raw motion in the bytes of an .npy file, (frames, 192 | 384) float32, contiguous; (frames, 3 * joints) of a `BODY_FILE`.

    path names the file in errors. DataFault: not a whole .npy file; object or other non-numeric data (never unpickled); not
    2-D; other columns; fewer than `min_frames` frames; NaN, Inf or a value beyond float32. repairs: where it is given the last three are
    repaired as far as that goes, and what was done is added to it.
    """
    header = arrays.read_header(io.BytesIO(data), len(data), path, RESAVE)
    _must_be_motion(header.shape, path)
    if header.shape[0] < min_frames and repairs is None:
        raise DataFault(path, f"{header.shape[0]} frames, at least {min_frames} are needed", "leave it out or take a shorter patch")
    raw = arrays.values(data, header).reshape(header.shape[0], -1)
    with np.errstate(over="ignore", invalid="ignore"):
        motion = raw.astype(np.float32, order="C", copy=False)
    if not (finite := np.isfinite(motion)).all():
        frame, column = np.argwhere(~finite)[0]
        value = raw[frame, column]
        what = f"{value} is beyond float32" if np.isfinite(value) else str(value)
        where = f"{what} at frame {frame}, column {column} (from 0)"
        if repairs is None or not finite.any(axis=0).all():
            raise DataFault(path, where, "mend the recording or leave it out")
        motion = fill_in(motion, finite)
        repairs.append(f"{where}, {int((~finite).any(axis=1).sum())} frames filled in from those around")
    if len(motion) < min_frames:
        repairs.append(f"{len(motion)} frames, its last one held up to {min_frames}")
        motion = np.concatenate([motion, np.repeat(motion[-1:], min_frames - len(motion), axis=0)])
    return motion


def fill_in(motion: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """A motion (T, columns) whose values that are not finite (T, columns) lie on the line between those around in time, column by column.

    Before the first finite value and after the last that value stands. Each column needs one at least.
    """
    filled, frames = motion.copy(), np.arange(len(motion))
    for column in np.flatnonzero(~finite.all(axis=0)):
        known = finite[:, column]
        filled[~known, column] = np.interp(frames[~known], frames[known], motion[known, column])
    return filled


def motion_shape(path: Path) -> tuple[int, int]:
    """Frames and columns by the file's header alone; the faults of `parse_motion` but those of the values."""
    try:
        with path.open("rb") as stream:
            shape = arrays.read_header(stream, path.stat().st_size, path, RESAVE).shape
    except OSError as error:
        raise DataFault(path, f"cannot be read: {error.strerror or error}", "see that it is there and may be read") from error
    _must_be_motion(shape, path)
    return shape[0], math.prod(shape[1:])


def _must_be_motion(shape: tuple[int, ...], path: Path) -> None:
    """DataFault where an array of this shape is no motion."""
    if len(shape) == 3 and (path.resolve().name == BODY_FILE or CANDIDATE.fullmatch(path.name)):  # a validation batch holds links to such
        if shape[2] != 3 or not shape[1]:
            raise DataFault(path, f"an array {shape}, expected (frames, joints, 3)", "keep positions alone, or leave the motion out")
    elif len(shape) != 2:
        raise DataFault(path, f"a {len(shape)}-D array {shape}, a motion is 2-D: frames x columns", RESAVE)
    elif shape[1] not in PERSONS_BY_COLUMNS:
        expected = " or ".join(f"{columns} (persons: {persons})" for columns, persons in PERSONS_BY_COLUMNS.items())
        raise DataFault(path, f"{shape[1]} columns, expected {expected}", RESAVE)
    if shape[0] < 1:
        raise DataFault(path, "no frames", RESAVE)


# ---- the training set


def read_training(root: Path, *, id_width: int | None = None, strict: bool = False) -> TrainingSet:
    """The training set of a data folder: train.txt and val.txt (without train.txt every id with motion and text), texts, groups.csv.

    Motions are not opened. id_width: digits of numeric ids, by default those of the widest file name. An id without motion, without
    text or with a text that cannot be read, and a second mention in the lists, are left out and listed; `strict` makes each of them
    fatal.
    """
    if not root.is_dir():
        raise DataFault(root, "no such folder", NO_DATA)
    motion_files, text_files = _list_files(root / "motions", ".npy"), _list_files(root / "texts", ".txt")
    digits = [len(path.stem.strip()) for path in (*motion_files, *text_files) if _is_number(path.stem.strip())]
    width = id_width or max(digits, default=1)
    motions, texts = by_id(motion_files, width), by_id(text_files, width)
    sides = {"motions": [path.stem for path in motions.values()], "texts": [path.stem for path in texts.values()]}
    return pair(root, motions, texts, read_captions, sides, width, strict)


def pair(
    root: Path,
    motions: Mapping[str, Path],
    texts: Mapping[str, Text],
    captions_of: Callable[[Text], tuple[str, ...]],
    sides: Mapping[str, Sequence[str]],
    width: int,
    strict: bool,
    faults: Iterable[DataFault] = (),
) -> TrainingSet:
    """The training set of these motions and texts, by canonical id: those that the lists name, or all that have both.

    captions_of: the captions of a text, or a DataFault; sides: where motions and texts stand in `root`, and their ids as written
    there; faults: those met before.
    """
    lists = {file: read_ids(file) for file in (root / "train.txt", root / "val.txt") if (root / "train.txt").exists() and file.exists()}
    listed = [name for ids in lists.values() for name in ids]
    before = list(faults)
    faults = [*before, *(_unusable(lists, width, motions, texts) if lists else _unpaired(root, motions, texts, list(sides)))]
    wanted = dict.fromkeys(canonical_ids(listed, width)) if lists else sorted(motions, key=id_order)
    paired = [name for name in wanted if name in motions and name in texts]
    if not paired:
        raise _empty_dataset(root, sides, listed, before)

    captions: dict[str, tuple[str, ...]] = {}
    for name in paired:
        try:
            captions[name] = captions_of(texts[name])
        except DataFault as fault:
            faults.append(fault)
    if faults and strict:
        raise faults[0]
    if not captions:
        raise _empty_dataset(root, sides, listed, faults)
    return TrainingSet(
        root=root,
        ids=tuple(captions),
        paths=tuple(motions[name] for name in captions),
        captions=tuple(captions.values()),
        groups=_read_groups(root / "groups.csv", tuple(captions), width),
        skipped=tuple(Skip(fault.file, fault.wrong) for fault in faults),
    )


def _list_files(folder: Path, suffix: str) -> list[Path]:
    """The files of a folder with that suffix, sorted; hidden ones (a Mac's `._00001.npy`) are none."""
    if not folder.is_dir():
        raise DataFault(folder, "no such folder", NO_DATA)
    return sorted(path for path in folder.iterdir() if path.suffix == suffix and path.name[0] != "." and path.is_file())


def by_id(files: Sequence[Path], width: int) -> dict[str, Path]:
    """The files, or folders, by canonical id; two that would become one id are a DataFault."""
    found: dict[str, Path] = {}
    names = [path.stem if path.suffix in (".npy", ".txt") else path.name for path in files]
    for name, path in zip(canonical_ids(names, width), files, strict=True):
        if name in found:
            raise DataFault(path, f"has the same id {name} as {found[name].name}", "take one of the two files away")
        found[name] = path
    return found


def read_ids(listing: Path) -> list[str]:
    """The ids of a list as they stand, in order, repetitions too; of file names (`00000.npy`, `00000.txt`) the stems, once for all files of
    one id. An empty file or an id that is a path is a DataFault.
    """
    lines = [line.strip() for line in read_text(listing).splitlines() if line.strip()]
    ids = []
    kinds: dict[str, set[str]] = {}
    for stem, kind in (re.fullmatch(r"(.+?)(\.npy|\.txt)?", line, re.I).groups(default="") for line in lines):
        seen = kinds.setdefault(stem, set())
        if not seen or kind in seen:
            ids.append(stem)
        seen.add(kind)
    if not ids:
        raise DataFault(listing, "no id in it", "list the training ids, one a line, or take the file away to train on all")
    for name in ids:
        if "/" in name or "\\" in name or ".." in name:
            raise DataFault(listing, f"id {name!r} is a path", "write bare ids: no folder, no '..'")
    return ids


def _unusable(lists: Mapping[Path, list[str]], width: int, motions: Mapping[str, Path], texts: Mapping[str, Text]) -> Iterator[DataFault]:
    """What is wrong with the lines of train.txt and val.txt: repeated ids, ids without a motion or a text."""
    seen = set()
    for listing, listed in lists.items():
        for raw, name in zip(listed, canonical_ids(listed, width), strict=True):
            if name in seen:
                yield DataFault(listing, f"id {raw} is listed more than once", "keep one line of it")
            else:
                lacks = [kind for kind, files in (("motion", motions), ("text", texts)) if name not in files]
                if lacks:
                    yield DataFault(listing, f"id {raw} has no {' and no '.join(lacks)}", "add what is missing or take the line out")
            seen.add(name)


def _unpaired(root: Path, motions: Mapping[str, Path], texts: Mapping[str, Text], sides: Sequence[str]) -> Iterator[DataFault]:
    """Without train.txt: one fault for all motions without text, and one for all texts without motion."""
    lonely = (("text", motions.keys() - texts.keys()), ("motion", texts.keys() - motions.keys()))
    for folder, (kind, lone) in zip(sides, lonely, strict=True):
        if lone:
            yield DataFault(root / folder, f"{len(lone)} without {kind}: {some(lone)}", f"add each its {kind} or list the ids in train.txt")


def _empty_dataset(root: Path, sides: Mapping[str, Sequence[str]], listed: Sequence[str], faults: Sequence[DataFault]) -> DataFault:
    """The error of a data folder in which no id has motion and text: examples of all sides show how their names differ."""
    examples = ", ".join(
        f"{side if '.' in side else side + '/'} ids e.g. [{', '.join(ids[:3])}]"
        for side, ids in (*sides.items(), *([("train.txt", listed)] if listed else []))
    )
    first = f"; first fault: {faults[0].file}: {faults[0].wrong}" if faults else ""
    mend = "give motion, text and train.txt the same ids; numbers meet whatever their zeros, --id_width sets their digits"
    return DataFault(root, f"empty dataset, no id has both a motion and a text: {examples}{first}", mend)


def _read_groups(path: Path, ids: Collection[str], width: int) -> dict[str, str] | None:
    """The group of each id by groups.csv, None without the file; an id that is not in it is a group of its own, aloud."""
    if not path.exists():
        return None
    groups: dict[str, str] = {}
    for line, (raw, group) in read_table(path, ("id", "group")):
        if groups.setdefault(canonical_ids([raw], width)[0], group) != group:
            raise DataFault(path, f"line {line}: id {raw} is in two groups", "keep one of them")
    if alone := [name for name in ids if name not in groups]:
        warn(path, f"no group for {len(alone)} of {len(ids)} training ids: {some(alone)}", "each gets a group of its own")
    return {name: groups.get(name, f"own:{name}") for name in ids}


# ---- words


def some(names: Iterable[str], limit: int = 3) -> str:
    """The first few names and how many more there are."""
    ordered = sorted(names, key=id_order)
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return ", ".join(ordered[:limit]) + more


def warn(file: Path, wrong: str, mend: str) -> None:
    """A warning in the form of a fault."""
    warnings.warn(f"{file}: {wrong} ({mend})", stacklevel=2)  # our own file: `cli` tells our warnings by it
