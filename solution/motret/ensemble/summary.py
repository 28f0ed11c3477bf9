"""The result of an ensemble in a few lines: scores, weights, gains, leaderboard."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from motret.ensemble.external import FixedWeightMember
from motret.ensemble.fit import FittedEnsemble
from motret.evaluation import gallery_ranks, run_table, submission_score
from motret.evaluation.gallery_ranks import LEADERBOARD_QUERIES, GalleryRanks
from motret.evaluation.metrics import Score


@dataclass(frozen=True, eq=False)
class TestScores:
    """Scores (Q,) of the queries whose answers are known.

    members: of each member, then of each with a given weight. network: of one network of the best
    member, the mean over its networks, None where it has but one; best_member_tta: of the best
    member in the ensemble's views, None without; ensemble: of the ensemble; assigned: of it with
    one-to-one assignment, None without.

    Out of fold each motion meets one network of a member, on the test the mean of all of them. The
    gain over one network is therefore the one to compare with the local gain.
    """

    members: tuple[np.ndarray, ...]
    network: np.ndarray | None
    best_member_tta: np.ndarray | None
    ensemble: np.ndarray
    assigned: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class SummaryRow:
    """A line of the table; true: (Q,) scores of the queries whose answers are known."""

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
    """The score of the ensemble minus that of a baseline, with standard errors.

    local: on held-out motions, None where a member has no out-of-fold predictions; true: on the
    queries whose answers are known.
    """

    over: str
    local: Score | None
    true: Score | None

    def summary(self) -> str:
        """A line for a terminal."""
        gains = [f"{self.local.mean:+.4f} +- {self.local.error:.4f}"] if self.local else []
        gains += [f"true {self.true.mean:+.4f} +- {self.true.error:.4f}"] if self.true else []
        return f"gain over the best single model, {self.over}: {'; '.join(gains)}"

    def to_json(self) -> dict[str, Any]:
        """The same for a JSON file."""
        mean, error = (self.local.mean, self.local.error) if self.local else (None, None)
        true = {"true": {"mean": self.true.mean, "error": self.true.error}} if self.true else {}
        return {"over": self.over, "mean": mean, "error": error} | true


@dataclass(frozen=True)
class EnsembleSummary:
    """rows: the members, the ensemble last; of one member as it is that member alone.

    gains: over the best member by local score, over one network of it where the answers are known,
    and over it in the ensemble's views where there are any. leaderboard: between which scores a
    leaderboard's ends. A member without out-of-fold predictions leaves the ensemble without local
    score and leaderboard. assigned: (Q,) scores of the queries whose answers are known with
    one-to-one assignment, None without; no other value counts it.
    """

    rows: tuple[SummaryRow, ...]
    gains: tuple[Gain, ...]
    leaderboard: tuple[float, float] | None
    assigned: np.ndarray | None = None

    @property
    def true(self) -> np.ndarray | None:
        """(Q,) scores of the submission's queries whose answers are known."""
        return self.rows[-1].true if self.assigned is None else self.assigned

    @property
    def assignment(self) -> Score | None:
        """What one-to-one assignment gains on the queries whose answers are known."""
        plain = self.rows[-1].true
        if self.assigned is None or plain is None:
            return None
        return submission_score.mean_over_queries(self.assigned - plain)

    def lines(self) -> list[str]:
        """The table and the lines under it."""
        header = ["member", "local score", "weight", "true score"]
        cells = [header, *(row.cells() for row in self.rows)]
        if self.rows[-1].true is None:
            cells = [row[:-1] for row in cells]
        lines = [*run_table.align_columns(cells), *(gain.summary() for gain in self.gains)]
        is_single = len([row for row in self.rows if row.weight is not None]) == 1
        if is_single and any(gain.local and gain.local.mean < 0 for gain in self.gains):
            lines.append(
                "the gain is below 0: views and query bank are scored on folds that "
                "did not choose them"
            )
        local = self.rows[-1].local
        if self.leaderboard is None or local is None:
            return lines
        low, high = self.leaderboard
        expected = f"{local.mean:.3f} expected, {low:.3f} to {high:.3f} in 9 of 10 cases"
        of_queries = f"{LEADERBOARD_QUERIES} queries like the held-out captions"
        return [*lines, f"a leaderboard of {of_queries}: {expected}"]

    def to_json(self) -> dict[str, Any]:
        """The same for a JSON file."""
        return {
            "gains": [gain.to_json() for gain in self.gains],
            "leaderboard_band": self.leaderboard and list(self.leaderboard),
        }


