"""The motion tower that also encodes each part of the body: part tokens, and part encoders."""

import torch
from torch import Tensor, nn

from motret import skeleton
from motret.config.training import MotionConfig
from motret.data import features
from motret.data.feature_blocks import Columns
from motret.data.inputs import MotionBatch
from motret.models.motion_tower import MotionTransformer
from motret.utils.device import to_device

ADAPTER_DIM = 128


class PartTransformer(MotionTransformer):
    """A `MotionTransformer` with five part tokens after [CLS], and five part encoders.

    A part encoder is an adapter (two-layer MLP) from the part's columns to those of the whole body,
    then the shared layers and [CLS]. Like the whole body, a part is encoded for each person alike
    and averaged over persons.
    """

    without_parts = MotionTransformer
    """What takes its place where there are no part texts: part tokens that learn of no part would
    only be attended to."""

    def __init__(self, config: MotionConfig, persons: int, columns: Columns):
        super().__init__(config, persons, columns)
        whole_dim = max(block.stop for block in columns.values())
        self.part_dim = config.width
        self.part_tokens = nn.Parameter(torch.randn(len(skeleton.PARTS), config.width) * 0.02)
        self.part_token_drop, self.has_encoders = config.part_token_drop, config.part_encoders
        self.part_columns = [
            torch.from_numpy(features.part_columns(columns, part)) for part in skeleton.PARTS
        ]
        if self.has_encoders:
            self.adapters = nn.ModuleList(
                nn.Sequential(
                    nn.Linear(len(part_columns), ADAPTER_DIM),
                    nn.GELU(),
                    nn.Linear(ADAPTER_DIM, whole_dim),
                )
                for part_columns in self.part_columns
            )

    def forward_parts(self, batch: MotionBatch) -> tuple[Tensor, list[Tensor]]:
        """The whole (B, dim), and the part views, (B, 5, part_dim) each.

        The part views are that of the part tokens, and that of the part encoders, if any.
        """
        patches, positions, mask = self.patches(batch)
        tokens, real = self.attend(patches, positions, mask, self._special_tokens())
        part_views = [tokens[:, :, 1 : 1 + len(self.part_tokens)].mean(dim=1)]
        if self.has_encoders:
            fewer = self._subsample_patches(batch, patches, positions, mask)
            part_views.append(self._encode_parts(*fewer))
        return self.pool(tokens, real), part_views

    def _special_tokens(self) -> Tensor:
        return torch.cat([self.cls_token, self.part_tokens])

    def _subsample_patches(
        self, batch: MotionBatch, patches: Tensor, positions: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The patches that --part_token_drop leaves while training, at random for each motion.

        All of them where there is no generator.
        """
        count = positions.shape[1]
        keep = count
        if batch.generator is not None:
            keep = max(1, round(count * (1 - self.part_token_drop)))
        # where --token_drop left some out, they are in random order already, real ones first
        if keep < count and not self.token_drop:
            noise = batch.draw(torch.rand, count)
            is_padding = to_device(~mask, positions.device)
            order = noise.masked_fill(is_padding, 2.0).argsort(dim=1)[:, :keep]
            patches = patches.take_along_dim(order[:, None, :, None], dim=2)
            positions = positions.gather(1, order)
        return patches[:, :, :keep], positions[:, :keep], mask[:, :keep]

    def _encode_parts(self, patches: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """(B, 5, width): each part's columns through its adapter, the shared layers and [CLS]."""
        frames = patches.unflatten(-1, (self.patch, -1))
        encoded = []
        for part_columns, adapter in zip(self.part_columns, self.adapters, strict=True):
            adapted = adapter(frames[..., to_device(part_columns, frames.device)]).flatten(-2)
            tokens, _ = self.attend(adapted, positions, mask, self.cls_token)
            encoded.append(tokens[:, :, 0].mean(dim=1))
        return torch.stack(encoded, dim=1)
