"""Augmentation of packed features, a batch at a time: a mirror, persons swapped, other speeds, cut-outs, masked frames, noise.

`Mirror` and the speeds of `Motions.gather` are plain functions of a batch; `Augmentation` draws them for training.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from motret.config.training import AugmentConfig, TrainConfig
from motret.data import caption_mirror, captions, features, rotations
from motret.data.dataset import TrainingData
from motret.data.inputs import MotionBatch
from motret.data.rotations import FittedConvention
from motret.errors import ConfigError
from motret.formats.gar import PartDescriptions


@dataclass(frozen=True)
class Mirror:
    """What a mirror does to canonical features: order (D,), the column that each comes from, and sign (D,), what it is multiplied by."""

    order: Tensor
    sign: Tensor

    def __call__(self, frames: Tensor) -> Tensor:
        """Frames (..., D) with the sides of the body and the room exchanged; twice gives the same numbers again."""
        return frames[..., self.order] * self.sign

    def to(self, device: torch.device) -> "Mirror":
        return Mirror(self.order.to(device), self.sign.to(device))


def make_mirror(columns: features.Columns, turns: FittedConvention | None = None) -> Mirror:
    """The mirror of features with these columns; turns: what their rotations mean, where they have any."""
    blocks: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # of each the order and the signs, as wide as the block
    pairs = columns.body.mirror
    points = (pairs[:, None] * 3 + np.arange(3)).ravel(), np.tile([-1.0, 1, 1], len(pairs))
    blocks["position"] = blocks["velocity"] = points
    blocks["root"] = np.arange(5), np.array([-1.0, 1, 1, -1, 1])  # velocity x, turning rate
    if "rotation" in columns:
        if turns is None:
            raise ValueError("rotations can be mirrored only where it is known what they mean")
        blocks["rotation"] = ((pairs[1:, None] - 1) * 6 + np.arange(6)).ravel(), np.tile(turns.signs(), len(pairs) - 1)
    reach = list(columns.body.contact_joints)
    other = np.array([reach.index(int(pairs[joint])) for joint in reach])
    gaps = (other[:, None] * len(reach) + other).ravel()
    blocks["relation"] = np.concatenate([np.arange(5), 5 + gaps]), np.array([-1.0, 1, 1, -1, 1] + [1] * len(gaps))  # place x, sine
    order = np.concatenate([part.start + blocks[name][0] for name, part in columns.items()])
    sign = np.concatenate([blocks[name][1] for name in columns])
    return Mirror(torch.from_numpy(order), torch.from_numpy(sign).float())


def find_mirror(data: TrainingData, flag: str) -> Mirror:
    """The mirror of a data set's features. ConfigError of the flag that asks for it where its rotations fit no known convention."""
    columns = data.store.columns
    if "rotation" not in columns:
        return make_mirror(columns)
    found = rotations.find_convention_in_files(data.training.paths, data.store.config.metres)
    if not found.fits:
        problem = f"the joint rotations fit no known convention; nearest: {found}"
        raise ConfigError(flag, problem, "leave them out with --no_rotations, or leave this flag out")
    return make_mirror(columns, found)


def resampled_length(frames: Tensor, speed: Tensor | None) -> Tensor:
    """Frames (B,) that motions have when they run at a pace (B,), 1 where None: the last one shown is the last that still fits."""
    return frames if speed is None else ((frames - 1) / speed).floor().long() + 1


@dataclass(frozen=True)
class BatchAugmentation:
    """How the motions of a batch are shown; None where all are shown as they are.

    pace: (B,) how many times as fast they run; window: (B, 2) first frame and number of frames of the cut-out; mirrored, swapped: (B,).
    """

    speed: Tensor | None = None
    crop: Tensor | None = None
    mirrored: Tensor | None = None
    swapped: Tensor | None = None

    def of(self, places: Tensor) -> "BatchAugmentation":
        """The view of some motions of the batch."""
        fields = (self.speed, self.crop, self.mirrored, self.swapped)
        return BatchAugmentation(*(None if field is None else field[places] for field in fields))

    def lengths(self, whole: Tensor) -> Tensor:
        """Frames (B,) that are left of motions of `whole` (B,) frames."""
        return resampled_length(whole if self.crop is None else self.crop[:, 1], self.speed)


