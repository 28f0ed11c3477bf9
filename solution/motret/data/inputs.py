"""What the towers get: captions as vectors or tokens, and motions as padded batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """The part of each batch that one of several processes embeds.

    rank: of the process, counted from 0; world_size: number of processes; keeps_buckets: the
    features of whole buckets are gathered, since parts of all their motions are mixed.
    """

    rank: int
    world_size: int
    keeps_buckets: bool = False

    def rows(self, size: int) -> slice:
        """The rows of this process among `size`: every world_size-th, so that the lengths of
        motions sorted by length are shared evenly."""
        return slice(self.rank, size, self.world_size)


@dataclass
class CaptionBank:
    """Distinct captions, ready for a text tower: embedded by a frozen one, or as tokens for one
    that trains.

    index: position of each caption; vectors: (n, dim) of a frozen tower, on the device that
    computes, else None; ids, lengths: (n, L) and (n,) tokens, on the CPU, else None.
    """

    index: dict[str, int]
    vectors: Tensor | None = None
    ids: Tensor | None = None
    lengths: Tensor | None = None

    def indices(self, captions: Sequence[str]) -> Tensor:
        """Positions (C,) of some captions in the bank."""
        return torch.tensor([self.index[caption] for caption in captions], dtype=torch.long)

    def to(self, device: torch.device) -> "CaptionBank":
        """The bank with its vectors on the device. Tokens stay: each batch of them is trimmed to
        its longest caption on the CPU, so that no size is read back from a card."""
        vectors = None if self.vectors is None else self.vectors.to(device)
        return CaptionBank(self.index, vectors, self.ids, self.lengths)


@dataclass(frozen=True)
class MotionBatch:
    """Motions as a motion tower gets them.

    frames: (B, T, persons, D) standardised features, beyond a motion's length its last frame again;
    lengths: (B,) frames of each, >= 1, on the device of the frames; generator: source of random
    choices while training, None otherwise; lengths_on_cpu: the same lengths on the CPU, where they
    are known there. Where processes share a bucket, these are the rows of one of them, `shard`, of
    the `bucket_size` in the bucket, as long as its longest; whole: the bucket, if it is kept.
    """

    frames: Tensor
    lengths: Tensor
    generator: torch.Generator | None = None
    lengths_on_cpu: Tensor | None = None
    shard: Shard | None = None
    bucket_size: int | None = None
    whole: "MotionBatch | None" = None

    @property
    def size(self) -> int:
        """Motions in the bucket, whichever process embeds them."""
        return len(self.lengths) if self.bucket_size is None else self.bucket_size

    def draw(self, sample: Callable[..., Tensor], *shape: int) -> Tensor:
        """(B, *shape) random numbers from the generator, by `torch.rand` or `torch.randn`.

        They are drawn for the whole bucket, so that a motion gets the same however many processes
        share it.
        """
        device = self.frames.device
        noise = sample(self.size, *shape, generator=self.generator, device=device)
        return noise if self.shard is None else noise[self.shard.rows(self.size)]

    def take(self, shard: Shard) -> "MotionBatch":
        """The rows of one process, with the whole bucket."""
        rows, lengths = shard.rows(len(self.lengths)), self.lengths_on_cpu
        return replace(
            self,
            frames=self.frames[rows],
            lengths=self.lengths[rows],
            lengths_on_cpu=None if lengths is None else lengths[rows],
            shard=shard,
            bucket_size=len(self.lengths),
            whole=self,
        )

    def cpu_lengths(self) -> Tensor:
        """The lengths on the CPU. Sizes that follow from them are read without waiting for a
        card."""
        return self.lengths.cpu() if self.lengths_on_cpu is None else self.lengths_on_cpu

    def with_frames(self, frames: Tensor) -> "MotionBatch":
        """The same motions with other frames of the same shape."""
        return replace(self, frames=frames)
