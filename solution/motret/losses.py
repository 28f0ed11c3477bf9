"""Losses: pure functions of tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor


def multi_positive_info_nce(
    text: Tensor, motion: Tensor, owner: Tensor, logit_scale: Tensor, excluded: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """InfoNCE (van den Oord et al. 2018) over motions with several captions each, mean of both directions.

    text: (C, d) and motion: (B, d) unit vectors; owner: (C,) motion of each caption, every motion has one; excluded: (C, B) pairs
    left out of the negatives. Caption -> motion: cross-entropy to its motion, each caption weighing 1 / (captions of its motion).
    Motion -> captions: mean over its captions of -log p, the other own captions removed from the denominator.
    """
    logits = text @ motion.T * logit_scale
    own = F.one_hot(owner, len(motion)).bool()
    if excluded is not None:
        logits = logits.masked_fill(excluded & ~own, float("-inf"))
    weight = 1 / own.sum(dim=0)[owner]  # 1 / C of each caption
    log_p = F.log_softmax(logits, dim=1)
    right = log_p.gather(1, owner[:, None])[:, 0]
    if label_smoothing:
        open_pairs = log_p.isfinite()
        spread = log_p.masked_fill(~open_pairs, 0).sum(dim=1) / open_pairs.sum(dim=1)
        right = (1 - label_smoothing) * right + label_smoothing * spread
    to_motion = -(weight * right).sum() / len(motion)

    foreign = logits.masked_fill(own, float("-inf")).logsumexp(dim=0)  # (B,) all captions of others
    own_logit = logits.gather(1, owner[:, None])[:, 0]
    to_caption = F.softplus(foreign[owner] - own_logit)  # -log(e^own / (e^own + e^foreign))
    return (to_motion + (weight * to_caption).sum() / len(motion)) / 2


def as_good_as_own(similar: Tensor, owner: Tensor, motions: int) -> Tensor:
    """(C, B) pairs whose caption is as good as one of the motion's own: no fair negatives.

    similar: (C, C) whether two captions say the same; owner: (C,) motion of each caption.
    """
    own = F.one_hot(owner, motions).to(torch.float32)
    return (similar.to(torch.float32) @ own) > 0
