"""The score to expect on a test, from how sure the models are of it."""

import numpy as np
import pytest

from motret.evaluation import caption_shift, confidence, metrics
from motret.evaluation.slices import HeldOutCaptions


def sampled_pools(
    count: int, temperature: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Similarities (count, 32), and right candidates (count,), drawn from their softmax."""
    similarity = rng.normal(size=(count, 32))
    likelihood = np.exp(similarity / temperature)
    total = likelihood.cumsum(axis=1)
    right = (total < rng.random((count, 1)) * total[:, -1:]).sum(axis=1)
    return similarity, right


def true_score(similarity: np.ndarray, right: np.ndarray) -> float:
    own = np.take_along_axis(similarity, right[:, None], axis=1)
    return float(metrics.rank_value((similarity > own).sum(axis=1)).mean())


def test_expected_scores_are_the_mean_value_over_who_may_be_right():
    rng = np.random.default_rng(0)
    similarity = rng.normal(size=(5, 12))
    for row, score in zip(similarity, confidence.expected_scores(similarity, 0.7), strict=True):
        likelihood = np.exp(row / 0.7) / np.exp(row / 0.7).sum()
        ranks = [(row > own).sum() for own in row]
        assert score == pytest.approx(likelihood @ metrics.rank_value(np.array(ranks)))


def test_padding_is_no_candidate():
    short, longer = np.array([2.0, 1.0, 0.5]), np.array([0.1, 0.4, 0.2, 0.3, 0.0])
    padded = confidence.pad_pools([short, longer])
    assert padded.shape == (2, 5) and np.isneginf(padded[0, 3:]).all()
    both = confidence.expected_scores(padded, 0.5)
    for pool, score in zip((short, longer), both, strict=True):
        assert score == pytest.approx(confidence.expected_scores(pool[None], 0.5)[0])


def test_the_temperature_is_that_at_which_answers_were_drawn():
    similarity, right = sampled_pools(20000, 0.4, np.random.default_rng(0))
    values, score = confidence.candidate_values(similarity), true_score(similarity, right)
    temperature = confidence.fit_temperature(similarity, values, np.ones(20000), score)
    assert temperature == pytest.approx(0.4, rel=0.03)


@pytest.mark.parametrize(("score", "end"), [(1.0, 0), (metrics.chance_score(), 1)])
def test_a_score_of_1_is_certain_and_one_of_chance_knows_nothing(score, end):
    similarity = np.random.default_rng(0).normal(size=(50, 32))
    values = confidence.candidate_values(similarity)
    temperature = confidence.fit_temperature(similarity, values, np.ones(50), score)
    expected = confidence.expected_scores(similarity, temperature)
    assert expected.mean() == pytest.approx(score, abs=1e-3)
    assert (temperature < 0.1, temperature > 100)[end]


def test_wrong_candidates_are_drawn_by_weight_from_what_is_compared():
    rng = np.random.default_rng(0)
    sim = np.tile(np.arange(6.0), (400, 1))
    sim[:, 5] = -np.inf  # not compared
    weight = np.array([1.0, 2.0, 1.0, 0.0, 1.0, 3.0])
    pools = confidence.draw_pools(sim, np.full(400, 4), weight, rng)
    assert pools.shape == (400, 32) and (pools[:, 0] == 4).all()
    share = [np.mean(pools[:, 1:] == motion) for motion in range(6)]
    np.testing.assert_allclose(share, [0.25, 0.5, 0.25, 0, 0, 0], atol=0.02)
    alone = confidence.draw_pools(sim[:1], np.array([4]), np.eye(6)[4], rng)
    assert alone[0, 0] == 4 and np.isneginf(alone[0, 1:]).all()


def expected_score(similarity, held_out, weights, pools):
    matched = caption_shift.matched_score(similarity, held_out, weights)
    return confidence.expected_test_score(similarity, held_out, weights, matched, pools, seed=0)


def gallery(count: int, signal: float, rng: np.random.Generator) -> np.ndarray:
    """(count, count) similarities: noise, and a signal of the right motion."""
    sim = rng.normal(size=(count, count))
    sim[np.arange(count), np.arange(count)] += signal
    return sim


@pytest.mark.parametrize("signal", [2.0, 1.0, 0.0])
def test_a_test_of_which_models_are_less_sure_is_expected_to_score_less(signal):
    """With the held-out temperature, the confidence in weaker answers is near to their score."""
    rng = np.random.default_rng(0)
    count, ones = 600, np.ones(600, dtype=int)
    held_out_sim = gallery(count, 2.0, rng)
    held_out = HeldOutCaptions(
        ("x",) * count,
        np.zeros(count),
        0 * ones,
        np.arange(count),
        np.arange(count),
        np.arange(count),
    )
    weights = np.full(count, 1 / count)
    test = rng.normal(size=(count, 32))
    test[:, 3] += signal
    true = true_score(test, 3 * ones)
    pools = confidence.TestPools((test,), 10 * test)
    expected = expected_score(lambda fold: held_out_sim, held_out, weights, pools)
    matched = caption_shift.matched_score(lambda fold: held_out_sim, held_out, weights)
    assert expected.motions == count and expected.error > matched.error
    if signal == 2:
        assert expected.mean == pytest.approx(matched.mean, abs=0.03)
        assert expected.mean == pytest.approx(true, abs=0.03)
    else:
        assert true - 0.02 < expected.mean < matched.mean - 0.03


def test_the_mean_of_networks_is_expected_to_score_more_than_each_of_them():
    """Networks of equal signal and noise of their own; the scale of their mean does not matter."""
    rng = np.random.default_rng(0)
    count = 600
    held_out = HeldOutCaptions(
        ("x",) * (2 * count),
        np.zeros(2 * count),
        np.repeat([0, 1], count),
        np.tile(np.arange(count), 2),
        np.arange(2 * count),
        np.arange(2 * count),
    )
    of_fold = {fold: gallery(count, 2.0, rng) for fold in (0, 1)}
    by_fold = [rng.normal(size=(count, 32)) for _ in range(2)]
    for of_network in by_fold:
        of_network[:, 7] += 2
    weights, mean = np.full(2 * count, 0.5 / count), by_fold[0] + by_fold[1]
    right = np.full(count, 7)
    single, both = (
        expected_score(of_fold.__getitem__, held_out, weights, pools).mean
        for pools in (
            confidence.TestPools((by_fold[0],), by_fold[0]),
            confidence.TestPools(tuple(by_fold), mean),
        )
    )
    assert single == pytest.approx(true_score(by_fold[0], right), abs=0.03)
    assert both == pytest.approx(true_score(mean, right), abs=0.03)
    assert both > single + 0.05


def test_of_networks_that_know_nothing_chance_is_expected():
    rng = np.random.default_rng(0)
    index = np.arange(300)
    held_out = HeldOutCaptions(("x",) * 300, np.zeros(300), 0 * index, index, index, index)
    networks = [rng.normal(size=(300, 32)) for _ in range(2)]
    unrelated = rng.normal(size=(300, 32))
    expected = expected_score(
        lambda fold: gallery(300, 0.0, np.random.default_rng(1)),
        held_out,
        np.full(300, 1 / 300),
        confidence.TestPools(tuple(networks), unrelated),
    )
    assert expected.mean == pytest.approx(metrics.chance_score(), abs=0.03)
