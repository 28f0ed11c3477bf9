"""Whether the test's captions are like those of the training set, and the local score if not.

Both are measured in words alone (`data/caption_distance`): the test's captions against all training
captions, and each held-out caption against those of the other folds. A local score speaks of
captions that are as far from the training as the held-out ones. Where the test's are farther, the
held-out captions are weighted so that their distances are distributed as the test's are
(importance weighting under covariate shift; Shimodaira 2000), and so are the candidates of a pool,
which come from the same kind of data. What is different in the motions is not seen here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from motret.data.caption_distance import WordDistance
from motret.evaluation import metrics
from motret.evaluation.metrics import Score
from motret.evaluation.slices import HeldOutCaptions
from motret.formats.challenge import POOL_SIZE, TOP_K

N_BINS = 5
"""Bins of equally many test captions, by distance."""
MIN_BIN_SIZE = 10
"""Held-out captions that each bin has at least: smaller ones are joined with a neighbor."""
UNSEEN_FACTOR = 2.0
"""The test's share of unseen words is unlike the held-out one if it is this many times as large."""

FoldSimilarity = Callable[[int], np.ndarray]
"""Gives the similarities (C, M) of a fold's held-out captions and motions."""


@dataclass(frozen=True, eq=False)
class CaptionShift:
    """How far the test's captions are from training captions, and how far held-out ones are.

    test: (Q,) of the queries' captions to all training captions; held_out: (C,) of the held-out
    captions to those of the other folds.
    """

    test: WordDistance
    held_out: WordDistance

    @property
    def is_unlike(self) -> bool:
        """Whether the test's captions are farther than chance and fewer references explain.

        They are if half of them are farther than three quarters of the held-out ones, or if
        `UNSEEN_FACTOR` times as many of their words are unseen, and by more than two standard
        errors.
        """
        limit = np.quantile(self.held_out.distance, 0.75)
        if np.median(self.test.distance) > limit:
            return True
        fraction, expected = self.test.unseen_share, self.held_out.unseen_share
        residuals = self.test.unseen - fraction * self.test.n_words
        error = np.sqrt((residuals**2).sum()) / max(1, self.test.n_words.sum())
        return bool(fraction > UNSEEN_FACTOR * expected and fraction - expected > 2 * error)

    def summary(self) -> str:
        """What was measured, in one line."""
        unseen = [f"{100 * one.unseen_share:.1f} %" for one in (self.test, self.held_out)]
        medians = [f"{np.median(one.distance):.2f}" for one in (self.test, self.held_out)]
        return (
            f"{unseen[0]} of their words are in no training caption (held out {unseen[1]}), "
            f"median distance to the nearest one {medians[0]} ({medians[1]})"
        )

    def line(self, estimate: Callable[[], Score]) -> str:
        """The line for a terminal; estimate: gives the matched score, asked only where needed."""
        if not self.is_unlike:
            return f"the test's captions are like the held-out ones: {self.summary()}"
        return (
            f"warning: the test's captions are unlike the training's: {self.summary()}; held-out "
            f"captions and candidates that are as far score {estimate()}: expect less if the "
            "motions differ too"
        )


def shift_line(
    test: Sequence[str],
    captions: Sequence[Sequence[str]],
    held_out: HeldOutCaptions,
    distance: WordDistance,
    similarity: FoldSimilarity,
) -> str:
    """Whether the test's captions are like the held-out ones, and the score to expect if not.

    captions: of each training motion; distance: of the held-out captions to the other folds;
    similarity: of what is scored.
    """
    shift = measure_shift(test, distance, captions)
    return shift.line(lambda: expected_score(shift, held_out, similarity))


def expected_score(
    shift: CaptionShift, held_out: HeldOutCaptions, similarity: FoldSimilarity
) -> Score:
    """The score of held-out captions and candidates that are as far as the test's captions."""
    return matched_score(similarity, held_out, matched_weights(shift, held_out))


def measure_shift(
    test: Sequence[str], held_out: WordDistance, captions: Sequence[Sequence[str]]
) -> CaptionShift:
    """That of the test's captions (Q,). captions: of each training motion."""
    references = [text for texts in captions for text in texts]
    return CaptionShift(WordDistance.of(test, references), held_out)


