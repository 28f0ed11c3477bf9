"""Motions in .npy files. Every way in which such a file can be broken has its `DataError`.

Nothing is ever unpickled.
"""

import io
import math
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np

from motret.errors import DataError
from motret.skeleton import PERSONS_BY_COLUMNS
from motret.utils import reading
from motret.utils.reading import NpyHeader

BODY_FILE = "holistic.npy"
"""The one file name whose motion is (frames, joints, 3): positions alone, as in split_joints/."""
CANDIDATE_NAME = re.compile(r"motion_\d+\.npy")
"""File names of a test's candidates, whose motions may have that form too."""
RESAVE_FIX = "save it again with np.save as a numeric array (frames, 192 or 384), or leave it out"

MAX_MOTION_BYTES = 1_000_000_000
"""Size of a motion's file at most: hours of two persons."""
MAX_COORDINATE = 1e9
"""A larger number is no coordinate in any unit: it is treated as NaN is."""

# ---- .npy files


def read_npy_header(stream: BinaryIO, size: int, path: Path, fix: str) -> NpyHeader:
    """The header of an .npy file, after checking that the file is whole and holds numbers.

    size: bytes of the file; path, fix: for errors, which are DataErrors.
    """
    if not size:
        raise DataError(path, "empty file", fix)
    header = reading.read_npy_header(stream, path, fix)
    if header.dtype.kind not in "fiu":
        raise DataError(path, f"holds values of type {header.dtype}, not real numbers", fix)
    if size < header.size:
        problem = f"cut short: {size} bytes of {header.size}"
        raise DataError(path, problem, "copy or unpack it again, or leave it out")
    return header


def read_npy(path: Path, fix: str) -> np.ndarray:
    """The array of an .npy file of numbers, read-only; errors as in `read_npy_header`."""
    data = reading.read_bytes(path, MAX_MOTION_BYTES)
    return npy_values(data, read_npy_header(io.BytesIO(data), len(data), path, fix))


def npy_values(data: bytes, header: NpyHeader) -> np.ndarray:
    """The array in the bytes of a file with this header, read-only."""
    values = np.frombuffer(data, header.dtype, math.prod(header.shape), header.offset)
    return values.reshape(header.shape, order=header.order)


# ---- motions


def read_motion(path: Path, min_frames: int = 1, repairs: list[str] | None = None) -> np.ndarray:
    """The raw motion of a file, float32 and writable; shapes and errors as in `parse_motion`."""
    data = reading.read_bytes(path, MAX_MOTION_BYTES)
    return np.array(parse_motion(data, path, min_frames, repairs))


def parse_motion(
    data: bytes, path: Path, min_frames: int = 1, repairs: list[str] | None = None
) -> np.ndarray:
    """The raw motion in the bytes of an .npy file: (frames, 192 | 384) float32, contiguous.

    A `BODY_FILE` gives (frames, 3 * joints). path: names the file in errors.

    DataError: not a whole .npy file; object or other non-numeric data; not 2-D; other columns;
    fewer than `min_frames` frames; NaN, Inf or a value beyond `MAX_COORDINATE`. With `repairs` the
    last two are repaired as far as possible, and a description of each repair is appended to it.
    """
    header = read_npy_header(io.BytesIO(data), len(data), path, RESAVE_FIX)
    _check_motion_shape(header.shape, path)
    if header.shape[0] < min_frames and repairs is None:
        problem = f"{header.shape[0]} frames, at least {min_frames} are needed"
        raise DataError(path, problem, "leave it out or use a shorter patch")
    raw = npy_values(data, header).reshape(header.shape[0], -1)
    with np.errstate(over="ignore", invalid="ignore"):
        motion = raw.astype(np.float32, order="C", copy=False)
    if not -MAX_COORDINATE <= motion.min() <= motion.max() <= MAX_COORDINATE:
        finite = np.abs(motion) <= MAX_COORDINATE  # NaN is not
        problem = _first_bad_value(raw, finite)
        if repairs is None or not finite.any(axis=0).all():
            raise DataError(path, problem, "repair the recording or leave it out")
        motion = interpolate_gaps(motion, finite)
        bad_frames = int((~finite).any(axis=1).sum())
        repairs.append(f"{problem}, {bad_frames} frames interpolated from their neighbours")
    if len(motion) < min_frames:
        assert repairs is not None  # else this was an error above
        repairs.append(f"{len(motion)} frames, the last one repeated up to {min_frames}")
        padding = np.repeat(motion[-1:], min_frames - len(motion), axis=0)
        motion = np.concatenate([motion, padding])
    return motion


def _first_bad_value(raw: np.ndarray, finite: np.ndarray) -> str:
    """Describes the first value of a motion that is no coordinate."""
    frame, column = np.argwhere(~finite)[0]
    value = raw[frame, column]
    text = f"{value} is no coordinate" if np.isfinite(value) else str(value)
    return f"{text} at frame {frame}, column {column} (from 0)"


def interpolate_gaps(motion: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """A motion (T, columns) with the values that are not finite interpolated in time, by column.

    finite: (T, columns), at least one per column. Before the first finite value of a column and
    after its last, that value is repeated.
    """
    filled, frames = motion.copy(), np.arange(len(motion))
    for column in np.flatnonzero(~finite.all(axis=0)):
        good = finite[:, column]
        filled[~good, column] = np.interp(frames[~good], frames[good], motion[good, column])
    return filled


def motion_shape(path: Path) -> tuple[int, int]:
    """Frames and columns of a motion, from the file's header alone.

    Errors as in `parse_motion`, except those of the values.
    """
    with reading.open_file(path, MAX_MOTION_BYTES) as (stream, size):
        shape = read_npy_header(stream, size, path, RESAVE_FIX).shape
    _check_motion_shape(shape, path)
    return shape[0], math.prod(shape[1:])


def _check_motion_shape(shape: tuple[int, ...], path: Path) -> None:
    """DataError where an array of this shape is no motion."""
    if len(shape) == 3 and _may_hold_body(path):
        if shape[2] != 3 or not shape[1]:
            problem = f"an array {shape}, expected (frames, joints, 3)"
            raise DataError(path, problem, "keep positions alone, or leave the motion out")
    elif len(shape) != 2:
        problem = f"a {len(shape)}-D array {shape}, a motion is 2-D: frames x columns"
        raise DataError(path, problem, RESAVE_FIX)
    elif shape[1] not in PERSONS_BY_COLUMNS:
        expected = " or ".join(
            f"{columns} (persons: {persons})" for columns, persons in PERSONS_BY_COLUMNS.items()
        )
        raise DataError(path, f"{shape[1]} columns, expected {expected}", RESAVE_FIX)
    if shape[0] < 1:
        raise DataError(path, "no frames", RESAVE_FIX)


def _may_hold_body(path: Path) -> bool:
    """Whether a file's motion may be (frames, joints, 3)."""
    # a candidate of validation queries is a link to such a file
    return path.resolve().name == BODY_FILE or bool(CANDIDATE_NAME.fullmatch(path.name))
