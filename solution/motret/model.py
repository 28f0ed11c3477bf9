"""The dual encoder: a motion tower and a text tower that meet on a unit sphere, and the temperature between them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motret import motion
from motret.config import TrainSettings
from motret.motion import MotionBatch
from motret.text import CaptionBank

CLIP_AT = 8.0
"""Standardised features are cut here: what lies further out is a glitch of the capture."""
HIGHEST_SCALE = 100.0
"""1 / tau never exceeds this (Radford et al. 2021)."""


class DualEncoder(nn.Module):
    """Motions and captions to unit vectors whose dot product is their similarity.

    A frozen text tower is not part of the model: its vectors come in with the caption bank. One that trains is `text_tower`.
    """

    def __init__(
        self, settings: TrainSettings, persons: int, columns: dict[str, slice], text_dim: int, text_tower: nn.Module | None = None
    ):
        super().__init__()
        width = max(part.stop for part in columns.values())
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.motion_tower = motion.make_tower(settings.motion, persons, columns)
        size, dim = settings.motion.proj_dim, self.motion_tower.dim
        self.motion_head = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, size))
        self.text_tower = text_tower
        hidden = settings.text.text_hidden
        self.text_head = nn.Sequential(nn.LayerNorm(text_dim), nn.Linear(text_dim, hidden), nn.GELU(), nn.Linear(hidden, size))
        self.log_scale = nn.Parameter(torch.tensor(-math.log(settings.loss.tau)), requires_grad=settings.loss.learn_tau)

    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Feature statistics (D,) of the training motions; a feature that never changes keeps its size."""
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(deviation > 1e-4, 1 / deviation, 1.0))

    def logit_scale(self) -> Tensor:
        """1 / tau."""
        return self.log_scale.exp().clamp(max=HIGHEST_SCALE)

    def encode_motions(self, batch: MotionBatch) -> Tensor:
        """(B, proj_dim) unit vectors of raw features."""
        frames = ((batch.frames - self.mean) * self.scale).clamp(-CLIP_AT, CLIP_AT)
        encoded = self.motion_head(self.motion_tower(MotionBatch(frames, batch.lengths, batch.generator)))
        return F.normalize(encoded.float(), dim=-1)

    def encode_captions(self, bank: CaptionBank, rows: Tensor) -> Tensor:
        """(C, proj_dim) unit vectors of the bank's captions in `rows` (C,); a caption met twice is encoded once."""
        if bank.vectors is not None:
            return F.normalize(self.text_head(bank.vectors[rows]).float(), dim=-1)
        distinct, back = rows.unique(return_inverse=True)
        lengths = bank.lengths[distinct]
        ids = bank.ids[distinct, : int(lengths.max())]
        return F.normalize(self.text_head(self.text_tower(ids, lengths)).float(), dim=-1)[back]
