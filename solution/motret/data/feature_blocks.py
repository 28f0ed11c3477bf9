"""The table of feature blocks: what the columns of canonical features are, and all that others need
to know of them.

A block is a group of columns for each person. Its entry in `BLOCKS` names its width, its function,
what a mirror does to it, which of its columns are rates and what part mixing does to it. Layout,
features, mirror, speed changes and part mixing follow the table; see docs/add_feature_block.md.
Everything is in the person's own heading frame: +z forward, +x left, +y up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from motret.data import geometry
from motret.data.rotations import FittedConvention
from motret.errors import ConfigError, DataError
from motret.skeleton import ROTATION_COLUMNS, SMPL, Skeleton, UnknownJointError

if TYPE_CHECKING:  # torch takes a second to import, and packing needs none of it
    from torch import Tensor

MirroredColumns = tuple[np.ndarray, np.ndarray]
"""For each column of a block the column that it comes from in the mirror, and what that is
multiplied by."""
MixRule = Literal["keep", "copy", "attach"]
MIRROR_SIGNS = (-1.0, 1.0, 1.0)
"""What a mirror multiplies x, y and z by."""


@dataclass(frozen=True)
class Kinematics:
    """Motions laid end to end, F frames in all, and what several blocks derive from them.

    positions: (F, persons, J, 3) m, y up, in the room; rotations: (F, persons, 21, 6) as stored;
    starts: (M,) first frame of each motion; fps: frames per second.
    """

    positions: np.ndarray
    rotations: np.ndarray
    starts: np.ndarray
    fps: float
    body: Skeleton

    @cached_property
    def heading(self) -> np.ndarray:
        """(F, persons) radians."""
        return geometry.heading(self.positions, self.body)

    @cached_property
    def floor(self) -> np.ndarray:
        """(F, 1) m: height of the floor, the 5th percentile of a motion's lowest joint."""
        lengths = np.diff(np.append(self.starts, len(self.positions)))
        lowest = self.positions[..., 1].min(axis=(1, 2))
        floor = geometry.per_motion_quantile(lowest, self.starts, 0.05)
        return np.repeat(floor, lengths)[:, None]

    @cached_property
    def pelvis(self) -> np.ndarray:
        """(F, persons, 3) m: the pelvis in the room, its height above the floor."""
        pelvis = self.positions[..., self.body.joint("pelvis"), :].copy()
        pelvis[..., 1] -= self.floor
        return pelvis

    @cached_property
    def local(self) -> np.ndarray:
        """(F, persons, J, 3) m: joints in the heading frame, whose origin is on the floor below the
        pelvis."""
        origin = self.positions[..., self.body.joint("pelvis"), :].copy()
        origin[..., 1] = self.floor
        return geometry.turn_about_vertical(
            self.positions, self.heading[..., None], origin[..., None, :]
        )

    @cached_property
    def velocity(self) -> np.ndarray:
        """(F, persons, J, 3) m/s in the room."""
        return geometry.rate_of_change(self.positions, self.starts, self.fps)

    @property
    def pelvis_velocity(self) -> np.ndarray:
        """(F, persons, 3) m/s in the room."""
        return self.velocity[..., self.body.joint("pelvis"), :]


@dataclass(frozen=True, kw_only=True)
class FeatureBlock:
    """A group of feature columns.

    width: columns per person, from the skeleton, the number of persons and whether rotations are
    used; a block of width 0 is left out. compute: its values (F, persons, width). mirror: its
    columns in the mirror, from the skeleton and what the rotations mean (None where there are
    none).
    """

    unit: str
    width: Callable[[Skeleton, int, bool], int]
    compute: Callable[[Kinematics], np.ndarray]
    mirror: Callable[[Skeleton, FittedConvention | None], MirroredColumns]
    fields: Mapping[str, slice] = field(default_factory=dict)
    """Columns within the block that have a name of their own."""
    rates: slice | None = None
    """Columns within the block that are changes per second: they grow with a motion's speed."""
    values_per_joint: int = 0
    """The block lists so many values of each joint, joint by joint; 0: it is no list of joints."""
    first_joint: int = 0
    """The joint that such a list begins with."""
    mix: MixRule = "keep"
    """What part mixing does: keep the host's values; copy the donor's values of the joints that a
    part takes along; attach the donor's points of these joints to the joint that the part hangs on.
    """
    recompute: Callable[[Tensor, Columns], Tensor] | None = None
    """The block's values (..., width) of mixed features (B, T, persons, D), whose blocks before
    this one are mixed already."""
    version: int = 1
    """Of a block that is not among the canonical ones: raise it when its numbers change, so that
    features are packed anew."""

    def joint_columns(self, joints: np.ndarray) -> np.ndarray:
        """Columns within the block of some joints, in their order; joints that are not in the list
        have none."""
        listed = joints[joints >= self.first_joint] - self.first_joint
        return columns_of_joints(listed, self.values_per_joint)


