"""Points and angles of motions: up axes, headings, turns about the vertical axis, changes per
second.

Coordinates are right-handed with +y up. A heading is the angle on the floor from +z towards +x.
"""

import numpy as np

from motret.skeleton import SMPL, Skeleton

UP_AXES = ("+x", "+y", "+z", "-x", "-y", "-z")
_TO_Y_UP = {  # proper rotations: no axis is reflected, left stays left
    "+x": [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
    "+y": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "+z": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
    "-x": [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
    "-y": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
    "-z": [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
}


def to_y_up(positions: np.ndarray, up: str) -> np.ndarray:
    """Points (..., 3) whose up axis is `up`, turned so that +y is up."""
    if up == "+y":
        return positions
    return positions @ np.array(_TO_Y_UP[up], dtype=positions.dtype).T


def heading(positions: np.ndarray, body: Skeleton = SMPL) -> np.ndarray:
    """Heading (...) in radians of each pose (..., J, 3), y up, by its hips and shoulders."""
    across = positions[..., body.joint("left_hip"), :] - positions[..., body.joint("right_hip"), :]
    across = across + positions[..., body.joint("left_shoulder"), :]
    across = across - positions[..., body.joint("right_shoulder"), :]
    return np.arctan2(-across[..., 2], across[..., 0])  # forward = across x up


def turn_about_vertical(
    points: np.ndarray, angle: np.ndarray, origin: np.ndarray | None = None
) -> np.ndarray:
    """Points (..., 3) in the frame of a viewer at `origin` (..., 3) with heading `angle`.

    Angles are in radians and broadcast over the leading axes.
    """
    sine, cosine = np.sin(angle), np.cos(angle)
    x, y, z = (  # axis by axis: long inner loops
        points[..., axis] if origin is None else points[..., axis] - origin[..., axis]
        for axis in range(3)
    )
    return np.stack([cosine * x - sine * z, y, sine * x + cosine * z], axis=-1)


def rate_of_change(
    values: np.ndarray, starts: np.ndarray, fps: float, wrap: bool = False
) -> np.ndarray:
    """Change per second of values (F, ...) of motions laid end to end.

    starts: (M,) first frame of each motion; wrap: the values are angles in radians. The last frame
    of a motion repeats the rate before it; a motion of one frame does not move.
    """
    change = np.zeros_like(values)
    np.subtract(values[1:], values[:-1], out=change[:-1])
    if wrap:
        change = (change + np.pi) % (2 * np.pi) - np.pi
    lasts = np.append(starts[1:], len(values)) - 1
    has_rate = (lasts > starts).reshape(-1, *[1] * (values.ndim - 1))
    change[lasts] = np.where(has_rate, change[lasts - 1], 0)
    change *= np.asarray(fps, dtype=values.dtype)
    return change


def per_motion_quantile(values: np.ndarray, starts: np.ndarray, q: float) -> np.ndarray:
    """Quantile (M,) of the float values (F,) of each of several motions laid end to end.

    What `np.quantile` gives for each motion, interpolated as it does, without a loop over motions.
    """
    lengths = np.diff(np.append(starts, len(values)))
    ordered = values[np.lexsort((values, np.repeat(np.arange(len(starts)), lengths)))]
    position = (q * (lengths - 1)).astype(values.dtype)
    low = starts + position.astype(int)
    below, above = ordered[low], ordered[np.minimum(low + 1, starts + lengths - 1)]
    return below + (above - below) * (position % 1)
