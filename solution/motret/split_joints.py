"""Reads the layout of the SGAR description: a folder of streams for each motion, captions and part texts in GAR JSON.

    split_joints/<id>/{holistic,right_arm,left_arm,right_leg,left_leg,torso}.npy    each (T, J, 3)
    texts/gar_train.json, texts/gar_val.json; optional train.txt, val.txt, groups.csv
    <stream>_Mean.npy, <stream>_Std.npy                                             optional, (J * 3,)

The whole body of one person, 22 joints and no rotations, is the motion; the parts follow from it as everywhere else, so that what the
part files are for is to agree with it. The statistics are checked, and that is all: they are of raw coordinates, while features are seen
from the person (see `features`) and have a mean and deviation of their own, from the training folds.
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np

from motret import arrays, challenge, files, gar, store
from motret.challenge import BODY_FILE, NO_DATA, Skip, TrainingSet, some
from motret.faults import DataFault
from motret.skeleton import JOINTS, N_JOINTS, PARTS, POSITION_COLUMNS

FOLDER = "split_joints"
STREAMS = {"holistic": tuple(range(N_JOINTS))} | PARTS
"""Stream -> its joints."""
TOLERANCE = 1e-3
"""Metres, and share of the coordinate, by which a part's file may differ from the whole body: half precision is near enough."""
CHUNK = 256  # folders that a worker checks at a time


def is_here(root: Path) -> bool:
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
    motions = {name: folder / BODY_FILE for name, folder in challenge.by_id(folders, width).items()}
    captions, faults = _read_captions(root, width)

    def captions_of(name: str) -> tuple[str, ...]:
        caption, file = captions[name]
        _must_be_whole(motions[name].parent)
        if caption is None:
            raise DataFault(file, f"id {name} has no caption", "write one or take the entry out")
        return (caption,)

    sides = {FOLDER: [folder.name for folder in folders], "texts/gar_train.json": list(captions)}
    faults += check_statistics(root)[1]
    found = challenge.pair(root, motions, {name: name for name in captions}, captions_of, sides, width, strict, faults)
    return replace(found, rotations=False)


def _must_be_whole(folder: Path) -> None:
    """DataFault where a stream's file is missing."""
    if missing := [stream for stream in STREAMS if not (folder / f"{stream}.npy").is_file()]:
        others = f", nor {', '.join(f'{stream}.npy' for stream in missing[1:])}" if missing[1:] else ""
        raise DataFault(
            folder / f"{missing[0]}.npy", f"no such file{others}", f"a motion needs {', '.join(STREAMS)}: add it or leave the folder out"
        )


def _read_captions(root: Path, width: int) -> tuple[dict[str, tuple[str | None, Path]], list[DataFault]]:
    """The caption of each id and the file it stands in, the first one where there are several; and the entries left out."""
    if not (sources := gar.files(root)):
        raise DataFault(root / "texts" / gar.FILES[0], "no such file", f"{gar.MEND}; or: {NO_DATA}")
    captions: dict[str, tuple[str | None, Path]] = {}
    faults = []
    for file in sources:
        read = gar.read_gar(file, width)
        faults += [DataFault(file, note, gar.MEND) for note in read.notes if "left out" in note]
        if twice := captions.keys() & read.captions.keys():
            faults.append(
                DataFault(file, f"{len(twice)} entries with an id of {sources[0].name}, left out: {some(twice)}", "keep one of the two")
            )
        captions = {name: (caption, file) for name, caption in read.captions.items()} | captions
    order = sorted(captions, key=lambda name: captions[name][1] != sources[0])  # the training file's first
    return {name: captions[name] for name in order}, faults


# ---- do the parts agree with the whole?


