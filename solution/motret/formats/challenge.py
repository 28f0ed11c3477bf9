"""Reads the competition's training set: ids, captions, files of motions, groups.

Whatever is wrong is a `DataError` that names the file, the problem and the fix. No path is built
from the content of a data file: ids are looked up among the files that a folder holds. `queries`
reads the test.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from motret.errors import DataError, warn
from motret.formats.text_files import (
    canonical_ids,
    cell_problem,
    id_order,
    id_problem,
    is_number,
    preview,
    read_captions,
    read_csv,
    read_text,
)
from motret.skeleton import SMPL
from motret.utils import reading

TOP_K = 10
"""Candidates per query in a submission."""
POOL_SIZE = 32
"""Candidates per query in the competition."""

NO_DATA_FIX = (
    "put the competition's data there or give --data_dir; "
    "`python solution/sample.py` makes a generated one"
)

Text = TypeVar("Text")
"""Whatever the captions of an id are read from: a file, or an id in a larger file."""


@dataclass(frozen=True)
class SkippedFile:
    """A training file that is left out, and why: a line of the data report."""

    file: str
    problem: str


@dataclass(frozen=True)
class ReadRules:
    """How a data folder is read.

    strict: a problem is an error where otherwise an id is left out; follow_links: texts are read
    through links that lead out of the data folder.
    """

    strict: bool = False
    follow_links: bool = False

    def home(self, folder: Path) -> Path | None:
        """The folder that links of texts must not lead out of; None where they may."""
        return None if self.follow_links else folder


@dataclass(frozen=True)
class TrainingSet:
    """The motions that have captions, in the order of train.txt and val.txt.

    Without train.txt they are sorted by id.
    """

    root: Path
    ids: tuple[str, ...]
    """Canonical ids, each once."""
    paths: tuple[Path, ...]
    """The motion file of each id."""
    captions: tuple[tuple[str, ...], ...]
    """The captions of each id, at least one."""
    groups: dict[str, str] | None
    """The group of each id, from groups.csv; None where there is no such file."""
    skipped: tuple[SkippedFile, ...]
    rotations: bool = True
    """Whether the motions hold joint rotations."""
    skeleton: str = SMPL.name
    """The joints of the bodies, as `Skeleton.spec` writes them."""
    fps: float | None = None
    """Frames per second, where the data say so."""
    sources: dict[str, str] | None = None
    """Where each id comes from, by the column `source` of groups.csv; None where it has none."""

    def subset(self, ids: Iterable[str]) -> "TrainingSet":
        """The same set restricted to some of its canonical ids; the order stays.

        DataError for an id that the set does not have.
        """
        requested = set(ids)
        if unknown := requested.difference(self.ids):
            problem = f"no training motion {preview(unknown)}"
            raise DataError(self.root, problem, "make the folds again for this data")
        indices = [index for index, name in enumerate(self.ids) if name in requested]
        names = tuple(self.ids[index] for index in indices)
        return replace(
            self,
            ids=names,
            paths=tuple(self.paths[index] for index in indices),
            captions=tuple(self.captions[index] for index in indices),
            groups=None if self.groups is None else {name: self.groups[name] for name in names},
            sources=None if self.sources is None else {name: self.sources[name] for name in names},
        )


# ---- reading


def read_training(
    root: Path,
    *,
    id_width: int | None = None,
    strict: bool = False,
    follow_links: bool = False,
) -> TrainingSet:
    """The training set of a data folder, by train.txt, val.txt, texts/ and groups.csv.

    Without train.txt every id with a motion and a text is taken. Motions are not opened.

    id_width: digits of numeric ids, by default those of the widest file name; strict: makes each
    problem fatal that otherwise leaves an id out (no motion, no text, an unreadable text, a second
    mention in the lists); follow_links: reads texts through links that lead out of the data folder.
    """
    check_folder(root)
    motion_files, bad_motions = _list_files(root / "motions", ".npy")
    text_files, bad_texts = _list_files(root / "texts", ".txt")
    stems = [path.stem.strip() for path in (*motion_files, *text_files)]
    width = id_width or max((len(stem) for stem in stems if is_number(stem)), default=1)
    motions, texts = paths_by_id(motion_files, width), paths_by_id(text_files, width)
    raw_ids = {
        "motions": [path.stem for path in motions.values()],
        "texts": [path.stem for path in texts.values()],
    }
    rules = ReadRules(strict, follow_links)
    captions_of = partial(read_captions, within=rules.home(root))
    earlier = [*bad_motions, *bad_texts]
    return build_training_set(root, motions, texts, captions_of, raw_ids, width, rules, earlier)


def build_training_set(
    root: Path,
    motions: Mapping[str, Path],
    texts: Mapping[str, Text],
    captions_of: Callable[[Text], tuple[str, ...]],
    raw_ids: Mapping[str, Sequence[str]],
    width: int,
    rules: ReadRules,
    earlier: Iterable[DataError] = (),
) -> TrainingSet:
    """The training set of motions and texts by canonical id: those in the lists, or all with both.

    captions_of: the captions of a text, or a DataError; raw_ids: the two folders or files in `root`
    that motions and texts come from, with the ids as written there; earlier: problems met before.
    """
    home = rules.home(root)
    lists = _read_lists(root, home)
    listed = [name for ids in lists.values() for name in ids]
    earlier = list(earlier)
    if lists:
        problems = [*earlier, *_unusable_ids(lists, width, motions, texts)]
        requested: Iterable[str] = dict.fromkeys(canonical_ids(listed, width))
    else:
        problems = [*earlier, *_unpaired_ids(root, motions, texts, list(raw_ids))]
        requested = sorted(motions, key=id_order)
    paired = [name for name in requested if name in motions and name in texts]
    if not paired:
        raise _empty_dataset_error(root, raw_ids, listed, earlier)

    captions: dict[str, tuple[str, ...]] = {}
    for name in paired:
        try:
            check_id(name, motions[name])
            captions[name] = captions_of(texts[name])
        except DataError as error:
            problems.append(error)
    if problems and rules.strict:
        raise problems[0]
    if not captions:
        raise _empty_dataset_error(root, raw_ids, listed, problems)
    return TrainingSet(
        root=root,
        ids=tuple(captions),
        paths=tuple(motions[name] for name in captions),
        captions=tuple(captions.values()),
        groups=_read_groups(root / "groups.csv", tuple(captions), width, home),
        sources=_read_sources(root / "groups.csv", tuple(captions), width),
        skipped=tuple(SkippedFile(error.path, error.problem) for error in problems),
    )


def check_folder(folder: Path) -> None:
    """DataError where a folder is missing or cannot be entered."""
    if not reading.is_folder(folder):
        raise DataError(folder, "no such folder", NO_DATA_FIX)


def check_id(name: str, path: Path) -> None:
    """DataError where the name of a file or folder cannot be an id."""
    if problem := id_problem(name):
        raise DataError(path, f"id {name!r} {problem}", "rename it")


def _list_files(folder: Path, suffix: str) -> tuple[list[Path], list[DataError]]:
    """The files of a folder with that suffix, sorted, and the problems of those that are none.

    Hidden ones (`._00001.npy`) do not count.
    """
    check_folder(folder)
    paths, problems = [], []
    for path in reading.list_folder(folder):
        if path.suffix != suffix or path.name[0] == ".":
            continue
        try:
            if reading.is_file(path):
                paths.append(path)
        except DataError as error:
            problems.append(error)
    return paths, problems


def paths_by_id(paths: Sequence[Path], width: int) -> dict[str, Path]:
    """Files or folders by canonical id; two with the same id are a DataError."""
    by_id: dict[str, Path] = {}
    names = [path.stem if path.suffix in (".npy", ".txt") else path.name for path in paths]
    for name, path in zip(canonical_ids(names, width), paths, strict=True):
        if name in by_id:
            problem = f"has the same id {name} as {by_id[name].name}"
            raise DataError(path, problem, "remove one of the two files")
        by_id[name] = path
    return by_id


# ---- lists of ids


def read_ids(path: Path) -> list[str]:
    """The ids in a list as they are written, in order, repetitions included.

    The list may hold file names (`00000.npy`, `00000.txt`): then the stems are the ids, each once
    for all files of it. DataError for a list without ids, and for an id that is a path.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    ids = []
    suffixes: dict[str, set[str]] = {}  # of the lines with each stem
    for line in lines:
        stem = line[:-4] if len(line) > 4 and line[-4:].lower() in (".npy", ".txt") else line
        suffix = line[len(stem) :]
        earlier = suffixes.setdefault(stem, set())
        if not earlier or suffix in earlier:
            ids.append(stem)
        earlier.add(suffix)
    if not ids:
        fix = "list the training ids, one per line, or remove the file to train on all"
        raise DataError(path, "no id in it", fix)
    for name in ids:
        if problem := id_problem(name):
            fix = "write bare ids: no folder, no '..', letters and digits"
            raise DataError(path, f"id {name!r} {problem}", fix)
    return ids