@dataclass(frozen=True, eq=False)
class _Baseline:
    """A model to compare with.

    true: (Q,) scores of the queries whose answers are known.
    """

    name: str
    ranks: tuple[GalleryRanks, ...]
    true: np.ndarray | None


def summarise(
    ensemble: FittedEnsemble, fixed: Sequence[FixedWeightMember], true: TestScores | None, seed: int
) -> EnsembleSummary:
    """The summary of an ensemble.

    fixed: members with a given weight; true: None where the answers are not known; seed: of the
    bootstrap.
    """
    rows = _member_rows(ensemble, fixed, true)
    local = None if fixed else ensemble.local.score
    leaderboard = None
    if local:
        rng = np.random.default_rng(seed)
        leaderboard = gallery_ranks.leaderboard_interval(ensemble.ensemble_ranks, local.error, rng)
    assigned = true.assigned if true else None
    if ensemble.is_plain_member and not fixed:
        return EnsembleSummary(rows, (), leaderboard, assigned)
    baselines = _baselines(ensemble, true)
    rows += tuple(
        SummaryRow(one.name, gallery_ranks.mean_score(one.ranks), None, one.true)
        for one in baselines[1:]
    )
    rows += (
        SummaryRow(_ensemble_name(ensemble, fixed), local, None, true.ensemble if true else None),
    )
    if fixed and true is None:
        return EnsembleSummary(rows, (), leaderboard)
    gains = (_gain(ensemble, baseline, bool(local), true, seed) for baseline in baselines)
    return EnsembleSummary(rows, tuple(gains), leaderboard, assigned)


def _member_rows(
    ensemble: FittedEnsemble, fixed: Sequence[FixedWeightMember], true: TestScores | None
) -> tuple[SummaryRow, ...]:
    """A row for each member, then for each with a given weight."""
    fitted_weight = 1 - sum(member.weight for member in fixed)
    scored = zip(ensemble.names, ensemble.member_ranks, ensemble.weights, strict=True)
    entries: list[tuple[str, Score | None, float]] = [
        (name, gallery_ranks.mean_score(ranks), weight * fitted_weight)
        for name, ranks, weight in scored
    ]
    entries += [(member.name, None, member.weight) for member in fixed]
    true_scores = true.members if true else [None] * len(entries)
    return tuple(
        SummaryRow(*entry, scores) for entry, scores in zip(entries, true_scores, strict=True)
    )


def _baselines(ensemble: FittedEnsemble, true: TestScores | None) -> list[_Baseline]:
    """The best member, and variants of it where there are several members.

    These are one network of it, and it in the ensemble's views.
    """
    best = ensemble.best_member_idx
    name, ranks = ensemble.names[best], ensemble.member_ranks[best]
    baselines = [_Baseline(name, ranks, true.members[best] if true else None)]
    if len(ensemble.names) > 1 and true and true.network is not None:
        baselines.append(_Baseline(f"{name}, one network", ranks, true.network))
    if len(ensemble.names) > 1 and ensemble.best_member_tta_ranks is not None:
        in_views = true.best_member_tta if true else None
        baselines.append(
            _Baseline(f"{name} in the same views", ensemble.best_member_tta_ranks, in_views)
        )
    return baselines


def _gain(
    ensemble: FittedEnsemble,
    baseline: _Baseline,
    has_local: bool,
    true: TestScores | None,
    seed: int,
) -> Gain:
    rng = np.random.default_rng(
        seed
    )  # the same draws for each baseline, so that equal differences have equal errors
    local_gain = true_gain = None
    if has_local:
        differences = gallery_ranks.motion_values(
            ensemble.ensemble_ranks
        ) - gallery_ranks.motion_values(baseline.ranks)
        groups = gallery_ranks.motion_groups(ensemble.ensemble_ranks)
        local_gain = gallery_ranks.bootstrap_difference(differences, groups, rng)
    if true and baseline.true is not None:
        differences = true.ensemble - baseline.true
        true_gain = gallery_ranks.bootstrap_difference(
            differences, np.arange(len(differences)), rng
        )
    return Gain(baseline.name, local_gain, true_gain)


def _ensemble_name(ensemble: FittedEnsemble, fixed: Sequence[FixedWeightMember]) -> str:
    """Name of the last row: the ensemble, or its one member with what was added to it."""
    if len(ensemble.names) + len(fixed) > 1:
        return "ensemble"
    added = [f"views {', '.join(ensemble.views)}"] if ensemble.views else []
    added += ["query bank"] if ensemble.beta is not None else []
    return f"{ensemble.names[0]} with {' and '.join(added)}"
