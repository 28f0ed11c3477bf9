"""Query-bank normalisation: motions that are near to every caption step back (Bogolin et al. 2022, dynamic inverted softmax).

The similarity of query q and candidate c becomes exp(beta s_qc) / sum_b exp(beta s_bc) over a bank of training captions b, for the
queries whose top candidate in the whole gallery is some bank caption's top-1 there. Kept in logarithms and divided by beta, which
changes no ranking and leaves similarities in their unit: s_qc - log(sum_b exp(beta s_bc)) / beta.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

BETAS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""What is tried, in units of a similarity whose deviation over the gallery is 1."""
CHUNK_SIZE = 1024
"""Motions of a gallery that meet the whole bank at a time."""


@dataclass(frozen=True)
class QueryBank:
    """What a bank says of a gallery of M motions. offset: beta -> (M,) log(sum_b exp(beta s_bc)) / beta; hub: (M,) some caption's top-1."""

    offset: dict[float, np.ndarray]
    hub: np.ndarray

    def normalise(self, sim_qm: np.ndarray, beta: float) -> np.ndarray:
        """Similarities (Q, M) of queries and the whole gallery, normalised where a query's top motion is a hub."""
        active = self.hub[sim_qm.argmax(axis=1)]
        return np.where(active[:, None], sim_qm - self.offset[beta].astype(sim_qm.dtype), sim_qm)


def build_query_bank(similarity: Callable[[slice], np.ndarray], motions: int, betas: Iterable[float] = BETAS) -> QueryBank:
    """Lets a bank meet a gallery of so many motions. similarity: columns of the gallery -> (bank, columns) similarities."""
    offset = {beta: np.empty(motions) for beta in betas}
    highest = top = None
    for start in range(0, motions, CHUNK_SIZE):
        columns = slice(start, min(start + CHUNK_SIZE, motions))
        sim_bm = similarity(columns)
        largest = sim_bm.max(axis=0)
        for beta in offset:
            offset[beta][columns] = largest + np.log(np.exp(beta * (sim_bm - largest)).sum(axis=0, dtype=np.float64)) / beta
        best = sim_bm.max(axis=1)
        place = start + sim_bm.argmax(axis=1)
        top = place if highest is None else np.where(best > highest, place, top)
        highest = best if highest is None else np.maximum(best, highest)
    hub = np.zeros(motions, dtype=bool)
    hub[top] = True
    return QueryBank(offset, hub)
