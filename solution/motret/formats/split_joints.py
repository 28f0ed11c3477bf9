"""Reads the layout of the SGAR description: a folder of streams for each motion, captions and part texts in GAR JSON.

    split_joints/<id>/{holistic,right_arm,left_arm,right_leg,left_leg,torso}.npy    each (T, J, 3)
    texts/gar_train.json, texts/gar_val.json; optional train.txt, val.txt, groups.csv
    <stream>_Mean.npy, <stream>_Std.npy                                             optional, (J * 3,)

    skeleton.json, meta.json                                                        optional: the joints, see below

The whole body of one person, without rotations, is the motion: 22 joints are SMPL's, 21 those of KIT-ML, any other number has its table in
skeleton.json (`skeleton.SKELETON_JSON_FORM`). A part's stream has the joints that its files have: those named as PART_JOINTS in meta.json (in the data
folder, or beside the files of a motion), else the skeleton's own, else those that its coordinates are found at.

The statistics are checked, and that is all: they are of raw coordinates, while features are seen from the person (see `features`) and have
a mean and deviation of their own, from the training folds.
"""

import contextlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np

from motret.errors import DataError
from motret.formats import challenge, gar, motion_files, text_files
from motret.formats.challenge import NO_DATA_FIX, SkippedFile, TrainingSet
from motret.formats.motion_files import BODY_FILE
from motret.formats.text_files import preview
from motret.skeleton import KIT, PARTS, SKELETON_JSON_FORM, SMPL, Skeleton, parse_skeleton_json, skeleton_from_spec
from motret.utils import files, parallel

FOLDER = "split_joints"


def joint_streams(body: Skeleton = SMPL) -> dict[str, tuple[int, ...]]:
    """Stream -> its joints."""
    return {"holistic": tuple(range(len(body.joints)))} | dict(body.parts)


SMPL_STREAMS = joint_streams()
"""The streams of bodies in SMPL's order."""
PROBE = 50
"""Motions that are looked at to tell what skeleton the data have."""
TOLERANCE = 1e-3
"""Metres, and share of the coordinate, by which a part's file may differ from the whole body: half precision is near enough."""
CHUNK = 256  # folders that a worker checks at a time


def has_split_joints(root: Path) -> bool:
    """Whether a data folder has this layout."""
    return (root / FOLDER).is_dir() and not (root / "motions").exists()


def read_training(root: Path, *, id_width: int | None = None, strict: bool = False) -> TrainingSet:
    """The training set: train.txt and val.txt (without train.txt every id with folder and caption), groups.csv; streams are not opened.

    id_width: digits of numeric ids, by default those of the widest folder name. A folder that lacks a stream, an id without folder or
    caption, a broken file of statistics are left out and listed; `strict` makes each of them fatal.
    """
    folders = sorted(path for path in (root / FOLDER).iterdir() if path.is_dir() and path.name[0] != ".")
    digits = [len(path.name) for path in folders if path.name.isascii() and path.name.isdecimal()]
    width = id_width or max(digits, default=1)
    motions = {name: folder / BODY_FILE for name, folder in challenge.paths_by_id(folders, width).items()}
    captions, faults = _read_captions(root, width)

    def captions_of(name: str) -> tuple[str, ...]:
        caption, file = captions[name]
        _check_complete(motions[name].parent)
        if caption is None:
            raise DataError(file, f"id {name} has no caption", "write one or take the entry out")
        return (caption,)

    body, fps = _find_skeleton(root, [path for path in motions.values() if path.is_file()])
    sides = {FOLDER: [folder.name for folder in folders], "texts/gar_train.json": list(captions)}
    faults += check_statistics(root, body)[1]
    found = challenge.build_training_set(root, motions, {name: name for name in captions}, captions_of, sides, width, strict, faults)
    return replace(found, rotations=False, skeleton=body.spec(), fps=fps)


# ---- the skeleton


