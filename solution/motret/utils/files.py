"""Files and folders: written whole or not at all, read without unpickling, and hashed."""

import csv
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from motret.errors import DataError
from motret.utils import reading


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


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file beside `path`, and renames it to `path` when it is whole.

    After an error `path` is as it was. Missing folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp_path = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        write(tmp_path)
        tmp_path.replace(path)
    finally:
        tmp_path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes text as UTF-8, its line ends as they are."""
    atomic_write(path, lambda tmp_path: tmp_path.write_text(text, encoding="utf-8", newline=""))


def write_json(path: Path, content: object) -> None:
    """Writes indented JSON; what JSON has no form for becomes its `str()`."""
    write_text(path, json.dumps(content, indent=1, default=str) + "\n")


def write_csv(
    path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None
) -> None:
    """Writes a CSV file with a header. columns: by default those of the first row."""
    table = io.StringIO()
    writer = csv.DictWriter(table, columns or list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, table.getvalue())


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
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as tmp_dir:
        new, old = Path(tmp_dir) / "new", Path(tmp_dir) / "old"
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
