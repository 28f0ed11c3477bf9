"""One-to-one assignment: queries that share candidates are ranked together.

If no motion is the answer of two queries, a candidate that fits another query well is less likely
to be the answer of this one. The similarities are taken as log-likelihoods, and the probability
that a candidate is the answer, given that all answers differ, is approximated by belief propagation
(the Bethe approximation of matchings; Huang and Jebara 2009). Queries and motions send each other
messages along the pools:

    odds_qm = exp(s_qm) / sum_{m' != m} exp(s_qm') free_qm'     that m is the answer of query q
    free_qm = 1 / (1 + sum_{q' != q} odds_q'm)                  that no other query takes m

Candidates are ranked by s_qm + log free_qm. A motion in one pool alone has free = 1, so queries
that share nothing keep their ranking.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motret.errors import ConfigError

N_ROUNDS = 200
"""Rounds of messages at most."""
TOLERANCE = 1e-6
"""The messages are final when none of their logarithms changes by more."""
LEAST_SUM = 1e-300
"""What the other candidates of a query count at least, as a part of its best one."""


@dataclass(frozen=True, eq=False)
class SharedPools:
    """The candidates of Q queries as N pairs of a query and a motion, those of a query together.

    query: (N,) ascending numbers 0..Q-1, each present; motion: (N,) 0..M-1, each present. Files of
    the same content are one motion, and no pair occurs twice.
    """

    query: np.ndarray
    motion: np.ndarray

    @classmethod
    def of(cls, query: np.ndarray, motion: np.ndarray) -> "SharedPools":
        """The pools of pairs by any ascending numbers of queries and any numbers of motions."""
        return cls(
            np.unique(query, return_inverse=True)[1], np.unique(motion, return_inverse=True)[1]
        )

    @property
    def n_queries(self) -> int:
        return int(self.query[-1]) + 1

    @property
    def n_motions(self) -> int:
        return int(self.motion.max()) + 1

    @property
    def starts(self) -> np.ndarray:
        """(Q,) first pair of each query."""
        return np.searchsorted(self.query, np.arange(self.n_queries))

    @property
    def n_sharing(self) -> int:
        """Queries with a candidate that another query has too."""
        is_shared = np.bincount(self.motion)[self.motion] > 1
        return int(np.logical_or.reduceat(is_shared, self.starts).sum())

    def only(self, queries: np.ndarray) -> "SharedPools":
        """The pools of some of the queries."""
        selected = np.isin(self.query, queries)
        return SharedPools.of(self.query[selected], self.motion[selected])

    def draw_answers(self, rng: np.random.Generator, *, distinct: bool) -> np.ndarray:
        """(Q,) pair of each query's right motion, drawn at random from its candidates.

        distinct: no motion is drawn twice. ConfigError where that is not possible.
        """
        if not distinct:
            sizes = np.diff([*self.starts, len(self.query)])
            return self.starts + rng.integers(sizes)
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import min_weight_full_bipartite_matching

        shape = self.n_queries, self.n_motions
        costs = coo_matrix((1 + rng.random(len(self.query)), (self.query, self.motion)), shape)
        problem = "some queries have so few candidates together that two must share an answer"
        if self.n_motions < self.n_queries:
            raise ConfigError("--assign", problem, "leave it out")
        try:
            _, motion = min_weight_full_bipartite_matching(costs.tocsr())
        except ValueError as error:
            raise ConfigError("--assign", problem, "leave it out") from error
        return np.flatnonzero(self.motion == motion[self.query])


def pool_candidates(
    candidate_idx: Sequence[np.ndarray], digests: Sequence[str]
) -> tuple[SharedPools, np.ndarray]:
    """The pools of a test, and (N',) the pair of each usable candidate, query after query.

    candidate_idx: of each query the motions of its candidates, -1 for one that cannot be used;
    digests: of the content of each motion.
    """
    content = np.unique(digests, return_inverse=True)[1]
    sizes = [len(candidates) for candidates in candidate_idx]
    query = np.repeat(np.arange(len(sizes)), sizes)
    motion = np.concatenate(candidate_idx)
    usable = motion >= 0
    pairs, pair = np.unique(
        np.stack([query[usable], content[motion[usable]]]), axis=1, return_inverse=True
    )
    return SharedPools.of(*pairs), pair.ravel()


def assign(similarity: np.ndarray, pools: SharedPools, scale: float) -> np.ndarray:
    """Similarities (N,) of the pairs of pools, less what other queries want the same motions.

    scale: a similarity times this is a log-likelihood. The result has the unit of the similarities.
    """
    highest = np.maximum.reduceat(similarity, pools.starts)
    likelihood = np.exp(scale * (similarity - highest[pools.query]))
    log_free = np.zeros(len(similarity))
    for _ in range(N_ROUNDS):
        others = sum_of_others(likelihood * np.exp(log_free), pools.query)
        odds = likelihood / np.maximum(others, LEAST_SUM)
        change = -np.log1p(sum_of_others(odds, pools.motion)) - log_free
        log_free += change / 2  # half a step, so that the messages do not oscillate
        if np.abs(change).max() < TOLERANCE:
            break
    return np.asarray(similarity + log_free / scale)


def sum_of_others(values: np.ndarray, row: np.ndarray) -> np.ndarray:
    """(N,) sum of the other values in each one's row.

    values: (N,), not negative; row: (N,) numbers 0, 1, ..., each present. A row's highest value is
    never subtracted from its sum: where it is far above the rest, nothing of the rest would remain.
    """
    highest = np.zeros(row.max() + 1)
    np.maximum.at(highest, row, values)
    is_highest = values == highest[row]
    rest = np.bincount(row, np.where(is_highest, 0, values))[row]
    n_highest = np.bincount(row, is_highest)[row]
    others_highest = highest[row] * (n_highest - is_highest)
    return np.asarray(others_highest + np.where(is_highest, rest, rest - values))
