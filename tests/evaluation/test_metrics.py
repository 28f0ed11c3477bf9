"""Scores of rankings, each against a plain twin."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motret.evaluation import metrics
from motret.formats import challenge


def readme_score(ranks, top=10):
    """The competition's formula, written as its README has it."""
    recall = [np.mean([rank < k for rank in ranks]) for k in range(1, top + 1)]
    weights = [1 / k for k in range(1, top + 1)]
    return sum(w * r for w, r in zip(weights, recall, strict=True)) / sum(weights)


def test_a_submission_scores_what_the_readme_formula_says():
    truth = {"1": 5, "2": 7, "3": 1}
    ranked = {"1": (5, *range(10, 19)), "2": (1, 2, 7, *range(20, 27)), "3": tuple(range(2, 12))}
    assert metrics.submission_scores(ranked, truth).mean() == pytest.approx(
        readme_score([0, 2, 10])
    )
    assert metrics.recall_at(ranked, truth)[:3] == pytest.approx([1 / 3, 1 / 3, 2 / 3])


@given(st.lists(st.integers(0, 31), min_size=1, max_size=40))
def test_rank_value_averages_to_the_weighted_recall(ranks):
    assert metrics.rank_value(np.array(ranks)).mean() == pytest.approx(readme_score(ranks))


def test_the_score_of_ties_is_the_mean_over_all_orders():
    tied = np.array([0, 1, 3, 12, 31])
    expected = [np.mean([readme_score([rank]) for rank in range(count + 1)]) for count in tied]
    assert metrics.tied_score(tied) == pytest.approx(expected)


def test_chance_is_the_score_of_a_random_ranking():
    assert metrics.chance_score() == pytest.approx(readme_score(range(32)))
    assert metrics.chance_score(4, top=2) == pytest.approx(readme_score(range(4), top=2))


def test_a_constant_model_scores_chance():
    sim = np.zeros((90, 45))
    scores = metrics.caption_scores(sim, np.repeat(np.arange(45), 2))
    chance = readme_score(range(32))
    assert chance == pytest.approx(0.107, abs=1e-3)
    assert scores == pytest.approx(np.full(45, chance))


def test_a_perfect_model_scores_one_and_the_worst_nothing():
    motion_idx = np.arange(50)
    assert metrics.caption_scores(np.eye(50), motion_idx) == pytest.approx(np.ones(50))
    assert metrics.caption_scores(-np.eye(50), motion_idx) == pytest.approx(np.zeros(50))


def test_nan_never_wins():
    sim = np.eye(40)
    sim[3] = np.nan
    scores = metrics.caption_scores(sim, np.arange(40))
    assert scores[3] == 0
    assert scores[4] == 1


@pytest.mark.parametrize("chunk_size", [1, 7, 30, 512])
def test_counting_in_chunks_is_counting_in_the_whole_matrix(chunk_size, monkeypatch):
    """Whole numbers, so that products are exact and many are equal; one query is NaN."""
    monkeypatch.setattr(metrics, "CHUNK_SIZE", chunk_size)
    rng = np.random.default_rng(0)
    gallery, query = (
        rng.integers(-2, 3, (12, 4)).astype(np.float32),
        rng.integers(-2, 3, (30, 4)).astype(np.float32),
    )
    right = rng.integers(0, 12, 30)
    query[17, 2] = np.nan
    whole = metrics.count_better(query @ gallery.T, right)
    assert whole[1].any() and whole[0][17] == 11
    for counts, expected in zip(
        metrics.count_better_chunked(query, gallery, right), whole, strict=True
    ):
        np.testing.assert_array_equal(counts, expected)


def dense_motion_ranks(sim_qn, motion_idx):
    """Ranks of each motion's best caption, ties half, motion by motion in the whole matrix."""
    ranks = []
    for motion in range(sim_qn.shape[1]):
        right, others = sim_qn[motion_idx == motion, motion], sim_qn[motion_idx != motion, motion]
        best = np.nanmax(right, initial=-np.inf)
        ranks.append((~(others <= best)).sum() + (others == best).sum() / 2)
    return np.array(ranks)


@pytest.mark.parametrize("chunk_size", [1, 5, 12, 512])
def test_the_other_direction_in_chunks_is_that_of_the_whole_matrix(chunk_size, monkeypatch):
    """Whole numbers, so that products are exact and many are equal; a caption and a motion are NaN;
    captions in no order.
    """
    monkeypatch.setattr(metrics, "CHUNK_SIZE", chunk_size)
    rng = np.random.default_rng(0)
    motion, text = (
        rng.integers(-2, 3, (12, 4)).astype(np.float32),
        rng.integers(-2, 3, (30, 4)).astype(np.float32),
    )
    motion_idx = rng.permutation(np.concatenate([np.arange(12), rng.integers(0, 12, 18)]))
    text[17, 2], motion[3, 0] = np.nan, np.nan
    expected = dense_motion_ranks(text @ motion.T, motion_idx)
    assert (expected % 1 > 0).any() and expected[3] == (motion_idx != 3).sum()
    np.testing.assert_array_equal(metrics.motion_to_text_ranks(text, motion, motion_idx), expected)


