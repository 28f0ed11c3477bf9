"""Text towers between pretrained and fine-tuned: weights interpolated after training (WiSE-FT, Wortsman et al. 2022).

The share of the fine-tuned tower is a number, or chosen on held-out motions. A score with the best of five shares would flatter
itself, so the held-out groups are halved: each half is embedded with the share that was best on the other half, and the score counts
these. The model that is kept takes the share that was best on all of them.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
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
from motret.utils import files

ALPHAS = (1.0, 0.75, 0.5, 0.25, 0.0)
"""What auto chooses from; the first of equals is taken."""


@dataclass(frozen=True)
class WiseChoice:
    """alpha: share of the kept model; halves: shares that two halves of the held-out motions were embedded with; scores: by share."""

    alpha: float
    halves: tuple[float, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        told = ", ".join(f"{share}: {score:.4f}" for share, score in self.scores.items())
        return f"text tower: share {self.alpha:g} fine-tuned" + (f" (scores {told}; halves with {self.halves})" if self.halves else "")


def uses_wise_ft(config: TextConfig) -> bool:
    """Whether the text tower is interpolated."""
    return text_tower.is_fine_tuned(config) and config.wise_alpha != 1


def candidate_alphas(run: Run, fold: int | None, folds: Folds) -> tuple[float, ...]:
    """The shares to choose from. A model of all motions, which has none to choose on, takes the mean choice of the run's folds."""
    wanted = run.config.text.wise_alpha
    if wanted != "auto":
        return (wanted,)
    if fold is None:
        chosen = [about["alpha"] for other in run.finished_folds() if (about := files.read_json(run.fold_dir(other) / "wise.json"))]
        if not chosen:
            raise RunError(run.folder, "--wise_alpha auto: no finished fold has chosen a share", "train its folds first, or give a number")
        return (float(np.mean(chosen)),)
    if len(np.unique(folds.group[folds.val_idx(fold)])) < 2:
        raise RunError(run.fold_dir(fold), "--wise_alpha auto: the held-out motions are one group", "give a number")
    return ALPHAS


def interpolate_weights(tower: nn.Module, published: Mapping[str, Tensor], tuned: Mapping[str, Tensor], share: float) -> None:
    """Gives the tower (1 - share) of the published weights and `share` of the fine-tuned ones."""
    mixed = {name: torch.lerp(published[name], value, share) if value.is_floating_point() else value for name, value in tuned.items()}
    tower.load_state_dict(mixed)


def choose_alpha(outs: Mapping[float, OutOfFold], group: np.ndarray) -> tuple[WiseChoice, OutOfFold]:
    """The best share, and embeddings in which no caption helped to choose its own share.

    outs: embeddings by share, which differ in their texts alone; group: (M,) of the motions, at least two unless there is one share.
    """
    first = next(iter(outs.values()))
    if len(outs) == 1:
        return WiseChoice(next(iter(outs))), first
    scores = {share: metrics.caption_scores(out.similarity(), out.motion_idx) for share, out in outs.items()}
    half = split_groups_in_half(group)

    def best(of: np.ndarray) -> float:
        return max(outs, key=lambda share: scores[share][of].mean())

    picked = (best(half == 1), best(half == 0))  # each on the other half
    chosen = WiseChoice(best(half >= 0), picked, {f"{share:g}": float(score.mean()) for share, score in scores.items()})
    mixed = {}
    for name in ("text", "text_parts"):
        if (zero := getattr(outs[picked[0]], name)) is not None:
            own = half[first.motion_idx].reshape(-1, *[1] * (zero.ndim - 1))
            mixed[name] = np.where(own == 0, zero, getattr(outs[picked[1]], name))
    return chosen, replace(first, **mixed)


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
    tower: nn.Module,
    kept: dict[str, Any],
    run: Run,
    fold: int | None,
    folds: Folds,
    embedded: Callable[[], OutOfFold | None],
    log: logging.Logger,
) -> OutOfFold | None:
    """Puts the model's text tower between `tower`, as published, and what it has become; returns the embeddings that count.

    kept: the checkpoint in the model; embedded: makes the held-out embeddings of the model as it is, None where nothing is held out.
    The checkpoint is replaced; the fine-tuned tower stays in it, so that a run killed here goes on from there.
    """
    published = {name: value.to(model.log_scale.device) for name, value in tower.state_dict().items()}
    tuned = kept.get("tuned") or {name: value.clone() for name, value in model.text_tower.state_dict().items()}
    outs: dict[float, OutOfFold | None] = {}
    for share in candidate_alphas(run, fold, folds):
        interpolate_weights(model.text_tower, published, tuned, share)
        outs[share] = embedded()
    choice, out = (WiseChoice(share), None) if fold is None else choose_alpha(outs, folds.group[outs[share].data_idx])
    interpolate_weights(model.text_tower, published, tuned, choice.alpha)
    log.info(choice.line())
    files.write_json(run.fold_dir(fold) / "wise.json", asdict(choice))
    checkpoints.save_checkpoint(checkpoints.best_checkpoint(run.fold_dir(fold)), kept | {"model": model.state_dict(), "tuned": tuned})
    return out
