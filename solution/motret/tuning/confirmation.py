"""Whether a tuned trial is really better than the default: the rule, applied on folds that the search did not use.

The best of many trials is partly luck, so its gain on the folds it was chosen on proves nothing. A few finalists are trained on
other folds, and one is adopted only where its gain there exceeds several standard errors. The errors are those of the motions; how
much a training varies with its random start is not among them, so a small gain is better confirmed on more than one fold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from motret.evaluation.metrics import Score

FINALISTS = 3
"""Trials that are confirmed at a time, the best ones, where there is time for all.

Each is a further chance to adopt luck, which `errors_needed` counts."""
SIGNIFICANCE = 0.05
"""Chance, at most, that a trial is adopted though none is better than the default."""
MIN_ERRORS = 2.0
"""Standard errors that a gain must exceed in any case."""


@dataclass(frozen=True)
class Confirmation:
    """A finalist on the confirming folds: its score there, that of the default, and their paired difference."""

    trial: int
    values: dict[str, Any]
    score: Score
    default: Score
    gain: Score

    def about(self) -> dict[str, Any]:
        """The same for a JSON file."""
        scores = {name: _as_json(getattr(self, name)) for name in ("score", "default", "gain")}
        return {"trial": self.trial, **scores, "values": self.values}


def errors_needed(tries: int, groups: int) -> float:
    """Standard errors that the gain of one of `tries` finalists must exceed, at least `LEAST`.

    The one-sided quantile of Student's t at RISK / tries (Bonferroni), with as many degrees of freedom as there are groups of
    motions less one: an error estimated from few groups is itself uncertain.
    """
    if groups < 2:
        return float("inf")
    return max(MIN_ERRORS, float(stats.t.isf(SIGNIFICANCE / max(1, tries), groups - 1)))


def choose_adopted(confirmed: Sequence[Confirmation]) -> Confirmation | None:
    """The finalist whose gain is largest among those that exceed the errors needed; None where the default stands."""
    passed = [one for one in confirmed if one.gain.mean > errors_needed(len(confirmed), one.gain.groups) * one.gain.error]
    return max(passed, key=lambda one: one.gain.mean, default=None)


def _as_json(score: Score) -> dict[str, float]:
    return {"mean": score.mean, "error": score.error}
