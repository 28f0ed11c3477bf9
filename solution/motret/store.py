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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import joblib
import numpy as np

from motret import challenge, features, files, progress, skeleton
from motret.challenge import Skip
from motret.faults import DataFault
from motret.features import FeatureSettings

CHUNK = 32  # motions a worker takes at a time; more, and memory is asked of the system again and again
PROBE = 200  # motions whose poses vote on the up axis


@dataclass(frozen=True)
class Store:
    """Features of a set of motions.

    ids: (N,) names; offsets, lengths: (N,) place in `features`, in frames; digests: (N,) content hashes of the raw files;
    features: (F, persons, D) float16, memory-mapped, columns as `features.layout`.
    """

    folder: Path
    settings: FeatureSettings
    ids: tuple[str, ...]
    offsets: np.ndarray
    lengths: np.ndarray
    digests: tuple[str, ...]
    features: np.ndarray
    skipped: tuple[Skip, ...]
    repaired: tuple[Skip, ...] = ()
    """Files that were taken although something is wrong with them, and what was done about it."""

    @property
    def persons(self) -> int:
        return self.features.shape[1]

    @property
    def columns(self) -> features.Columns:
        return features.layout(self.persons, self.settings)

    def motion(self, row: int) -> np.ndarray:
        """Features (T, persons, D) float32 of one motion."""
        start = self.offsets[row]
        return np.asarray(self.features[start : start + self.lengths[row]], dtype=np.float32)


def look(paths: Sequence[Path], settings: FeatureSettings) -> FeatureSettings:
    """The settings with the up axis and the unit of a data set, and whether its bodies are stored in the mirror.

    By vote of at most `PROBE` of its motions; unreadable ones do not vote.
    """
    body, positions = settings.body, []
    for path in [paths[int(i)] for i in np.linspace(0, len(paths) - 1, min(PROBE, len(paths)))]:
        with suppress(DataFault, KeyError):
            positions.append(skeleton.split_columns(challenge.read_motion(path), body)[0])
    if not positions:
        return settings
    up = features.find_up(positions, body)
    reflected = features.find_reflected(positions, up, body)
    return replace(settings, up=up, metres=features.find_metres(positions, body), reflected=reflected)


def pack(
    ids: Sequence[str],
    paths: Sequence[Path],
    settings: FeatureSettings,
    work_dir: Path,
    *,
    min_frames: int = 1,
    strict: bool = True,
    jobs: int = -1,
    what: str = "motions",
    repair: bool = False,
) -> tuple[Store, bool]:
    """Opens the store of these files, making it where it is not there yet; returns it and whether it was there.

    ids, paths: name and file of each motion. `strict`: a fault in a file ends the work (DataFault), else the file is left out and
    listed in `Store.skipped`. `repair`: short motions and those with values that are not finite are repaired (`challenge.parse_motion`)
    and listed in `Store.repaired`.
    """
    sources = files.digest(
        features.VERSION,
        settings.key(),
        min_frames,
        strict,
        [(name, str(path), *signature(path)) for name, path in zip(ids, paths, strict=True)],
        *(["repaired"] if repair else []),
    )
    seen = work_dir / "seen" / sources
    if seen.is_file():
        folder = work_dir / seen.read_text().strip()
        if (folder / "store.json").is_file():
            return open_store(folder), True
    _sweep(work_dir)
    building = Path(tempfile.mkdtemp(prefix=f".packing-{os.getpid()}-", dir=_made(work_dir)))
    try:
        key = _build(building, ids, paths, settings, min_frames, strict, jobs, what, repair)
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
    files.write_whole(seen, lambda beside: beside.write_text(key))
    return open_store(folder), False