def matched_weights(shift: CaptionShift, held_out: HeldOutCaptions) -> np.ndarray:
    """Weight (C,) of each held-out caption, so that distances are distributed as the test's are.

    The sum is 1. Distances are binned by the quantiles of the test's; within a bin each motion's
    captions share its weight, as in the local score.
    """
    distance, test_distance = shift.held_out.distance, shift.test.distance
    limits = np.unique(np.quantile(test_distance, np.linspace(0, 1, N_BINS + 1)[1:-1]))
    while len(limits):
        sizes = np.bincount(np.searchsorted(limits, distance), minlength=len(limits) + 1)
        small = np.flatnonzero(sizes < MIN_BIN_SIZE)
        if not len(small):
            break
        limits = np.delete(limits, max(0, small[0] - 1))
    bins, size = np.searchsorted(limits, distance), len(limits) + 1
    weights = 1 / np.bincount(held_out.data_idx)[held_out.data_idx]
    test_share = np.bincount(np.searchsorted(limits, test_distance), minlength=size)
    weights *= (test_share / np.bincount(bins, weights=weights, minlength=size))[bins]
    return np.asarray(weights / weights.sum())


def matched_score(
    similarity: FoldSimilarity, held_out: HeldOutCaptions, weights: np.ndarray
) -> Score:
    """Competition score expected where captions and candidates are drawn by weight.

    weights: (C,) of the captions, with the sum 1; a motion's is the sum of its captions'. The
    standard error is clustered by group.
    """
    values = np.zeros(len(held_out.texts))
    for fold in np.unique(held_out.fold).tolist():
        caption_idx = np.flatnonzero(held_out.fold == fold)
        motion_idx = held_out.motion_idx[caption_idx]
        motion_weight = np.bincount(motion_idx, weights=weights[caption_idx])
        if motion_weight.sum() > 0:
            values[caption_idx] = weighted_pool_score(
                similarity(fold), motion_idx, motion_weight, min(POOL_SIZE, len(motion_weight))
            )
    mean = float(weights @ values)
    motions, first, index = np.unique(held_out.data_idx, return_index=True, return_inverse=True)
    influence = np.bincount(index, weights=weights * (values - mean))
    group = held_out.group[first]
    error = metrics.cluster_robust_error(influence, group)
    return Score(mean, error, len(motions), len(np.unique(group)))


def weighted_pool_score(
    sim_cm: np.ndarray, motion_idx: np.ndarray, motion_weight: np.ndarray, pool: int = POOL_SIZE
) -> np.ndarray:
    """Score (C,) expected of captions whose wrong candidates are drawn by weight.

    sim_cm: (C, M) similarities, -inf for motions that are not drawn; motion_idx: (C,) right motion;
    motion_weight: (M,). The pool - 1 wrong candidates are drawn with replacement, so those that
    beat the right one are binomial.
    Ties are ranked in random order: the mean over a uniform place among them, by Gauss-Legendre
    nodes, which is exact for this polynomial.
    """
    right_sim = np.take_along_axis(sim_cm, motion_idx[:, None], axis=1)
    right_weight = motion_weight[motion_idx]
    drawn_weight = (
        motion_weight.sum() if np.isfinite(sim_cm).all() else (sim_cm != -np.inf) @ motion_weight
    )
    total = np.maximum(drawn_weight - right_weight, np.finfo(float).tiny)
    not_better = ((sim_cm <= right_sim) & (sim_cm != -np.inf)) @ motion_weight
    better = np.clip((1 - not_better / drawn_weight) * drawn_weight / total, 0, 1)
    tied = np.clip(((sim_cm == right_sim) @ motion_weight - right_weight) / total, 0, 1 - better)
    return drawn_pool_score(better, tied, pool)


def drawn_pool_score(better: np.ndarray, tied: np.ndarray, pool: int = POOL_SIZE) -> np.ndarray:
    """Score (C,) expected of captions in pools whose wrong candidates are drawn independently.

    better, tied: (C,) how likely one of them beats the right one, and is tied with it.
    """
    nodes, node_weights = np.polynomial.legendre.leggauss(pool // 2 + 1)
    probability = better[:, None] + tied[:, None] * (nodes + 1) / 2  # (C, nodes)
    score = np.zeros_like(probability)
    for rank, value in enumerate(metrics.rank_value(np.arange(min(TOP_K, pool)))):
        ways = comb(pool - 1, rank) * value
        score += ways * probability**rank * (1 - probability) ** (pool - 1 - rank)
    return np.asarray(score @ node_weights / 2)
