"""The local score by what captions are like, so that one sees where points are lost.

A slice is a subset of the held-out captions. Each caption still ranks the whole gallery of its
fold, and its score is the closed form of `metrics.expected_score`. Captions of one motion are
averaged, then motions, as in the local score.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from motret.data.caption_distance import WordDistance
from motret.data.captions import names_both_persons, normalize
from motret.data.dataset import TrainingData
from motret.data.folds import Folds
from motret.evaluation import metrics
from motret.evaluation.gallery_ranks import GalleryRanks
from motret.evaluation.metrics import Score
from motret.formats.challenge import TrainingSet

MAX_SOURCES = 12
"""More prefixes of groups than this are no sources."""
MIN_BLOCK_SIZE = 10
"""Motions of a group, on average, from which on groups are compared with each other."""


@dataclass(frozen=True, eq=False)
class HeldOutCaptions:
    """The captions of the motions that folds hold out, with their scores.

    texts, score, fold: (C,) of each caption: its text, its expected score, the fold that holds it
    out. motion_idx, data_idx, group: (C,) of its motion: the index in the fold's gallery, the index
    in the training data, the group. Captions of one fold are together, in the gallery's order.
    """

    texts: tuple[str, ...]
    score: np.ndarray
    fold: np.ndarray
    motion_idx: np.ndarray
    data_idx: np.ndarray
    group: np.ndarray

    @classmethod
    def of(
        cls,
        galleries: Mapping[int, GalleryRanks],
        data_idx: Mapping[int, np.ndarray],
        captions: Sequence[Sequence[str]],
    ) -> "HeldOutCaptions":
        """From fold -> its gallery, and fold -> (M,) indices of its motions in the training data.

        captions: of each training motion. Those of a gallery are in the order of its motions.
        """
        parts: list[tuple[np.ndarray, ...]] = []
        texts: list[str] = []
        for fold, ranks in galleries.items():
            motions = data_idx[fold]
            texts += [caption for motion in motions for caption in captions[motion]]
            counts = [len(captions[motion]) for motion in motions]
            if not np.array_equal(ranks.motion_idx, np.repeat(np.arange(len(motions)), counts)):
                raise ValueError(f"fold {fold}: its captions are not those of its motions in order")
            folds = np.full(len(ranks.motion_idx), fold)
            of_motion = motions[ranks.motion_idx], ranks.group[ranks.motion_idx]
            parts.append((ranks.caption_values(), folds, ranks.motion_idx, *of_motion))
        return cls(tuple(texts), *(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def mean_by_motion(self, member: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean score of each motion over those of its captions that are members, for motions with
        any: motions, their scores, their groups. member: (C,) of bool."""
        motions, first, index = np.unique(
            self.data_idx[member], return_index=True, return_inverse=True
        )
        means = np.bincount(index, weights=self.score[member]) / np.bincount(index)
        return motions, means, self.group[member][first]


@dataclass(frozen=True, eq=False)
class Slicing:
    """A way to divide captions: label_idx: (C,) which of the labels each has."""

    name: str
    labels: tuple[str, ...]
    label_idx: np.ndarray


@dataclass(frozen=True)
class SliceScore:
    """The local score of one slice, and its difference to all other captions.

    captions: how many are in it; to_rest: None where there are no others.
    """

    name: str
    label: str
    captions: int
    score: Score
    to_rest: Score | None

    def cells(self) -> list[str]:
        """Name, captions, motions, score, difference."""
        to_rest = f"{self.to_rest.mean:+.4f} +- {self.to_rest.error:.4f}" if self.to_rest else ""
        counts = [str(self.captions), str(self.score.motions)]
        return [f"{self.name}: {self.label}", *counts, str(self.score), to_rest]


HEADER = ("slice", "captions", "motions", "score", "to the rest")
"""Of the table of `SliceScore.cells`."""


# ---- scores


def score_slices(held_out: HeldOutCaptions, slicings: Sequence[Slicing]) -> list[SliceScore]:
    """The score of each slice that has a caption, in the order of the labels."""
    return [
        _score_slice(held_out, slicing.name, label, slicing.label_idx == index)
        for slicing in slicings
        for index, label in enumerate(slicing.labels)
        if np.any(slicing.label_idx == index)
    ]


def _score_slice(
    held_out: HeldOutCaptions, name: str, label: str, member: np.ndarray
) -> SliceScore:
    _, values, group = held_out.mean_by_motion(member)
    score = metrics.cluster_robust_mean(values, group)
    difference = None if member.all() else difference_to_rest(held_out, member)
    return SliceScore(name, label, int(member.sum()), score, difference)


