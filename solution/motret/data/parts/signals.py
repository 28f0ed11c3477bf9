"""Signals of moving bodies: joints as angles, speeds and paths over time, and each signal
summarised by its extremes and swings.

Bodies are side by side in arrays (M, T, persons, ...); a shorter motion stays in its last frame,
which changes no statistic. Each motion and person is computed alone, and left mirrors right
exactly, so equal motions have equal statistics wherever they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from motret.data import geometry
from motret.skeleton import SMPL, Skeleton

SIGN = {"left": 1.0, "right": -1.0}
"""Direction of the x axis that leads away from the body, by side."""
FAR = 9.0
"""Metres: the distance of a hand that is out of reach."""
APART = 0.3
"""Metres between hands from which on they are apart, and further distance does not count."""


class SignalStats(NamedTuple):
    """A signal of one person in one motion: extremes, ends, and how often it swung up and down."""

    low: float
    high: float
    first: float
    last: float
    rises: int
    falls: int

    @property
    def moves(self) -> int:
        """How often it went up, or down, whichever it did more often."""
        return max(self.rises, self.falls)

    @property
    def waves(self) -> int:
        """How often it went both up and down."""
        return min(self.rises, self.falls)

    @property
    def span(self) -> float:
        return self.high - self.low


SignalStatsByName = dict[str, SignalStats]
Signals = dict[str, np.ndarray]


# ---- operations on signals


def smooth(values: np.ndarray, half: int) -> np.ndarray:
    """Mean over 2 half + 1 frames (axis 1); beyond its ends a motion stays as it is there."""
    frames = np.arange(values.shape[1])
    neighbours = (np.clip(frames + shift, 0, len(frames) - 1) for shift in range(-half, half + 1))
    return np.asarray(sum(values[:, frame_idx] for frame_idx in neighbours)) / (2 * half + 1)


def change(values: np.ndarray) -> np.ndarray:
    """Difference to the frame before (axis 1), 0 in the first."""
    return np.diff(values, axis=1, prepend=values[:, :1])


def wrapped(angle: np.ndarray) -> np.ndarray:
    """Angles in radians brought to [-pi, pi]; odd, so a mirrored angle stays one."""
    return np.arctan2(np.sin(angle), np.cos(angle))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., 3) with unit length; those without length stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def flexion(first: np.ndarray, middle: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Degrees by which the chain of three joints (..., 3) is bent, 0 when straight."""
    cosine = (unit(middle - first) * unit(last - middle)).sum(axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def speed(points: np.ndarray, fps: float) -> np.ndarray:
    """Speed of points (M, T, persons, D) in units per second."""
    return np.linalg.norm(change(points), axis=-1) * fps


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Metres between points (..., 3)."""
    return np.linalg.norm(a - b, axis=-1)


def at_highest(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    """The values (M, T, persons) in the frame where `of` is highest, repeated over all frames."""
    highest = np.take_along_axis(values, of.argmax(axis=1)[:, None], axis=1)
    return np.broadcast_to(highest, values.shape)


def only_while(values: np.ndarray, gate: np.ndarray) -> np.ndarray:
    """Values (M, T, persons) that stay constant while the gate is shut."""
    frames = np.arange(values.shape[1])[None, :, None]
    last = np.maximum.accumulate(np.where(gate, frames, -1), axis=1)
    first_open = gate.argmax(axis=1)[:, None]
    return np.take_along_axis(values, np.where(last < 0, first_open, last), axis=1)


def count_swings(values: np.ndarray, amplitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often values (M, T, ..., S) go up, and go down, by at least their amplitude (S,): two
    arrays (M, ..., S).

    A rise ends only when the value has fallen by the amplitude again, so small turns on the way are
    no swings of their own.
    """
    low, high = values[:, 0].copy(), values[:, 0].copy()
    direction = np.zeros(low.shape, dtype=np.int8)
    rises, falls = np.zeros(low.shape, dtype=np.int64), np.zeros(low.shape, dtype=np.int64)
    for frame in range(1, values.shape[1]):
        value = values[:, frame]
        np.minimum(low, value, out=low)
        np.maximum(high, value, out=high)
        up = (value - low >= amplitude) & (direction != 1)
        down = (high - value >= amplitude) & (direction != -1) & ~up
        rises += up
        falls += down
        direction[up], direction[down] = 1, -1
        np.copyto(high, value, where=up)
        np.copyto(low, value, where=down)
    return rises, falls


def summarise(
    signals: Signals, min_amplitude: Mapping[str, float]
) -> list[list[SignalStatsByName]]:
    """Statistics of signals, each (M, T, persons): of each motion, of each person, by name.

    min_amplitude: by name how far a signal must go to have swung; signals that are not in it have
    no swings.
    """
    names = list(signals)
    values = np.stack([signals[name] for name in names], axis=-1)
    amplitude = np.array([min_amplitude.get(name, np.inf) for name in names])
    extremes = (values.min(axis=1), values.max(axis=1), values[:, 0], values[:, -1])
    table = np.stack([*extremes, *count_swings(values, amplitude)], axis=-1)
    return [[_stats_by_name(names, person) for person in motion] for motion in table.tolist()]


def _stats_by_name(names: list[str], values: list[list[float]]) -> SignalStatsByName:
    return {
        name: SignalStats(low, high, first, last, int(rises), int(falls))
        for name, (low, high, first, last, rises, falls) in zip(names, values, strict=True)
    }


# ---- what the parts do over time


@dataclass(frozen=True)
class Bodies:
    """Smoothed bodies side by side.

    room, local: (M, T, persons, J, 3) m, y up, in the room and in each person's heading frame: +z
    forward, +x left, y over the lowest point that a joint of this person gets to, the pelvis over
    the origin; heading: (M, T, persons) radians.
    """

    room: np.ndarray
    local: np.ndarray
    heading: np.ndarray
    fps: float
    skeleton: Skeleton = SMPL

    def joint(self, name: str) -> np.ndarray:
        """(M, T, persons, 3) a joint in its person's heading frame."""
        return self.local[..., self.skeleton.joint(name), :]

    def room_joint(self, name: str) -> np.ndarray:
        """(M, T, persons, 3) a joint in the room."""
        return self.room[..., self.skeleton.joint(name), :]


def smooth_bodies(
    room: np.ndarray, fps: float, half_window: float, skeleton: Skeleton = SMPL
) -> Bodies:
    """Bodies from positions (M, T, persons, J, 3) in metres, y up, smoothed over twice
    `half_window` seconds."""
    room = smooth(room, max(1, round(half_window * fps)))
    heading, pelvis = geometry.heading(room, skeleton), skeleton.joint("pelvis")
    local = geometry.turn_about_vertical(
        room - room[..., [pelvis], :] * (1, 0, 1), heading[..., None]
    )
    local[..., 1] -= room[..., 1].min(axis=(1, 3))[:, None, :, None]
    return Bodies(room, local, heading, fps, skeleton)


def arm_signals(bodies: Bodies, side: str, *, high: float, middle: float, tight: float) -> Signals:
    """What an arm does over time, each (M, T, persons); metres from the person's own shoulder
    unless stated otherwise.

    high: height from which on the sideways way of the hand ("wave") and its distance ("thrust")
    count; middle: height from which on its nearness to the other hand ("apart") counts; tight:
    degrees of the elbow from which on its nearness to head and hip counts.
    """
    shoulder, elbow, wrist = (
        bodies.joint(f"{side}_{name}") for name in ("shoulder", "elbow", "wrist")
    )
    hand = wrist - shoulder
    up, front, out = hand[..., 1], hand[..., 2], SIGN[side] * hand[..., 0]
    bent = flexion(shoulder, elbow, wrist)
    to_head, to_hip = (
        np.where(bent > tight, distance(wrist, bodies.joint(name)), FAR)
        for name in ("head", f"{side}_hip")
    )
    apart = distance(bodies.joint("left_wrist"), bodies.joint("right_wrist"))
    # seen from the side; near the shoulder the direction is noise
    turn = np.where(np.hypot(up, front) > 0.15, wrapped(change(np.arctan2(up, front))), 0.0)
    return {
        "up": up,
        "front": front,
        "wave": only_while(out, up > high),
        "thrust": only_while(np.hypot(front, up), (up > high) & (front > 0)),
        "front_when_up": at_highest(front, up),
        "out_when_up": at_highest(out, up),
        "elbow": bent,  # degrees
        "elbow_when_up": at_highest(bent, up),
        "elbow_when_front": at_highest(bent, front),
        "circle": np.cumsum(turn, axis=1) / (2 * np.pi),  # turns, over the top to the back
        "speed": speed(wrist, bodies.fps),  # m/s against the pelvis
        "floor": wrist[..., 1],  # over the floor
        "head": wrist[..., 1] - bodies.joint("head")[..., 1],  # over the head
        "to_head": to_head,
        "to_hip": to_hip,
        "apart": np.where(up > middle, np.minimum(apart, APART), APART),
    }


def leg_signals(bodies: Bodies, side: str) -> Signals:
    """What a leg does over time, each (M, T, persons)."""
    hip, knee, ankle = (bodies.joint(f"{side}_{name}") for name in ("hip", "knee", "ankle"))
    thigh = np.degrees(np.arctan2((knee - hip)[..., 2], (hip - knee)[..., 1]))
    bent = flexion(hip, knee, ankle)
    lift = ankle[..., 1] - ankle[..., 1].min(axis=1, keepdims=True)
    step = geometry.turn_about_vertical(change(bodies.room_joint(f"{side}_ankle")), bodies.heading)
    return {
        "thigh": thigh,  # degrees forward from hanging
        "knee": bent,  # degrees
        "lift": lift,  # m of the ankle over its lowest
        "speed": speed(ankle - hip, bodies.fps),  # m/s against the hip
        "ground": np.hypot(step[..., 0], step[..., 2])
        * bodies.fps,  # m/s of the ankle over the ground
        "stride": ankle[..., 2] - hip[..., 2],  # m of the ankle before the hip
        "forward": np.cumsum(step[..., 2], axis=1),  # m, the way of the ankle
        "left": np.cumsum(step[..., 0], axis=1),
        "knee_when_front": at_highest(bent, thigh),
        "lift_when_front": at_highest(lift, thigh),
    }


def torso_signals(bodies: Bodies) -> Signals:
    """What the torso and the whole body do over time, each (M, T, persons)."""
    feet = (bodies.room_joint("left_ankle") + bodies.room_joint("right_ankle")) / 2
    way = geometry.turn_about_vertical(change(feet), bodies.heading)
    step = geometry.turn_about_vertical(change(bodies.room_joint("pelvis")), bodies.heading)
    steady = smooth(step, max(1, round(0.4 * bodies.fps)))  # steps evened out
    spine = bodies.joint("neck") - bodies.joint("pelvis")
    hips, shoulders = (
        bodies.joint(f"left_{name}") - bodies.joint(f"right_{name}") for name in ("hip", "shoulder")
    )
    hip_height = (bodies.joint("left_hip") + bodies.joint("right_hip"))[..., 1] / 2
    return {
        "forward": np.cumsum(way[..., 2], axis=1),  # m, the way of the middle between the feet
        "left": np.cumsum(way[..., 0], axis=1),
        "ground": np.hypot(steady[..., 0], steady[..., 2]) * bodies.fps,  # m/s of the pelvis
        "turned": np.degrees(np.cumsum(wrapped(change(bodies.heading)), axis=1)),  # to the left
        "pitch": np.degrees(np.arctan2(spine[..., 2], spine[..., 1])),  # forward from upright
        "roll": np.degrees(np.arctan2(spine[..., 0], spine[..., 1])),  # to the left
        "twist": np.degrees(wrapped(_yaw(shoulders) - _yaw(hips))),
        "crouch": standing_hip_height(bodies) - hip_height,  # m lower than on straight legs
        "neck": bodies.joint("neck")[..., 1],
        "air": bodies.local[..., 1].min(axis=-1),  # m of the lowest joint over the floor
        "speed": speed(bodies.room_joint("neck"), bodies.fps),  # m/s
    }


def _yaw(across: np.ndarray) -> np.ndarray:
    """Direction (...) on the floor, in radians, that a body faces whose left side is towards
    `across` (..., 3)."""
    return np.arctan2(-across[..., 2], across[..., 0])


def standing_hip_height(bodies: Bodies) -> np.ndarray:
    """(M, 1, persons) metres of the hips over the floor when the legs are straight."""
    legs = [[bodies.joint(f"{side}_{name}") for name in ("hip", "knee", "ankle")] for side in SIGN]
    length = sum(distance(hip, knee) + distance(knee, ankle) for hip, knee, ankle in legs) / 2
    ankles = np.minimum(*(ankle[..., 1] for _, _, ankle in legs))
    return length.max(axis=1, keepdims=True) + ankles.min(axis=1, keepdims=True)
