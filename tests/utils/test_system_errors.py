"""What the system refuses is one line: the file, what is lacking, what to do."""

import errno
import os
from pathlib import Path

import pytest

from motret.errors import WriteError
from motret.utils.system_errors import describe_system_error, write_error


@pytest.mark.parametrize(
    ("number", "problem", "fix"),
    [
        (errno.ENOSPC, r"no space is left on its disk: ", "free some there"),
        (errno.EDQUOT, "your quota on its disk is used up", "delete what you no longer need"),
        (errno.EFBIG, "would be larger than files may be here", "ulimit -f"),
        (errno.EROFS, "cannot be written (Read-only file system)", "make its folder writable"),
        (errno.EACCES, "cannot be written (Permission denied)", "make its folder writable"),
        (errno.EIO, "cannot be written (Input/output error)", "check the disk"),
    ],
)
def test_a_write_that_is_refused(number: int, problem: str, fix: str, tmp_path: Path) -> None:
    error = write_error(tmp_path / "a.npz", OSError(number, os.strerror(number)))
    assert error.problem.startswith(problem) and fix in error.fix
    assert "finished work is kept, and the same command goes on" in error.fix
    assert "\n" not in str(error) and str(error).startswith(f"{tmp_path / 'a.npz'}: ")


def test_the_space_that_is_left_is_told(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    assert "MB are free, and it takes more" in write_error(tmp_path / "new" / "a", error).problem
    described = describe_system_error(error)  # of print, whose file has no name
    assert isinstance(described, WriteError)
    assert str(described).startswith("standard output or a temporary file: no space is left on its")
    assert "MB are free" not in str(described)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "memory: there is not enough of it (MemoryError)"),
        (ImportError("a.so: failed to map segment from shared object"), "memory: there is not"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "memory: "),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "memory: there is not"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory: there is not enough of it"),
        (OSError(errno.EMFILE, "Too many open files", "a.npy"), "a.npy: too many files are open"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: cannot be used (Permission"),
        (OSError(errno.EROFS, "Read-only file system", "a"), "a: cannot be written (Read-only"),
    ],
)
def test_what_the_system_refuses_anywhere(error: Exception, words: str) -> None:
    described = describe_system_error(error)
    assert described is not None and str(described).startswith(words)
    assert "\n" not in str(described)


@pytest.mark.parametrize(
    "error",
    [ValueError("out of memory"), RuntimeError("a bug"), ImportError("no module"), OSError("x")],
)
def test_an_error_of_the_program_is_none_of_the_systems(error: Exception) -> None:
    assert describe_system_error(error) is None
