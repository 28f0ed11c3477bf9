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
