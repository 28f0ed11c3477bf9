"""What is minimised: the contrast of motions and captions, and what their parts add to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from motret.config.training import TrainConfig
from motret.data import part_mixing
from motret.data.batching import Batch
from motret.data.inputs import MotionBatch
from motret.models.dual_encoder import DualEncoder
from motret.training import losses
from motret.training.context import TrainContext

SAMPLE_MOTIONS = 1000
"""Motions by which the share of excluded negatives is measured."""


@dataclass(frozen=True)
class BatchEmbeddings:
    """What a model says of a batch of B motions with C captions, as unit vectors.

    vectors: by name caption (C, d) and motion (B, d); where parts are learned from, part_text (B, 5, d) and parts (B, W, 5, d), by each
    of the tower's W ways to tell them; where parts are mixed, mixed (B, d) and mixed_parts (B, W, 5, d). other (B,) and replaced (B, 5):
    the motion that gave parts to each mixed one, and which.
    """

    vectors: dict[str, Tensor]
    other: Tensor | None = None
    replaced: Tensor | None = None

    @classmethod
    def join(cls, told: Sequence["BatchEmbeddings"]) -> "BatchEmbeddings":
        """What was said of the pieces of a batch as what is said of the batch."""
        vectors = {name: torch.cat([one.vectors[name] for one in told]) for name in told[0].vectors}
        if told[0].other is None:
            return cls(vectors)
        starts = accumulate((len(one.vectors["motion"]) for one in told[:-1]), initial=0)
        other = torch.cat([one.other + start for one, start in zip(told, starts, strict=True)])
        return cls(vectors, other, torch.cat([one.replaced for one in told]))


def batch_loss(model: DualEncoder, batch: Batch, place: TrainContext, config: TrainConfig) -> Tensor:
    """The loss of a training batch, with gradient."""
    return total_loss(embed_batch(model, batch, place, config), model.logit_scale(), batch, place, config)


def embed_batch(model: DualEncoder, batch: Batch, place: TrainContext, config: TrainConfig) -> BatchEmbeddings:
    """Everything the loss of a batch asks of the model."""
    with place.autocast():
        caption = model.encode_captions(place.bank, batch.caption_idx, batch.generator)
        if place.part_texts is None:
            return BatchEmbeddings({"caption": caption, "motion": torch.cat([model.encode_motions(piece) for piece in batch.buckets])})
        rows = part_rows(batch, place)
        part_text = model.encode_captions(place.bank, rows.clamp(min=0).flatten()).unflatten(0, rows.shape)
        mixes = config.parts.lambda_mix > 0 and min(len(piece.lengths) for piece in batch.buckets) > 1  # somebody to take parts from
        moved = BatchEmbeddings.join([embed_bucket(model, piece, place.motions.columns, mixes) for piece in batch.buckets])
    return replace(moved, vectors={"caption": caption, "part_text": part_text} | moved.vectors)


def part_rows(batch: Batch, place: TrainContext) -> Tensor:
    """(B, 5) bank rows of the part texts of a batch, as its motions are shown; -1 where a part is undefined."""
    rows = place.part_texts[batch.train_idx]
    return rows if batch.mirrored is None else torch.where(batch.mirrored[:, None], place.mirrored_part_texts[batch.train_idx], rows)


def embed_bucket(model: DualEncoder, piece: MotionBatch, columns: dict[str, slice], mixes: bool) -> BatchEmbeddings:
    """The motions of a piece and their parts, and where parts are mixed, the mixed ones and theirs."""
    motion, parts = model.encode_motions_and_parts(piece)
    told = {"motion": motion, "parts": torch.stack(parts, dim=1)}
    if not mixes:
        return BatchEmbeddings(told)
    mix = part_mixing.sample_part_mix(piece, columns)
    mixed, mixed_parts = model.encode_motions_and_parts(mix.motions)
    return BatchEmbeddings(told | {"mixed": mixed, "mixed_parts": torch.stack(mixed_parts, dim=1)}, mix.donor_idx, mix.replaced)


def total_loss(told: BatchEmbeddings, scale: Tensor, batch: Batch, place: TrainContext, config: TrainConfig) -> Tensor:
    """The loss, from what the model says of a batch and 1 / tau.

    L_global + lambda_part * L_part + lambda_mix * (L_global_mix + lambda_part * L_part_mix) + lambda_direction * L_direction;
    without part texts L_global alone.
    """
    said, chosen = told.vectors, config.parts
    caption = mix_captions(said["caption"], batch, config)
    total = contrastive_loss(said["motion"], caption, scale, batch.caption_idx, batch.motion_idx, place, config)
    if place.part_texts is None:
        return total
    defined = part_rows(batch, place) >= 0
    text = losses.mean_by_motion(said["caption"], batch.motion_idx, len(said["motion"]))
    total = total + chosen.lambda_part * part_contrast_loss(said["parts"], said["part_text"], defined, config)
    if chosen.lambda_direction:
        total = total + chosen.lambda_direction * part_direction_term(said["motion"], text, said["parts"], said["part_text"], defined)
    if told.other is not None:
        total = total + chosen.lambda_mix * mixture_loss(told, scale, text, defined, config)
    return total


def mix_captions(caption: Tensor, batch: Batch, config: TrainConfig) -> Tensor:
    """Captions (C, d) with a share (--caption_mix) of them replaced by the mean of all captions of their motion, as unit vectors."""
    if not config.augment.caption_mix:
        return caption
    mean = losses.mean_by_motion(caption, batch.motion_idx, len(batch.train_idx))
    replaced = torch.rand(len(caption), generator=batch.generator, device=caption.device) < config.augment.caption_mix
    return torch.where(replaced[:, None], mean.index_select(0, batch.motion_idx), caption)


def part_contrast_loss(parts: Tensor, part_text: Tensor, defined: Tensor, config: TrainConfig) -> Tensor:
    """L_part, the mean over the ways to tell parts. parts: (B, W, 5, d); part_text: (B, 5, d); defined: (B, 5)."""
    chosen, tau = config.parts, config.loss.tau
    found = [losses.soft_part_contrast(way, part_text, defined, tau, chosen.tau_prime, chosen.part_reduce) for way in parts.unbind(1)]
    return torch.stack(found).mean()


def part_direction_term(motion: Tensor, text: Tensor, parts: Tensor, part_text: Tensor, defined: Tensor) -> Tensor:
    """L_direction, the mean over the ways to tell parts. motion, text: (B, d)."""
    return torch.stack([losses.part_direction_loss(motion, text, way, part_text, defined) for way in parts.unbind(1)]).mean()


def mixture_loss(told: BatchEmbeddings, scale: Tensor, text: Tensor, defined: Tensor, config: TrainConfig) -> Tensor:
    """L_global_mix + lambda_part * L_part_mix of motions with parts of others, and texts mixed alike.

    text: (B, d) mean of each motion's captions; defined: (B, 5) of the batch as it was.
    """
    said, other, replaced = told.vectors, told.other, told.replaced
    share = replaced.float().mean(dim=1, keepdim=True)
    target = F.normalize(share * text.index_select(0, other) + (1 - share) * text, dim=-1)
    part_target = torch.where(replaced[..., None], said["part_text"].index_select(0, other), said["part_text"])
    part_defined = torch.where(replaced, defined[other], defined)
    host = torch.arange(len(text), device=text.device)
    whole = losses.multi_positive_info_nce(target, said["mixed"], host, scale)
    return whole + config.parts.lambda_part * part_contrast_loss(said["mixed_parts"], part_target, part_defined, config)


def contrastive_loss(
    motion: Tensor, caption: Tensor, scale: Tensor, rows: Tensor, motion_idx: Tensor, place: TrainContext, config: TrainConfig
) -> Tensor:
    """The loss of motions (B, d) and captions (C, d), captions that say the same kept out of each other's negatives.

    scale: 1 / tau; rows: (C,) bank rows of the captions; owner: (C,) motion of each.
    """
    excluded = false_negatives(rows, motion_idx, len(motion), place, config) if config.loss.negative_threshold > 0 else None
    return losses.multi_positive_info_nce(caption, motion, motion_idx, scale, excluded, config.loss.label_smoothing)


def false_negatives(rows: Tensor, motion_idx: Tensor, motions: int, place: TrainContext, config: TrainConfig) -> Tensor:
    """(C, B) pairs of the captions in `rows` (C,) and motions that one could not call wrong.

    A motion with a caption that says the same, or nearly the same: a cosine of at least --negative_threshold after the captions'
    mean is taken off. Not nearly the same is what differs by a mirrored side ("waves the left hand", "waves the right hand").
    """
    same = losses.has_equivalent_caption(rows[:, None] == rows, motion_idx, motions)
    if place.centred_captions is None or config.loss.negative_threshold > 1:
        return same
    vectors, sides = place.centred_captions[rows], place.caption_sides[rows]
    close = vectors @ vectors.T >= config.loss.negative_threshold
    mirrored = close & (sides[:, :1] == sides[:, 1])
    return same | (
        losses.has_equivalent_caption(close, motion_idx, motions) & ~losses.has_equivalent_caption(mirrored, motion_idx, motions)
    )


def excluded_negative_fraction(place: TrainContext, config: TrainConfig) -> float:
    """The share of the pairs of a caption and another motion that are no negatives, among at most SHARE_MOTIONS motions."""
    count = len(place.table.counts)
    some = torch.linspace(0, count - 1, min(count, SAMPLE_MOTIONS), device=place.device).round().long()
    rows, motion_idx = place.table.captions_of(some)
    others = motion_idx[:, None] != torch.arange(len(some), device=place.device)
    if config.loss.negative_threshold <= 0 or not bool(others.any()):
        return 0.0
    return float(false_negatives(rows, motion_idx, len(some), place, config)[others].float().mean())
