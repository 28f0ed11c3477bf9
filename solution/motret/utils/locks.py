"""Locks of the system, which it takes from a process that ends."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from motret.errors import WriteError
from motret.utils import files

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


def try_lock(file: IO[bytes]) -> bool | None:
    """Locks a file until it is closed, unless another process has; None where there are no
    locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


@contextmanager
def single_writer(path: Path) -> Iterator[None]:
    """Holds the lock of a file, which is made. WriteError at once where another process has it.

    Where the system has no locks nothing is held: what is written must notice other writers itself.
    """
    with files.named_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("ab", buffering=0)
    with stream:
        if try_lock(stream) is False:
            problem = "another process is writing to this folder"
            raise WriteError(path.parent, problem, "wait until it has ended")
        yield
