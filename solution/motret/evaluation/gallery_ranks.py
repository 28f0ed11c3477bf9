"""Ranks of the right motions in galleries of held-out motions, and what follows from them.

That is the local score, gains with their standard errors, and the scores a leaderboard may show.
"""

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


@dataclass(frozen=True, eq=False)
class GalleryRanks:
    """Ranks in a gallery of C captions and M motions.

    better, tied: (C,) motions that score above each caption's right motion, and the same as it;
    motion_idx: (C,) the right motion; group: (M,) groups of motions, for standard errors; size:
    (C,) motions that each caption was compared with, its own among them; None: all.
    """

    better: np.ndarray
    tied: np.ndarray
    motion_idx: np.ndarray
    group: np.ndarray
    size: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        sim_cm: np.ndarray,
        motion_idx: np.ndarray,
        group: np.ndarray,
        compared: np.ndarray | None = None,
    ) -> "GalleryRanks":
        """From the similarities (C, M) of captions and motions. compared: (C, M) pairs that count,
        each caption's right motion among them; None: all."""
        if compared is None or compared.all():
            return cls(*metrics.count_better(sim_cm, motion_idx), motion_idx, group)
        similarity = np.where(compared, sim_cm, -np.inf)
        size = compared.sum(axis=1)
        better, tied = metrics.count_better(similarity, motion_idx)
        return cls(np.minimum(better, size - 1), tied, motion_idx, group, size)

    def caption_values(self) -> np.ndarray:
        """Expected score (C,) of each caption."""
        sizes = np.full(len(self.better), len(self.group)) if self.size is None else self.size
        values = np.empty(len(self.better))
        for size in np.unique(sizes).tolist():
            of_size, pool = sizes == size, min(challenge.POOL_SIZE, size)
            better, tied = self.better[of_size], self.tied[of_size]
            values[of_size] = metrics.expected_score(better, tied, size, pool)
        return values

    def values(self) -> np.ndarray:
        """Expected score (M,) of each motion, the mean over its captions."""
        count = len(self.group)
        sums = np.bincount(self.motion_idx, weights=self.caption_values(), minlength=count)
        return np.asarray(sums / np.bincount(self.motion_idx, minlength=count))


@dataclass(frozen=True)
class LocalScore:
    """The score of a model, or of several together, on motions that they were not trained on.

    score: expected competition score; by_fold: of each fold; retrieval: recalls over a fold's whole
    gallery in both directions, the mean over folds weighted by captions.
    """

    score: Score
    by_fold: dict[int, Score]
    retrieval: dict[str, dict[str, float]]

    def summary(self, name: str) -> str:
        """`name: score 0.7312 +- 0.0041 (...)`."""
        folds = f"{len(self.by_fold)} fold{'s' if len(self.by_fold) != 1 else ''}"
        counts = f"{self.score.motions} motions in {self.score.groups} groups, {folds}"
        return f"{name}: score {self.score} ({counts}, pools of {pool_sizes([self])})"


def pool_sizes(scores: Sequence[LocalScore]) -> str:
    """`32`, or `20 to 32` where folds differ: a smaller fold is its own pool."""
    sizes = {
        min(challenge.POOL_SIZE, fold.motions)
        for local in scores
        for fold in local.by_fold.values()
    }
    return " to ".join(map(str, sorted({min(sizes), max(sizes)})))


def motion_values(galleries: Sequence[GalleryRanks]) -> np.ndarray:
    """Expected scores of the motions of several galleries, one after the other."""
    return np.concatenate([gallery.values() for gallery in galleries])


def motion_groups(galleries: Sequence[GalleryRanks]) -> np.ndarray:
    """Groups of the motions of several galleries, in the same order."""
    return np.concatenate([gallery.group for gallery in galleries])


def mean_score(galleries: Sequence[GalleryRanks]) -> Score:
    """The local score over several galleries, each motion ranked within its own."""
    return metrics.cluster_robust_mean(motion_values(galleries), motion_groups(galleries))


def bootstrap_difference(
    differences: np.ndarray, group: np.ndarray, rng: np.random.Generator
) -> Score:
    """Mean paired difference of two models, its standard error by a group bootstrap.

    differences: (M,), of motions. group: (M,). A draw takes as many groups as there are, with
    replacement. The standard deviation of its means is widened by sqrt(G / (G - 1)), since few
    groups vary less than many. The error is never below that of independent motions (as in
    `metrics.cluster_robust_mean`).
    """
    plain = metrics.cluster_robust_mean(differences, group)
    if plain.groups < 2:
        return plain
    _, index = np.unique(group, return_inverse=True)
    sums, sizes = np.bincount(index, weights=differences), np.bincount(index)
    means = np.empty(N_BOOTSTRAP)
    for start in range(0, N_BOOTSTRAP, 250):  # of thousands of groups, not all draws fit at once
        draws = rng.integers(plain.groups, size=(250, plain.groups))
        means[start : start + 250] = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    error = float(means.std(ddof=1)) * (plain.groups / (plain.groups - 1)) ** 0.5
    independent_error = float(differences.std(ddof=1)) / len(differences) ** 0.5
    return Score(plain.mean, max(error, independent_error), plain.motions, plain.groups)


def leaderboard_interval(
    galleries: Sequence[GalleryRanks], error: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Between which scores a leaderboard ends in nine cases of ten.

    It has `LEADERBOARD_QUERIES` queries. Queries are drawn as the competition draws them: a motion,
    one of its captions, a pool from the gallery (the beaters in it are hypergeometric), ties in
    random order. error: standard error of the local score, which widens the interval.
    """
    means = np.zeros(N_BOOTSTRAP)
    sizes = np.array([len(gallery.group) for gallery in galleries])
    gallery_idx = rng.choice(
        len(galleries), size=(N_BOOTSTRAP, LEADERBOARD_QUERIES), p=sizes / sizes.sum()
    )
    for idx, gallery in enumerate(galleries):
        draw_idx = np.nonzero(gallery_idx == idx)[0]
        size = len(gallery.group)
        counts = np.bincount(gallery.motion_idx, minlength=size)
        by_motion = np.argsort(gallery.motion_idx, kind="stable")
        motion = rng.integers(size, size=len(draw_idx))
        caption = by_motion[(counts.cumsum() - counts)[motion] + rng.integers(counts[motion])]
        beaters = gallery.better[caption] + rng.integers(gallery.tied[caption] + 1)
        compared = size if gallery.size is None else gallery.size[caption]
        pool = np.minimum(challenge.POOL_SIZE, compared)
        in_pool = rng.hypergeometric(beaters, compared - 1 - beaters, pool - 1)
        np.add.at(means, draw_idx, metrics.rank_value(in_pool) / LEADERBOARD_QUERIES)
    low, high = np.quantile(means + rng.normal(0, error, N_BOOTSTRAP), (0.05, 0.95))
    return max(0.0, float(low)), min(1.0, float(high))
