"""Validation of a model that trains: held-out loss, score and recalls, and whether its embeddings
have collapsed."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from motret.config.training import TrainConfig
from motret.data.dataset import TrainingData
from motret.data.folds import Folds
from motret.errors import RunError
from motret.evaluation import metrics
from motret.evaluation.metrics import Score
from motret.models import text_tower
from motret.models.dual_encoder import DualEncoder
from motret.models.embed import (
    embed_caption_parts,
    embed_captions,
    embed_motion_parts,
    embed_motions,
)
from motret.runs.history import EpochStats
from motret.runs.oof import OutOfFold
from motret.training import objective
from motret.training.context import FoldContext, TrainContext

COLLAPSE_THRESHOLD = 0.01
"""A mean cosine distance below this (a mean pairwise cosine above 0.99) is a collapse."""


def validate(model: DualEncoder, fold_context: FoldContext, stats: EpochStats) -> EpochStats:
    """The stats of an epoch with the model's loss, score, recalls and mean cosine distances on the
    held-out motions."""
    out = embed_out_of_fold(model, fold_context.context, fold_context.data, fold_context.val_idx)
    score, ranks = score_out_of_fold(out, fold_context.folds)
    values: dict[str, Any] = {
        "val_loss": _held_out_loss(model, fold_context, out),
        "score": score.mean,
        "error": score.error,
        "spread": mean_cosine_distance(out.motion),
        "text_spread": mean_cosine_distance(out.text),
    }
    return replace(stats, **values | ranks)


def _held_out_loss(model: DualEncoder, fold_context: FoldContext, out: OutOfFold) -> float:
    """Mean contrastive loss of held-out motions, in batches as large as those of training."""
    context, config = fold_context.context, fold_context.config
    val_idx = torch.from_numpy(fold_context.val_idx)
    caption_idx, motion_idx = (
        indices.to(context.device) for indices in context.table.captions_of(val_idx)
    )
    motion, caption = (
        torch.from_numpy(out.motion).to(context.device),
        torch.from_numpy(out.text).to(context.device),
    )
    size, batch_losses = config.fit.effective_batch_size, []
    with torch.inference_mode():
        for start in range(0, len(val_idx), size):
            in_batch = (motion_idx >= start) & (motion_idx < start + size)
            indices = caption_idx[in_batch], motion_idx[in_batch] - start
            vectors = motion[start : start + size], caption[in_batch]
            loss = objective.contrastive_loss(
                *vectors, model.logit_scale(), *indices, context, config
            )
            batch_losses.append(float(loss))
    return float(np.mean(batch_losses))


def score_out_of_fold(out: OutOfFold, folds: Folds) -> tuple[Score, dict[str, float]]:
    """The local score of one fold, and recalls and ranks by their names in `EpochStats`.

    The local score is the expected competition score within the fold's own gallery.
    """
    better, tied = metrics.count_better_chunked(out.text, out.motion, out.motion_idx)
    scores = metrics.motion_scores(better, tied, out.motion_idx, len(out.motion))
    motion_ranks = metrics.motion_to_text_ranks(out.text, out.motion, out.motion_idx)
    table = metrics.retrieval_table(better, tied, motion_ranks)
    ranks = {
        f"{prefix}_{name.lower().replace('@', '')}": value
        for prefix, direction in (("t2m", "text_to_motion"), ("m2t", "motion_to_text"))
        for name, value in table[direction].items()
    }
    return metrics.cluster_robust_mean(scores, folds.group[out.data_idx]), ranks


def check_collapse(
    stats: EpochStats, fold_dir: Path, config: TrainConfig, previous: EpochStats | None = None
) -> None:
    """RunError where all embeddings of motions or of captions are the same after the warm-up; it
    says what to change.

    previous: the validation before this one. The embeddings of an untrained model are nearly the
    same too, so it is no collapse while their distance grows from one validation to the next.
    """
    if stats.epoch <= config.optim.warmup_epochs:
        return
    for name, distance, earlier in (
        ("motions", stats.spread, previous.spread if previous else math.inf),
        ("captions", stats.text_spread, previous.text_spread if previous else math.inf),
    ):
        if distance < COLLAPSE_THRESHOLD and distance <= earlier:
            problem = f"the embeddings of {name} have collapsed in epoch {stats.epoch}"
            problem = f"{problem}: their mean cosine is {1 - distance:.3f}"
            slower = "lower --lr"
            if text_tower.is_fine_tuned(config.text):
                slower = "lower --text_lr_mult or --lr, raise --freeze_text_epochs"
            fix = f"{slower}, or raise --warmup_epochs, --tau or --batch_size"
            raise RunError(fold_dir, problem, fix)


def mean_cosine_distance(embeddings: np.ndarray) -> float:
    """1 - mean pairwise cosine of (M, d) unit vectors: near 0 when they have collapsed onto one;
    NaN for fewer than two."""
    count = len(embeddings)
    if count < 2:
        return math.nan
    return 1 - float((embeddings.sum(axis=0) ** 2).sum() - count) / (count * (count - 1))


def embed_out_of_fold(
    model: DualEncoder,
    context: TrainContext,
    data: TrainingData,
    val_idx: np.ndarray,
    with_parts: bool = False,
) -> OutOfFold:
    """Embeddings of the motions `val_idx` (M,) and their captions, with `with_parts` also of their
    parts."""
    caption_idx, motion_idx = context.table.captions_of(torch.from_numpy(val_idx))
    motion = embed_motions(model, context.motions, val_idx, context.autocast())
    text = embed_captions(model, context.bank, caption_idx, context.autocast())
    out = OutOfFold(np.array(data.training.ids)[val_idx], val_idx, motion, text, motion_idx.numpy())
    if not with_parts:
        return out
    captions = [caption for index in val_idx for caption in data.training.captions[index]]
    text_parts, named = embed_caption_parts(model, context.bank, captions, context.autocast())
    motion_parts = embed_motion_parts(model, context.motions, val_idx, context.autocast())
    return replace(out, motion_parts=motion_parts, text_parts=text_parts, named=named)