class Columns(dict[str, slice]):
    """Block name -> its columns on the last axis of the features of bodies with this skeleton."""

    def __init__(self, slices: dict[str, slice], body: Skeleton):
        super().__init__(slices)
        self.body = body

    @property
    def width(self) -> int:
        """Number of columns in all."""
        return max(columns.stop for columns in self.values())

    def within(self, name: str, inner: slice) -> slice:
        """Columns of the features for columns within a block."""
        first, last, _ = inner.indices(self[name].stop - self[name].start)
        return slice(self[name].start + first, self[name].start + last)

    def field(self, name: str, field_name: str) -> slice:
        """Columns of a named field of a block."""
        return self.within(name, BLOCKS[name].fields[field_name])


def columns_of_joints(joints: np.ndarray, values: int) -> np.ndarray:
    """Columns of some joints where each joint has so many values."""
    return (values * joints[:, None] + np.arange(values)).ravel()


def mirror_joints(partners: np.ndarray, signs: tuple[float, ...] | np.ndarray) -> MirroredColumns:
    """Mirrored columns of a list of joints: partners: (J,) index of the joint on the other side;
    signs: one of each value."""
    return columns_of_joints(partners, len(signs)), np.tile(signs, len(partners))


# ---- the canonical blocks


def _position(motion: Kinematics) -> np.ndarray:
    """Joints relative to the pelvis on the floor plane, heights above the floor."""
    return motion.local.reshape(*motion.local.shape[:2], -1)


def _velocity(motion: Kinematics) -> np.ndarray:
    """Velocities of the joints relative to that of the pelvis."""
    relative = geometry.turn_about_vertical(
        motion.velocity, motion.heading[..., None], motion.pelvis_velocity[..., None, :]
    )
    return relative.reshape(*relative.shape[:2], -1)


def _mirror_points(body: Skeleton, _: FittedConvention | None) -> MirroredColumns:
    return mirror_joints(body.mirror, MIRROR_SIGNS)


def _root(motion: Kinematics) -> np.ndarray:
    """Velocity of the pelvis, turning rate, height of the pelvis above the floor."""
    turning = geometry.rate_of_change(motion.heading, motion.starts, motion.fps, wrap=True)
    velocity = geometry.turn_about_vertical(motion.pelvis_velocity, motion.heading)
    return np.concatenate([velocity, turning[..., None], motion.pelvis[..., 1:2]], axis=-1)


def _mirror_root(*_: object) -> MirroredColumns:
    return np.arange(5), np.array([*MIRROR_SIGNS, -1.0, 1.0])


def _rotation(motion: Kinematics) -> np.ndarray:
    return motion.rotations.reshape(*motion.rotations.shape[:2], -1)


def _mirror_rotation(body: Skeleton, convention: FittedConvention | None) -> MirroredColumns:
    if convention is None:
        raise ValueError("rotations can be mirrored only where their convention is known")
    return mirror_joints(body.mirror[1:] - 1, convention.signs())


