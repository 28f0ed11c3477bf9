"""Canonical features: what a person does, seen from the person, and where the other one is.

Everything is told in the person's own heading frame (+z forward, +x left, +y up), so where a scene stands and which way it
faces on the floor changes nothing, and the two persons are described alike. The layout of the last axis is `columns()`.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from motret.skeleton import ROTATION_COLUMNS, SMPL, Skeleton, skeleton_from_spec

FEATURE_VERSION = 1
"""Goes into the key of packed features: raise it when a number below changes its meaning."""

CONTACT_JOINTS = SMPL.contact_joints
"""Joints whose distances to the same joints of the other person are features."""
SPINE = (0.3, 1.2)
"""Metres between pelvis and head of a person, generously."""
UNITS = {1.0: "metres", 0.01: "centimetres", 0.001: "millimetres"}
"""Metres in a unit of length."""

UP_AXES = ("+x", "+y", "+z", "-x", "-y", "-z")
_TO_Y_UP = {  # proper rotations: no axis is reflected, left stays left
    "+x": [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
    "+y": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "+z": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
    "-x": [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
    "-y": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
    "-z": [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
}


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """What decides the numbers of packed features; part of their key."""

    fps: float = 30.0
    """Frames a second of the raw motions."""
    up: str = "+y"
    """The axis that points up, found by `find_up`."""
    rotations: bool = True
    """Whether the 6D joint rotations are part of the features."""
    kind: Literal["canonical", "raw"] = "canonical"
    """`canonical_features`, or `raw_features`."""
    skeleton: str = SMPL.name
    """The joints of the bodies, as `Skeleton.spec` tells them."""
    metres: float = 1.0
    """Metres in the unit of the raw positions, one of `UNITS`."""
    reflected: bool = False
    """Whether the raw positions show bodies in the mirror: their left sides on the right."""

    @property
    def body(self) -> Skeleton:
        return skeleton_from_spec(self.skeleton)

    def key(self) -> dict[str, Any]:
        """What changes the numbers; of the fields that came later those that are not at their defaults."""
        later = {"skeleton": SMPL.name, "metres": 1.0, "reflected": False}
        return {name: value for name, value in asdict(self).items() if name not in later or value != later[name]}


class Columns(dict[str, slice]):
    """Name -> place on the last axis of features of bodies with this skeleton."""

    def __init__(self, places: dict[str, slice], body: Skeleton = SMPL):
        super().__init__(places)
        self.body = body


def feature_columns(persons: int, rotations: bool = True, body: Skeleton = SMPL) -> Columns:
    """Name -> place on the last axis of `canonical_features`.

    position: 22x3 m, relative to the pelvis on the floor plane, height above the floor; velocity: 22x3 m/s, relative to the
    pelvis; root: pelvis velocity x y z in m/s, turning rate in rad/s, pelvis height in m; rotation: 21x6, as stored; relation
    (two persons): the other's pelvis x y z in m, sine and cosine of the other's heading against one's own, 4x4 distances
    in m between the `CONTACT_JOINTS` joints (own x other's). Another skeleton has its own number of joints in place of 22.
    """
    widths = {"position": body.position_columns, "velocity": body.position_columns, "root": 5}
    if rotations:
        widths["rotation"] = ROTATION_COLUMNS
    if persons == 2:
        widths["relation"] = 5 + len(body.contact_joints) ** 2
    ends = np.cumsum(list(widths.values()))
    return Columns({name: slice(int(end - width), int(end)) for (name, width), end in zip(widths.items(), ends, strict=True)}, body)


def feature_width(persons: int, rotations: bool = True, body: Skeleton = SMPL) -> int:
    """Number of feature columns per person."""
    return max(part.stop for part in feature_columns(persons, rotations, body).values())


def feature_layout(persons: int, config: FeatureConfig) -> Columns:
    """Name -> place on the last axis of features of this kind; raw ones are one block, as stored."""
    body = config.body
    if config.kind == "canonical":
        return feature_columns(persons, config.rotations, body)
    return Columns({"raw": slice(0, body.position_columns + config.rotations * ROTATION_COLUMNS)}, body)


def make_features(positions: np.ndarray, rotations: np.ndarray, starts: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Features (F, persons, D) float32 of motions laid end to end, of the kind that the settings name; arguments as below."""
    kind = raw_features if config.kind == "raw" else canonical_features
    return kind(positions, rotations, starts, config)


def raw_features(positions: np.ndarray, rotations: np.ndarray, starts: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """The raw columns, each with mean 0 and deviation 1 over its own motion, as the challenge README has them.

    Where a motion takes place, and how far it goes, is lost. Arguments as of `canonical_features`.
    """
    frames, persons = positions.shape[:2]
    blocks = [positions.reshape(frames, persons, -1), *([rotations.reshape(frames, persons, -1)] if config.rotations else [])]
    body = np.concatenate(blocks, axis=-1, dtype=np.float64)
    lengths = np.diff(np.append(starts, frames))
    over = lengths[:, None, None]
    body -= np.repeat(np.add.reduceat(body, starts) / over, lengths, axis=0)
    deviation = np.sqrt(np.add.reduceat(body**2, starts) / over)
    return (body / np.repeat(deviation + 1e-6, lengths, axis=0)).astype(np.float32)


def part_columns(places: Columns, part: str) -> np.ndarray:
    """Columns of one part's stream among those of `columns`: position, velocity and, where they are there, rotation of its joints."""
    joints = np.array(places.body.parts[part])
    axes = np.arange(3)
    found = [places[name].start + (3 * joints[:, None] + axes).ravel() for name in ("position", "velocity")]
    if "rotation" in places:
        turned = joints[joints > 0] - 1  # the pelvis has no local rotation
        found.append(places["rotation"].start + (6 * turned[:, None] + np.arange(6)).ravel())
    return np.concatenate(found)


def rate_columns(places: dict[str, slice]) -> tuple[slice, ...]:
    """Columns among those of `columns` that are changes per second, which raw ones are not: they grow with the pace of a motion."""
    if "raw" in places:
        return ()
    root = places["root"].start
    return places["velocity"], slice(root, root + 4)


def find_up(positions: list[np.ndarray], body: Skeleton = SMPL) -> str:
    """The axis along which heads are above pelvises, by vote of motions: each (T, persons, 22, 3); one of `UP_AXES`.

    A few people who lie or do cartwheels are outvoted; ties go to the first axis of `UP_AXES`.
    """
    votes = np.zeros(len(UP_AXES), dtype=int)
    for motion in positions:
        spine = (motion[..., body.joint("head"), :] - motion[..., body.joint("pelvis"), :]).mean(axis=(0, 1))
        axis = int(np.argmax(np.abs(spine)))
        votes[axis + (0 if spine[axis] > 0 else 3)] += 1
    return UP_AXES[int(np.argmax(votes))]


def find_metres(positions: list[np.ndarray], body: Skeleton = SMPL) -> float:
    """Metres in the unit of raw positions, by the median distance from pelvis to head; 1 where no unit of `UNITS` makes a person of it."""
    spines = [np.linalg.norm(own[..., body.joint("head"), :] - own[..., body.joint("pelvis"), :], axis=-1).ravel() for own in positions]
    spine = float(np.median(np.concatenate(spines))) if spines else 0.0
    return next((unit for unit in UNITS if SPINE[0] <= spine * unit <= SPINE[1]), 1.0)


def find_reflected(positions: list[np.ndarray], up: str, body: Skeleton = SMPL) -> bool:
    """Whether bodies are stored in the mirror, by vote of motions: feet then point the other way than hips and shoulders say.

    Bodies in SMPL's order never are, nor are those whose feet the skeleton does not know.
    """
    feet = [(f"{side}_ankle", f"{side}_foot") for side in ("left", "right")]
    if body is SMPL or not all(name in body.joints for foot in feet for name in foot):
        return False
    votes = 0
    for motion in positions:
        room = to_y_up(motion, up)
        toes = sum(room[..., body.joint(toe), :] - room[..., body.joint(ankle), :] for ankle, toe in feet)
        angle = heading(room, body)
        votes += 1 if (toes[..., 0] * np.sin(angle) + toes[..., 2] * np.cos(angle)).mean() > 0 else -1
    return votes < 0


def upright(positions: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Raw positions (..., 3) in metres, y up, left where left is."""
    room = to_y_up(positions, config.up)
    if config.metres != 1:
        room = room * np.asarray(config.metres, room.dtype)
    return room * np.array([-1, 1, 1], room.dtype) if config.reflected else room


def to_y_up(positions: np.ndarray, up: str) -> np.ndarray:
    """Turns points (..., 3) whose up axis is `up` so that +y is up."""
    return positions if up == "+y" else positions @ np.array(_TO_Y_UP[up], dtype=positions.dtype).T


def heading(positions: np.ndarray, body: Skeleton = SMPL) -> np.ndarray:
    """Which way each pose faces on the floor: (..., 22, 3) y-up -> (...) angle in radians from +z towards +x."""
    across = positions[..., body.joint("left_hip"), :] - positions[..., body.joint("right_hip"), :]
    across = across + positions[..., body.joint("left_shoulder"), :] - positions[..., body.joint("right_shoulder"), :]
    return np.arctan2(-across[..., 2], across[..., 0])  # forward = across x up


def turn_about_vertical(points: np.ndarray, angle: np.ndarray, origin: np.ndarray | None = None) -> np.ndarray:
    """Points (..., 3) as seen by somebody at `origin` (..., 3) who faces `angle` (broadcast over the leading axes)."""
    sine, cosine = np.sin(angle), np.cos(angle)
    x, y, z = (points[..., axis] if origin is None else points[..., axis] - origin[..., axis] for axis in range(3))  # long inner loops
    return np.stack([cosine * x - sine * z, y, sine * x + cosine * z], axis=-1)


def rate_of_change(values: np.ndarray, starts: np.ndarray, fps: float, wrap: bool = False) -> np.ndarray:
    """Change per second of (F, ...) values of several motions laid end to end; a motion's last frame repeats the one before.

    starts: (M,) first frame of each motion. `wrap`: the values are angles. A motion of one frame does not move.
    """
    change = np.zeros_like(values)
    np.subtract(values[1:], values[:-1], out=change[:-1])
    if wrap:
        change = (change + np.pi) % (2 * np.pi) - np.pi
    lasts = np.append(starts[1:], len(values)) - 1
    change[lasts] = np.where((lasts > starts).reshape(-1, *[1] * (values.ndim - 1)), change[lasts - 1], 0)
    change *= np.asarray(fps, dtype=values.dtype)
    return change


def per_motion_quantile(values: np.ndarray, starts: np.ndarray, share: float) -> np.ndarray:
    """Of the float values (F,) of each of several motions laid end to end, the one that so large a share of them is below: (M,).

    What `np.quantile` gives for each, interpolated as it does, without a loop over motions.
    """
    lengths = np.diff(np.append(starts, len(values)))
    ordered = values[np.lexsort((values, np.repeat(np.arange(len(starts)), lengths)))]
    place = (share * (lengths - 1)).astype(values.dtype)
    low = starts + place.astype(int)
    below, above = ordered[low], ordered[np.minimum(low + 1, starts + lengths - 1)]
    return below + (above - below) * (place % 1)


def canonical_features(positions: np.ndarray, rotations: np.ndarray, starts: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Features (F, persons, D) of motions laid end to end; `columns()` tells what stands where.

    positions: (F, persons, 22, 3) raw; rotations: (F, persons, 21, 6); starts: (M,) first frame of each motion.
    The floor of a motion is the 5th percentile of its frames' lowest joint.
    """
    body = upright(positions.astype(np.float32, copy=False), config)
    pelvis_joint = config.body.joint("pelvis")
    frames, persons = body.shape[:2]
    places = feature_layout(persons, config)
    features = np.empty((frames, persons, max(place.stop for place in places.values())), np.float32)
    blocks = {name: features[..., place] for name, place in places.items()}
    lengths = np.diff(np.append(starts, frames))
    lowest = body[..., 1].min(axis=(1, 2))
    floor = np.repeat(per_motion_quantile(lowest, starts, 0.05), lengths)[:, None]
    angle = heading(body, config.body)
    pelvis = body[..., pelvis_joint, :].copy()
    pelvis[..., 1] -= floor
    on_floor = body[..., pelvis_joint, :].copy()
    on_floor[..., 1] = floor
    local = turn_about_vertical(body, angle[..., None], on_floor[..., None, :])
    velocity = rate_of_change(body, starts, config.fps)
    pelvis_velocity = velocity[..., pelvis_joint, :]
    blocks["position"][:] = local.reshape(frames, persons, -1)
    blocks["velocity"][:] = turn_about_vertical(velocity, angle[..., None], pelvis_velocity[..., None, :]).reshape(frames, persons, -1)
    blocks["root"][..., :3] = turn_about_vertical(pelvis_velocity, angle)
    blocks["root"][..., 3] = rate_of_change(angle, starts, config.fps, wrap=True)
    blocks["root"][..., 4] = pelvis[..., 1]
    if config.rotations:
        blocks["rotation"][:] = rotations.reshape(frames, persons, -1)
    if persons == 2:
        blocks["relation"][:] = person_relation(local, pelvis, angle)
    return features


def person_relation(local: np.ndarray, pelvis: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Where the other person is: (F, 2, 5 + 16), see `columns`.

    local: (F, 2, 22, 3) positions in the own heading frame; pelvis: (F, 2, 3) in a common y-up frame; angle: (F, 2) headings.
    """
    other = pelvis[:, ::-1]
    place = turn_about_vertical(other - pelvis, angle)
    facing = angle[:, ::-1] - angle
    reach = local[..., CONTACT_JOINTS, :]
    seen = turn_about_vertical(reach[:, ::-1], -facing[..., None])  # the other's joints, from the other's frame into one's own
    seen = seen + (place * np.array([1, 0, 1], dtype=place.dtype))[..., None, :]
    gap = np.sqrt(sum((reach[..., :, None, axis] - seen[..., None, :, axis]) ** 2 for axis in range(3)))  # a fourth of the norm's time
    return np.concatenate([place, np.sin(facing)[..., None], np.cos(facing)[..., None], gap.reshape(*gap.shape[:2], -1)], axis=-1)