def _read_lists(root: Path, home: Path | None) -> dict[Path, list[str]]:
    """The ids of train.txt and val.txt; without train.txt there are no lists.

    home: what links must not lead out of.
    """
    if not reading.is_file(root / "train.txt"):
        return {}
    lists = {}
    for path in (root / "train.txt", root / "val.txt"):
        if reading.is_file(path):
            if home is not None:
                reading.check_inside(path, home)
            lists[path] = read_ids(path)
    return lists


# ---- problems


def _unusable_ids(
    lists: Mapping[Path, list[str]],
    width: int,
    motions: Mapping[str, Path],
    texts: Mapping[str, Text],
) -> Iterator[DataError]:
    """The problems of the lists: repeated ids, ids without a motion or a text."""
    names: set[str] = set()
    for path, listed in lists.items():
        for raw, name in zip(listed, canonical_ids(listed, width), strict=True):
            if name in names:
                problem = f"id {raw} is listed more than once"
                yield DataError(path, problem, "keep one of its lines")
                continue
            names.add(name)
            files = (("motion", motions), ("text", texts))
            if missing := [kind for kind, by_id in files if name not in by_id]:
                problem = f"id {raw} has no {' and no '.join(missing)}"
                yield DataError(path, problem, "add what is missing or remove the line")


