"""Reads the competition's input: ids, captions, motions, the training set (`queries` reads the test); every check and its error.

Whatever is wrong is a `DataError` that names the file, the fault and the mend. Nothing is ever unpickled, and no path is built
from what a data file says: ids are looked up among the files that a folder holds.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from motret.errors import DataError, warn
from motret.formats.text_files import canonical_ids, id_order, is_number, preview, read_captions, read_csv, read_text
from motret.skeleton import SMPL

Text = TypeVar("Text")

NO_DATA_FIX = "put the competition's data there or give --data_dir; `python solution/sample.py` makes a generated one"


@dataclass(frozen=True)
class SkippedFile:
    """A training file left out, and why: a line of the data report."""

    file: str
    problem: str


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
    skipped: tuple[SkippedFile, ...]
    rotations: bool = True
    """Whether the motions hold joint rotations."""
    skeleton: str = SMPL.name
    """The joints of their bodies, as `Skeleton.spec` tells them."""
    fps: float | None = None
    """Frames a second, where the data say so."""

    def subset(self, ids: Iterable[str]) -> "TrainingSet":
        """The same set restricted to some of its canonical ids, in its own order. An id it does not hold: DataError."""
        wanted = set(ids)
        if unknown := wanted.difference(self.ids):
            raise DataError(self.root, f"no training motion {preview(unknown)}", "make the folds again for this data")
        kept = [row for row, name in enumerate(self.ids) if name in wanted]
        return replace(
            self,
            ids=tuple(self.ids[row] for row in kept),
            paths=tuple(self.paths[row] for row in kept),
            captions=tuple(self.captions[row] for row in kept),
            groups=None if self.groups is None else {self.ids[row]: self.groups[self.ids[row]] for row in kept},
        )


# ---- the training set


def read_training(root: Path, *, id_width: int | None = None, strict: bool = False) -> TrainingSet:
    """The training set of a data folder: train.txt and val.txt (without train.txt every id with motion and text), texts, groups.csv.

    Motions are not opened. id_width: digits of numeric ids, by default those of the widest file name. An id without motion, without
    text or with a text that cannot be read, and a second mention in the lists, are left out and listed; `strict` makes each of them
    fatal.
    """
    if not root.is_dir():
        raise DataError(root, "no such folder", NO_DATA_FIX)
    motion_files, text_files = _list_files(root / "motions", ".npy"), _list_files(root / "texts", ".txt")
    digits = [len(path.stem.strip()) for path in (*motion_files, *text_files) if is_number(path.stem.strip())]
    width = id_width or max(digits, default=1)
    motions, texts = paths_by_id(motion_files, width), paths_by_id(text_files, width)
    sides = {"motions": [path.stem for path in motions.values()], "texts": [path.stem for path in texts.values()]}
    return build_training_set(root, motions, texts, read_captions, sides, width, strict)


def build_training_set(
    root: Path,
    motions: Mapping[str, Path],
    texts: Mapping[str, Text],
    captions_of: Callable[[Text], tuple[str, ...]],
    sides: Mapping[str, Sequence[str]],
    width: int,
    strict: bool,
    faults: Iterable[DataError] = (),
) -> TrainingSet:
    """The training set of these motions and texts, by canonical id: those that the lists name, or all that have both.

    captions_of: the captions of a text, or a DataError; sides: where motions and texts stand in `root`, and their ids as written
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
        except DataError as fault:
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
        skipped=tuple(SkippedFile(fault.path, fault.problem) for fault in faults),
    )


def _list_files(folder: Path, suffix: str) -> list[Path]:
    """The files of a folder with that suffix, sorted; hidden ones (a Mac's `._00001.npy`) are none."""
    if not folder.is_dir():
        raise DataError(folder, "no such folder", NO_DATA_FIX)
    return sorted(path for path in folder.iterdir() if path.suffix == suffix and path.name[0] != "." and path.is_file())


