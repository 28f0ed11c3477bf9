"""Weights of an ensemble's members, found on the closed-form score of motions that no member had seen.

Greedy forward selection with replacement (Caruana et al. 2004) gives a start, single weights are then moved on the simplex, members
that earn nothing are left out, and equal weights are kept where the search gains no more than its error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from motret.evaluation import gallery_ranks, metrics
from motret.evaluation.gallery_ranks import GalleryRanks

ROUNDS = 24
"""Members that the greedy selection takes at most."""
MOVES = (0.2, 0.1, 0.05, 0.025)
"""By how much a single weight is moved, from coarse to fine."""
ROWS = 256
"""Captions compared at a time."""
NAN_MARGIN = 1e6
"""A lead in place of NaN: a member that says NaN must not win."""


@dataclass(frozen=True)
class ContestedPairs:
    """What the weights decide in one gallery.

    A motion that all members put below a caption's own stays below it whatever the (non-negative) weights, one that all put above
    stays above; only the others are kept. better: (C,) motions above in all members; start: (C + 1,) where each caption's contested
    pairs begin; lead: (members, E) by how much a pair's motion is ahead of the caption's own; owner: (C,); group: (M,).
    """

    better: np.ndarray
    start: np.ndarray
    lead: np.ndarray
    motion_idx: np.ndarray
    group: np.ndarray

    @classmethod
    def of(cls, similarities: Sequence[np.ndarray], motion_idx: np.ndarray, group: np.ndarray) -> "ContestedPairs":
        """From each member's similarities (C, M) of captions and motions, on one scale."""
        better, counts, leads = [], [], []
        for start in range(0, len(motion_idx), ROWS):
            own = motion_idx[start : start + ROWS]
            rows, places = slice(start, start + len(own)), np.arange(len(own))
            lead = np.stack([sim[rows] - sim[rows][places, own][:, None] for sim in similarities]).astype(np.float32)
            lead[~np.isfinite(lead)] = NAN_MARGIN
            lead[:, places, own] = -1  # its own motion does not compete
            above, contested = _split(lead)
            better.append(above.sum(axis=1))
            counts.append(contested.sum(axis=1))
            leads.append(lead[:, contested])
        return cls(np.concatenate(better), _segment_ends(np.concatenate(counts)), np.concatenate(leads, axis=1), motion_idx, group)

    def standing(self, weights: np.ndarray) -> GalleryRanks:
        """Where the right motions stand under some weights (members,)."""
        ahead = weights.astype(np.float32) @ self.lead
        return GalleryRanks(self.better + self._count(ahead > 0), self._count(ahead == 0), self.motion_idx, self.group)

    def only(self, members: Sequence[int] | np.ndarray) -> "ContestedPairs":
        """The contest of some of the members."""
        lead = self.lead[np.asarray(members)]
        above, contested = _split(lead)
        return ContestedPairs(
            self.better + self._count(above), _segment_ends(self._count(contested)), lead[:, contested], self.motion_idx, self.group
        )

    def _count(self, pairs: np.ndarray) -> np.ndarray:
        """(C,) how many of each caption's pairs (E,) are marked."""
        return np.diff(np.searchsorted(np.flatnonzero(pairs), self.start))


