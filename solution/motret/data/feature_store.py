"""Packed features: one memory-mapped array for all motions of a set, made once, keyed by the
content of the raw files.

A store is `work/<key>/` with `features.npy` (all frames end to end, float16), `index.npz` and
`store.json`. It is built under another name and renamed when whole, so a store that can be opened
is complete. A call that was killed left `work/packing-<sources>/`, where the next one goes on. The
key covers the bytes of every raw file and the feature settings; files whose size
and times have not changed since are not read again.
"""

import hashlib
import logging
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np

from motret import skeleton
from motret.config.base import DataConfig, typed
from motret.data.feature_blocks import Columns
from motret.data.features import (
    FEATURE_VERSION,
    FeatureConfig,
    feature_layout,
    find_metres,
    find_reflected,
    find_up,
    make_features,
)
from motret.errors import DataError, MotretError, WriteError
from motret.formats import motion_files
from motret.formats.challenge import SkippedFile
from motret.utils import files, locks, progress, reading
from motret.utils.files import file_signature
from motret.utils.on_error import OnError
from motret.utils.parallel import begin_worker, single_thread, worker_pool

logger = logging.getLogger(__name__)

KEY_FORM = re.compile("[0-9a-f]{16}")
"""What names a store; `work/seen/` holds such names."""
REPACK_FIX = "remove it: features are packed again"
CHUNK = 32
"""Motions that a worker takes at a time; with more, memory is allocated again and again."""
RECORDED = 4096
"""Motions that are packed before it is recorded: so many are packed again after a kill."""
PROCESSES_FROM = 20_000
"""Motions from which on processes pack them instead of threads."""
PACKING, DONE, LOCK = "packing-", "done-", "lock"
"""Names in a work folder while features are packed."""
PROBE = 200
"""Motions whose poses vote on the up axis."""


@dataclass(frozen=True)
class FeatureStore:
    """Features of a set of motions.

    ids: (N,) names; offsets, lengths: (N,) first frame in `features` and number of frames; digests:
    (N,) content hashes of the raw files; features: (F, persons, D) float16, memory-mapped, columns
    as `features.feature_layout`.
    """

    folder: Path
    config: FeatureConfig
    ids: tuple[str, ...]
    offsets: np.ndarray
    lengths: np.ndarray
    digests: tuple[str, ...]
    features: np.ndarray
    skipped: tuple[SkippedFile, ...]
    repaired: tuple[SkippedFile, ...] = ()
    """Files that were used although they have a problem, and what was done about it."""

    @property
    def persons(self) -> int:
        return self.features.shape[1]

    @property
    def columns(self) -> Columns:
        return feature_layout(self.persons, self.config)

    def motion(self, index: int) -> np.ndarray:
        """Features (T, persons, D) float32 of one motion."""
        start = self.offsets[index]
        return np.asarray(self.features[start : start + self.lengths[index]], dtype=np.float32)


def inspect_raw(paths: Sequence[Path], config: FeatureConfig) -> FeatureConfig:
    """The settings with the up axis and the unit of a data set, and whether its bodies are stored
    mirrored.

    By vote of at most `PROBE` of its motions; unreadable ones do not vote.
    """
    body, positions = config.body, []
    for index in np.linspace(0, len(paths) - 1, min(PROBE, len(paths))).astype(int):
        with suppress(DataError, KeyError):
            raw = motion_files.read_motion(paths[index])
            positions.append(skeleton.split_columns(raw, body)[0])
    if not positions:
        return config
    up = find_up(positions, body)
    reflected = find_reflected(positions, up, body)
    return replace(config, up=up, metres=find_metres(positions, body), reflected=reflected)


@dataclass(frozen=True)
class _Rules:
    """How files with problems are treated, see `build_feature_cache`."""

    min_frames: int
    strict: bool
    repair: bool


@dataclass(frozen=True)
class _Source:
    """A raw file to pack: its motion's name, and the frames and columns it is expected to have."""

    name: str
    path: Path
    shape: tuple[int, int]


