"""Whether a tuned trial is really better than the default: the rule, applied on folds that the
search did not use.

The best of many trials is partly chance, so its gain on the folds that chose it proves nothing. A
few finalists are trained on other folds, and one is adopted only where its gain there exceeds
several standard errors. The errors are those of the motions; they leave out how much a training
varies with its random start, so a small gain is better confirmed on more than one fold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from motret.evaluation.metrics import Score

FINALISTS = 3
"""Trials that are confirmed at a time, the best ones, if there is time for all.

Each is a further chance of a false gain, which `errors_needed` takes into account."""
SIGNIFICANCE = 0.05
"""Probability, at most, that a trial is adopted though none is better than the default."""
MIN_ERRORS = 2.0
"""Standard errors that a gain must exceed in any case."""


@dataclass(frozen=True)
class Confirmation:
    """A finalist on the confirming folds: its score there, that of the default, and their paired
    difference."""

    trial: int
    values: dict[str, Any]
    score: Score
    default: Score
    gain: Score

    def to_json(self) -> dict[str, Any]:
        """The same for a JSON file."""
        scores = {"score": self.score, "default": self.default, "gain": self.gain}
        return {
            "trial": self.trial,
            **{name: score_json(score) for name, score in scores.items()},
            "values": self.values,
        }


def errors_needed(tries: int, groups: int) -> float:
    """Standard errors that the gain of one of `tries` finalists must exceed, at least `MIN_ERRORS`.

    The one-sided quantile of Student's t at SIGNIFICANCE / tries (Bonferroni), with one degree of
    freedom less than there are groups of motions: an error estimated from few groups is itself
    uncertain.
    """
    if groups < 2:
        return float("inf")
    return max(MIN_ERRORS, float(stats.t.isf(SIGNIFICANCE / max(1, tries), groups - 1)))


def choose_adopted(confirmed: Sequence[Confirmation]) -> Confirmation | None:
    """The finalist with the largest gain among those that exceed the errors needed; None where the
    default stands."""
    passed = [
        finalist
        for finalist in confirmed
        if finalist.gain.mean
        > errors_needed(len(confirmed), finalist.gain.groups) * finalist.gain.error
    ]
    return max(passed, key=lambda finalist: finalist.gain.mean, default=None)


def score_json(score: Score) -> dict[str, float]:
    """A score for a JSON file."""
    return {"mean": score.mean, "error": score.error}
