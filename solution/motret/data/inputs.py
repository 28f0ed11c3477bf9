"""What the towers get: captions as vectors or tokens, and motions as padded batches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


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
    are known there.
    """

    frames: Tensor
    lengths: Tensor
    generator: torch.Generator | None = None
    lengths_on_cpu: Tensor | None = None

    def cpu_lengths(self) -> Tensor:
        """The lengths on the CPU. Sizes that follow from them are read without waiting for a
        card."""
        return self.lengths.cpu() if self.lengths_on_cpu is None else self.lengths_on_cpu

    def with_frames(self, frames: Tensor) -> "MotionBatch":
        """The same motions with other frames of the same shape."""
        return replace(self, frames=frames)
