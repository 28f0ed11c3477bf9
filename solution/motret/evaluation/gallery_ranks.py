"""Where the right motions stand in a gallery of held-out motions, and what follows: scores, gains with errors, a leaderboard's band."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motret.evaluation import metrics
from motret.evaluation.metrics import Score
from motret.formats import challenge

N_BOOTSTRAP = 4000
"""Draws of a bootstrap."""
LEADERBOARD_QUERIES = 30
"""Queries of the competition's leaderboard."""


@dataclass(frozen=True)
class GalleryRanks:
    """better, tied: (C,) motions of the gallery scored above, and equal to, each caption's own; owner: (C,) its own; group: (M,)."""

    better: np.ndarray
    tied: np.ndarray
    motion_idx: np.ndarray
    group: np.ndarray

    @classmethod
    def of(cls, sim_cm: np.ndarray, motion_idx: np.ndarray, group: np.ndarray) -> "GalleryRanks":
        """From the similarities (C, M) of captions and motions."""
        return cls(*metrics.count_better(sim_cm, motion_idx), motion_idx, group)

    def values(self) -> np.ndarray:
        """Expected score (M,) of each motion, the mean over its captions: `metrics.caption_scores`, from ranks."""
        return metrics.motion_scores(self.better, self.tied, self.motion_idx, len(self.group))


@dataclass(frozen=True)
class LocalScore:
    """What some members score together on motions they had not seen.

    score: expected competition score; retrieval: recalls over a fold's whole gallery, weighted by captions, in both directions;
    by_fold: the score of each fold.
    """

    score: Score
    by_fold: dict[int, Score]
    retrieval: dict[str, dict[str, float]]

    def summary(self, name: str) -> str:
        """`name: score 0.7312 +- 0.0041 (...)`."""
        folds = f"{len(self.by_fold)} fold{'s' if len(self.by_fold) != 1 else ''}"
        pools = sorted({min(challenge.POOL_SIZE, score.motions) for score in self.by_fold.values()})  # a smaller fold is its own pool
        drawn = f"pools of {' to '.join(map(str, pools[:1] + pools[1:][-1:]))}"
        return f"{name}: score {self.score} ({self.score.motions} motions in {self.score.groups} groups, {folds}, {drawn})"


def motion_values(standings: Sequence[GalleryRanks]) -> np.ndarray:
    """Expected scores of the motions of several galleries, one after the other."""
    return np.concatenate([standing.values() for standing in standings])


def motion_groups(standings: Sequence[GalleryRanks]) -> np.ndarray:
    """Groups of the motions of several galleries, in the same order."""
    return np.concatenate([standing.group for standing in standings])


def mean_score(standings: Sequence[GalleryRanks]) -> Score:
    """The local score over several galleries, each motion ranked within its own."""
    return metrics.cluster_robust_mean(motion_values(standings), motion_groups(standings))


def bootstrap_difference(differences: np.ndarray, group: np.ndarray, rng: np.random.Generator) -> Score:
    """Mean of the paired differences (M,) of two models with its standard error by the bootstrap over groups of motions.

    A draw takes as many groups as there are, with replacement; the spread of its means is widened by sqrt(G / (G - 1)), since few
    groups vary less than many, and is never below the error of independent motions (as in `metrics.cluster_robust_mean`).
    """
    plain = metrics.cluster_robust_mean(differences, group)
    if plain.groups < 2:
        return plain
    _, index = np.unique(group, return_inverse=True)
    sums, sizes = np.bincount(index, weights=differences), np.bincount(index)
    means = np.empty(N_BOOTSTRAP)
    for start in range(0, N_BOOTSTRAP, 250):  # of thousands of groups, not all draws fit at once
        drawn = rng.integers(plain.groups, size=(250, plain.groups))
        means[start : start + 250] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    error = float(means.std(ddof=1)) * (plain.groups / (plain.groups - 1)) ** 0.5
    alone = float(differences.std(ddof=1)) / len(differences) ** 0.5
    return Score(plain.mean, max(error, alone), plain.motions, plain.groups)


def leaderboard_interval(standings: Sequence[GalleryRanks], error: float, rng: np.random.Generator) -> tuple[float, float]:
    """Between which scores a leaderboard of `LEADERBOARD_QUERIES` queries ends in nine cases of ten.

    Queries are drawn as the competition draws them: a motion, one of its captions, a pool from the gallery (the beaters in it are
    hypergeometric), ties broken by chance. error: of the local score, which the band takes up.
    """
    means = np.zeros(N_BOOTSTRAP)
    sizes = np.array([len(standing.group) for standing in standings])
    place = rng.choice(len(standings), size=(N_BOOTSTRAP, LEADERBOARD_QUERIES), p=sizes / sizes.sum())
    for number, standing in enumerate(standings):
        where = np.nonzero(place == number)
        gallery = len(standing.group)
        counts = np.bincount(standing.motion_idx, minlength=gallery)
        order = np.argsort(standing.motion_idx, kind="stable")
        motion = rng.integers(gallery, size=len(where[0]))
        caption = order[(counts.cumsum() - counts)[motion] + rng.integers(counts[motion])]
        beaters = standing.better[caption] + rng.integers(standing.tied[caption] + 1)
        ahead = rng.hypergeometric(beaters, gallery - 1 - beaters, min(challenge.POOL_SIZE, gallery) - 1)
        np.add.at(means, where[0], metrics.rank_value(ahead) / LEADERBOARD_QUERIES)
    low, high = np.quantile(means + rng.normal(0, error, N_BOOTSTRAP), (0.05, 0.95))
    return max(0.0, float(low)), min(1.0, float(high))
