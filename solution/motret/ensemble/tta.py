"""Test-time views: motions and their captions once more, in the mirror, at other speeds, or with the persons swapped.

A view is a further similarity of the same models. With views a member's similarity is the mean over the plain one and those of its views,
each in units of its own deviation over the gallery that the model had not seen. What a fold's model says there in a view is kept beside
`oof.npz`, as `oof_<view>.npz`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from motret.config.training import MotionConfig
from motret.data import augment
from motret.data.augment import Mirror
from motret.data.batching import MotionTensors
from motret.data.dataset import TrainingData
from motret.data.feature_store import FeatureStore
from motret.data.inputs import MotionBatch
from motret.errors import ConfigError
from motret.models import registry
from motret.runs import checkpoints, provenance
from motret.runs.run import Run
from motret.utils import files

SPEEDS = (0.9, 1.1)
"""Speeds of the view "speed", as a multiple of the recorded one."""
FLAG = "--views"


@dataclass(frozen=True, eq=False)
class TtaView:
    """How motions are shown once more. pace: how many times as fast they run; mirror: of their features, and of their captions too."""

    name: str
    speed: float | None = None
    mirror: Mirror | None = None
    swapped: bool = False


class ViewedMotions(MotionTensors):
    """The motions of a store as a view shows them."""

    def __init__(self, store: FeatureStore, config: MotionConfig, device: torch.device, view: TtaView):
        super().__init__(store, config, device)
        self.pace, self.swapped = view.speed, view.swapped
        self.mirror = None if view.mirror is None else view.mirror.to(device)

    def gather(self, rows: Tensor, *args, **values) -> MotionBatch:
        pace = None if self.pace is None else torch.full((len(rows),), self.pace, device=self.device)
        batch = super().gather(rows, *args, **{"speed": pace} | values)
        frames = batch.frames if self.mirror is None else self.mirror(batch.frames)
        return MotionBatch(augment.swap_persons(frames) if self.swapped else frames, batch.lengths, batch.generator)


@dataclass(frozen=True)
class ViewEmbeddings:
    """What a fold's model says of its held-out motions in a view.

    text: (C, v), zero for captions that the view cannot tell, and motion: (M, v), whose products are similarities; deviation: of these,
    as a multiple of the plain ones'; of: changes with the model that says it.
    """

    text: np.ndarray
    motion: np.ndarray
    deviation: float
    of: str


def speed_view() -> tuple[TtaView, ...]:
    """Motions faster and slower, their captions as they are."""
    return tuple(TtaView(f"speed{speed:g}", speed=speed) for speed in SPEEDS)


def swap_view(run: Run) -> tuple[TtaView, ...]:
    """The second person first; nothing where there is one person, or the tower takes persons alike."""
    return () if run.persons < 2 or registry.is_person_symmetric(run.config.motion) else (TtaView("swap", swapped=True),)


def mirror_view(data: TrainingData, named: bool) -> tuple[TtaView, ...]:
    """Left and right exchanged, in captions too; raw features have no mirror. data: the training motions as a model sees them.

    Where rotations cannot be mirrored the view is left out, aloud, or if it is named that is a ConfigError.
    """
    if data.store.config.kind == "raw":
        return ()
    try:
        return (TtaView("mirror", mirror=augment.find_mirror(data, FLAG)),)
    except ConfigError as fault:
        if named:
            raise
        print(f"no view in the mirror: {fault}")
        return ()


def concat_views(text: np.ndarray, motions: np.ndarray, seen: Sequence[ViewEmbeddings]) -> tuple[np.ndarray, np.ndarray]:
    """(C, v) and (M, v) vectors whose products are the sum of the plain similarities and those of views, in units of the plain ones."""
    told = scale_views([text, *(own.text for own in seen)], [own.deviation for own in seen])
    return told, np.concatenate([motions, *(own.motion for own in seen)], axis=1)


def scale_views(told: Sequence[np.ndarray], deviations: Sequence[float]) -> np.ndarray:
    """(C, v) what captions say plainly and in views, each view's divided by the deviation of its similarities.

    A caption that a view cannot tell, one that cannot be mirrored, has zeros there: its plain similarity stands in, so that it stays on the
    scale of the others.
    """
    plain, *shown = told
    absent = sum((~own.any(axis=1) for own in shown), np.zeros(len(plain), dtype=int))
    blocks = [own / by for own, by in zip(shown, deviations, strict=True)]
    return np.concatenate([plain * (1 + absent)[:, None].astype(plain.dtype), *blocks], axis=1)


def view_cache_key(run: Run, fold: int, view: TtaView, text: np.ndarray, motions: np.ndarray) -> str:
    """Changes with the checkpoint of a fold, with what it says plainly, text (C, v) and motions (M, v), and, for a view in the mirror,
    with the rules that mirror captions."""
    content = hashlib.blake2b(digest_size=8)
    for vectors in (text, motions):
        content.update(np.ascontiguousarray(vectors))
    rules = provenance.caption_rules() if view.mirror else ""
    return files.content_hash(checkpoints.best_checkpoint(run.fold_dir(fold)).name, content.hexdigest(), rules)


def load_view_embeddings(run: Run, fold: int, view: TtaView) -> ViewEmbeddings | None:
    """What is kept of a view; None where there is nothing, or half a file."""
    own, beside = _cache_file(run, fold, view), run.fold_dir(fold) / f"oof_{view.name}.npz"
    try:
        arrays = files.read_npz(own if own.is_file() else beside)
        return ViewEmbeddings(arrays["text"], arrays["motion"], float(arrays["deviation"]), str(arrays["of"]))
    except (OSError, ValueError, KeyError):
        return None


def save_view_embeddings(run: Run, fold: int, view: TtaView, seen: ViewEmbeddings) -> None:
    """Keeps what a fold's model says in a view."""
    files.write_npz(_cache_file(run, fold, view), vars(seen))


def _cache_file(run: Run, fold: int, view: TtaView) -> Path:
    """Beside oof.npz, or where the run's folder is read-only in its output folder."""
    return run.output_dir / run.fold_dir(fold).name / f"oof_{view.name}.npz"
