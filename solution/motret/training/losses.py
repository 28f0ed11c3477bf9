"""Losses: pure functions of tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor

from motret.utils.device import to_device

MIN_DIFFERENCE = 1e-3
"""Unit vectors this close are one vector: the direction of their difference would be noise, and its
gradient huge."""


def multi_positive_info_nce(
    text: Tensor,
    motion: Tensor,
    motion_idx: Tensor,
    logit_scale: Tensor,
    excluded: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """InfoNCE (van den Oord et al. 2018) over motions with several captions each, mean of both
    directions.

    text: (C, d) and motion: (B, d) unit vectors; motion_idx: (C,) motion of each caption, every
    motion has one; excluded: (C, B) pairs that are no negatives. Caption -> motion: cross-entropy
    to its motion, each caption weighted by 1 / (captions of its motion). Motion -> captions: mean
    over its captions of -log p, its other captions removed from the denominator.
    """
    logits = text @ motion.T * logit_scale
    positive = F.one_hot(motion_idx, len(motion)).bool()
    if excluded is not None:
        logits = logits.masked_fill(excluded & ~positive, float("-inf"))
    weight = 1 / positive.sum(dim=0)[motion_idx]  # 1 / captions of its motion
    log_p = F.log_softmax(logits, dim=1)
    target_log_p = log_p.gather(1, motion_idx[:, None])[:, 0]
    if label_smoothing:
        included = log_p.isfinite()
        uniform_log_p = log_p.masked_fill(~included, 0).sum(dim=1) / included.sum(dim=1)
        target_log_p = (1 - label_smoothing) * target_log_p + label_smoothing * uniform_log_p
    text_to_motion = -(weight * target_log_p).sum() / len(motion)

    negatives = logits.masked_fill(positive, float("-inf")).logsumexp(
        dim=0
    )  # (B,) over all captions of other motions
    positive_logit = logits.gather(1, motion_idx[:, None])[:, 0]
    motion_to_text = F.softplus(
        negatives[motion_idx] - positive_logit
    )  # -log(e^positive / (e^positive + e^negatives))
    return (text_to_motion + (weight * motion_to_text).sum() / len(motion)) / 2


def has_equivalent_caption(similar: Tensor, motion_idx: Tensor, n_motions: int) -> Tensor:
    """(C, B) pairs of a caption and a motion that has a caption similar to it.

    similar: (C, C) whether two captions say the same; motion_idx: (C,) motion of each caption.
    """
    belongs = F.one_hot(motion_idx, n_motions).to(torch.float32)
    return (similar.to(torch.float32) @ belongs) > 0


def soft_part_contrast(
    motion: Tensor,
    text: Tensor,
    defined: Tensor,
    tau: float,
    tau_prime: float,
    reduce: str = "mean",
) -> Tensor:
    """Soft contrast of part embeddings: similarities across the modalities follow those within one
    modality, part by part.

    motion, text: (B, P, d) unit vectors; defined: (B, P), on the CPU, whether a motion's part has a
    text. For
    each part, over the motions where it is defined: motion -> text targets are softmax(z_t z_t^T /
    tau'), text -> motion targets softmax(z_m z_m^T / tau'), both without gradient; cross-entropy
    with log_softmax(z_m z_t^T / tau) and log_softmax(z_t z_m^T / tau), the mean of the two. Mean
    (or, as the SGAR description writes it, sum) over parts defined in at least two motions; 0
    without such a part.
    """
    part_losses = []
    for part_idx in range(motion.shape[1]):
        has_text = defined[:, part_idx].nonzero()[:, 0]
        if len(has_text) < 2:
            continue
        has_text = to_device(has_text, motion.device)
        z_m, z_t = motion[has_text, part_idx], text[has_text, part_idx]
        with torch.no_grad():
            text_target = (z_t @ z_t.T / tau_prime).softmax(dim=1)
            motion_target = (z_m @ z_m.T / tau_prime).softmax(dim=1)
        logits = z_m @ z_t.T / tau
        motion_to_text = -(text_target * logits.log_softmax(dim=1)).sum(dim=1).mean()
        text_to_motion = -(motion_target * logits.T.log_softmax(dim=1)).sum(dim=1).mean()
        part_losses.append((motion_to_text + text_to_motion) / 2)
    if not part_losses:
        return motion.new_zeros(())
    return torch.stack(part_losses).mean() if reduce == "mean" else torch.stack(part_losses).sum()


def part_direction_loss(
    motion: Tensor, text: Tensor, motion_parts: Tensor, text_parts: Tensor, defined: Tensor
) -> Tensor:
    """Mean over defined parts of 1 - cos(z_m - z_m^p, z_t - z_t^p): a part lies to the whole as its
    text does.

    motion, text: (B, d) and motion_parts, text_parts: (B, P, d), unit vectors; defined: (B, P), on
    the CPU.
    Differences that are zero but for rounding are skipped (a caption that is also its part's text
    gives them); 0 where all are skipped.
    """
    motion_offset, text_offset = motion[:, None] - motion_parts, text[:, None] - text_parts
    counted = (
        to_device(defined, motion.device)
        & (motion_offset.norm(dim=-1) > MIN_DIFFERENCE)
        & (text_offset.norm(dim=-1) > MIN_DIFFERENCE)
    )
    # what is not counted becomes a constant, so that it has no gradient
    motion_offset, text_offset = (
        offset.where(counted[..., None], 1.0) for offset in (motion_offset, text_offset)
    )
    distance = 1 - F.cosine_similarity(motion_offset, text_offset, dim=-1)
    mean: Tensor = (distance * counted).sum() / counted.sum().clamp(min=1)
    return mean


def mean_by_motion(text: Tensor, motion_idx: Tensor, n_motions: int) -> Tensor:
    """(B, d) mean of each motion's caption embeddings, as unit vectors. text: (C, d); motion_idx:
    (C,)."""
    total = text.new_zeros(n_motions, text.shape[1]).index_add(0, motion_idx, text)
    return F.normalize(total, dim=-1)