def open_store(folder: Path) -> Store:
    """Opens a packed store; its features stay on disk until they are used."""
    about = json.loads((folder / "store.json").read_text(encoding="utf-8"))
    with np.load(folder / "index.npz", allow_pickle=False) as index:
        ids, digests = tuple(index["ids"].tolist()), tuple(index["digests"].tolist())
        offsets, lengths = index["offsets"], index["lengths"]
    mapped = np.load(folder / "features.npy", mmap_mode="c", allow_pickle=False)  # "c": torch wants a writable array; nothing is written
    settings = FeatureSettings(**about["settings"])
    skipped, repaired = (tuple(Skip(**skip) for skip in about.get(name, ())) for name in ("skipped", "repaired"))
    return Store(folder, settings, ids, offsets, lengths, digests, mapped, skipped, repaired)


def workers(jobs: int, pieces: int, prefer: Literal["threads", "processes"] = "processes") -> joblib.Parallel:
    """What takes pieces of work and gives results in order; -1 jobs: one per core; never more than there are pieces."""
    return joblib.Parallel(n_jobs=min(joblib.cpu_count() if jobs < 0 else jobs, pieces), prefer=prefer, return_as="generator")


def _build(
    folder: Path,
    ids: Sequence[str],
    paths: Sequence[Path],
    settings: FeatureSettings,
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
        raise _nothing_usable(paths, skipped)
    width = max(set(widths), key=widths.count)
    for number, (path, shape) in enumerate(zip(paths, shapes, strict=True)):
        if shape and shape[1] != width:
            _note(
                skipped,
                strict,
                DataFault(path, f"{shape[1]} columns where most motions have {width}", "keep one- and two-person motions apart"),
            )
            shapes[number] = None
    kept = [number for number, shape in enumerate(shapes) if shape]
    found = [(max(shapes[number][0], min_frames) if repair else shapes[number][0], width) for number in kept]
    lengths = np.array([frames for frames, _ in found], dtype=np.int64)
    offsets = np.cumsum(lengths) - lengths
    try:
        persons = skeleton.persons_of(width, settings.body)
    except KeyError:
        joints = len(settings.body.joints)
        wrong = f"motions of {width} columns, where those trained on are of {joints} joints"
        raise DataFault(paths[0].parent, wrong, "give motions of the same skeleton") from None
    if settings.rotations and width == settings.body.position_columns:
        raise DataFault(paths[0].parent, "positions alone, no joint rotations", "give --no_rotations")
    columns = max(part.stop for part in features.layout(persons, settings).values())
    shape = (int(lengths.sum()), persons, columns)
    first = np.lib.format.open_memmap(folder / "features.npy", mode="w+", dtype=np.float16, shape=shape).offset
    pieces = [slice(start, start + CHUNK) for start in range(0, len(kept), CHUNK)]
    parallel = workers(jobs, len(pieces), "threads")  # nearly all of it is NumPy's and the disk's work; processes take a second to start
    places = first + offsets * persons * columns * np.dtype(np.float16).itemsize
    work = (
        joblib.delayed(_fill)(
            folder / "features.npy", [paths[k] for k in kept[piece]], found[piece], places[piece], settings, min_frames, repair
        )
        for piece in pieces
    )
    results: list[Packed | DataFault] = []
    with _one_thread_each(), progress.bar(total=len(kept), desc=f"packing {what}", unit="motion") as bar:
        for done in parallel(work):
            results += done
            bar.update(len(done))
            for fault in (result for result in done if isinstance(result, DataFault)):
                _note(skipped, strict, fault)
    good = [row for row, result in enumerate(results) if isinstance(result, Packed)]
    if not good:
        raise _nothing_usable(paths, skipped)
    names, hashes = [ids[kept[row]] for row in good], [results[row].digest for row in good]
    repaired = [asdict(Skip(str(paths[kept[row]]), results[row].repairs)) for row in good if results[row].repairs]
    np.savez(folder / "index.npz", ids=np.array(names), digests=np.array(hashes), offsets=offsets[good], lengths=lengths[good])
    about = {"settings": asdict(settings), "skipped": [asdict(skip) for skip in skipped], "version": features.VERSION}
    files.write_json(folder / "store.json", about | ({"repaired": repaired} if repaired else {}))
    odd = [about["skipped"], *([repaired] if repaired else [])]
    return files.digest(features.VERSION, settings.key(), list(zip(names, hashes, strict=True)), *odd)


class Packed(NamedTuple):
    """A motion that was packed: its content's hash, and what was repaired."""

    digest: str
    repairs: str


def _fill(
    target: Path,
    paths: list[Path],
    shapes: list[tuple[int, int]],
    places: np.ndarray,
    settings: FeatureSettings,
    min_frames: int,
    repair: bool,
) -> list[Packed | DataFault]:
    """Reads a run of motions and writes their features in place, at these bytes of the file; what came of it or a fault for each."""
    results: list[Packed | DataFault] = []
    sizes, kept = [], []
    raw, end = np.empty((sum(frames for frames, _ in shapes), shapes[0][1]), np.float32), 0
    for path, shape, place in zip(paths, shapes, places, strict=True):
        try:
            content = challenge.read_bytes(path)
            repairs = [] if repair else None
            motion = challenge.parse_motion(content, path, min_frames, repairs)
            if motion.shape != shape:
                raise DataFault(path, "changed while it was read", "run again when nothing writes to it")
        except DataFault as fault:
            results.append(fault)
            continue
        results.append(Packed(hashlib.blake2b(content, digest_size=16).hexdigest(), "; ".join(repairs or ())))
        raw[end : end + len(motion)] = motion
        sizes.append(len(motion))
        kept.append(int(place))
        end += len(motion)
    if sizes:
        starts = np.cumsum(sizes) - sizes
        packed = _halved(features.make(*skeleton.split_columns(raw[:end], settings.body), starts, settings))
        with target.open("r+b") as file:
            for place, start, size in zip(kept, starts, sizes, strict=True):
                file.seek(place)
                file.write(packed[start : start + size])
    return results


def _halved(values: np.ndarray) -> np.ndarray:
    """float32 as float16, what that cannot hold held at its limit, in `values` too. By torch, many times as fast at it as NumPy."""
    import torch  # takes a second, and most commands find everything packed

    limit = torch.finfo(torch.float16).max
    return torch.from_numpy(values).clamp_(-limit, limit).half().numpy()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Within it threads that are started have torch to themselves, instead of starting as many threads again each."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _shapes(paths: Sequence[Path], strict: bool) -> tuple[list[tuple[int, int] | None], list[Skip]]:
    """(frames, columns) of each file from its header, None where it has none; and the faults met."""
    shapes: list[tuple[int, int] | None] = []
    skipped: list[Skip] = []
    for path in paths:
        try:
            shapes.append(challenge.motion_shape(path))
        except DataFault as fault:
            _note(skipped, strict, fault)
            shapes.append(None)
    return shapes, skipped


def _note(skipped: list[Skip], strict: bool, fault: DataFault) -> None:
    if strict:
        raise fault
    skipped.append(Skip(fault.file, fault.wrong))


def _nothing_usable(paths: Sequence[Path], skipped: Sequence[Skip]) -> DataFault:
    return DataFault(paths[0].parent, "no usable motion", f"the first fault: {skipped[0].file}: {skipped[0].wrong}")


def signature(path: Path) -> tuple[int, int, int, int]:
    """Size, times and inode of a file: all the same means that nobody wrote to it."""
    try:
        about = path.stat()
    except OSError as gone:
        raise DataFault(path, f"cannot be read: {gone.strerror}", "check that it is there and readable") from gone
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _sweep(work_dir: Path) -> None:
    """Removes what killed processes left half-packed."""
    for left in work_dir.glob(".packing-*-*"):
        try:
            os.kill(int(left.name.split("-")[1]), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except PermissionError:
            pass  # somebody else's, and alive
