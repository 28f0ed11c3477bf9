"""What the six numbers of a joint rotation mean, fitted to the positions by forward kinematics, and
how a mirror changes them.

Data sets write 6D rotations (Zhou et al. 2019) in different ways: two columns of the matrix or two
rows, one after another or number by number, of the bones that leave a joint (SMPL) or of the bone
that leads to it (HumanML3D). Nothing in a file says which.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import Literal

import numpy as np

from motret.formats.motion_files import read_motion
from motret.skeleton import (
    JOINT,
    JOINTS,
    MIRROR,
    N_JOINTS,
    PARENTS,
    forward_kinematics,
    split_columns,
)

MOTIONS, FRAMES = 6, 40
"""What a convention is fitted to: motions of a data set and frames of each, evenly spread."""
ROUNDS = 15
"""Alternations of the fits of turns and bones to each other."""
MAX_ERROR = 0.01
"""Mean distance in metres of the joints from where forward kinematics puts them, up to which a
convention fits."""
MAX_UNEVENNESS = 0.03
"""Mean distance in metres of a bone at rest from the mirrored bone of the other side, up to which
the body at rest is symmetric."""


AXES = np.array(
    [
        np.eye(3)[list(order)] * signs
        for order in permutations(range(3))
        for signs in product((1.0, -1.0), repeat=3)
        if np.linalg.det(np.eye(3)[list(order)] * signs) > 0
    ]
)
"""(24, 3, 3) the rotations that lay axes on axes."""

Turns = Literal["joint", "bone", "limb"]


@dataclass(frozen=True)
class Convention:
    """One way to write the rotations of a body as six numbers each.

    rows: they are the first two rows of each matrix, else its first two columns; alternating: the
    numbers of both take turns, else the second follows the whole first; turns: whether a joint's
    rotation turns the bones that leave it, or the bone that leads to it, where HumanML3D takes the
    arms from the pelvis ("limb").
    """

    rows: bool = False
    alternating: bool = False
    turns: Turns = "joint"

    def __str__(self) -> str:
        order = "number by number" if self.alternating else "one after the other"
        bones = {
            "joint": "the bones that leave it",
            "bone": "the bone that leads to it",
            "limb": "the bone that leads to it, limb by limb",
        }[self.turns]
        return f"the first two {'rows' if self.rows else 'columns'}, {order}; a joint turns {bones}"


TURNS: tuple[Turns, ...] = ("joint", "bone", "limb")
CONVENTIONS = tuple(
    Convention(rows, alternating, turns)
    for turns, alternating, rows in product(TURNS, (False, True), (False, True))
)


@dataclass(frozen=True)
class FittedConvention:
    """The convention with the least error over some motions.

    error: mean distance in metres of a joint from where the convention puts it; axis: of the body
    at rest, 0 to 2, from one side to the other, which a mirror reverses; unevenness: mean distance
    in metres of a bone at rest from the mirrored bone of the other side.
    """

    convention: Convention
    error: float
    axis: int
    unevenness: float

    @property
    def fits(self) -> bool:
        return self.error <= MAX_ERROR and self.unevenness <= MAX_UNEVENNESS

    def __str__(self) -> str:
        error = f"{1000 * self.error:.1f} mm off the positions"
        unevenness = f"the sides of the body at rest {1000 * self.unevenness:.1f} mm apart"
        return f"{self.convention} ({error}, {unevenness})"

    def signs(self) -> np.ndarray:
        """(6,) what a mirror multiplies the numbers of a rotation by, besides swapping left and
        right joints: R becomes M R M."""
        mirror = np.where(np.arange(3) == self.axis, -1.0, 1.0)
        if self.convention.alternating:
            return np.outer(mirror, mirror[:2]).ravel()
        return np.outer(mirror[:2], mirror).ravel()


# ---- which convention


def find_convention(motions: Sequence[tuple[np.ndarray, np.ndarray]]) -> FittedConvention:
    """The convention that explains the positions of some motions best.

    motions: (T, persons, 22, 3) positions in metres and (T, persons, 21, 6) rotations of each.
    """
    bodies = []
    for positions, rotations in motions:
        frame_idx = np.linspace(0, len(positions) - 1, min(FRAMES, len(positions))).astype(int)
        for person in range(positions.shape[1]):
            sampled = positions[frame_idx, person], rotations[frame_idx, person]
            bodies.append((sampled[0].astype(np.float64), sampled[1].astype(np.float64)))
    rotations = np.concatenate([rotations for _, rotations in bodies])
    # the two vectors of a rotation are at right angles
    errors = {
        alternating: _orthogonality_error(rotations, alternating) for alternating in (False, True)
    }
    alternating = errors[True] < errors[False]
    fits = [
        _fit_convention(convention, bodies)
        for convention in CONVENTIONS
        if convention.alternating == alternating
    ]
    return min(fits, key=lambda fit: fit.error)


def find_convention_in_files(paths: Sequence[Path], metres: float = 1.0) -> FittedConvention:
    """The same of motion files, `MOTIONS` of them; metres: in the unit of their positions."""
    motions = []
    for index in np.linspace(0, len(paths) - 1, min(MOTIONS, len(paths))).astype(int):
        positions, rotations = split_columns(read_motion(paths[index]))
        motions.append((positions * metres, rotations))
    return find_convention(motions)


def _fit_convention(
    convention: Convention, bodies: Sequence[tuple[np.ndarray, np.ndarray]]
) -> FittedConvention:
    errors, rest_offsets = [], []
    for positions, rotations in bodies:
        bones = bone_frames(matrices(rotations, convention), convention.turns)
        offsets, turn = fit_skeleton(positions, bones)
        fitted = forward_kinematics(turn[:, None] @ bones, offsets, positions[:, 0])
        errors.append(np.linalg.norm(fitted - positions, axis=-1)[:, 1:].mean())
        rest_offsets.append(offsets)
    rest = np.mean(rest_offsets, axis=0)
    mirrored = [rest[MIRROR] * np.where(np.arange(3) == axis, -1, 1) for axis in range(3)]
    unevenness = [np.linalg.norm(rest - offsets, axis=-1).mean() for offsets in mirrored]
    axis = int(np.argmin(unevenness))
    return FittedConvention(convention, float(np.mean(errors)), axis, float(unevenness[axis]))


def matrices(rotations: np.ndarray, convention: Convention) -> np.ndarray:
    """6D rotations (..., 6) as matrices (..., 3, 3), orthonormal by Gram and Schmidt's method."""
    first, second = _two_vectors(rotations, convention.alternating)
    first = _unit(first)
    second = _unit(second - (first * second).sum(axis=-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=-2 if convention.rows else -1)


def bone_frames(local: np.ndarray, turns: Turns) -> np.ndarray:
    """Orientation (..., 22, 3, 3), relative to the pelvis, of the bone that leads to each joint.

    local: (..., 21, 3, 3) rotations of the joints but the pelvis.
    """
    world = np.zeros((*local.shape[:-3], N_JOINTS, 3, 3), dtype=local.dtype)
    world[..., 0, :, :] = np.eye(3)
    bones = world.copy()
    for joint, parent in list(enumerate(PARENTS))[1:]:
        base = 0 if turns == "limb" and "collar" in JOINTS[joint] else parent
        world[..., joint, :, :] = world[..., base, :, :] @ local[..., joint - 1, :, :]
        bones[..., joint, :, :] = world[..., parent if turns == "joint" else joint, :, :]
    return bones


def _orthogonality_error(rotations: np.ndarray, alternating: bool) -> float:
    """Mean absolute cosine between the two vectors of 6D rotations (..., 6)."""
    first, second = _two_vectors(rotations, alternating)
    return float(np.abs((_unit(first) * _unit(second)).sum(axis=-1)).mean())


def _two_vectors(rotations: np.ndarray, alternating: bool) -> tuple[np.ndarray, np.ndarray]:
    if alternating:
        return rotations[..., 0::2], rotations[..., 1::2]
    return rotations[..., :3], rotations[..., 3:]


# ---- the skeleton at rest


def fit_skeleton(positions: np.ndarray, bones: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bones at rest (22, 3) and the turn of the pelvis in each frame (T, 3, 3) that explain the
    positions (T, 22, 3) best.

    Neither is in the data. Least squares over all bones, alternating: bones for given turns are
    means, turns for given bones Kabsch's. bones: (T, 22, 3, 3) as `bone_frames`.
    """
    observed = positions[:, 1:] - positions[:, np.array(PARENTS[1:])]
    turn = _first_turn(positions, observed, bones[:, 1:])
    for _ in range(ROUNDS):
        offsets = np.einsum("tjba,tcb,tjc->ja", bones[:, 1:], turn, observed) / len(observed)
        posed = np.einsum("tjab,jb->tja", bones[:, 1:], offsets)
        turn = _nearest_rotation(np.einsum("tja,tjb->tab", observed, posed))
    return np.concatenate([np.zeros((1, 3)), offsets]), turn


def _first_turn(positions: np.ndarray, observed: np.ndarray, bones: np.ndarray) -> np.ndarray:
    """(T, 3, 3) turn of the pelvis to start from: the stance of hips and spine, and one turn G for
    all frames from there to rest.

    G makes the bones at rest, the means of bones^T G^T observed, longest. It is climbed to from
    each way to lay the axes on each other, since a data set may have its bodies at rest in any of
    them.
    """
    stance = _stance(positions)
    moments = np.einsum("tjba,tce,tjc->jbae", bones, stance, observed, optimize=True) / len(
        observed
    )
    turn = AXES
    for _ in range(ROUNDS):
        offsets = np.einsum("jbae,neb->nja", moments, turn)
        turn = _nearest_rotation(np.einsum("jbae,nja->neb", moments, offsets))
    length = (np.einsum("jbae,neb->nja", moments, turn) ** 2).sum(axis=(1, 2))
    return stance @ turn[length.argmax()]


def _nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """The rotations (..., 3, 3) nearest to matrices (..., 3, 3): Kabsch 1976."""
    u, _, v = np.linalg.svd(matrix)
    u[..., -1] *= np.linalg.det(u @ v)[:, None]
    return u @ v


def _stance(positions: np.ndarray) -> np.ndarray:
    """(T, 3, 3) axes of the body by its hips and spine: left, up, forward."""
    across = _unit(positions[:, JOINT["left_hip"]] - positions[:, JOINT["right_hip"]])
    up = positions[:, JOINT["spine2"]] - positions[:, 0]
    up = _unit(up - (across * up).sum(axis=-1, keepdims=True) * across)
    return np.stack([across, up, np.cross(across, up)], axis=-1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
