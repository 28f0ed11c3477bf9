"""The dual encoder: a motion tower and a text tower that meet on a unit sphere, and the temperature between them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motret import augment, motion, text
from motret.config import TrainSettings
from motret.faults import SettingFault
from motret.motion import MotionBatch
from motret.text import CaptionBank

CLIP_AT = 8.0
"""Standardised features are cut here: what lies further out is a glitch of the capture."""
TEXT_PIECES = 4
"""Captions are computed in so many pieces of like length: less padding."""
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
        self.motion_tower = motion.make_tower(settings.motion, persons, columns, settings.parts.use_gar)
        self.standardises = settings.motion.features == "canonical"
        dim, plain = self.motion_tower.dim, settings.motion.projection == "none"
        self.size = dim if plain else settings.motion.proj_dim
        self.motion_head = nn.Identity() if plain else nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, self.size))
        if settings.parts.use_gar:
            own = getattr(self.motion_tower, "part_dim", None)
            if own is None:
                wrong = f"{settings.motion.motion_tower} knows no parts"
                raise SettingFault("--use_gar", wrong, "leave it out, or take --motion_tower motret.parts:PartTransformer")
            self.part_head = nn.Sequential(nn.Linear(own, 2 * own), nn.GELU(), nn.Linear(2 * own, self.size))
        self.text_tower = text_tower
        self.augment = settings.augment
        hidden = settings.text.text_hidden
        if plain:
            self.text_head = nn.Identity() if text_dim == self.size else nn.Linear(text_dim, self.size)
        else:
            self.text_head = nn.Sequential(nn.LayerNorm(text_dim), nn.Linear(text_dim, hidden), nn.GELU(), nn.Linear(hidden, self.size))
        self.log_scale = nn.Parameter(torch.tensor(-math.log(settings.loss.tau)), requires_grad=settings.loss.learn_tau)

    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Feature statistics (D,) of the training motions; a feature that never changes keeps its size."""
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(deviation > 1e-4, 1 / deviation, 1.0))

    def halves(self) -> dict[str, dict[str, Tensor]]:
        """Weights by file, each tower's under its own names, a head's under the head's: motion_encoder.pt, and where the text tower
        learns, clip_model_finetuned.pt."""
        files: dict[str, dict[str, Tensor]] = {"motion_encoder.pt": {}, "clip_model_finetuned.pt": {}}
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
        return self.log_scale.exp().clamp(max=HIGHEST_SCALE)

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
        frames = (batch.frames - self.mean).mul_(self.scale).clamp_(-CLIP_AT, CLIP_AT)  # one copy, not three
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
        pieces = order.tensor_split(min(TEXT_PIECES, len(order)))
        told = torch.cat([self._told(bank.ids[distinct[own]], lengths[own], generator) for own in pieces])
        place = order.argsort()[back]
        return told.index_select(0, place)  # unlike [place], its gradient adds up in one order: runs repeat bit for bit

    def _told(self, ids: Tensor, lengths: Tensor, generator: torch.Generator | None) -> Tensor:
        """(C, proj_dim) unit vectors of captions of like length, token ids (C, L) of which `lengths` (C,) are real."""
        ids = ids[:, : int(lengths.max())]
        if generator is not None and self.augment.word_dropout:
            ids, lengths = text.drop_words(ids, lengths, self.augment.word_dropout, generator)
        return F.normalize(self.text_head(self.text_tower(ids, lengths)).float(), dim=-1)
