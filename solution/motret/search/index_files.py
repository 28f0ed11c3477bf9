"""An index folder: vectors of motions in shards that never change, listed by one file that is
replaced whole.

index.json        the model, the form of the numbers, and the shards in order
shards/<name>/    vectors.npy (n, d) int8 or float16, scales.npy (n,) float32 of int8, and
                  ids.npy, files.npy (n,) names and motion files in UTF-8
ivfpq-<key>.faiss approximate index of the first motions, where one was built

A shard is renamed into its place when it is on the disk, and index.json is replaced after that. So
a reader sees an index that is whole, whenever a writer is at work or is killed, and goes on with
the shards it has opened. One process writes at a time.
"""

import hashlib
import mmap
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from motret.config.base import typed
from motret.errors import DataError, WriteError
from motret.utils import files, locks, reading

MANIFEST, SHARDS, LOCK = "index.json", "shards", "writer.lock"
VERSION = 1
SHARD_ROWS = 16_384
"""Motions of a shard at most; so many are lost where a build is killed."""
LARGEST = 127
"""Of an int8."""
BUILD_FIX = "build the index again: `python solution/index.py build FOLDER`"
Numbers = Literal["int8", "float16"]
_KINDS = {"vectors": 2, "scales": 1, "ids": 1, "files": 1}
"""Number of axes of each array of a shard."""


@dataclass(frozen=True)
class ShardEntry:
    """A shard in the list. folder: that the names of its motion files are relative to; digest: of
    all its arrays."""

    name: str
    rows: int
    folder: str
    digest: str


@dataclass(frozen=True)
class ApproximateEntry:
    """An approximate index of the first `rows` motions: its file, and the digest of that."""

    file: str
    rows: int
    digest: str


@dataclass(frozen=True)
class ModelIdentity:
    """The models that embedded the motions: the run, its folds (`fold0`, `full`), the digest of
    each one's checkpoint, and those of what the run was made from (`runs.provenance`)."""

    run: str
    folds: tuple[str, ...]
    checkpoints: tuple[str, ...]
    inputs: tuple[str, ...]

    def difference(self, other: "ModelIdentity") -> str:
        """What differs between two, in words; empty where nothing does."""
        if (self.run, self.folds) != (other.run, other.folds):
            return f"{self}, not {other}"
        if self.checkpoints != other.checkpoints:
            return f"{self} with other weights: it was trained again"
        if self.inputs != other.inputs:
            return f"{self} with another text tower or other features"
        return ""

    def __str__(self) -> str:
        return f"{self.run} ({', '.join(self.folds)})"


@dataclass(frozen=True)
class Manifest:
    """What index.json says. dim: of the vectors; model: whose vectors they are."""

    numbers: Numbers
    dim: int
    model: ModelIdentity
    shards: tuple[ShardEntry, ...] = ()
    approximate: ApproximateEntry | None = None

    @property
    def rows(self) -> int:
        """Number of motions."""
        return sum(shard.rows for shard in self.shards)


@dataclass(frozen=True)
class Shard:
    """An opened shard. vectors: (n, d) int8 or float16, memory-mapped; scales: (n,) that int8 is
    multiplied by, or None."""

    folder: Path
    entry: ShardEntry
    vectors: np.ndarray
    scales: np.ndarray | None

    def ids(self) -> np.ndarray:
        """(n,) names of the motions in UTF-8, memory-mapped."""
        return _map_array(self.folder / "ids.npy", self.entry.rows)

    def motion_files(self) -> np.ndarray:
        """(n,) motion files in UTF-8, relative to `entry.folder`, memory-mapped."""
        return _map_array(self.folder / "files.npy", self.entry.rows)

    def release(self) -> None:
        """Gives the memory of the vectors back, which the disk's cache still holds.

        So an index of any size is searched in the memory of a few shards.
        """
        memory_map = getattr(self.vectors, "_mmap", None)
        if memory_map is not None and hasattr(mmap, "MADV_DONTNEED"):
            memory_map.madvise(mmap.MADV_DONTNEED)

    def decode(self, rows: np.ndarray) -> np.ndarray:
        """(m, d) float32 vectors of some rows."""
        vectors = self.vectors[rows].astype(np.float32)
        return vectors if self.scales is None else vectors * self.scales[rows, None]