def _unpaired_ids(
    root: Path, motions: Mapping[str, Path], texts: Mapping[str, Text], sources: Sequence[str]
) -> Iterator[DataError]:
    """Without train.txt: one problem for motions without text, one for texts without motion.

    sources: the folders or files in `root` that motions and texts come from.
    """
    unpaired = (("text", motions.keys() - texts.keys()), ("motion", texts.keys() - motions.keys()))
    for source, (missing, ids) in zip(sources, unpaired, strict=True):
        if ids:
            problem = f"{len(ids)} without {missing}: {preview(ids)}"
            yield DataError(
                root / source, problem, f"add each {missing} or list the ids to use in train.txt"
            )


def _empty_dataset_error(
    root: Path,
    raw_ids: Mapping[str, Sequence[str]],
    listed: Sequence[str],
    problems: Sequence[DataError],
) -> DataError:
    """The error where no id has both motion and text, with examples of ids from all sources."""
    sources = dict(raw_ids) | ({"train.txt": listed} if listed else {})
    examples = ", ".join(
        f"{source if '.' in source else source + '/'} ids e.g. [{', '.join(ids[:3])}]"
        for source, ids in sources.items()
    )
    first = f"; first problem: {problems[0].path}: {problems[0].problem}" if problems else ""
    problem = f"empty dataset, no id has both a motion and a text: {examples}{first}"
    fix = (
        "give motion, text and train.txt the same ids; leading zeros of numbers do not matter, "
        "--id_width sets their digits"
    )
    return DataError(root, problem, fix)


# ---- groups


def _read_groups(
    path: Path, ids: Collection[str], width: int, home: Path | None
) -> dict[str, str] | None:
    """The group of each id in groups.csv, None without the file.

    An id that is not in it gets a group of its own, with a warning. home: what a link must not lead
    out of.
    """
    if not reading.is_file(path):
        return None
    if home is not None:
        reading.check_inside(path, home)
    groups: dict[str, str] = {}
    for line_number, (raw, group) in read_csv(path, ("id", "group")):
        if problem := cell_problem(group):
            raise DataError(path, f"line {line_number}: group {group!r} {problem}", "rename it")
        if groups.setdefault(canonical_ids([raw], width)[0], group) != group:
            problem = f"line {line_number}: id {raw} is in two groups"
            raise DataError(path, problem, "keep one of them")
    if missing := [name for name in ids if name not in groups]:
        problem = f"no group for {len(missing)} of {len(ids)} training ids: {preview(missing)}"
        warn(path, problem, "each gets a group of its own")
    return {name: groups.get(name, f"own:{name}") for name in ids}


def _read_sources(path: Path, ids: Collection[str], width: int) -> dict[str, str] | None:
    """The source of each id in groups.csv, None where its column `source` has none.

    An id without one has the source "unknown".
    """
    if not reading.is_file(path):
        return None
    rows = (row for _, row in read_csv(path, ("id",), ("source",)))
    sources = {canonical_ids([raw], width)[0]: source for raw, source in rows if source}
    return {name: sources.get(name, "unknown") for name in ids} if sources else None