def _relation(motion: Kinematics) -> np.ndarray:
    """Pelvis of the other person, sine and cosine of the other's heading relative to the
    person's, distances between contact joints."""
    offset = geometry.turn_about_vertical(motion.pelvis[:, ::-1] - motion.pelvis, motion.heading)
    facing = motion.heading[:, ::-1] - motion.heading
    joints = motion.local[..., motion.body.contact_joints, :]
    # the other's joints, in the person's frame
    others = geometry.turn_about_vertical(joints[:, ::-1], -facing[..., None])
    others = others + (offset * np.array([1, 0, 1], dtype=offset.dtype))[..., None, :]
    squares = ((joints[..., :, None, axis] - others[..., None, :, axis]) ** 2 for axis in range(3))
    distances = np.sqrt(sum(squares))  # a fourth of the norm's time
    sine, cosine = np.sin(facing)[..., None], np.cos(facing)[..., None]
    return np.concatenate(
        [offset, sine, cosine, distances.reshape(*distances.shape[:2], -1)], axis=-1
    )


def _mirror_relation(body: Skeleton, _: FittedConvention | None) -> MirroredColumns:
    partners = np.array(
        [body.contact_joints.index(int(body.mirror[joint])) for joint in body.contact_joints]
    )
    distances = columns_of_joints(partners, 1)[:, None] * len(partners) + partners
    order = np.concatenate([np.arange(5), 5 + distances.ravel()])
    return order, np.array([*MIRROR_SIGNS, -1.0, 1.0] + [1.0] * distances.size)


def _recompute_relation(frames: Tensor, columns: Columns) -> Tensor:
    """The relation of mixed features: the other's place stays, distances follow the joints."""
    import torch

    positions = frames[..., columns["position"]].unflatten(-1, (len(columns.body.joints), 3))
    relation = frames[..., columns["relation"]]
    distances = contact_distances(positions, relation, columns.body)
    return torch.cat([relation[..., :5], distances], dim=-1)


def contact_distances(positions: Tensor, relation: Tensor, body: Skeleton = SMPL) -> Tensor:
    """Distances (..., 2, R * R) in m between the contact joints of two persons, own x other's.

    positions: (..., 2, J, 3) in each person's heading frame; relation: (..., 2, >= 5), the block of
    that name.
    """
    import torch

    joints = positions[..., body.contact_joints, :]
    x, y, z = joints.flip(-3).unbind(dim=-1)  # of the other person
    sine, cosine = relation[..., 3:4], relation[..., 4:5]  # of the other's heading
    turned = torch.stack([cosine * x + sine * z, y, cosine * z - sine * x], dim=-1)
    # heights are above the floor already
    offset = relation[..., None, :3] * relation.new_tensor([1.0, 0.0, 1.0])
    return torch.cdist(joints, turned + offset).flatten(-2)


# ---- raw columns


def _raw(motion: Kinematics) -> np.ndarray:
    """The columns as stored, each with mean 0 and deviation 1 over its own motion, as the challenge
    README has them.

    Where a motion takes place, and how far it goes, is lost.
    """
    frames, persons = motion.positions.shape[:2]
    stored = [
        motion.positions.reshape(frames, persons, -1),
        motion.rotations.reshape(frames, persons, -1),
    ]
    values = np.concatenate(stored, axis=-1, dtype=np.float64)
    lengths = np.diff(np.append(motion.starts, frames))
    over = lengths[:, None, None]
    values -= np.repeat(np.add.reduceat(values, motion.starts) / over, lengths, axis=0)
    deviation = np.sqrt(np.add.reduceat(values**2, motion.starts) / over)
    return values / np.repeat(deviation + 1e-6, lengths, axis=0)


def _mirror_raw(*_: object) -> MirroredColumns:
    raise ValueError("raw columns are not mirrored")


# ---- the table

