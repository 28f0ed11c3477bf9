"""Motions that are nearly the same, as stored or mirrored: within a set, or between two sets."""

from itertools import permutations

import numpy as np

from motret.data.feature_store import FeatureStore
from motret.skeleton import Skeleton

KEY_FRAMES = 8
MAX_DISTANCE = 0.02
"""Metres: motions whose joints differ by less, root mean square over key frames, are nearly the
same."""
MAX_LENGTH_RATIO = 1.02
"""Nearly the same motions differ in length by at most this factor."""
CHUNK_SIZE = 1024

DuplicatePair = tuple[int, int, float]
"""Indices of two motions, and their distance in metres."""


def key_poses(store: FeatureStore, motion_idx: np.ndarray) -> np.ndarray:
    """Key poses of some motions (n, persons, K): joint positions in the person's heading frame, and
    the other's pelvis there."""
    offsets, lengths = store.offsets[motion_idx], store.lengths[motion_idx]
    positions = np.linspace(0, lengths - 1, KEY_FRAMES, axis=1).round().astype(int)
    columns = [store.columns["position"]]
    if "relation" in store.columns:
        columns.append(store.columns.field("relation", "offset"))
    frames = store.features[offsets[:, None] + positions]  # (n, keys, persons, D)
    points = np.concatenate([frames[..., block] for block in columns], axis=-1)
    poses = points.transpose(0, 2, 1, 3).astype(np.float32)
    return poses.reshape(len(motion_idx), store.persons, -1)


def mirror_key_poses(poses: np.ndarray, body: Skeleton) -> np.ndarray:
    """Key poses (N, persons, K) in the mirror: left and right joints change places, x changes its
    sign."""
    points = poses.reshape(*poses.shape[:2], KEY_FRAMES, -1, 3)
    order = np.arange(points.shape[3])
    order[: len(body.mirror)] = body.mirror
    return (points[..., order, :] * np.array([-1, 1, 1], poses.dtype)).reshape(poses.shape)


def near_duplicates(
    store: FeatureStore, other: FeatureStore | None = None, mirrored: bool = False
) -> list[DuplicatePair]:
    """Pairs of nearly the same motions, whichever person is stored first.

    With `other`: pairs of a motion of `store` and a motion of `other`. mirrored: one motion is
    nearly the mirror image of the other. The distance is the root mean square over joints and key
    frames. Motions are compared in order of length, a chunk of each side in memory at a time: those
    of other lengths never meet.
    """
    right_store = store if other is None else other
    right_order = right_store.lengths.argsort(kind="stable")
    right_lengths = right_store.lengths[right_order]
    left_order = store.lengths.argsort(kind="stable")
    distances: dict[tuple[int, int], float] = {}
    for left_idx in _chunks(left_order):
        left = key_poses(store, left_idx)
        if mirrored:
            left = mirror_key_poses(left, store.config.body)
        shortest, longest = store.lengths[left_idx[[0, -1]]]
        first = np.searchsorted(right_lengths, shortest / MAX_LENGTH_RATIO)
        end = np.searchsorted(right_lengths, longest * MAX_LENGTH_RATIO, side="right")
        for right_idx in _chunks(right_order[first:end]):
            right = key_poses(right_store, right_idx)
            lengths = store.lengths[left_idx], right_store.lengths[right_idx]
            for a, b, distance in _close_motions(left, right, *lengths):
                pair = int(left_idx[a]), int(right_idx[b])
                if other is not None or pair[0] < pair[1]:
                    distances[pair] = min(distance, distances.get(pair, distance))
    return [(a, b, distance) for (a, b), distance in sorted(distances.items())]


def _chunks(motion_idx: np.ndarray) -> list[np.ndarray]:
    return [
        motion_idx[start : start + CHUNK_SIZE] for start in range(0, len(motion_idx), CHUNK_SIZE)
    ]


def _close_motions(
    left: np.ndarray, right: np.ndarray, left_lengths: np.ndarray, right_lengths: np.ndarray
) -> list[DuplicatePair]:
    """Pairs of nearly equal key poses (n, persons, K) and (m, persons, K), in either order of the
    persons."""
    right = right.reshape(len(right), -1)
    pairs = []
    for order in permutations(range(left.shape[1])):
        ordered = left[:, order].reshape(-1, right.shape[1])
        pairs += _close_pairs(ordered, right, left_lengths, right_lengths)
    return pairs


def _close_pairs(
    left: np.ndarray, right: np.ndarray, left_lengths: np.ndarray, right_lengths: np.ndarray
) -> list[DuplicatePair]:
    """Pairs of nearly equal key poses, (N, K) and (M, K), of motions of nearly equal length."""
    points = right.shape[1] / 3
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
    ratio = left_lengths[:, None] / right_lengths
    close = squares < points * (2 * MAX_DISTANCE) ** 2
    close &= (ratio < MAX_LENGTH_RATIO) & (ratio > 1 / MAX_LENGTH_RATIO)
    pairs = []
    for a, b in zip(*np.nonzero(close), strict=True):
        exact = float(
            np.sqrt(((left[a] - right[b]) ** 2).sum() / points)
        )  # the squares above lose digits
        if exact < MAX_DISTANCE:
            pairs.append((int(a), int(b), exact))
    return pairs
