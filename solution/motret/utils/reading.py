"""Every file that is read passes here: opened, measured, decoded and parsed.

Only regular files are opened, so that nothing waits for a named pipe or a device; a file is
measured before it is read; nothing in a file is ever run. Whatever goes wrong is one error of the
project that names the file, of the class that the caller asks for.
"""

import errno
import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.lib import format as npy

from motret.errors import DataError, MachineError, MotretError, first_line

READABLE_FIX = "check that it is there and readable"
MAX_TABLE_BYTES = 64_000_000
"""Size of a text file at most: lists, CSV and settings. It holds millions of ids."""
MAX_JSON_BYTES = 256_000_000
"""Size of a JSON file with texts at most."""
MAX_ARRAY_BYTES = 4_000_000_000
"""Size of an array file, unpacked, at most."""
MAX_TENSOR_BYTES = 100_000_000_000
"""Size of a file of weights at most."""
MAX_REASON = 200
"""Characters of a library's message that an error quotes."""
MAX_NPY_HEADER = 10_000
"""Bytes of an .npy header at most, as in NumPy."""

_MACHINE_ERRNOS = frozenset(
    getattr(errno, name, None)
    for name in ("EIO", "ESTALE", "ETIMEDOUT", "EMFILE", "ENFILE", "ENOMEM", "EAGAIN", "EINTR")
)
"""Errors of a disk, a network or a system at its limits."""
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


@contextmanager
def boundary(
    path: Path | str,
    problem: str,
    fix: str,
    error: type[MotretError] = DataError,
    passing: tuple[type[Exception], ...] = (),
    describe: Callable[[Exception], str] | None = None,
) -> Iterator[None]:
    """Turns whatever goes wrong inside into one error that names the file or the flag.

    Inside stands only what may raise anything: readers of foreign bytes, a class of one's own, the
    driver of a database. problem: what the file is then said to be; the reason follows in brackets.
    passing: errors that stay as they are, as those of the project do; describe: gives the reason.
    """
    try:
        yield
    except MotretError:
        raise
    except MemoryError as cause:
        raise error(path, f"{problem} (it asks for more memory than there is)", fix) from cause
    except Exception as cause:
        if isinstance(cause, passing):
            raise
        if _is_of_the_machine(cause):
            raise unreadable_error(Path(path), cause) from cause
        raise error(path, f"{problem} ({(describe or _reason)(cause)})", fix) from cause


def _is_of_the_machine(cause: Exception) -> bool:
    """Whether an error says nothing about the file: another time it is read."""
    return isinstance(cause, OSError) and cause.errno in _MACHINE_ERRNOS


def _reason(cause: Exception) -> str:
    if isinstance(cause, RecursionError):
        return "nested too deeply"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    reason = first_line(cause)
    if " " not in reason:  # as of a KeyError: it says nothing without the error's name
        reason = f"{type(cause).__name__} {reason}"
    return reason[:MAX_REASON]


# ---- what stands at a path


