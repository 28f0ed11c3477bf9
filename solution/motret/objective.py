"""What is minimised: the contrast of motions and captions, and what their parts add to it."""

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from motret import augment, losses
from motret.batches import Batch
from motret.config import TrainSettings
from motret.model import DualEncoder
from motret.motion import MotionBatch
from motret.workplace import Workplace


def loss_of(model: DualEncoder, batch: Batch, place: Workplace, settings: TrainSettings) -> Tensor:
    """The loss of a training batch, with gradient.

    L_global + lambda_part * L_part + lambda_mix * (L_global_mix + lambda_part * L_part_mix) + lambda_direction * L_direction;
    without part texts L_global alone.
    """
    with place.autocast():
        caption = model.encode_captions(place.bank, batch.captions)
        if place.parts is None:
            motion = torch.cat([model.encode_motions(piece) for piece in batch.pieces])
            return contrast(model, motion, caption, batch.captions, batch.owner, place, settings)
        motion, parts = encode(model, batch.pieces)
        rows = place.parts[batch.rows]
        part_text = model.encode_captions(place.bank, rows.clamp(min=0).flatten()).unflatten(0, rows.shape)
    chosen, defined = settings.parts, rows >= 0
    text = losses.mean_by_owner(caption, batch.owner, len(motion))
    total = contrast(model, motion, caption, batch.captions, batch.owner, place, settings)
    total = total + chosen.lambda_part * part_contrast(parts, part_text, defined, settings)
    if chosen.lambda_direction:
        total = total + chosen.lambda_direction * part_direction(motion, text, parts, part_text, defined)
    if chosen.lambda_mix:
        total = total + chosen.lambda_mix * mixture_loss(model, batch, place, settings, text, part_text, defined)
    return total


def encode(model: DualEncoder, pieces: Sequence[MotionBatch]) -> tuple[Tensor, list[Tensor]]:
    """Motions (B, d) and their parts (B, 5, d) by each of the tower's ways to tell them, of all pieces of a batch."""
    told = [model.encode_motions_and_parts(piece) for piece in pieces]
    return torch.cat([whole for whole, _ in told]), [torch.cat(way) for way in zip(*(parts for _, parts in told), strict=True)]


def part_contrast(parts: list[Tensor], part_text: Tensor, defined: Tensor, settings: TrainSettings) -> Tensor:
    """L_part, the mean over the ways to tell parts. parts: (B, 5, d) of each; part_text: (B, 5, d); defined: (B, 5)."""
    chosen, tau = settings.parts, settings.loss.tau
    found = [losses.soft_part_contrast(way, part_text, defined, tau, chosen.tau_prime, chosen.part_reduce) for way in parts]
    return torch.stack(found).mean()


def part_direction(motion: Tensor, text: Tensor, parts: list[Tensor], part_text: Tensor, defined: Tensor) -> Tensor:
    """L_direction, the mean over the ways to tell parts. motion, text: (B, d)."""
    return torch.stack([losses.direction(motion, text, way, part_text, defined) for way in parts]).mean()


def mixture_loss(
    model: DualEncoder, batch: Batch, place: Workplace, settings: TrainSettings, text: Tensor, part_text: Tensor, defined: Tensor
) -> Tensor:
    """L_global_mix + lambda_part * L_part_mix of motions with parts of others, and texts mixed alike.

    text: (B, d) mean of each motion's captions; part_text, defined: (B, 5, d) and (B, 5) of the batch as it was.
    """
    if min(len(piece.lengths) for piece in batch.pieces) < 2:
        return text.new_zeros(())  # nobody to take parts from
    mixed = [augment.draw_mixture(piece, place.motions.columns) for piece in batch.pieces]
    with place.autocast():
        motion, parts = encode(model, [mixture.motions for mixture in mixed])
    starts = accumulate((len(piece.lengths) for piece in batch.pieces[:-1]), initial=0)
    host = torch.arange(len(motion), device=motion.device)
    other = torch.cat([mixture.other + start for mixture, start in zip(mixed, starts, strict=True)])
    replaced = torch.cat([mixture.replaced for mixture in mixed])
    share = replaced.float().mean(dim=1, keepdim=True)
    target = F.normalize(share * text[other] + (1 - share) * text[host], dim=-1)
    part_target = torch.where(replaced[..., None], part_text[other], part_text[host])
    part_defined = torch.where(replaced, defined[other], defined[host])
    whole = losses.multi_positive_info_nce(target, motion, host, model.logit_scale())
    return whole + settings.parts.lambda_part * part_contrast(parts, part_target, part_defined, settings)


def contrast(
    model: DualEncoder, motion: Tensor, caption: Tensor, rows: Tensor, owner: Tensor, place: Workplace, settings: TrainSettings
) -> Tensor:
    """The loss of motions (B, d) and captions (C, d), captions that say the same kept out of each other's negatives."""
    alike = rows[:, None] == rows
    if place.similar is not None and settings.loss.negative_threshold <= 1:
        vectors = place.similar[rows]
        alike = alike | (vectors @ vectors.T >= settings.loss.negative_threshold)
    excluded = losses.as_good_as_own(alike, owner, len(motion))
    return losses.multi_positive_info_nce(caption, motion, owner, model.logit_scale(), excluded, settings.loss.label_smoothing)
