"""Features of motions: what a person does, seen from the person, and where the other one is.

Everything is in the person's own heading frame, so where a scene is and which way it faces on the
floor changes nothing, and both persons are described alike. `feature_blocks.BLOCKS` lists what the
columns are.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from motret.data import geometry
from motret.data.feature_blocks import (
    BLOCKS,
    RAW,
    Columns,
    Kinematics,
    block_names,
    block_versions,
    compute_block,
)
from motret.skeleton import MAX_JOINTS, SMPL, Skeleton, skeleton_from_spec

FEATURE_VERSION = 1
"""Part of the key of packed features: raise it when a canonical or raw block changes."""

PELVIS_TO_HEAD = (0.3, 1.2)
"""Metres between pelvis and head of a person, generously."""
UNITS = {1.0: "metres", 0.01: "centimetres", 0.001: "millimetres"}
"""Metres in a unit of length."""


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """What decides the numbers of packed features; part of their key."""

    fps: float = 30.0
    """Frames per second of the raw motions."""
    up: str = "+y"
    """The axis that points up, by `find_up`."""
    rotations: bool = True
    """Whether the 6D joint rotations are among the features."""
    kind: str = "canonical"
    """Which blocks: raw, canonical, or canonical+<block>+..., as `feature_blocks.block_names` reads
    it."""
    skeleton: str = SMPL.name
    """The joints of the bodies, as `Skeleton.spec` writes them."""
    metres: float = 1.0
    """Metres in the unit of the raw positions, one of `UNITS`."""
    reflected: bool = False
    """Whether the raw positions are mirror images of bodies, left sides on the right."""

    @property
    def body(self) -> Skeleton:
        return skeleton_from_spec(self.skeleton)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks; ConfigError where `kind` names none."""
        return block_names(self.kind)

    def check_names(self) -> None:
        """ConfigError or ValueError where skeleton, blocks or axis are none that there are."""
        if self.up not in geometry.UP_AXES:
            raise ValueError(f"{self.up!r} is no axis")
        if not all(math.isfinite(value) and value > 0 for value in (self.fps, self.metres)):
            raise ValueError("fps and metres must be above 0")
        block_names(self.kind)
        if len(self.body.joints) > MAX_JOINTS:
            raise ValueError(f"{len(self.body.joints)} joints")

    def key(self) -> dict[str, Any]:
        """What changes the numbers; of the fields that came later only those that are not at their
        defaults."""
        later = {"skeleton": SMPL.name, "metres": 1.0, "reflected": False}
        values = {
            name: value
            for name, value in asdict(self).items()
            if name not in later or value != later[name]
        }
        versions = block_versions(self.kind)
        return values | ({"versions": versions} if versions else {})


def feature_layout(persons: int, config: FeatureConfig) -> Columns:
    """Columns of each block on the last axis of features of this kind; blocks without columns are
    left out."""
    body = config.body
    slices: dict[str, slice] = {}
    start = 0
    for name in config.blocks:
        if width := BLOCKS[name].width(body, persons, config.rotations):
            slices[name] = slice(start, start + width)
            start += width
    return Columns(slices, body)


def feature_columns(persons: int, rotations: bool = True, body: Skeleton = SMPL) -> Columns:
    """Columns of each canonical block."""
    return feature_layout(persons, FeatureConfig(rotations=rotations, skeleton=body.spec()))


def feature_width(persons: int, rotations: bool = True, body: Skeleton = SMPL) -> int:
    """Number of canonical feature columns per person."""
    return feature_columns(persons, rotations, body).width