def kind_of(path: Path, error: type[MotretError] = DataError) -> str:
    """What is at a path: "missing", "file", "folder".

    What is there but cannot be used is an error and never taken for missing: a link that leads
    nowhere or to itself, a folder that may not be entered, a named pipe.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as cause:
        if isinstance(cause, FileNotFoundError | NotADirectoryError) and not exists(path):
            return "missing"
        raise unreadable_error(path, cause, error) from cause
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return "file" if stat.S_ISREG(mode) else "folder"
    raise _irregular_error(path, mode, error)


def exists(path: Path) -> bool:
    """Whether anything is at a path, whatever it is, and be it a link that leads nowhere."""
    return os.path.lexists(path)


def is_file(path: Path, error: type[MotretError] = DataError) -> bool:
    """Whether a regular file is at a path; errors as in `kind_of`."""
    return kind_of(path, error) == "file"


def is_folder(path: Path, error: type[MotretError] = DataError) -> bool:
    """Whether a folder is at a path; errors as in `kind_of`."""
    return kind_of(path, error) == "folder"


def list_folder(path: Path, error: type[MotretError] = DataError) -> list[Path]:
    """What a folder holds, sorted by name."""
    try:
        return sorted(path.iterdir())
    except OSError as cause:
        raise unreadable_error(path, cause, error) from cause


def check_inside(path: Path, folder: Path, error: type[MotretError] = DataError) -> None:
    """An error where a file is a link that leads out of `folder`, and out of its own folder.

    Its own folder counts as well, since that may be a link that a person made.
    """
    if not path.is_symlink():
        return
    target = Path(os.path.realpath(path))
    homes = (Path(os.path.realpath(folder)), Path(os.path.realpath(path.parent)))
    if not any(target.is_relative_to(home) for home in homes):
        problem = f"is a link out of the data folder, to {target}"
        raise error(path, problem, "put the file there, or give --follow_links")


def check_output(path: Path, folder: Path, error: type[MotretError] = DataError) -> None:
    """An error where what is to be written inside `folder` would lie outside, by way of a link."""
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(os.path.realpath(folder)):
        problem = f"is a link out of its folder, to {target}, and nothing is written through it"
        raise error(path, problem, "remove the link")


def is_inner_path(path: str) -> bool:
    """Whether a path that a file names leads to something in the folder of that file."""
    is_absolute = PurePosixPath(path).is_absolute() or PureWindowsPath(path).anchor != ""
    return not is_absolute and ".." not in PurePosixPath(path.replace("\\", "/")).parts


def unreadable_error(
    path: Path, cause: Exception, error: type[MotretError] = DataError
) -> MotretError:
    """The error of a file that the system does not let us read; a MachineError where it says
    nothing about the file."""
    reason = (cause.strerror if isinstance(cause, OSError) else None) or first_line(cause)
    if _is_of_the_machine(cause):
        fix = "this is no fault of the file: run the same command again, and check the disk"
        return MachineError(path, f"cannot be read: {reason}", fix)
    return error(path, f"cannot be read: {reason}", READABLE_FIX)


def _irregular_error(path: Path, mode: int, error: type[MotretError]) -> MotretError:
    kind = _KINDS.get(stat.S_IFMT(mode), "something else")
    return error(path, f"is {kind}, not a file", "put a file there, or remove it")


# ---- opening and measuring


@contextmanager
def open_file(
    path: Path, max_bytes: int = MAX_ARRAY_BYTES, error: type[MotretError] = DataError
) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file, open for reading, and its size in bytes; larger than `max_bytes` is an error.

    Errors of the system inside name the file too.
    """
    try:
        with open(path, "rb", buffering=0, opener=_open_without_waiting) as stream:
            yield stream, _checked_size(path, stream.fileno(), max_bytes, error)
    except (OSError, ValueError) as cause:
        raise unreadable_error(path, cause, error) from cause


_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""How files are opened: without waiting for the other end of a pipe."""


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | _FLAGS)


def _checked_size(path: Path, descriptor: int, max_bytes: int, error: type[MotretError]) -> int:
    """Bytes of an open file; an error where it is no regular file, or larger than that."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise _irregular_error(path, status.st_mode, error)
    if status.st_size > max_bytes:
        raise _too_large_error(path, status.st_size, max_bytes, error)
    return status.st_size


def _too_large_error(
    path: Path, size: int, max_bytes: int, error: type[MotretError]
) -> MotretError:
    problem = f"has {size / 1e6:,.1f} MB, and at most {max_bytes / 1e6:,.1f} MB of it are read"
    return error(path, problem, "check that it is the right file")


def read_bytes(
    path: Path, max_bytes: int = MAX_ARRAY_BYTES, error: type[MotretError] = DataError
) -> bytes:
    """The whole file."""
    try:
        descriptor = os.open(path, _FLAGS)
        try:
            size = _checked_size(path, descriptor, max_bytes, error)
            content = os.read(descriptor, size)
            while len(content) < size and (more := os.read(descriptor, size - len(content))):
                content += more
            return content
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as cause:
        raise unreadable_error(path, cause, error) from cause


# ---- text


def read_text(
    path: Path, max_bytes: int = MAX_TABLE_BYTES, error: type[MotretError] = DataError
) -> str:
    """The file's UTF-8 text without a byte order mark."""
    return decode_text(read_bytes(path, max_bytes, error), path, error).removeprefix("\ufeff")


