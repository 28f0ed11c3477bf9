"""Reads the layout of the SGAR description: a folder of streams for each motion, texts in GAR JSON.

    split_joints/<id>/{holistic,right_arm,left_arm,right_leg,left_leg,torso}.npy    each (T, J, 3)
    texts/gar_train.json, texts/gar_val.json        captions and part texts
    train.txt, val.txt, groups.csv                  optional
    <stream>_Mean.npy, <stream>_Std.npy             optional, (J * 3,)
    skeleton.json, meta.json                        optional: the joints, see below

The motion is the whole body of one person, without rotations. 22 joints are SMPL's, 21 are
KIT-ML's; for any other number skeleton.json describes the skeleton (`skeleton.SKELETON_JSON_FORM`).
The joints of a part's stream are those named as PART_JOINTS in meta.json (in the data folder, or
beside the files of a motion), else the skeleton's own, else those whose coordinates the stream has.

The statistics are checked and not used: they are of raw coordinates, while features are relative to
the person (see `features`) and have their own mean and deviation, from the training folds.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from motret.errors import DataError
from motret.formats import challenge, gar, motion_files, text_files
from motret.formats.challenge import NO_DATA_FIX, ReadRules, SkippedFile, TrainingSet
from motret.formats.motion_files import BODY_FILE
from motret.formats.text_files import preview
from motret.skeleton import (
    KIT,
    PARTS,
    SKELETON_JSON_FORM,
    SMPL,
    Skeleton,
    parse_skeleton_json,
    skeleton_from_spec,
)
from motret.utils import files, parallel, reading

FOLDER = "split_joints"


def joint_streams(skeleton: Skeleton = SMPL) -> dict[str, tuple[int, ...]]:
    """The joints of each stream: the whole body and its parts."""
    return {"holistic": tuple(range(len(skeleton.joints)))} | dict(skeleton.parts)


SMPL_STREAMS = joint_streams()
"""The streams of bodies in SMPL order."""
PROBE_SIZE = 50
"""Motions that are opened to find the skeleton of the data."""
TOLERANCE = 1e-3
"""How much a part may differ from the whole body, in metres plus this fraction of the coordinate.

