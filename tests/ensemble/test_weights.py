"""Weights found on held-out galleries: planted ones come back, useless members get none, equal ones stay where nothing is gained."""

import numpy as np
import pytest

from motret.ensemble.weights import ContestedPairs, WeightSearch, greedy, objective, refine
from motret.evaluation import metrics
from motret.evaluation.z_score import ZScore

MOTIONS, CAPTIONS = 120, 300


def owners(rng) -> np.ndarray:
    """Every motion has a caption, some have several."""
    return np.sort(np.concatenate([np.arange(MOTIONS), rng.integers(MOTIONS, size=CAPTIONS - MOTIONS)]))


def truth(rng, motion_idx, loud=2.0) -> np.ndarray:
    """Similarities (C, M) that put a caption's own motion somewhere near the top."""
    sim = rng.normal(size=(len(motion_idx), MOTIONS))
    sim[np.arange(len(motion_idx)), motion_idx] += loud
    return sim


def contests(make, seed=0, folds=2) -> list[ContestedPairs]:
    """Galleries of the members that `make(rng, owner)` gives, on one scale."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(folds):
        motion_idx = owners(rng)
        similarities = [ZScore.of(sim)(sim) for sim in make(rng, motion_idx)]
        found.append(ContestedPairs.of(similarities, motion_idx, np.arange(MOTIONS) // 2))
    return found


def noise(rng) -> np.ndarray:
    return rng.normal(size=(CAPTIONS, MOTIONS))


def choose(galleries: list[ContestedPairs]) -> np.ndarray:
    return WeightSearch(dict(enumerate(galleries))).choose(range(len(galleries)))


def test_a_contest_stands_where_the_whole_matrix_does() -> None:
    rng = np.random.default_rng(0)
    motion_idx = owners(rng)
    members = [truth(rng, motion_idx) for _ in range(3)]
    members[1] = members[1].round(0)  # many ties
    contest = ContestedPairs.of(members, motion_idx, np.arange(MOTIONS))
    assert contest.lead.shape[1] < CAPTIONS * MOTIONS * 0.9  # most of the rest is decided whatever the weights
    for weights in ([0.2, 0.5, 0.3], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]):
        whole = np.tensordot(weights, members, axes=1)
        better, tied = metrics.count_better(whole, motion_idx)
        standing = contest.standing(np.array(weights))
        np.testing.assert_array_equal(standing.better, better)
        np.testing.assert_array_equal(standing.tied, tied)
        np.testing.assert_allclose(standing.values(), metrics.caption_scores(whole, motion_idx))
    part = contest.only([0, 2])
    assert part.lead.shape[1] < contest.lead.shape[1]
    np.testing.assert_array_equal(part.standing(np.array([0.4, 0.6])).better, contest.standing(np.array([0.4, 0, 0.6])).better)


def test_a_member_that_says_nan_does_not_win() -> None:
    motion_idx = np.arange(MOTIONS)
    broken = np.full((MOTIONS, MOTIONS), np.nan)
    contest = ContestedPairs.of([np.eye(MOTIONS), broken], motion_idx, motion_idx)
    assert contest.standing(np.array([0.0, 1.0])).values().max() == 0
    assert contest.standing(np.array([1.0, 0.0])).values().min() == 1


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_planted_weights_are_found(share: float) -> None:
    """Two members whose errors cancel in one mixture alone."""

    def make(rng, motion_idx):
        sim, error = truth(rng, motion_idx), 4 * noise(rng)
        return [sim + (1 - share) * error, sim - share * error]

    galleries = contests(make)
    found = choose(galleries)
    rng = np.random.default_rng(0)
    deviations = [sim.std() for sim in make(rng, owners(rng))]
    planted = np.array([share * deviations[0], (1 - share) * deviations[1]])
    assert found == pytest.approx(planted / planted.sum(), abs=0.03)
    assert objective(galleries, found) > max(objective(galleries, one) for one in np.eye(2)) + 0.1


def test_a_better_member_weighs_more() -> None:
    def make(rng, motion_idx):
        sim = truth(rng, motion_idx, 3)
        return [sim + 0.7 * noise(rng), sim + 1.6 * noise(rng), sim + 0.7 * noise(rng)]

    found = choose(contests(make))
    assert found.sum() == pytest.approx(1) and found[1] < min(found[0], found[2])


@pytest.mark.parametrize("seed", range(4))
def test_a_useless_member_weighs_nothing(seed: int) -> None:
    def make(rng, motion_idx):
        sim = truth(rng, motion_idx)
        return [sim + 0.6 * noise(rng), noise(rng), sim + 0.6 * noise(rng)]

    found = choose(contests(make, seed))
    assert found[1] == 0 and found[0] > 0.2 and found[2] > 0.2


@pytest.mark.parametrize("seed", range(4))
def test_equal_weights_stay_where_others_gain_no_more_than_their_error(seed: int) -> None:
    def make(rng, motion_idx):
        sim = truth(rng, motion_idx)
        return [sim + 0.6 * noise(rng) for _ in range(3)]

    assert list(choose(contests(make, seed))) == [1 / 3] * 3


def test_a_single_member_weighs_all() -> None:
    assert list(choose(contests(lambda rng, motion_idx: [truth(rng, motion_idx)]))) == [1]


def test_the_search_never_ends_below_where_it_began() -> None:
    def make(rng, motion_idx):
        sim = truth(rng, motion_idx)
        return [sim + scale * noise(rng) for scale in (0.5, 1.0, 3.0)]

    galleries = contests(make)
    start = greedy(galleries)
    assert objective(galleries, refine(galleries, start)) >= objective(galleries, start)
    assert objective(galleries, start) >= max(objective(galleries, one) for one in np.eye(3))