@dataclass(frozen=True)
class Index:
    """An index as it was when it was opened. starts: (S + 1,) first row of each shard, and the
    number of rows."""

    folder: Path
    manifest: Manifest
    shards: tuple[Shard, ...]
    starts: np.ndarray = field(repr=False)

    @property
    def rows(self) -> int:
        """Number of motions."""
        return int(self.starts[-1])

    def locate(self, rows: np.ndarray) -> Iterator[tuple[Shard, np.ndarray, np.ndarray]]:
        """The shards that some rows (m,) lie in: shard, positions among `rows`, rows within it."""
        shard_idx = np.searchsorted(self.starts, rows, side="right") - 1
        for index in np.unique(shard_idx):
            positions = np.flatnonzero(shard_idx == index)
            yield self.shards[index], positions, rows[positions] - self.starts[index]

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """(m, d) float32 vectors of some rows."""
        vectors = np.empty((len(rows), self.manifest.dim), np.float32)
        for shard, positions, within in self.locate(rows):
            vectors[positions] = shard.decode(within)
        return vectors

    def names(self, rows: np.ndarray) -> tuple[list[str], list[Path]]:
        """Ids and motion files of some rows."""
        ids, paths = [""] * len(rows), [Path()] * len(rows)
        for shard, positions, within in self.locate(rows):
            shard_ids, shard_files = shard.ids(), shard.motion_files()
            for position, row in zip(positions, within, strict=True):
                ids[position] = _text(shard_ids[row])
                paths[position] = Path(shard.entry.folder, _text(shard_files[row]))
        return ids, paths


