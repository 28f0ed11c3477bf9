"""Whether the test's motions are like those of the training set.

A motion is summed up by the means of its features over time, of each person on its own. Poses,
bodies and the habits of a capture show in these. Test motions are compared with all training
motions, held-out ones with those of the other folds. A local score speaks of motions that are as
far from the training as the held-out ones.
"""

from dataclasses import dataclass

import numpy as np

from motret.data.feature_store import FeatureStore
from motret.data.folds import Folds

FRAME_STEP = 4
"""Frames from one that a mean is taken of to the next."""
MAX_MOTIONS = 4000
"""More motions than this are sampled evenly."""
CHUNK_SIZE = 512
"""Persons that are compared with all others at a time."""
MIN_DEVIATION = 1e-3
"""A feature that differs less between the training motions than this is left as it is."""


@dataclass(frozen=True, eq=False)
class MotionShift:
    """How far persons are from the nearest person in the training motions.

    test, held_out: feature block -> (T,) and (H,) distances, of held-out ones to the other folds.
    They are root mean squares over the block's features, in standard deviations of these over the
    training motions.
    """

    test: dict[str, np.ndarray]
    held_out: dict[str, np.ndarray]

    @property
    def block(self) -> str:
        """The block in which the test is farthest: of the medians' ratio."""
        return max(self.test, key=lambda name: _ratio(self.test[name], self.held_out[name]))

    @property
    def is_unlike(self) -> bool:
        """Whether half of the test's motions are farther than three quarters of the held-out ones,
        in some block."""
        return any(
            np.median(distance) > np.quantile(self.held_out[name], 0.75)
            for name, distance in self.test.items()
        )

    def line(self) -> str:
        """The line for a terminal."""
        name = self.block
        medians = [f"{np.median(one[name]):.2f}" for one in (self.test, self.held_out)]
        summary = f"median distance to the nearest one {medians[0]} (held out {medians[1]})"
        if not self.is_unlike:
            return f"the test's motions are like the held-out ones: {summary} in {name}"
        return (
            f"warning: the test's motions are unlike the training's: {summary} in {name}; expect "
            "less than the local score (docs/usage.md says what may help)"
        )


def measure_shift(training: FeatureStore, test: FeatureStore, folds: Folds) -> MotionShift:
    """How far the test's motions are from the training's. Both stores have the same columns."""
    train_idx = _sample(len(training.ids))
    summaries = mean_features(training, train_idx)
    of_test = mean_features(test, _sample(len(test.ids)))
    fold_of = folds.fold[train_idx]
    held_out: dict[str, np.ndarray] = {}
    distances: dict[str, np.ndarray] = {}
    for name, columns in training.columns.items():
        block = summaries[..., columns]
        mean, deviation = block.mean(axis=(0, 1)), block.std(axis=(0, 1))
        scale = np.where(deviation > MIN_DEVIATION, deviation, 1)
        scaled = (block - mean) / scale
        distances[name] = nearest_distance((of_test[..., columns] - mean) / scale, scaled)
        held_out[name] = np.concatenate(
            [
                nearest_distance(scaled[fold_of == fold], scaled[fold_of != fold])
                for fold in range(folds.count)
                if 0 < (fold_of == fold).sum() < len(fold_of)
            ]
        )
    return MotionShift(distances, held_out)


def mean_features(store: FeatureStore, motion_idx: np.ndarray) -> np.ndarray:
    """(m, persons, D) means over time of some motions (m,)."""
    means = []
    for start, length in zip(store.offsets[motion_idx], store.lengths[motion_idx], strict=True):
        frames = store.features[start : start + length : FRAME_STEP]
        means.append(np.asarray(frames, dtype=np.float32).mean(axis=0))
    return np.stack(means)


def nearest_distance(motions: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(n * persons,) root mean square distance of the persons of motions (n, persons, D) to the
    nearest person of the references (r, persons, D)."""
    width = motions.shape[-1]
    queries, others = motions.reshape(-1, width), references.reshape(-1, width)
    squares = (others**2).sum(axis=1)
    nearest = [
        ((chunk**2).sum(axis=1)[:, None] + squares - 2 * chunk @ others.T).min(axis=1)
        for chunk in np.array_split(queries, max(1, len(queries) // CHUNK_SIZE))
    ]
    return np.asarray(np.sqrt(np.maximum(np.concatenate(nearest), 0) / width))


def _sample(count: int) -> np.ndarray:
    """Indices of at most `MAX_MOTIONS` of so many motions, evenly spread."""
    return np.linspace(0, count - 1, min(count, MAX_MOTIONS)).round().astype(int)


def _ratio(test: np.ndarray, held_out: np.ndarray) -> float:
    return float(np.median(test) / max(float(np.median(held_out)), np.finfo(float).tiny))