def _find_skeleton(root: Path, bodies: Sequence[Path]) -> tuple[Skeleton, float | None]:
    """The joints of a data folder's bodies and of their parts, and frames a second where meta.json says so."""
    counts: Counter[int] = Counter()
    for path in bodies[:: -(-len(bodies) // PROBE) or 1]:
        with contextlib.suppress(DataError):
            counts[motion_files.motion_shape(path)[1] // 3] += 1
    joints = max(counts, key=lambda count: (counts[count], count == len(SMPL.joints)), default=len(SMPL.joints))
    table = root / "skeleton.json"
    if table.is_file():
        body = _read_table(table)
    else:
        body = {len(known.joints): known for known in (SMPL, KIT)}.get(joints)
        if body is None:
            problem = f"bodies of {joints} joints, which no known skeleton has (SMPL: 22, KIT-ML: 21)"
            raise DataError(root / FOLDER, problem, f"write {table.name} into the data folder: {SKELETON_JSON_FORM}")
    meta = _read_meta([root, root / FOLDER, *(path.parent for path in bodies[:PROBE])])
    fps = meta.get("fps")
    usable = isinstance(fps, int | float) and not isinstance(fps, bool) and fps > 0
    parts = _part_joints(meta.get("PART_JOINTS"), body) or _parts_by_files(body, bodies[:PROBE])
    return body if parts in (None, dict(body.parts)) else body.with_parts(parts), float(fps) if usable else None


def _read_table(file: Path) -> Skeleton:
    try:
        return parse_skeleton_json(json.loads(text_files.read_text(file)))
    except (ValueError, TypeError, AttributeError, RecursionError) as problem:
        raise DataError(file, f"is no skeleton: {problem}", f"write it as {SKELETON_JSON_FORM}") from problem


def _read_meta(folders: Sequence[Path]) -> dict:
    """What the first meta.json in one of these folders says; nothing where there is none that can be read."""
    for folder in folders:
        found = files.read_json(folder / "meta.json")
        if isinstance(found, dict):
            return found
    return {}


def _part_joints(named: object, body: Skeleton) -> dict[str, tuple[int, ...]] | None:
    """The joints of each part as meta.json names them; None where it names none, or other than the body has."""
    if not isinstance(named, dict) or not all(isinstance(named.get(part), list) and named[part] for part in PARTS):
        return None
    known = range(len(body.joints))
    if any(joint not in known for part in PARTS for joint in named[part]):
        return None
    return {part: tuple(map(int, named[part])) for part in PARTS}


def _parts_by_files(body: Skeleton, bodies: Sequence[Path]) -> Mapping[str, tuple[int, ...]] | None:
    """The joints of each part as the first motion's files have them, told by their coordinates; None where they are the skeleton's own, or
    cannot be told."""
    for path in bodies:
        try:
            whole = _read_array(path)
            parts = {part: _read_array(path.with_name(f"{part}.npy")) for part in PARTS}
        except DataError:
            continue
        if any(own.ndim != 3 or own.shape[::2] != (len(whole), 3) for own in (whole, *parts.values())):
            continue
        if all(own.shape[1] == len(body.parts[part]) for part, own in parts.items()):
            return None
        found = {part: _joints_of(own, whole) for part, own in parts.items()}
        if all(found.values()):
            return found
    return None


def _joints_of(part: np.ndarray, whole: np.ndarray) -> tuple[int, ...]:
    """The joints of a body (T, J, 3) whose coordinates a part (T, K, 3) has; none where one of them is nowhere in the body."""
    gaps = np.abs(part[:, :, None].astype(np.float64) - whole[:, None]).max(axis=(0, 3))
    near = gaps.argmin(axis=1)
    limit = TOLERANCE * (1 + np.abs(part).max())
    return tuple(near.tolist()) if (gaps.min(axis=1) <= limit).all() else ()


# ---- is all there?


def _check_complete(folder: Path) -> None:
    """DataError where a stream's file is missing."""
    if missing := [stream for stream in SMPL_STREAMS if not (folder / f"{stream}.npy").is_file()]:
        others = f", nor {', '.join(f'{stream}.npy' for stream in missing[1:])}" if missing[1:] else ""
        raise DataError(
            folder / f"{missing[0]}.npy",
            f"no such file{others}",
            f"a motion needs {', '.join(SMPL_STREAMS)}: add it or leave the folder out",
        )


def _read_captions(root: Path, width: int) -> tuple[dict[str, tuple[str | None, Path]], list[DataError]]:
    """The caption of each id and the file it stands in, the first one where there are several; and the entries left out."""
    if not (sources := gar.find_gar_files(root)):
        raise DataError(root / "texts" / gar.GAR_FILES[0], "no such file", f"{gar.FORMAT_FIX}; or: {NO_DATA_FIX}")
    captions: dict[str, tuple[str | None, Path]] = {}
    faults = []
    for file in sources:
        read = gar.read_gar(file, width)
        faults += [DataError(file, note, gar.FORMAT_FIX) for note in read.notes if "left out" in note]
        if twice := captions.keys() & read.captions.keys():
            faults.append(
                DataError(file, f"{len(twice)} entries with an id of {sources[0].name}, left out: {preview(twice)}", "keep one of the two")
            )
        captions = {name: (caption, file) for name, caption in read.captions.items()} | captions
    order = sorted(captions, key=lambda name: captions[name][1] != sources[0])  # the training file's first
    return {name: captions[name] for name in order}, faults


# ---- do the parts agree with the whole?


def check_part_files(training: TrainingSet, work_dir: Path, *, strict: bool = False, jobs: int = -1) -> TrainingSet:
    """The set without the motions whose part files disagree with the whole body; `strict` makes the first of them fatal.

    A part has as many frames as the body, its own joints, and the same coordinates within `TOLERANCE`. What was checked once is
    not opened again while sizes and times of the files stay.
    """
    folders = [path.parent for path in training.paths]
    paths = [[folder / f"{stream}.npy" for stream in SMPL_STREAMS] for folder in folders]
    other = () if training.skeleton == SMPL.name else (training.skeleton,)
    kept = work_dir / "seen" / f"parts-{files.content_hash([(str(own[0]), *map(files.file_signature, own)) for own in paths], *other)}.json"
    listed = files.read_json(kept)
    if listed is None:
        pieces = [folders[start : start + CHUNK] for start in range(0, len(folders), CHUNK)]
        checked = parallel.worker_pool(jobs, len(pieces))(joblib.delayed(_disagreements)(piece, training.skeleton) for piece in pieces)
        listed = [fault for faults in checked for fault in faults]
        files.write_json(kept, listed)
    if listed and strict:
        raise DataError(*listed[0][1:])
    bad = {folder for folder, *_ in listed}
    if len(bad) == len(folders):
        raise DataError(training.root / FOLDER, "no usable motion", f"the first fault: {listed[0][1]}: {listed[0][2]}")
    good = training.subset(name for name, folder in zip(training.ids, folders, strict=True) if str(folder) not in bad)
    return replace(good, skipped=(*good.skipped, *(SkippedFile(file, problem) for _, file, problem, _ in listed)))


def _disagreements(folders: Sequence[Path], table: str) -> list[tuple[str, str, str, str]]:
    """Folder, file, fault and mend of each folder whose streams disagree."""
    found = []
    for folder in folders:
        try:
            _check_agreement(folder, skeleton_from_spec(table))
        except DataError as fault:
            found.append((str(folder), fault.path, fault.problem, fault.fix))
    return found


def _check_agreement(folder: Path, skeleton: Skeleton) -> None:
    """DataError where the whole body is no motion, or a part is not a slice of it."""
    raw, count = motion_files.read_motion(folder / BODY_FILE), len(skeleton.joints)
    if raw.shape[1] != skeleton.position_columns:
        given = _read_array(folder / BODY_FILE).shape
        problem = f"an array {given}, expected (frames, {count}, 3)"
        raise DataError(folder / BODY_FILE, problem, "keep those joints' positions alone, or leave the folder out")
    body = raw.reshape(-1, count, 3)
    for part, joints in skeleton.parts.items():
        file = folder / f"{part}.npy"
        array, expected = _read_array(file), (len(body), len(joints), 3)
        names = " ".join(skeleton.joints[joint] for joint in joints)
        fix = f"cut it from {BODY_FILE} (joints {' '.join(map(str, joints))}: {names}), or leave the folder out"
        if array.ndim != 3 or array.shape[2] != 3:
            raise DataError(file, f"an array {array.shape}, expected {expected}", fix)
        if len(array) != len(body):
            raise DataError(file, f"{len(array)} frames, {BODY_FILE} has {len(body)}", fix)
        if array.shape[1] != len(joints):
            raise DataError(file, f"{array.shape[1]} joints, expected {len(joints)}", fix)
        close = np.isclose(array.astype(np.float32), body[:, joints], rtol=TOLERANCE, atol=TOLERANCE)  # NaN is close to nothing
        if not close.all():
            frame, joint, _ = np.argwhere(~close)[0]
            raise DataError(file, f"its {skeleton.joints[joints[joint]]} is not that of {BODY_FILE} at frame {frame} (from 0)", fix)


def _read_array(file: Path) -> np.ndarray:
    data = text_files.read_bytes(file)
    return motion_files.npy_values(
        data, motion_files.read_npy_header(io.BytesIO(data), len(data), file, "save it again with np.save, or leave it out")
    )


# ---- statistics


def check_statistics(root: Path, body: Skeleton = SMPL) -> tuple[list[str], list[DataError]]:
    """The streams that have a mean and a deviation (J * 3,), and what is wrong with the files of others."""
    found, faults = [], []
    for stream, joints in joint_streams(body).items():
        mean, deviation = (root / f"{stream}_{kind}.npy" for kind in ("Mean", "Std"))
        if not mean.is_file() and not deviation.is_file():
            continue
        try:
            _statistic(mean, deviation, 3 * len(joints))
            spread = _statistic(deviation, mean, 3 * len(joints))
            if (spread < 0).any():
                raise DataError(deviation, f"a deviation below 0 at {int(np.argmax(spread < 0))} (from 0)", "compute it again")
        except DataError as fault:
            faults.append(fault)
        else:
            found.append(stream)
    return found, faults


def _statistic(file: Path, other: Path, width: int) -> np.ndarray:
    if not file.is_file():
        raise DataError(file, f"no such file, but {other.name} is there", "give both or neither")
    values = _read_array(file)
    if values.shape != (width,):
        raise DataError(file, f"an array {values.shape}, expected ({width},): {width // 3} joints x 3", "compute it again or take it away")
    if not (finite := np.isfinite(values)).all():
        raise DataError(file, f"{values[~finite][0]} at {int(np.argmin(finite))} (from 0)", "compute it again or take it away")
    return values