def is_index(folder: Path) -> bool:
    """Whether a folder holds an index."""
    return reading.exists(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """The list of an index. DataError where there is none, or it cannot be read."""
    path = folder / MANIFEST
    if not reading.is_file(path):
        raise DataError(folder, f"is no index: it has no {MANIFEST}", BUILD_FIX)
    content = dict(reading.read_json_object(path, BUILD_FIX))
    with reading.boundary(path, "is no list of an index", BUILD_FIX):
        if content.pop("version", None) != VERSION:
            raise ValueError(f"not of version {VERSION}")
        model = {name: _as_tuple(value) for name, value in content["model"].items()}
        content["model"] = typed(ModelIdentity, model)
        content["shards"] = tuple(typed(ShardEntry, entry) for entry in content["shards"])
        if content["approximate"] is not None:
            content["approximate"] = typed(ApproximateEntry, content["approximate"])
        manifest = typed(Manifest, content)
        _check_manifest(manifest)
    return manifest


def open_index(folder: Path) -> Index:
    """Opens an index: its arrays stay on the disk until they are used.

    DataError where an array is missing or of another shape; their content is not read
    (`check_index`).
    """
    manifest = read_manifest(folder)
    shards = tuple(_open_shard(folder, entry, manifest) for entry in manifest.shards)
    starts = np.cumsum([0, *(entry.rows for entry in manifest.shards)])
    return Index(folder, manifest, shards, starts)


def check_index(index: Index) -> list[str]:
    """Reads every array of an index. DataError names the first that is not as it was written.

    Returns the names of what lies in the folder and is in no list, which a killed writer left.
    """
    for shard in index.shards:
        if _digest_of(sorted(shard.folder.glob("*.npy"))) != shard.entry.digest:
            problem = "its content is not what was written"
            raise DataError(shard.folder, problem, BUILD_FIX)
    approximate = index.manifest.approximate
    if approximate and _digest_of([index.folder / approximate.file]) != approximate.digest:
        fix = "build it again: `python solution/index.py build FOLDER --ann`"
        raise DataError(index.folder / approximate.file, "is not what was written", fix)
    return [path.name for path in _unlisted(index.folder, index.manifest)]


# ---- writing


class IndexWriter:
    """The one process that adds to an index; `manifest` is what it has written."""

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder, self.manifest = folder, manifest

    def append(
        self, ids: Sequence[str], names: Sequence[str], source: Path, vectors: np.ndarray
    ) -> None:
        """Adds motions. names: (n,) their files in `source`; vectors: (n, d) float32, finite.

        They are in the index when this returns; after an error or a kill none of them is.
        """
        for start in range(0, len(ids), SHARD_ROWS):
            rows = slice(start, start + SHARD_ROWS)
            self._append_shard(ids[rows], names[rows], source, vectors[rows])

    def replace_approximate(self, file: Path, key: str, rows: int) -> None:
        """Takes a file as the approximate index of the first rows. key: names it.

        The file of the list before stays until the next one is built: a reader may be about to open
        it.
        """
        entry = ApproximateEntry(f"ivfpq-{key}.faiss", rows, _digest_of([file]))
        files.flush_to_disk(file)
        file.replace(self.folder / entry.file)
        self._replace_manifest(replace(self.manifest, approximate=entry))

    def missing(self, ids: Sequence[str]) -> list[int]:
        """Positions of those ids that the index does not hold."""
        position_of = {_bytes(name): position for position, name in enumerate(ids)}
        for shard in open_index(self.folder).shards:
            for name in shard.ids().tolist():
                position_of.pop(name, None)
        return sorted(position_of.values())

    def _append_shard(
        self, ids: Sequence[str], names: Sequence[str], source: Path, vectors: np.ndarray
    ) -> None:
        arrays = encode(vectors, self.manifest.numbers)
        arrays |= {"ids": _as_bytes(ids), "files": _as_bytes(names)}
        shards = self.folder / SHARDS
        with files.new_dir(shards, "new", shards) as tmp_dir:
            folder = tmp_dir / "shard"
            folder.mkdir()
            for name, array in arrays.items():
                np.save(folder / f"{name}.npy", array)
                files.flush_to_disk(folder / f"{name}.npy")
            digest = _digest_of(sorted(folder.glob("*.npy")))
            name = f"{len(self.manifest.shards):06d}-{digest[:8]}"
            folder.rename(shards / name)
        entry = ShardEntry(name, len(ids), str(source.absolute()), digest)
        self._replace_manifest(
            replace(self.manifest, shards=(*self.manifest.shards, entry)),
        )

    def _replace_manifest(self, manifest: Manifest) -> None:
        """Replaces the list, unless another process has since this one read it."""
        if read_manifest(self.folder) != self.manifest:
            problem = "another process has added to this index meanwhile"
            raise WriteError(self.folder, problem, "run the same command again: it goes on")
        _write_manifest(self.folder, manifest)
        self.manifest = manifest


@contextmanager
def open_writer(folder: Path, new: Manifest | None = None) -> Iterator[IndexWriter]:
    """The writer of an index, which is made where there is none and `new` is given.

    WriteError where another process writes to it; DataError where the index is of another model or
    form than `new`. What a killed writer left is removed.
    """
    if new is None:
        read_manifest(folder)  # before a lock file is made in a folder that is no index
    elif folder.exists() and not is_index(folder):
        _check_empty(folder)
    with locks.single_writer(folder / LOCK):
        if new is not None and not is_index(folder):
            _write_manifest(folder, new)
        manifest = read_manifest(folder)
        if new is not None and (reason := _difference(manifest, new)):
            fix = "build into another folder, or add with its own model: `index.py add`"
            raise DataError(folder, f"is an index of {reason}", fix)
        for path in _unlisted(folder, manifest):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield IndexWriter(folder, manifest)


def encode(vectors: np.ndarray, numbers: Numbers) -> dict[str, np.ndarray]:
    """Vectors (n, d) float32 as they are stored: `vectors`, and of int8 `scales` (n,).

    int8: each row is divided by its largest magnitude / 127 and rounded. The product of a row with
    a query q is wrong by at most half its scale times the sum of |q|.
    """
    if not np.isfinite(vectors).all():
        raise ValueError("vectors that are not finite")
    if numbers == "float16":
        return {"vectors": vectors.astype(np.float16)}
    scales = np.abs(vectors).max(axis=1) / LARGEST
    divisors = np.where(scales > 0, scales, 1)[:, None]
    return {
        "vectors": np.rint(vectors / divisors).astype(np.int8),
        "scales": scales.astype(np.float32),
    }


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    files.write_json(folder / MANIFEST, {"version": VERSION} | asdict(manifest))


def _difference(manifest: Manifest, new: Manifest) -> str:
    """What an index was made with that is different now; empty where nothing is."""
    if reason := manifest.model.difference(new.model):
        return reason
    if manifest.numbers != new.numbers:
        return f"{manifest.numbers}, not {new.numbers}"
    return ""


def _check_empty(folder: Path) -> None:
    """DataError where a folder holds anything but what a writer makes before the list."""
    if {path.name for path in reading.list_folder(folder)} - {SHARDS, LOCK}:
        raise DataError(folder, "holds something else than an index", "give a new folder")


def _unlisted(folder: Path, manifest: Manifest) -> list[Path]:
    """Whole shards and approximate indexes that are in no list; not those being written."""
    listed = {entry.name for entry in manifest.shards}
    if manifest.approximate:
        listed.add(manifest.approximate.file)
    paths = [*(folder / SHARDS).glob("[0-9]*"), *folder.glob("ivfpq-*.faiss")]
    return sorted(path for path in paths if path.name not in listed)


# ---- reading


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check_manifest(manifest: Manifest) -> None:
    """ValueError where the list is of another form than a writer's."""
    names = [entry.name for entry in manifest.shards]
    approximate = manifest.approximate
    if approximate:
        names.append(approximate.file)
        if not 0 < approximate.rows <= manifest.rows:
            raise ValueError("the approximate index is of other motions")
    if not all(name not in ("", "..") and Path(name).name == name for name in names):
        raise ValueError("a name is a path")
    if manifest.dim < 1 or any(entry.rows < 1 for entry in manifest.shards):
        raise ValueError("a size is below 1")


def _open_shard(folder: Path, entry: ShardEntry, manifest: Manifest) -> Shard:
    shard_dir, has_scales = folder / SHARDS / entry.name, manifest.numbers == "int8"
    vectors = _map_array(shard_dir / "vectors.npy", entry.rows)
    if vectors.dtype != np.dtype(manifest.numbers) or vectors.shape[1] != manifest.dim:
        form = f"{vectors.dtype} {vectors.shape}"
        raise DataError(shard_dir / "vectors.npy", f"its vectors are {form}", BUILD_FIX)
    scales = _map_array(shard_dir / "scales.npy", entry.rows) if has_scales else None
    return Shard(shard_dir, entry, vectors, scales)


def _map_array(path: Path, rows: int) -> np.ndarray:
    """An array of a shard, memory-mapped. DataError where it is not whole, or of another form."""
    if not reading.is_file(path):
        raise DataError(path, "is missing", BUILD_FIX)
    with reading.open_file(path) as (stream, size):
        header = reading.read_npy_header(stream, path, BUILD_FIX)
    form = f"{header.dtype} {header.shape}"
    if header.size != size:
        raise DataError(path, f"has {size} bytes of {header.size}", BUILD_FIX)
    if len(header.shape) != _KINDS[path.stem] or header.shape[0] != rows or header.order != "C":
        raise DataError(path, f"is {form}, where {rows} rows are listed", BUILD_FIX)
    # mode "c": torch wants a writable array; nothing is written
    return np.memmap(path, header.dtype, "c", header.offset, header.shape)


def _digest_of(paths: Sequence[Path]) -> str:
    """Digest of the content of some files."""
    content = hashlib.blake2b(digest_size=16)
    for path in paths:
        try:
            with path.open("rb") as stream:
                content.update(hashlib.file_digest(stream, "blake2b").digest())
        except OSError as error:
            raise reading.unreadable_error(path, error) from error
    return content.hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _as_bytes(texts: Sequence[str]) -> np.ndarray:
    return np.array([_bytes(text) for text in texts])
