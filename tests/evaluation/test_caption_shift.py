"""Captions unlike the training's: when it is said so, and the score that is matched to them."""

import numpy as np
import pytest

from helpers import DATA, FOLDS, made_run
from motret.data.caption_distance import WordDistance
from motret.evaluation import caption_shift, local_score, metrics
from motret.evaluation.caption_shift import CaptionShift
from motret.evaluation.metrics import Score
from motret.evaluation.slices import HeldOutCaptions


def distances(distance, unseen=0, n_words=10) -> WordDistance:
    """Of captions of 10 words, of which some are unseen, unless told otherwise."""
    count = len(distance)
    return WordDistance(np.full(count, unseen), np.full(count, n_words), np.array(distance))


def held_out_captions(score, motion_idx, group=None) -> HeldOutCaptions:
    """Captions of one fold, whose gallery is the whole data."""
    motion_idx = np.array(motion_idx)
    group = motion_idx if group is None else np.array(group)
    fold = np.zeros(len(motion_idx), dtype=int)
    texts = ("text",) * len(motion_idx)
    return HeldOutCaptions(texts, np.array(score), fold, motion_idx, motion_idx, group.astype(str))


# ---- warning


def test_captions_as_far_as_the_held_out_ones_are_like_them():
    rng = np.random.default_rng(0)
    shift = CaptionShift(distances(rng.random(30)), distances(rng.random(500)))
    assert not shift.is_unlike
    line = shift.line(lambda: pytest.fail("no score is needed"))
    assert line.startswith("the test's captions are like the held-out ones: 0.0 % of their words")


def test_captions_are_unlike_where_half_are_farther_than_three_quarters_of_the_held_out():
    held_out = distances(np.linspace(0, 1, 101))
    for level, unlike in ((0.74, False), (0.76, True)):
        test = distances([0.0, 0.1, level, 0.9, 0.95])
        assert CaptionShift(test, held_out).is_unlike == unlike
    line = CaptionShift(distances([0.9]), held_out).line(lambda: Score(0.5, 0.02, 9, 9))
    assert line.startswith("warning: ") and "that are as far score 0.5000 +- 0.0200" in line


def test_captions_are_unlike_where_far_more_of_their_words_are_unseen():
    near, held_out = np.zeros(40), distances(np.zeros(500), unseen=1, n_words=50)
    assert CaptionShift(distances(near, unseen=1), held_out).is_unlike
    assert not CaptionShift(distances(near, unseen=1, n_words=40), held_out).is_unlike
    rare = WordDistance(np.eye(1, 40, dtype=int)[0] * 20, np.full(40, 10), near)
    assert rare.unseen_share == 0.05 and not CaptionShift(rare, held_out).is_unlike  # one query


def test_the_test_is_compared_with_all_training_captions():
    shift = caption_shift.measure_shift(
        ["one waves", "zebras wave"], distances([0.0]), [["one waves"], ["two wave"]]
    )
    assert shift.test.unseen.tolist() == [0, 1] and shift.test.distance[0] == 0


# ---- matched score


def test_weights_give_the_held_out_captions_the_distances_of_the_test():
    rng = np.random.default_rng(0)
    shift = CaptionShift(distances(rng.random(1000) ** 0.5), distances(rng.random(5000)))
    weights = caption_shift.matched_weights(shift, held_out_captions(np.zeros(5000), range(5000)))
    assert weights.sum() == pytest.approx(1) and (weights > 0).all()
    for level in np.quantile(shift.test.distance, (0.2, 0.4, 0.6, 0.8)):
        below = weights[shift.held_out.distance <= level].sum()
        assert below == pytest.approx(np.mean(shift.test.distance <= level))


def test_a_motion_counts_once_however_many_captions_it_has():
    shift = CaptionShift(distances([0.5, 0.5]), distances(np.full(40, 0.5)))
    motion_idx = [0] * 21 + list(range(1, 20))
    weights = caption_shift.matched_weights(shift, held_out_captions(np.zeros(40), motion_idx))
    np.testing.assert_allclose(np.bincount(motion_idx, weights), np.full(20, 1 / 20))


def test_a_test_farther_than_every_held_out_caption_is_matched_to_the_farthest():
    shift = CaptionShift(distances(np.linspace(0.8, 1, 50)), distances(np.linspace(0, 0.85, 100)))
    weights = caption_shift.matched_weights(shift, held_out_captions(np.zeros(100), range(100)))
    assert np.isfinite(weights).all() and weights.sum() == pytest.approx(1)


