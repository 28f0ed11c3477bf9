"""What an ensemble is worth, in a few lines: each member's score and weight, the gain over the best one, the leaderboard to expect."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from motret import standing, submission
from motret.fusion import Fusion
from motret.metrics import Score
from motret.standing import LEADERBOARD


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
class Verdict:
    """rows: the members, the ensemble last. gain, true_gain: over the best member by local score; band: of a leaderboard's score."""

    rows: tuple[Row, ...]
    best: str
    gain: Score
    true_gain: Score | None
    band: tuple[float, float]

    def lines(self) -> list[str]:
        """The table and the two lines under it."""
        head = ["member", "local score", "weight", "true score"]
        cells = [row.cells() for row in self.rows]
        cells = [[cell for place, cell in enumerate(line) if place < 3 or self.true_gain] for line in [head, *cells]]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
        true = f"; true {self.true_gain.mean:+.4f} +- {self.true_gain.error:.4f}" if self.true_gain else ""
        gain = f"gain over the best single, {self.best}: {self.gain.mean:+.4f} +- {self.gain.error:.4f}{true}"
        low, high = self.band
        band = f"a leaderboard of {LEADERBOARD} queries: {self.rows[-1].local.mean:.3f} expected, {low:.3f} to {high:.3f} in 9 of 10 cases"
        return [*table, gain, band]

    def about(self) -> dict[str, Any]:
        """The same for a JSON file."""
        return {
            "gain": {"over": self.best, "mean": self.gain.mean, "error": self.gain.error},
            "true_gain": {"mean": self.true_gain.mean, "error": self.true_gain.error} if self.true_gain else None,
            "leaderboard_band": list(self.band),
        }


def judge(fusion: Fusion, fixed: Sequence[tuple[str, float]], true: Sequence[np.ndarray] | None, seed: int) -> Verdict:
    """fixed: name and share of the members that no score weighs; true: (Q,) scores of each member, of those, and of the ensemble."""
    rng = np.random.default_rng(seed)
    left = 1 - sum(share for _, share in fixed)
    names = [member.name for member in fusion.members]
    entries = [(name, standing.score(own), weight * left) for name, own, weight in zip(names, fusion.alone, fusion.weights, strict=True)]
    entries += [(name, None, share) for name, share in fixed] + [("ensemble", fusion.local.score, None)]
    told = true or [None] * len(entries)
    rows = tuple(Row(*entry, own) for entry, own in zip(entries, told, strict=True))
    best = fusion.best()
    differences = standing.values(fusion.together) - standing.values(fusion.alone[best])
    gain = standing.bootstrap(differences, standing.groups(fusion.together), rng)
    true_gain = standing.bootstrap(true[-1] - true[best], np.arange(len(true[-1])), rng) if true else None
    return Verdict(rows, names[best], gain, true_gain, standing.leaderboard_band(fusion.together, fusion.local.score.error, rng))
