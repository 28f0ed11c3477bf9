"""data.inputs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class CaptionBank:
    """Distinct captions, ready for a tower: embedded by a frozen one, or as tokens for one that trains.

    index: caption -> row; vectors: (n, dim) from a frozen tower, else None; ids, lengths: (n, L) and (n,) tokens, else None.
    """

    index: dict[str, int]
    vectors: Tensor | None = None
    ids: Tensor | None = None
    lengths: Tensor | None = None

    def indices(self, captions: Sequence[str]) -> Tensor:
        """Rows (C,) of some captions."""
        return torch.tensor([self.index[caption] for caption in captions], dtype=torch.long)

    def to(self, device: torch.device) -> "CaptionBank":
        moved = {name: None if (value := getattr(self, name)) is None else value.to(device) for name in ("vectors", "ids", "lengths")}
        return CaptionBank(self.index, **moved)


@dataclass(frozen=True)
class MotionBatch:
    """Motions as a tower gets them.

    frames: (B, T, persons, D) standardised features, beyond a motion's length its last frame again; lengths: (B,) frames of each, >= 1;
    generator: where random choices come from while training, None otherwise.
    """

    frames: Tensor
    lengths: Tensor
    generator: torch.Generator | None = None