def difference_to_rest(held_out: HeldOutCaptions, member: np.ndarray) -> Score:
    """Score of the captions that are members minus that of the others, and its standard error.

    member: (C,) of bool, neither all nor none. The error is clustered by group, and of a motion
    with captions on both sides the common part cancels.
    """
    size = int(held_out.data_idx.max()) + 1
    influence, group = np.zeros(size), np.empty(size, dtype=held_out.group.dtype)
    means = []
    for side, sign in ((member, 1), (~member, -1)):
        motions, values, groups = held_out.mean_by_motion(side)
        means.append(sign * float(values.mean()))
        influence[motions] += sign * (values - values.mean()) / len(values)
        group[motions] = groups
    motions = np.unique(held_out.data_idx)
    error = metrics.cluster_robust_error(influence[motions], group[motions])
    return Score(sum(means), error, len(motions), len(np.unique(group[motions])))


# ---- slices


def slice_captions(
    held_out: HeldOutCaptions, distance: WordDistance, data: TrainingData, folds: Folds
) -> list[SliceScore]:
    """The score of each slice of the held-out captions.

    distance: of each caption to those of the other folds.
    """
    seconds = data.store.lengths / data.store.config.fps
    sources = motion_sources(data.training, folds)
    return score_slices(held_out, make_slicings(held_out, distance, seconds, sources))


def make_slicings(
    held_out: HeldOutCaptions,
    distance: WordDistance,
    seconds: np.ndarray,
    sources: np.ndarray | None = None,
) -> list[Slicing]:
    """All ways in which the held-out captions are divided, but for those that put all into one.

    distance: of each caption to those of the other folds; seconds, sources: (M,) length
    and source of each training motion.
    """
    slicings = [
        slice_by_persons(held_out.texts),
        slice_in_thirds("words in the caption", distance.n_words, 0),
        slice_by_count("words unseen in the other folds", distance.unseen, (0, 1)),
        slice_in_thirds("distance to the other folds' captions", distance.distance, 2),
        slice_by_count("other motions told the same", count_same(held_out), (0, 2)),
        slice_in_thirds("seconds of motion", seconds[held_out.data_idx], 1),
    ]
    if sources is not None:
        labels, label_idx = np.unique(sources[held_out.data_idx], return_inverse=True)
        slicings.append(Slicing("source", tuple(labels.tolist()), label_idx))
    return [slicing for slicing in slicings if len(np.unique(slicing.label_idx)) > 1]


def slice_by_persons(texts: Sequence[str]) -> Slicing:
    """Whether a caption says what one person does, or both (`captions.names_both_persons`)."""
    both = np.array([names_both_persons(text) for text in texts], dtype=int)
    return Slicing("persons named", ("one", "both"), both)


def slice_in_thirds(name: str, values: np.ndarray, digits: int) -> Slicing:
    """Thirds of the captions by a value (C,), shown with some digits. Equal values stay together.

    The limits are the terciles, rounded to these digits, so there may be fewer than three.
    """
    rounded = np.round(values, digits)
    limits = np.unique(np.round(np.quantile(rounded, (1 / 3, 2 / 3)), digits))
    limits = limits[limits < rounded.max()]
    label_idx = np.searchsorted(limits, rounded, side="left")
    ends = [f"{limit:.{digits}f}" for limit in limits]
    labels = [f"up to {ends[0]}"] if ends else ["all"]
    labels += [f"over {low}, up to {high}" for low, high in pairwise(ends)]
    labels += [f"over {ends[-1]}"] if ends else []
    return Slicing(name, tuple(labels), label_idx)


def slice_by_count(name: str, counts: np.ndarray, limits: tuple[int, int]) -> Slicing:
    """Three slices by a whole number (C,): up to the first limit, up to the second, more."""
    low, high = limits
    between = str(high) if high == low + 1 else f"{low + 1} to {high}"
    labels = (str(low) if low == 0 else f"up to {low}", between, f"{high + 1} or more")
    return Slicing(name, labels, np.searchsorted(np.array(limits), counts, side="left"))


def count_same(held_out: HeldOutCaptions) -> np.ndarray:
    """How many other motions of its fold have a caption that says the same: (C,).

    A text cannot tell such motions apart.
    """
    forms = [normalize(text) for text in held_out.texts]
    motions = {
        (fold, form, motion)
        for fold, form, motion in zip(
            held_out.fold.tolist(), forms, held_out.data_idx.tolist(), strict=True
        )
    }
    counts = Counter((fold, form) for fold, form, _ in motions)
    return np.array(
        [counts[key] - 1 for key in zip(held_out.fold.tolist(), forms, strict=True)], dtype=int
    )