class _Packed(NamedTuple):
    """A motion that was packed: the hash of its file's content, and what was repaired."""

    digest: str
    repairs: str


def build_feature_cache(
    ids: Sequence[str],
    paths: Sequence[Path],
    config: FeatureConfig,
    data: DataConfig,
    *,
    jobs: int = -1,
    what: str = "motions",
    repair: bool = False,
) -> tuple[FeatureStore, bool]:
    """Opens the store of these files, making it where there is none; returns it and whether it was
    there.

    ids, paths: name and file of each motion. `data.strict`: a problem of a file is a DataError,
    else the file is left out and listed in `FeatureStore.skipped`. `repair`: motions that are too
    short (`data.min_frames`) or have values that are not finite are repaired
    (`motion_files.parse_motion`) and listed in `FeatureStore.repaired`. what: the motions, for the
    progress bar.
    """
    work_dir = data.work_dir
    sources = files.content_hash(
        FEATURE_VERSION,
        config.key(),
        data.min_frames,
        data.strict,
        [(name, str(path), *file_signature(path)) for name, path in zip(ids, paths, strict=True)],
        *(["repaired"] if repair else []),
    )
    key_path = work_dir / "seen" / sources
    if stored := _stored_before(key_path, work_dir):
        return stored, True
    with _packing_folder(work_dir, sources) as packing:
        rules = _Rules(data.min_frames, data.strict, repair)
        packed = packing / "store"
        packed.mkdir(exist_ok=True)
        key = _build_store(packed, ids, paths, config, rules, jobs, what)
        folder = work_dir / key
        if _open_whole(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
            try:
                packed.rename(folder)
            except OSError:  # another process packed the same just now
                if _open_whole(folder) is None:
                    raise
    files.write_text(key_path, key)
    return open_feature_store(folder), False


def open_feature_store(folder: Path) -> FeatureStore:
    """Opens a packed store; its features stay on disk until they are used.

    DataError where it is not whole.
    """
    content = reading.read_json_object(folder / "store.json", REPACK_FIX)
    index = reading.read_npz(folder / "index.npz", REPACK_FIX)
    with reading.boundary(folder, "is no whole store of features", REPACK_FIX):
        if not reading.is_file(folder / "features.npy"):
            raise ValueError("no features.npy")
        # mode "c": torch wants a writable array; nothing is written
        features = np.load(folder / "features.npy", mmap_mode="c", allow_pickle=False)
        skipped, repaired = (
            tuple(SkippedFile(str(file["file"]), str(file["problem"])) for file in files_of)
            for files_of in (content.get("skipped", ()), content.get("repaired", ()))
        )
        store = FeatureStore(
            folder,
            typed(FeatureConfig, content["settings"]),
            tuple(reading.array_of(index, "ids", "U", 1).tolist()),
            reading.array_of(index, "offsets", "i", 1),
            reading.array_of(index, "lengths", "i", 1),
            tuple(reading.array_of(index, "digests", "U", 1).tolist()),
            features,
            skipped,
            repaired,
        )
        _check_store(store)
    return store


def _check_store(store: FeatureStore) -> None:
    """ValueError where the files of a store do not fit each other."""
    lists = (store.ids, store.offsets, store.lengths, store.digests)
    if len({len(each) for each in lists}) != 1 or not store.ids:
        raise ValueError("its index has lists of different lengths")
    features = store.features
    if features.ndim != 3 or features.dtype != np.float16:
        raise ValueError(f"its features are {features.dtype} {features.shape}")
    if features.shape[1] not in (1, 2) or features.shape[2] != store.columns.width:
        raise ValueError(f"its features have the shape {features.shape}")
    ends = store.offsets + store.lengths
    if store.offsets.min() < 0 or store.lengths.min() < 1 or ends.max() > len(features):
        raise ValueError("its index names frames that it does not have")


def _stored_before(key_path: Path, work_dir: Path) -> FeatureStore | None:
    """The store that a key names; None where there is none, or it is not whole."""
    if not reading.exists(key_path):
        return None
    try:
        key = reading.read_text(key_path).strip()
    except DataError as error:
        key = str(error)
    if not KEY_FORM.fullmatch(key):
        logger.warning(f"warning: {key_path}: names no packed features, they are packed again")
        return None
    return _open_whole(work_dir / key)


def _open_whole(folder: Path) -> FeatureStore | None:
    """The store in a folder; None where there is none, or with a message, where it is not whole."""
    if not reading.exists(folder):
        return None
    try:
        return open_feature_store(folder)
    except MotretError as error:
        problem = f"{error.path}: {error.problem}"
        logger.warning(f"warning: {problem}: the features are packed again")
        return None


# ---- making a store


def _remove_failed(folder: Path, error: BaseException) -> None:
    """Removes a packing that ended with an error, or by a signal before anything was done."""
    if isinstance(error, MotretError | OSError) or not any(folder.glob(f"{DONE}*")):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _packing_folder(work_dir: Path, sources: str) -> Iterator[Path]:
    """A folder to pack in. Where a call for the same sources was killed it is what that one left.

    One process has it, by a lock; another that packs the same meanwhile gets a temporary folder, as
    on a disk without locks. It is removed at the end, and after an error.
    """
    folder = work_dir / f"{PACKING}{sources}"
    with files.named_write_errors(work_dir):
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / LOCK).open("ab")
    files.remove_leftovers(work_dir)
    with stream:
        # unless the process that had it has just removed it
        if locks.try_lock(stream) and reading.exists(folder / LOCK):
            _remove_abandoned(work_dir)
            with OnError(partial(_remove_failed, folder)):
                try:
                    yield folder
                except WriteError as error:
                    path = work_dir / Path(error.path).name
                    raise WriteError(path, error.problem, error.fix) from error
            shutil.rmtree(folder, ignore_errors=True)
            return
    with files.new_dir(work_dir, "packing", work_dir) as tmp_dir:
        yield tmp_dir


