"""Motions as a page draws them: positions alone, 10 frames a second, seen from the side, in 2 mm steps, packed as text.

A packed motion is base64 of zlib of int16 differences from frame to frame, the low bytes of all numbers before the high ones. On
960 motions of 6 s this takes 6.3 MB, where plain int8 takes 10.3 MB and plain int16 20.6 MB; no position is wrong by more than 1 mm.
"""

import base64
import zlib
from dataclasses import dataclass

import numpy as np

from motret.data import geometry
from motret.skeleton import SMPL, Skeleton

FPS = 10
"""Frames a second of a packed motion; the page draws those between as straight lines."""
STEP = 0.002
"""Metres; int16 numbers of such steps reach 65 m."""
LONGEST = 20.0
"""Seconds of a motion that are kept."""


@dataclass(frozen=True)
class PackedMotion:
    """A motion as text.

    seconds: its whole length, which may be more than is kept; radius: metres on the floor that it reaches from its middle; reach: the
    same from where its persons are at the time.
    """

    frames: int
    persons: int
    seconds: float
    radius: float
    reach: float
    data: str


def pack_motion(positions: np.ndarray, fps: float, up: str = "+y", skeleton: Skeleton = SMPL) -> PackedMotion:
    """Packs positions (T, persons, 22, 3) in metres, whose up axis is `up`, at `fps` frames a second."""
    staged = center_and_resample(geometry.to_y_up(positions, up), fps, skeleton)
    steps = np.clip(np.rint(staged / STEP), -32768, 32767).astype(np.int32)
    changes = np.diff(steps, axis=0, prepend=0).astype("<i2")  # beyond int16 they wrap around, and so does the sum that undoes them
    planes = changes.reshape(-1).view(np.uint8).reshape(-1, 2).T
    text = base64.b64encode(zlib.compress(np.ascontiguousarray(planes).tobytes(), 6)).decode("ascii")
    here = staged[:, :, [skeleton.joint("pelvis")]].mean(axis=1, keepdims=True)
    radius, reach = (float(np.hypot(*np.moveaxis(points[..., [0, 2]], -1, 0)).max()) for points in (staged, staged - here))
    return PackedMotion(len(staged), staged.shape[1], round(len(positions) / fps, 2), round(radius, 2), round(reach, 2), text)


def center_and_resample(positions: np.ndarray, fps: float, skeleton: Skeleton = SMPL) -> np.ndarray:
    """Positions (T, persons, 22, 3) y-up as a spectator sees them: (F, persons, 22, 3), `FPS` frames a second.

    The lowest joint stands on the floor, the middle of the way is the origin. Two persons stand along x, the first on the left;
    one person faces +z at the first frame.
    """
    times = np.arange(0, min(len(positions) / fps, LONGEST), 1 / FPS)
    body = positions[np.minimum(np.rint(times * fps).astype(int), len(positions) - 1)].astype(np.float64)
    body = geometry.turn_about_vertical(body, _facing_angle(body, skeleton))
    body -= _floor_center(body[:, :, skeleton.joint("pelvis")])
    body[..., 1] -= np.percentile(body[..., 1].min(axis=(1, 2)), 5)
    return body


def _floor_center(pelvis: np.ndarray) -> np.ndarray:
    """Middle (3,) of the floor area that pelvises (F, persons, 3) cover."""
    low, high = pelvis.min(axis=(0, 1)), pelvis.max(axis=(0, 1))
    return (low + high) / 2 * (1, 0, 1)


def _facing_angle(body: np.ndarray, skeleton: Skeleton) -> float:
    """Angle, from +z towards +x, of the direction that is to become +z."""
    if body.shape[1] == 2:
        apart = (body[:, 1] - body[:, 0])[:, skeleton.joint("pelvis")].mean(axis=0)
        if np.hypot(apart[0], apart[2]) > 0.05:  # else they stand in one place, and the first person's heading has to do
            return float(np.arctan2(-apart[2], apart[0]))
    return float(geometry.heading(body[0, 0], skeleton))