def distance_to_other_folds(
    held_out: HeldOutCaptions, captions: Sequence[Sequence[str]], folds: Folds
) -> WordDistance:
    """How far each held-out caption is from those that the model of its fold was trained on.

    captions: of each training motion.
    """
    unseen, n_words, distance = (np.zeros(len(held_out.texts)) for _ in range(3))
    for fold in np.unique(held_out.fold).tolist():
        caption_idx = np.flatnonzero(held_out.fold == fold)
        texts = [held_out.texts[index] for index in caption_idx]
        references = [text for motion in folds.train_idx(fold) for text in captions[motion]]
        of_fold = WordDistance.of(texts, references)
        unseen[caption_idx], n_words[caption_idx] = of_fold.unseen, of_fold.n_words
        distance[caption_idx] = of_fold.distance
    return WordDistance(unseen, n_words, distance)


def motion_sources(training: TrainingSet, folds: Folds) -> np.ndarray | None:
    """Source (M,) of each training motion, None where the data do not tell.

    That of the column `source` in groups.csv, else by the names of the groups.
    """
    if training.sources is not None:
        return np.array([training.sources[name] for name in training.ids])
    return sources_of_groups(folds.group)


def sources_of_groups(group: np.ndarray) -> np.ndarray | None:
    """Source of each group: what is before the first `:`, `_` or `/` of its name.

    None where some name has no prefix, and where there is one prefix alone or more than
    `MAX_SOURCES`. group: (M,) of str.
    """
    names = [str(name) for name in group]
    ends = [min((name.find(mark) for mark in ":_/" if mark in name), default=0) for name in names]
    sources = np.array([name[:end] for name, end in zip(names, ends, strict=True)])
    n_sources = len(np.unique(sources))
    if min(ends) < 1 or not 1 < n_sources <= MAX_SOURCES:
        return None
    return sources


# ---- spread


@dataclass(frozen=True)
class ScoreSpread:
    """How much the local score differs between blocks of motions.

    unit: what the blocks are: sources, groups or folds; blocks: how many. deviation: standard
    deviation of the blocks' scores beyond what sampling explains. worst_third: score of the third
    of the blocks with the lowest scores.
    """

    unit: str
    blocks: int
    deviation: float
    worst_third: Score

    def line(self) -> str:
        """A line for a terminal."""
        return (
            f"between {self.blocks} {self.unit}: standard deviation {self.deviation:.4f} beyond "
            f"sampling; the worst third of them {self.worst_third}"
        )


def score_spread(
    held_out: HeldOutCaptions, sources: np.ndarray | None = None
) -> ScoreSpread | None:
    """The spread over sources where the data tell them, over large groups, or over folds.

    sources: (M,) of each training motion.
    None where there is one block alone. Groups are large with `MIN_BLOCK_SIZE` motions on average.
    The variance is that of the blocks' scores less the mean of their squared standard errors
    (method of moments), at least 0.
    """
    motions, values, group = held_out.mean_by_motion(np.ones(len(held_out.texts), dtype=bool))
    fold_of = dict(zip(held_out.data_idx.tolist(), held_out.fold.tolist(), strict=True))
    fold = np.array([fold_of[motion] for motion in motions.tolist()])
    unit, block = _choose_blocks(group, fold, None if sources is None else sources[motions])
    names = np.unique(block)
    if len(names) < 2:
        return None
    scores = [
        metrics.cluster_robust_mean(values[block == one], group[block == one]) for one in names
    ]
    means = np.array([score.mean for score in scores])
    noise = np.nanmean([score.error**2 for score in scores])
    deviation = float(np.sqrt(max(0.0, means.var(ddof=1) - noise)))
    worst = names[np.argsort(means, kind="stable")[: max(1, round(len(names) / 3))]]
    is_worst = np.isin(block, worst)
    worst_third = metrics.cluster_robust_mean(values[is_worst], group[is_worst])
    return ScoreSpread(unit, len(names), deviation, worst_third)


def _choose_blocks(
    group: np.ndarray, fold: np.ndarray, sources: np.ndarray | None
) -> tuple[str, np.ndarray]:
    """What blocks of motions are, and the block (M,) of each. group, fold, sources: (M,)."""
    if sources is not None and len(np.unique(sources)) > 1:
        return "sources", sources
    n_groups = len(np.unique(group))
    if n_groups > 2 and len(group) >= MIN_BLOCK_SIZE * n_groups:
        return "groups", group
    return "folds", fold
