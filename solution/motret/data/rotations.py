"""What the six numbers of a joint rotation mean, found by forward kinematics against the positions, and how a mirror changes them.

Data sets write 6D rotations (Zhou et al. 2019) in different ways: two columns of the matrix or two rows, one after another or number
by number, of the bones that leave a joint (SMPL) or of the bone that leads to it (HumanML3D). Nothing in a file says which.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import Literal

import numpy as np

from motret.formats.motion_files import read_motion
from motret.skeleton import JOINT, JOINTS, MIRROR, N_JOINTS, PARENTS, split_columns

MOTIONS, FRAMES, ROUNDS = 6, 40, 15
"""What is looked at: motions of a data set and frames of each, spread evenly, and how often turns and bones are fitted to each other."""
MAX_ERROR = 0.01
"""Mean distance in metres of the joints from where forward kinematics puts them, up to which a convention fits."""
MAX_UNEVENNESS = 0.03
"""Mean distance in metres of a bone at rest from the mirrored bone of the other side, up to which the body at rest is symmetric."""


AXES = np.array(
    [
        np.eye(3)[list(order)] * signs
        for order in permutations(range(3))
        for signs in product((1.0, -1.0), repeat=3)
        if np.linalg.det(np.eye(3)[list(order)] * signs) > 0
    ]
)
"""(24, 3, 3) the rotations that lay axes on axes."""


@dataclass(frozen=True)
class Convention:
    """One way to write the rotations of a body as six numbers each.

    rows: they are the first two rows of each matrix, else its first two columns; alternating: a number of the one, then one of the
    other, else one whole and then the other; turns: whether a joint's rotation turns the bones that leave it, or the bone that leads to
    it, where HumanML3D takes the arms from the pelvis ("limb").
    """

    rows: bool = False
    alternating: bool = False
    turns: Literal["joint", "bone", "limb"] = "joint"

    def __str__(self) -> str:
        order = "number by number" if self.alternating else "one after the other"
        of = {"joint": "the bones that leave it", "bone": "the bone that leads to it", "limb": "the bone that leads to it, limb by limb"}
        return f"the first two {'rows' if self.rows else 'columns'}, {order}; a joint turns {of[self.turns]}"


CONVENTIONS = tuple(
    Convention(rows, alternating, turns) for turns, alternating, rows in product(("joint", "bone", "limb"), (False, True), (False, True))
)


@dataclass(frozen=True)
class FittedConvention:
    """The convention with the least error over some motions.

    error: mean distance in metres of a joint from where it puts it; axis: of the body at rest, 0 to 2, from one side to the other, which
    a mirror turns round; unevenness: mean distance in metres of a bone at rest from the mirrored bone of the other side.
    """

    convention: Convention
    error: float
    axis: int
    unevenness: float

    @property
    def fits(self) -> bool:
        return self.error <= MAX_ERROR and self.unevenness <= MAX_UNEVENNESS

    def __str__(self) -> str:
        off = f"{1000 * self.error:.1f} mm off the positions, the sides of the body at rest {1000 * self.unevenness:.1f} mm apart"
        return f"{self.convention} ({off})"

    def signs(self) -> np.ndarray:
        """(6,) what a mirror multiplies the numbers of a rotation by, besides swapping left and right joints: R becomes M R M."""
        side = np.where(np.arange(3) == self.axis, -1.0, 1.0)
        return np.outer(side, side[:2]).ravel() if self.convention.alternating else np.outer(side[:2], side).ravel()


def find_convention(motions: Sequence[tuple[np.ndarray, np.ndarray]]) -> FittedConvention:
    """The convention that explains the positions of some motions best: (T, persons, 22, 3) and rotations (T, persons, 21, 6) of each."""
    bodies = [
        (positions[kept, person].astype(np.float64), six[kept, person].astype(np.float64))
        for positions, six in motions
        for kept in [np.linspace(0, len(positions) - 1, min(FRAMES, len(positions))).astype(int)]
        for person in range(positions.shape[1])
    ]
    sixes = np.concatenate([six for _, six in bodies])
    alternating = _orthogonality_error(*_vectors(sixes, True)) < _orthogonality_error(
        *_vectors(sixes, False)
    )  # two vectors of a rotation are at right angles
    tried = [convention for convention in CONVENTIONS if convention.alternating == alternating]
    return min((_fit_convention(convention, bodies) for convention in tried), key=lambda found: found.error)


def find_convention_in_files(paths: Sequence[Path], metres: float = 1.0) -> FittedConvention:
    """The same of motion files, `MOTIONS` of them; metres: in the unit of their positions."""
    chosen = np.linspace(0, len(paths) - 1, min(MOTIONS, len(paths))).astype(int)
    motions = (split_columns(read_motion(paths[number])) for number in chosen)
    return find_convention([(positions * metres, six) for positions, six in motions])


def _fit_convention(convention: Convention, bodies: Sequence[tuple[np.ndarray, np.ndarray]]) -> FittedConvention:
    errors, rests = [], []
    for positions, six in bodies:
        bones = bone_frames(matrices(six, convention), convention.turns)
        offsets, turn = fit_skeleton(positions, bones)
        told = forward_kinematics(bones, offsets, positions[:, 0], turn)
        errors.append(np.linalg.norm(told - positions, axis=-1)[:, 1:].mean())
        rests.append(offsets)
    rest = np.mean(rests, axis=0)
    apart = [np.linalg.norm(rest - rest[MIRROR] * np.where(np.arange(3) == axis, -1, 1), axis=-1).mean() for axis in range(3)]
    axis = int(np.argmin(apart))
    return FittedConvention(convention, float(np.mean(errors)), axis, float(apart[axis]))


def matrices(six: np.ndarray, convention: Convention) -> np.ndarray:
    """Rotations (..., 6) as matrices (..., 3, 3), made orthonormal by Gram and Schmidt's method."""
    first, second = _vectors(six, convention.alternating)
    first = _unit(first)
    second = _unit(second - (first * second).sum(axis=-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=-2 if convention.rows else -1)


def bone_frames(local: np.ndarray, turns: str) -> np.ndarray:
    """For each joint but the pelvis the frame (..., 22, 3, 3) in which the bone that leads to it stands still, seen from the pelvis.

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


def forward_kinematics(bones: np.ndarray, offsets: np.ndarray, pelvis: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Joint positions (T, 22, 3) in metres: p_joint = p_parent + turn bones_joint offset_joint.

    pelvis: (T, 3) metres; turn: (T, 3, 3) of the pelvis;
    bones: (T, 22, 3, 3), see `bone_frames`; offsets: (22, 3) metres, the bones at rest.
    """
    steps = np.einsum("tab,tjbc,jc->tja", turn, bones, offsets)
    positions = np.empty_like(steps)
    positions[:, 0] = pelvis
    for joint, parent in list(enumerate(PARENTS))[1:]:
        positions[:, joint] = positions[:, parent] + steps[:, joint]
    return positions


def fit_skeleton(positions: np.ndarray, bones: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bones at rest (22, 3) and the turn of the pelvis in each frame (T, 3, 3) that explain the positions (T, 22, 3) best.

    Neither is in the data. Least squares over all bones, in turns: bones for given turns are means, turns for given bones Kabsch's.
    """
    parents = np.array(PARENTS[1:])
    seen = positions[:, 1:] - positions[:, parents]
    turn = _first_turn(positions, seen, bones[:, 1:])
    for _ in range(ROUNDS):
        offsets = np.einsum("tjba,tcb,tjc->ja", bones[:, 1:], turn, seen) / len(seen)
        told = np.einsum("tjab,jb->tja", bones[:, 1:], offsets)
        u, _, v = np.linalg.svd(np.einsum("tja,tjb->tab", seen, told))
        u[..., -1] *= np.linalg.det(u @ v)[:, None]
        turn = u @ v
    return np.concatenate([np.zeros((1, 3)), offsets]), turn


def _first_turn(positions: np.ndarray, seen: np.ndarray, bones: np.ndarray) -> np.ndarray:
    """(T, 3, 3) turn of the pelvis, near enough to start from: how hips and spine stand, and one turn for all frames from there to rest.

    That one turn G is what makes the bones at rest, the means of bones^T G^T seen, longest; from each way to lay the axes on each other
    it is climbed to, since a data set may have its bodies at rest in any of them.
    """
    stance = _stance(positions)
    moments = np.einsum("tjba,tce,tjc->jbae", bones, stance, seen, optimize=True) / len(seen)
    turn = AXES
    for _ in range(ROUNDS):
        offsets = np.einsum("jbae,neb->nja", moments, turn)
        u, _, v = np.linalg.svd(np.einsum("jbae,nja->neb", moments, offsets))
        u[..., -1] *= np.linalg.det(u @ v)[:, None]
        turn = u @ v
    longest = (np.einsum("jbae,neb->nja", moments, turn) ** 2).sum(axis=(1, 2))
    return stance @ turn[longest.argmax()]


def _stance(positions: np.ndarray) -> np.ndarray:
    across = _unit(positions[:, JOINT["left_hip"]] - positions[:, JOINT["right_hip"]])
    up = positions[:, JOINT["spine2"]] - positions[:, 0]
    up = _unit(up - (across * up).sum(axis=-1, keepdims=True) * across)
    return np.stack([across, up, np.cross(across, up)], axis=-1)


def _vectors(six: np.ndarray, alternating: bool) -> tuple[np.ndarray, np.ndarray]:
    return (six[..., 0::2], six[..., 1::2]) if alternating else (six[..., :3], six[..., 3:])


def _orthogonality_error(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs((_unit(first) * _unit(second)).sum(axis=-1)).mean())


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
