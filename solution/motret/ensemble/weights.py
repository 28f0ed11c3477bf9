"""Weights of an ensemble's members, fitted on their closed-form score out of fold.

Greedy forward selection with replacement (Caruana et al. 2004) gives a start. Single weights are
then moved on the simplex, members that add no more than the standard error are left out, and equal
weights stay where the search gains no more than that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from motret.evaluation import gallery_ranks, metrics
from motret.evaluation.gallery_ranks import GalleryRanks

GREEDY_ROUNDS = 24
"""Members that the greedy selection takes at most."""
STEP_SIZES = (0.2, 0.1, 0.05, 0.025)
"""By how much a single weight is moved, from coarse to fine."""
CHUNK_SIZE = 256
"""Captions compared at a time."""
NAN_MARGIN = 1e6
"""A margin in place of NaN: a member with NaN similarities must not win."""


@dataclass(frozen=True, eq=False)
class ContestedPairs:
    """The pairs of a caption and a wrong motion that weights decide, in one gallery.

    The gallery has C captions and M motions. Weights are not negative: a wrong motion that all
    members score above the right one stays above it, one that all score below stays below. Only the
    other pairs, P in all, are kept, by caption. n_above: (C,) wrong motions above the right one in
    all members; offsets: (C + 1,) where each caption's pairs begin; margin: (members, P) by how
    much the wrong motion scores above the right one; motion_idx: (C,) right motion of each caption;
    group: (M,) groups of the motions, for standard errors; size: as in `GalleryRanks`.
    """

    n_above: np.ndarray
    offsets: np.ndarray
    margin: np.ndarray
    motion_idx: np.ndarray
    group: np.ndarray
    size: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        similarities: Sequence[np.ndarray],
        motion_idx: np.ndarray,
        group: np.ndarray,
        compared: np.ndarray | None = None,
    ) -> "ContestedPairs":
        """From each member's similarities (C, M), which are on one scale. compared: (C, M) pairs
        that count; None: all."""
        n_above, counts, margins = [], [], []
        for start in range(0, len(motion_idx), CHUNK_SIZE):
            right = motion_idx[start : start + CHUNK_SIZE]
            captions, index = slice(start, start + len(right)), np.arange(len(right))
            margin = np.stack(
                [
                    scores[captions] - scores[captions][index, right][:, None]
                    for scores in similarities
                ]
            )
            margin = margin.astype(np.float32)
            margin[~np.isfinite(margin)] = NAN_MARGIN
            margin[:, index, right] = -1  # the right motion does not compete with itself
            if compared is not None:
                margin[:, ~compared[captions]] = -1
            above, contested = _split_pairs(margin)
            n_above.append(above.sum(axis=1))
            counts.append(contested.sum(axis=1))
            margins.append(margin[:, contested])
        return cls(
            np.concatenate(n_above),
            _offsets(np.concatenate(counts)),
            np.concatenate(margins, axis=1),
            motion_idx,
            group,
            None if compared is None else compared.sum(axis=1),
        )

    def ranks(self, weights: np.ndarray) -> GalleryRanks:
        """Ranks of the right motions under these weights (members,)."""
        margin = weights.astype(np.float32) @ self.margin
        return GalleryRanks(
            self.n_above + self._count_by_caption(margin > 0),
            self._count_by_caption(margin == 0),
            self.motion_idx,
            self.group,
            self.size,
        )

    def only(self, member_idx: Sequence[int] | np.ndarray) -> "ContestedPairs":
        """The pairs that the weights of some of the members decide."""
        margin = self.margin[np.asarray(member_idx)]
        above, contested = _split_pairs(margin)
        offsets = _offsets(self._count_by_caption(contested))
        n_above = self.n_above + self._count_by_caption(above)
        return replace(self, n_above=n_above, offsets=offsets, margin=margin[:, contested])

    def _count_by_caption(self, mask: np.ndarray) -> np.ndarray:
        """(C,) how many of each caption's pairs are set in a mask (P,)."""
        return np.diff(np.searchsorted(np.flatnonzero(mask), self.offsets))


