"""From the data folder to memory: checked ids and captions with their packed features."""

import logging
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

logger = logging.getLogger(__name__)

DiskLocation = tuple[int, int]
"""Device and inode of a file."""


@dataclass(frozen=True)
class TrainingData:
    """The training motions: motion i of the store has id i and captions i.

    fingerprint: changes with any motion, caption, group or joint name; cache_hit: whether the
    features were packed before.
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
    """The queries of a test folder and the motions of all their candidates.

    candidate_idx: of each query the motions of its candidates in the store, -1 for a candidate that
    cannot be used: it is ranked last. Hard links of one file are one motion.
    """

    queries: tuple[Query, ...]
    store: FeatureStore
    candidate_idx: tuple[np.ndarray, ...]
    cache_hit: bool


def read_training(
    root: Path,
    *,
    id_width: int | None = None,
    strict: bool = False,
    follow_links: bool = False,
) -> TrainingSet:
    """The training set of a data folder in either layout; its motions are not opened."""
    challenge.check_folder(root)
    layout = split_joints if split_joints.has_split_joints(root) else challenge
    return layout.read_training(root, id_width=id_width, strict=strict, follow_links=follow_links)


def load_training(data: DataConfig, jobs: int = -1, kind: str = "canonical") -> TrainingData:
    """Reads, checks and packs the training motions of `data.data_dir`, or opens what was packed
    before.

    kind: of the features, as --features names it.
    """
    block_names(kind)  # an unknown block is an error before any file is read
    training = read_training(
        data.data_dir, id_width=data.id_width, strict=data.strict, follow_links=data.follow_links
    )
    if split_joints.has_split_joints(data.data_dir):
        training = split_joints.check_part_files(
            training, data.work_dir, strict=data.strict, jobs=jobs
        )
    config = FeatureConfig(
        fps=training.fps or data.fps,
        rotations=data.rotations and training.rotations,
        kind=kind,
        skeleton=training.skeleton,
    )
    store, cache_hit = feature_store.build_feature_cache(
        training.ids,
        training.paths,
        feature_store.inspect_raw(training.paths, config),
        data,
        jobs=jobs,
        what="training motions",
    )
    usable = training.subset(store.ids)
    training = replace(usable, skipped=usable.skipped + store.skipped)
    content: list[object] = [store.ids, store.digests, training.captions, training.groups]
    if training.skeleton != SMPL.name:
        content.append(training.skeleton)
    return TrainingData(training, store, files.content_hash(*content), cache_hit)


def with_features(
    data: TrainingData, features: FeatureConfig, config: DataConfig, jobs: int = -1
) -> TrainingData:
    """The same training motions with other features."""
    if data.store.config == features:
        return data
    config = replace(config, fps=features.fps, rotations=features.rotations)
    return load_training(config, jobs, features.kind)


def load_test(
    folder: Path, config: FeatureConfig, data: DataConfig, jobs: int = -1, verbose: bool = True
) -> TestData:
    """Reads, checks and packs a test folder with the features of the training motions.

    A candidate that is too short or has values that are not finite is repaired; one that cannot be
    used at all has no motion; `verbose`: each is reported in a line. With `data.strict` any problem
    is an error; a problem of a query, or a folder without one usable motion, always is.
    """
    queries = read_queries(folder, data.follow_links)
    locations, unreadable = _locate_candidates(queries, data.strict)
    if not locations:
        fix = f"the first problem: {unreadable[0].file}: {unreadable[0].problem}"
        raise DataError(folder, "no usable candidate", fix)
    motions: dict[DiskLocation, tuple[str, Path]] = {}
    for query in queries:
        for number, path in zip(query.candidates, query.paths, strict=True):
            if path in locations:  # hard links: one motion under several queries
                motions.setdefault(locations[path], (f"{query.id}/motion_{number}", path))
    names, paths = zip(*motions.values(), strict=True)
    store, cache_hit = feature_store.build_feature_cache(
        names,
        paths,
        config,
        data,
        jobs=jobs,
        what="candidate motions",
        repair=not data.strict,
    )
    store_idx = {name: index for index, name in enumerate(store.ids)}
    motion_idx = {
        path: store_idx.get(motions[location][0], -1) for path, location in locations.items()
    }
    candidate_idx = tuple(
        np.array([motion_idx.get(path, -1) for path in query.paths]) for query in queries
    )
    if verbose:
        _report_bad_candidates(store.repaired, (*unreadable, *store.skipped))
    return TestData(queries, store, candidate_idx, cache_hit)


def _report_bad_candidates(
    repaired: Sequence[SkippedFile], unusable: Sequence[SkippedFile]
) -> None:
    for skipped in repaired:
        logger.info(f"{skipped.file}: {skipped.problem}")
    for skipped in unusable:
        logger.info(f"{skipped.file}: {skipped.problem}: ranked last")
    if repaired or unusable:
        logger.info(
            f"{len(repaired)} candidate motions were repaired, {len(unusable)} cannot be used and"
            " are ranked last (--strict stops instead)"
        )


def _locate_candidates(
    queries: Sequence[Query], strict: bool
) -> tuple[dict[Path, DiskLocation], list[SkippedFile]]:
    """Where each candidate is on disk, and the candidates that cannot be read; `strict` raises the
    first."""
    locations: dict[Path, DiskLocation] = {}
    unreadable = []
    for path in dict.fromkeys(path for query in queries for path in query.paths):
        try:
            locations[path] = _disk_location(path)
        except DataError as error:
            if strict:
                raise
            unreadable.append(SkippedFile(error.path, error.problem))
    return locations, unreadable


def _disk_location(path: Path) -> DiskLocation:
    """Where a file's content is on disk: the same for all hard links of a file."""
    try:
        stat = path.stat()
    except OSError as error:
        fix = "check that it is there and readable"
        raise DataError(path, f"cannot be read: {error.strerror}", fix) from error
    return stat.st_dev, stat.st_ino


def check_persons(store: FeatureStore, persons: int, folder: Path) -> None:
    """DataError where motions have another number of persons than those trained on."""
    if store.persons != persons:
        problem = f"motions of {store.persons} person(s), those trained on have {persons}"
        fix = "rank them with a model trained on motions of the same form"
        raise DataError(folder, problem, fix)
