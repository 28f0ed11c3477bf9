"""Augmentation of packed features, a batch at a time: mirror, person swap, speed, crop, masked
frames, noise.

`Mirror` and the speeds of `MotionTensors.gather` are plain functions of a batch; `Augmentation`
draws them for training.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from motret.config.training import AugmentConfig, TrainConfig
from motret.data import captions, rotations
from motret.data.caption_mirror import mirror_caption
from motret.data.dataset import TrainingData
from motret.data.feature_blocks import Columns, mirror_block
from motret.data.inputs import MotionBatch
from motret.data.rotations import FittedConvention
from motret.errors import ConfigError
from motret.formats.gar import PartDescriptions
from motret.utils.device import to_device

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mirror:
    """What a mirror does to features: order (D,), the column that each comes from, and sign (D,),
    what it is multiplied by."""

    order: Tensor
    sign: Tensor

    def __call__(self, frames: Tensor) -> Tensor:
        """Frames (..., D) with left and right exchanged, of the body and of the room; twice gives
        the same numbers again."""
        return frames[..., self.order] * self.sign

    def to(self, device: torch.device) -> "Mirror":
        return Mirror(self.order.to(device), self.sign.to(device))


def make_mirror(columns: Columns, convention: FittedConvention | None = None) -> Mirror:
    """The mirror of features with these columns; convention: what their rotations mean, where they
    have any. DataError where the mirror of a block does not fit its columns."""
    orders, signs = [], []
    for name, block_columns in columns.items():
        width = block_columns.stop - block_columns.start
        order, sign = mirror_block(name, columns.body, convention, width)
        orders.append(block_columns.start + order)
        signs.append(sign)
    return Mirror(
        torch.from_numpy(np.concatenate(orders)), torch.from_numpy(np.concatenate(signs)).float()
    )


def find_mirror(data: TrainingData, flag: str) -> Mirror:
    """The mirror of a data set's features.

    ConfigError of the flag that asks for it where the rotations fit no known convention.
    """
    columns = data.store.columns
    if "rotation" not in columns:
        return make_mirror(columns)
    fitted = rotations.find_convention_in_files(data.training.paths, data.store.config.metres)
    if not fitted.fits:
        problem = f"the joint rotations fit no known convention; nearest: {fitted}"
        fix = "leave them out with --no_rotations, or leave this flag out"
        raise ConfigError(flag, problem, fix)
    return make_mirror(columns, fitted)


def resampled_length(frames: Tensor, speed: Tensor | None) -> Tensor:
    """Frames (B,) of motions of `frames` (B,) frames at a speed (B,), 1 where None; the last is the
    last that still fits."""
    return frames if speed is None else ((frames - 1) / speed).floor().long() + 1


@dataclass(frozen=True)
class BatchAugmentation:
    """How the motions of a batch are changed; None where none of them is.

    speed: (B,) how many times as fast they run; crop: (B, 2) first frame and number of frames of
    the piece that stays; mirrored, swapped: (B,) which motions are mirrored, and which have their
    persons swapped.
    """

    speed: Tensor | None = None
    crop: Tensor | None = None
    mirrored: Tensor | None = None
    swapped: Tensor | None = None

    def select(self, index: Tensor | slice) -> "BatchAugmentation":
        """The same of some motions of the batch."""
        fields = (self.speed, self.crop, self.mirrored, self.swapped)
        return BatchAugmentation(*(None if field is None else field[index] for field in fields))

    def lengths(self, whole: Tensor) -> Tensor:
        """Frames (B,) of changed motions that have `whole` (B,) frames."""
        return resampled_length(whole if self.crop is None else self.crop[:, 1], self.speed)


@dataclass(frozen=True)
class Augmentation:
    """Draws the changes of training batches.

    mirror: None where motions are not mirrored; swappable: (M,) training motions whose captions do
    not name the persons by their order; mirrorable: (M,) those whose captions and part texts can
    all be mirrored. Both are on the CPU, as are the changes: batches are planned there.
    """

    config: AugmentConfig
    mirror: Mirror | None
    swappable: Tensor
    mirrorable: Tensor

    def sample(
        self, train_idx: Tensor, whole: Tensor, generator: torch.Generator
    ) -> BatchAugmentation:
        """Changes of training motions (B,) that have `whole` (B,) frames. What is off draws no
        random number."""
        config = self.config

        def noise() -> Tensor:
            return torch.rand(len(train_idx), generator=generator)

        speed = crop = mirrored = swapped = None
        if config.speed > 1:
            speed = config.speed ** (2 * noise() - 1)
        if config.crop:
            crop = random_crop(whole, config.crop, noise(), noise())
        if self.mirror is not None:
            mirrored = (noise() < config.mirror) & self.mirrorable[train_idx]
        if config.person_swap:
            swapped = (noise() < config.person_swap) & self.swappable[train_idx]
        return BatchAugmentation(speed, crop, mirrored, swapped)

    def apply(self, batch: MotionBatch, changes: BatchAugmentation) -> MotionBatch:
        """The batch with some motions mirrored and some with their persons swapped; speed and crop
        are `gather`'s."""
        frames = batch.frames
        if changes.mirrored is not None:
            assert self.mirror is not None
            frames = _change_some(frames, changes.mirrored, self.mirror)
        if changes.swapped is not None:
            frames = _change_some(frames, changes.swapped, swap_persons)
        return batch.with_frames(frames)


