"""Text towers between pretrained and fine-tuned: weights interpolated after training (WiSE-FT, Wortsman et al. 2022).

The share of the fine-tuned tower is a number, or chosen on held-out motions. A score with the best of five shares would flatter
itself, so the held-out groups are halved: each half is embedded with the share that was best on the other half, and the score counts
these. The model that is kept takes the share that was best on all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from motret import files, metrics, text
from motret.config import TextSettings
from motret.faults import RunFault
from motret.folds import Folds
from motret.runs import OutOfFold, Run

SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)
"""What auto chooses from; the first of equals is taken."""


@dataclass(frozen=True)
class Choice:
    """alpha: share of the kept model; halves: shares that two halves of the held-out motions were embedded with; scores: by share."""

    alpha: float
    halves: tuple[float, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        told = ", ".join(f"{share}: {score:.4f}" for share, score in self.scores.items())
        return f"text tower: share {self.alpha:g} fine-tuned" + (f" (scores {told}; halves with {self.halves})" if self.halves else "")


def applies(settings: TextSettings) -> bool:
    """Whether the text tower is interpolated."""
    return text.fine_tunes(settings) and settings.wise_alpha != 1


def shares(run: Run, fold: int | None, folds: Folds) -> tuple[float, ...]:
    """The shares to choose from. A model of all motions, which has none to choose on, takes the mean choice of the run's folds."""
    wanted = run.settings.text.wise_alpha
    if wanted != "auto":
        return (wanted,)
    if fold is None:
        chosen = [about["alpha"] for other in run.finished() if (about := files.read_json(run.part(other) / "wise.json"))]
        if not chosen:
            raise RunFault(run.folder, "--wise_alpha auto: no finished fold has chosen a share", "train its folds first, or give a number")
        return (float(np.mean(chosen)),)
    if len(np.unique(folds.group[folds.held_out(fold)])) < 2:
        raise RunFault(run.part(fold), "--wise_alpha auto: the held-out motions are one group", "give a number")
    return SHARES


def mix(tower: nn.Module, published: Mapping[str, Tensor], tuned: Mapping[str, Tensor], share: float) -> None:
    """Gives the tower (1 - share) of the published weights and `share` of the fine-tuned ones."""
    mixed = {name: torch.lerp(published[name], value, share) if value.is_floating_point() else value for name, value in tuned.items()}
    tower.load_state_dict(mixed)


def choose(said: Mapping[float, np.ndarray], out: OutOfFold, group: np.ndarray) -> tuple[Choice, OutOfFold]:
    """The best share, and embeddings in which no caption helped to choose its own share.

    said: (C, d) captions of `out` by share; group: (M,) of its motions, at least two unless there is one share.
    """
    scores = {share: metrics.caption_scores(vectors @ out.motion.T, out.owner) for share, vectors in said.items()}
    half = halve(group)

    def best(of: np.ndarray) -> float:
        return max(said, key=lambda share: scores[share][of].mean())

    if len(said) == 1:
        (alpha,) = said
        return Choice(alpha), replace(out, text=said[alpha])
    picked = tuple(best(half != number) for number in (0, 1))
    own = half[out.owner][:, None]
    chosen = Choice(best(half >= 0), picked, {f"{share:g}": float(score.mean()) for share, score in scores.items()})
    return chosen, replace(out, text=np.where(own == 0, said[picked[0]], said[picked[1]]))


def halve(group: np.ndarray) -> np.ndarray:
    """(M,) 0 or 1: groups stay whole and the halves are about equal."""
    labels, index, sizes = np.unique(group, return_inverse=True, return_counts=True)
    side, filled = np.zeros(len(labels), dtype=int), [0, 0]
    for label in np.argsort(-sizes, kind="stable"):
        side[label] = int(filled[1] < filled[0])
        filled[side[label]] += sizes[label]
    return side[index]
