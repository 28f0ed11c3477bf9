"""Losses: pure functions of tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_DIFFERENCE = 1e-3
"""Unit vectors this close are one vector: the direction of their difference would be noise, and its gradient huge."""


def multi_positive_info_nce(
    text: Tensor, motion: Tensor, motion_idx: Tensor, logit_scale: Tensor, excluded: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """InfoNCE (van den Oord et al. 2018) over motions with several captions each, mean of both directions.

    text: (C, d) and motion: (B, d) unit vectors; owner: (C,) motion of each caption, every motion has one; excluded: (C, B) pairs
    left out of the negatives. Caption -> motion: cross-entropy to its motion, each caption weighing 1 / (captions of its motion).
    Motion -> captions: mean over its captions of -log p, the other own captions removed from the denominator.
    """
    logits = text @ motion.T * logit_scale
    own = F.one_hot(motion_idx, len(motion)).bool()
    if excluded is not None:
        logits = logits.masked_fill(excluded & ~own, float("-inf"))
    weight = 1 / own.sum(dim=0)[motion_idx]  # 1 / C of each caption
    log_p = F.log_softmax(logits, dim=1)
    right = log_p.gather(1, motion_idx[:, None])[:, 0]
    if label_smoothing:
        open_pairs = log_p.isfinite()
        spread = log_p.masked_fill(~open_pairs, 0).sum(dim=1) / open_pairs.sum(dim=1)
        right = (1 - label_smoothing) * right + label_smoothing * spread
    to_motion = -(weight * right).sum() / len(motion)

    foreign = logits.masked_fill(own, float("-inf")).logsumexp(dim=0)  # (B,) all captions of others
    own_logit = logits.gather(1, motion_idx[:, None])[:, 0]
    to_caption = F.softplus(foreign[motion_idx] - own_logit)  # -log(e^own / (e^own + e^foreign))
    return (to_motion + (weight * to_caption).sum() / len(motion)) / 2


def has_equivalent_caption(similar: Tensor, motion_idx: Tensor, motions: int) -> Tensor:
    """(C, B) pairs whose caption is as good as one of the motion's own: no fair negatives.

    similar: (C, C) whether two captions say the same; owner: (C,) motion of each caption.
    """
    own = F.one_hot(motion_idx, motions).to(torch.float32)
    return (similar.to(torch.float32) @ own) > 0


def soft_part_contrast(motion: Tensor, text: Tensor, defined: Tensor, tau: float, tau_prime: float, reduce: str = "mean") -> Tensor:
    """Soft contrast of part embeddings: each part's similarities across the modalities follow those within one modality.

    motion, text: (B, P, d) unit vectors; defined: (B, P) whether a motion's part has a text. For each part, over the motions where
    it is defined: targets of the motion -> text rows are softmax(z_t z_t^T / tau'), of the text -> motion rows softmax(z_m z_m^T / tau'),
    both without gradient; cross-entropy with log_softmax(z_m z_t^T / tau) and log_softmax(z_t z_m^T / tau), the mean of the two.
    Mean (or, as the SGAR description writes it, sum) over parts defined in at least two motions; 0 where there is none.
    """
    found = []
    for part in range(motion.shape[1]):
        known = defined[:, part]
        if int(known.sum()) < 2:
            continue
        z_m, z_t = motion[known, part], text[known, part]
        with torch.no_grad():
            like_text, like_motion = (z_t @ z_t.T / tau_prime).softmax(dim=1), (z_m @ z_m.T / tau_prime).softmax(dim=1)
        cross = z_m @ z_t.T / tau
        to_text = -(like_text * cross.log_softmax(dim=1)).sum(dim=1).mean()
        to_motion = -(like_motion * cross.T.log_softmax(dim=1)).sum(dim=1).mean()
        found.append((to_text + to_motion) / 2)
    if not found:
        return motion.new_zeros(())
    return torch.stack(found).mean() if reduce == "mean" else torch.stack(found).sum()


def part_direction_loss(motion: Tensor, text: Tensor, motion_parts: Tensor, text_parts: Tensor, defined: Tensor) -> Tensor:
    """Mean over defined parts of 1 - cos(z_m - z_m^p, z_t - z_t^p): a part lies to the whole alike in both modalities.

    motion, text: (B, d) and motion_parts, text_parts: (B, P, d), unit vectors; defined: (B, P). Differences that are zero but for rounding
    are skipped, as a caption that is its part's text too leaves them; 0 where none is left.
    """
    of_motion, of_text = motion[:, None] - motion_parts, text[:, None] - text_parts
    known = defined & (of_motion.norm(dim=-1) > MIN_DIFFERENCE) & (of_text.norm(dim=-1) > MIN_DIFFERENCE)
    if not bool(known.any()):
        return motion.new_zeros(())
    return (1 - F.cosine_similarity(of_motion[known], of_text[known], dim=-1)).mean()


def mean_by_motion(text: Tensor, motion_idx: Tensor, motions: int) -> Tensor:
    """Mean of each motion's caption embeddings, as unit vectors (B, d): text (C, d), owner (C,)."""
    total = text.new_zeros(motions, text.shape[1]).index_add(0, motion_idx, text)
    return F.normalize(total, dim=-1)