def _remove_abandoned(work_dir: Path) -> None:
    """Removes what killed processes left of the packing of other sources."""
    for path in work_dir.glob(f"{PACKING}*/{LOCK}"):
        with suppress(OSError), path.open("ab") as stream:
            if locks.try_lock(stream):
                shutil.rmtree(path.parent, ignore_errors=True)


def _build_store(
    folder: Path,
    ids: Sequence[str],
    paths: Sequence[Path],
    config: FeatureConfig,
    rules: _Rules,
    jobs: int,
    what: str,
) -> str:
    """Fills `folder` with the store of these files and returns its key."""
    skipped: list[SkippedFile] = []
    sources = _list_sources(ids, paths, rules, skipped)
    if not sources:
        raise _no_motion_error(paths, skipped)
    persons = _count_persons(sources[0].shape[1], config, paths[0].parent)
    lengths = np.array([source.shape[0] for source in sources], dtype=np.int64)
    offsets = np.cumsum(lengths) - lengths
    results: list[_Packed | None] = []
    bar = progress.progress_bar(total=len(sources), desc=f"packing {what}", unit="motion")
    width = feature_layout(persons, config).width
    target = _Target(folder / "features.npy", (int(lengths.sum()), persons, width))
    with single_thread(), bar:
        for result in _pack_sources(target, sources, config, rules, jobs):
            if isinstance(result, DataError):
                _skip_or_raise(result, rules.strict, skipped)
            results.append(None if isinstance(result, DataError) else result)
            bar.update(1)
    packed = [(index, result) for index, result in enumerate(results) if result is not None]
    if not packed:
        raise _no_motion_error(paths, skipped)
    packed_idx = [index for index, _ in packed]
    names = [sources[index].name for index in packed_idx]
    digests = [result.digest for _, result in packed]
    index = {
        "ids": np.array(names),
        "digests": np.array(digests),
        "offsets": offsets[packed_idx],
        "lengths": lengths[packed_idx],
    }
    files.write_npz(folder / "index.npz", index)
    content = {
        "settings": asdict(config),
        "skipped": [asdict(file) for file in skipped],
        "version": FEATURE_VERSION,
    }
    problems = [content["skipped"]]
    if repaired := [
        asdict(SkippedFile(str(sources[index].path), result.repairs))
        for index, result in packed
        if result.repairs
    ]:
        content["repaired"] = repaired
        problems.append(repaired)
    files.write_json(folder / "store.json", content)
    key = list(zip(names, digests, strict=True))
    return files.content_hash(FEATURE_VERSION, config.key(), key, *problems)


