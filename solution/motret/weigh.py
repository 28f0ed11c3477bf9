"""Weights of an ensemble's members, found on the closed-form score of motions that no member had seen.

Greedy forward selection with replacement (Caruana et al. 2004) gives a start, single weights are then moved on the simplex, members
that earn nothing are left out, and equal weights are kept where the search gains no more than its error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motret import metrics, standing
from motret.standing import Standing

ROUNDS = 24
"""Members that the greedy selection takes at most."""
MOVES = (0.2, 0.1, 0.05, 0.025)
"""By how much a single weight is moved, from coarse to fine."""
ROWS = 256
"""Captions compared at a time."""
LOUD = 1e6
"""A lead in place of NaN: a member that says NaN must not win."""


@dataclass(frozen=True)
class Contest:
    """What the weights decide in one gallery.

    A motion that all members put below a caption's own stays below it whatever the (non-negative) weights, one that all put above
    stays above; only the others are kept. better: (C,) motions above in all members; query: (E,) caption of each contested pair;
    lead: (members, E) by how much the pair's motion is ahead of the caption's own; owner: (C,); group: (M,).
    """

    better: np.ndarray
    query: np.ndarray
    lead: np.ndarray
    owner: np.ndarray
    group: np.ndarray

    @classmethod
    def of(cls, similarities: Sequence[np.ndarray], owner: np.ndarray, group: np.ndarray) -> "Contest":
        """From each member's similarities (C, M) of captions and motions, on one scale."""
        better, queries, leads = [], [], []
        for start in range(0, len(owner), ROWS):
            rows = np.arange(start, min(start + ROWS, len(owner)))
            own = owner[rows, None]
            lead = np.stack([sim[rows] - np.take_along_axis(sim[rows], own, axis=1) for sim in similarities]).astype(np.float32)
            lead = np.nan_to_num(lead, nan=LOUD, posinf=LOUD, neginf=-LOUD)
            lead[:, np.arange(len(rows)), owner[rows]] = -1  # its own motion does not compete
            above = (lead > 0).all(axis=0)
            contested = ~above & ~(lead < 0).all(axis=0)
            better.append(above.sum(axis=1))
            queries.append((np.nonzero(contested)[0] + start).astype(np.int32))
            leads.append(lead[:, contested])
        return cls(np.concatenate(better), np.concatenate(queries), np.concatenate(leads, axis=1), owner, group)

    def standing(self, weights: np.ndarray) -> Standing:
        """Where the right motions stand under some weights (members,)."""
        used = np.flatnonzero(weights)
        ahead = weights[used].astype(np.float32) @ self.lead[used]
        captions = len(self.owner)
        better = self.better + np.bincount(self.query[ahead > 0], minlength=captions)
        return Standing(better, np.bincount(self.query[ahead == 0], minlength=captions), self.owner, self.group)

    def only(self, members: Sequence[int]) -> "Contest":
        """The same contest without the other members."""
        return Contest(self.better, self.query, self.lead[list(members)], self.owner, self.group)


def choose(contests: Sequence[Contest]) -> np.ndarray:
    """Weights (members,) that sum to 1, fitted on these galleries."""
    count = len(contests[0].lead)
    equal = np.full(count, 1 / count)
    if count == 1:
        return equal
    found = prune(contests, refine(contests, greedy(contests)))
    kept = (found > 0) / (found > 0).sum()
    for simple in (equal, kept):
        if not helps(contests, found, simple):
            return simple
    return found


def helps(contests: Sequence[Contest], weights: np.ndarray, simple: np.ndarray) -> bool:
    """Whether weights are better than simpler ones by more than the standard error of the difference."""
    one, other = ([contest.standing(chosen) for contest in contests] for chosen in (weights, simple))
    gain = metrics.clustered(standing.values(one) - standing.values(other), standing.groups(one))
    return gain.mean > gain.error


def objective(contests: Sequence[Contest], weights: np.ndarray) -> float:
    """The local score under some weights."""
    return float(standing.values([contest.standing(weights) for contest in contests]).mean())


def greedy(contests: Sequence[Contest]) -> np.ndarray:
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


def refine(contests: Sequence[Contest], weights: np.ndarray, open_to: np.ndarray | None = None) -> np.ndarray:
    """Moves single weights up and down on the simplex while the score rises; only those in `open_to` (members,), where given."""
    best, highest = weights, objective(contests, weights)
    movable = np.flatnonzero(np.ones(len(weights), dtype=bool) if open_to is None else open_to)
    for size in MOVES:
        rises = True
        while rises:
            rises = False
            for member in movable:
                for step in (size, -size):
                    moved = best.copy()
                    moved[member] = max(0.0, moved[member] + step)
                    if not moved.sum() or np.array_equal(moved, best):
                        continue
                    moved /= moved.sum()
                    if (reached := objective(contests, moved)) > highest:
                        best, highest, rises = moved, reached, True
    return best


def prune(contests: Sequence[Contest], weights: np.ndarray) -> np.ndarray:
    """Leaves out members, the cheapest first, while what they add is within its error."""
    while (kept := np.flatnonzero(weights)).size > 1:
        without = []
        for member in kept:
            rest = np.where(np.arange(len(weights)) == member, 0, weights)
            without.append(rest / rest.sum())
        cheapest = max(without, key=lambda rest: objective(contests, rest))
        cheapest = refine(contests, cheapest, open_to=cheapest > 0)
        if helps(contests, weights, cheapest):
            break
        weights = cheapest
    return weights
