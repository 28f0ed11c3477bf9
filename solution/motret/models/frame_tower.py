"""The motion tower of the challenge README: a transformer over frames, both persons in each."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motret.config.training import MotionConfig
from motret.data.inputs import MotionBatch


class FrameTransformer(nn.Module):
    """Frames of all persons' columns, learned positions, torch's own encoder layers, the mean.

    A LayerNorm follows the mean over frames. Which person is stored first does change the result.
    With --no_mask a motion is padded with zeros up to --max_frames, and the padding is part of the
    mean.
    """

    def __init__(self, config: MotionConfig, persons: int, columns: dict[str, slice]):
        super().__init__()
        self.dim, self.max_frames, self.mask = config.width, config.max_frames, config.mask
        features = max(block.stop for block in columns.values())
        self.project = nn.Linear(persons * features, self.dim)
        self.positions = nn.Parameter(torch.randn(self.max_frames, self.dim) * 0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                self.dim, config.heads, config.hidden_dim, config.dropout, batch_first=True
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(self.dim)

    def forward(self, batch: MotionBatch) -> Tensor:
        """(B, dim)"""
        frames = batch.frames.flatten(2)
        real = torch.arange(frames.shape[1], device=frames.device) < batch.lengths[:, None]
        frames = frames * real[..., None]
        if not self.mask:
            frames = F.pad(frames, (0, 0, 0, self.max_frames - frames.shape[1]))
        tokens: Tensor = self.project(frames) + self.positions[: frames.shape[1]]
        for block in self.blocks:
            tokens = block(tokens, src_key_padding_mask=~real if self.mask else None)
        motion: Tensor = self.norm(self._mean(tokens, real, batch.lengths))
        return motion

    def _mean(self, tokens: Tensor, real: Tensor, lengths: Tensor) -> Tensor:
        if not self.mask:
            return tokens.mean(dim=1)
        return (tokens * real[..., None]).sum(dim=1) / lengths[:, None]
