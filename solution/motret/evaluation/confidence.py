"""The score to expect on a test without answers, from how sure the models are of theirs.

A softmax over the similarities of a pool says how likely each candidate is the right one, and so
what the ranking is worth: sum_r p(r) value(r), over ranks r. Its temperature is the one at which
that mean is the true score of held-out captions (calibration by a temperature: Guo et al. 2017;
average confidence on unlabelled data: Guillory et al. 2021). The held-out captions are those as far
from the training as the test's are, since models are too sure of what they have not seen. Unlike a
comparison of captions alone this sees motions too: of those that fit no caption no model is sure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from motret.evaluation import metrics
from motret.evaluation.caption_shift import FoldSimilarity
from motret.evaluation.metrics import Score
from motret.evaluation.slices import HeldOutCaptions
from motret.formats.challenge import POOL_SIZE

TEMPERATURES = 1e-3, 1e3
"""Lowest and highest, for similarities of deviation 1."""
BISECTIONS = 40
"""They leave a millionth of the temperature open."""


def likelihood(similarity: np.ndarray, temperature: float) -> np.ndarray:
    """(n, P) how likely each candidate of n pools is the right one: a softmax of similarities
    (n, P), 0 where they are -inf."""
    similarity = (similarity - similarity.max(axis=1, keepdims=True)) / temperature
    weight = np.exp(similarity)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def candidate_values(similarity: np.ndarray) -> np.ndarray:
    """(n, P) competition scores of rankings by similarity (n, P), if each candidate is the right
    one."""
    rank = np.argsort(np.argsort(-similarity, axis=1, kind="stable"), axis=1)
    return metrics.rank_value(rank)


def expected_scores(similarity: np.ndarray, temperature: float) -> np.ndarray:
    """(n,) scores expected of rankings by similarity (n, P), if the softmax is right."""
    values = candidate_values(similarity)
    return np.asarray((likelihood(similarity, temperature) * values).sum(axis=1))


def fit_temperature(
    similarity: np.ndarray, values: np.ndarray, weights: np.ndarray, score: float
) -> float:
    """The temperature, within `TEMPERATURES`, of the softmax of similarities (n, P) under which
    candidates' values (n, P) have the mean `score`. weights: (n,) of the pools."""
    low, high = np.log(TEMPERATURES)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        of_pools = (likelihood(similarity, float(np.exp(middle))) * values).sum(axis=1)
        if np.average(of_pools, weights=weights) > score:
            low = middle
        else:
            high = middle
    return float(np.exp(middle))


def draw_pools(
    sim_cm: np.ndarray, motion_idx: np.ndarray, motion_weight: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(C, POOL_SIZE) similarities of each caption to its right motion, and to wrong ones that are
    drawn by weight, with replacement.

    sim_cm: (C, M) similarities, -inf for motions that are not drawn; motion_idx: (C,) right motion;
    motion_weight: (M,). Where no wrong motion has a weight there is none in the pool: -inf.
    """
    pools = np.full((len(sim_cm), POOL_SIZE), -np.inf)
    for row, (similarity, right) in enumerate(zip(sim_cm, motion_idx, strict=True)):
        weight = np.where(np.isfinite(similarity), motion_weight, 0)
        weight[right] = 0
        total = weight.cumsum()
        pools[row, 0] = similarity[right]
        if total[-1] > 0:
            quantile = rng.random(POOL_SIZE - 1) * total[-1]
            pools[row, 1:] = similarity[np.searchsorted(total, quantile, side="right")]
    return pools


@dataclass(frozen=True, eq=False)
class TestPools:
    """Similarities (Q, P) of a test's queries to their candidates, -inf where a pool has fewer.

    by_fold: by the networks of each fold, on the scale of the held-out ones; ensemble: those that
    rank the test, on any scale.
    """

    by_fold: tuple[np.ndarray, ...]
    ensemble: np.ndarray


def held_out_temperature(
    similarity: FoldSimilarity,
    held_out: HeldOutCaptions,
    weights: np.ndarray,
    score: float,
    rng: np.random.Generator,
) -> float:
    """The temperature at which held-out captions, in pools drawn by weight, have this score."""
    pools, of_pools = [], []
    for fold in np.unique(held_out.fold).tolist():
        caption_idx = np.flatnonzero(held_out.fold == fold)
        motion_idx, of_captions = held_out.motion_idx[caption_idx], weights[caption_idx]
        sim_cm, counts = similarity(fold), of_captions > 0
        motion_weight = np.bincount(motion_idx, of_captions, minlength=sim_cm.shape[1])
        pools.append(draw_pools(sim_cm[counts], motion_idx[counts], motion_weight, rng))
        of_pools.append(of_captions[counts])
    of_all = np.concatenate(pools)
    return fit_temperature(of_all, candidate_values(of_all), np.concatenate(of_pools), score)


def expected_test_score(
    similarity: FoldSimilarity,
    held_out: HeldOutCaptions,
    weights: np.ndarray,
    matched: Score,
    test: TestPools,
    seed: int,
) -> Score:
    """The score to expect of the ensemble on a test without answers, and its standard error.

    similarity: of each fold's held-out captions and motions; weights: (C,) of the held-out
    captions, as `caption_shift.matched_weights` gives them; matched: their score
    (`caption_shift.matched_score`). Held-out captions tell what the
    confidence of one network a fold is worth. The mean of networks is surer for a reason: its
    temperature is the one at which it gives their rankings the score that they expect. It is not
    lower than if the networks erred independently of each other, when their likelihoods multiply.
    The error is that of the held-out score together with that of the mean over queries.
    """
    rng = np.random.default_rng(seed)
    of_network = held_out_temperature(similarity, held_out, weights, matched.mean, rng)
    single = np.mean([expected_scores(each, of_network).mean() for each in test.by_fold])
    values = np.mean([candidate_values(each) for each in test.by_fold], axis=0)
    of_ensemble = fit_temperature(test.ensemble, values, np.ones(len(values)), float(single))
    scores = expected_scores(test.ensemble, of_ensemble)
    independent = expected_scores(np.mean(test.by_fold, axis=0), of_network / len(test.by_fold))
    if scores.mean() > independent.mean():
        scores = independent
    mean = metrics.cluster_robust_mean(scores, np.arange(len(scores)))
    return replace(mean, error=float(np.hypot(matched.error, mean.error)))


def pad_pools(similarities: Sequence[np.ndarray]) -> np.ndarray:
    """(n, P) similarities of pools of up to P candidates, -inf where a pool has fewer."""
    longest = max(map(len, similarities))
    return np.stack(
        [
            np.pad(pool.astype(np.float64), (0, longest - len(pool)), constant_values=-np.inf)
            for pool in similarities
        ]
    )
