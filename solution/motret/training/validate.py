"""What a model that trains does on the motions that are held out, and whether its embeddings have collapsed."""

import math
from dataclasses import asdict, replace
from pathlib import Path

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
from motret.models.embed import embed_caption_parts, embed_captions, embed_motion_parts, embed_motions
from motret.runs.history import EpochStats
from motret.runs.oof import OutOfFold
from motret.training import objective
from motret.training.context import TrainContext

COLLAPSE_THRESHOLD = 0.01
"""A spread below this (a mean pairwise cosine above 0.99) is a collapse."""


def score_out_of_fold(out: OutOfFold, folds: Folds) -> tuple[Score, dict[str, float]]:
    """The local score of one fold, expected competition score within its own gallery, and recalls and ranks by `EpochStats`'s names."""
    better, tied = metrics.count_better_chunked(out.text, out.motion, out.motion_idx)
    values = metrics.motion_scores(better, tied, out.motion_idx, len(out.motion))
    table = metrics.retrieval_table(better, tied, metrics.motion_to_text_ranks(out.text, out.motion, out.motion_idx))
    ways = (("t2m", "text_to_motion"), ("m2t", "motion_to_text"))
    ranks = {f"{short}_{name.lower().replace('@', '')}": value for short, way in ways for name, value in table[way].items()}
    return metrics.cluster_robust_mean(values, folds.group[out.data_idx]), ranks


def validate(
    model: DualEncoder, place: TrainContext, data: TrainingData, folds: Folds, held: np.ndarray, config: TrainConfig, line: EpochStats
) -> EpochStats:
    """Fills in what an epoch's model does on the held-out motions: loss in training-sized batches, score, recalls, spread."""
    out = embed_out_of_fold(model, place, data, held)
    score, ranks = score_out_of_fold(out, folds)
    captions, motion_idx = place.table.captions_of(torch.from_numpy(held).to(place.device))
    motion, caption = torch.from_numpy(out.motion).to(place.device), torch.from_numpy(out.text).to(place.device)
    losses_of = []
    with torch.inference_mode():
        for start in range(0, len(held), config.fit.effective_batch_size):
            mine = (motion_idx >= start) & (motion_idx < start + config.fit.effective_batch_size)
            piece, scale = motion[start : start + config.fit.effective_batch_size], model.logit_scale()
            loss = objective.contrastive_loss(piece, caption[mine], scale, captions[mine], motion_idx[mine] - start, place, config)
            losses_of.append(float(loss))
    filled = {"val_loss": float(np.mean(losses_of)), "score": score.mean, "error": score.error} | ranks
    return EpochStats(**asdict(line) | filled | {"spread": mean_cosine_distance(out.motion), "text_spread": mean_cosine_distance(out.text)})


def check_collapse(line: EpochStats, part: Path, config: TrainConfig, before: EpochStats | None = None) -> None:
    """RunError where the embeddings of motions or of captions are all alike after the warm-up, with what to change.

    before: the validation before this one; embeddings of a model that has just begun are alike too, so while they spread from one
    validation to the next it is no collapse.
    """
    if line.epoch <= config.optim.warmup_epochs:
        return
    for what, spreads, earlier in (
        ("motions", line.spread, before.spread if before else math.inf),
        ("captions", line.text_spread, before.text_spread if before else math.inf),
    ):
        if spreads < COLLAPSE_THRESHOLD and spreads <= earlier:
            problem = f"the embeddings of {what} have collapsed in epoch {line.epoch}: their mean cosine is {1 - spreads:.3f}"
            slower = "lower --text_lr_mult or --lr, raise --freeze_text_epochs" if text_tower.is_fine_tuned(config.text) else "lower --lr"
            raise RunError(part, problem, f"{slower}, or raise --warmup_epochs, --tau or --batch_size")


def mean_cosine_distance(embeddings: np.ndarray) -> float:
    """1 - mean pairwise cosine of (M, d) unit vectors: near 0 when they have collapsed onto one."""
    count = len(embeddings)
    if count < 2:
        return math.nan
    return 1 - float((embeddings.sum(axis=0) ** 2).sum() - count) / (count * (count - 1))


def embed_out_of_fold(model: DualEncoder, place: TrainContext, data: TrainingData, held: np.ndarray, with_parts: bool = False) -> OutOfFold:
    """Embeddings of held-out motions and their captions, and of their parts where they are asked for."""
    captions, motion_idx = place.table.captions_of(torch.from_numpy(held).to(place.device))
    motion = embed_motions(model, place.motions, held, place.autocast())
    text = embed_captions(model, place.bank, captions, place.autocast())
    out = OutOfFold(np.array(data.training.ids)[held], held, motion, text, motion_idx.cpu().numpy())
    if not with_parts:
        return out
    written = [caption for row in held for caption in data.training.captions[row]]
    text_parts, named = embed_caption_parts(model, place.bank, written, place.autocast())
    motion_parts = embed_motion_parts(model, place.motions, held, place.autocast())
    return replace(out, motion_parts=motion_parts, text_parts=text_parts, named=named)
