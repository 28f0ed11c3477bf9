"""Test-time augmentation: motions mirrored, at other speeds, or with the persons swapped.

Their captions are mirrored with them. A view is a further similarity of the same models. With views
a member's similarity is the mean over the plain one and those in its views, each divided by its own
standard deviation over a held-out gallery. The held-out embeddings of a view are cached next to
`oof.npz`, as `oof_<view>.npz`.
"""

import hashlib
import logging
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
from motret.data.inputs import MotionBatch, Shard
from motret.ensemble.galleries import ViewEmbeddings
from motret.errors import ConfigError, DataError, RunError
from motret.models import registry
from motret.runs import checkpoints, provenance
from motret.runs.run import Run
from motret.utils import files, reading

SPEEDS = (0.9, 1.1)
"""Speeds of the view "speed", as a multiple of the recorded one."""
FLAG = "--views"
FORMER_NAMES = {"of": "cache_key"}
"""Arrays of an `oof_<view>.npz` under the names that earlier versions gave them."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TtaView:
    """One way to see motions again.

    speed: as a multiple of the recorded one; mirror: of the features, and of the captions with
    them; swapped: the second person first.
    """

    name: str
    speed: float | None = None
    mirror: Mirror | None = None
    swapped: bool = False


class ViewedMotions(MotionTensors):
    """The motions of a store as a view shows them."""

    def __init__(
        self, store: FeatureStore, config: MotionConfig, device: torch.device, view: TtaView
    ):
        super().__init__(store, config, device)
        self.view = view
        self.mirror = None if view.mirror is None else view.mirror.to(device)

    def gather(
        self,
        motion_idx: Tensor,
        generator: torch.Generator | None = None,
        speed: Tensor | None = None,
        crop: Tensor | None = None,
        shard: Shard | None = None,
    ) -> MotionBatch:
        """As `MotionTensors.gather`, at the view's speed unless another is given."""
        if speed is None and self.view.speed is not None:
            speed = torch.full((len(motion_idx),), self.view.speed)
        batch = super().gather(motion_idx, generator, speed, crop, shard)
        frames = batch.frames if self.mirror is None else self.mirror(batch.frames)
        if self.view.swapped:
            frames = augment.swap_persons(frames)
        return batch.with_frames(frames)


def speed_views() -> tuple[TtaView, ...]:
    """Motions slower and faster, their captions as they are."""
    return tuple(TtaView(f"speed{speed:g}", speed=speed) for speed in SPEEDS)


def swap_views(run: Run) -> tuple[TtaView, ...]:
    """The second person first; none for one person or a person-symmetric tower."""
    if run.persons < 2 or registry.is_person_symmetric(run.config.motion):
        return ()
    return (TtaView("swap", swapped=True),)


def mirror_views(data: TrainingData, named: bool) -> tuple[TtaView, ...]:
    """Left and right exchanged, in captions too; none for raw features.

    data: the training motions with a model's features. Where rotations cannot be mirrored there is
    no view and a message says why, or if the command names the view, a ConfigError.
    """
    if data.store.config.kind == "raw":
        return ()
    try:
        return (TtaView("mirror", mirror=augment.find_mirror(data, FLAG)),)
    except ConfigError as error:
        if named:
            raise
        logger.info("no mirrored view: %s", error)
        return ()


def view_cache_key(run: Run, fold: int, view: TtaView, text: np.ndarray, motion: np.ndarray) -> str:
    """Changes with a fold's checkpoint and its plain embeddings text (C, d), motion (M, d).

    For a mirrored view it also changes with the rules that mirror captions.
    """
    content = hashlib.blake2b(digest_size=8)
    for embeddings in (text, motion):
        content.update(embeddings.tobytes())
    rules = provenance.caption_rules() if view.mirror else ""
    return files.content_hash(
        checkpoints.best_checkpoint(run.fold_dir(fold)).name, content.hexdigest(), rules
    )


def load_view_embeddings(run: Run, fold: int, view: TtaView) -> ViewEmbeddings | None:
    """The cached embeddings of a view; None where there are none, or with a message, where the file
    is broken."""
    cached, next_to_oof = _cache_file(run, fold, view), run.fold_dir(fold) / f"oof_{view.name}.npz"
    path = cached if reading.exists(cached) else next_to_oof
    if not reading.exists(path):
        return None
    try:
        return _read_view(path)
    except DataError as error:
        logger.warning(f"warning: {path}: {error.problem}: the view is embedded again")
        return None


def _read_view(path: Path) -> ViewEmbeddings:
    arrays = reading.read_npz(path, "remove it")
    arrays = {FORMER_NAMES.get(name, name): array for name, array in arrays.items()}
    with reading.boundary(path, "holds no embeddings of a view", "remove it"):
        text, motion = (reading.array_of(arrays, name, "f", 2) for name in ("text", "motion"))
        if text.shape[1] != motion.shape[1]:
            raise ValueError("its vectors are of different sizes")
        deviation = float(reading.array_of(arrays, "deviation", "f", 0))
        return ViewEmbeddings(text, motion, deviation, str(arrays["cache_key"]))


def save_view_embeddings(run: Run, fold: int, view: TtaView, embeddings: ViewEmbeddings) -> None:
    """Caches the held-out embeddings of a view."""
    reading.check_output(_cache_file(run, fold, view).parent, run.output_dir, RunError)
    arrays = {name: np.asarray(value) for name, value in vars(embeddings).items()}
    files.write_npz(_cache_file(run, fold, view), arrays)


def _cache_file(run: Run, fold: int, view: TtaView) -> Path:
    """Next to oof.npz, or where the run's folder is read-only in its output folder."""
    return run.output_dir / run.fold_dir(fold).name / f"oof_{view.name}.npz"
