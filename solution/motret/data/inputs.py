"""What the towers get: captions as vectors or tokens, and motions as padded batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class CaptionBank:
    """Distinct captions, ready for a text tower: embedded by a frozen one, or as tokens for one
    that trains.

    index: position of each caption; vectors: (n, dim) of a frozen tower, else None; ids, lengths:
    (n, L) and (n,) tokens, else None.
    """

    index: dict[str, int]
    vectors: Tensor | None = None
    ids: Tensor | None = None
    lengths: Tensor | None = None

    def indices(self, captions: Sequence[str]) -> Tensor:
        """Positions (C,) of some captions in the bank."""
        return torch.tensor([self.index[caption] for caption in captions], dtype=torch.long)

    def to(self, device: torch.device) -> "CaptionBank":
        tensors = (self.vectors, self.ids, self.lengths)
        return CaptionBank(
            self.index, *(None if values is None else values.to(device) for values in tensors)
        )


@dataclass(frozen=True)
class MotionBatch:
    """Motions as a motion tower gets them.

    frames: (B, T, persons, D) standardised features, beyond a motion's length its last frame again;
    lengths: (B,) frames of each, >= 1; generator: source of random choices while training, None
    otherwise.
    """

    frames: Tensor
    lengths: Tensor
    generator: torch.Generator | None = None