def make_features(
    positions: np.ndarray, rotations: np.ndarray, starts: np.ndarray, config: FeatureConfig
) -> np.ndarray:
    """Features (F, persons, D) float32 of motions laid end to end, laid out as `feature_layout`.

    positions: (F, persons, J, 3) raw; rotations: (F, persons, 21, 6); starts: (M,) first frame of
    each motion. DataError where the function of a block does not fit its entry.
    """
    frames, persons = positions.shape[:2]
    if config.kind != RAW:
        positions = upright(positions.astype(np.float32, copy=False), config)
    if not config.rotations:
        rotations = rotations[:, :, :0]
    motion = Kinematics(positions, rotations, starts, config.fps, config.body)
    columns = feature_layout(persons, config)
    features = np.empty((frames, persons, columns.width), np.float32)
    for name, block_columns in columns.items():
        width = block_columns.stop - block_columns.start
        features[..., block_columns] = compute_block(name, motion, width)
    return features


def part_columns(columns: Columns, part: str) -> np.ndarray:
    """Columns of the stream of one part: those of its joints in every block that lists joints."""
    joints = np.array(columns.body.parts[part])
    return np.concatenate(
        [
            block_columns.start + BLOCKS[name].joint_columns(joints)
            for name, block_columns in columns.items()
            if BLOCKS[name].values_per_joint
        ]
    )


def rate_columns(columns: Columns) -> tuple[slice, ...]:
    """Columns that are changes per second: they grow with the speed of a motion."""
    rates = {name: BLOCKS[name].rates for name in columns}
    return tuple(columns.within(name, inner) for name, inner in rates.items() if inner is not None)


def upright(positions: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Raw positions (..., 3) in metres, y up, not mirrored."""
    room = geometry.to_y_up(positions, config.up)
    if config.metres != 1:
        room = room * np.asarray(config.metres, room.dtype)
    return room * np.array([-1, 1, 1], room.dtype) if config.reflected else room


# ---- what the raw positions of a data set are


def find_up(positions: Sequence[np.ndarray], body: Skeleton = SMPL) -> str:
    """The axis along which heads are above pelvises, one of `geometry.UP_AXES`, by vote of motions
    (T, persons, J, 3).

    A few people who lie or do cartwheels are outvoted; of equal votes the first axis of `UP_AXES`
    wins.
    """
    votes = np.zeros(len(geometry.UP_AXES), dtype=int)
    for motion in positions:
        spine = motion[..., body.joint("head"), :] - motion[..., body.joint("pelvis"), :]
        mean = spine.mean(axis=(0, 1))
        axis = int(np.argmax(np.abs(mean)))
        votes[axis + (0 if mean[axis] > 0 else 3)] += 1
    return geometry.UP_AXES[int(np.argmax(votes))]


def find_metres(positions: Sequence[np.ndarray], body: Skeleton = SMPL) -> float:
    """Metres in the unit of raw positions, by the median distance from pelvis to head.

    1 where no unit of `UNITS` gives the size of a person.
    """
    head, pelvis = body.joint("head"), body.joint("pelvis")
    lengths = [
        np.linalg.norm(motion[..., head, :] - motion[..., pelvis, :], axis=-1).ravel()
        for motion in positions
    ]
    median = float(np.median(np.concatenate(lengths))) if lengths else 0.0
    low, high = PELVIS_TO_HEAD
    return next((metres for metres in UNITS if low <= median * metres <= high), 1.0)


def find_reflected(positions: Sequence[np.ndarray], up: str, body: Skeleton = SMPL) -> bool:
    """Whether bodies are stored mirrored, by vote of motions: their feet point backwards from hips
    and shoulders.

    False for bodies in SMPL's order, and for those whose feet the skeleton does not name.
    """
    feet = [(f"{side}_ankle", f"{side}_foot") for side in ("left", "right")]
    if body is SMPL or not all(name in body.joints for foot in feet for name in foot):
        return False
    votes = 0
    for motion in positions:
        room = geometry.to_y_up(motion, up)
        toes = sum(
            room[..., body.joint(toe), :] - room[..., body.joint(ankle), :] for ankle, toe in feet
        )
        angle = geometry.heading(room, body)
        forward = toes[..., 0] * np.sin(angle) + toes[..., 2] * np.cos(angle)
        votes += 1 if forward.mean() > 0 else -1
    return votes < 0
