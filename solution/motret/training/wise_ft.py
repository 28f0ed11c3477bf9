"""Text towers between pretrained and fine-tuned: weights interpolated after training (WiSE-FT,
Wortsman et al. 2022).

Alpha, the weight of the fine-tuned tower, is a number or chosen on held-out motions. A score with
the best of five alphas would be too high, so the held-out groups are halved: each half is embedded
with the alpha that was best on the other half, and the score is computed from these embeddings. The
final model takes the alpha that was best on all of them.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from motret.config.training import TextConfig
from motret.data.folds import Folds
from motret.errors import RunError
from motret.evaluation import metrics
from motret.models import text_tower
from motret.models.dual_encoder import DualEncoder
from motret.runs import checkpoints
from motret.runs.oof import OutOfFold
from motret.runs.run import Run
from motret.training.context import FoldContext
from motret.utils import files, reading

ALPHAS = (1.0, 0.75, 0.5, 0.25, 0.0)
"""Candidates of --wise_alpha auto; of equally good ones the first is taken."""


@dataclass(frozen=True)
class WiseChoice:
    """alpha: of the final model; halves: alphas of the embeddings of both halves of the held-out
    motions; scores: by alpha."""

    alpha: float
    halves: tuple[float, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)

    def summary(self) -> str:
        """The choice in one line."""
        scores = ", ".join(f"{alpha}: {score:.4f}" for alpha, score in self.scores.items())
        details = f" (scores {scores}; halves with {self.halves})" if self.halves else ""
        return f"text tower: alpha {self.alpha:g} of the fine-tuned weights{details}"


def uses_wise_ft(config: TextConfig) -> bool:
    """Whether the text tower is interpolated."""
    return text_tower.is_fine_tuned(config) and config.wise_alpha != 1


def candidate_alphas(run: Run, fold: int | None, folds: Folds) -> tuple[float, ...]:
    """The alphas to choose from. The model of all motions (None) takes the mean of what the run's
    folds chose.

    RunError where auto has nothing to choose on: no finished fold, or held-out motions of a single
    group.
    """
    alpha = run.config.text.wise_alpha
    if alpha != "auto":
        return (alpha,)
    if fold is None:
        choices = [_chosen_alpha(run.fold_dir(fold)) for fold in run.finished_folds()]
        alphas = [alpha for alpha in choices if alpha is not None]
        if not alphas:
            problem = "--wise_alpha auto: no finished fold has chosen an alpha"
            raise RunError(run.folder, problem, "train its folds first, or give a number")
        return (float(np.mean(alphas)),)
    if len(np.unique(folds.group[folds.val_idx(fold)])) < 2:
        raise RunError(
            run.fold_dir(fold),
            "--wise_alpha auto: the held-out motions are one group",
            "give a number",
        )
    return ALPHAS


def _chosen_alpha(fold_dir: Path) -> float | None:
    """The alpha that a fold chose; None where it chose none."""
    path, fix = fold_dir / "wise.json", "remove it: the fold is then left out of the mean"
    if not reading.is_file(path, RunError):
        return None
    choice = reading.read_json_object(path, fix, RunError)
    with reading.boundary(path, "holds no alpha", fix, RunError):
        alpha = float(choice["alpha"])
        if not 0 <= alpha <= 1:
            raise ValueError(f"{alpha} is none")
    return alpha


def interpolate_weights(
    tower: nn.Module, published: Mapping[str, Tensor], tuned: Mapping[str, Tensor], alpha: float
) -> None:
    """Gives the tower (1 - alpha) of the published weights and alpha of the fine-tuned ones."""
    mixed = {
        name: torch.lerp(published[name], value, alpha) if value.is_floating_point() else value
        for name, value in tuned.items()
    }
    tower.load_state_dict(mixed)


def choose_alpha(
    outs: Mapping[float, OutOfFold], group: np.ndarray
) -> tuple[WiseChoice, OutOfFold]:
    """The best alpha, and embeddings in which no caption helped to choose its own alpha.

    outs: embeddings by alpha, which differ in their texts alone; group: (M,) of the motions, at
    least two unless there is one alpha.
    """
    first = next(iter(outs.values()))
    if len(outs) == 1:
        return WiseChoice(next(iter(outs))), first
    scores = {
        alpha: metrics.caption_scores(out.similarity(), out.motion_idx)
        for alpha, out in outs.items()
    }
    half = split_groups_in_half(group)

    def best(selected: np.ndarray) -> float:
        return max(outs, key=lambda alpha: scores[alpha][selected].mean())

    halves = (best(half == 1), best(half == 0))  # each on the other half
    choice = WiseChoice(
        best(half >= 0),
        halves,
        {f"{alpha:g}": float(score.mean()) for alpha, score in scores.items()},
    )
    mixed = {}
    for name in ("text", "text_parts"):
        if (vectors := getattr(outs[halves[0]], name)) is not None:
            caption_half = half[first.motion_idx].reshape(-1, *[1] * (vectors.ndim - 1))
            mixed[name] = np.where(caption_half == 0, vectors, getattr(outs[halves[1]], name))
    return choice, replace(first, **mixed)


def split_groups_in_half(group: np.ndarray) -> np.ndarray:
    """(M,) 0 or 1: groups stay whole and the halves are about equal."""
    labels, index, sizes = np.unique(group, return_inverse=True, return_counts=True)
    side, filled = np.zeros(len(labels), dtype=int), [0, 0]
    for label in np.argsort(-sizes, kind="stable"):
        side[label] = int(filled[1] < filled[0])
        filled[side[label]] += sizes[label]
    return side[index]


def apply_wise_ft(
    model: DualEncoder,
    checkpoint: Mapping[str, Any],
    fold_context: FoldContext,
    embed: Callable[[], OutOfFold | None],
    log: logging.Logger,
) -> OutOfFold | None:
    """Interpolates the model's text tower with the published one; returns the out-of-fold
    embeddings to score.

    checkpoint: the one loaded into the model; embed: makes the held-out embeddings of the model as
    it is, None where nothing is held out. The checkpoint file is replaced; the fine-tuned tower
    stays in it, so that a run killed here resumes from there.
    """
    run, fold, fold_dir = fold_context.run, fold_context.fold, fold_context.fold_dir
    tower = model.text_tower
    assert tower is not None, "only a text tower that trains is interpolated"
    device = model.log_scale.device
    published = {name: value.to(device) for name, value in fold_context.tower.state_dict().items()}
    tuned = checkpoint.get("tuned") or {
        name: value.clone() for name, value in tower.state_dict().items()
    }
    alphas = candidate_alphas(run, fold, fold_context.folds)
    outs: dict[float, OutOfFold] = {}
    for alpha in alphas:
        interpolate_weights(tower, published, tuned, alpha)
        if (out := embed()) is not None:
            outs[alpha] = out
    if outs:
        group = fold_context.folds.group[fold_context.val_idx]
        choice, chosen_out = choose_alpha(outs, group)
    else:
        choice, chosen_out = WiseChoice(alphas[-1]), None
    interpolate_weights(tower, published, tuned, choice.alpha)
    log.info(choice.summary())
    files.write_json(fold_dir / "wise.json", asdict(choice))
    content = {**checkpoint, "model": model.state_dict(), "tuned": tuned}
    checkpoints.save_checkpoint(checkpoints.best_checkpoint(fold_dir), content)
    return chosen_out
