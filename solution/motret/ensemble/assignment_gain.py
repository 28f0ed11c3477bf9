"""What one-to-one assignment gains out of fold, and whether the test looks as if it applied.

The test's own pools are filled with motions that a fold holds out: each of its motions becomes one
of these at random, and each query gets an answer among its candidates and one of its captions. That
is done in two worlds: in one all answers differ, in the other each is drawn on its own, so that
some motions answer several queries. The first tells the gain where the assumption holds, the second
the loss where it does not.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np

from motret.ensemble import assignment
from motret.ensemble.assignment import SharedPools
from motret.errors import ConfigError
from motret.evaluation import metrics
from motret.evaluation.metrics import Score

QUERIES_PER_FOLD = 2000
"""Queries drawn in each fold and world, about."""
MAX_DRAWS = 200
"""Draws of a fold and world at most, where few queries fit into one."""
SCALES = (0.1, 50.0)
"""Between which the scale is searched, for similarities with standard deviation 1."""
CLEAR_DIFFERENCE = 2.0
"""Standard deviations by which the two worlds must differ in repeats to be told apart."""
MAX_DISTANCE = 3.5
"""Standard deviations from both worlds beyond which the repeats fit neither."""

Verdict = Literal["distinct", "repeating", "unclear", "neither"]
"""What a test looks like by its repeats."""
VERDICTS: Mapping[Verdict, str] = {
    "distinct": "it looks as if no motion answers two queries",
    "repeating": "it looks as if answers repeat: leave --assign out",
    "unclear": "too few to tell which",
    "neither": "neither fits, as the test is unlike what was held out, so the gains may not hold",
}
"""The verdicts in words."""


@dataclass(frozen=True, eq=False)
class HeldOutGallery:
    """What a fold holds out: (C, M) similarities, (C,) motion of each caption, (M,) groups."""

    similarity: np.ndarray
    motion_idx: np.ndarray
    group: np.ndarray

    def draw_captions(self, motions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One of the captions of each motion."""
        by_motion = np.argsort(self.motion_idx, kind="stable")
        counts = np.bincount(self.motion_idx, minlength=len(self.group))
        first = (counts.cumsum() - counts)[motions]
        return np.asarray(by_motion[first + rng.integers(counts[motions])])


@dataclass(frozen=True, eq=False)
class PoolDraw:
    """Pools filled with held-out motions.

    similarity: (N,) of their pairs; answer: (Q,) pair of each query's right motion; group: (Q,) of
    the right motions.
    """

    pools: SharedPools
    similarity: np.ndarray
    answer: np.ndarray
    group: np.ndarray

    @classmethod
    def of(
        cls, pools: SharedPools, gallery: HeldOutGallery, rng: np.random.Generator, distinct: bool
    ) -> "PoolDraw":
        """A draw. Where a fold has fewer motions than the pools, some of the queries are drawn."""
        pools = draw_fitting_pools(pools, len(gallery.group), rng)
        motion = rng.permutation(len(gallery.group))[pools.motion]
        answer = pools.draw_answers(rng, distinct=distinct)
        captions = gallery.draw_captions(motion[answer], rng)
        similarity = gallery.similarity[captions[pools.query], motion].astype(np.float64)
        return cls(pools, similarity, answer, gallery.group[motion[answer]])

    def gains(self, scale: float) -> np.ndarray:
        """(Q,) score of each query with assignment minus that without."""
        assigned = assignment.assign(self.similarity, self.pools, scale)
        return np.asarray(self.scores(assigned) - self.scores(self.similarity))

    def log_loss(self, scale: float) -> float:
        """Sum over queries of -log of the right motion's probability, each pool on its own."""
        log_likelihood = scale * self.similarity
        total = np.logaddexp.reduceat(log_likelihood, self.pools.starts)
        return float((total - log_likelihood[self.answer]).sum())

    def scores(self, similarity: np.ndarray) -> np.ndarray:
        """(Q,) scores of the queries; ties are averaged over."""
        right, starts = similarity[self.answer][self.pools.query], self.pools.starts
        better = np.add.reduceat((similarity > right).astype(int), starts)
        tied = np.add.reduceat((similarity == right).astype(int), starts) - 1
        values = metrics.rank_value(np.arange(len(similarity)))
        total = np.concatenate([[0.0], np.cumsum(values)])
        return np.asarray((total[better + tied + 1] - total[better]) / (tied + 1))


@dataclass(frozen=True)
class ExpectedRepeats:
    """Mean and standard deviation of the repeats (`count_repeats`) in draws of a world."""

    mean: float
    deviation: float

    def distance(self, count: float) -> float:
        """How many standard deviations a count is away."""
        return abs(count - self.mean) / max(self.deviation, 1.0)


