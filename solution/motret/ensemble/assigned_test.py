"""A test whose queries share candidates, ranked by one-to-one assignment (--assign)."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from motret.data.dataset import TestData
from motret.ensemble import apply, assignment, assignment_gain
from motret.ensemble.apply import Similarities
from motret.ensemble.assignment import SharedPools
from motret.ensemble.assignment_gain import AssignmentGain, HeldOutGallery
from motret.ensemble.fit import FittedEnsemble
from motret.ensemble.galleries import FoldGallery, OofGalleries

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class AssignedTest:
    """The test ranked by one-to-one assignment, and what is told of its gain."""

    pools: SharedPools
    gain: AssignmentGain
    similarities: Similarities

    def lines(self) -> list[str]:
        """For a terminal."""
        pools = self.pools
        counts = (
            f"one-to-one assignment: {pools.n_sharing} of {pools.n_queries} queries share "
            f"candidates, {pools.n_motions} motions in all"
        )
        return [counts, *self.gain.lines()]

    def to_json(self) -> dict[str, Any]:
        """The same for a JSON file."""
        gain = self.gain
        return {
            "queries_that_share": self.pools.n_sharing,
            "motions": self.pools.n_motions,
            "looks_like": gain.verdict,
            **asdict(gain),
        }


def assign_test(
    similarities: Similarities,
    test: TestData,
    ensemble: FittedEnsemble,
    galleries: OofGalleries,
    seed: int,
) -> AssignedTest | None:
    """The test ranked by assignment; None, with a message, where no queries share candidates.

    similarities: of the ensemble, of each query to its candidates; galleries: what the folds hold
    out, in the ensemble's views and with its query bank; seed: of the draws that tell the gain.
    """
    pools, pair = assignment.pool_candidates(test.candidate_idx, test.store.digests)
    if not pools.n_sharing:
        logger.info("--assign changes nothing: no two queries of the test share a candidate")
        return None
    usable = np.concatenate(test.candidate_idx) >= 0
    flat = np.concatenate(similarities)
    of_pair = np.empty(len(pools.query))
    of_pair[pair] = flat[usable]
    gain = assignment_gain.estimate_gain(pools, of_pair, _held_out(ensemble, galleries), seed)
    flat[usable] = assignment.assign(of_pair, pools, gain.scale)[pair]
    ends = np.cumsum([len(candidates) for candidates in test.candidate_idx])[:-1]
    return AssignedTest(pools, gain, apply.rank_unusable_last(np.split(flat, ends), test))


def _held_out(
    ensemble: FittedEnsemble, galleries: OofGalleries
) -> Mapping[int, partial[HeldOutGallery]]:
    """Fold -> gives what it holds out as the ensemble that ranks the test sees it."""

    def load(gallery: FoldGallery) -> HeldOutGallery:
        mixture, views, beta = tuple(ensemble.weights), ensemble.views, ensemble.beta
        similarity = gallery.ensemble_similarity(mixture, views, beta)
        return HeldOutGallery(similarity, gallery.motion_idx, gallery.group)

    return {fold: partial(load, gallery) for fold, gallery in galleries.folds.items()}
