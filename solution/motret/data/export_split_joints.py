"""Writes training motions in the layout that `formats.split_joints` reads.

Each person of a two-person motion is a motion of its own, `<id>_a` and `<id>_b`: the layout has
room for one body, and its readers expect one. Their caption, which describes both, goes with each,
and groups.csv keeps them in one fold. A one-person motion keeps its id. Coordinates are those of
the data, neither turned nor moved; rotations have no place in the layout.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
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
PERSON_SUFFIXES = {1: ("",), 2: ("_a", "_b")}
"""By number of persons what is added to a motion's id for each of them."""


def export_split_joints(
    data: TrainingData, out: Path, id_width: int | None = None, jobs: int = -1
) -> int:
    """Writes the data folder `out`, whole or not at all; returns the number of its motions.

    An older export in `out` is replaced, anything else is left alone (DataError). Part texts come
    from the data's GAR files, else from the motions. The layout has room for the first caption of a
    motion only.
    """
    if split_joints.has_split_joints(data.training.root):
        fix = "export the competition's data"
        raise DataError(data.training.root, "is in this layout already", fix)
    with atomic_dir(out, MARKER) as building:
        exported = _write_motions(data, building)
        entries = _gar_entries(data, exported, id_width, jobs)
        gar.write_gar(building / "texts" / gar.GAR_FILES[0], entries)
        groups = (exported.groups or {}).items()
        write_csv(building / "groups.csv", [{"id": name, "group": group} for name, group in groups])
        content = {"data": data.fingerprint, "motions": len(exported.ids)}
        write_json(building / MARKER, content)
    return len(exported.ids)


def _write_motions(data: TrainingData, root: Path) -> TrainingSet:
    """Writes folders and statistics; returns them as a training set, each motion in its group of
    `data`."""
    training, suffixes = data.training, PERSON_SUFFIXES[data.store.persons]
    ids = tuple(f"{name}{suffix}" for name in training.ids for suffix in suffixes)
    if duplicates := [name for name, count in Counter(ids).items() if count > 1]:
        problem = f"persons of several motions would be called {text_files.preview(duplicates)}"
        raise DataError(training.root, problem, "rename one of the motions")
    folders = [root / FOLDER / name for name in ids]
    _write_streams(root, folders, training.paths)
    repeated = range(len(suffixes))
    groups = [group for group in folds.group_motions(data) for _ in repeated]
    return TrainingSet(
        root,
        ids,
        paths=tuple(folder / BODY_FILE for folder in folders),
        captions=tuple(captions for captions in training.captions for _ in repeated),
        groups=dict(zip(ids, groups, strict=True)),
        skipped=(),
        rotations=False,
    )


def _write_streams(root: Path, folders: Sequence[Path], paths: Sequence[Path]) -> None:
    """Writes the joints of each stream of each person to the person's folder, and their mean and
    deviation to `root`."""
    # relative to a joint of the data: one that never moves has a deviation of 0, exactly
    origin = skeleton.split_columns(motion_files.read_motion(paths[0]))[0][0, 0]
    total = np.zeros((skeleton.N_JOINTS, 3))
    square = np.zeros((skeleton.N_JOINTS, 3))
    frames = 0
    remaining = iter(folders)
    for path in progress.progress_bar(paths, desc="exporting", unit="motion"):
        positions = skeleton.split_columns(motion_files.read_motion(path))[0]
        for body in positions.swapaxes(0, 1):  # (T, J, 3) of each person
            folder = next(remaining)
            folder.mkdir(parents=True)
            for stream, joints in SMPL_STREAMS.items():
                np.save(folder / f"{stream}.npy", body[:, joints])
            offset = body.astype(np.float64) - origin
            total += offset.sum(axis=0)
            square += (offset**2).sum(axis=0)
            frames += len(body)
    mean = origin + total / frames
    deviation = np.sqrt(np.maximum(square / frames - (total / frames) ** 2, 0))
    for stream, joints in SMPL_STREAMS.items():
        for name, values in (("Mean", mean), ("Std", deviation)):
            np.save(root / f"{stream}_{name}.npy", values[list(joints)].ravel().astype(np.float32))


def _gar_entries(
    data: TrainingData, exported: TrainingSet, id_width: int | None, jobs: int
) -> Iterator[tuple[str, str, PartDescriptions]]:
    """(id, first caption, part texts) of every exported motion, as `gar.write_gar` takes them."""
    files = gar.find_gar_files(data.training.root)
    if not files:
        yield from describer.describe_training(exported, data.store.config, jobs)
        return
    motion_parts = part_texts.parts_of_files(files, data.training.ids, id_width)
    parts = [texts for texts in motion_parts for _ in PERSON_SUFFIXES[data.store.persons]]
    for name, captions, texts in zip(exported.ids, exported.captions, parts, strict=True):
        yield name, captions[0], texts