def _split_pairs(margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks of pairs: the wrong motion above for all members; members that differ.

    margin: (members, ...).
    """
    above, below = margin[0] > 0, margin[0] < 0
    for of_member in margin[1:]:
        above &= of_member > 0
        below &= of_member < 0
    return above, ~(above | below)


def _offsets(counts: np.ndarray) -> np.ndarray:
    """(N + 1,) where each of N segments of these lengths begins, and the last ends."""
    return np.concatenate([[0], counts.cumsum()])


class WeightSearch:
    """Fits weights on some of the galleries; searches are cached, since nested fits share them."""

    def __init__(self, pairs: Mapping[int, ContestedPairs]):
        self.pairs = pairs
        self.cache: dict[tuple[int, ...], np.ndarray] = {}

    def fit(self, folds: Sequence[int]) -> np.ndarray:
        """Weights (members,) that sum to 1, fitted on the galleries of these folds.

        Equal weights, of all members or of those that the search takes, stay where the search gains
        no more than the standard error. The gain is measured on each gallery with the weights found
        on the others; with one gallery alone, on that gallery.
        """
        weights = self.search(tuple(folds))
        nested = {folds[0]: weights}
        if len(folds) > 1:
            nested = {
                fold: self.search(tuple(other for other in folds if other != fold))
                for fold in folds
            }
        pairs, searched = [self.pairs[fold] for fold in nested], list(nested.values())
        equal = np.full(len(weights), 1 / len(weights))
        if not improves(pairs, searched, [equal] * len(nested)):
            return equal
        if improves(pairs, searched, [_equal_weights(of_fold) for of_fold in searched]):
            return weights
        return _equal_weights(weights)

    def search(self, folds: tuple[int, ...]) -> np.ndarray:
        """The best weights that the search finds on some galleries."""
        if folds not in self.cache:
            self.cache[folds] = search_weights([self.pairs[fold] for fold in folds])
        return self.cache[folds]


def _equal_weights(weights: np.ndarray) -> np.ndarray:
    """The same weight for all members that have one."""
    return np.asarray((weights > 0) / np.count_nonzero(weights))


def search_weights(pairs: Sequence[ContestedPairs]) -> np.ndarray:
    """The best weights (members,) that the search finds on these galleries."""
    start = select_greedily(pairs)
    used = np.flatnonzero(start)
    pairs = [
        gallery_pairs.only(used) for gallery_pairs in pairs
    ]  # far fewer pairs without the useless members
    weights = np.zeros(len(start))
    weights[used] = prune(pairs, refine(pairs, start[used]))
    return weights


def improves(
    pairs: Sequence[ContestedPairs],
    weights: Sequence[np.ndarray],
    baseline: Sequence[np.ndarray],
) -> bool:
    """Whether weights gain more over a baseline than the standard error of the gain.

    weights, baseline: one (members,) for each gallery.
    """
    ranks, baseline_ranks = (
        [
            gallery_pairs.ranks(of_gallery)
            for gallery_pairs, of_gallery in zip(pairs, by_gallery, strict=True)
        ]
        for by_gallery in (weights, baseline)
    )
    gains = gallery_ranks.motion_values(ranks) - gallery_ranks.motion_values(baseline_ranks)
    gain = metrics.cluster_robust_mean(gains, gallery_ranks.motion_groups(ranks))
    return gain.mean > gain.error


def mean_score(pairs: Sequence[ContestedPairs], weights: np.ndarray) -> float:
    """The local score over these galleries under some weights, which the search maximises."""
    return float(
        gallery_ranks.motion_values(
            [gallery_pairs.ranks(weights) for gallery_pairs in pairs]
        ).mean()
    )


def select_greedily(pairs: Sequence[ContestedPairs]) -> np.ndarray:
    """Adds the member that helps most, again and again; the best mixture on the way.

    One member may be taken repeatedly.
    """
    n_members = len(pairs[0].margin)
    counts, best, highest, rounds_below = np.zeros(n_members), np.zeros(n_members), -np.inf, 0
    for _ in range(GREEDY_ROUNDS):
        scores = [mean_score(pairs, counts + member) for member in np.eye(n_members)]
        counts[int(np.argmax(scores))] += 1
        rounds_below = 0 if max(scores) > highest else rounds_below + 1
        if not rounds_below:
            best, highest = counts / counts.sum(), max(scores)
        if rounds_below > 2:
            break
    return best


def refine(pairs: Sequence[ContestedPairs], weights: np.ndarray) -> np.ndarray:
    """Moves single weights up and down on the simplex while the score rises."""
    best, highest = weights, mean_score(pairs, weights)
    for size in STEP_SIZES:
        rises = len(weights) > 1
        while rises:
            rises = False
            for member_idx in range(len(weights)):
                for step in (size, -size):
                    moved = best.copy()
                    moved[member_idx] = max(0.0, moved[member_idx] + step)
                    if not moved.sum() or np.array_equal(moved, best):
                        continue
                    moved /= moved.sum()
                    if (score := mean_score(pairs, moved)) > highest:
                        best, highest, rises = moved, score, True
    return best


def prune(pairs: Sequence[ContestedPairs], weights: np.ndarray) -> np.ndarray:
    """Leaves out members while what each adds is within its standard error.

    The least useful goes first.
    """
    while np.count_nonzero(weights) > 1:
        without_one = [
            weights * (np.arange(len(weights)) != idx) for idx in np.flatnonzero(weights)
        ]
        smaller = max(without_one, key=lambda candidate: mean_score(pairs, candidate))
        used = np.flatnonzero(smaller)
        smaller[used] = refine(
            [gallery_pairs.only(used) for gallery_pairs in pairs], smaller[used] / smaller.sum()
        )
        if improves(pairs, [weights] * len(pairs), [smaller] * len(pairs)):
            break
        weights = smaller
    return weights
