"""The gain of choosing a fold's epoch by its score: on the fold itself, or on the other folds.

The best epoch of a fold, scored on the fold that chose it, flatters the model. The epoch that is
best on the other folds does not, nor does the last one, which nothing chose. All scores are read
from metrics.csv.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motret.runs import history
from motret.runs.run import Run


@dataclass(frozen=True, eq=False)
class EpochChoice:
    """Scores (folds,) of three epochs of each fold.

    last: the last; best_on_fold: the best on the fold itself; best_on_other_folds: the epoch with
    the best mean over the other folds.
    """

    last: np.ndarray
    best_on_fold: np.ndarray
    best_on_other_folds: np.ndarray

    def summary(self) -> str:
        """The means, and the gains over the last epoch, paired over folds."""
        by_choice = {
            "the fold itself": self.best_on_fold,
            "the other folds": self.best_on_other_folds,
        }
        best = [
            f"best on {on} {scores.mean():.4f} ({_gain(scores - self.last)})"
            for on, scores in by_choice.items()
        ]
        last = f"last {self.last.mean():.4f}"
        return f"epoch choice, mean of {len(self.last)} folds: {'; '.join([last, *best])}"


def epoch_choice_of_run(run: Run) -> EpochChoice | None:
    """The choice among the epochs at which all finished folds of a run were scored.

    None for fewer than two folds.
    """
    return compare_epoch_choices([_scores(run, fold) for fold in run.finished_folds()])


def compare_epoch_choices(scores: Sequence[dict[int, float]]) -> EpochChoice | None:
    """The same from the scores of several folds, each epoch -> score.

    The last epoch is each fold's own.
    """
    common = sorted(set.intersection(*map(set, scores))) if scores else []
    if len(scores) < 2 or not common:
        return None
    table = np.array([[fold[epoch] for epoch in common] for fold in scores])  # (folds, epochs)
    best_on_others = (table.sum(axis=0) - table).argmax(axis=1)
    last = np.array([fold[max(fold)] for fold in scores])
    best = np.array([max(fold.values()) for fold in scores])
    return EpochChoice(last, best, table[np.arange(len(table)), best_on_others])


def _scores(run: Run, fold: int) -> dict[int, float]:
    """Epoch -> score of the epochs at which a fold was validated."""
    epochs = history.read_metrics(run.fold_dir(fold) / "metrics.csv")
    return {stats.epoch: stats.score for stats in epochs if math.isfinite(stats.score)}


def _gain(differences: np.ndarray) -> str:
    error = differences.std(ddof=1) / len(differences) ** 0.5
    return f"{differences.mean():+.4f} +- {error:.4f}"
