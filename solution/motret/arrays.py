"""Numbers in .npy files, with a fault for every way in which such a file can be none. Nothing is ever unpickled."""

import io
import math
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from motret.faults import DataFault


class Header(NamedTuple):
    """What an .npy file says of itself; offset: of its first number, in bytes."""

    shape: tuple[int, ...]
    order: str
    dtype: np.dtype
    offset: int


def read_header(stream: BinaryIO, size: int, path: Path, mend: str) -> Header:
    """The header of a whole .npy file of numbers; size: bytes of the file; path and mend: for errors, which are DataFaults."""
    if not size:
        raise DataFault(path, "empty file", mend)
    try:
        version = npy.read_magic(stream)
    except ValueError as error:
        raise DataFault(path, "not an .npy file", mend) from error
    try:
        told = stream.read(2 if version == (1, 0) else 4)  # the bytes that follow
        shape, fortran, dtype = _declared(version, told + stream.read(int.from_bytes(told, "little")))
    except Exception as error:  # numpy lets through whatever its header parser stumbles over
        raise DataFault(path, "its .npy header is broken or cut short", mend) from error
    if dtype.hasobject:
        raise DataFault(path, "an object array, which is never unpickled", mend)
    if dtype.kind not in "fiu":
        raise DataFault(path, f"numbers of type {dtype} are no motion", mend)
    header = Header(shape, "F" if fortran else "C", dtype, stream.tell())
    if size < (whole := header.offset + math.prod(shape) * dtype.itemsize):
        raise DataFault(path, f"cut short: {size} bytes of {whole}", "copy or unpack it again, or leave it out")
    return header


@lru_cache(maxsize=4096)
def _declared(version: tuple[int, int], header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and type; files of one shape have one header, and it is slow to parse."""
    # version 3 differs from 2 only in the encoding of field names, which no motion has
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0, (3, 0): npy.read_array_header_2_0}[version]
    return read(io.BytesIO(header))


def values(data: bytes, header: Header) -> np.ndarray:
    """The numbers in the bytes of the file with this header, read-only."""
    return np.frombuffer(data, header.dtype, math.prod(header.shape), header.offset).reshape(header.shape, order=header.order)