Half precision is within it.
"""
MAX_FPS = 10_000
"""No recording has as many frames per second."""
CHUNK_SIZE = 256
"""Folders that a worker checks at a time."""


def has_split_joints(root: Path) -> bool:
    """Whether a data folder has this layout."""
    return reading.is_folder(root / FOLDER) and reading.kind_of(root / "motions") == "missing"


def read_training(
    root: Path,
    *,
    id_width: int | None = None,
    strict: bool = False,
    follow_links: bool = False,
) -> TrainingSet:
    """The training set, by train.txt, val.txt, the GAR files and groups.csv.

    Without train.txt every id with a folder and a caption is taken. Streams are not opened.

    id_width: digits of numeric ids, by default those of the widest folder name; strict: makes each
    problem fatal that otherwise leaves something out (a folder without a stream, an id without
    folder or caption, broken statistics); follow_links: reads texts through links that lead out of
    the data folder.
    """
    rules = ReadRules(strict, follow_links)
    folders = [
        path
        for path in reading.list_folder(root / FOLDER)
        if path.name[0] != "." and reading.is_folder(path)
    ]
    digits = [len(path.name) for path in folders if text_files.is_number(path.name)]
    width = id_width or max(digits, default=1)
    by_id = challenge.paths_by_id(folders, width)
    motions = {name: folder / BODY_FILE for name, folder in by_id.items()}
    captions, problems = _read_captions(root, width, rules.home(root))

    def captions_of(name: str) -> tuple[str, ...]:
        caption, path = captions[name]
        _check_complete(by_id[name])
        if caption is None:
            problem = f"id {name} has no caption"
            raise DataError(path, problem, "write one or remove the entry")
        return (caption,)

    skeleton, fps = _find_skeleton(root, [path for path in motions.values() if _is_usable(path)])
    problems += check_statistics(root, skeleton)[1]
    training = challenge.build_training_set(
        root,
        motions,
        texts={name: name for name in captions},
        captions_of=captions_of,
        raw_ids={FOLDER: [path.name for path in folders], "texts/gar_train.json": list(captions)},
        width=width,
        rules=rules,
        earlier=problems,
    )
    return replace(training, rotations=False, skeleton=skeleton.spec(), fps=fps)


def _is_usable(path: Path) -> bool:
    """Whether a regular file is at a path; anything else is reported when it is checked."""
    try:
        return reading.is_file(path)
    except DataError:
        return False


# ---- the skeleton


def _find_skeleton(root: Path, body_paths: Sequence[Path]) -> tuple[Skeleton, float | None]:
    """The joints of the bodies and their parts, and frames per second if meta.json has them."""
    skeleton = _skeleton_of_bodies(root, body_paths)
    probe = body_paths[:PROBE_SIZE]
    meta = _read_meta([root, root / FOLDER, *(path.parent for path in probe)])
    parts = _parts_from_meta(meta, skeleton) or _parts_from_files(skeleton, probe)
    if parts is not None and parts != dict(skeleton.parts):
        skeleton = skeleton.with_parts(parts)
    return skeleton, _fps_from_meta(meta)


def _skeleton_of_bodies(root: Path, body_paths: Sequence[Path]) -> Skeleton:
    """The skeleton of skeleton.json, else the known one with as many joints as most bodies have."""
    path = root / "skeleton.json"
    if reading.is_file(path):
        return _read_skeleton_json(path)
    counts: Counter[int] = Counter()
    for body_path in body_paths[:: -(-len(body_paths) // PROBE_SIZE) or 1]:
        with contextlib.suppress(DataError):
            counts[motion_files.motion_shape(body_path)[1] // 3] += 1
    n_smpl = len(SMPL.joints)
    n_joints = max(counts, key=lambda count: (counts[count], count == n_smpl), default=n_smpl)
    for skeleton in (SMPL, KIT):
        if len(skeleton.joints) == n_joints:
            return skeleton
    problem = f"bodies of {n_joints} joints, which no known skeleton has (SMPL: 22, KIT-ML: 21)"
    fix = f"write {path.name} into the data folder: {SKELETON_JSON_FORM}"
    raise DataError(root / FOLDER, problem, fix)


def _read_skeleton_json(path: Path) -> Skeleton:
    fix = f"write {SKELETON_JSON_FORM}"
    text = reading.read_text(path)
    with reading.boundary(path, "is no skeleton", fix):
        return parse_skeleton_json(json.loads(text))


def _read_meta(folders: Sequence[Path]) -> dict[str, Any]:
    """The first meta.json in these folders; empty where there is none."""
    for folder in folders:
        if reading.is_file(path := folder / "meta.json"):
            return reading.read_json_object(path, "correct it, or remove it")
    return {}


def _fps_from_meta(meta: Mapping[str, Any]) -> float | None:
    """Frames per second; None where meta.json has none, or no positive number."""
    fps = meta.get("fps")
    if isinstance(fps, int | float) and not isinstance(fps, bool) and 0 < fps < MAX_FPS:
        return float(fps)
    return None


def _parts_from_meta(
    meta: Mapping[str, Any], skeleton: Skeleton
) -> dict[str, tuple[int, ...]] | None:
    """The joints of each part as meta.json names them; None where they are missing or unknown."""
    joints = meta.get("PART_JOINTS")
    if not isinstance(joints, dict):
        return None
    if not all(isinstance(joints.get(part), list) and joints[part] for part in PARTS):
        return None
    valid = range(len(skeleton.joints))
    listed = [joint for part in PARTS for joint in joints[part]]
    if any(not isinstance(joint, int | float) or joint not in valid for joint in listed):
        return None
    return {part: tuple(map(int, joints[part])) for part in PARTS}


def _parts_from_files(
    skeleton: Skeleton, body_paths: Sequence[Path]
) -> dict[str, tuple[int, ...]] | None:
    """The joints of each part in the files of the first usable motion, found by their coordinates.

    None where they are the skeleton's own, or cannot be found.
    """
    for path in body_paths:
        try:
            body = _read_array(path)
            streams = {part: _read_array(path.with_name(f"{part}.npy")) for part in PARTS}
        except DataError:
            continue
        expected = (len(body), 3)  # frames and coordinates
        if any(
            array.ndim != 3 or array.shape[::2] != expected for array in (body, *streams.values())
        ):
            continue
        if all(array.shape[1] == len(skeleton.parts[part]) for part, array in streams.items()):
            return None
        parts = {part: _match_joints(array, body) for part, array in streams.items()}
        if all(parts.values()):
            return parts
    return None


def _match_joints(part: np.ndarray, body: np.ndarray) -> tuple[int, ...]:
    """The joints of a body (T, J, 3) that a part (T, K, 3) holds; empty if one has none."""
    difference = part[:, :, None].astype(np.float64) - body[:, None]
    gaps_kj = np.abs(difference).max(axis=(0, 3))
    limit = TOLERANCE * (1 + np.abs(part).max())
    return tuple(gaps_kj.argmin(axis=1).tolist()) if (gaps_kj.min(axis=1) <= limit).all() else ()


# ---- captions and completeness


def _read_captions(
    root: Path, width: int, home: Path | None
) -> tuple[dict[str, tuple[str | None, Path]], list[DataError]]:
    """The caption of each id with its file, and the problems of entries that are left out.

    Of several captions the first counts; the ids of gar_train.json come first. home: the folder
    that links must not lead out of.
    """
    if not (paths := gar.find_gar_files(root)):
        fix = f"{gar.FORMAT_FIX}; or: {NO_DATA_FIX}"
        raise DataError(root / "texts" / gar.GAR_FILES[0], "no such file", fix)
    captions: dict[str, tuple[str | None, Path]] = {}
    problems = []
    for path in paths:
        content = gar.read_gar(path, width, home)
        skipped = [note for note in content.notes if "left out" in note]
        problems += [DataError(path, note, gar.FORMAT_FIX) for note in skipped]
        if repeated := captions.keys() & content.captions.keys():
            ids = f"{len(repeated)} entries with an id of {paths[0].name}"
            problem = f"{ids}, left out: {preview(repeated)}"
            problems.append(DataError(path, problem, "keep one of the two"))
        for name, caption in content.captions.items():
            captions.setdefault(name, (caption, path))
    return captions, problems


def _check_complete(folder: Path) -> None:
    """DataError where the file of a stream is missing."""
    names = [f"{stream}.npy" for stream in SMPL_STREAMS]
    if missing := [name for name in names if not reading.is_file(folder / name)]:
        others = f", nor {', '.join(missing[1:])}" if missing[1:] else ""
        fix = f"a motion needs {', '.join(SMPL_STREAMS)}: add it or leave the folder out"
        raise DataError(folder / missing[0], f"no such file{others}", fix)


# ---- agreement of the parts with the body


def check_part_files(
    training: TrainingSet, work_dir: Path, *, strict: bool = False, jobs: int = -1
) -> TrainingSet:
    """The set without the motions whose parts disagree with the whole body.

    A part has as many frames as the body, its own joints, and the same coordinates within
    `TOLERANCE`. The result is stored in `work_dir`: no file is opened again until its size or times
    change. strict: the first disagreement is fatal. jobs: worker processes.
    """
    folders = [path.parent for path in training.paths]
    cache_path = work_dir / "seen" / f"parts-{_streams_hash(training, folders)}.json"
    disagreements = _cached_disagreements(cache_path)
    if disagreements is None:
        chunks = [folders[i : i + CHUNK_SIZE] for i in range(0, len(folders), CHUNK_SIZE)]
        pool = parallel.worker_pool(jobs, len(chunks))
        check = joblib.delayed(_find_disagreements)
        results = pool(check(chunk, training.skeleton) for chunk in chunks)
        disagreements = [list(disagreement) for result in results for disagreement in result]
        files.write_json(cache_path, disagreements)
    if disagreements and strict:
        _, path, problem, fix = disagreements[0]
        raise DataError(path, problem, fix)
    bad = {folder for folder, *_ in disagreements}
    if len(bad) == len(folders):
        _, path, problem, _ = disagreements[0]
        fix = f"the first problem: {path}: {problem}"
        raise DataError(training.root / FOLDER, "no usable motion", fix)
    good = training.subset(
        name for name, folder in zip(training.ids, folders, strict=True) if str(folder) not in bad
    )
    skipped = (SkippedFile(path, problem) for _, path, problem, _ in disagreements)
    return replace(good, skipped=(*good.skipped, *skipped))


def _cached_disagreements(path: Path) -> list[list[str]] | None:
    """What `check_part_files` stored; None where it stored nothing, or that is broken."""
    content = reading.quiet_json(path)
    is_whole = isinstance(content, list) and all(
        isinstance(entry, list) and len(entry) == 4 and all(isinstance(text, str) for text in entry)
        for entry in content
    )
    return content if is_whole else None


def _streams_hash(training: TrainingSet, folders: Sequence[Path]) -> str:
    """Changes with the skeleton and with size, times or name of any stream's file."""
    paths = [[folder / f"{stream}.npy" for stream in SMPL_STREAMS] for folder in folders]
    signatures = [(str(streams[0]), *map(files.file_signature, streams)) for streams in paths]
    other_skeleton = () if training.skeleton == SMPL.name else (training.skeleton,)
    return files.content_hash(signatures, *other_skeleton)


