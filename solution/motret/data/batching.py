"""Batches: distinct motions with their captions, motions of similar length computed together.

A batch is planned on the CPU: indices, lengths and what augmentation draws for each motion. Its
features are gathered on the device. So every size is known without reading it back from a card.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from motret.config.training import MotionConfig
from motret.data import augment, caption_mirror, features
from motret.data.augment import Augmentation, BatchAugmentation
from motret.data.feature_store import FeatureStore
from motret.data.inputs import CaptionBank, MotionBatch, Shard
from motret.utils.device import to_device

N_LENGTH_BUCKETS = 2
"""A batch is computed in so many buckets of similar length: less padding, and the negatives stay a
random sample."""
EVAL_BATCH_SIZE = 128
STATISTICS_STEP = 8
"""Frames from one that the statistics of features are taken from to the next."""


@dataclass(frozen=True)
class Batch:
    """The motions of one training step, sorted by length, with their captions.

    train_idx: (B,) training motions; buckets: the same motions as inputs of the tower; caption_idx:
    (C,) captions in the bank; motion_idx: (C,) motion of each caption, counted in the batch;
    mirrored: (B,) which motions, and their captions, are mirrored; generator: source of all further
    random choices, on the device. Indices and `mirrored` are on the CPU. shard: where processes
    share the batch, the part of this one: the buckets hold its motions alone, all else is of all.
    """

    train_idx: Tensor
    buckets: tuple[MotionBatch, ...]
    caption_idx: Tensor
    motion_idx: Tensor
    mirrored: Tensor | None = None
    generator: torch.Generator | None = None
    shard: Shard | None = None

    def rows_of(self, shard: Shard) -> Tensor:
        """(b,) rows of the batch that a process embeds, in order."""
        rows = torch.arange(len(self.train_idx)).split([bucket.size for bucket in self.buckets])
        return torch.cat([bucket_rows[shard.rows(len(bucket_rows))] for bucket_rows in rows])

    def captions_of(self, shard: Shard) -> Tensor:
        """(c,) which captions of the batch a process embeds, in order: those of its motions."""
        return torch.isin(self.motion_idx, self.rows_of(shard)).nonzero()[:, 0]

    def split(self, count: int) -> list["Batch"]:
        """The batch as at most `count` batches, in order, each of whole buckets."""
        per_batch = -(-len(self.buckets) // count)
        batches = []
        start = 0
        for first in range(0, len(self.buckets), per_batch):
            buckets = self.buckets[first : first + per_batch]
            end = start + sum(bucket.size for bucket in buckets)
            inside = (self.motion_idx >= start) & (self.motion_idx < end)
            batches.append(
                replace(
                    self,
                    train_idx=self.train_idx[start:end],
                    buckets=buckets,
                    caption_idx=self.caption_idx[inside],
                    motion_idx=self.motion_idx[inside] - start,
                    mirrored=None if self.mirrored is None else self.mirrored[start:end],
                )
            )
            start = end
        return batches


class MotionTensors:
    """The motions of a store: features on the device that computes, offsets and lengths on the CPU.

    All access is by index.
    """

    def __init__(self, store: FeatureStore, config: MotionConfig, device: torch.device):
        self.features = torch.from_numpy(store.features).to(device)
        self.offsets = torch.from_numpy(store.offsets)
        self.lengths = torch.from_numpy(store.lengths)
        self.config, self.device, self.columns = config, device, store.columns

    def gather(
        self,
        motion_idx: Tensor,
        generator: torch.Generator | None = None,
        speed: Tensor | None = None,
        crop: Tensor | None = None,
        shard: Shard | None = None,
    ) -> MotionBatch:
        """Motions (B,) as a batch of float32 frames; long ones are shortened as `long_motions`
        says.

        motion_idx: on the CPU, as are: speed: (B,) how many times as fast each runs, by its nearest
        frames and with its rates scaled alike; crop: (B, 2) first frame and number of frames of the
        only piece that is used. shard: whose rows of them are gathered, None: all.
        """
        first, whole = (0, self.lengths[motion_idx]) if crop is None else crop.unbind(dim=1)
        resampled = augment.resampled_length(whole, speed)
        lengths = resampled.clamp(max=self.config.max_frames)
        step = torch.ones(len(lengths)) if speed is None else speed
        start = self.offsets[motion_idx] + first
        skipped = torch.zeros_like(lengths)
        if self.config.long_motions == "subsample":  # spread evenly from first to last
            is_long = resampled > self.config.max_frames
            step = torch.where(is_long, (whole - 1) / (lengths - 1).clamp(min=1), step)
        elif self.config.long_motions == "crop":
            skipped = (resampled - lengths) // 2
        longest = int(lengths.max())
        if shard is not None:
            rows = shard.rows(len(lengths))
            lengths, start, skipped, step = (each[rows] for each in (lengths, start, skipped, step))
            speed = None if speed is None else speed[rows]
        device_lengths = to_device(lengths, self.device)
        frame_idx = self._frame_idx(longest, device_lengths, start, skipped, step)
        frames = self.features[frame_idx].float()
        if speed is not None:
            factor = to_device(speed, self.device)[:, None, None, None]
            for rates in features.rate_columns(self.columns):
                frames[..., rates] *= factor
        return MotionBatch(
            frames, device_lengths, generator, lengths, shard, None if shard is None else len(whole)
        )

    def _frame_idx(
        self, count: int, lengths: Tensor, start: Tensor, skipped: Tensor, step: Tensor
    ) -> Tensor:
        """(B, count) indices of the frames, the last one again beyond a motion's length.

        lengths: (B,) on the device; start: (B,) index of each motion's first frame; skipped: (B,)
        frames left out after it, counted at `step`; step: (B,) frames from one to the next.
        """
        start, skipped, step = (to_device(each, self.device) for each in (start, skipped, step))
        position = torch.arange(count, device=self.device).minimum(lengths[:, None] - 1)
        return start[:, None] + ((position + skipped[:, None]) * step[:, None]).round().long()

    def statistics(self, motion_idx: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation (D,) of the features over persons and every eighth frame of some
        motions."""
        total = square = torch.zeros((), dtype=torch.float64, device=self.device)
        count = 0
        for chunk in motion_idx.split(EVAL_BATCH_SIZE):
            lengths = self.lengths[chunk]
            steps = torch.arange(0, int(lengths.max()), STATISTICS_STEP)
            frame_idx = (self.offsets[chunk][:, None] + steps)[steps < lengths[:, None]]
            frames = self.features[to_device(frame_idx, self.device)].double().flatten(0, 1)
            total, square = total + frames.sum(0), square + (frames**2).sum(0)
            count += len(frames)
        mean = total / count
        return mean.float(), (square / count - mean**2).clamp(min=0).sqrt().float()


