"""Files and folders written whole or not at all, and short hashes of content."""

import csv
import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from motret.errors import DataError


def content_hash(*parts: object) -> str:
    """Short content hash of anything JSON can write; stable over runs and machines."""
    return hashlib.blake2b(json.dumps(parts, default=str).encode(), digest_size=8).hexdigest()


def format_duration(seconds: float) -> str:
    """A time span for people: 42 s, 7 min 30 s, 3.5 h."""
    whole = round(seconds)
    if whole < 90:
        return f"{seconds:.0f} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 5400 else f"{seconds / 3600:.1f} h"


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file beside `path` and renames it to `path` when it is whole.

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
    """Writes UTF-8 text as it is, whole or not at all."""
    atomic_write(path, lambda tmp_path: tmp_path.write_text(text, encoding="utf-8", newline=""))


def write_json(path: Path, content: object) -> None:
    """Writes indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=1, default=str) + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> None:
    """Writes a CSV file with a header, whole or not at all. columns: by default those of the first row."""
    table = io.StringIO()
    writer = csv.DictWriter(table, columns or list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, table.getvalue())


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, uncompressed, whole or not at all. path: ends in .npz."""
    atomic_write(path, lambda tmp_path: np.savez(tmp_path, **arrays))


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name; objects are never unpickled.

    OSError where the file cannot be opened, ValueError where it is no whole .npz file of plain arrays.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("a single array, not an .npz file")
        with archive:
            return {name: archive[name] for name in archive.files}
    except (EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"not a whole .npz file: {error}") from error


def read_json(path: Path) -> Any:
    """What a JSON file of ours holds; None where there is none, or half of one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def is_writable(folder: Path) -> bool:
    """Whether a file can be made in a folder, or in the nearest folder above that is there; found out by making one."""
    there = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return True
    except OSError:
        return False


def link_or_copy(source: Path, target: Path) -> None:
    """Puts a file under another name too; a copy where the disk has no links."""
    try:
        target.symlink_to(source.resolve())  # a hard link would change the times of the source, and so its cache key
    except OSError:
        shutil.copy(source, target)


@contextmanager
def atomic_dir(out: Path, marker: str) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `out` at the end; after an error `out` is as it was.

    An `out` that is empty or has the file `marker`, which says that we made it, is replaced; any other is a DataError.
    """
    place = out.resolve()
    if place.exists() and not (place / marker).is_file() and not (place.is_dir() and not any(place.iterdir())):
        raise DataError(out, "holds something that this script did not make", "give another --out, or move it away")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as around:
        fresh, old = Path(around) / "fresh", Path(around) / "old"
        fresh.mkdir()
        yield fresh
        if place.exists():
            place.rename(old)
        try:
            fresh.rename(place)
        except OSError:
            if old.exists():
                shutil.move(old, place)
            raise


def file_signature(path: Path) -> tuple[int, int, int, int]:
    """Size, times and inode of a file: all the same means that nobody wrote to it."""
    try:
        about = path.stat()
    except OSError as gone:
        raise DataError(path, f"cannot be read: {gone.strerror}", "check that it is there and readable") from gone
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino
