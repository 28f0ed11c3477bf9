"""Weights of an ensemble's members, fitted on their closed-form score out of fold.

The score is the local one, or that of held-out captions and candidates drawn as a test's are.

Greedy forward selection with replacement (Caruana et al. 2004) gives a start. Single weights are
then moved on the simplex, members that add no more than the standard error are left out, and equal
weights stay where the search gains no more than that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from motret.evaluation import caption_shift, metrics
from motret.evaluation.gallery_ranks import GalleryRanks
from motret.formats.challenge import POOL_SIZE

GREEDY_ROUNDS = 24
"""Members that the greedy selection takes at most."""
STEP_SIZES = (0.2, 0.1, 0.05, 0.025)
"""By how much a single weight is moved, from coarse to fine."""
CHUNK_SIZE = 256
"""Captions compared at a time."""
NAN_MARGIN = 1e6
"""A margin in place of NaN: a member with NaN similarities must not win."""


@dataclass(frozen=True, eq=False)
class TargetDraw:
    """How captions and wrong motions are drawn where a gallery stands in for a test.

    caption_weight: (C,) of the captions; wrong_weight: (P,) of each contested pair's wrong motion;
    above: (C,) weight of the wrong motions that all members score above the right one; total: (C,)
    of all wrong motions.
    """

    caption_weight: np.ndarray
    wrong_weight: np.ndarray
    above: np.ndarray
    total: np.ndarray


@dataclass(frozen=True, eq=False)
class ContestedPairs:
    """The pairs of a caption and a wrong motion that weights decide, in one gallery.

    The gallery has C captions and M motions. Weights are not negative: a wrong motion that all
    members score above the right one stays above it, one that all score below stays below. Only the
    other pairs, P in all, are kept, by caption. n_above: (C,) wrong motions above the right one in
    all members; offsets: (C + 1,) where each caption's pairs begin; margin: (members, P) by how
    much the wrong motion scores above the right one; motion_idx: (C,) right motion of each caption;
    group: (M,) groups of the motions, for standard errors; size: as in `GalleryRanks`; target: how
    captions and wrong motions are drawn, None: all alike.
    """

    n_above: np.ndarray
    offsets: np.ndarray
    margin: np.ndarray
    motion_idx: np.ndarray
    group: np.ndarray
    size: np.ndarray | None = None
    target: TargetDraw | None = None

    @classmethod
    def of(
        cls,
        similarities: Sequence[np.ndarray],
        motion_idx: np.ndarray,
        group: np.ndarray,
        compared: np.ndarray | None = None,
        caption_weight: np.ndarray | None = None,
    ) -> "ContestedPairs":
        """From each member's similarities (C, M), which are on one scale. compared: (C, M) pairs
        that count; None: all. caption_weight: (C,) by which captions are drawn, and wrong motions
        by the sum of their captions'; None: all alike."""
        n_above, counts, margins = [], [], []
        draws = _TargetDraws(motion_idx, len(group), caption_weight)
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
            is_drawn = np.ones_like(above) if compared is None else compared[captions]
            draws.add(right, is_drawn, above, contested)
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
            draws.target(),
        )

    def motion_values(self, weights: np.ndarray) -> np.ndarray:
        """Expected score (M,) of each motion under these weights (members,), the mean over its
        captions; with a target times the weight by which the motion is drawn."""
        if self.target is None:
            return self.ranks(weights).values()
        margin, target = weights.astype(np.float32) @ self.margin, self.target
        total = np.maximum(target.total, np.finfo(float).tiny)
        better = np.clip((target.above + self._weight_by_caption(margin > 0)) / total, 0, 1)
        tied = np.clip(self._weight_by_caption(margin == 0) / total, 0, 1 - better)
        pool = min(POOL_SIZE, len(self.group))
        values = target.caption_weight * caption_shift.drawn_pool_score(better, tied, pool)
        return np.bincount(self.motion_idx, weights=values, minlength=len(self.group))

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
        n_above, target = self.n_above + self._count_by_caption(above), self.target
        if target is not None:
            target = replace(
                target,
                wrong_weight=target.wrong_weight[contested],
                above=target.above + self._weight_by_caption(above),
            )
        margin = margin[:, contested]
        return replace(self, n_above=n_above, offsets=offsets, margin=margin, target=target)

    def _count_by_caption(self, mask: np.ndarray) -> np.ndarray:
        """(C,) how many of each caption's pairs are set in a mask (P,)."""
        return np.diff(np.searchsorted(np.flatnonzero(mask), self.offsets))

    def _weight_by_caption(self, mask: np.ndarray) -> np.ndarray:
        """(C,) weight of the wrong motions of each caption's pairs that are set in a mask (P,)."""
        assert self.target is not None
        total = np.concatenate([[0.0], np.where(mask, self.target.wrong_weight, 0.0).cumsum()])
        return np.diff(total[self.offsets])


class _TargetDraws:
    """Collects the target of contested pairs, some captions at a time."""

    def __init__(self, motion_idx: np.ndarray, motions: int, caption_weight: np.ndarray | None):
        self.caption_weight = caption_weight
        if caption_weight is not None:
            self.motion_weight = np.bincount(motion_idx, caption_weight, minlength=motions)
        self.parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(
        self, right: np.ndarray, is_drawn: np.ndarray, above: np.ndarray, contested: np.ndarray
    ) -> None:
        """The next captions (c,) and their right motions; the others: masks (c, M)."""
        if self.caption_weight is None:
            return
        weight = self.motion_weight
        wrong_weight = np.broadcast_to(weight, contested.shape)[contested]
        self.parts.append((wrong_weight, above @ weight, is_drawn @ weight - weight[right]))

    def target(self) -> TargetDraw | None:
        """That of all captions so far."""
        if self.caption_weight is None:
            return None
        arrays = (np.concatenate(parts) for parts in zip(*self.parts, strict=True))
        return TargetDraw(self.caption_weight, *arrays)


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
        on the others; with one gallery alone, on that gallery. Under a target the search decides:
        few captions are like those of a test, and an error as large as theirs would keep members
        that such a test does not bear.
        """
        weights = self.search(tuple(folds))
        if self.pairs[folds[0]].target is not None:
            return weights
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
    gains = motion_values(pairs, weights) - motion_values(pairs, baseline)
    groups = np.concatenate([gallery_pairs.group for gallery_pairs in pairs])
    gain = metrics.cluster_robust_mean(gains, groups)
    return gain.mean > gain.error


def motion_values(pairs: Sequence[ContestedPairs], weights: Sequence[np.ndarray]) -> np.ndarray:
    """(M,) of the motions of several galleries under the weights (members,) of each: what they add
    to the mean, which is the local score, or that of captions and motions drawn by target."""
    values = np.concatenate(
        [
            gallery_pairs.motion_values(of_gallery)
            for gallery_pairs, of_gallery in zip(pairs, weights, strict=True)
        ]
    )
    totals = [each.target.caption_weight.sum() for each in pairs if each.target is not None]
    return values * (len(values) / sum(totals)) if totals else values


def mean_score(pairs: Sequence[ContestedPairs], weights: np.ndarray) -> float:
    """The score over these galleries under some weights, which the search maximises."""
    return float(motion_values(pairs, [weights] * len(pairs)).mean())


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