def paths_by_id(files: Sequence[Path], width: int) -> dict[str, Path]:
    """The files, or folders, by canonical id; two that would become one id are a DataError."""
    found: dict[str, Path] = {}
    names = [path.stem if path.suffix in (".npy", ".txt") else path.name for path in files]
    for name, path in zip(canonical_ids(names, width), files, strict=True):
        if name in found:
            raise DataError(path, f"has the same id {name} as {found[name].name}", "take one of the two files away")
        found[name] = path
    return found


def read_ids(listing: Path) -> list[str]:
    """The ids of a list as they stand, in order, repetitions too; of file names (`00000.npy`, `00000.txt`) the stems, once for all files of
    one id. An empty file or an id that is a path is a DataError.
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
        raise DataError(listing, "no id in it", "list the training ids, one a line, or take the file away to train on all")
    for name in ids:
        if "/" in name or "\\" in name or ".." in name:
            raise DataError(listing, f"id {name!r} is a path", "write bare ids: no folder, no '..'")
    return ids


def _unusable(lists: Mapping[Path, list[str]], width: int, motions: Mapping[str, Path], texts: Mapping[str, Text]) -> Iterator[DataError]:
    """What is wrong with the lines of train.txt and val.txt: repeated ids, ids without a motion or a text."""
    seen = set()
    for listing, listed in lists.items():
        for raw, name in zip(listed, canonical_ids(listed, width), strict=True):
            if name in seen:
                yield DataError(listing, f"id {raw} is listed more than once", "keep one line of it")
            else:
                lacks = [kind for kind, files in (("motion", motions), ("text", texts)) if name not in files]
                if lacks:
                    yield DataError(listing, f"id {raw} has no {' and no '.join(lacks)}", "add what is missing or take the line out")
            seen.add(name)


def _unpaired(root: Path, motions: Mapping[str, Path], texts: Mapping[str, Text], sides: Sequence[str]) -> Iterator[DataError]:
    """Without train.txt: one fault for all motions without text, and one for all texts without motion."""
    lonely = (("text", motions.keys() - texts.keys()), ("motion", texts.keys() - motions.keys()))
    for folder, (kind, lone) in zip(sides, lonely, strict=True):
        if lone:
            yield DataError(
                root / folder, f"{len(lone)} without {kind}: {preview(lone)}", f"add each its {kind} or list the ids in train.txt"
            )


def _empty_dataset(root: Path, sides: Mapping[str, Sequence[str]], listed: Sequence[str], faults: Sequence[DataError]) -> DataError:
    """The error of a data folder in which no id has motion and text: examples of all sides show how their names differ."""
    examples = ", ".join(
        f"{side if '.' in side else side + '/'} ids e.g. [{', '.join(ids[:3])}]"
        for side, ids in (*sides.items(), *([("train.txt", listed)] if listed else []))
    )
    first = f"; first fault: {faults[0].path}: {faults[0].problem}" if faults else ""
    fix = "give motion, text and train.txt the same ids; numbers meet whatever their zeros, --id_width sets their digits"
    return DataError(root, f"empty dataset, no id has both a motion and a text: {examples}{first}", fix)


def _read_groups(path: Path, ids: Collection[str], width: int) -> dict[str, str] | None:
    """The group of each id by groups.csv, None without the file; an id that is not in it is a group of its own, aloud."""
    if not path.exists():
        return None
    groups: dict[str, str] = {}
    for line, (raw, group) in read_csv(path, ("id", "group")):
        if groups.setdefault(canonical_ids([raw], width)[0], group) != group:
            raise DataError(path, f"line {line}: id {raw} is in two groups", "keep one of them")
    if alone := [name for name in ids if name not in groups]:
        warn(path, f"no group for {len(alone)} of {len(ids)} training ids: {preview(alone)}", "each gets a group of its own")
    return {name: groups.get(name, f"own:{name}") for name in ids}


TOP_K = 10
"""Candidates of a query that a submission names."""
POOL_SIZE = 32
"""Candidates of a query in the competition."""
