"""What an ensemble is worth, in a few lines: each member's score and weight, the gain over the best one, the leaderboard to expect."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from motret import run_table, standing, submission
from motret.fusion import Fusion
from motret.metrics import Score
from motret.standing import LEADERBOARD


@dataclass(frozen=True)
class OnQueries:
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
class Row:
    """A line of the table; true: (Q,) the score of each query, where the answers are known."""

    name: str
    local: Score | None
    weight: float | None
    true: np.ndarray | None

    def cells(self) -> list[str]:
        """Name, local score, weight, true score, empty where there is none."""
        true = "" if self.true is None else str(submission.mean(self.true))
        weight = "" if self.weight is None else f"{self.weight:.3f}"
        return [self.name, "" if self.local is None else str(self.local), weight, true]


@dataclass(frozen=True)
class Gain:
    """By how much the ensemble is better than a member; true: on the queries, where the answers are known."""

    over: str
    local: Score
    true: Score | None

    def line(self) -> str:
        """For people."""
        true = f"; true {self.true.mean:+.4f} +- {self.true.error:.4f}" if self.true else ""
        return f"gain over the best single, {self.over}: {self.local.mean:+.4f} +- {self.local.error:.4f}{true}"

    def about(self) -> dict[str, Any]:
        """The same for a JSON file."""
        told = {"over": self.over, "mean": self.local.mean, "error": self.local.error}
        return told | ({"true": {"mean": self.true.mean, "error": self.true.error}} if self.true else {})


@dataclass(frozen=True)
class Verdict:
    """rows: the members, the ensemble last. gains: over the best member by local score, over one network of it where the answers are
    known, and over it in the ensemble's views where it has any; band: of a leaderboard's score."""

    rows: tuple[Row, ...]
    gains: tuple[Gain, ...]
    band: tuple[float, float]

    def lines(self) -> list[str]:
        """The table and the lines under it."""
        head = ["member", "local score", "weight", "true score"]
        cells = [row.cells() for row in self.rows]
        cells = [[cell for place, cell in enumerate(line) if place < 3 or self.gains[0].true] for line in [head, *cells]]
        table = run_table.aligned(cells)
        low, high = self.band
        band = f"a leaderboard of {LEADERBOARD} queries: {self.rows[-1].local.mean:.3f} expected, {low:.3f} to {high:.3f} in 9 of 10 cases"
        return [*table, *(gain.line() for gain in self.gains), band]

    def about(self) -> dict[str, Any]:
        """The same for a JSON file."""
        return {"gains": [gain.about() for gain in self.gains], "leaderboard_band": list(self.band)}


def judge(fusion: Fusion, fixed: Sequence[tuple[str, float]], true: OnQueries | None, seed: int) -> Verdict:
    """fixed: name and share of the members that no score weighs; true: None where the answers are not known."""
    left = 1 - sum(share for _, share in fixed)
    names = [member.name for member in fusion.members]
    entries = [(name, standing.score(own), weight * left) for name, own, weight in zip(names, fusion.alone, fusion.weights, strict=True)]
    entries += [(name, None, share) for name, share in fixed]
    rows = [Row(*entry, own) for entry, own in zip(entries, true.alone if true else [None] * len(entries), strict=True)]
    best = fusion.best()
    rivals = [(names[best], fusion.alone[best], true.alone[best] if true else None)]
    if true and true.network is not None:
        rivals.append((f"{names[best]}, one network", fusion.alone[best], true.network))
    if fusion.viewed is not None:
        rivals.append((f"{names[best]} in the same views", fusion.viewed, true.viewed if true else None))
    rows += [Row(name, standing.score(own), None, queries) for name, own, queries in rivals[1:]]
    rows.append(Row("ensemble", fusion.local.score, None, true.together if true else None))
    together, groups = standing.values(fusion.together), standing.groups(fusion.together)
    gains = []
    for name, own, queries in rivals:
        rng = np.random.default_rng(seed)  # the same draws for each, so that equal differences have equal errors
        local = standing.bootstrap(together - standing.values(own), groups, rng)
        gains.append(Gain(name, local, standing.bootstrap(true.together - queries, np.arange(len(queries)), rng) if true else None))
    band = standing.leaderboard_band(fusion.together, fusion.local.score.error, np.random.default_rng(seed))
    return Verdict(tuple(rows), tuple(gains), band)
