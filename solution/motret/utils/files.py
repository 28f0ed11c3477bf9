"""Files and folders: written whole or not at all, read without unpickling, and hashed."""

import csv
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from motret.errors import DataError, WriteError
from motret.utils import reading
from motret.utils.on_error import OnError
from motret.utils.process_tokens import TOKEN, has_ended, is_of_this_host, process_token
from motret.utils.system_errors import WRITE_ERRNOS, raise_hidden_write_error, write_error

TMP_MARK = ".tmp-"
"""Stands before the token of the process in the name of a temporary file."""
FOREIGN_SECONDS = 24 * 3600
"""After so long without a change, what a process of another host left is that of a killed one."""
_looked_through: set[tuple[int, Path]] = set()
"""Process and folder in which leftovers have been looked for."""


def content_hash(*content: object) -> str:
    """Short hash of anything that JSON can write; the same on every run and machine."""
    text = json.dumps(content, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def file_signature(path: Path) -> tuple[int, int, int, int]:
    """Size, times and inode of a file; they change when anybody writes to it."""
    try:
        stat = path.stat()
    except OSError as error:
        raise reading.unreadable_error(path, error) from error
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def format_duration(seconds: float) -> str:
    """A time span for people: 42 s, 7 min 30 s, 3.5 h."""
    whole = round(seconds)
    if whole < 90:
        return f"{seconds:.0f} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 5400 else f"{seconds / 3600:.1f} h"


# ---- reading


def read_json(path: Path) -> Any:
    """The content of a JSON file that this program wrote; None where it is missing or broken."""
    return reading.quiet_json(path)


# ---- writing, whole or not at all


@contextmanager
def named_write_errors(path: Path) -> Iterator[None]:
    """Within it, only `path` is written: an OSError becomes a WriteError that names it."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


def make_dir(folder: Path) -> None:
    """Makes a folder and those above it where they are missing. WriteError where it cannot."""
    with named_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


def flush_to_disk(path: Path) -> None:
    """Waits until the disk has a file, which a power failure then leaves whole."""
    with named_write_errors(path), path.open("rb+") as stream:
        os.fsync(stream.fileno())


def atomic_write(path: Path, write: Callable[[Path], object], flush: bool = True) -> None:
    """Lets `write` fill a temporary file beside `path`, and renames it to `path` when it is whole
    and on the disk.

    flush: False does not wait for the disk, for files that are written again and again.

    After an error `path` is as it was; WriteError where the system refuses it. Missing folders are
    made. Temporary files that killed processes left in the folder are removed.
    """
    with named_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        tmp_path = path.with_name(f"{temporary_name(path.name)}{path.suffix}")
        try:
            write(tmp_path)
            if flush:
                flush_to_disk(tmp_path)
            tmp_path.replace(path)
        finally:
            tmp_path.unlink(missing_ok=True)


class _Stream:
    """An open file that keeps the error of a write, for writers that report another instead."""

    def __init__(self, stream: IO[bytes]):
        self.stream = stream
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return self.stream.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.stream.flush()


def write_stream(path: Path, write: Callable[[Any], object]) -> None:
    """Lets `write` fill an open file; else as `atomic_write`, which does not wait for the disk. For
    torch.save, which hides the error of the file behind one of its own."""

    def fill(tmp_path: Path) -> None:
        with tmp_path.open("wb") as file:
            stream = _Stream(file)
            try:
                write(stream)
            except RuntimeError as error:
                raise stream.error or error from error

    atomic_write(path, fill, flush=False)


def write_text(path: Path, text: str, flush: bool = True) -> None:
    """Writes text as UTF-8, its line ends as they are. flush: see `atomic_write`."""

    def fill(tmp_path: Path) -> None:
        tmp_path.write_text(text, encoding="utf-8", newline="")

    atomic_write(path, fill, flush)


def write_json(path: Path, content: object) -> None:
    """Writes indented JSON; what JSON has no form for becomes its `str()`."""
    write_text(path, json.dumps(content, indent=1, default=str) + "\n")


def write_csv(
    path: Path,
    rows: Sequence[Mapping[str, object]],
    columns: Sequence[str] | None = None,
    flush: bool = True,
) -> None:
    """Writes a CSV file with a header. columns: by default those of the first row; flush: see
    `atomic_write`."""
    table = io.StringIO()
    writer = csv.DictWriter(table, columns or list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, table.getvalue(), flush)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, uncompressed. path: must end in .npz."""
    # numpy's stub takes any keyword for its `allow_pickle`
    atomic_write(path, lambda tmp_path: np.savez(tmp_path, **arrays))  # type: ignore[arg-type]


@contextmanager
def atomic_dir(out: Path, marker: str) -> Iterator[Path]:
    """A new folder to fill, which replaces `out` at the end; after an error `out` is as it was.

    marker: a file that shows that this program made a folder. An `out` that is empty or has the
    marker is replaced, any other is a DataError.
    """
    target = out.resolve()
    is_ours = (target / marker).is_file() or (target.is_dir() and not any(target.iterdir()))
    if target.exists() and not is_ours:
        problem = "holds something that this script did not make"
        raise DataError(out, problem, "give another --out, or move it away")
    with new_dir(target.parent, target.name, out) as tmp_dir:
        new, old = tmp_dir / "new", tmp_dir / "old"
        new.mkdir()
        yield new
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if old.exists():
                shutil.move(old, target)
            raise


@contextmanager
def new_dir(parent: Path, name: str, path: Path) -> Iterator[Path]:
    """A temporary folder in `parent` in which something is made; it is gone afterwards.

    path: what is made, which a WriteError names. Missing folders are made. What killed processes
    left in `parent` is removed.
    """
    tmp_dir: Path | None = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(parent)
        tmp_dir = Path(tempfile.mkdtemp(prefix=f"{temporary_name(name)}.", dir=parent))
        with OnError(partial(raise_hidden_write_error, tmp_dir)):
            yield tmp_dir
    except WriteError as error:
        raise WriteError(
            _final_path(error.path, tmp_dir, path), error.problem, error.fix
        ) from error
    except OSError as error:
        within = tmp_dir is None or str(error.filename).startswith(str(tmp_dir))
        if within or error.errno is None or error.errno in WRITE_ERRNOS:
            raise write_error(_final_path(error.filename, tmp_dir, path), error) from error
        raise
    finally:
        if tmp_dir is not None:
            shutil.rmtree(tmp_dir, ignore_errors=True)


def _final_path(name: str | None, tmp_dir: Path | None, path: Path) -> str | Path:
    """What a file in a temporary folder would be called in `path`, which is made there; a file
    elsewhere keeps its name."""
    if name is None or tmp_dir is None:
        return path
    file = Path(name)
    if not file.is_relative_to(tmp_dir):
        return file
    return path.joinpath(*file.relative_to(tmp_dir).parts[1:])


def temporary_name(name: str) -> str:
    """The name of a temporary file or folder of this process, which is removed if it is killed."""
    return f".{name}{TMP_MARK}{process_token()}"


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files and folders in a folder that processes left when they were
    killed: of this host those that have ended, of others what has not changed for a day. Looks once
    in a process."""
    if (os.getpid(), folder) in _looked_through:
        return
    _looked_through.add((os.getpid(), folder))
    for path in folder.glob(f".*{TMP_MARK}*"):
        token = TOKEN.match(path.name.rpartition(TMP_MARK)[2])
        if token is None:
            continue
        is_ours = is_of_this_host(token[0])
        if not (has_ended(token[0]) if is_ours else _is_forgotten(path)):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):  # another user's
                path.unlink()


def _is_forgotten(path: Path) -> bool:
    """Whether nothing in a temporary file or folder has changed for a day."""
    try:
        changed = [each.lstat().st_mtime for each in (path, *path.rglob("*"))]
    except OSError:  # it is being made or removed
        return False
    return max(changed) < time.time() - FOREIGN_SECONDS


def link_or_copy(source: Path, target: Path) -> None:
    """Puts a file under another name too: as a symbolic link, or as a copy where there are none.

    A hard link would change a time of the source, and so its `file_signature`.
    """
    try:
        target.symlink_to(source.resolve())
    except OSError:
        shutil.copy(source, target)


def is_writable(folder: Path) -> bool:
    """Whether a file can be made in a folder, or in its nearest parent that exists; tries it."""
    nearest = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return True
    except OSError:
        return False
