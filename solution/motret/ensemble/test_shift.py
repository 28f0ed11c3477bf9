"""Whether the test is like what was held out, and the score to expect of an ensemble there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motret.data.dataset import TrainingData
from motret.data.folds import Folds
from motret.ensemble.fit import FittedEnsemble
from motret.ensemble.galleries import OofGalleries
from motret.evaluation import caption_shift, confidence, slices
from motret.evaluation.caption_shift import CaptionShift
from motret.evaluation.confidence import TestPools
from motret.evaluation.metrics import Score
from motret.evaluation.motion_shift import MotionShift
from motret.evaluation.slices import HeldOutCaptions
from motret.formats.queries import Query


@dataclass(frozen=True, eq=False)
class MatchedCaptions:
    """The held-out captions (C,) of all folds, and weights (C,) with which they are as far from the
    training captions as the test's are."""

    shift: CaptionShift
    held_out: HeldOutCaptions
    weights: np.ndarray

    def weights_by_fold(self) -> dict[int, np.ndarray]:
        """Fold -> weights of the captions that it holds out."""
        fold = self.held_out.fold
        return {number: self.weights[fold == number] for number in np.unique(fold).tolist()}


def match_captions(
    queries: Sequence[Query],
    galleries: OofGalleries,
    data: TrainingData,
    folds: Folds,
    only_fold: int | None,
) -> MatchedCaptions:
    """The captions of held-out galleries, matched with those of the test's queries.

    only_fold: the one whose models alone rank the test, which is then compared with what these
    were trained on.
    """
    captions = data.training.captions
    first = tuple(np.eye(len(galleries.names))[0])
    ranks = {fold: each.mixture_ranks([first])[first] for fold, each in galleries.folds.items()}
    data_idx = {fold: folds.val_idx(fold) for fold in ranks}
    held_out = HeldOutCaptions.of(ranks, data_idx, captions)
    distance = slices.distance_to_other_folds(held_out, captions, folds)
    trained_idx = range(len(captions)) if only_fold is None else folds.train_idx(only_fold)
    shift = caption_shift.measure_shift(
        [caption for query in queries for caption in query.captions],
        distance,
        [captions[index] for index in trained_idx],
    )
    return MatchedCaptions(shift, held_out, caption_shift.matched_weights(shift, held_out))


@dataclass(frozen=True, eq=False)
class TestShift:
    """captions, motions: whether those of the test are like the held-out ones; far: the score of
    held-out captions and candidates that are as far as the test's captions, by one network a fold
    in the ensemble's views and without its query bank; expected: the score to expect of the
    submission.
    """

    captions: CaptionShift
    motions: MotionShift
    far: Score
    expected: Score

    @property
    def is_unlike(self) -> bool:
        """Whether the captions or the motions of the test are unlike the training's."""
        return self.captions.is_unlike or self.motions.is_unlike

    def lines(self, has_target: bool, from_tokens: Sequence[str]) -> list[str]:
        """For a terminal. has_target: whether weights were fitted on captions as far as the test's;
        from_tokens: names of members that are made by rerank.py."""
        lines = [self.captions.line(lambda: self.far), self.motions.line()]
        if has_target:
            lines.append("weights fitted on held-out captions that are as far as the test's")
        lines.append(f"by how sure the models are of the test's candidates, expect {self.expected}")
        if from_tokens and self.is_unlike and not has_target:
            lines.append(
                f"warning: leave {' and '.join(from_tokens)} out: on such a test, what is learned "
                "from motion tokens loses more than held-out motions can tell (docs/usage.md)"
            )
        return lines


def measure_test_shift(
    matched: MatchedCaptions,
    motions: MotionShift,
    ensemble: FittedEnsemble,
    galleries: OofGalleries,
    pools: TestPools,
    seed: int,
) -> TestShift:
    """That of a fitted ensemble. pools: the test as it ranks it."""

    def similarity(fold: int) -> np.ndarray:
        return galleries.folds[fold].compared_similarity(tuple(ensemble.weights), ensemble.views)

    held_out, weights = matched.held_out, matched.weights
    far = caption_shift.matched_score(similarity, held_out, weights)
    expected = confidence.expected_test_score(similarity, held_out, weights, far, pools, seed)
    return TestShift(matched.shift, motions, far, expected)
