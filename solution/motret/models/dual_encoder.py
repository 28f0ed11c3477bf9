"""The dual encoder: a motion tower and a text tower that meet on a unit sphere, and the temperature between them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motret.config.training import TrainConfig
from motret.data import augment
from motret.data.inputs import CaptionBank, MotionBatch
from motret.errors import ConfigError
from motret.models import registry
from motret.models.text_tower import drop_words

MAX_DEVIATIONS = 8.0
"""Standardised features are cut here: what lies further out is a glitch of the capture."""
N_TEXT_CHUNKS = 4
"""Captions are computed in so many pieces of like length: less padding."""
MAX_LOGIT_SCALE = 100.0
"""1 / tau never exceeds this (Radford et al. 2021)."""


class DualEncoder(nn.Module):
    """Motions and captions to unit vectors whose dot product is their similarity.

    A frozen text tower is not part of the model: its vectors come in with the caption bank. One that trains is `text_tower`.
    """

    def __init__(
        self,
        config: TrainConfig,
        persons: int,
        columns: dict[str, slice],
        text_dim: int,
        text_tower: nn.Module | None = None,
    ):
        super().__init__()
        width = max(part.stop for part in columns.values())
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.motion_tower = registry.make_motion_tower(config.motion, persons, columns, config.parts.use_gar)
        self.standardises = config.motion.features == "canonical"
        dim, plain = self.motion_tower.dim, config.motion.projection == "none"
        self.embed_dim = dim if plain else config.motion.proj_dim
        self.motion_head = nn.Identity() if plain else nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, self.embed_dim))
        if config.parts.use_gar:
            own = getattr(self.motion_tower, "part_dim", None)
            if own is None:
                problem = f"{config.motion.motion_tower} knows no parts"
                raise ConfigError("--use_gar", problem, "leave it out, or take --motion_tower part")
            self.part_head = nn.Sequential(nn.Linear(own, 2 * own), nn.GELU(), nn.Linear(2 * own, self.embed_dim))
        self.text_tower = text_tower
        self.augment = config.augment
        hidden = config.text.text_hidden
        if plain:
            self.text_head = nn.Identity() if text_dim == self.embed_dim else nn.Linear(text_dim, self.embed_dim)
        else:
            self.text_head = nn.Sequential(
                nn.LayerNorm(text_dim),
                nn.Linear(text_dim, hidden),
                nn.GELU(),
                nn.Linear(hidden, self.embed_dim),
            )
        self.log_scale = nn.Parameter(torch.tensor(-math.log(config.loss.tau)), requires_grad=config.loss.learn_tau)

    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Feature statistics (D,) of the training motions; a feature that never changes keeps its size."""
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(deviation > 1e-4, 1 / deviation, 1.0))

    def split_state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Weights by file, each tower's under its own names, a head's under the head's: motion_encoder.pt, and where the text tower
        learns, clip_model_finetuned.pt."""
        files: dict[str, dict[str, Tensor]] = {
            "motion_encoder.pt": {},
            "clip_model_finetuned.pt": {},
        }
        for name, value in self.state_dict().items():
            file = "clip_model_finetuned.pt" if name.startswith("text_") else "motion_encoder.pt"
            for prefix in ("motion_tower.", "text_tower.text.", "text_tower.encoder."):
                name = name.removeprefix(prefix)
            files[file][name] = value
        if self.text_tower is None:
            del files["clip_model_finetuned.pt"]
        return files

    def logit_scale(self) -> Tensor:
        """1 / tau."""
        return self.log_scale.exp().clamp(max=MAX_LOGIT_SCALE)

    def encode_motions(self, batch: MotionBatch) -> Tensor:
        """(B, proj_dim) unit vectors of raw features."""
        return F.normalize(self.motion_head(self.motion_tower(self._standardised(batch))).float(), dim=-1)

    def encode_motions_and_parts(self, batch: MotionBatch) -> tuple[Tensor, list[Tensor]]:
        """Unit vectors of motions (B, proj_dim), and of their parts (B, 5, proj_dim) by each of the tower's ways to tell them."""
        whole, parts = self.motion_tower.forward_parts(self._standardised(batch))
        unit = F.normalize(self.motion_head(whole).float(), dim=-1)
        return unit, [F.normalize(self.part_head(part).float(), dim=-1) for part in parts]

    def _standardised(self, batch: MotionBatch) -> MotionBatch:
        if not self.standardises:
            return batch
        frames = (batch.frames - self.mean).mul_(self.scale).clamp_(-MAX_DEVIATIONS, MAX_DEVIATIONS)  # one copy, not three
        if batch.generator is not None and self.augment.noise:
            frames = augment.add_noise(frames, self.augment.noise, batch.generator)
        if batch.generator is not None and self.augment.frame_mask:
            frames = augment.mask_frames(frames, self.augment.frame_mask, batch.generator)
        return MotionBatch(frames, batch.lengths, batch.generator)

    def encode_captions(self, bank: CaptionBank, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(C, proj_dim) unit vectors of the bank's captions in `rows` (C,); a caption met twice is encoded once.

        generator: where random choices come from while training (--word_dropout), None otherwise.
        """
        if bank.vectors is not None:
            return F.normalize(self.text_head(bank.vectors[rows]).float(), dim=-1)
        distinct, back = rows.unique(return_inverse=True)
        lengths = bank.lengths[distinct]
        order = lengths.argsort(stable=True)
        pieces = order.tensor_split(min(N_TEXT_CHUNKS, len(order)))
        told = torch.cat([self._told(bank.ids[distinct[own]], lengths[own], generator) for own in pieces])
        place = order.argsort()[back]
        return told.index_select(0, place)  # unlike [place], its gradient adds up in one order: runs repeat bit for bit

    def _told(self, ids: Tensor, lengths: Tensor, generator: torch.Generator | None) -> Tensor:
        """(C, proj_dim) unit vectors of captions of like length, token ids (C, L) of which `lengths` (C,) are real."""
        ids = ids[:, : int(lengths.max())]
        if generator is not None and self.augment.word_dropout:
            ids, lengths = drop_words(ids, lengths, self.augment.word_dropout, generator)
        return F.normalize(self.text_head(self.text_tower(ids, lengths)).float(), dim=-1)