def _list_sources(
    ids: Sequence[str], paths: Sequence[Path], rules: _Rules, skipped: list[SkippedFile]
) -> list[_Source]:
    """The files that have as many columns as most, by their headers; problems of the others go to
    `skipped`."""
    sources = []
    for name, path in zip(ids, paths, strict=True):
        try:
            sources.append(_Source(name, path, motion_files.motion_shape(path)))
        except DataError as error:
            _skip_or_raise(error, rules.strict, skipped)
    widths = [source.shape[1] for source in sources]
    width = max(set(widths), key=widths.count, default=0)
    usable = []
    for source in sources:
        frames, columns = source.shape
        if columns == width:
            frames = max(frames, rules.min_frames) if rules.repair else frames
            usable.append(replace(source, shape=(frames, columns)))
        else:
            problem = f"{columns} columns where most motions have {width}"
            fix = "keep one- and two-person motions apart"
            _skip_or_raise(DataError(source.path, problem, fix), rules.strict, skipped)
    return usable


def _count_persons(width: int, config: FeatureConfig, folder: Path) -> int:
    """Persons in motions of so many columns; DataError where they do not fit the settings."""
    try:
        persons = skeleton.count_persons(width, config.body)
    except KeyError:
        joints = len(config.body.joints)
        problem = f"motions of {width} columns, where those trained on are of {joints} joints"
        raise DataError(folder, problem, "give motions of the same skeleton") from None
    if config.rotations and width == config.body.position_columns:
        raise DataError(folder, "positions alone, no joint rotations", "give --no_rotations")
    return persons