@dataclass(frozen=True)
class AssignmentGain:
    """The scale that ranks the test, and what is told of its worth.

    distinct, repeating: gain in the world in which all answers differ, and in the other, each fold
    with the scale of the others. repeats: of the test; distinct_repeats, repeating_repeats: those
    expected in both worlds, None where no fold has as many motions as the test's pools.
    """

    scale: float
    distinct: Score
    repeating: Score
    repeats: int
    distinct_repeats: ExpectedRepeats | None
    repeating_repeats: ExpectedRepeats | None

    @property
    def verdict(self) -> Verdict | None:
        """Which world the test's repeats fit; None where they cannot be compared."""
        one, two = self.distinct_repeats, self.repeating_repeats
        if one is None or two is None:
            return None
        if min(world.distance(self.repeats) for world in (one, two)) > MAX_DISTANCE:
            return "neither"
        if abs(two.mean - one.mean) < CLEAR_DIFFERENCE * np.hypot(one.deviation, two.deviation):
            return "unclear"
        nearer = one.distance(self.repeats) <= two.distance(self.repeats)
        return "distinct" if nearer else "repeating"

    def lines(self) -> list[str]:
        """For a terminal."""
        lines = [
            f"gain out of fold {_signed(self.distinct)} if no motion answers two queries, "
            f"{_signed(self.repeating)} if answers repeat by chance"
        ]
        one, two, verdict = self.distinct_repeats, self.repeating_repeats, self.verdict
        if one is None or two is None or verdict is None:
            return lines
        lines.append(
            f"{self.repeats} queries rank a motion first that another query ranks first too; "
            f"expected {one.mean:.0f} +- {one.deviation:.0f} if no motion answers two queries, "
            f"{two.mean:.0f} +- {two.deviation:.0f} if answers repeat by chance: "
            f"{VERDICTS[verdict]}"
        )
        return lines


def estimate_gain(
    pools: SharedPools,
    similarity: np.ndarray,
    galleries: Mapping[int, Callable[[], HeldOutGallery]],
    seed: int,
) -> AssignmentGain:
    """The scale for the test's pools, and the gain that assignment has on held-out motions.

    similarity: (N,) of the test's pairs; galleries: fold -> gives what it holds out, one at a time.
    ConfigError where all answers cannot differ, or no fold fills a pool.
    """
    distinct: dict[int, list[PoolDraw]] = {}
    repeating: dict[int, list[PoolDraw]] = {}
    for fold, load in galleries.items():
        gallery, rng = load(), np.random.default_rng([seed, fold])
        if len(gallery.group) >= np.bincount(pools.query).max():
            distinct[fold], repeating[fold] = draw_worlds(pools, gallery, rng)
    if not distinct:
        fix = "use fewer folds, or leave it out"
        raise ConfigError("--assign", "no fold has as many motions as a query candidates", fix)
    scales = {}
    for fold in distinct:
        others = [draws for other, draws in distinct.items() if other != fold or len(distinct) == 1]
        scales[fold] = fit_scale(list(chain(*others)))
    return AssignmentGain(
        fit_scale(list(chain(*distinct.values()))),
        mean_gain(distinct, scales),
        mean_gain(repeating, scales),
        count_repeats(similarity, pools),
        *(expected_repeats(pools, chain(*world.values())) for world in (distinct, repeating)),
    )


def mean_gain(draws: Mapping[int, Sequence[PoolDraw]], scales: Mapping[int, float]) -> Score:
    """The gain over the draws of all folds, each fold with its scale."""
    gains = [draw.gains(scales[fold]) for fold, of_fold in draws.items() for draw in of_fold]
    groups = [draw.group for of_fold in draws.values() for draw in of_fold]
    return metrics.cluster_robust_mean(np.concatenate(gains), np.concatenate(groups))


def draw_worlds(
    pools: SharedPools, gallery: HeldOutGallery, rng: np.random.Generator
) -> tuple[list[PoolDraw], list[PoolDraw]]:
    """Draws of a fold in the world in which all answers differ, and in the other."""
    distinct: list[PoolDraw] = []
    repeating: list[PoolDraw] = []
    while (
        sum(len(draw.answer) for draw in distinct) < QUERIES_PER_FOLD and len(distinct) < MAX_DRAWS
    ):
        distinct.append(PoolDraw.of(pools, gallery, rng, distinct=True))
        repeating.append(PoolDraw.of(pools, gallery, rng, distinct=False))
    return distinct, repeating


def draw_fitting_pools(pools: SharedPools, n_motions: int, rng: np.random.Generator) -> SharedPools:
    """The pools if they have at most so many motions, else those of queries at random that do."""
    if pools.n_motions <= n_motions:
        return pools
    motions: set[int] = set()
    selected = []
    candidates = np.split(pools.motion, pools.starts[1:])
    for query in rng.permutation(pools.n_queries):
        joined = motions.union(candidates[query].tolist())
        if len(joined) <= n_motions:
            motions = joined
            selected.append(query)
    return pools.only(np.array(selected))


def fit_scale(draws: Sequence[PoolDraw]) -> float:
    """The scale that makes the right motions of some draws most likely, each pool on its own."""
    from scipy.optimize import minimize_scalar

    def log_loss(scale: float) -> float:
        return sum(draw.log_loss(scale) for draw in draws)

    return float(minimize_scalar(log_loss, bounds=SCALES, method="bounded").x)


def count_repeats(similarity: np.ndarray, pools: SharedPools) -> int:
    """How many queries rank a motion first that another query ranks first too."""
    best_first = np.lexsort((-similarity, pools.query))
    top = pools.motion[best_first[pools.starts]]
    return int((np.bincount(top)[top] > 1).sum())


def expected_repeats(pools: SharedPools, draws: Iterable[PoolDraw]) -> ExpectedRepeats | None:
    """The repeats in draws of all queries; None where there are none."""
    counts = [
        count_repeats(draw.similarity, draw.pools)
        for draw in draws
        if draw.pools.n_queries == pools.n_queries
    ]
    if len(counts) < 2:
        return None
    return ExpectedRepeats(float(np.mean(counts)), float(np.std(counts, ddof=1)))


def _signed(score: Score) -> str:
    return f"{score.mean:+.4f} +- {score.error:.4f}"