def _split(lead: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where all members (the first axis) put a motion above, and where they do not agree."""
    above, below = lead[0] > 0, lead[0] < 0
    for other in lead[1:]:
        above &= other > 0
        below &= other < 0
    return above, ~(above | below)


def _segment_ends(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], counts.cumsum()])


class WeightSearch:
    """Chooses weights on some galleries; what was searched once is kept, since nested choices share their searches."""

    def __init__(self, contests: Mapping[int, ContestedPairs]):
        self.contests, self.found = contests, {}

    def choose(self, folds: Sequence[int]) -> np.ndarray:
        """Weights (members,) that sum to 1, fitted on the galleries of these folds.

        Equal ones, of all members or of those that the search takes, where the search gains no more than its error over them. The gain
        is told by each gallery for the weights found on the others; with one gallery alone it is the gain there.
        """
        found = self.search(tuple(folds))
        told = {folds[0]: found}
        if len(folds) > 1:
            told = {fold: self.search(tuple(other for other in folds if other != fold)) for fold in folds}
        galleries = [self.contests[fold] for fold in told]
        everybody = np.full(len(found), 1 / len(found))
        if not improves_on_equal(galleries, list(told.values()), [everybody] * len(told)):
            return everybody
        return (
            found
            if improves_on_equal(galleries, list(told.values()), [_equal_weights(own) for own in told.values()])
            else _equal_weights(found)
        )

    def search(self, folds: tuple[int, ...]) -> np.ndarray:
        """The best weights that are found on some galleries."""
        if folds not in self.found:
            self.found[folds] = search_weights([self.contests[fold] for fold in folds])
        return self.found[folds]


def _equal_weights(weights: np.ndarray) -> np.ndarray:
    """The same weight for all that have one."""
    return (weights > 0) / np.count_nonzero(weights)


def search_weights(contests: Sequence[ContestedPairs]) -> np.ndarray:
    """The best weights (members,) that are found on these galleries."""
    start = greedy(contests)
    used = np.flatnonzero(start)
    among = [contest.only(used) for contest in contests]  # far fewer pairs where somebody useless is left out
    found = np.zeros(len(start))
    found[used] = prune(among, refine(among, start[used]))
    return found


def improves_on_equal(contests: Sequence[ContestedPairs], weights: Sequence[np.ndarray], simple: Sequence[np.ndarray]) -> bool:
    """Whether the weights of each gallery are better than simpler ones by more than the standard error of the difference."""
    one, other = ([contest.standing(own) for contest, own in zip(contests, chosen, strict=True)] for chosen in (weights, simple))
    gain = metrics.cluster_robust_mean(
        gallery_ranks.motion_values(one) - gallery_ranks.motion_values(other), gallery_ranks.motion_groups(one)
    )
    return gain.mean > gain.error


def objective(contests: Sequence[ContestedPairs], weights: np.ndarray) -> float:
    """The local score under some weights."""
    return float(gallery_ranks.motion_values([contest.standing(weights) for contest in contests]).mean())


def greedy(contests: Sequence[ContestedPairs]) -> np.ndarray:
    """Adds the member that helps most, again and again (one may be taken repeatedly), and returns the best mixture on the way."""
    count = len(contests[0].lead)
    taken, best, highest, worse = np.zeros(count), np.zeros(count), -np.inf, 0
    for _ in range(ROUNDS):
        scores = [objective(contests, taken + one) for one in np.eye(count)]
        taken[int(np.argmax(scores))] += 1
        worse = 0 if max(scores) > highest else worse + 1
        if not worse:
            best, highest = taken / taken.sum(), max(scores)
        if worse > 2:
            break
    return best


def refine(contests: Sequence[ContestedPairs], weights: np.ndarray) -> np.ndarray:
    """Moves single weights up and down on the simplex while the score rises."""
    best, highest = weights, objective(contests, weights)
    for size in MOVES:
        rises = len(weights) > 1
        while rises:
            rises = False
            for member in range(len(weights)):
                for step in (size, -size):
                    moved = best.copy()
                    moved[member] = max(0.0, moved[member] + step)
                    if not moved.sum() or np.array_equal(moved, best):
                        continue
                    moved /= moved.sum()
                    if (reached := objective(contests, moved)) > highest:
                        best, highest, rises = moved, reached, True
    return best


def prune(contests: Sequence[ContestedPairs], weights: np.ndarray) -> np.ndarray:
    """Leaves out members, the cheapest first, while what they add is within its error."""
    while np.count_nonzero(weights) > 1:
        without = [weights * (np.arange(len(weights)) != member) for member in np.flatnonzero(weights)]
        cheapest = max(without, key=lambda rest: objective(contests, rest))
        kept = np.flatnonzero(cheapest)
        cheapest[kept] = refine([contest.only(kept) for contest in contests], cheapest[kept] / cheapest.sum())
        if improves_on_equal(contests, [weights] * len(contests), [cheapest] * len(contests)):
            break
        weights = cheapest
    return weights
