"""One-to-one assignment against a twin that goes through all ways in which answers differ."""

from itertools import product

import numpy as np
import pytest

from motret.ensemble import assignment
from motret.ensemble.assignment import SharedPools
from motret.errors import ConfigError

CHAIN = [[0, 1], [1, 2], [2, 3, 4]]
"""Pools whose queries and motions form a tree."""


def pools_of(candidates: list[list[int]]) -> SharedPools:
    query = np.repeat(np.arange(len(candidates)), [len(of_query) for of_query in candidates])
    return SharedPools.of(query, np.concatenate(candidates))


def twin(similarity: np.ndarray, pools: SharedPools, scale: float) -> np.ndarray:
    """(N,) probability that each pair's motion is its query's answer, given that all differ."""
    pairs = [np.flatnonzero(pools.query == query) for query in range(pools.n_queries)]
    probability = np.zeros(len(similarity))
    for chosen in product(*pairs):
        answers = np.array(chosen)
        if len(set(pools.motion[answers])) == len(answers):
            probability[answers] += np.exp(scale * similarity[answers].sum())
    return probability / np.bincount(pools.query, probability)[pools.query]


def probabilities(similarity: np.ndarray, pools: SharedPools, scale: float) -> np.ndarray:
    """(N,) softmax over each query's pairs."""
    likelihood = np.exp(scale * similarity)
    return likelihood / np.bincount(pools.query, likelihood)[pools.query]


@pytest.mark.parametrize("scale", [0.5, 3.0, 20.0])
def test_where_pools_form_a_tree_it_is_exact(scale: float) -> None:
    pools = pools_of(CHAIN)
    similarity = np.random.default_rng(0).normal(size=len(pools.query)) / scale
    assigned = assignment.assign(similarity, pools, scale)
    expected = twin(similarity, pools, scale)
    np.testing.assert_allclose(probabilities(assigned, pools, scale), expected, atol=1e-5)
    assert not np.allclose(probabilities(similarity, pools, scale), expected, atol=0.01)


def test_where_pools_form_loops_it_is_near() -> None:
    rng, errors = np.random.default_rng(1), []
    for _ in range(10):
        pools = pools_of([list(rng.permutation(9)[:4]) for _ in range(5)])
        similarity = rng.normal(size=len(pools.query))
        expected = twin(similarity, pools, 2.0)
        assigned = assignment.assign(similarity, pools, 2.0)
        errors.append(
            [
                np.abs(probabilities(of, pools, 2.0) - expected).mean()
                for of in (assigned, similarity)
            ]
        )
    assigned_error, plain_error = np.mean(errors, axis=0)
    assert assigned_error < plain_error / 4


def test_a_query_that_shares_nothing_keeps_its_similarities() -> None:
    pools = pools_of([[0, 1], [1, 2], [3, 4, 5]])
    similarity = np.random.default_rng(2).normal(size=len(pools.query))
    assigned = assignment.assign(similarity, pools, 3.0)
    alone = pools.query == 2
    np.testing.assert_array_equal(assigned[alone], similarity[alone])
    assert (assigned[~alone] != similarity[~alone]).any() and pools.n_sharing == 2


def test_a_motion_that_another_query_wants_more_is_left_to_it() -> None:
    pools = pools_of([[0, 1], [0, 2]])
    similarity = np.array([5.0, -5.0, 0.2, 0.1])
    assigned = assignment.assign(similarity, pools, 2.0)
    assert assigned[0] > assigned[1] and assigned[2] < assigned[3]


def test_what_is_nearly_certain_is_as_exact_as_what_is_not() -> None:
    """Log-likelihoods that differ by 200, where 1 + exp(-200) is 1."""
    pools = pools_of([[0, 1], [0, 2]])
    similarity = np.array([200.0, 0.0, 190.0, 0.0])
    assigned = assignment.assign(similarity, pools, 1.0)
    np.testing.assert_allclose(assigned, [200 - 190, 0, 190 - 200, 0], atol=1e-4)


def test_the_sum_of_others_leaves_out_each_value_alone() -> None:
    rng = np.random.default_rng(0)
    row = np.concatenate([np.arange(9), rng.integers(9, size=60)])
    values = rng.exponential(size=len(row)) ** 8
    values[row == 3] = 1.0  # ties
    twins = [values[(row == row[i]) & (np.arange(len(row)) != i)].sum() for i in range(len(row))]
    np.testing.assert_allclose(assignment.sum_of_others(values, row), twins, rtol=1e-12)


def test_certain_and_impossible_candidates_give_finite_numbers() -> None:
    pools = pools_of([[0, 1], [0, 1], [1, 2], [3]])
    similarity = np.array([1e4, -1e4, 1e4, 1e4, 0.0, -1e4, 7.0])
    assert np.isfinite(assignment.assign(similarity, pools, 50.0)).all()


def test_files_of_the_same_content_are_one_motion_and_broken_ones_none() -> None:
    candidate_idx = [np.array([0, 1, -1]), np.array([2, 3]), np.array([-1]), np.array([4, 5])]
    pools, pair = assignment.pool_candidates(candidate_idx, ["a", "b", "b", "c", "d", "d"])
    # usable candidates in order: a, b, b, c, d, d
    assert pools.n_queries == 3 and pools.n_motions == 4 and pools.n_sharing == 2
    np.testing.assert_array_equal(pools.query[pair], [0, 0, 1, 1, 2, 2])
    motion = pools.motion[pair]
    assert motion[1] == motion[2] and motion[4] == motion[5] and len(set(motion)) == 4
    assert len(pools.query) == 5  # d is one candidate of the last query


def test_answers_are_drawn_from_each_pool_and_differ_where_asked() -> None:
    rng = np.random.default_rng(3)
    pools = pools_of([list(rng.permutation(12)[:6]) for _ in range(10)])
    drawn = [pools.draw_answers(rng, distinct=True) for _ in range(20)]
    for answer in drawn:
        np.testing.assert_array_equal(pools.query[answer], np.arange(10))
        assert len(set(pools.motion[answer])) == 10
    assert len({tuple(answer) for answer in drawn}) > 10
    repeating = [pools.draw_answers(rng, distinct=False) for _ in range(20)]
    assert all((pools.query[answer] == np.arange(10)).all() for answer in repeating)
    assert any(len(set(pools.motion[answer])) < 10 for answer in repeating)


@pytest.mark.parametrize("candidates", [[[0], [0]], [[0], [0], [1, 2, 3]], [[0, 1]] * 3])
def test_answers_that_cannot_all_differ_are_an_error(candidates: list[list[int]]) -> None:
    with pytest.raises(ConfigError, match="--assign: some queries have so few candidates"):
        pools_of(candidates).draw_answers(np.random.default_rng(0), distinct=True)