def check_parts(training: TrainingSet, work_dir: Path, *, strict: bool = False, jobs: int = -1) -> TrainingSet:
    """The set without the motions whose part files disagree with the whole body; `strict` makes the first of them fatal.

    A part has as many frames as the body, its own joints, and the same coordinates within `TOLERANCE`. What was checked once is
    not opened again while sizes and times of the files stay.
    """
    folders = [path.parent for path in training.paths]
    streams = [[folder / f"{stream}.npy" for stream in STREAMS] for folder in folders]
    kept = work_dir / "seen" / f"parts-{files.digest([(str(own[0]), *map(store.signature, own)) for own in streams])}.json"
    listed = files.read_json(kept)
    if listed is None:
        pieces = [folders[start : start + CHUNK] for start in range(0, len(folders), CHUNK)]
        checked = store.workers(jobs, len(pieces))(joblib.delayed(_disagreements)(piece) for piece in pieces)
        listed = [fault for faults in checked for fault in faults]
        files.write_json(kept, listed)
    if listed and strict:
        raise DataFault(*listed[0][1:])
    bad = {folder for folder, *_ in listed}
    if len(bad) == len(folders):
        raise DataFault(training.root / FOLDER, "no usable motion", f"the first fault: {listed[0][1]}: {listed[0][2]}")
    good = training.only(name for name, folder in zip(training.ids, folders, strict=True) if str(folder) not in bad)
    return replace(good, skipped=(*good.skipped, *(Skip(file, wrong) for _, file, wrong, _ in listed)))


def _disagreements(folders: Sequence[Path]) -> list[tuple[str, str, str, str]]:
    """Folder, file, fault and mend of each folder whose streams disagree."""
    found = []
    for folder in folders:
        try:
            _must_agree(folder)
        except DataFault as fault:
            found.append((str(folder), fault.file, fault.wrong, fault.mend))
    return found


def _must_agree(folder: Path) -> None:
    """DataFault where the whole body is no motion, or a part is not a slice of it."""
    raw = challenge.read_motion(folder / BODY_FILE)
    if raw.shape[1] != POSITION_COLUMNS:
        wrong = f"an array {raw.shape}, expected (frames, {N_JOINTS}, 3)"
        raise DataFault(folder / BODY_FILE, wrong, "keep the joints' positions alone, or leave the folder out")
    body = raw.reshape(-1, N_JOINTS, 3)
    for part, joints in PARTS.items():
        file = folder / f"{part}.npy"
        array, expected = _read_array(file), (len(body), len(joints), 3)
        names = " ".join(JOINTS[joint] for joint in joints)
        mend = f"cut it from {BODY_FILE} (joints {' '.join(map(str, joints))}: {names}), or leave the folder out"
        if array.ndim != 3 or array.shape[2] != 3:
            raise DataFault(file, f"an array {array.shape}, expected {expected}", mend)
        if len(array) != len(body):
            raise DataFault(file, f"{len(array)} frames, {BODY_FILE} has {len(body)}", mend)
        if array.shape[1] != len(joints):
            raise DataFault(file, f"{array.shape[1]} joints, expected {len(joints)}", mend)
        close = np.isclose(array.astype(np.float32), body[:, joints], rtol=TOLERANCE, atol=TOLERANCE)  # NaN is close to nothing
        if not close.all():
            frame, joint, _ = np.argwhere(~close)[0]
            raise DataFault(file, f"its {JOINTS[joints[joint]]} is not that of {BODY_FILE} at frame {frame} (from 0)", mend)


def _read_array(file: Path) -> np.ndarray:
    data = challenge.read_bytes(file)
    return arrays.values(data, arrays.read_header(io.BytesIO(data), len(data), file, "save it again with np.save, or leave it out"))


# ---- statistics


def check_statistics(root: Path) -> tuple[list[str], list[DataFault]]:
    """The streams that have a mean and a deviation (J * 3,), and what is wrong with the files of others."""
    found, faults = [], []
    for stream, joints in STREAMS.items():
        mean, deviation = (root / f"{stream}_{kind}.npy" for kind in ("Mean", "Std"))
        if not mean.is_file() and not deviation.is_file():
            continue
        try:
            _statistic(mean, deviation, 3 * len(joints))
            spread = _statistic(deviation, mean, 3 * len(joints))
            if (spread < 0).any():
                raise DataFault(deviation, f"a deviation below 0 at {int(np.argmax(spread < 0))} (from 0)", "compute it again")
        except DataFault as fault:
            faults.append(fault)
        else:
            found.append(stream)
    return found, faults


def _statistic(file: Path, other: Path, width: int) -> np.ndarray:
    if not file.is_file():
        raise DataFault(file, f"no such file, but {other.name} is there", "give both or neither")
    values = _read_array(file)
    if values.shape != (width,):
        raise DataFault(file, f"an array {values.shape}, expected ({width},): {width // 3} joints x 3", "compute it again or take it away")
    if not (finite := np.isfinite(values)).all():
        raise DataFault(file, f"{values[~finite][0]} at {int(np.argmin(finite))} (from 0)", "compute it again or take it away")
    return values
