"""What tests share: a small generated challenge, bodies that move at random, data folders made of them."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from motret.acting import REST_OFFSETS
from motret.config import DataSettings, SceneSettings
from motret.dataset import TrainingData, load_training
from motret.skeleton import MIRROR, N_JOINTS, N_ROTATIONS, PARENTS, join_columns, split_columns
from motret.synth import make_sample

hypothesis.settings.register_profile("same_every_time", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("same_every_time")

SMALL_CHALLENGE = SceneSettings(motions=24, queries=3, candidates=12)


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated challenge of 24 motions and 3 queries x 12 candidates; all tests read the same one, none may write to it."""
    folder = tmp_path_factory.mktemp("generated") / "data"
    make_sample(folder, SMALL_CHALLENGE)
    return folder


@pytest.fixture
def own_challenge(generated: Path, tmp_path: Path) -> Path:
    """A copy of the generated challenge that the test may spoil."""
    return Path(shutil.copytree(generated, tmp_path / "data"))


def rest_pose() -> np.ndarray:
    """(22, 3) standing at the origin, facing +z, left towards +x."""
    joints = np.zeros((N_JOINTS, 3))
    for joint, parent in enumerate(PARENTS):
        joints[joint] = REST_OFFSETS[joint] + (joints[parent] if parent >= 0 else 0)
    return joints


def turned(points: np.ndarray, angle: np.ndarray | float) -> np.ndarray:
    """Points (..., 3) turned about the vertical axis, +z towards +x for a positive angle."""
    x, y, z = np.moveaxis(points, -1, 0)
    return np.stack(np.broadcast_arrays(np.cos(angle) * x + np.sin(angle) * z, y, np.cos(angle) * z - np.sin(angle) * x), axis=-1)


def body(frames: int, persons: int = 2, seed: int = 0) -> np.ndarray:
    """Positions (T, persons, 22, 3) of people who sway, turn and walk about smoothly, each scene in its own way."""
    rng = np.random.default_rng([seed, persons])
    seconds = np.arange(frames)[:, None, None, None] / 30

    def waves(*shape: int) -> np.ndarray:  # (T, *shape)
        return np.sin(2 * np.pi * (rng.uniform(0.2, 1.0, shape) * seconds + rng.uniform(0, 1, shape)))

    pose = rest_pose() + rng.normal(0, 0.05, (persons, N_JOINTS, 3)) + 0.05 * waves(persons, N_JOINTS, 3)
    angle = rng.uniform(-np.pi, np.pi, (persons, 1)) + 0.8 * waves(persons, 1, 1)[..., 0]
    place = rng.uniform(-2, 2, (persons, 1, 3)) * (1, 0, 1) + 0.3 * waves(persons, 1, 3) * (1, 0.2, 1) + (0, 0.95, 0)
    return (turned(pose, angle) + place).astype(np.float32)


def sixes(frames: int, persons: int = 2, seed: int = 0) -> np.ndarray:
    """Rotations (T, persons, 21, 6) to go with a body: any numbers."""
    return np.random.default_rng([seed, persons, 6]).uniform(-1, 1, (frames, persons, N_ROTATIONS, 6)).astype(np.float32)


def motion(frames: int, persons: int = 2, seed: int = 0) -> np.ndarray:
    """A raw motion (T, 192 * persons) of a scene of its own."""
    return join_columns(body(frames, persons, seed), sixes(frames, persons, seed))


def swapped(raw: np.ndarray) -> np.ndarray:
    """The same two-person motion with the persons stored the other way round."""
    return np.roll(raw, raw.shape[1] // 2, axis=1)


def in_the_mirror(raw: np.ndarray) -> np.ndarray:
    """A raw motion (T, 192 * persons) in the mirror x = 0; its rotations, which are any numbers, change sides alone."""
    positions, rotations = split_columns(raw)
    return join_columns(positions[:, :, MIRROR] * np.array([-1, 1, 1], raw.dtype), rotations[:, :, MIRROR[1:] - 1])


def write_data(
    root: Path,
    motions: Mapping[str, np.ndarray] | Iterable[str],
    captions: Mapping[str, Sequence[str]] | None = None,
    groups: Mapping[str, str] | None = None,
) -> Path:
    """A data folder of these motions (of ids alone: some of 12 frames and more); without captions each gets one of its own."""
    if not isinstance(motions, Mapping):
        motions = {name: motion(12 + 2 * number, seed=number) for number, name in enumerate(motions)}
    (root / "motions").mkdir(parents=True)
    (root / "texts").mkdir()
    for name, raw in motions.items():
        np.save(root / "motions" / f"{name}.npy", raw)
        (root / "texts" / f"{name}.txt").write_text("\n".join((captions or {}).get(name, (f"scene {name}",))) + "\n")
    (root / "train.txt").write_text("".join(f"{name}\n" for name in motions))
    if groups is not None:
        (root / "groups.csv").write_text("id,group\n" + "".join(f"{name},{group}\n" for name, group in groups.items()))
    return root


def data_settings(root: Path, **settings: object) -> DataSettings:
    """Settings of a data folder, with what is made from it in folders beside it."""
    beside = {"work_dir": root.parent / "work", "folds_dir": root.parent / "folds"}
    return DataSettings(**{"data_dir": root, **beside, **settings})


def data_flags(root: Path) -> list[str]:
    """The same as flags of a script."""
    made = data_settings(root)
    return ["--data_dir", str(root), "--work_dir", str(made.work_dir), "--folds_dir", str(made.folds_dir), "--jobs", "1"]


def load(root: Path, **settings: object) -> TrainingData:
    """The training data of a data folder."""
    return load_training(data_settings(root, **settings), jobs=1)
