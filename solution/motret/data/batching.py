"""Batches: distinct motions with all their captions, motions of like length computed together."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from motret.config.training import MotionConfig
from motret.data import augment, caption_mirror, features
from motret.data.augment import Augmentation, BatchAugmentation
from motret.data.feature_store import FeatureStore
from motret.data.inputs import CaptionBank, MotionBatch

N_LENGTH_BUCKETS = 2
"""A batch is computed in so many pieces of like length: less padding, and the negatives stay a fair draw."""
EVAL_BATCH_SIZE = 128


@dataclass(frozen=True)
class Batch:
    """One step's motions, sorted by length: in pieces for the tower; captions (C,) as rows of the bank, owner (C,) motion of each."""

    train_idx: Tensor
    """(B,) which training motions they are."""
    buckets: tuple[MotionBatch, ...]
    caption_idx: Tensor
    motion_idx: Tensor
    mirrored: Tensor | None = None
    """(B,) which motions are shown in the mirror, and their captions with them."""
    generator: torch.Generator | None = None
    """Where what else is drawn comes from."""

    def split(self, count: int) -> list["Batch"]:
        """The batch as `count` batches of some of its pieces each, in their order; fewer where there are fewer pieces."""
        each = -(-len(self.buckets) // count)
        groups = [self.buckets[at : at + each] for at in range(0, len(self.buckets), each)]
        found, start = [], 0
        for group in groups:
            end = start + sum(len(piece.lengths) for piece in group)
            mine = (self.motion_idx >= start) & (self.motion_idx < end)
            mirrored = None if self.mirrored is None else self.mirrored[start:end]
            found.append(
                Batch(self.train_idx[start:end], group, self.caption_idx[mine], self.motion_idx[mine] - start, mirrored, self.generator)
            )
            start = end
        return found


class MotionTensors:
    """The motions of a store as tensors on the device that computes; everything is indexed, nothing is looped over."""

    def __init__(self, store: FeatureStore, config: MotionConfig, device: torch.device):
        self.features = torch.from_numpy(store.features)
        if device.type != "cpu":
            self.features = self.features.to(device)
        self.offsets, self.lengths = torch.from_numpy(store.offsets).to(device), torch.from_numpy(store.lengths).to(device)
        self.config, self.device, self.columns = config, device, store.columns

    def gather(
        self, rows: Tensor, generator: torch.Generator | None = None, speed: Tensor | None = None, crop: Tensor | None = None
    ) -> MotionBatch:
        """The motions in `rows`, float32, held at their last frame up to the longest; long ones shortened by `long_motions`.

        pace: (B,) how many times as fast each runs, by its nearest frames and with its velocities scaled alike; window: (B, 2) first
        frame and number of frames of the only part that is shown.
        """
        first, whole = (0, self.lengths[rows]) if crop is None else crop.unbind(dim=1)
        limit, shown = self.config.max_frames, augment.resampled_length(whole, speed)
        lengths, step = shown.clamp(max=limit), torch.ones((), device=self.device) if speed is None else speed
        number = torch.arange(int(lengths.max()), device=self.device).minimum(lengths[:, None] - 1)
        if self.config.long_motions == "subsample":  # the kept frames spread evenly from first to last
            step = torch.where(shown > limit, (whole - 1) / (lengths - 1).clamp(min=1), step)
        else:
            number = number + ((shown - lengths) // 2 * (self.config.long_motions == "crop"))[:, None]
        at = (number * step[..., None]).round().long()
        frames = self.features[(self.offsets[rows] + first)[:, None] + at].float()
        if speed is not None:
            for rates in features.rate_columns(self.columns):
                frames[..., rates] *= speed[:, None, None, None]
        return MotionBatch(frames, lengths, generator)

    def statistics(self, rows: Tensor, every: int = 8) -> tuple[Tensor, Tensor]:
        """Mean and deviation (D,) over persons and every eighth frame of the motions in `rows`."""
        total = square = 0.0
        count = 0
        for part in rows.split(EVAL_BATCH_SIZE):
            lengths = self.lengths[part]
            steps = torch.arange(0, int(lengths.max()), every, device=self.device)
            at = (self.offsets[part][:, None] + steps)[steps < lengths[:, None]]
            frames = self.features[at].double().flatten(0, 1)
            total, square, count = total + frames.sum(0), square + (frames**2).sum(0), count + len(frames)
        mean = total / count
        return mean.float(), (square / count - mean**2).clamp(min=0).sqrt().float()


class CaptionTable:
    """All captions of the training motions as rows of a bank: those of motion m are `rows[starts[m]:starts[m + 1]]`.

    one_each: a training step sees one caption of each motion, drawn anew, instead of all; mirrored: whether the bank holds what the
    captions say in the mirror too. A motion with a caption that cannot be mirrored is never asked for in the mirror (`augment.make_augmentation`).
    """

    def __init__(
        self,
        captions: tuple[tuple[str, ...], ...],
        bank: CaptionBank,
        device: torch.device,
        one_each: bool = False,
        mirrored: bool = False,
    ):
        said = [caption for own in captions for caption in own]
        self.caption_idx = bank.indices(said).to(device)
        mirror = caption_mirror.mirror_captions(said) if mirrored else {}
        self.mirrored_idx = bank.indices([mirror.get(caption, caption) for caption in said]).to(device) if mirrored else None
        self.counts = torch.tensor([len(own) for own in captions], device=device)
        self.starts = self.counts.cumsum(0) - self.counts
        self.one_each = one_each

    def captions_of(self, motions: Tensor, mirrored: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Bank rows (C,) of the captions of some motions (B,), and the place (C,) of each one's motion among them.

        mirrored: (B,) which of the motions are told as the mirror shows them.
        """
        counts = self.counts[motions]
        motion_idx = torch.repeat_interleave(counts)
        within = torch.arange(len(motion_idx), device=motion_idx.device) - (counts.cumsum(0) - counts)[motion_idx]
        return self._shown(self.starts[motions][motion_idx] + within, None if mirrored is None else mirrored[motion_idx]), motion_idx

    def sample_positives(self, motions: Tensor, noise: torch.Generator, mirrored: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same of the captions that a training step sees."""
        if not self.one_each:
            return self.captions_of(motions, mirrored)
        counts = self.counts[motions]
        drawn = (torch.rand(len(motions), generator=noise, device=motions.device) * counts).long().minimum(counts - 1)
        return self._shown(self.starts[motions] + drawn, mirrored), torch.arange(len(motions), device=motions.device)

    def _shown(self, at: Tensor, mirrored: Tensor | None) -> Tensor:
        return self.caption_idx[at] if mirrored is None else torch.where(mirrored, self.mirrored_idx[at], self.caption_idx[at])


def iterate_epoch(
    motions: MotionTensors,
    table: CaptionTable,
    rows: np.ndarray,
    batch_size: int,
    order: np.random.Generator,
    noise: torch.Generator,
    buckets: int = N_LENGTH_BUCKETS,
    augmentation: Augmentation | None = None,
) -> Iterator[Batch]:
    """The training motions in random batches of so many pieces, the rest of an uneven split left for another epoch."""
    shuffled = torch.from_numpy(order.permutation(rows)).to(motions.device)
    size = min(batch_size, len(rows))
    for start in range(0, len(rows) - size + 1, size):
        batch = shuffled[start : start + size]
        whole = motions.lengths[batch]
        view = BatchAugmentation() if augmentation is None else augmentation.draw(batch, whole, noise)
        by_length = view.lengths(whole).argsort(stable=True)
        batch, view = batch[by_length], view.of(by_length)
        places = torch.arange(size, device=motions.device).tensor_split(min(buckets, size))
        gathered = tuple(_make_bucket(motions, batch[own], view.of(own), noise, augmentation) for own in places)
        yield Batch(batch, gathered, *table.sample_positives(batch, noise, view.mirrored), view.mirrored, noise)


def _make_bucket(
    motions: MotionTensors, rows: Tensor, view: BatchAugmentation, noise: torch.Generator, augmentation: Augmentation | None
) -> MotionBatch:
    piece = motions.gather(rows, noise, view.speed, view.crop)
    return piece if augmentation is None else augmentation.show(piece, view)


def steps_per_epoch(motions: int, batch_size: int) -> int:
    """Number of batches `epoch` gives."""
    return motions // min(batch_size, motions)
