"""Weights fitted on held-out galleries: planted ones are found, useless members get none."""

from collections.abc import Callable

import numpy as np
import pytest

from motret.ensemble.weights import (
    ContestedPairs,
    WeightSearch,
    mean_score,
    refine,
    select_greedily,
)
from motret.evaluation import caption_shift, metrics
from motret.evaluation.gallery_ranks import GalleryRanks
from motret.evaluation.z_score import ZScore

MOTIONS, CAPTIONS = 120, 300
MakeMembers = Callable[[np.random.Generator, np.ndarray], list[np.ndarray]]


def draw_motion_idx(rng: np.random.Generator) -> np.ndarray:
    """The motion of each caption: every motion has one, some have several."""
    return np.sort(
        np.concatenate([np.arange(MOTIONS), rng.integers(MOTIONS, size=CAPTIONS - MOTIONS)])
    )


def informative(
    rng: np.random.Generator, motion_idx: np.ndarray, signal: float = 2.0
) -> np.ndarray:
    """Similarities (C, M) that rank a caption's motion near the top."""
    sim = rng.normal(size=(len(motion_idx), MOTIONS))
    sim[np.arange(len(motion_idx)), motion_idx] += signal
    return sim


def make_contests(make: MakeMembers, seed: int = 0, folds: int = 2) -> list[ContestedPairs]:
    """Galleries of the members that `make(rng, motion_idx)` returns, on one scale."""
    rng, pairs = np.random.default_rng(seed), []
    for _ in range(folds):
        motion_idx = draw_motion_idx(rng)
        similarities = [ZScore.of(sim)(sim) for sim in make(rng, motion_idx)]
        pairs.append(ContestedPairs.of(similarities, motion_idx, np.arange(MOTIONS) // 2))
    return pairs


def noise(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(CAPTIONS, MOTIONS))


def fit(galleries: list[ContestedPairs]) -> np.ndarray:
    return WeightSearch(dict(enumerate(galleries))).fit(range(len(galleries)))


def test_ranks_by_contested_pairs_are_those_of_the_whole_matrix() -> None:
    rng = np.random.default_rng(0)
    motion_idx = draw_motion_idx(rng)
    members = [informative(rng, motion_idx) for _ in range(3)]
    members[1] = members[1].round(0)  # many ties
    gallery_pairs = ContestedPairs.of(members, motion_idx, np.arange(MOTIONS))
    assert (
        gallery_pairs.margin.shape[1] < CAPTIONS * MOTIONS * 0.9
    )  # most of the rest is decided whatever the weights
    for weights in ([0.2, 0.5, 0.3], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]):
        whole = np.tensordot(weights, members, axes=1)
        better, tied = metrics.count_better(whole, motion_idx)
        ranks = gallery_pairs.ranks(np.array(weights))
        np.testing.assert_array_equal(ranks.better, better)
        np.testing.assert_array_equal(ranks.tied, tied)
        np.testing.assert_allclose(ranks.values(), metrics.caption_scores(whole, motion_idx))
    two = gallery_pairs.only([0, 2])
    assert two.margin.shape[1] < gallery_pairs.margin.shape[1]
    np.testing.assert_array_equal(
        two.ranks(np.array([0.4, 0.6])).better, gallery_pairs.ranks(np.array([0.4, 0, 0.6])).better
    )


def test_pairs_that_are_not_compared_count_for_no_weights() -> None:
    rng = np.random.default_rng(0)
    motion_idx, group = draw_motion_idx(rng), np.arange(MOTIONS)
    members = [informative(rng, motion_idx) for _ in range(3)]
    compared = rng.random((CAPTIONS, MOTIONS)) < 0.5
    compared[np.arange(CAPTIONS), motion_idx] = True
    pairs = ContestedPairs.of(members, motion_idx, group, compared)
    for weights in ([0.2, 0.5, 0.3], [0.0, 1.0, 0.0]):
        whole = np.tensordot(weights, members, axes=1)
        expected = GalleryRanks.of(whole, motion_idx, group, compared)
        for found in (
            pairs.ranks(np.array(weights)),
            pairs.only([0, 1, 2]).ranks(np.array(weights)),
        ):
            np.testing.assert_array_equal(found.better, expected.better)
            np.testing.assert_array_equal(found.values(), expected.values())


def test_a_member_with_nan_similarities_does_not_win() -> None:
    motion_idx = np.arange(MOTIONS)
    broken = np.full((MOTIONS, MOTIONS), np.nan)
    gallery_pairs = ContestedPairs.of([np.eye(MOTIONS), broken], motion_idx, motion_idx)
    assert gallery_pairs.ranks(np.array([0.0, 1.0])).values().max() == 0
    assert gallery_pairs.ranks(np.array([1.0, 0.0])).values().min() == 1


@pytest.mark.parametrize("weight", [0.25, 0.5, 0.8])
def test_planted_weights_are_found(weight: float) -> None:
    """Two members whose errors cancel at one weight alone."""

    def make(rng: np.random.Generator, motion_idx: np.ndarray) -> list[np.ndarray]:
        sim, error = informative(rng, motion_idx), 4 * noise(rng)
        return [sim + (1 - weight) * error, sim - weight * error]

    galleries = make_contests(make)
    weights = fit(galleries)
    rng = np.random.default_rng(0)
    deviations = [sim.std() for sim in make(rng, draw_motion_idx(rng))]
    planted = np.array([weight * deviations[0], (1 - weight) * deviations[1]])
    assert weights == pytest.approx(planted / planted.sum(), abs=0.03)
    assert (
        mean_score(galleries, weights)
        > max(mean_score(galleries, single) for single in np.eye(2)) + 0.1
    )


def test_a_better_member_has_more_weight() -> None:
    def make(rng: np.random.Generator, motion_idx: np.ndarray) -> list[np.ndarray]:
        sim = informative(rng, motion_idx, 3)
        return [sim + 0.7 * noise(rng), sim + 1.6 * noise(rng), sim + 0.7 * noise(rng)]

    weights = fit(make_contests(make))
    assert weights.sum() == pytest.approx(1) and weights[1] < min(weights[0], weights[2])


@pytest.mark.parametrize("seed", range(4))
def test_a_useless_member_has_no_weight(seed: int) -> None:
    def make(rng: np.random.Generator, motion_idx: np.ndarray) -> list[np.ndarray]:
        sim = informative(rng, motion_idx)
        return [sim + 0.6 * noise(rng), noise(rng), sim + 0.6 * noise(rng)]

    weights = fit(make_contests(make, seed))
    assert weights[1] == 0 and weights[0] > 0.2 and weights[2] > 0.2


@pytest.mark.parametrize("seed", range(4))
def test_equal_weights_stay_where_others_gain_no_more_than_the_standard_error(seed: int) -> None:
    def make(rng: np.random.Generator, motion_idx: np.ndarray) -> list[np.ndarray]:
        sim = informative(rng, motion_idx)
        return [sim + 0.6 * noise(rng) for _ in range(3)]

    assert list(fit(make_contests(make, seed))) == [1 / 3] * 3


def test_a_single_member_has_all_the_weight() -> None:
    assert list(fit(make_contests(lambda rng, motion_idx: [informative(rng, motion_idx)]))) == [1]


def test_the_search_never_ends_below_where_it_began() -> None:
    def make(rng: np.random.Generator, motion_idx: np.ndarray) -> list[np.ndarray]:
        sim = informative(rng, motion_idx)
        return [sim + scale * noise(rng) for scale in (0.5, 1.0, 3.0)]

    galleries = make_contests(make)
    start = select_greedily(galleries)
    assert mean_score(galleries, refine(galleries, start)) >= mean_score(galleries, start)
    assert mean_score(galleries, start) >= max(
        mean_score(galleries, single) for single in np.eye(3)
    )


# ---- captions and candidates drawn by weight


def test_under_a_target_the_score_is_that_of_the_whole_matrix_drawn_by_weight() -> None:
    rng = np.random.default_rng(0)
    motion_idx, weight = draw_motion_idx(rng), rng.random(CAPTIONS)
    members = [informative(rng, motion_idx) for _ in range(3)]
    members[1] = members[1].round(0)  # many ties
    compared = rng.random((CAPTIONS, MOTIONS)) < 0.7
    compared[np.arange(CAPTIONS), motion_idx] = True
    motion_weight = np.bincount(motion_idx, weight, minlength=MOTIONS)
    for pairs_compared in (None, compared):
        pairs = ContestedPairs.of(members, motion_idx, np.arange(MOTIONS), pairs_compared, weight)
        for weights in ([0.2, 0.5, 0.3], [0.0, 1.0, 0.0], [0.6, 0.0, 0.4]):
            whole = np.tensordot(np.array(weights, np.float32), members, axes=1)
            if pairs_compared is not None:
                whole = np.where(pairs_compared, whole, -np.inf)
            values = caption_shift.weighted_pool_score(
                whole, motion_idx, motion_weight, min(32, MOTIONS)
            )
            expected = np.average(values, weights=weight)
            assert mean_score([pairs], np.array(weights)) == pytest.approx(expected, abs=1e-6)
            used = np.flatnonzero(weights)
            of_used = mean_score([pairs.only(used)], np.array(weights)[used])
            assert of_used == pytest.approx(expected, abs=1e-6)


def test_the_weights_are_those_that_rank_the_captions_of_the_target() -> None:
    """Each of two members knows one half of the captions; the target draws from one half."""
    rng, pairs = np.random.default_rng(0), {True: [], False: []}
    for _ in range(3):
        motion_idx = np.arange(MOTIONS)
        first = motion_idx < MOTIONS // 2
        members = [informative(rng, motion_idx, 3.0) for _ in range(2)]
        for member, knows in zip(members, (first, ~first), strict=True):
            member[~knows] = rng.normal(size=((~knows).sum(), MOTIONS))
        for of_first, galleries in pairs.items():
            weight = (first == of_first) / MOTIONS
            galleries.append(
                ContestedPairs.of(members, motion_idx, np.arange(MOTIONS), None, weight)
            )
    assert fit(pairs[True])[0] > 0.8 and fit(pairs[False])[1] > 0.8


def test_under_a_target_what_the_search_finds_is_not_made_equal() -> None:
    weight, galleries = np.full(MOTIONS, 1 / MOTIONS), {True: {}, False: {}}
    rng = np.random.default_rng(0)
    for fold in range(3):
        motion_idx = np.arange(MOTIONS)
        members = [informative(rng, motion_idx, signal) for signal in (2.0, 1.9, 1.8)]
        for has_target, pairs in galleries.items():
            of_target = weight if has_target else None
            pairs[fold] = ContestedPairs.of(members, motion_idx, motion_idx, None, of_target)
    searches = {has_target: WeightSearch(pairs) for has_target, pairs in galleries.items()}
    found = searches[True].search((0, 1, 2))
    np.testing.assert_array_equal(searches[True].fit([0, 1, 2]), found)
    assert len(set(found.round(6))) > 1
    assert len(set(searches[False].fit([0, 1, 2]).round(6))) == 1
