"""The motion tower: frames of one or two persons to one vector, whichever person comes first."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motret.config.training import MotionConfig
from motret.data.inputs import MotionBatch
from motret.errors import ConfigError
from motret.models import backbones
from motret.models.backbones import MAX_TOKENS, PackedSequence
from motret.utils.device import to_device


class MotionTransformer(nn.Module):
    """A backbone over patches of frames, shared by both persons, who meet in its last layers.

    The vector is the mean and maximum over all tokens, or the mean of both persons' [CLS]. No token
    carries which person it belongs to, so swapping the persons changes nothing.
    """

    person_symmetric = True

    def __init__(self, config: MotionConfig, persons: int, columns: dict[str, slice]):
        super().__init__()
        del persons  # any number: all go through the same layers
        if config.max_frames // config.patch > MAX_TOKENS:
            problem = (
                f"{config.max_frames} frames are more than {MAX_TOKENS} patches of {config.patch}"
            )
            raise ConfigError("--max_frames", problem, "raise --patch or lower --max_frames")
        if not config.mask:
            fix = "leave it out, or take the variant clip_readme"
            raise ConfigError("--no_mask", "this tower always masks padding", fix)
        self.patch, self.token_drop = config.patch, config.token_drop
        self.cross_person_layers = config.cross_person_layers
        self.pools_cls, self.width = config.pool == "cls", config.width
        self.dim = self.width if self.pools_cls else 2 * self.width
        features = max(block.stop for block in columns.values())
        self.backbone = backbones.make_backbone(config, config.patch * features)
        self.cls_token = nn.Parameter(torch.randn(1, self.width) * 0.02)
        self.norm = nn.LayerNorm(self.width)

    def forward(self, batch: MotionBatch) -> Tensor:
        """(B, dim)"""
        tokens, mask = self._attend_batch(batch)
        return self.pool(tokens, mask)

    def tokens(self, batch: MotionBatch) -> tuple[Tensor, Tensor]:
        """Tokens (B, K, width) of both persons after all layers, and which of them are real."""
        tokens, mask = self._attend_batch(batch)
        return tokens.flatten(1, 2), mask.flatten(1, 2)

    def _attend_batch(self, batch: MotionBatch) -> tuple[Tensor, Tensor]:
        return self.attend(*self.patches(batch), self._special_tokens())

    def _special_tokens(self) -> Tensor:
        """(S, width) learned tokens that stand before those of each person."""
        return self.cls_token

    def attend(
        self, patches: Tensor, positions: Tensor, mask: Tensor, special: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, persons, S + N, width) after all layers, and which of them are real.

        patches, positions, mask: as `patches` returns them; special: (S, width) learned tokens
        without a position, put first for each person.
        """
        size, persons, count = patches.shape[:3]
        tokens = self.backbone.embed(patches, positions)
        special = special.expand(size, persons, *special.shape).to(tokens.dtype)
        tokens = torch.cat([special, tokens], dim=2)
        n_special = special.shape[2]
        count += n_special
        mask = F.pad(mask, (n_special, 0), value=True)[:, None].expand(size, persons, count)
        per_person = PackedSequence.from_mask(mask.reshape(size * persons, count), tokens.device)
        both_persons = per_person.reshape(size, persons * count)
        tokens, layers = per_person.pack(tokens), self.backbone.layers()
        first_joint = len(layers) - self.cross_person_layers
        for index, layer in enumerate(layers):
            tokens = layer(tokens, both_persons if index >= first_joint else per_person)
        tokens = per_person.pad(self.norm(tokens))
        return tokens.view(size, persons, count, -1), per_person.real.view(size, persons, count)

    def pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, dim) mean and maximum over both persons' real tokens, or the mean of their [CLS]."""
        if self.pools_cls:
            return tokens[:, :, 0].mean(dim=1)
        size = len(tokens)
        tokens, real = tokens.reshape(size, -1, self.width), mask.reshape(size, -1, 1)
        mean = (tokens * real).sum(dim=1) / real.sum(dim=1)
        return torch.cat([mean, tokens.masked_fill(~real, float("-inf")).amax(dim=1)], dim=-1)

    def patches(self, batch: MotionBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Patches (B, persons, N, patch * D), their positions (B, N), and which are real (B, N).

        Which are real is on the CPU. A last patch that is not full is left out. In training
        --token_drop of each motion's patches are dropped, at random but the same for both persons;
        only the others are computed, so dropping saves time.
        """
        patches, n_real = self._cut(batch)
        size, count = patches.shape[:2]
        persons, device = patches.shape[3], patches.device
        positions = torch.arange(count, device=device).expand(size, count)
        if batch.generator is not None and self.token_drop > 0:
            noise = batch.draw(torch.rand, count)
            is_padding = positions >= to_device(n_real, device)[:, None]
            order = noise.masked_fill(is_padding, 2.0).argsort(dim=1)
            positions = order[:, : math.ceil((1 - self.token_drop) * count)]
            motion_idx = torch.arange(size, device=device)[:, None]
            patches = patches[motion_idx, positions]  # before the copies below
            n_real = ((1 - self.token_drop) * n_real).ceil().long()
        if torch.is_autocast_enabled(device.type):
            # the input projection would round them as well, but after the copy
            patches = patches.to(torch.get_autocast_dtype(device.type))
        count = positions.shape[1]
        patches = patches.permute(0, 3, 1, 2, 4).reshape(size, persons, count, -1)
        return patches, positions, torch.arange(count) < n_real[:, None]

    def _cut(self, batch: MotionBatch) -> tuple[Tensor, Tensor]:
        """Frames as (B, N, patch, persons, D), and how many patches of each motion are real (B,).

        The latter is on the CPU. There is one at least: a motion shorter than a patch is held at
        its last frame.
        """
        size, frames, persons, features = batch.frames.shape
        count = max(1, frames // self.patch)
        frames_used = batch.frames[:, : count * self.patch]
        if frames_used.shape[1] < self.patch:
            missing = self.patch - frames_used.shape[1]
            frames_used = torch.cat(
                [frames_used, frames_used[:, -1:].expand(-1, missing, -1, -1)], dim=1
            )
        patches = frames_used.view(size, count, self.patch, persons, features)
        return patches, (batch.cpu_lengths() // self.patch).clamp(min=1, max=count)