def make_augmentation(
    config: TrainConfig,
    data: TrainingData,
    device: torch.device,
    parts: Sequence[PartDescriptions] | None = None,
) -> Augmentation | None:
    """The augmentation of the training batches, None where all is off. ConfigError where a flag
    does not fit the data.

    parts: the part texts of each motion, where they are trained on. Motions whose rotations cannot
    be mirrored are not mirrored, with a warning: --mirror is on by default. Nor is a motion with a
    text that cannot be mirrored.
    """
    augment = config.augment
    if not (augment.mirror or augment.person_swap or augment.crop or augment.speed > 1):
        return None
    if augment.person_swap and data.store.persons < 2:
        raise ConfigError("--person_swap", "these motions are of one person", "leave it out")
    mirror = None
    if augment.mirror:
        try:
            mirror = find_mirror(data, "--mirror").to(device)
        except ConfigError as error:
            warnings.warn(f"nothing is mirrored: {error}", stacklevel=2)
    has_order = [
        any(map(captions.mentions_person_order, texts)) for texts in data.training.captions
    ]
    mirrorable = (
        np.zeros(len(has_order), dtype=bool) if mirror is None else _mirrorable(data, parts)
    )
    return Augmentation(
        augment,
        mirror,
        swappable=~torch.tensor(has_order),
        mirrorable=torch.from_numpy(mirrorable),
    )


def _mirrorable(data: TrainingData, parts: Sequence[PartDescriptions] | None) -> np.ndarray:
    """Which motions (M,) have captions and part texts that can all be mirrored; logs how many have
    not."""
    texts = [list(captions) for captions in data.training.captions]
    for motion_texts, part_texts in zip(texts, parts or (), strict=False):
        motion_texts += filter(None, part_texts.values())
    mirrorable = np.array(
        [all(mirror_caption(text) is not None for text in motion_texts) for motion_texts in texts]
    )
    if not mirrorable.all():
        left_out = np.flatnonzero(~mirrorable)
        example = next(text for text in texts[left_out[0]] if mirror_caption(text) is None)
        logger.info(
            f"{len(left_out)} of {len(texts)} motions are not mirrored, as it is not certain how to"
            f" mirror their texts (as {example!r})"
        )
    return mirrorable


def swap_persons(frames: Tensor) -> Tensor:
    """Frames (B, T, persons, D) with the second person first."""
    return frames.flip(2)


def random_crop(whole: Tensor, fraction: float, rand_size: Tensor, rand_offset: Tensor) -> Tensor:
    """First frame and number of frames (B, 2) of a contiguous piece of motions of `whole` (B,)
    frames.

    Up to `fraction` of the frames are cut off. rand_size, rand_offset: (B,) random numbers in [0,
    1).
    """
    size = ((1 - fraction * rand_size) * whole).ceil().long().clamp(min=1)
    offset = (rand_offset * (whole - size + 1)).long().minimum(whole - size)
    return torch.stack([offset, size], dim=1)


def mask_frames(batch: MotionBatch, frames: Tensor, prob: float) -> Tensor:
    """Standardised frames (B, T, persons, D), each frame of all persons set to 0, the mean, with a
    probability.

    Not to the frame before: at 30 frames a second that is nearly the frame itself, and nothing
    would be hidden.
    """
    is_visible = batch.draw(torch.rand, frames.shape[1]) >= prob
    return frames * is_visible[..., None, None]


def add_noise(batch: MotionBatch, frames: Tensor, deviation: float) -> Tensor:
    """Standardised frames with Gaussian noise; `deviation` is in units of each feature's own
    deviation."""
    return frames + deviation * batch.draw(torch.randn, *frames.shape[1:])


def offset_rotations(
    batch: MotionBatch, frames: Tensor, rotation: slice, deviation: float
) -> Tensor:
    """Standardised frames (B, T, persons, D) with an offset of each person's rotation features, the
    same in all frames; `deviation` is in units of each feature's own deviation.

    A joint's rotation is told from how it rests, and bodies and captures differ in that.
    """
    shape = 1, frames.shape[2], rotation.stop - rotation.start
    changed = frames[..., rotation] + deviation * batch.draw(torch.randn, *shape)
    return torch.cat([frames[..., : rotation.start], changed, frames[..., rotation.stop :]], dim=-1)


def _change_some(frames: Tensor, mask: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The frames with those of the motions in `mask` (B,), which is on the CPU, changed."""
    index = to_device(mask.nonzero()[:, 0], frames.device)
    return frames.index_copy(0, index, change(frames[index]))