def _find_disagreements(folders: Sequence[Path], spec: str) -> list[tuple[str, str, str, str]]:
    """Folder, file, problem and fix of each folder whose streams disagree."""
    disagreements = []
    for folder in folders:
        try:
            _check_agreement(folder, skeleton_from_spec(spec))
        except DataError as error:
            disagreements.append((str(folder), error.path, error.problem, error.fix))
    return disagreements


def _check_agreement(folder: Path, skeleton: Skeleton) -> None:
    """DataError where the whole body is no motion, or a part is not a slice of it."""
    body_path, n_joints = folder / BODY_FILE, len(skeleton.joints)
    raw = motion_files.read_motion(body_path)
    if raw.shape[1] != skeleton.position_columns:
        problem = f"an array {_read_array(body_path).shape}, expected (frames, {n_joints}, 3)"
        fix = "keep those joints' positions alone, or leave the folder out"
        raise DataError(body_path, problem, fix)
    body = raw.reshape(-1, n_joints, 3)
    for part, joints in skeleton.parts.items():
        path = folder / f"{part}.npy"
        array, expected = _read_array(path), (len(body), len(joints), 3)
        names = " ".join(skeleton.joints[joint] for joint in joints)
        indices = " ".join(map(str, joints))
        fix = f"cut it from {BODY_FILE} (joints {indices}: {names}), or leave the folder out"
        if array.ndim != 3 or array.shape[2] != 3:
            raise DataError(path, f"an array {array.shape}, expected {expected}", fix)
        if len(array) != len(body):
            raise DataError(path, f"{len(array)} frames, {BODY_FILE} has {len(body)}", fix)
        if array.shape[1] != len(joints):
            raise DataError(path, f"{array.shape[1]} joints, expected {len(joints)}", fix)
        close = np.isclose(
            array.astype(np.float32), body[:, joints], rtol=TOLERANCE, atol=TOLERANCE
        )  # NaN is close to nothing
        if not close.all():
            frame, index, _ = np.argwhere(~close)[0]
            name = skeleton.joints[joints[index]]
            problem = f"its {name} is not that of {BODY_FILE} at frame {frame} (from 0)"
            raise DataError(path, problem, fix)


