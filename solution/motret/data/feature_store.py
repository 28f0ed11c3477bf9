"""Packed features: one memory-mapped array for all motions of a set, made once, keyed by the content of the raw files.

A store is `work/<key>/` with `features.npy` (all frames end to end, float16), `index.npz` and `store.json`. It is built under
another name and renamed when whole, so a store that can be opened is complete. The key covers the bytes of every raw file and
the feature settings; files whose size and times have not changed since are not read again.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np

from motret import skeleton
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
from motret.errors import DataError
from motret.formats import motion_files, text_files
from motret.formats.challenge import SkippedFile
from motret.utils import files, progress
from motret.utils.files import file_signature
from motret.utils.parallel import single_thread, worker_pool

CHUNK = 32  # motions a worker takes at a time; more, and memory is asked of the system again and again
PROBE = 200  # motions whose poses vote on the up axis


@dataclass(frozen=True)
class FeatureStore:
    """Features of a set of motions.

    ids: (N,) names; offsets, lengths: (N,) place in `features`, in frames; digests: (N,) content hashes of the raw files;
    features: (F, persons, D) float16, memory-mapped, columns as `features.feature_layout`.
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
    """Files that were taken although something is wrong with them, and what was done about it."""

    @property
    def persons(self) -> int:
        return self.features.shape[1]

    @property
    def columns(self) -> Columns:
        return feature_layout(self.persons, self.config)

    def motion(self, row: int) -> np.ndarray:
        """Features (T, persons, D) float32 of one motion."""
        start = self.offsets[row]
        return np.asarray(self.features[start : start + self.lengths[row]], dtype=np.float32)


def inspect_raw(paths: Sequence[Path], config: FeatureConfig) -> FeatureConfig:
    """The settings with the up axis and the unit of a data set, and whether its bodies are stored in the mirror.

    By vote of at most `PROBE` of its motions; unreadable ones do not vote.
    """
    body, positions = config.body, []
    for path in [paths[int(i)] for i in np.linspace(0, len(paths) - 1, min(PROBE, len(paths)))]:
        with suppress(DataError, KeyError):
            positions.append(skeleton.split_columns(motion_files.read_motion(path), body)[0])
    if not positions:
        return config
    up = find_up(positions, body)
    reflected = find_reflected(positions, up, body)
    return replace(config, up=up, metres=find_metres(positions, body), reflected=reflected)


