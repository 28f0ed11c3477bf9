"""Motions as a page draws them: joint positions at 10 frames a second in 2 mm steps, as text.

A packed motion is base64 of zlib of int16 differences from frame to frame, the low bytes of all
numbers before the high ones. 960 motions of 6 s take 6.3 MB; plain int8 takes 10.3 MB and plain
int16 20.6 MB. No coordinate is off by more than 1 mm.
"""

import base64
import zlib
from dataclasses import dataclass

import numpy as np

from motret.data import geometry
from motret.skeleton import SMPL, Skeleton

FPS = 10
"""Frames a second of a packed motion; the page interpolates between them."""
STEP = 0.002
"""Metres; int16 numbers of such steps reach 65 m."""
MAX_SECONDS = 20.0
"""Longer motions are cut."""
MIN_DISTANCE = 0.05
"""Metres between two persons from which on the line between them has a direction."""


@dataclass(frozen=True)
class PackedMotion:
    """A motion as text.

    seconds: of the whole motion, which may be cut; radius: metres on the floor from the centre of
    the scene to the farthest joint; reach: the same from the middle between the persons at each
    time.
    """

    frames: int
    persons: int
    seconds: float
    radius: float
    reach: float
    data: str


def pack_motion(
    positions: np.ndarray, fps: float, up: str = "+y", skeleton: Skeleton = SMPL
) -> PackedMotion:
    """Packs positions (T, persons, J, 3), in metres, up axis `up`, `fps` frames a second."""
    scene = center_and_resample(geometry.to_y_up(positions, up), fps, skeleton)
    steps = np.clip(np.rint(scene / STEP), -32768, 32767).astype(np.int32)
    # differences beyond int16 wrap around, and so does the running sum that decodes them
    differences = np.diff(steps, axis=0, prepend=0).astype("<i2")
    planes = np.ascontiguousarray(differences.reshape(-1).view(np.uint8).reshape(-1, 2).T)
    text = base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode("ascii")
    centre = scene[:, :, [skeleton.joint("pelvis")]].mean(axis=1, keepdims=True)
    return PackedMotion(
        frames=len(scene),
        persons=scene.shape[1],
        seconds=round(len(positions) / fps, 2),
        radius=round(_floor_radius(scene), 2),
        reach=round(_floor_radius(scene - centre), 2),
        data=text,
    )


def _floor_radius(points: np.ndarray) -> float:
    """Largest distance on the floor of points (..., 3) from the origin."""
    return float(np.hypot(points[..., 0], points[..., 2]).max())


def center_and_resample(positions: np.ndarray, fps: float, skeleton: Skeleton = SMPL) -> np.ndarray:
    """Centres and turns y-up positions (T, persons, J, 3) for a viewer: (F, persons, J, 3).

    F frames at `FPS` a second. The lowest joint is on the floor and the middle of the way is the
    origin. Two persons stand along x, the first on the left; one person faces +z at first.
    """
    times = np.arange(0, min(len(positions) / fps, MAX_SECONDS), 1 / FPS)
    frames = np.minimum(np.rint(times * fps).astype(int), len(positions) - 1)
    scene = positions[frames].astype(np.float64)
    scene = geometry.turn_about_vertical(scene, np.asarray(_view_angle(scene, skeleton)))
    scene -= _floor_center(scene[:, :, skeleton.joint("pelvis")])
    scene[..., 1] -= np.percentile(scene[..., 1].min(axis=(1, 2)), 5)
    return scene


def _floor_center(pelvis: np.ndarray) -> np.ndarray:
    """Middle (3,) of the floor area that pelvises (F, persons, 3) cover."""
    low, high = pelvis.min(axis=(0, 1)), pelvis.max(axis=(0, 1))
    return np.asarray((low + high) / 2 * (1, 0, 1))


def _view_angle(scene: np.ndarray, skeleton: Skeleton) -> float:
    """Angle, from +z towards +x, of the direction that becomes +z."""
    if scene.shape[1] == 2:
        offset = (scene[:, 1] - scene[:, 0])[:, skeleton.joint("pelvis")].mean(axis=0)
        if np.hypot(offset[0], offset[2]) > MIN_DISTANCE:
            return float(np.arctan2(-offset[2], offset[0]))
    return float(geometry.heading(scene[0, 0], skeleton))
