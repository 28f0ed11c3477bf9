"""What a run computes with: the device, its precision, and the motions and captions put where it can reach them."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from motret.config.training import TrainConfig
from motret.data import augment, captions
from motret.data.augment import Augmentation
from motret.data.batching import CaptionTable, MotionTensors
from motret.data.dataset import TrainingData
from motret.data.folds import Folds
from motret.data.inputs import CaptionBank
from motret.data.parts.part_texts import mirror_parts
from motret.formats.gar import PartDescriptions
from motret.models import text_tower
from motret.runs import checkpoints
from motret.runs.run import Run
from motret.skeleton import PARTS
from motret.utils.device import autocast, choose_device, uses_bfloat16


@dataclass(frozen=True)
class TrainContext:
    """What all folds of a run share: the motions and captions on the device, and what to compute with."""

    device: torch.device
    amp: bool
    motions: MotionTensors
    bank: CaptionBank
    table: CaptionTable
    centred_captions: Tensor | None
    """(n, dim) unit vectors of the bank's captions by the text tower as published, centred; None where it starts from scratch."""
    part_texts: Tensor | None = None
    """(M, 5) bank rows of the part texts of each training motion, -1 where a part is undefined."""
    mirrored_part_texts: Tensor | None = None
    """The same of the motions in the mirror, where some are mirrored: what is said of the part on the other side, left for right.

    Of motions that are never mirrored they are the plain ones."""
    augmentation: Augmentation | None = None
    """What training batches are changed by."""
    caption_sides: Tensor | None = None
    """(n, 2) which sides each of the bank's captions names, as a number, and the number of the opposite ones (-1 where it names none)."""

    def autocast(self) -> contextlib.AbstractContextManager:
        return autocast(self.device, self.amp)


@dataclass(frozen=True)
class FoldContext:
    """One fold of a run (None: the model of all motions) and all that its training needs."""

    run: Run
    fold: int | None
    data: TrainingData
    folds: Folds
    context: TrainContext
    tower: text_tower.TextTower

    @property
    def config(self) -> TrainConfig:
        return self.run.config

    @property
    def fold_dir(self) -> Path:
        """Folder of the fold's checkpoints and results."""
        return self.run.fold_dir(self.fold)

    @property
    def seed(self) -> int:
        """All random choices of the fold's training follow from it."""
        return checkpoints.fold_seed(self.config, self.fold)

    @cached_property
    def train_idx(self) -> np.ndarray:
        """Indices of the training motions."""
        if self.fold is None:
            return np.arange(len(self.data.training.ids))
        return self.folds.train_idx(self.fold)

    @cached_property
    def val_idx(self) -> np.ndarray:
        """Indices of the held-out motions; none where all motions are trained on."""
        return np.array([], dtype=int) if self.fold is None else self.folds.val_idx(self.fold)


def make_context(
    config: TrainConfig,
    data: TrainingData,
    bank: CaptionBank,
    parts: Sequence[PartDescriptions] | None = None,
    published: CaptionBank | None = None,
) -> TrainContext:
    """Puts data where it is computed on.

    parts: the part texts of each training motion; published: the same captions as the bank's by the text tower as it was published,
    where the bank's own tower trains. The bank holds all captions and part texts, and where --mirror is on what they say in the mirror
    (`caption_mirror.mirror_caption`).
    """
    device = choose_device(config.machine.device)
    amp = uses_bfloat16(config.fit.amp, device)
    bank = bank.to(device)
    mirrors = config.augment.mirror > 0
    table = CaptionTable(data.training.captions, bank, device, config.loss.captions == "random", mirrors)
    vectors = (published or bank).vectors
    similar = None if vectors is None else centred(vectors.to(device).float(), table.caption_idx.unique())
    named = None if similar is None else _side_codes(sorted(bank.index, key=bank.index.get)).to(device)
    rows = None if parts is None else _part_text_rows(parts, bank).to(device)
    mirrored = _part_text_rows([mirror_parts(own) or own for own in parts], bank).to(device) if parts is not None and mirrors else None
    motions, augmentation = MotionTensors(data.store, config.motion, device), augment.make_augmentation(config, data, device, parts)
    return TrainContext(device, amp, motions, bank, table, similar, rows, mirrored, augmentation, named)


def centred(vectors: Tensor, rows: Tensor) -> Tensor:
    """(n, dim) unit vectors of `vectors` (n, dim) less what those in `rows` have in common.

    Many encoders put all texts into a narrow cone: without their mean taken off, unrelated captions have cosines near 1.
    """
    unit = F.normalize(vectors, dim=-1)
    return F.normalize(unit - unit[rows].mean(dim=0), dim=-1)


def _side_codes(texts: Sequence[str]) -> Tensor:
    """`TrainContext.caption_sides` of these texts."""
    named = [captions.named_sides(text) for text in texts]
    codes = {text: code for code, text in enumerate(dict.fromkeys(side for one in named for side in (one, captions.opposite_sides(one))))}
    return torch.tensor([[codes[one], codes[captions.opposite_sides(one)] if one else -1] for one in named])


def _part_text_rows(parts: Sequence[PartDescriptions], bank: CaptionBank) -> Tensor:
    return torch.tensor([[-1 if own[part] is None else bank.index[own[part]] for part in PARTS] for own in parts])