def build_feature_cache(
    ids: Sequence[str],
    paths: Sequence[Path],
    config: FeatureConfig,
    work_dir: Path,
    *,
    min_frames: int = 1,
    strict: bool = True,
    jobs: int = -1,
    what: str = "motions",
    repair: bool = False,
) -> tuple[FeatureStore, bool]:
    """Opens the store of these files, making it where it is not there yet; returns it and whether it was there.

    ids, paths: name and file of each motion. `strict`: a fault in a file ends the work (DataError), else the file is left out and
    listed in `Store.skipped`. `repair`: short motions and those with values that are not finite are repaired (`motion_files.parse_motion`)
    and listed in `Store.repaired`.
    """
    sources = files.content_hash(
        FEATURE_VERSION,
        config.key(),
        min_frames,
        strict,
        [(name, str(path), *file_signature(path)) for name, path in zip(ids, paths, strict=True)],
        *(["repaired"] if repair else []),
    )
    seen = work_dir / "seen" / sources
    if seen.is_file():
        folder = work_dir / seen.read_text().strip()
        if (folder / "store.json").is_file():
            return open_feature_store(folder), True
    _remove_leftovers(work_dir)
    building = Path(tempfile.mkdtemp(prefix=f".packing-{os.getpid()}-", dir=_is_complete(work_dir)))
    try:
        key = _build_cache(building, ids, paths, config, min_frames, strict, jobs, what, repair)
        folder = work_dir / key
        if not (folder / "store.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            try:
                building.rename(folder)
            except OSError:  # another process packed the same just now
                if not (folder / "store.json").is_file():
                    raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    files.write_text(seen, key)
    return open_feature_store(folder), False


def open_feature_store(folder: Path) -> FeatureStore:
    """Opens a packed store; its features stay on disk until they are used."""
    about = json.loads((folder / "store.json").read_text(encoding="utf-8"))
    index = files.read_npz(folder / "index.npz")
    ids, digests = tuple(index["ids"].tolist()), tuple(index["digests"].tolist())
    offsets, lengths = index["offsets"], index["lengths"]
    mapped = np.load(folder / "features.npy", mmap_mode="c", allow_pickle=False)  # "c": torch wants a writable array; nothing is written
    config = FeatureConfig(**about["settings"])
    skipped, repaired = (tuple(SkippedFile(*skip.values()) for skip in about.get(name, ())) for name in ("skipped", "repaired"))
    return FeatureStore(folder, config, ids, offsets, lengths, digests, mapped, skipped, repaired)


def _build_cache(
    folder: Path,
    ids: Sequence[str],
    paths: Sequence[Path],
    config: FeatureConfig,
    min_frames: int,
    strict: bool,
    jobs: int,
    what: str,
    repair: bool,
) -> str:
    """Fills `folder` with the store of these files and returns its key."""
    shapes, skipped = _shapes(paths, strict)
    widths = [shape[1] for shape in shapes if shape]
    if not widths:
        raise _nothing_usable_error(paths, skipped)
    width = max(set(widths), key=widths.count)
    for number, (path, shape) in enumerate(zip(paths, shapes, strict=True)):
        if shape and shape[1] != width:
            _write_note(
                skipped,
                strict,
                DataError(path, f"{shape[1]} columns where most motions have {width}", "keep one- and two-person motions apart"),
            )
            shapes[number] = None
    kept = [number for number, shape in enumerate(shapes) if shape]
    found = [(max(shapes[number][0], min_frames) if repair else shapes[number][0], width) for number in kept]
    lengths = np.array([frames for frames, _ in found], dtype=np.int64)
    offsets = np.cumsum(lengths) - lengths
    try:
        persons = skeleton.count_persons(width, config.body)
    except KeyError:
        joints = len(config.body.joints)
        problem = f"motions of {width} columns, where those trained on are of {joints} joints"
        raise DataError(paths[0].parent, problem, "give motions of the same skeleton") from None
    if config.rotations and width == config.body.position_columns:
        raise DataError(paths[0].parent, "positions alone, no joint rotations", "give --no_rotations")
    columns = feature_layout(persons, config).width
    shape = (int(lengths.sum()), persons, columns)
    first = np.lib.format.open_memmap(folder / "features.npy", mode="w+", dtype=np.float16, shape=shape).offset
    pieces = [slice(start, start + CHUNK) for start in range(0, len(kept), CHUNK)]
    parallel = worker_pool(
        jobs, len(pieces), "threads"
    )  # nearly all of it is NumPy's and the disk's work; processes take a second to start
    places = first + offsets * persons * columns * np.dtype(np.float16).itemsize
    work = (
        joblib.delayed(_fill)(
            folder / "features.npy", [paths[k] for k in kept[piece]], found[piece], places[piece], config, min_frames, repair
        )
        for piece in pieces
    )
    results: list[CacheResult | DataError] = []
    with single_thread(), progress.progress_bar(total=len(kept), desc=f"packing {what}", unit="motion") as bar:
        for done in parallel(work):
            results += done
            bar.update(len(done))
            for fault in (result for result in done if isinstance(result, DataError)):
                _write_note(skipped, strict, fault)
    good = [row for row, result in enumerate(results) if isinstance(result, CacheResult)]
    if not good:
        raise _nothing_usable_error(paths, skipped)
    names, hashes = [ids[kept[row]] for row in good], [results[row].digest for row in good]
    repaired = [asdict(SkippedFile(str(paths[kept[row]]), results[row].repairs)) for row in good if results[row].repairs]
    np.savez(folder / "index.npz", ids=np.array(names), digests=np.array(hashes), offsets=offsets[good], lengths=lengths[good])
    about = {"settings": asdict(config), "skipped": [asdict(skip) for skip in skipped], "version": FEATURE_VERSION}
    files.write_json(folder / "store.json", about | ({"repaired": repaired} if repaired else {}))
    odd = [about["skipped"], *([repaired] if repaired else [])]
    return files.content_hash(FEATURE_VERSION, config.key(), list(zip(names, hashes, strict=True)), *odd)


class CacheResult(NamedTuple):
    """A motion that was packed: its content's hash, and what was repaired."""

    digest: str
    repairs: str


def _fill(
    target: Path,
    paths: list[Path],
    shapes: list[tuple[int, int]],
    places: np.ndarray,
    config: FeatureConfig,
    min_frames: int,
    repair: bool,
) -> list[CacheResult | DataError]:
    """Reads a run of motions and writes their features in place, at these bytes of the file; what came of it or a fault for each."""
    results: list[CacheResult | DataError] = []
    sizes, kept = [], []
    raw, end = np.empty((sum(frames for frames, _ in shapes), shapes[0][1]), np.float32), 0
    for path, shape, place in zip(paths, shapes, places, strict=True):
        try:
            content = text_files.read_bytes(path)
            repairs = [] if repair else None
            motion = motion_files.parse_motion(content, path, min_frames, repairs)
            if motion.shape != shape:
                raise DataError(path, "changed while it was read", "run again when nothing writes to it")
        except DataError as fault:
            results.append(fault)
            continue
        results.append(CacheResult(hashlib.blake2b(content, digest_size=16).hexdigest(), "; ".join(repairs or ())))
        raw[end : end + len(motion)] = motion
        sizes.append(len(motion))
        kept.append(int(place))
        end += len(motion)
    if sizes:
        starts = np.cumsum(sizes) - sizes
        packed = _to_float16(make_features(*skeleton.split_columns(raw[:end], config.body), starts, config))
        with target.open("r+b") as file:
            for place, start, size in zip(kept, starts, sizes, strict=True):
                file.seek(place)
                file.write(packed[start : start + size])
    return results


def _to_float16(values: np.ndarray) -> np.ndarray:
    """float32 as float16, what that cannot hold held at its limit, in `values` too. By torch, many times as fast at it as NumPy."""
    import torch  # takes a second, and most commands find everything packed

    limit = torch.finfo(torch.float16).max
    return torch.from_numpy(values).clamp_(-limit, limit).half().numpy()


def _shapes(paths: Sequence[Path], strict: bool) -> tuple[list[tuple[int, int] | None], list[SkippedFile]]:
    """(frames, columns) of each file from its header, None where it has none; and the faults met."""
    shapes: list[tuple[int, int] | None] = []
    skipped: list[SkippedFile] = []
    for path in paths:
        try:
            shapes.append(motion_files.motion_shape(path))
        except DataError as fault:
            _write_note(skipped, strict, fault)
            shapes.append(None)
    return shapes, skipped


def _write_note(skipped: list[SkippedFile], strict: bool, fault: DataError) -> None:
    if strict:
        raise fault
    skipped.append(SkippedFile(fault.path, fault.problem))


def _nothing_usable_error(paths: Sequence[Path], skipped: Sequence[SkippedFile]) -> DataError:
    return DataError(paths[0].parent, "no usable motion", f"the first fault: {skipped[0].file}: {skipped[0].problem}")


def _is_complete(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _remove_leftovers(work_dir: Path) -> None:
    """Removes what killed processes left half-packed."""
    for left in work_dir.glob(".packing-*-*"):
        try:
            os.kill(int(left.name.split("-")[1]), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except PermissionError:
            pass  # somebody else's, and alive
