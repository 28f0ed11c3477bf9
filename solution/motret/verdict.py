"""What an ensemble is worth, in a few lines: each member's score and weight, the gain over the best one, the leaderboard to expect."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from motret import run_table, standing, submission
from motret.fusion import Fusion
from motret.metrics import Score
from motret.standing import LEADERBOARD, Standing


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
class Verdict:
    """rows: the members, the ensemble last; where it is one member as it is, that member alone.

    gains: over the best member by local score, over one network of it where the answers are known, and over it in the ensemble's views
    where it has any; band: of a leaderboard's score. A file that no score can weigh leaves the ensemble without local score and band.
    """

    rows: tuple[Row, ...]
    gains: tuple[Gain, ...]
    band: tuple[float, float] | None

    def lines(self) -> list[str]:
        """The table and the lines under it."""
        head = ["member", "local score", "weight", "true score"]
        cells = [head, *(row.cells() for row in self.rows)]
        table = run_table.aligned(cells if self.rows[-1].true is not None else [line[:3] for line in cells])
        said = [*table, *(gain.line() for gain in self.gains)]
        alone = len([row for row in self.rows if row.weight is not None]) == 1
        if alone and any(gain.local and gain.local.mean < 0 for gain in self.gains):
            said.append("it is below its one member since views and normalisation are scored on folds that had no part in choosing them")
        if self.band is None:
            return said
        low, high = self.band
        expected = f"{self.rows[-1].local.mean:.3f} expected, {low:.3f} to {high:.3f} in 9 of 10 cases"
        return [*said, f"a leaderboard of {LEADERBOARD} queries: {expected}"]

    def about(self) -> dict[str, Any]:
        """The same for a JSON file."""
        return {"gains": [gain.about() for gain in self.gains], "leaderboard_band": self.band and list(self.band)}


def judge(fusion: Fusion, fixed: Sequence[tuple[str, float]], true: OnQueries | None, seed: int) -> Verdict:
    """fixed: name and share of the members that no score weighs; true: None where the answers are not known."""
    rows = _members(fusion, fixed, true)
    local = None if fixed else fusion.local.score
    band = standing.leaderboard_band(fusion.together, local.error, np.random.default_rng(seed)) if local else None
    if fusion.changes_nothing and not fixed:
        return Verdict(rows, (), band)
    rivals = _rivals(fusion, true)
    rows += tuple(Row(name, standing.score(own), None, queries) for name, own, queries in rivals[1:])
    rows += (Row(_name(fusion, fixed), local, None, true.together if true else None),)
    if fixed and true is None:
        return Verdict(rows, (), band)
    together, groups = standing.values(fusion.together), standing.groups(fusion.together)
    gains = []
    for name, own, queries in rivals:
        rng = np.random.default_rng(seed)  # the same draws for each, so that equal differences have equal errors
        gain = None if fixed else standing.bootstrap(together - standing.values(own), groups, rng)
        gains.append(Gain(name, gain, standing.bootstrap(true.together - queries, np.arange(len(queries)), rng) if true else None))
    return Verdict(rows, tuple(gains), band)


def _members(fusion: Fusion, fixed: Sequence[tuple[str, float]], true: OnQueries | None) -> tuple[Row, ...]:
    """A row for each member and each file that was given its weight."""
    left = 1 - sum(share for _, share in fixed)
    scored = zip(fusion.members, fusion.alone, fusion.weights, strict=True)
    entries = [(member.name, standing.score(own), weight * left) for member, own, weight in scored]
    entries += [(name, None, share) for name, share in fixed]
    return tuple(Row(*entry, own) for entry, own in zip(entries, true.alone if true else [None] * len(entries), strict=True))


def _rivals(fusion: Fusion, true: OnQueries | None) -> list[tuple[str, tuple[Standing, ...], np.ndarray | None]]:
    """What the ensemble is compared with: the best member, and where there are several members also one network of it, and it in views."""
    best = fusion.best()
    name, alone = fusion.members[best].name, fusion.alone[best]
    rivals = [(name, alone, true.alone[best] if true else None)]
    if len(fusion.members) > 1 and true and true.network is not None:
        rivals.append((f"{name}, one network", alone, true.network))
    if len(fusion.members) > 1 and fusion.viewed is not None:
        rivals.append((f"{name} in the same views", fusion.viewed, true.viewed if true else None))
    return rivals


def _name(fusion: Fusion, fixed: Sequence[tuple[str, float]]) -> str:
    """Of the last row: the ensemble, or what was made of its one member."""
    if len(fusion.members) + len(fixed) > 1:
        return "ensemble"
    added = [f"views {', '.join(fusion.views)}"] if fusion.views else []
    return f"{fusion.members[0].name} with {' and '.join([*added, *(['query bank'] if fusion.beta is not None else [])])}"
