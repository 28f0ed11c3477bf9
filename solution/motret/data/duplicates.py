"""Motions that are nearly the same, as they are or in the mirror: within a set, or between two sets."""

import numpy as np

from motret.data.feature_store import FeatureStore
from motret.skeleton import Skeleton

KEY_FRAMES = 8
MAX_DISTANCE = 0.02
"""Metres: motions whose joints differ by less than this in the mean over key frames are nearly the same."""
MAX_LENGTH_RATIO = 1.02
"""Nearly the same motions differ in length by at most this factor."""
CHUNK_SIZE = 1024


def key_poses(store: FeatureStore) -> np.ndarray:
    """Key poses of each motion (N, persons, K): joint positions in the own heading frame and where the other person is."""
    at = store.offsets[:, None] + np.linspace(0, store.lengths - 1, KEY_FRAMES, axis=1).round().astype(int)
    parts = [store.columns["position"]]
    if "relation" in store.columns:
        parts.append(store.columns.field("relation", "offset"))
    width = sum(part.stop - part.start for part in parts)
    poses = np.empty((len(at), store.persons, KEY_FRAMES, width), np.float32)
    for start in range(0, len(at), CHUNK_SIZE):  # the columns that are not asked for are never held for all motions
        frames = store.features[at[start : start + CHUNK_SIZE]]  # (n, keys, persons, D)
        told = np.concatenate([frames[..., part] for part in parts], axis=-1)
        poses[start : start + CHUNK_SIZE] = told.transpose(0, 2, 1, 3)
    return poses.reshape(len(at), store.persons, -1)


def mirror_key_poses(poses: np.ndarray, body: Skeleton) -> np.ndarray:
    """The key poses (N, persons, K) of `describer` in the mirror: left joints are right ones, x points the other way."""
    points = poses.reshape(*poses.shape[:2], KEY_FRAMES, -1, 3)
    order = np.arange(points.shape[3])
    order[: len(body.mirror)] = body.mirror
    return (points[..., order, :] * np.array([-1, 1, 1], poses.dtype)).reshape(poses.shape)


def near_duplicates(store: FeatureStore, other: FeatureStore | None = None, mirrored: bool = False) -> list[tuple[int, int, float]]:
    """Pairs (row, row, distance in m) of nearly the same motions, whichever person stands first.

    With `other`: pairs of a row of `feature_store` and a row of `other`. mirrored: of motions of which one is nearly the other's mirror image.
    The distance is the root mean square over joints and key frames.
    """
    there = key_poses(store if other is None else other)
    here = there if other is None else key_poses(store)
    here = mirror_key_poses(here, store.config.body) if mirrored else here
    lengths, other_lengths = store.lengths, store.lengths if other is None else other.lengths
    flat = there.reshape(len(there), -1)
    points = flat.shape[1] / 3
    pairs: dict[tuple[int, int], float] = {}
    for order in {(0,), (0, 1), (1, 0)}:
        if len(order) != store.persons:
            continue
        for start in range(0, len(here), CHUNK_SIZE):
            block = here[start : start + CHUNK_SIZE][:, list(order)].reshape(-1, flat.shape[1])
            square = (block**2).sum(1)[:, None] + (flat**2).sum(1) - 2 * block @ flat.T
            ratio = lengths[start : start + CHUNK_SIZE, None] / other_lengths
            close = (square < points * (2 * MAX_DISTANCE) ** 2) & (ratio < MAX_LENGTH_RATIO) & (ratio > 1 / MAX_LENGTH_RATIO)
            for a, b in zip(*np.nonzero(close), strict=True):
                row, column = int(a) + start, int(b)
                if other is None and row >= column:
                    continue
                exact = float(np.sqrt(((block[a] - flat[b]) ** 2).sum() / points))  # the expanded square above loses digits
                if exact < MAX_DISTANCE:
                    pairs[row, column] = min(exact, pairs.get((row, column), exact))
    return [(a, b, distance) for (a, b), distance in sorted(pairs.items())]
