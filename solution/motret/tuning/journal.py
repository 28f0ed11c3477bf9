"""The journal that keeps a study: a line for each change, whole or not at all.

It is locked by the system while a line is added, so a killed process leaves no lock behind. What a
full disk or a crash left of a line is set aside before the next one is added.
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from motret.errors import RunError, warn
from motret.utils import files, locks

logger = logging.getLogger(__name__)

GRACE_SECONDS = 8
"""Where the system has no locks, a file stands for one; after so long it is that of a killed
process."""
NOTE_SECONDS = 1
"""It is said what is waited for once that takes longer."""


class Journal(JournalFileBackend):
    """Optuna's journal file, with a lock and an end that survive a kill and a full disk."""

    def __init__(self, path: Path):
        self.path = path
        with files.named_write_errors(path):
            super().__init__(str(path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds changes. WriteError where the system refuses them; the journal is as before then."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with files.named_write_errors(self.path), _locked(self.path) as file:
            _set_broken_end_aside(self.path, file)
            size = file.seek(0, os.SEEK_END)
            try:
                _write_whole(file, lines.encode())
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(size)
                raise


def repair_journal(path: Path) -> None:
    """Sets aside what crashes left of lines: at the end, and before lines that were added to it.

    A change that was not written whole never happened for the process that wrote it. RunError for
    any other line that cannot be read.
    """
    with files.named_write_errors(path), _locked(path) as file:
        _set_broken_end_aside(path, file)
        file.seek(0)
        lines = file.readall().splitlines(keepends=True)
        starts = [_start_of_change(line) for line in lines]
        if all(start == 0 for start in starts):
            return
        if None in starts:
            problem = f"line {starts.index(None) + 1} cannot be read"
            raise RunError(path, problem, "move it away: a new search begins")
        broken = [line[:start] for line, start in zip(lines, starts, strict=True) if start]
        _set_aside(path, b"\n".join(broken))
        whole = b"".join(line[start:] for line, start in zip(lines, starts, strict=True))
        files.atomic_write(path, lambda tmp_path: tmp_path.write_bytes(whole))


def _start_of_change(line: bytes) -> int | None:
    """Where the whole change at the end of a line starts; None where there is none."""
    start = line.find(b"{")
    while start >= 0:
        with contextlib.suppress(ValueError):
            if "op_code" in json.loads(line[start:]):
                return start
        start = line.find(b"{", start + 1)
    return None


def _set_broken_end_aside(path: Path, file: IO[bytes]) -> None:
    """Cuts off what stands after the last whole line, and keeps it in another file."""
    if _ends_whole(file):
        return
    file.seek(0)
    content = file.read()
    end = content.rfind(b"\n") + 1
    _set_aside(path, content[end:])
    file.truncate(end)


def _ends_whole(file: IO[bytes]) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _set_aside(path: Path, content: bytes) -> None:
    aside = path.with_name(f"{path.name}.broken")
    with aside.open("ab") as file:
        file.write(content + b"\n")
    warn(
        path,
        f"a change was not written whole; what there is of it is set aside in {aside.name}",
        "nothing is to be done, the search goes on without it",
    )


def _write_whole(file: IO[bytes], content: bytes) -> None:
    """Writes to an unbuffered file, which may take a part at a time."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


# ---- the lock


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[Any]:
    """The journal, open and locked against all other processes.

    The lock is the system's, which it takes from a process that ends. It waits for as long as a
    living process writes, and says so.
    """
    start, noted = time.monotonic(), False
    while True:
        with path.open("r+b", buffering=0) as file:
            locked = locks.try_lock(file)
            if locked is None:
                with _locked_by_file(path):
                    yield file
                return
            # it may have been replaced since it was opened (`repair_journal`)
            if locked and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                yield file
                return
        if not noted and time.monotonic() - start > NOTE_SECONDS:
            noted = True
            logger.info(f"{path}: waiting for another process, which is writing to it")
        time.sleep(0.01)


@contextlib.contextmanager
def _locked_by_file(path: Path) -> Iterator[None]:
    """Locks by Optuna's link beside the journal, which a killed process leaves behind."""
    link, start = path.with_name(f"{path.name}.lock"), time.monotonic()
    while link.is_symlink() and time.monotonic() - start < NOTE_SECONDS:
        time.sleep(0.01)
    if link.is_symlink():
        logger.info(f"{path}: waiting up to {GRACE_SECONDS} s for the process that made {link}")
    lock = JournalFileSymlinkLock(str(path), grace_period=GRACE_SECONDS)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
