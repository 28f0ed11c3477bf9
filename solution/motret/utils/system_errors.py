"""What the system refuses, as errors in one line: no space, no permission, no memory."""

import errno
import os
import re
import shutil
from pathlib import Path

from motret.errors import ConfigError, DataError, MotretError, WriteError, first_line

KEPT = "finished work is kept, and the same command goes on"
_ELSEWHERE = "or give another folder with --work_dir, --folds_dir, --out_dir or --submissions_dir"
WRITE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Errors that only writing meets."""
_OPEN_FILES = frozenset({errno.EMFILE, errno.ENFILE})
_OF_RUST = re.compile(r"\(os error (\d+)\)$")
"""How an error of the system ends in the words of a library that is written in Rust."""
_MEMORY_PHRASES = (
    "can't allocate memory",
    "cannot allocate memory",
    "failed to map segment",
    "out of memory",
    "can't start new thread",
    "unable to allocate",
)
"""In lower case, what libraries say where memory or threads are refused."""


def write_error(path: str | Path, error: OSError) -> WriteError:
    """The error of a file or folder that cannot be written, with the space that is left.

    path: a `Path`, or words for a file whose name nobody knows.
    """
    reason = error.strerror or first_line(error)
    if error.errno == errno.ENOSPC:
        problem = f"no space is left on its disk{_free_space(path)}"
        fix = f"free some there, such as runs that you no longer need, {_ELSEWHERE}; {KEPT}"
    elif error.errno == errno.EDQUOT:
        problem = "your quota on its disk is used up"
        fix = f"delete what you no longer need there, {_ELSEWHERE}; {KEPT}"
    elif error.errno == errno.EFBIG:
        problem = "would be larger than files may be here"
        fix = f"raise the limit (`ulimit -f`), {_ELSEWHERE}; {KEPT}"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        problem = f"cannot be written ({reason})"
        fix = f"make its folder writable, {_ELSEWHERE}; {KEPT}"
    else:
        problem = f"cannot be written ({reason})"
        fix = f"check the disk, {_ELSEWHERE}; {KEPT}"
    return WriteError(path, problem, fix)


def raise_hidden_write_error(path: Path, error: BaseException) -> None:
    """Raises the OSError of a write that was refused, where a library hides it in an error of its
    own.

    path: of what it wrote, for the OSError.
    """
    match = _OF_RUST.search(str(error))
    if match and not isinstance(error, OSError | MotretError) and int(match[1]) in WRITE_ERRNOS:
        raise OSError(int(match[1]), os.strerror(int(match[1])), str(path)) from error


def describe_system_error(error: BaseException) -> MotretError | None:
    """The error in one line of what the system refused; None for an error of the program.

    Such errors come from anywhere: writers and readers name their files themselves.
    """
    if isinstance(error, MemoryError) or _lacks_memory(error):
        return ConfigError(
            "memory",
            f"there is not enough of it ({first_line(error)})",
            "raise the limit (`ulimit -v`) or close other programs; to need less: a smaller "
            f"--batch_size with --grad_accum, or lower --fold_jobs and --jobs; {KEPT}",
        )
    if not isinstance(error, OSError) or error.errno is None:
        return None
    name: str | Path = "standard output or a temporary file"
    if error.filename is not None:
        name = Path(os.fsdecode(error.filename))
    if error.errno in _OPEN_FILES:
        fix = f"raise the limit (`ulimit -n`), or lower --jobs and --fold_jobs; {KEPT}"
        return ConfigError(name, "too many files are open", fix)
    if error.errno in WRITE_ERRNOS:
        return write_error(name, error)
    problem = f"cannot be used ({error.strerror or first_line(error)})"
    return DataError(name, problem, f"--debug shows where; {KEPT}")


def _lacks_memory(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EAGAIN):
        return True
    if not isinstance(error, ImportError | RuntimeError | OSError):
        return False
    text = str(error).lower()
    return any(phrase in text for phrase in _MEMORY_PHRASES)


def _free_space(path: str | Path) -> str:
    if not isinstance(path, Path):
        return ""
    folder = next((parent for parent in path.absolute().parents if parent.is_dir()), None)
    if folder is None:
        return ""
    free = shutil.disk_usage(folder).free
    return f": {free / 1e6:.1f} MB are free, and it takes more"
