"""What an ensemble is worth, in a few lines: each member's score and weight, the gain over the best one, the leaderboard to expect."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from motret.ensemble.fit import FittedEnsemble
from motret.evaluation import gallery_ranks, run_table, submission_score
from motret.evaluation.gallery_ranks import LEADERBOARD_QUERIES, GalleryRanks
from motret.evaluation.metrics import Score


@dataclass(frozen=True)
class TestScores:
    """Scores (Q,) of the queries whose answers are known: by each member and by each file that was given its weight; by one network of
    the best member, the mean over its networks (None where it has but one), and by that member in the ensemble's views (None without);
    by the ensemble.

    Out of fold a motion meets one network of a member, here the mean of all of them: the gain over one network is what compares.
    """

    alone: tuple[np.ndarray, ...]
    network: np.ndarray | None
    viewed: np.ndarray | None
    together: np.ndarray


@dataclass(frozen=True)
class SummaryRow:
    """A line of the table; true: (Q,) the score of each query, where the answers are known."""

    name: str
    local: Score | None
    weight: float | None
    true: np.ndarray | None

    def cells(self) -> list[str]:
        """Name, local score, weight, true score, empty where there is none."""
        true = "" if self.true is None else str(submission_score.mean_over_queries(self.true))
        weight = "" if self.weight is None else f"{self.weight:.3f}"
        return [self.name, "" if self.local is None else str(self.local), weight, true]


@dataclass(frozen=True)
class Gain:
    """By how much the ensemble is better than a member; local: None where a file that no score can weigh takes part; true: on the
    queries, where the answers are known."""

    over: str
    local: Score | None
    true: Score | None

    def line(self) -> str:
        """For people."""
        told = [f"{self.local.mean:+.4f} +- {self.local.error:.4f}"] if self.local else []
        told += [f"true {self.true.mean:+.4f} +- {self.true.error:.4f}"] if self.true else []
        return f"gain over the best single, {self.over}: {'; '.join(told)}"

    def about(self) -> dict[str, Any]:
        """The same for a JSON file."""
        mean, error = (self.local.mean, self.local.error) if self.local else (None, None)
        told = {"over": self.over, "mean": mean, "error": error}
        return told | ({"true": {"mean": self.true.mean, "error": self.true.error}} if self.true else {})


@dataclass(frozen=True)
class EnsembleSummary:
    """rows: the members, the ensemble last; where it is one member as it is, that member alone.

    gains: over the best member by local score, over one network of it where the answers are known, and over it in the ensemble's views
    where it has any; band: of a leaderboard's score. A file that no score can weigh leaves the ensemble without local score and band.
    """

    rows: tuple[SummaryRow, ...]
    gains: tuple[Gain, ...]
    band: tuple[float, float] | None

    def lines(self) -> list[str]:
        """The table and the lines under it."""
        head = ["member", "local score", "weight", "true score"]
        cells = [head, *(row.cells() for row in self.rows)]
        table = run_table.align_columns(cells if self.rows[-1].true is not None else [line[:3] for line in cells])
        said = [*table, *(gain.line() for gain in self.gains)]
        alone = len([row for row in self.rows if row.weight is not None]) == 1
        if alone and any(gain.local and gain.local.mean < 0 for gain in self.gains):
            said.append("it is below its one member since views and normalisation are scored on folds that had no part in choosing them")
        if self.band is None:
            return said
        low, high = self.band
        expected = f"{self.rows[-1].local.mean:.3f} expected, {low:.3f} to {high:.3f} in 9 of 10 cases"
        return [*said, f"a leaderboard of {LEADERBOARD_QUERIES} queries: {expected}"]

    def about(self) -> dict[str, Any]:
        """The same for a JSON file."""
        return {"gains": [gain.about() for gain in self.gains], "leaderboard_band": self.band and list(self.band)}


def summarise(fusion: FittedEnsemble, fixed: Sequence[tuple[str, float]], true: TestScores | None, seed: int) -> EnsembleSummary:
    """fixed: name and share of the members that no score weighs; true: None where the answers are not known."""
    rows = _member_rows(fusion, fixed, true)
    local = None if fixed else fusion.local.score
    band = gallery_ranks.leaderboard_interval(fusion.together, local.error, np.random.default_rng(seed)) if local else None
    if fusion.changes_nothing and not fixed:
        return EnsembleSummary(rows, (), band)
    rivals = _baselines(fusion, true)
    rows += tuple(SummaryRow(name, gallery_ranks.mean_score(own), None, queries) for name, own, queries in rivals[1:])
    rows += (SummaryRow(_name(fusion, fixed), local, None, true.together if true else None),)
    if fixed and true is None:
        return EnsembleSummary(rows, (), band)
    together, groups = gallery_ranks.motion_values(fusion.together), gallery_ranks.motion_groups(fusion.together)
    gains = []
    for name, own, queries in rivals:
        rng = np.random.default_rng(seed)  # the same draws for each, so that equal differences have equal errors
        gain = None if fixed else gallery_ranks.bootstrap_difference(together - gallery_ranks.motion_values(own), groups, rng)
        gains.append(
            Gain(name, gain, gallery_ranks.bootstrap_difference(true.together - queries, np.arange(len(queries)), rng) if true else None)
        )
    return EnsembleSummary(rows, tuple(gains), band)


def _member_rows(fusion: FittedEnsemble, fixed: Sequence[tuple[str, float]], true: TestScores | None) -> tuple[SummaryRow, ...]:
    """A row for each member and each file that was given its weight."""
    left = 1 - sum(share for _, share in fixed)
    scored = zip(fusion.members, fusion.alone, fusion.weights, strict=True)
    entries = [(member.name, gallery_ranks.mean_score(own), weight * left) for member, own, weight in scored]
    entries += [(name, None, share) for name, share in fixed]
    return tuple(SummaryRow(*entry, own) for entry, own in zip(entries, true.alone if true else [None] * len(entries), strict=True))


def _baselines(fusion: FittedEnsemble, true: TestScores | None) -> list[tuple[str, tuple[GalleryRanks, ...], np.ndarray | None]]:
    """What the ensemble is compared with: the best member, and where there are several members also one network of it, and it in views."""
    best = fusion.best()
    name, alone = fusion.members[best].name, fusion.alone[best]
    rivals = [(name, alone, true.alone[best] if true else None)]
    if len(fusion.members) > 1 and true and true.network is not None:
        rivals.append((f"{name}, one network", alone, true.network))
    if len(fusion.members) > 1 and fusion.viewed is not None:
        rivals.append((f"{name} in the same views", fusion.viewed, true.viewed if true else None))
    return rivals


def _name(fusion: FittedEnsemble, fixed: Sequence[tuple[str, float]]) -> str:
    """Of the last row: the ensemble, or what was made of its one member."""
    if len(fusion.members) + len(fixed) > 1:
        return "ensemble"
    added = [f"views {', '.join(fusion.views)}"] if fusion.views else []
    return f"{fusion.members[0].name} with {' and '.join([*added, *(['query bank'] if fusion.beta is not None else [])])}"
