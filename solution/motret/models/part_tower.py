"""The motion tower that also tells what each part of the body does: part tokens in the holistic encoder, and part encoders."""

import torch
from torch import Tensor, nn

from motret import skeleton
from motret.config.training import MotionConfig
from motret.data import features
from motret.data.inputs import MotionBatch
from motret.models.motion_tower import MotionTransformer

ADAPTER_DIM = 128


class PartTransformer(MotionTransformer):
    """A `MotionTransformer` with five part tokens beside [CLS], and five part encoders that share its layers.

    A part encoder is an adapter (two-layer MLP) from the part's columns to those of the whole body, the shared layers and [CLS]. As
    everything else a part is encoded for each person alike and averaged over persons.
    """

    without_parts = MotionTransformer
    """What takes its place where there are no part texts: part tokens that learn of no part would only be attended to."""

    def __init__(self, config: MotionConfig, persons: int, columns: dict[str, slice]):
        super().__init__(config, persons, columns)
        whole = max(part.stop for part in columns.values())
        self.part_dim = config.width
        self.part_tokens = nn.Parameter(torch.randn(len(skeleton.PARTS), config.width) * 0.02)
        self.part_drop, self.with_encoders = config.part_token_drop, config.part_encoders
        self.columns = [torch.from_numpy(features.part_columns(columns, part)) for part in skeleton.PARTS]
        if self.with_encoders:
            self.adapters = nn.ModuleList(
                nn.Sequential(nn.Linear(len(own), ADAPTER_DIM), nn.GELU(), nn.Linear(ADAPTER_DIM, whole)) for own in self.columns
            )

    def forward(self, batch: MotionBatch) -> Tensor:
        """(B, dim)"""
        return self.pool(*self.attend(*self.patches(batch), self._special()))

    def forward_parts(self, batch: MotionBatch) -> tuple[Tensor, list[Tensor]]:
        """The whole (B, dim), and what is said of the parts, (B, 5, part_dim) each: by the part tokens, and by the part encoders."""
        patches, places, mask = self.patches(batch)
        tokens, real = self.attend(patches, places, mask, self._special())
        said = [tokens[:, :, 1 : 1 + len(self.part_tokens)].mean(dim=1)]
        if self.with_encoders:
            said.append(self._encode_parts(*self._fewer(patches, places, mask, batch.generator)))
        return self.pool(tokens, real), said

    def _special(self) -> Tensor:
        return torch.cat([self.cls_token, self.part_tokens])

    def _fewer(self, patches: Tensor, places: Tensor, mask: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """The share of the patches that --part_token_drop leaves while training, other ones of each motion; all of them otherwise."""
        count = places.shape[1]
        keep = count if generator is None else max(1, round(count * (1 - self.part_drop)))
        if keep < count and not self.drop:  # where --token_drop left some out, they are in random order already, real ones first
            luck = torch.rand(places.shape, generator=generator, device=places.device)
            order = luck.masked_fill(~mask, 2.0).argsort(dim=1)[:, :keep]
            patches, places = (
                patches.take_along_dim(order[:, None, :, None], dim=2),
                places.gather(1, order),
            )
        return patches[:, :, :keep], places[:, :keep], mask[:, :keep]

    def _encode_parts(self, patches: Tensor, places: Tensor, mask: Tensor) -> Tensor:
        """(B, 5, width): each part's columns through its adapter, the shared layers and [CLS]."""
        frames = patches.unflatten(-1, (self.patch, -1))
        found = []
        for own, adapter in zip(self.columns, self.adapters, strict=True):
            tokens, _ = self.attend(
                adapter(frames[..., own.to(frames.device)]).flatten(-2),
                places,
                mask,
                self.cls_token,
            )
            found.append(tokens[:, :, 0].mean(dim=1))
        return torch.stack(found, dim=1)