@dataclass(frozen=True)
class Augmentation:
    """What training draws its views from.

    mirror: where motions are mirrored; swappable: (M,) training motions whose captions do not tell the persons by their order;
    mirrorable: (M,) those whose captions and part texts can all be mirrored.
    """

    config: AugmentConfig
    mirror: Mirror | None
    swappable: Tensor
    mirrorable: Tensor

    def draw(self, rows: Tensor, whole: Tensor, generator: torch.Generator) -> BatchAugmentation:
        """A view of the training motions `rows` (B,), which have `whole` (B,) frames. What is off draws nothing."""
        chosen = self.config

        def luck() -> Tensor:
            return torch.rand(len(rows), generator=generator, device=rows.device)

        speed = chosen.speed ** (2 * luck() - 1) if chosen.speed > 1 else None
        crop = random_crop(whole, chosen.crop, luck(), luck()) if chosen.crop else None
        mirrored = (luck() < chosen.mirror) & self.mirrorable[rows] if self.mirror is not None else None
        swapped = (luck() < chosen.person_swap) & self.swappable[rows] if chosen.person_swap else None
        return BatchAugmentation(speed, crop, mirrored, swapped)

    def show(self, batch: MotionBatch, view: BatchAugmentation) -> MotionBatch:
        """The batch with some motions mirrored and some with their persons swapped, as the view has it (pace and window: `gather`)."""
        frames = batch.frames
        if view.mirrored is not None:
            frames = _apply_to(frames, view.mirrored, self.mirror)
        if view.swapped is not None:
            frames = _apply_to(frames, view.swapped, swap_persons)
        return MotionBatch(frames, batch.lengths, batch.generator)


def make_augmentation(
    config: TrainConfig, data: TrainingData, device: torch.device, parts: Sequence[PartDescriptions] | None = None
) -> Augmentation | None:
    """What the training batches are drawn with; None where they are shown as they are. ConfigError where a flag does not fit the data.

    parts: the part texts of each motion, where they are learned from. Motions whose rotations cannot be mirrored are not, which a warning
    says: --mirror is on unless it is turned off. Nor is a motion with a text that cannot be mirrored.
    """
    chosen = config.augment
    if not (chosen.mirror or chosen.person_swap or chosen.crop or chosen.speed > 1):
        return None
    if chosen.person_swap and data.store.persons < 2:
        raise ConfigError("--person_swap", "these motions are of one person", "leave it out")
    mirror = None
    if chosen.mirror:
        try:
            mirror = find_mirror(data, "--mirror").to(device)
        except ConfigError as unfit:
            warnings.warn(f"nothing is mirrored: {unfit}", stacklevel=2)
    told = [any(map(captions.mentions_person_order, own)) for own in data.training.captions]
    mirrorable = _mirrorable(data, parts) if mirror is not None else np.zeros(len(told), dtype=bool)
    return Augmentation(chosen, mirror, ~torch.tensor(told, device=device), torch.from_numpy(mirrorable).to(device))


def _mirrorable(data: TrainingData, parts: Sequence[PartDescriptions] | None) -> np.ndarray:
    """Which motions (M,) have captions and part texts that can all be mirrored; says how many have not."""
    texts = [list(said) for said in data.training.captions]
    for own, described in zip(texts, parts or (), strict=False):
        own += filter(None, described.values())
    mirrorable = np.array([all(caption_mirror.mirror_caption(text) is not None for text in own) for own in texts])
    if not mirrorable.all():
        left_out = np.flatnonzero(~mirrorable)
        example = next(text for text in texts[left_out[0]] if caption_mirror.mirror_caption(text) is None)
        print(f"{len(left_out)} of {len(texts)} motions are not mirrored, as it is not certain how to mirror their texts (as {example!r})")
    return mirrorable


def swap_persons(frames: Tensor) -> Tensor:
    """Frames (B, T, persons, D) with the second person stored first."""
    return frames.flip(2)


def random_crop(whole: Tensor, share: float, how_much: Tensor, where: Tensor) -> Tensor:
    """First frame and number of frames (B, 2) of a contiguous piece of motions of `whole` (B,) frames: from 1 - `share` of them to all.

    how_much, where: (B,) luck in [0, 1).
    """
    kept = ((1 - share * how_much) * whole).ceil().long().clamp(min=1)
    return torch.stack([(where * (whole - kept + 1)).long().minimum(whole - kept), kept], dim=1)


def mask_frames(frames: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Standardised frames (B, T, persons, D) with a share of the points in time set to 0, the mean, for all persons.

    Not to the frame before: at 30 frames a second that is nearly the frame itself, and nothing would be hidden.
    """
    kept = torch.rand(frames.shape[:2], generator=generator, device=frames.device) >= share
    return frames * kept[..., None, None]


def add_noise(frames: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Standardised frames with Gaussian noise, so `deviation` is in units of each feature's own."""
    return frames + deviation * torch.randn(frames.shape, generator=generator, device=frames.device)


def _apply_to(frames: Tensor, which: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    places = which.nonzero()[:, 0]
    return frames.index_copy(0, places, change(frames[places]))
