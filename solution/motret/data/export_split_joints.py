"""Writes training motions in the layout that `split_joints` reads.

Each person of a two-person motion is a motion of its own, `<id>_a` and `<id>_b`: the layout has room for one body, and its readers
expect one. Their caption, which tells of both, stands with each, and groups.csv keeps them in one fold. A one-person motion keeps its id.
Coordinates are those of the data, neither turned nor moved; rotations have no place in the layout.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from motret import skeleton
from motret.data import folds
from motret.data.dataset import TrainingData
from motret.data.parts import describer, part_texts
from motret.errors import DataError
from motret.formats import gar, motion_files, split_joints, text_files
from motret.formats.challenge import TrainingSet
from motret.formats.gar import PartDescriptions
from motret.formats.motion_files import BODY_FILE
from motret.formats.split_joints import FOLDER, SMPL_STREAMS
from motret.utils import progress
from motret.utils.files import atomic_dir, write_csv, write_json

MARKER = "export.json"
PERSONS = {1: ("",), 2: ("_a", "_b")}
"""What is added to a motion's id for each of its persons."""


def export_split_joints(data: TrainingData, out: Path, id_width: int | None = None, jobs: int = -1) -> int:
    """Writes the data folder `out`, whole or not at all; returns the number of its motions.

    An older export in `out` is replaced, anything else is left alone (DataError). Part texts come from the data's GAR files, else from
    the motions. Only the first caption of a motion has a place in the layout.
    """
    if split_joints.has_split_joints(data.training.root):
        raise DataError(data.training.root, "is in this layout already", "export the competition's data")
    with atomic_dir(out, MARKER) as building:
        written = _write_streams(data, building)
        _write_texts(data, written, building, id_width, jobs)
        write_json(building / MARKER, {"data": data.fingerprint, "motions": len(written.ids)})
    return len(written.ids)


def _write_streams(data: TrainingData, root: Path) -> TrainingSet:
    """Folders and statistics; the training set they make, each motion in the group that it has in `data`."""
    training, endings = data.training, PERSONS[data.store.persons]
    ids = tuple(f"{name}{ending}" for name in training.ids for ending in endings)
    if len(set(ids)) < len(ids):
        twice = [name for name, count in Counter(ids).items() if count > 1]
        raise DataError(
            training.root, f"persons of several motions would be called {text_files.preview(twice)}", "rename one of the motions"
        )
    origin = skeleton.split_columns(motion_files.read_motion(training.paths[0]))[0][0, 0]  # a joint that never moves deviates by 0, exactly
    total, square, frames = np.zeros((skeleton.N_JOINTS, 3)), np.zeros((skeleton.N_JOINTS, 3)), 0
    names = iter(ids)
    for path in progress.progress_bar(training.paths, desc="exporting", unit="motion"):
        positions = skeleton.split_columns(motion_files.read_motion(path))[0]
        for person in range(data.store.persons):
            body, folder = positions[:, person], root / FOLDER / next(names)
            folder.mkdir(parents=True)
            for stream, joints in SMPL_STREAMS.items():
                np.save(folder / f"{stream}.npy", body[:, joints])
            away = body.astype(np.float64) - origin
            total += away.sum(axis=0)
            square += (away**2).sum(axis=0)
            frames += len(body)
    deviation = np.sqrt(np.maximum(square / frames - (total / frames) ** 2, 0))
    mean = origin + total / frames
    for stream, joints in SMPL_STREAMS.items():
        np.save(root / f"{stream}_Mean.npy", mean[list(joints)].ravel().astype(np.float32))
        np.save(root / f"{stream}_Std.npy", deviation[list(joints)].ravel().astype(np.float32))
    each = range(len(endings))
    groups = [label for label in folds.group_motions(data) for _ in each]
    captions = tuple(own for own in training.captions for _ in each)
    paths = tuple(root / FOLDER / name / BODY_FILE for name in ids)
    return TrainingSet(root, ids, paths, captions, dict(zip(ids, groups, strict=True)), (), rotations=False)


def _write_texts(data: TrainingData, written: TrainingSet, root: Path, id_width: int | None, jobs: int) -> None:
    """gar_train.json and groups.csv."""
    gar.write_gar(root / "texts" / gar.GAR_FILES[0], _entries(data, written, id_width, jobs))
    write_csv(root / "groups.csv", [{"id": name, "group": group} for name, group in written.groups.items()])


def _entries(data: TrainingData, written: TrainingSet, id_width: int | None, jobs: int) -> Iterator[tuple[str, str, PartDescriptions]]:
    files = gar.find_gar_files(data.training.root)
    if not files:
        yield from describer.describe_training(written, data.store.config, jobs)
        return
    own = part_texts.parts_of_files(files, data.training.ids, id_width)
    parts = [found for found in own for _ in PERSONS[data.store.persons]]
    yield from ((name, said[0], found) for name, said, found in zip(written.ids, written.captions, parts, strict=True))
