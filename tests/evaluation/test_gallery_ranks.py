"""Ranks of held-out motions: the standard error of a gain, the interval of a leaderboard."""

import numpy as np
import pytest

from motret.evaluation import gallery_ranks, metrics
from motret.evaluation.gallery_ranks import GalleryRanks


def draw_ranks(
    seed: int, motions: int = 60, captions: int = 90, levels: int = 1000
) -> GalleryRanks:
    rng = np.random.default_rng(seed)
    motion_idx = np.concatenate(
        [np.arange(motions), rng.integers(motions, size=captions - motions)]
    )
    sim = rng.integers(0, levels, (captions, motions)).astype(float)
    sim[np.arange(captions), motion_idx] += 0.4 * levels
    return GalleryRanks.of(sim, motion_idx, np.arange(motions) // 3)


def test_a_score_is_the_mean_over_the_motions_of_all_galleries() -> None:
    galleries = [draw_ranks(0), draw_ranks(1, motions=40, captions=50)]
    scores = np.concatenate([gallery.values() for gallery in galleries])
    assert (
        gallery_ranks.mean_score(galleries).mean == pytest.approx(scores.mean())
        and gallery_ranks.mean_score(galleries).motions == 100
    )


def test_a_caption_is_ranked_among_the_motions_it_is_compared_with() -> None:
    rng = np.random.default_rng(0)
    motion_idx, group = np.repeat(np.arange(60), 2), np.arange(60) // 3
    sim = rng.integers(0, 20, (120, 60)).astype(float)
    compared = rng.random((120, 60)) < 0.7
    compared[np.arange(120), motion_idx] = True
    ranks = GalleryRanks.of(sim, motion_idx, group, compared)
    expected = []
    for caption, motion in enumerate(motion_idx):
        columns = np.flatnonzero(compared[caption])
        right = np.array([np.searchsorted(columns, motion)])
        counts = metrics.count_better(sim[[caption]][:, columns], right)
        expected.append(metrics.expected_score(*counts, len(columns))[0])
    np.testing.assert_allclose(ranks.caption_values(), expected)
    np.testing.assert_allclose(ranks.values(), np.reshape(expected, (60, 2)).mean(axis=1))
    everything = GalleryRanks.of(sim, motion_idx, group, np.ones_like(compared))
    np.testing.assert_array_equal(
        everything.values(), GalleryRanks.of(sim, motion_idx, group).values()
    )
    nan = GalleryRanks.of(np.full((120, 60), np.nan), motion_idx, group, compared)
    assert nan.values().max() == 0


def test_the_interval_of_a_leaderboard_counts_the_compared_motions_alone() -> None:
    motion_idx, group = np.arange(200), np.arange(200)
    rng = np.random.default_rng(0)
    sim = rng.normal(size=(200, 200))
    sim[motion_idx, motion_idx] += 1.5
    compared = rng.random((200, 200)) < 0.5
    compared[motion_idx, motion_idx] = True
    some = GalleryRanks.of(sim, motion_idx, group, compared)
    low, high = gallery_ranks.leaderboard_interval([some], 0.0, np.random.default_rng(1))
    assert low < gallery_ranks.mean_score([some]).mean < high
    whole = gallery_ranks.leaderboard_interval(
        [GalleryRanks.of(sim, motion_idx, group)], 0.0, np.random.default_rng(1)
    )
    assert (low, high) == pytest.approx(whole, abs=0.05)


def test_the_bootstrap_error_of_independent_motions_is_the_plain_one() -> None:
    differences = np.random.default_rng(0).normal(0.1, 1, 800)
    difference = gallery_ranks.bootstrap_difference(
        differences, np.arange(800), np.random.default_rng(1)
    )
    assert difference.mean == pytest.approx(differences.mean())
    assert difference.error == pytest.approx(differences.std(ddof=1) / 800**0.5, rel=0.05)


def test_the_bootstrap_draws_whole_groups() -> None:
    by_group = np.random.default_rng(2).normal(size=50)
    difference = gallery_ranks.bootstrap_difference(
        np.repeat(by_group, 20), np.repeat(np.arange(50), 20), np.random.default_rng(3)
    )
    assert (
        difference.error == pytest.approx(by_group.std(ddof=1) / 50**0.5, rel=0.05)
        and difference.groups == 50
    )


def test_the_same_seed_gives_the_same_error() -> None:
    differences, group = np.random.default_rng(0).normal(size=100), np.arange(100) // 5
    first, again = (
        gallery_ranks.bootstrap_difference(differences, group, np.random.default_rng(4))
        for _ in range(2)
    )
    assert first == again


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_interval_holds_nine_of_ten_leaderboards(levels: int) -> None:
    """Against leaderboards drawn one by one: queries, pools and ties by hand."""
    rng = np.random.default_rng(5)
    gallery = draw_ranks(6, levels=levels)
    low, high = gallery_ranks.leaderboard_interval([gallery], 0.0, np.random.default_rng(7))
    scores = []
    for _ in range(600):
        ranks = []
        for motion in rng.integers(60, size=30):
            caption = rng.choice(np.flatnonzero(gallery.motion_idx == motion))
            beaters = gallery.better[caption] + rng.integers(gallery.tied[caption] + 1)
            ranks.append((rng.permutation(59)[:31] < beaters).sum())
        scores.append(metrics.rank_value(np.array(ranks)).mean())
    assert np.mean(scores) == pytest.approx(gallery_ranks.mean_score([gallery]).mean, abs=0.02)
    assert np.mean((np.array(scores) >= low) & (np.array(scores) <= high)) == pytest.approx(
        0.9, abs=0.04
    )


def test_a_larger_standard_error_widens_the_interval() -> None:
    intervals = [
        gallery_ranks.leaderboard_interval([draw_ranks(0)], error, np.random.default_rng(0))
        for error in (0.0, 0.1)
    ]
    assert intervals[1][1] - intervals[1][0] > 1.2 * (intervals[0][1] - intervals[0][0])
