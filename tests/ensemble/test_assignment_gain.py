"""The gain of one-to-one assignment on held-out motions, and what a test looks like."""

from dataclasses import replace

import numpy as np
import pytest

from motret.ensemble import assignment, assignment_gain
from motret.ensemble.assignment import SharedPools
from motret.ensemble.assignment_gain import (
    AssignmentGain,
    ExpectedRepeats,
    HeldOutGallery,
    PoolDraw,
    estimate_gain,
)
from motret.errors import ConfigError
from motret.evaluation import metrics
from motret.evaluation.metrics import Score

N_QUERIES, N_MOTIONS, POOL = 40, 50, 12


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment_gain, "QUERIES_PER_FOLD", 200)


def shared_pools(n_motions: int = N_MOTIONS, seed: int = 0) -> SharedPools:
    rng = np.random.default_rng(seed)
    motion = np.concatenate([rng.permutation(n_motions)[:POOL] for _ in range(N_QUERIES)])
    return SharedPools.of(np.repeat(np.arange(N_QUERIES), POOL), motion)


def gallery(seed: int, n_motions: int = 60, scale: float = 2.0) -> HeldOutGallery:
    """Two captions a motion; similarities whose right ones are `scale` above, with unit noise."""
    rng = np.random.default_rng([9, seed])
    motion_idx = np.repeat(np.arange(n_motions), 2)
    similarity = rng.normal(size=(len(motion_idx), n_motions))
    similarity[np.arange(len(motion_idx)), motion_idx] += scale
    return HeldOutGallery(similarity, motion_idx, np.arange(n_motions) // 2 + 100 * seed)


def galleries(n_folds: int = 3, **values: int):
    return {fold: lambda fold=fold: gallery(fold, **values) for fold in range(n_folds)}


def drawn(distinct: bool, seed: int = 0) -> PoolDraw:
    return PoolDraw.of(shared_pools(), gallery(0), np.random.default_rng(seed), distinct)


def test_a_draw_takes_captions_of_its_answers_and_motions_of_the_fold() -> None:
    source = gallery(0)
    labelled = replace(source, similarity=np.arange(source.similarity.size).reshape(-1, 60) * 1.0)
    draw = PoolDraw.of(shared_pools(), labelled, np.random.default_rng(0), distinct=True)
    caption, motion = np.divmod(draw.similarity.astype(int), 60)
    np.testing.assert_array_equal(labelled.motion_idx[caption[draw.answer]], motion[draw.answer])
    np.testing.assert_array_equal(labelled.group[motion[draw.answer]], draw.group)
    assert all(len(set(caption[draw.pools.query == query])) == 1 for query in range(N_QUERIES))
    names = {(of_pool, name) for of_pool, name in zip(draw.pools.motion, motion, strict=True)}
    assert len(names) == draw.pools.n_motions == len({name for _, name in names})


@pytest.mark.parametrize("distinct", [True, False])
def test_the_gain_is_the_difference_of_the_scores(distinct: bool) -> None:
    draw = drawn(distinct)
    assigned = assignment.assign(draw.similarity, draw.pools, 2.0)

    def score(similarity: np.ndarray, query: int) -> float:
        of_query = similarity[draw.pools.query == query]
        rank = int((of_query > similarity[draw.answer[query]]).sum())
        return float(metrics.rank_value(np.array([rank]))[0])

    expected = [score(assigned, query) - score(draw.similarity, query) for query in range(40)]
    np.testing.assert_allclose(draw.gains(2.0), expected)


def test_ties_are_averaged_over() -> None:
    pools = SharedPools.of(np.array([0, 0, 0, 1]), np.array([0, 1, 2, 3]))
    draw = PoolDraw(pools, np.array([1.0, 1.0, 0.0, 5.0]), np.array([0, 3]), np.arange(2))
    expected = [metrics.rank_value(np.arange(2)).mean(), 1.0]
    np.testing.assert_allclose(draw.scores(draw.similarity), expected)


def test_the_scale_is_that_of_the_likelihood() -> None:
    """Answers drawn by a softmax of 3 times the similarities."""
    rng = np.random.default_rng(0)
    pools = SharedPools.of(np.repeat(np.arange(4000), 8), np.tile(np.arange(8), 4000))
    similarity = rng.normal(size=(4000, 8))
    answer = (3 * similarity + rng.gumbel(size=(4000, 8))).argmax(axis=1) + 8 * np.arange(4000)
    draw = PoolDraw(pools, similarity.ravel(), answer, np.arange(4000))
    assert assignment_gain.fit_scale([draw]) == pytest.approx(3, rel=0.1)


def test_it_gains_where_answers_differ_and_loses_where_they_repeat() -> None:
    gain = estimate_gain(shared_pools(), drawn(True).similarity, galleries(), seed=0)
    assert gain.distinct.mean > 3 * gain.distinct.error > 0
    assert gain.repeating.mean < -2 * gain.repeating.error < 0
    assert gain == estimate_gain(shared_pools(), drawn(True).similarity, galleries(), seed=0)


def test_each_fold_is_ranked_with_the_scale_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scale of the test is that of all folds; that of a fold follows from the others."""
    scales, gains = [], PoolDraw.gains

    def recorded(draw: PoolDraw, scale: float) -> np.ndarray:
        scales.append(scale)
        return gains(draw, scale)

    monkeypatch.setattr(PoolDraw, "gains", recorded)
    blurred = galleries() | {0: lambda: gallery(0, scale=1.0)}
    gain = estimate_gain(shared_pools(), drawn(True).similarity, blurred, seed=0)
    first, *others = dict.fromkeys(scales)
    assert first > gain.scale > max(others)
    alone = estimate_gain(shared_pools(), drawn(True).similarity, galleries(1), seed=0)
    assert scales[-1] == alone.scale


@pytest.mark.parametrize("distinct", [True, False])
def test_a_test_tells_by_its_repeats_which_kind_it_is(distinct: bool) -> None:
    pools, source = shared_pools(), gallery(7, scale=5.0)
    sharp = {fold: lambda fold=fold: gallery(fold, scale=5.0) for fold in range(3)}
    test = PoolDraw.of(pools, source, np.random.default_rng(1), distinct)
    gain = estimate_gain(pools, test.similarity, sharp, seed=0)
    assert gain.verdict == ("distinct" if distinct else "repeating")
    verdict = "no motion answers two queries" if distinct else "answers repeat: leave --assign out"
    assert gain.lines()[1].endswith(f"it looks as if {verdict}")


def test_repeats_are_counted_by_query() -> None:
    pools = SharedPools.of(np.repeat(np.arange(4), 3), np.array([0, 1, 2] * 3 + [0, 3, 4]))
    similarity = np.array([3, 1, 2, 9, 8, 7, 0, 5, 1, 2, 3, 4])
    assert assignment_gain.count_repeats(similarity, pools) == 2  # 0, 0, 1, 4


def test_few_repeats_tell_nothing() -> None:
    score = Score(0.0, 0.1, 10, 10)
    gain = AssignmentGain(1.0, score, score, 2, ExpectedRepeats(1, 1), ExpectedRepeats(2, 1.5))
    assert gain.verdict == "unclear" and gain.lines()[1].endswith("too few to tell which")


def test_more_repeats_than_in_any_draw_fit_neither() -> None:
    """As where the test is unlike the held-out motions, and few motions are near to all queries."""
    score = Score(0.0, 0.1, 10, 10)
    expected = ExpectedRepeats(10, 2), ExpectedRepeats(30, 2)
    verdicts = [AssignmentGain(1.0, score, score, n, *expected).verdict for n in (11, 28, 60, 1)]
    assert verdicts == ["distinct", "repeating", "neither", "neither"]


def test_a_fold_smaller_than_the_test_takes_some_of_the_queries() -> None:
    pools = shared_pools(n_motions=N_MOTIONS)
    small = assignment_gain.draw_fitting_pools(pools, 30, np.random.default_rng(0))
    assert small.n_motions <= 30 and 2 <= small.n_queries < N_QUERIES
    assert (np.bincount(small.query) == POOL).all()
    gain = estimate_gain(pools, drawn(True).similarity, galleries(n_motions=30), seed=0)
    assert np.isfinite(gain.distinct.mean) and gain.verdict is None
    assert len(gain.lines()) == 1


def test_a_fold_smaller_than_a_pool_is_left_out_and_without_any_fold_it_is_an_error() -> None:
    similarity = drawn(True).similarity
    both = galleries() | {1: lambda: gallery(1, n_motions=POOL - 1)}
    assert np.isfinite(estimate_gain(shared_pools(), similarity, both, seed=0).distinct.mean)
    with pytest.raises(ConfigError, match="--assign: no fold has as many motions as a query"):
        estimate_gain(shared_pools(), similarity, galleries(n_motions=POOL - 1), seed=0)