def simulated(sim, motion_idx, weight, pool, draws=40000):
    """The competition score of each caption over drawn pools, ties in random order."""
    rng = np.random.default_rng(0)
    scores = []
    for row, right in enumerate(motion_idx):
        others = np.delete(np.arange(sim.shape[1]), right)
        probability = weight[others] / weight[others].sum()
        drawn = rng.choice(others, size=(draws, pool - 1), p=probability)
        better = (sim[row, drawn] > sim[row, right]).sum(axis=1)
        tied = (sim[row, drawn] == sim[row, right]).sum(axis=1)
        scores.append(metrics.rank_value(better + rng.integers(tied + 1)).mean())
    return np.array(scores)


def test_the_score_of_weighted_pools_is_that_of_drawn_ones():
    rng = np.random.default_rng(3)
    sim = rng.integers(0, 6, size=(6, 15)).astype(np.float32)
    motion_idx, weight = np.array([0, 4, 4, 7, 11, 14]), rng.random(15) ** 2
    exact = caption_shift.weighted_pool_score(sim, motion_idx, weight, pool=12)
    np.testing.assert_allclose(exact, simulated(sim, motion_idx, weight, 12), atol=0.006)


def test_motions_that_are_not_drawn_count_nothing():
    rng = np.random.default_rng(4)
    sim = rng.integers(0, 6, size=(5, 20)).astype(np.float32)
    motion_idx, weight = np.array([0, 3, 9, 12, 19]), rng.random(20)
    drawn = rng.random((5, 20)) < 0.6
    drawn[np.arange(5), motion_idx] = True
    masked = np.where(drawn, sim, -np.inf)
    scores = caption_shift.weighted_pool_score(masked, motion_idx, weight, pool=8)
    for row, motion in enumerate(motion_idx):
        columns = np.flatnonzero(drawn[row])
        right = np.array([np.searchsorted(columns, motion)])
        one = caption_shift.weighted_pool_score(
            sim[[row]][:, columns], right, weight[columns], pool=8
        )
        assert scores[row] == pytest.approx(one[0])


def test_weighted_pools_of_a_constant_model_score_chance_and_of_a_perfect_one_1():
    weight = np.random.default_rng(0).random(40)
    for sim, expected in ((np.zeros((40, 40)), metrics.chance_score()), (np.eye(40), 1.0)):
        scores = caption_shift.weighted_pool_score(sim, np.arange(40), weight)
        np.testing.assert_allclose(scores, expected, atol=1e-9)
    wrong = caption_shift.weighted_pool_score(-np.eye(40), np.arange(40), weight)
    np.testing.assert_allclose(wrong, 0, atol=1e-9)
    nan = caption_shift.weighted_pool_score(np.full((1, 40), np.nan), np.array([3]), weight)
    np.testing.assert_allclose(nan, 0, atol=1e-9)


def test_with_equal_weights_the_matched_score_is_the_local_score_of_a_large_gallery():
    rng = np.random.default_rng(0)
    motion_idx = np.arange(2000)
    sim = rng.normal(size=(2000, 2000)).astype(np.float32)
    sim[motion_idx, motion_idx] += 1.5
    better, tied = metrics.count_better(sim, motion_idx)
    held_out = held_out_captions(metrics.expected_score(better, tied, 2000), motion_idx)
    matched = caption_shift.matched_score(lambda fold: sim, held_out, np.full(2000, 1 / 2000))
    local = metrics.cluster_robust_mean(held_out.score, held_out.group)
    assert matched.mean == pytest.approx(local.mean, abs=0.001)
    assert matched.error == pytest.approx(local.error, rel=0.01)


def test_the_line_of_a_run_scores_it_on_each_fold(tmp_path):
    run, captions = made_run(tmp_path, "one"), DATA.training.captions
    held_out = local_score.held_out_captions([run], FOLDS, captions)
    near = distances(np.zeros(len(held_out.texts)))
    equal = 1 / np.bincount(held_out.data_idx)[held_out.data_idx] / 20

    def similarity(fold):
        return local_score.fold_similarity([run], fold)[0]

    line = caption_shift.shift_line(["zebras cross"], captions, held_out, near, similarity)
    expected = caption_shift.matched_score(similarity, held_out, equal)
    assert "100.0 % of their words are in no training caption (held out 0.0 %)" in line
    assert f"score {expected}: expect less" in line
