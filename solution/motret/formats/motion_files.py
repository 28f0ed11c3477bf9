"""Numbers in .npy files, with a fault for every way in which such a file can be none. Nothing is ever unpickled."""

import io
import math
import re
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from motret.errors import DataError
from motret.formats.text_files import read_bytes
from motret.skeleton import PERSONS_BY_COLUMNS


class NpyHeader(NamedTuple):
    """What an .npy file says of itself; offset: of its first number, in bytes."""

    shape: tuple[int, ...]
    order: str
    dtype: np.dtype
    offset: int


def read_npy_header(stream: BinaryIO, size: int, path: Path, fix: str) -> NpyHeader:
    """The header of a whole .npy file of numbers; size: bytes of the file; path and mend: for errors, which are DataErrors."""
    if not size:
        raise DataError(path, "empty file", fix)
    try:
        version = npy.read_magic(stream)
    except ValueError as error:
        raise DataError(path, "not an .npy file", fix) from error
    try:
        told = stream.read(2 if version == (1, 0) else 4)  # the bytes that follow
        shape, fortran, dtype = _parse_npy_header(version, told + stream.read(int.from_bytes(told, "little")))
    except Exception as error:  # numpy lets through whatever its header parser stumbles over
        raise DataError(path, "its .npy header is broken or cut short", fix) from error
    if dtype.hasobject:
        raise DataError(path, "an object array, which is never unpickled", fix)
    if dtype.kind not in "fiu":
        raise DataError(path, f"numbers of type {dtype} are no motion", fix)
    header = NpyHeader(shape, "F" if fortran else "C", dtype, stream.tell())
    if size < (whole := header.offset + math.prod(shape) * dtype.itemsize):
        raise DataError(path, f"cut short: {size} bytes of {whole}", "copy or unpack it again, or leave it out")
    return header


@lru_cache(maxsize=4096)
def _parse_npy_header(version: tuple[int, int], header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and type; files of one shape have one header, and it is slow to parse."""
    # version 3 differs from 2 only in the encoding of field names, which no motion has
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0, (3, 0): npy.read_array_header_2_0}[version]
    return read(io.BytesIO(header))


def npy_values(data: bytes, header: NpyHeader) -> np.ndarray:
    """The numbers in the bytes of the file with this header, read-only."""
    return np.frombuffer(data, header.dtype, math.prod(header.shape), header.offset).reshape(header.shape, order=header.order)


RESAVE_FIX = "save it again with np.save as a numeric array (frames, 192 or 384), or leave it out"
BODY_FILE = "holistic.npy"
"""The one name under which a motion is (frames, joints, 3): positions alone, as the layout of split_joints/ has them."""
CANDIDATE_NAME = re.compile(r"motion_\d+\.npy")
"""Candidates of a test may have that form too."""


# ---- motions


def read_motion(path: Path, min_frames: int = 1, repairs: list[str] | None = None) -> np.ndarray:
    """The raw motion of a file, (frames, 192 | 384, or 3 * joints of a `BODY_FILE`) float32, writable; faults as in `parse_motion`."""
    return np.array(parse_motion(read_bytes(path), path, min_frames, repairs))


def parse_motion(data: bytes, path: Path, min_frames: int = 1, repairs: list[str] | None = None) -> np.ndarray:
    """The raw motion in the bytes of an .npy file, (frames, 192 | 384) float32, contiguous; (frames, 3 * joints) of a `BODY_FILE`.

    path names the file in errors. DataError: not a whole .npy file; object or other non-numeric data (never unpickled); not
    2-D; other columns; fewer than `min_frames` frames; NaN, Inf or a value beyond float32. repairs: where it is given the last three are
    repaired as far as that goes, and what was done is added to it.
    """
    header = read_npy_header(io.BytesIO(data), len(data), path, RESAVE_FIX)
    _check_motion_shape(header.shape, path)
    if header.shape[0] < min_frames and repairs is None:
        raise DataError(path, f"{header.shape[0]} frames, at least {min_frames} are needed", "leave it out or take a shorter patch")
    raw = npy_values(data, header).reshape(header.shape[0], -1)
    with np.errstate(over="ignore", invalid="ignore"):
        motion = raw.astype(np.float32, order="C", copy=False)
    if not (finite := np.isfinite(motion)).all():
        frame, column = np.argwhere(~finite)[0]
        value = raw[frame, column]
        what = f"{value} is beyond float32" if np.isfinite(value) else str(value)
        where = f"{what} at frame {frame}, column {column} (from 0)"
        if repairs is None or not finite.any(axis=0).all():
            raise DataError(path, where, "mend the recording or leave it out")
        motion = interpolate_gaps(motion, finite)
        repairs.append(f"{where}, {int((~finite).any(axis=1).sum())} frames filled in from those around")
    if len(motion) < min_frames:
        repairs.append(f"{len(motion)} frames, its last one held up to {min_frames}")
        motion = np.concatenate([motion, np.repeat(motion[-1:], min_frames - len(motion), axis=0)])
    return motion


def interpolate_gaps(motion: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """A motion (T, columns) whose values that are not finite (T, columns) lie on the line between those around in time, column by column.

    Before the first finite value and after the last that value stands. Each column needs one at least.
    """
    filled, frames = motion.copy(), np.arange(len(motion))
    for column in np.flatnonzero(~finite.all(axis=0)):
        known = finite[:, column]
        filled[~known, column] = np.interp(frames[~known], frames[known], motion[known, column])
    return filled


def motion_shape(path: Path) -> tuple[int, int]:
    """Frames and columns by the file's header alone; the faults of `parse_motion` but those of the values."""
    try:
        with path.open("rb") as stream:
            shape = read_npy_header(stream, path.stat().st_size, path, RESAVE_FIX).shape
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}", "see that it is there and may be read") from error
    _check_motion_shape(shape, path)
    return shape[0], math.prod(shape[1:])


def _check_motion_shape(shape: tuple[int, ...], path: Path) -> None:
    """DataError where an array of this shape is no motion."""
    if len(shape) == 3 and (
        path.resolve().name == BODY_FILE or CANDIDATE_NAME.fullmatch(path.name)
    ):  # a validation batch holds links to such
        if shape[2] != 3 or not shape[1]:
            raise DataError(path, f"an array {shape}, expected (frames, joints, 3)", "keep positions alone, or leave the motion out")
    elif len(shape) != 2:
        raise DataError(path, f"a {len(shape)}-D array {shape}, a motion is 2-D: frames x columns", RESAVE_FIX)
    elif shape[1] not in PERSONS_BY_COLUMNS:
        expected = " or ".join(f"{columns} (persons: {persons})" for columns, persons in PERSONS_BY_COLUMNS.items())
        raise DataError(path, f"{shape[1]} columns, expected {expected}", RESAVE_FIX)
    if shape[0] < 1:
        raise DataError(path, "no frames", RESAVE_FIX)
