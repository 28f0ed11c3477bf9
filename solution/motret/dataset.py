"""From the data folder to memory: checked ids and captions beside their packed features."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from motret import challenge, files, split_joints, store
from motret.challenge import Query, Skip, TrainingSet
from motret.config import DataSettings
from motret.faults import DataFault
from motret.features import FeatureSettings
from motret.queries import read_queries
from motret.skeleton import SMPL
from motret.store import Store


@dataclass(frozen=True)
class TrainingData:
    """The training motions: row i of the store is id i, with captions i.

    fingerprint: changes with any motion, caption, group or joint's name; reused: whether the features were packed before.
    """

    training: TrainingSet
    store: Store
    fingerprint: str
    reused: bool

    @property
    def groups(self) -> dict[str, str] | None:
        return self.training.groups


@dataclass(frozen=True)
class TestData:
    """The queries of a test folder: `rows[q]` are the store rows of query q's candidates; hard links of one file share a row.

    A candidate that cannot be used has row -1: it is ranked last.
    """

    queries: tuple[Query, ...]
    store: Store
    rows: tuple[np.ndarray, ...]
    reused: bool


def read_training(root: Path, *, id_width: int | None = None, strict: bool = False) -> TrainingSet:
    """The training set of a data folder in either layout, its motions not opened."""
    layout = split_joints if split_joints.is_here(root) else challenge
    return layout.read_training(root, id_width=id_width, strict=strict)


def load_training(data: DataSettings, jobs: int = -1, kind: str = "canonical") -> TrainingData:
    """Reads, checks and packs the training motions of `data.data_dir`, or opens what was packed before. kind: of the features."""
    training = read_training(data.data_dir, id_width=data.id_width, strict=data.strict)
    if split_joints.is_here(data.data_dir):
        training = split_joints.check_parts(training, data.work_dir, strict=data.strict, jobs=jobs)
    rotations, fps = data.rotations and training.rotations, training.fps or data.fps
    settings = store.look(training.paths, FeatureSettings(fps=fps, rotations=rotations, kind=kind, skeleton=training.skeleton))
    packed, reused = store.pack(
        training.ids,
        training.paths,
        settings,
        data.work_dir,
        min_frames=data.min_frames,
        strict=data.strict,
        jobs=jobs,
        what="training motions",
    )
    kept = training.only(packed.ids)
    training = replace(kept, skipped=kept.skipped + packed.skipped)
    other = () if training.skeleton == SMPL.name else (training.skeleton,)
    print_in = (packed.ids, packed.digests, training.captions, training.groups, *other)
    return TrainingData(training, packed, files.digest(*print_in), reused)


def as_seen(data: TrainingData, kind: FeatureSettings, settings: DataSettings, jobs: int = -1) -> TrainingData:
    """The same training motions with other features."""
    if data.store.settings == kind:
        return data
    return load_training(replace(settings, fps=kind.fps, rotations=kind.rotations), jobs, kind.kind)


def load_test(folder: Path, settings: FeatureSettings, data: DataSettings, jobs: int = -1, aloud: bool = True) -> TestData:
    """Reads, checks and packs a test folder with the feature settings of the training motions.

    A candidate that is too short or has values that are not finite is repaired, and one that cannot be used at all gets no row; `aloud`:
    each is told in a line. With `data.strict` any fault is fatal; a fault of a query, or a folder without one usable motion, always is.
    """
    queries = read_queries(folder)
    place_of = {path: _find_place(path, data.strict) for query in queries for path in query.paths}
    row_of: dict[tuple[int, int], int] = {}
    names, paths = [], []
    for query in queries:
        for number, path in zip(query.candidates, query.paths, strict=True):
            place = place_of[path]
            if isinstance(place, tuple) and place not in row_of:  # hard links: one motion under several queries
                row_of[place] = len(names)
                names.append(f"{query.id}/motion_{number}")
                paths.append(path)
    lost = [Skip(place.file, place.wrong) for place in place_of.values() if isinstance(place, DataFault)]
    if not names:
        raise DataFault(folder, "no usable candidate", f"the first fault: {lost[0].file}: {lost[0].wrong}")
    packed, reused = store.pack(
        names,
        paths,
        settings,
        data.work_dir,
        min_frames=data.min_frames,
        strict=data.strict,
        jobs=jobs,
        what="candidate motions",
        repair=not data.strict,
    )
    packed_row = {name: row for row, name in enumerate(packed.ids)}
    store_row = {place: packed_row.get(names[row], -1) for place, row in row_of.items()}
    rows = tuple(np.array([store_row.get(place_of[path], -1) for path in query.paths]) for query in queries)
    if aloud:
        _tell_of_bad_candidates(packed.repaired, (*lost, *packed.skipped))
    return TestData(queries, packed, rows, reused)


def _tell_of_bad_candidates(repaired: Sequence[Skip], unusable: Sequence[Skip]) -> None:
    for skip in repaired:
        print(f"{skip.file}: {skip.wrong}")
    for skip in unusable:
        print(f"{skip.file}: {skip.wrong}: ranked last")
    if repaired or unusable:
        print(
            f"{len(repaired)} candidate motions were repaired, {len(unusable)} cannot be used and are ranked last (--strict stops instead)"
        )


def _find_place(path: Path, strict: bool) -> tuple[int, int] | DataFault:
    """`_place`, or what is wrong with the file."""
    try:
        return _place(path)
    except DataFault as fault:
        if strict:
            raise
        return fault


def _place(path: Path) -> tuple[int, int]:
    """Where a file's content is on disk: hard links have it in common."""
    try:
        about = path.stat()
    except OSError as gone:
        raise DataFault(path, f"cannot be read: {gone.strerror}", "check that it is there and readable") from gone
    return about.st_dev, about.st_ino


def same_persons(packed: Store, persons: int, where: Path) -> None:
    """DataFault where a gallery has another number of persons than the motions trained on."""
    if packed.persons != persons:
        wrong = f"motions of {packed.persons} person(s), those trained on have {persons}"
        raise DataFault(where, wrong, "rank them with a model trained on motions of the same form")
