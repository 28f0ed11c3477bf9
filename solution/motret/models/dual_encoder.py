"""The dual encoder: a motion and a text tower that meet on a unit sphere, and a temperature."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motret.config.training import TrainConfig
from motret.data import augment
from motret.data.inputs import CaptionBank, MotionBatch
from motret.errors import ConfigError
from motret.models import registry
from motret.models.text_tower import TextTower, drop_words
from motret.utils.device import to_device

MAX_DEVIATIONS = 8.0
"""Standardised features are cut here: what lies further out is a glitch of the capture."""
N_TEXT_CHUNKS = 4
"""Captions are encoded in so many chunks of similar length: less padding."""
MAX_LOGIT_SCALE = 100.0
"""1 / tau never exceeds this (Radford et al. 2021)."""
MOTION_FILE, TEXT_FILE = "motion_encoder.pt", "clip_model_finetuned.pt"


class DualEncoder(nn.Module):
    """Motions and captions to unit vectors whose dot product is their similarity.

    A frozen text tower is not part of the model: its vectors come with the caption bank. One that
    trains is `text_tower`. embed_dim: size of the shared space.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        config: TrainConfig,
        persons: int,
        columns: dict[str, slice],
        text_dim: int,
        text_tower: TextTower | None = None,
    ):
        super().__init__()
        features = max(block.stop for block in columns.values())
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        use_gar = config.parts.use_gar
        self.motion_tower: Any  # a tower of one's own is any module with a dim
        self.motion_tower = registry.make_motion_tower(config.motion, persons, columns, use_gar)
        self.standardises = config.motion.features != "raw"
        self.rotation = columns.get("rotation")
        motion_dim, has_heads = self.motion_tower.dim, config.motion.projection != "none"
        self.embed_dim = config.motion.proj_dim if has_heads else motion_dim
        self.motion_head: nn.Module = nn.Identity()
        if has_heads:
            self.motion_head = _projection(motion_dim, 2 * motion_dim, self.embed_dim)
        if use_gar:
            part_dim = self._part_dim(config.motion.motion_tower)
            self.part_head = _projection(part_dim, 2 * part_dim, self.embed_dim)
        self.text_tower = text_tower
        self.augment = config.augment
        self.text_head = self._make_text_head(text_dim, config.text.text_hidden, has_heads)
        log_scale = torch.tensor(-math.log(config.loss.tau))
        self.log_scale = nn.Parameter(log_scale, requires_grad=config.loss.learn_tau)

    def _part_dim(self, name: str) -> int:
        part_dim = getattr(self.motion_tower, "part_dim", None)
        if part_dim is None:
            fix = "leave it out, or take --motion_tower part"
            raise ConfigError("--use_gar", f"{name} knows no parts", fix)
        return int(part_dim)

    def _make_text_head(self, text_dim: int, hidden_dim: int, has_heads: bool) -> nn.Module:
        if has_heads:
            projection = _projection(text_dim, hidden_dim, self.embed_dim)
            return nn.Sequential(nn.LayerNorm(text_dim), *projection)
        return nn.Identity() if text_dim == self.embed_dim else nn.Linear(text_dim, self.embed_dim)

    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Feature statistics (D,) of the training motions; a constant feature keeps its scale."""
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(deviation > 1e-4, 1 / deviation, 1.0))

    def split_state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Weights by file name, each tower's under its own names, a head's under the head's.

        The files are motion_encoder.pt, and where the text tower trains clip_model_finetuned.pt.
        """
        weights: dict[str, dict[str, Tensor]] = {MOTION_FILE: {}, TEXT_FILE: {}}
        prefixes = ("motion_tower.", "text_tower.text.", "text_tower.encoder.", "text_tower.")
        for name, value in self.state_dict().items():
            file_name = TEXT_FILE if name.startswith("text_") else MOTION_FILE
            prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
            weights[file_name][name.removeprefix(prefix)] = value
        if self.text_tower is None:
            del weights[TEXT_FILE]
        return weights

    def logit_scale(self) -> Tensor:
        """1 / tau."""
        return self.log_scale.exp().clamp(max=MAX_LOGIT_SCALE)

    def encode_motions(self, batch: MotionBatch) -> Tensor:
        """(B, embed_dim) unit vectors of raw features."""
        motion = self.motion_head(self.motion_tower(self._standardised(batch)))
        return F.normalize(motion.float(), dim=-1)

    def motion_tokens(self, batch: MotionBatch) -> tuple[Tensor, Tensor]:
        """Tokens (B, K, width) of the motion tower, and which of them are real. Towers that have
        `tokens` alone."""
        tokens, real = self.motion_tower.tokens(self._standardised(batch))
        return tokens, real

    def encode_motions_and_parts(self, batch: MotionBatch) -> tuple[Tensor, list[Tensor]]:
        """Unit vectors of motions (B, embed_dim), and of their parts in each of the part views.

        Those of the parts are (B, 5, embed_dim).
        """
        motion, part_views = self.motion_tower.forward_parts(self._standardised(batch))
        motion = F.normalize(self.motion_head(motion).float(), dim=-1)
        return motion, [F.normalize(self.part_head(view).float(), dim=-1) for view in part_views]

    def _standardised(self, batch: MotionBatch) -> MotionBatch:
        if not self.standardises:
            return batch
        frames = (batch.frames - self.mean).mul_(self.scale)
        frames = frames.clamp_(-MAX_DEVIATIONS, MAX_DEVIATIONS)  # in place: one copy, not three
        if batch.generator is not None and self.augment.noise:
            frames = augment.add_noise(batch, frames, self.augment.noise)
        if batch.generator is not None and self.augment.rotation_offset and self.rotation:
            deviation = self.augment.rotation_offset
            frames = augment.offset_rotations(batch, frames, self.rotation, deviation)
        if batch.generator is not None and self.augment.frame_mask:
            frames = augment.mask_frames(batch, frames, self.augment.frame_mask)
        return batch.with_frames(frames)

    def encode_captions(
        self,
        bank: CaptionBank,
        indices: Tensor,
        generator: torch.Generator | None = None,
        selected: Tensor | None = None,
    ) -> Tensor:
        """(C, embed_dim) unit vectors of the bank's captions at `indices` (C,).

        The indices are on the CPU. A caption that is there twice is encoded once. generator: where
        random choices come from while training (--word_dropout), None otherwise. selected: (c,)
        which of the C captions are encoded, None: all; what is drawn for a caption is the same.
        """
        device = self.log_scale.device
        if bank.vectors is not None:
            vectors = bank.vectors[
                to_device(indices if selected is None else indices[selected], device)
            ]
            return F.normalize(self.text_head(vectors).float(), dim=-1)
        assert bank.ids is not None and bank.lengths is not None, (
            "a bank without vectors has tokens"
        )
        distinct, inverse = indices.unique(return_inverse=True)
        ids, lengths = bank.ids[distinct], bank.lengths[distinct]
        order = lengths.argsort(stable=True)
        chunks = order.tensor_split(min(N_TEXT_CHUNKS, len(order)))
        positions, is_selected = order.argsort(), torch.ones(len(distinct), dtype=torch.bool)
        if selected is not None:
            inverse = inverse[selected]
            is_selected = torch.isin(torch.arange(len(distinct)), inverse)
            positions = is_selected[order].cumsum(0)[positions] - 1
        embeddings = torch.cat(
            [
                self._encode_tokens(ids[chunk], lengths[chunk], generator, is_selected[chunk])
                for chunk in chunks
            ]
        )
        # unlike [...], the gradient of index_select adds up in one order: runs repeat bit for bit
        return embeddings.index_select(0, to_device(positions[inverse], device))

    def _encode_tokens(
        self, ids: Tensor, lengths: Tensor, generator: torch.Generator | None, is_selected: Tensor
    ) -> Tensor:
        """(c, embed_dim) unit vectors of token ids (C, L), of which `lengths` (C,) are real.

        is_selected: (C,) which of them are encoded. All are on the CPU.
        """
        assert self.text_tower is not None, "a bank of tokens is for a text tower that trains"
        device = self.log_scale.device
        ids = to_device(ids[:, : int(lengths.max())].contiguous(), device)
        lengths = to_device(lengths, device)
        if generator is not None and self.augment.word_dropout:
            ids, lengths = drop_words(ids, lengths, self.augment.word_dropout, generator)
        if not is_selected.all():
            rows = to_device(is_selected.nonzero()[:, 0], device)
            ids, lengths = ids[rows], lengths[rows]
            if not len(rows):  # no tower takes an empty batch
                return self.log_scale.new_empty(0, self.embed_dim)
        return F.normalize(self.text_head(self.text_tower(ids, lengths)).float(), dim=-1)


def _projection(dim: int, hidden_dim: int, embed_dim: int) -> nn.Sequential:
    """A tower's way into the shared space."""
    return nn.Sequential(nn.Linear(dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, embed_dim))