def _read_array(path: Path) -> np.ndarray:
    return motion_files.read_npy(path, fix="save it again with np.save, or leave it out")


# ---- statistics


def check_statistics(root: Path, skeleton: Skeleton = SMPL) -> tuple[list[str], list[DataError]]:
    """The streams that have a mean and a deviation (J * 3,), and the problems of other streams."""
    streams, problems = [], []
    for stream, joints in joint_streams(skeleton).items():
        mean_path, std_path = (root / f"{stream}_{kind}.npy" for kind in ("Mean", "Std"))
        try:
            if not reading.is_file(mean_path) and not reading.is_file(std_path):
                continue
            _read_statistic(mean_path, std_path, 3 * len(joints))
            std = _read_statistic(std_path, mean_path, 3 * len(joints))
            if (std < 0).any():
                problem = f"a deviation below 0 at {int(np.argmax(std < 0))} (from 0)"
                raise DataError(std_path, problem, "compute it again")
        except DataError as error:
            problems.append(error)
        else:
            streams.append(stream)
    return streams, problems


def _read_statistic(path: Path, partner: Path, width: int) -> np.ndarray:
    """A mean or a deviation, (width,); partner: the file of the other one."""
    if not reading.is_file(path):
        problem = f"no such file, but {partner.name} is there"
        raise DataError(path, problem, "give both or neither")
    values, fix = _read_array(path), "compute it again or remove it"
    if values.shape != (width,):
        problem = f"an array {values.shape}, expected ({width},): {width // 3} joints x 3"
        raise DataError(path, problem, fix)
    if not (finite := np.isfinite(values)).all():
        problem = f"{values[~finite][0]} at {int(np.argmin(finite))} (from 0)"
        raise DataError(path, problem, fix)
    return values
