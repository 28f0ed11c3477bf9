"""Small things to test with: settings, motions and captions made in memory, and a generated challenge for the scripts."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import torch

import sample
import train
from motret import config
from motret.challenge import TrainingSet
from motret.config import TrainSettings
from motret.dataset import TrainingData
from motret.features import FeatureSettings
from motret.features import width as features_width
from motret.folds import Folds
from motret.motion import MotionBatch
from motret.store import Store
from motret.text import CaptionBank
from motret.workplace import Workplace, set_up

SMALL = {
    "width": 16,
    "heads": 2,
    "layers": 2,
    "joint_layers": 1,
    "proj_dim": 8,
    "max_frames": 60,
    "text_hidden": 16,
    "batch_size": 6,
    "epochs": 2,
    "mirror": 0.0,
    "speed": 1.0,
    "ema": 0.0,
    "device": "cpu",
    "amp": "off",
    "jobs": 1,
}
SCRATCH = {"text_weights": "none", "text_width": 64, "text_layers": 1}
TEXT_DIM = 12
CPU = torch.device("cpu")


def settings(**values) -> TrainSettings:
    return config.build(TrainSettings, SMALL | values)


def store(lengths, persons=2, seed=0) -> Store:
    lengths = np.array(lengths)
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(int(lengths.sum()), persons, features_width(persons))).astype(np.float16)
    ids = tuple(f"{row:05d}" for row in range(len(lengths)))
    return Store(Path("nowhere"), FeatureSettings(), ids, lengths.cumsum() - lengths, lengths, ids, features, ())


def training_data(captions=None, lengths=None, persons=2, seed=0) -> TrainingData:
    """20 motions of 4 to 80 frames with one to three captions each, unless told otherwise."""
    captions = captions or tuple(tuple(f"motion {row} told {way}" for way in range(1 + row % 3)) for row in range(20))
    lengths = np.random.default_rng(seed).integers(4, 80, len(captions)) if lengths is None else lengths
    packed = store(lengths, persons, seed)
    paths = tuple(Path(f"{name}.npy") for name in packed.ids)
    return TrainingData(TrainingSet(Path("nowhere"), packed.ids, paths, captions, None, ()), packed, "data-a", True)


def folds(motions=20, count=2) -> Folds:
    return Folds(np.arange(motions) % count, np.arange(motions).astype(str), "folds-a", count)


def bank(data: TrainingData, seed=0) -> CaptionBank:
    distinct = sorted({caption for own in data.training.captions for caption in own})
    vectors = np.random.default_rng(seed).normal(size=(len(distinct), TEXT_DIM)).astype(np.float32)
    return CaptionBank({caption: row for row, caption in enumerate(distinct)}, vectors=torch.from_numpy(vectors))


class NoTower(torch.nn.Module):
    """A frozen text tower whose vectors are all in the bank."""

    dim = TEXT_DIM


def workplace(chosen: TrainSettings, data: TrainingData) -> Workplace:
    return set_up(chosen, data, bank(data))


def motion_batch(lengths, persons=2, features=10, seed=0, generator=None) -> MotionBatch:
    """Random motions, held at their last frame up to the longest."""
    rng = np.random.default_rng(seed)
    frames = torch.from_numpy(rng.normal(size=(len(lengths), max(lengths), persons, features)).astype(np.float32))
    for motion, length in zip(frames, lengths, strict=True):
        motion[length:] = motion[length - 1]
    return MotionBatch(frames, torch.tensor(lengths), generator)


# ---- a generated challenge, and the scripts on it


@functools.cache
def challenge(seed: int = 0) -> Path:
    """24 training motions, 3 queries of 12 candidates; made once a session, removed by nobody but the system."""
    folder = _temporary() / f"challenge{seed}"
    assert sample.main(["--out", str(folder), "--motions", "24", "--queries", "3", "--candidates", "12", "--seed", str(seed)]) == 0
    return folder


@functools.cache
def _temporary() -> Path:
    holder = tempfile.TemporaryDirectory(prefix="motret-tests-")
    _kept.append(holder)  # removed when the interpreter ends
    return Path(holder.name)


_kept: list[tempfile.TemporaryDirectory] = []


def places(data: Path | None = None) -> list[str]:
    """Flags of data and machine; packed features and folds are shared by all that run on the same data."""
    data = data or challenge()
    return [f"--data_dir={data}", f"--work_dir={data}-work", f"--folds_dir={data}-folds", "--device=cpu", "--jobs=1"]


def flags(**values) -> list[str]:
    """`--name=value`; `--name` for True."""
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in values.items()]


def train_flags(out_dir: Path, name: str, data: Path | None = None, **values) -> list[str]:
    small = {key: value for key, value in (SMALL | SCRATCH | values).items() if key not in ("device", "jobs")}
    return ["holistic", *places(data), *flags(out_dir=out_dir, run_name=name, folds=2, **small)]


def run_training(out_dir: Path, name: str, data: Path | None = None, **values) -> int:
    return train.main(train_flags(out_dir, name, data, **values))
