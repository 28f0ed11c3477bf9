"""What it is worth to choose a fold's epoch by its score, read off metrics.csv: on the fold itself, or on the other folds.

The best epoch of a fold, scored on the fold that chose it, flatters the model. The epoch that is best on the other folds does not,
and neither does the last one, which nobody chose.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motret.runs import history
from motret.runs.run import Run


@dataclass(frozen=True)
class EpochChoice:
    """Scores (folds,) of the last epoch, of each fold's own best, and of the epoch with the best mean over the other folds."""

    last: np.ndarray
    best_on_fold: np.ndarray
    best_on_other_folds: np.ndarray

    def summary(self) -> str:
        """For people: the means, and the gains over the last epoch, paired over folds."""
        return (
            f"epoch choice, mean of {len(self.last)} folds: last {self.last.mean():.4f}; "
            f"best on the fold itself {self.best_on_fold.mean():.4f} "
            f"({_gain(self.best_on_fold - self.last)}); "
            f"best on the other folds {self.best_on_other_folds.mean():.4f} "
            f"({_gain(self.best_on_other_folds - self.last)})"
        )


def epoch_choice_of_run(run: Run) -> EpochChoice | None:
    """The choice among the epochs that all finished folds of a run were scored at; None for fewer than two folds."""
    return compare_epoch_choices([_scores(run, fold) for fold in run.finished_folds()])


def compare_epoch_choices(scores: Sequence[dict[int, float]]) -> EpochChoice | None:
    """The same of several folds, each epoch -> score. The last epoch is each fold's own last."""
    common = sorted(set.intersection(*map(set, scores))) if scores else []
    if len(scores) < 2 or not common:
        return None
    table = np.array([[fold[epoch] for epoch in common] for fold in scores])  # (folds, epochs)
    rest = (table.sum(axis=0) - table).argmax(axis=1)
    last = np.array([fold[max(fold)] for fold in scores])
    return EpochChoice(last, np.array([max(fold.values()) for fold in scores]), table[np.arange(len(table)), rest])


def _scores(run: Run, fold: int) -> dict[int, float]:
    """Epoch -> score of the epochs at which a fold was validated."""
    lines = history.read_metrics(run.fold_dir(fold) / "metrics.csv")
    return {line.epoch: line.score for line in lines if math.isfinite(line.score)}


def _gain(differences: np.ndarray) -> str:
    error = differences.std(ddof=1) / len(differences) ** 0.5
    return f"{differences.mean():+.4f} +- {error:.4f}"