def decode_text(content: bytes, path: Path, error: type[MotretError] = DataError) -> str:
    """UTF-8 as text, as it is; path: of the file, for errors."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise error(path, f"not UTF-8 at byte {cause.start}", "save it as UTF-8") from cause
    if "\0" in text:
        problem = f"a NUL at byte {content.index(0)}, so it is no text"
        raise error(path, problem, "save it as UTF-8")
    return text


def read_json(
    path: Path,
    fix: str = "restore it from where it came",
    error: type[MotretError] = DataError,
    max_bytes: int = MAX_TABLE_BYTES,
) -> Any:
    """The content of a JSON file."""
    text = read_text(path, max_bytes, error)
    with boundary(path, "not JSON", fix, error):
        return json.loads(text)


def read_json_object(
    path: Path, fix: str = "restore it from where it came", error: type[MotretError] = DataError
) -> dict[str, Any]:
    """The object that a JSON file holds."""
    content = read_json(path, fix, error)
    if not isinstance(content, dict):
        raise error(path, "holds no JSON object", fix)
    return content


def quiet_json(path: Path) -> Any:
    """The content of a JSON file; None where it is missing or broken. For caches alone."""
    try:
        return read_json(path)
    except MotretError:
        return None


# ---- arrays


class NpyHeader(NamedTuple):
    """The header of an .npy file; offset: of its first number, in bytes."""

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype
    offset: int

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def read_npy_header(
    stream: BinaryIO, path: Path, fix: str, error: type[MotretError] = DataError
) -> NpyHeader:
    """The header at the beginning of a stream; path, fix: for errors. No object is unpickled."""
    start = stream.tell()
    magic = _read_exactly(stream, npy.MAGIC_LEN)
    if magic[:-2] != npy.MAGIC_PREFIX or len(magic) < npy.MAGIC_LEN:
        raise error(path, "not an .npy file", fix)
    with boundary(path, "its .npy header is broken or cut short", fix, error):
        version = (magic[-2], magic[-1])
        header_size = _read_exactly(stream, 2 if version == (1, 0) else 4)
        length = int.from_bytes(header_size, "little")
        if length > MAX_NPY_HEADER:
            raise ValueError(f"a header of {length} bytes")
        header = header_size + _read_exactly(stream, length)
        shape, fortran, dtype = _parse_npy_header(version, header)
    if dtype.hasobject:
        raise error(path, "an object array, which is never unpickled", fix)
    return NpyHeader(shape, "F" if fortran else "C", dtype, stream.tell() - start)


@lru_cache(maxsize=4096)
def _parse_npy_header(
    version: tuple[int, int], header: bytes
) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and type; cached, as files of one shape share a header."""
    # version 3 differs from 2 only in the encoding of field names, which no motion has
    parse = {
        (1, 0): npy.read_array_header_1_0,
        (2, 0): npy.read_array_header_2_0,
        (3, 0): npy.read_array_header_2_0,
    }[version]
    shape, fortran, dtype = parse(io.BytesIO(header))
    if any(isinstance(length, bool) or length < 0 for length in shape):
        raise ValueError(f"an array of shape {shape}")
    return shape, fortran, dtype


def _read_exactly(stream: BinaryIO, count: int) -> bytes:
    """So many bytes of a stream, fewer at its end."""
    content = b""
    while len(content) < count and (more := stream.read(count - len(content))):
        content += more
    return content


def read_npz(
    path: Path,
    fix: str,
    error: type[MotretError] = DataError,
    max_bytes: int = MAX_ARRAY_BYTES,
) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name; objects are never unpickled.

    The sizes that its headers state are added up before anything is unpacked: more than `max_bytes`
    is an error.
    """
    with (
        open_file(path, MAX_ARRAY_BYTES, error) as (stream, _),
        boundary(path, "is no whole .npz file", fix, error),
        io.BufferedReader(stream) as buffered,  # type: ignore[type-var]
        zipfile.ZipFile(buffered) as archive,
    ):
        check_unpacked_size(path, archive, max_bytes, error)
        for entry in archive.infolist():
            with archive.open(entry) as member:
                header = read_npy_header(member, path, fix, error)  # type: ignore[arg-type]
            if header.size != entry.file_size:
                raise ValueError(f"{entry.filename} has {entry.file_size} bytes of {header.size}")
        buffered.seek(0)
        with np.load(buffered, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}


def check_unpacked_size(
    path: Path, archive: zipfile.ZipFile, max_bytes: int, error: type[MotretError] = DataError
) -> None:
    """An error where a ZIP file states that it is larger than this when it is unpacked."""
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > max_bytes:
        raise _too_large_error(path, unpacked, max_bytes, error)


def array_of(
    arrays: Mapping[str, np.ndarray], name: str, kinds: str, ndim: int | None = None
) -> np.ndarray:
    """An array by name; ValueError where it is missing or of another form, for a `boundary`.

    kinds: letters of `dtype.kind` that it may have.
    """
    if name not in arrays:
        raise ValueError(f"no array {name}")
    array = arrays[name]
    if array.dtype.kind not in kinds or (ndim is not None and array.ndim != ndim):
        raise ValueError(f"{name} is {array.dtype} {array.shape}")
    return array
