"""What training computes with: device and precision, motions and captions on the device, and what
belongs to one fold."""

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
from motret.models.text_tower import TextTower
from motret.runs import checkpoints
from motret.runs.run import Run
from motret.skeleton import PARTS
from motret.training.distributed import ONE_PROCESS, Ranks
from motret.utils.device import autocast, choose_device, to_device, training_dtype


@dataclass(frozen=True)
class TrainContext:
    """What all folds of a run share: the motions and captions on the device, and the precision.

    What decides the shape of a batch is on the CPU: indices, lengths, tokens. dtype: what matrix
    products are computed in, None: float32.
    """

    device: torch.device
    dtype: torch.dtype | None
    motions: MotionTensors
    bank: CaptionBank
    table: CaptionTable
    centred_captions: Tensor | None
    """(n, dim) unit vectors of the bank's captions by the published text tower, centred; None for a
    tower from scratch."""
    part_texts: Tensor | None = None
    """(M, 5) bank indices of each training motion's part texts, -1 where a part is undefined; on
    the CPU."""
    mirrored_part_texts: Tensor | None = None
    """(M, 5) the same of the mirrored motions: the text of the other side's part, left and right
    exchanged.

    Of motions that are never mirrored they are the plain ones. None where no motion is mirrored.
    """
    augmentation: Augmentation | None = None
    """Random changes of training batches."""
    caption_sides: Tensor | None = None
    """(n, 2) code of the sides that each of the bank's captions names, and code of the opposite
    sides (-1 where it names none)."""
    ranks: Ranks = ONE_PROCESS
    """The processes that share each batch."""

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Matrix products in the precision of --amp."""
        return autocast(self.device, self.dtype)

    def make_scaler(self) -> torch.amp.GradScaler:
        """Scales the loss where gradients are computed in float16, whose range is small; elsewhere
        it does nothing."""
        is_needed = self.dtype is torch.float16
        return torch.amp.GradScaler(self.device.type, enabled=is_needed)


@dataclass(frozen=True)
class FoldContext:
    """One fold of a run (None: the model of all motions) and all that its training needs."""

    run: Run
    fold: int | None
    data: TrainingData
    folds: Folds
    context: TrainContext
    tower: TextTower

    @property
    def config(self) -> TrainConfig:
        """Settings of the run."""
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
        """Indices of the motions to train on."""
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
    """Moves data to the device that computes.

    bank: all captions and part texts, with --mirror also their mirrored forms
    (`caption_mirror.mirror_caption`); parts: the part texts of each training motion; published: the
    same captions by the published text tower, where the bank's tower is trained.
    """
    device = choose_device(config.machine.device)
    bank = bank.to(device)
    mirrors = config.augment.mirror > 0
    table = CaptionTable(data.training.captions, bank, config.loss.captions == "random", mirrors)
    vectors = (published or bank).vectors
    centred_captions = caption_sides = part_texts = mirrored_part_texts = None
    if vectors is not None:
        centred_captions = centre(vectors.to(device).float(), table.caption_idx.unique())
        caption_sides = _side_codes(sorted(bank.index, key=bank.index.__getitem__)).to(device)
    if parts is not None:
        part_texts = _part_text_idx(parts, bank)
    if parts is not None and mirrors:
        mirrored_part_texts = _part_text_idx(
            [mirror_parts(texts) or texts for texts in parts], bank
        )
    return TrainContext(
        device=device,
        dtype=training_dtype(config.fit.amp, device),
        motions=MotionTensors(data.store, config.motion, device),
        bank=bank,
        table=table,
        centred_captions=centred_captions,
        part_texts=part_texts,
        mirrored_part_texts=mirrored_part_texts,
        augmentation=augment.make_augmentation(config, data, device, parts),
        caption_sides=caption_sides,
    )


def centre(vectors: Tensor, index: Tensor) -> Tensor:
    """(n, dim) unit vectors of `vectors` (n, dim) less the mean of those at `index`.

    Many encoders put all texts into a narrow cone: with their mean left in, unrelated captions have
    cosines near 1.
    """
    unit = F.normalize(vectors, dim=-1)
    mean = unit[to_device(index, unit.device)].mean(dim=0)
    return F.normalize(unit - mean, dim=-1)


def _side_codes(texts: Sequence[str]) -> Tensor:
    """`TrainContext.caption_sides` of these texts."""
    named = [captions.named_sides(text) for text in texts]
    both = (
        sides for text_sides in named for sides in (text_sides, captions.opposite_sides(text_sides))
    )
    codes = {sides: code for code, sides in enumerate(dict.fromkeys(both))}
    return torch.tensor(
        [[codes[sides], codes[captions.opposite_sides(sides)] if sides else -1] for sides in named]
    )


def _part_text_idx(parts: Sequence[PartDescriptions], bank: CaptionBank) -> Tensor:
    """(M, 5) bank indices of the part texts, -1 where a part has none."""
    texts = [[motion_parts[part] for part in PARTS] for motion_parts in parts]
    return torch.tensor(
        [
            [-1 if text is None else bank.index[text] for text in motion_texts]
            for motion_texts in texts
        ]
    )