CANONICAL = ("position", "velocity", "root", "rotation", "relation")
RAW = "raw"
BLOCKS: dict[str, FeatureBlock] = {
    "position": FeatureBlock(
        unit="m",
        width=lambda body, *_: body.position_columns,
        compute=_position,
        mirror=_mirror_points,
        values_per_joint=3,
        mix="attach",
    ),
    "velocity": FeatureBlock(
        unit="m/s",
        width=lambda body, *_: body.position_columns,
        compute=_velocity,
        mirror=_mirror_points,
        rates=slice(None),
        values_per_joint=3,
        mix="attach",
    ),
    "root": FeatureBlock(
        unit="m/s, rad/s, m",
        width=lambda *_: 5,
        compute=_root,
        mirror=_mirror_root,
        fields={"velocity": slice(0, 3), "turning_rate": slice(3, 4), "height": slice(4, 5)},
        rates=slice(0, 4),
    ),
    "rotation": FeatureBlock(
        unit="6D rotations as stored",
        width=lambda _, __, rotations: ROTATION_COLUMNS if rotations else 0,
        compute=_rotation,
        mirror=_mirror_rotation,
        values_per_joint=6,
        first_joint=1,  # the pelvis has no local rotation
        mix="copy",
    ),
    "relation": FeatureBlock(
        unit="m, sine and cosine, m",
        width=lambda body, persons, _: 5 + len(body.contact_joints) ** 2 if persons == 2 else 0,
        compute=_relation,
        mirror=_mirror_relation,
        fields={"offset": slice(0, 3), "facing": slice(3, 5), "distances": slice(5, None)},
        recompute=_recompute_relation,
    ),
    RAW: FeatureBlock(
        unit="deviations",
        width=lambda body, _, rotations: body.position_columns + rotations * ROTATION_COLUMNS,
        compute=_raw,
        mirror=_mirror_raw,
    ),
}
"""Every block by its name. The canonical ones are always there; others are turned on by `--features
canonical+<name>`."""


def block_names(features: str) -> tuple[str, ...]:
    """The blocks that the setting `--features` names: raw, canonical, or canonical+<block>+...
    ConfigError for anything else."""
    kind, *extra = features.split("+")
    available = [name for name in BLOCKS if name not in (*CANONICAL, RAW)]
    if kind == RAW and not extra:
        return (RAW,)
    if kind != "canonical" or set(extra) - set(available) or len(set(extra)) < len(extra):
        choices = ["raw", "canonical", *(f"canonical+{name}" for name in available)]
        fix = f"choose from {', '.join(choices)}"
        if kind == "canonical" and (missing := [name for name in extra if name not in BLOCKS]):
            fix += f", or put {' and '.join(missing)} back into feature_blocks.BLOCKS"
        raise ConfigError("--features", f"{features!r} names no features", fix)
    return (*CANONICAL, *extra)


def block_versions(features: str) -> dict[str, int]:
    """Versions of the blocks that `--features` names besides raw and the canonical ones."""
    names = block_names(features)
    return {name: BLOCKS[name].version for name in names if name not in (*CANONICAL, RAW)}


def compute_block(name: str, motion: Kinematics, width: int) -> np.ndarray:
    """Values (F, persons, width) of a block. DataError where its function gives another shape, or
    asks for a joint that there is none of."""
    with _naming_block(name):
        values = BLOCKS[name].compute(motion)
    shape = (*motion.positions.shape[:2], width)
    if np.shape(values) != shape:
        problem = f"compute gives {np.shape(values)}, where (frames, persons, width) is {shape}"
        raise DataError(_title(name), problem, "make compute and width of its entry agree")
    return values


def mirror_block(
    name: str, body: Skeleton, convention: FittedConvention | None, width: int
) -> MirroredColumns:
    """Mirrored columns of a block, (width,) each. DataError where they are no permutation of its
    columns with a sign of each."""
    with _naming_block(name):
        order, sign = map(np.asarray, BLOCKS[name].mirror(body, convention))
    is_permutation = order.shape == (width,) and (np.sort(order) == np.arange(width)).all()
    if not is_permutation or order.dtype.kind not in "iu":
        columns = _shortened(order)
        problem = f"the columns of its mirror, {columns}, are no order of 0 to {width - 1}"
        raise DataError(_title(name), problem, "let mirror name each column of the block once")
    if sign.shape != (width,):
        problem = f"its mirror has signs of shape {sign.shape}, where it has {width} columns"
        raise DataError(_title(name), problem, "let mirror give 1 or -1 for each column")
    return order, sign


@contextmanager
def _naming_block(name: str) -> Iterator[None]:
    """DataError with the block's name where one of its functions asks for an unknown joint."""
    try:
        yield
    except UnknownJointError as error:
        raise DataError(_title(name), error.problem, error.fix) from error


def _title(name: str) -> str:
    return f"feature block {name!r}"


def _shortened(values: np.ndarray) -> str:
    """Values in one line, the middle ones left out where they are many."""
    with np.printoptions(threshold=8, edgeitems=3, linewidth=1000):
        return " ".join(str(values).split())
