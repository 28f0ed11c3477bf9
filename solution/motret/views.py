"""Test-time views: motions and their captions once more, in the mirror, at other speeds, or with the persons swapped.

A view is a further similarity of the same models. With views a member's similarity is the mean over the plain one and those of its views,
each in units of its own deviation over the gallery that the model had not seen. What a fold's model says there in a view is kept beside
`oof.npz`, as `oof_<view>.npz`.
"""

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from motret import augment, files, motion, provenance, runs
from motret.augment import Mirror
from motret.batches import Motions
from motret.config import MotionSettings
from motret.dataset import TrainingData
from motret.faults import SettingFault
from motret.motion import MotionBatch
from motret.runs import Run
from motret.store import Store

PACES = (0.9, 1.1)
"""Speeds of the view "speed", as a multiple of the recorded one."""
FLAG = "--views"


@dataclass(frozen=True, eq=False)
class Showing:
    """How motions are shown once more. pace: how many times as fast they run; mirror: of their features, and of their captions too."""

    name: str
    pace: float | None = None
    mirror: Mirror | None = None
    swapped: bool = False


class Shown(Motions):
    """The motions of a store as a view shows them."""

    def __init__(self, store: Store, settings: MotionSettings, device: torch.device, view: Showing):
        super().__init__(store, settings, device)
        self.pace, self.swapped = view.pace, view.swapped
        self.mirror = None if view.mirror is None else view.mirror.to(device)

    def gather(self, rows: Tensor, *args, **values) -> MotionBatch:
        pace = None if self.pace is None else torch.full((len(rows),), self.pace, device=self.device)
        batch = super().gather(rows, *args, **{"pace": pace} | values)
        frames = batch.frames if self.mirror is None else self.mirror(batch.frames)
        return MotionBatch(augment.swap_persons(frames) if self.swapped else frames, batch.lengths, batch.generator)


@dataclass(frozen=True)
class Seen:
    """What a fold's model says of its held-out motions in a view.

    text: (C, v), zero for captions that the view cannot tell, and motion: (M, v), whose products are similarities; deviation: of these,
    as a multiple of the plain ones'; of: changes with the model that says it.
    """

    text: np.ndarray
    motion: np.ndarray
    deviation: float
    of: str


def speed() -> tuple[Showing, ...]:
    """Motions faster and slower, their captions as they are."""
    return tuple(Showing(f"speed{pace:g}", pace=pace) for pace in PACES)


def swap(run: Run) -> tuple[Showing, ...]:
    """The second person first; nothing where there is one person, or the tower takes persons alike."""
    return () if run.persons < 2 or motion.takes_persons_alike(run.settings.motion) else (Showing("swap", swapped=True),)


def mirror(data: TrainingData, named: bool) -> tuple[Showing, ...]:
    """Left and right exchanged, in captions too; raw features have no mirror. data: the training motions as a model sees them.

    Where rotations cannot be mirrored the view is left out, aloud, or if it is named that is a SettingFault.
    """
    if data.store.settings.kind == "raw":
        return ()
    try:
        return (Showing("mirror", mirror=augment.find_mirror(data, FLAG)),)
    except SettingFault as fault:
        if named:
            raise
        print(f"no view in the mirror: {fault}")
        return ()


def joined(text: np.ndarray, motions: np.ndarray, seen: Sequence[Seen]) -> tuple[np.ndarray, np.ndarray]:
    """(C, v) and (M, v) vectors whose products are the sum of the plain similarities and those of views, in units of the plain ones."""
    told = weighed([text, *(own.text for own in seen)], [own.deviation for own in seen])
    return told, np.concatenate([motions, *(own.motion for own in seen)], axis=1)


def weighed(told: Sequence[np.ndarray], deviations: Sequence[float]) -> np.ndarray:
    """(C, v) what captions say plainly and in views, each view's divided by the deviation of its similarities.

    A caption that a view cannot tell, one that cannot be mirrored, has zeros there: its plain similarity stands in, so that it stays on the
    scale of the others.
    """
    plain, *shown = told
    absent = sum((~own.any(axis=1) for own in shown), np.zeros(len(plain), dtype=int))
    blocks = [own / by for own, by in zip(shown, deviations, strict=True)]
    return np.concatenate([plain * (1 + absent)[:, None].astype(plain.dtype), *blocks], axis=1)


def origin(run: Run, fold: int, view: Showing, text: np.ndarray, motions: np.ndarray) -> str:
    """Changes with the checkpoint of a fold, with what it says plainly, text (C, v) and motions (M, v), and, for a view in the mirror,
    with the rules that mirror captions."""
    content = hashlib.blake2b(digest_size=8)
    for vectors in (text, motions):
        content.update(np.ascontiguousarray(vectors))
    rules = provenance.caption_rules() if view.mirror else ""
    return files.digest(runs.best_checkpoint(run.part(fold)).name, content.hexdigest(), rules)


def load(run: Run, fold: int, view: Showing) -> Seen | None:
    """What is kept of a view; None where there is nothing, or half a file."""
    own, beside = _file(run, fold, view), run.part(fold) / f"oof_{view.name}.npz"
    try:
        with np.load(own if own.is_file() else beside, allow_pickle=False) as kept:
            return Seen(kept["text"], kept["motion"], float(kept["deviation"]), str(kept["of"]))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def save(run: Run, fold: int, view: Showing, seen: Seen) -> None:
    """Keeps what a fold's model says in a view."""
    files.write_whole(_file(run, fold, view), lambda beside: np.savez(beside, **vars(seen)))


def _file(run: Run, fold: int, view: Showing) -> Path:
    """Beside oof.npz, or where the run's folder is read-only in its output folder."""
    return run.output_dir / run.part(fold).name / f"oof_{view.name}.npz"
