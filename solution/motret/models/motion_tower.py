"""Motion towers: frames of one or two persons to one vector, the same whichever person is stored first."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motret.config.training import MotionConfig
from motret.data.inputs import MotionBatch
from motret.errors import ConfigError
from motret.models import backbones
from motret.models.backbones import MAX_TOKENS, PackedSequence


class MotionTransformer(nn.Module):
    """A backbone over patches of frames, shared by both persons, who meet in its last layers; mean and maximum over all tokens, or [CLS].

    No token carries which person it belongs to, so swapping the persons changes nothing.
    """

    person_symmetric = True

    def __init__(self, config: MotionConfig, persons: int, columns: dict[str, slice]):
        super().__init__()
        del persons  # any number: all go through the same layers
        if config.max_frames // config.patch > MAX_TOKENS:
            problem = f"{config.max_frames} frames are more than {MAX_TOKENS} patches of {config.patch}"
            raise ConfigError("--max_frames", problem, "raise --patch or lower --max_frames")
        if not config.mask:
            raise ConfigError(
                "--no_mask",
                "this tower always masks padding",
                "leave it out, or take the variant clip_readme",
            )
        self.patch, self.drop, self.joint = (
            config.patch,
            config.token_drop,
            config.cross_person_layers,
        )
        self.pools_cls, self.width = config.pool == "cls", config.width
        self.dim = self.width if self.pools_cls else 2 * self.width
        self.backbone = backbones.make_backbone(config, config.patch * max(part.stop for part in columns.values()))
        self.cls_token = nn.Parameter(torch.randn(1, self.width) * 0.02)
        self.norm = nn.LayerNorm(self.width)

    def forward(self, batch: MotionBatch) -> Tensor:
        """(B, dim)"""
        tokens, mask = self.attend(*self.patches(batch), self.cls_token)
        return self.pool(tokens, mask)

    def attend(self, patches: Tensor, places: Tensor, mask: Tensor, special: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, persons, S + N, width) after all layers, and which are real (B, persons, S + N).

        patches, places, mask: as `patches` gives them; special: (S, width) learned tokens without a place, put first for each person.
        """
        size, persons, count = patches.shape[:3]
        tokens = self.backbone.embed(patches, places)
        tokens = torch.cat([special.expand(size, persons, *special.shape).to(tokens.dtype), tokens], dim=2)
        count += len(special)
        mask = F.pad(mask, (len(special), 0), value=True)[:, None].expand(size, persons, count)
        alone = PackedSequence.from_mask(mask.reshape(size * persons, count))
        together = alone.reshape(size, persons * count)
        tokens, layers = alone.pack(tokens), self.backbone.layers()
        for number, layer in enumerate(layers):
            tokens = layer(tokens, together if number >= len(layers) - self.joint else alone)
        return alone.pad(self.norm(tokens)).view(size, persons, count, self.width), mask

    def pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, dim) mean and maximum over the real tokens of both persons, or the mean of their [CLS] tokens."""
        if self.pools_cls:
            return tokens[:, :, 0].mean(dim=1)
        size = len(tokens)
        tokens, real = tokens.reshape(size, -1, self.width), mask.reshape(size, -1, 1)
        mean = (tokens * real).sum(dim=1) / real.sum(dim=1)
        return torch.cat([mean, tokens.masked_fill(~real, float("-inf")).amax(dim=1)], dim=-1)

    def patches(self, batch: MotionBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Patches (B, persons, N, patch * D), their places in time (B, N) and which are real (B, N).

        A last patch that is not full is left out. In training a share of each motion's patches is dropped, at random but the
        same for both persons; what is left is computed on, so dropping saves time.
        """
        size, frames, persons, features = batch.frames.shape
        count = max(1, frames // self.patch)
        whole = batch.frames[:, : count * self.patch]
        if whole.shape[1] < self.patch:
            whole = torch.cat([whole, whole[:, -1:].expand(-1, self.patch - whole.shape[1], -1, -1)], dim=1)
        patches = whole.view(size, count, self.patch, persons, features)
        real = (batch.lengths // self.patch).clamp(min=1, max=count)
        places = torch.arange(count, device=real.device).expand(size, count)
        if batch.generator is not None and self.drop > 0:
            luck = torch.rand(size, count, generator=batch.generator, device=real.device)
            order = luck.masked_fill(places >= real[:, None], 2.0).argsort(dim=1)
            places = order[:, : math.ceil((1 - self.drop) * count)]
            patches = patches[torch.arange(size, device=real.device)[:, None], places]  # before the copies below
            real = ((1 - self.drop) * real).ceil().long()
        if torch.is_autocast_enabled(patches.device.type):  # the projection would round them as well, after the copy
            patches = patches.to(torch.get_autocast_dtype(patches.device.type))
        patches = patches.permute(0, 3, 1, 2, 4).reshape(size, persons, places.shape[1], -1)
        mask = torch.arange(places.shape[1], device=real.device) < real[:, None]
        return patches, places, mask