@dataclass(frozen=True)
class _Target:
    """The file of packed features: its path and shape (F, persons, D)."""

    path: Path
    shape: tuple[int, int, int]

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame of all persons."""
        return int(np.dtype(np.float16).itemsize) * self.shape[1] * self.shape[2]

    def allocate(self) -> int:
        """Makes the file where there is none of this shape; returns where its numbers begin."""
        fix = "remove it"
        with suppress(MotretError), reading.open_file(self.path, sys.maxsize) as (stream, size):
            header = reading.read_npy_header(stream, self.path, fix)
            if (header.shape, header.dtype, header.size) == (self.shape, np.float16, size):
                return header.offset
        for record in self.path.parent.parent.glob(f"{DONE}*"):
            record.unlink()
        with files.named_write_errors(self.path):
            array = np.lib.format.open_memmap(self.path, "w+", np.float16, self.shape)
        return int(array.offset)


def _pack_sources(
    target: _Target, sources: Sequence[_Source], config: FeatureConfig, rules: _Rules, jobs: int
) -> Iterator[_Packed | DataError]:
    """Writes the features of all files to `target`, end to end; yields the result of each file, in
    order.

    After each `RECORDED` files their results are recorded beside the folder of `target`, and are
    taken from there by the next call.
    """
    lengths = np.array([source.shape[0] for source in sources], dtype=np.int64)
    byte_offsets = target.allocate() + (np.cumsum(lengths) - lengths) * target.frame_bytes
    # threads do for few: nearly all is NumPy's and the disk's work, and processes start slowly
    apart = len(sources) >= PROCESSES_FROM
    pack = joblib.delayed(_pack_chunk_apart if apart else _pack_chunk)
    for start in range(0, len(sources), RECORDED):
        record = target.path.parent.parent / f"{DONE}{start}.json"
        several = sources[start : start + RECORDED]
        results = _recorded(record, len(several))
        if results is None:
            offsets = byte_offsets[start : start + RECORDED]
            chunks = [slice(begin, begin + CHUNK) for begin in range(0, len(several), CHUNK)]
            tasks = (
                pack(target.path, several[chunk], offsets[chunk], config, rules) for chunk in chunks
            )
            pool = worker_pool(jobs, len(chunks), "processes" if apart else "threads")
            results = []
            for packed in pool(tasks):
                results += packed
                yield from packed
            if len(sources) > RECORDED:
                files.flush_to_disk(target.path)
                _record(record, results)
        else:
            yield from results


def _record(path: Path, results: Sequence[_Packed | DataError]) -> None:
    """Records the results of some files whose features are on the disk."""
    fields = [result.args if isinstance(result, DataError) else result for result in results]
    files.write_json(path, fields)


def _recorded(path: Path, count: int) -> list[_Packed | DataError] | None:
    """The results of so many files that a call before this one recorded; None where there are
    none."""
    content = files.read_json(path)
    if not isinstance(content, list) or len(content) != count:
        return None
    kinds: dict[int, type[_Packed] | type[DataError]] = {2: _Packed, 3: DataError}
    if not all(isinstance(fields, list) and len(fields) in kinds for fields in content):
        return None
    return [kinds[len(fields)](*fields) for fields in content]


def _pack_chunk_apart(*args: Any) -> list[_Packed | DataError]:
    """`_pack_chunk` in a process of its own, with one thread."""
    begin_worker(threads=1)
    return _pack_chunk(*args)


def _pack_chunk(
    target: Path,
    sources: Sequence[_Source],
    byte_offsets: np.ndarray,
    config: FeatureConfig,
    rules: _Rules,
) -> list[_Packed | DataError]:
    """Reads some files and writes the features of each at its offset in `target`; the result or the
    error of each."""
    results: list[_Packed | DataError] = []
    lengths: list[int] = []
    offsets: list[int] = []
    total = sum(source.shape[0] for source in sources)
    raw, end = np.empty((total, sources[0].shape[1]), np.float32), 0
    for source, offset in zip(sources, byte_offsets, strict=True):
        try:
            content = reading.read_bytes(source.path, motion_files.MAX_MOTION_BYTES)
            repairs: list[str] | None = [] if rules.repair else None
            motion = motion_files.parse_motion(content, source.path, rules.min_frames, repairs)
            if motion.shape != source.shape:
                fix = "run again when nothing writes to it"
                raise DataError(source.path, "changed while it was read", fix)
        except DataError as error:
            results.append(error)
            continue
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        results.append(_Packed(digest, "; ".join(repairs or ())))
        raw[end : end + len(motion)] = motion
        lengths.append(len(motion))
        offsets.append(int(offset))
        end += len(motion)
    if lengths:
        starts = np.cumsum(lengths) - lengths
        positions, rotations = skeleton.split_columns(raw[:end], config.body)
        features = _to_float16(make_features(positions, rotations, starts, config))
        with files.named_write_errors(target), target.open("r+b") as file:
            for offset, start, length in zip(offsets, starts, lengths, strict=True):
                file.seek(offset)
                file.write(features[start : start + length].data)
    return results


def _to_float16(values: np.ndarray) -> np.ndarray:
    """float32 as float16, clipped to its range, in `values` too. By torch, many times as fast at it
    as NumPy."""
    import torch  # takes a second, and most commands find everything packed

    limit = torch.finfo(torch.float16).max
    return torch.from_numpy(values).clamp_(-limit, limit).half().numpy()


def _skip_or_raise(error: DataError, strict: bool, skipped: list[SkippedFile]) -> None:
    """Lists a file that cannot be used; `strict` raises its error instead."""
    if strict:
        raise error
    skipped.append(SkippedFile(error.path, error.problem))


def _no_motion_error(paths: Sequence[Path], skipped: Sequence[SkippedFile]) -> DataError:
    fix = f"the first problem: {skipped[0].file}: {skipped[0].problem}"
    return DataError(paths[0].parent, "no usable motion", fix)