class CaptionTable:
    """All captions of the training motions in a bank: those of motion m are `caption_idx[starts[m]
    : starts[m] + counts[m]]`. It is on the CPU.

    one_each: a training step uses one caption of each motion, drawn anew, instead of all; mirrored:
    whether the bank holds the mirrored captions too. A motion with a caption that cannot be
    mirrored is never mirrored (`augment.make_augmentation`).
    """

    def __init__(
        self,
        captions: tuple[tuple[str, ...], ...],
        bank: CaptionBank,
        one_each: bool = False,
        mirrored: bool = False,
    ):
        texts = [caption for motion_captions in captions for caption in motion_captions]
        self.caption_idx = bank.indices(texts)
        self.mirrored_idx: Tensor | None = None
        if mirrored:
            mirror = caption_mirror.mirror_captions(texts)
            self.mirrored_idx = bank.indices([mirror.get(text, text) for text in texts])
        self.counts = torch.tensor([len(texts) for texts in captions])
        self.starts = self.counts.cumsum(0) - self.counts
        self.one_each = one_each

    def captions_of(self, motions: Tensor, mirrored: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """All captions (C,) of some motions (B,), as indices of the bank, and the index (C,) of
        each one's motion among these.

        mirrored: (B,) of which motions the mirrored captions are meant.
        """
        counts = self.counts[motions]
        motion_idx = torch.repeat_interleave(counts)
        first = counts.cumsum(0) - counts
        within = torch.arange(len(motion_idx)) - first[motion_idx]
        position = self.starts[motions][motion_idx] + within
        return self._lookup(
            position, None if mirrored is None else mirrored[motion_idx]
        ), motion_idx

    def sample_positives(
        self, motions: Tensor, generator: torch.Generator, mirrored: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same of the captions that a training step uses: all, or one drawn for each motion."""
        if not self.one_each:
            return self.captions_of(motions, mirrored)
        counts = self.counts[motions]
        noise = torch.rand(len(motions), generator=generator)
        sampled = (noise * counts).long().minimum(counts - 1)
        motion_idx = torch.arange(len(motions))
        return self._lookup(self.starts[motions] + sampled, mirrored), motion_idx

    def _lookup(self, position: Tensor, mirrored: Tensor | None) -> Tensor:
        caption_idx = self.caption_idx[position]
        if mirrored is None:
            return caption_idx
        assert self.mirrored_idx is not None, "the bank holds no mirrored captions"
        return torch.where(mirrored, self.mirrored_idx[position], caption_idx)


@dataclass(frozen=True)
class EpochRandom:
    """Sources of an epoch's random choices.

    order: shuffles the motions; plan: draws what a batch is, on the CPU; noise: draws all else, on
    the device. In training on a CPU plan and noise are one.
    """

    order: np.random.Generator
    plan: torch.Generator
    noise: torch.Generator

    @classmethod
    def seeded(cls, order: np.random.Generator, seed: int, device: torch.device) -> "EpochRandom":
        """The sources of one seed for training on a device."""
        plan = torch.Generator().manual_seed(seed)
        is_cpu = device.type == "cpu"
        return cls(order, plan, plan if is_cpu else torch.Generator(device).manual_seed(seed))


def iterate_epoch(
    motions: MotionTensors,
    table: CaptionTable,
    train_idx: np.ndarray,
    batch_size: int,
    random: EpochRandom,
    buckets: int = N_LENGTH_BUCKETS,
    augmentation: Augmentation | None = None,
    shard: Shard | None = None,
) -> Iterator[Batch]:
    """The training motions in random batches, each in so many buckets; the rest of an uneven split
    is left out.

    shard: where processes share each batch, the part of this one. What is drawn does not depend on
    it.
    """
    shuffled = torch.from_numpy(random.order.permutation(train_idx))
    size = min(batch_size, len(train_idx))
    for start in range(0, len(train_idx) - size + 1, size):
        batch_idx = shuffled[start : start + size]
        whole = motions.lengths[batch_idx]
        changes = BatchAugmentation()
        if augmentation is not None:
            changes = augmentation.sample(batch_idx, whole, random.plan)
        by_length = changes.lengths(whole).argsort(stable=True)
        batch_idx, changes = batch_idx[by_length], changes.select(by_length)
        positions = torch.arange(size).tensor_split(min(buckets, size))
        inputs = tuple(
            _make_bucket(
                motions,
                batch_idx[inside],
                changes.select(inside),
                random.noise,
                augmentation,
                shard,
            )
            for inside in positions
        )
        caption_idx, motion_idx = table.sample_positives(batch_idx, random.plan, changes.mirrored)
        yield Batch(
            batch_idx, inputs, caption_idx, motion_idx, changes.mirrored, random.noise, shard
        )


def _make_bucket(
    motions: MotionTensors,
    motion_idx: Tensor,
    changes: BatchAugmentation,
    generator: torch.Generator,
    augmentation: Augmentation | None,
    shard: Shard | None,
) -> MotionBatch:
    kept_whole = shard is not None and shard.keeps_buckets
    gathered = None if kept_whole else shard
    bucket = motions.gather(motion_idx, generator, changes.speed, changes.crop, gathered)
    if gathered is not None:
        changes = changes.select(gathered.rows(len(motion_idx)))
    if augmentation is not None:
        bucket = augmentation.apply(bucket, changes)
    return bucket.take(shard) if shard is not None and kept_whole else bucket


def steps_per_epoch(motions: int, batch_size: int) -> int:
    """Number of batches of `iterate_epoch`."""
    return motions // min(batch_size, motions)
