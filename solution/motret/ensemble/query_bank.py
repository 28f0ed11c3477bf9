"""Query-bank normalisation against hubs, motions that are near to every caption.

It is the dynamic inverted softmax of Bogolin et al. 2022. The similarity of query q and candidate c
becomes exp(beta s_qc) / sum_b exp(beta s_bc) over a bank of training captions b, for the queries
whose top candidate in the whole gallery is some bank caption's top candidate there. It is kept as a
logarithm divided by beta, which changes no ranking and keeps the unit of similarities: s_qc -
log(sum_b exp(beta s_bc)) / beta.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from motret.errors import ConfigError

BETAS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""The values tried, for similarities with standard deviation 1 over the gallery."""
TEST_BETA = 2.0
"""The value for a bank of the test's queries. Held-out captions are no guide to it: they are like
the training captions, and gain nothing from it."""
MIN_TEST_QUERIES = 60
"""Fewer queries are no bank: each is a large part of it, and takes its own similarities away."""
CHUNK_SIZE = 1024
"""Motions of a gallery that are compared with the whole bank at a time."""


def check_test_queries(count: int) -> None:
    """ConfigError where a test has too few queries to be a bank."""
    if count < MIN_TEST_QUERIES:
        problem = f"{count} queries are too few for a bank, which would cost more than it gains"
        raise ConfigError("--query_bank test", problem, "leave it out, or give --query_bank off")


@dataclass(frozen=True, eq=False)
class QueryBank:
    """Statistics of a bank B over a gallery of M motions.

    offset: beta -> (M,) log(sum_b exp(beta s_bc)) / beta; hub: (M,) whether a motion is some bank
    caption's top candidate.
    """

    offset: dict[float, np.ndarray]
    hub: np.ndarray

    def normalize(self, sim_qm: np.ndarray, beta: float) -> np.ndarray:
        """Similarities (Q, M), normalised where a query's top motion is a hub.

        sim_qm: of queries and the whole gallery.
        """
        active = self.hub[sim_qm.argmax(axis=1)]
        return np.where(active[:, None], sim_qm - self.offset[beta].astype(sim_qm.dtype), sim_qm)


def build_query_bank(
    bank_similarity: Callable[[slice], np.ndarray], n_motions: int, betas: Iterable[float] = BETAS
) -> QueryBank:
    """The statistics of a bank, formed for a chunk of the gallery at a time.

    bank_similarity: a slice of m motions of the gallery -> (B, m) similarities of the bank's
    captions and these.
    """
    offset = {beta: np.empty(n_motions) for beta in betas}
    highest: np.ndarray | None = None
    top = np.empty(0, dtype=int)
    for start in range(0, n_motions, CHUNK_SIZE):
        motions = slice(start, min(start + CHUNK_SIZE, n_motions))
        sim_bm = bank_similarity(motions)
        largest = sim_bm.max(axis=0)
        for beta in offset:
            sums = np.exp(beta * (sim_bm - largest)).sum(axis=0, dtype=np.float64)
            offset[beta][motions] = largest + np.log(sums) / beta
        chunk_highest, chunk_top = sim_bm.max(axis=1), start + sim_bm.argmax(axis=1)
        top = chunk_top if highest is None else np.where(chunk_highest > highest, chunk_top, top)
        highest = chunk_highest if highest is None else np.maximum(chunk_highest, highest)
    hub = np.zeros(n_motions, dtype=bool)
    hub[top] = True
    return QueryBank(offset, hub)
