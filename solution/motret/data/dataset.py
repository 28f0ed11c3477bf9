"""From the data folder to memory: checked ids and captions beside their packed features."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from motret.config.base import DataConfig
from motret.data import feature_store
from motret.data.feature_blocks import block_names
from motret.data.feature_store import FeatureStore
from motret.data.features import FeatureConfig
from motret.errors import DataError
from motret.formats import challenge, split_joints
from motret.formats.challenge import SkippedFile, TrainingSet
from motret.formats.queries import Query, read_queries
from motret.skeleton import SMPL
from motret.utils import files


@dataclass(frozen=True)
class TrainingData:
    """The training motions: row i of the store is id i, with captions i.

    fingerprint: changes with any motion, caption, group or joint's name; reused: whether the features were packed before.
    """

    training: TrainingSet
    store: FeatureStore
    fingerprint: str
    cache_hit: bool

    @property
    def groups(self) -> dict[str, str] | None:
        return self.training.groups


@dataclass(frozen=True)
class TestData:
    """The queries of a test folder: `candidate_idx[q]` are the store rows of query q's candidates; hard links of one file share a row.

    A candidate that cannot be used has row -1: it is ranked last.
    """

    queries: tuple[Query, ...]
    store: FeatureStore
    candidate_idx: tuple[np.ndarray, ...]
    cache_hit: bool


def read_training(root: Path, *, id_width: int | None = None, strict: bool = False) -> TrainingSet:
    """The training set of a data folder in either layout, its motions not opened."""
    layout = split_joints if split_joints.has_split_joints(root) else challenge
    return layout.read_training(root, id_width=id_width, strict=strict)


def load_training(data: DataConfig, jobs: int = -1, kind: str = "canonical") -> TrainingData:
    """Reads, checks and packs the training motions of `data.data_dir`, or opens what was packed before. kind: of the features."""
    block_names(kind)  # an unknown block is an error before any file is read
    training = read_training(data.data_dir, id_width=data.id_width, strict=data.strict)
    if split_joints.has_split_joints(data.data_dir):
        training = split_joints.check_part_files(training, data.work_dir, strict=data.strict, jobs=jobs)
    rotations, fps = data.rotations and training.rotations, training.fps or data.fps
    config = feature_store.inspect_raw(training.paths, FeatureConfig(fps=fps, rotations=rotations, kind=kind, skeleton=training.skeleton))
    packed, cache_hit = feature_store.build_feature_cache(
        training.ids,
        training.paths,
        config,
        data.work_dir,
        min_frames=data.min_frames,
        strict=data.strict,
        jobs=jobs,
        what="training motions",
    )
    kept = training.subset(packed.ids)
    training = replace(kept, skipped=kept.skipped + packed.skipped)
    other = () if training.skeleton == SMPL.name else (training.skeleton,)
    print_in = (packed.ids, packed.digests, training.captions, training.groups, *other)
    return TrainingData(training, packed, files.content_hash(*print_in), cache_hit)


def with_features(data: TrainingData, kind: FeatureConfig, config: DataConfig, jobs: int = -1) -> TrainingData:
    """The same training motions with other features."""
    if data.store.config == kind:
        return data
    return load_training(replace(config, fps=kind.fps, rotations=kind.rotations), jobs, kind.kind)


def load_test(folder: Path, config: FeatureConfig, data: DataConfig, jobs: int = -1, verbose: bool = True) -> TestData:
    """Reads, checks and packs a test folder with the feature settings of the training motions.

    A candidate that is too short or has values that are not finite is repaired, and one that cannot be used at all gets no row; `verbose`:
    each is told in a line. With `data.strict` any fault is fatal; a fault of a query, or a folder without one usable motion, always is.
    """
    queries = read_queries(folder)
    place_of = {path: _disk_location_or_error(path, data.strict) for query in queries for path in query.paths}
    row_of: dict[tuple[int, int], int] = {}
    names, paths = [], []
    for query in queries:
        for number, path in zip(query.candidates, query.paths, strict=True):
            place = place_of[path]
            if isinstance(place, tuple) and place not in row_of:  # hard links: one motion under several queries
                row_of[place] = len(names)
                names.append(f"{query.id}/motion_{number}")
                paths.append(path)
    lost = [SkippedFile(place.path, place.problem) for place in place_of.values() if isinstance(place, DataError)]
    if not names:
        raise DataError(folder, "no usable candidate", f"the first fault: {lost[0].file}: {lost[0].problem}")
    packed, cache_hit = feature_store.build_feature_cache(
        names,
        paths,
        config,
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
    if verbose:
        _warn_of_bad_candidates(packed.repaired, (*lost, *packed.skipped))
    return TestData(queries, packed, rows, cache_hit)


def _warn_of_bad_candidates(repaired: Sequence[SkippedFile], unusable: Sequence[SkippedFile]) -> None:
    for skip in repaired:
        print(f"{skip.file}: {skip.problem}")
    for skip in unusable:
        print(f"{skip.file}: {skip.problem}: ranked last")
    if repaired or unusable:
        print(
            f"{len(repaired)} candidate motions were repaired, {len(unusable)} cannot be used and are ranked last (--strict stops instead)"
        )


def _disk_location_or_error(path: Path, strict: bool) -> tuple[int, int] | DataError:
    """`_place`, or what is wrong with the file."""
    try:
        return _disk_location(path)
    except DataError as fault:
        if strict:
            raise
        return fault


def _disk_location(path: Path) -> tuple[int, int]:
    """Where a file's content is on disk: hard links have it in common."""
    try:
        about = path.stat()
    except OSError as gone:
        raise DataError(path, f"cannot be read: {gone.strerror}", "check that it is there and readable") from gone
    return about.st_dev, about.st_ino


def check_persons(packed: FeatureStore, persons: int, where: Path) -> None:
    """DataError where a gallery has another number of persons than the motions trained on."""
    if packed.persons != persons:
        problem = f"motions of {packed.persons} person(s), those trained on have {persons}"
        raise DataError(where, problem, "rank them with a model trained on motions of the same form")
