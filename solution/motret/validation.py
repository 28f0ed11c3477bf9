"""What a model that trains does on the motions that are held out, and whether its embeddings have collapsed."""

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from motret import metrics, objective, text
from motret.config import TrainSettings
from motret.dataset import TrainingData
from motret.embedding import out_of_fold
from motret.faults import RunFault
from motret.folds import Folds
from motret.history import Epoch
from motret.metrics import Score
from motret.model import DualEncoder
from motret.runs import OutOfFold
from motret.workplace import Workplace

COLLAPSED = 0.01
"""A spread below this (a mean pairwise cosine above 0.99) is a collapse."""


def score_out_of_fold(out: OutOfFold, folds: Folds) -> tuple[Score, dict[str, float]]:
    """The local score of one fold, expected competition score within its own gallery, and recalls and ranks by `Epoch`'s names."""
    better, tied = metrics.count_better_in_blocks(out.text, out.motion, out.owner)
    values = metrics.motion_scores(better, tied, out.owner, len(out.motion))
    table = metrics.retrieval_table(better, tied, metrics.count_foreign_better_in_blocks(out.text, out.motion, out.owner))
    ways = (("t2m", "text_to_motion"), ("m2t", "motion_to_text"))
    ranks = {f"{short}_{name.lower().replace('@', '')}": value for short, way in ways for name, value in table[way].items()}
    return metrics.clustered(values, folds.group[out.row]), ranks


def validate(
    model: DualEncoder, place: Workplace, data: TrainingData, folds: Folds, held: np.ndarray, settings: TrainSettings, line: Epoch
) -> Epoch:
    """Fills in what an epoch's model does on the held-out motions: loss in training-sized batches, score, recalls, spread."""
    out = out_of_fold(model, place, data, held)
    score, ranks = score_out_of_fold(out, folds)
    captions, owner = place.table.of(torch.from_numpy(held).to(place.device))
    motion, caption = torch.from_numpy(out.motion).to(place.device), torch.from_numpy(out.text).to(place.device)
    losses_of = []
    with torch.inference_mode():
        for start in range(0, len(held), settings.fit.step_size):
            mine = (owner >= start) & (owner < start + settings.fit.step_size)
            piece, scale = motion[start : start + settings.fit.step_size], model.logit_scale()
            loss = objective.contrast(piece, caption[mine], scale, captions[mine], owner[mine] - start, place, settings)
            losses_of.append(float(loss))
    filled = {"val_loss": float(np.mean(losses_of)), "score": score.mean, "error": score.error} | ranks
    return Epoch(**asdict(line) | filled | {"spread": spread(out.motion), "text_spread": spread(out.text)})


def stop_collapse(line: Epoch, part: Path, settings: TrainSettings, before: Epoch | None = None) -> None:
    """RunFault where the embeddings of motions or of captions are all alike after the warm-up, with what to change.

    before: the validation before this one; embeddings of a model that has just begun are alike too, so while they spread from one
    validation to the next it is no collapse.
    """
    if line.epoch <= settings.fit.warmup_epochs:
        return
    for what, spreads, earlier in (
        ("motions", line.spread, before.spread if before else math.inf),
        ("captions", line.text_spread, before.text_spread if before else math.inf),
    ):
        if spreads < COLLAPSED and spreads <= earlier:
            wrong = f"the embeddings of {what} have collapsed in epoch {line.epoch}: their mean cosine is {1 - spreads:.3f}"
            slower = "lower --text_lr_mult or --lr, raise --freeze_text_epochs" if text.fine_tunes(settings.text) else "lower --lr"
            raise RunFault(part, wrong, f"{slower}, or raise --warmup_epochs, --tau or --batch_size")


def spread(embeddings: np.ndarray) -> float:
    """1 - mean pairwise cosine of (M, d) unit vectors: near 0 when they have collapsed onto one."""
    count = len(embeddings)
    if count < 2:
        return math.nan
    return 1 - float((embeddings.sum(axis=0) ** 2).sum() - count) / (count * (count - 1))