@pytest.mark.parametrize("levels", [3, 1000])
def test_closed_form_agrees_with_drawing_pools(levels):
    rng = np.random.default_rng(0)
    gallery, queries, draws = 60, 8, 4000
    sim = rng.integers(0, levels, (queries, gallery)).astype(float)  # 3 levels: mostly ties
    right = rng.integers(0, gallery, queries)
    closed = metrics.expected_score(*metrics.count_better(sim, right), gallery)
    for query in range(queries):
        others = np.delete(np.arange(gallery), right[query])
        drawn = np.empty(draws)
        for draw in range(draws):
            pool = rng.choice(others, 31, replace=False)
            noise = rng.random(32)  # ties broken at random
            above = sim[query, pool] > sim[query, right[query]]
            level = (sim[query, pool] == sim[query, right[query]]) & (noise[1:] > noise[0])
            drawn[draw] = metrics.rank_value((above | level).sum())
        assert closed[query] == pytest.approx(drawn.mean(), abs=4 * drawn.std() / draws**0.5 + 1e-6)


def test_a_pool_larger_than_the_gallery_is_refused():
    with pytest.raises(ValueError, match="gallery of 20"):
        metrics.expected_pool_score(20)


def test_the_error_grows_when_groups_stand_or_fall_together():
    rng = np.random.default_rng(1)
    by_group = rng.random(40)
    values = np.repeat(by_group, 25)
    alone, together = (
        metrics.cluster_robust_mean(values, np.arange(1000)),
        metrics.cluster_robust_mean(values, np.repeat(np.arange(40), 25)),
    )
    assert alone.mean == together.mean == pytest.approx(by_group.mean())
    assert together.error == pytest.approx(by_group.std(ddof=1) / 40**0.5)
    assert together.error > 4 * alone.error
    assert (together.motions, together.groups) == (1000, 40)


def test_recalls_in_both_directions_against_brute_force():
    rng = np.random.default_rng(2)
    motion_idx = np.array([0, 0, 1, 2, 2, 2, 3])
    sim = rng.normal(size=(7, 4))
    motion_ranks = metrics.motion_to_text_ranks(sim, np.eye(4), motion_idx)
    table = metrics.retrieval_table(*metrics.count_better(sim, motion_idx), motion_ranks)
    forward = np.array([list(np.argsort(-sim[q])).index(motion_idx[q]) for q in range(7)])
    assert table["text_to_motion"] == pytest.approx(metrics.recalls(forward))
    backward = []
    for motion in range(4):
        order = np.argsort(-sim[:, motion])
        first = next(rank for rank, caption in enumerate(order) if motion_idx[caption] == motion)
        backward.append(first)  # captions above the motion's best one are all of others
    assert table["motion_to_text"] == pytest.approx(metrics.recalls(np.array(backward)))
    assert metrics.recalls(np.array([0, 1, 5, 20])) == {
        "R@1": 0.25,
        "R@5": 0.5,
        "R@10": 0.75,
        "MeanR": 7.5,
        "MedR": 4.0,
    }


def test_expected_recall_is_the_mean_over_all_pools():
    gallery, pool, top = 7, 4, 3
    better, tied = np.array([0, 2, 1, 5]), np.array([0, 0, 2, 1])
    recall = metrics.expected_recall(better, tied, gallery, pool, top)
    for query, (above, equal) in enumerate(zip(better, tied, strict=True)):
        for k in range(1, top + 1):
            hits = [
                sum(other < beaters for other in others) < k
                for beaters in range(
                    above, above + equal + 1
                )  # each rank among those tied is as likely
                for others in itertools.combinations(range(gallery - 1), pool - 1)
            ]
            assert recall[query, k - 1] == pytest.approx(np.mean(hits))


def test_the_expected_score_weighs_the_expected_recalls():
    better, tied = np.array([0, 3, 40, 99]), np.array([0, 2, 10, 0])
    weights = 1 / np.arange(1, challenge.TOP_K + 1)
    weighted = metrics.expected_recall(better, tied, 100) @ weights / weights.sum()
    np.testing.assert_allclose(weighted, metrics.expected_score(better, tied, 100))
