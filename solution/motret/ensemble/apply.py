"""A fitted ensemble applied to the test: similarities by each member, and by their mixture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from motret.data.dataset import TestData
from motret.ensemble import galleries, query_bank
from motret.ensemble.external import ExternalMember, FixedWeightMember
from motret.ensemble.fit import FittedEnsemble
from motret.ensemble.galleries import GalleryEmbeddings
from motret.ensemble.predict import AnyMember, TestPrediction
from motret.evaluation.confidence import TestPools, pad_pools

Similarities = list[np.ndarray]
"""Of each query to its own candidates, (n_candidates,) each."""


@dataclass(frozen=True, eq=False)
class TestSimilarities:
    """members: of each member, and then of each with a given weight; ensemble: of the ensemble.

    networks: of each model of the best member, none where it has but one; best_member_tta: of the
    best member in the ensemble's views, None where the ensemble has no views or the member no
    weight.
    """

    members: tuple[Similarities, ...]
    networks: tuple[Similarities, ...]
    best_member_tta: Similarities | None
    ensemble: Similarities


def apply_ensemble(
    ensemble: FittedEnsemble,
    predictions: Sequence[TestPrediction],
    fixed: Sequence[FixedWeightMember],
    test: TestData,
) -> TestSimilarities:
    """Similarities of each query to its candidates; those that cannot be used come last.

    predictions: of each member; fixed: members with a given weight.
    """
    best = predictions[ensemble.best_member_idx]
    of_fixed = [member.standardized_similarities() for member in fixed]
    plain = [_member_similarities(prediction, test, with_views=False) for prediction in predictions]
    weights = [1 - sum(member.weight for member in fixed), *(member.weight for member in fixed)]
    networks = best if isinstance(best, list) and len(best) > 1 else []
    tta = None if ensemble.best_member_tta_ranks is None else _member_similarities(best, test)
    return TestSimilarities(
        tuple(rank_unusable_last(similarities, test) for similarities in [*plain, *of_fixed]),
        tuple(
            rank_unusable_last(_member_similarities([network], test, with_views=False), test)
            for network in networks
        ),
        None if tta is None else rank_unusable_last(tta, test),
        rank_unusable_last(
            _weighted_mean([_mixture(ensemble, predictions, test), *of_fixed], weights), test
        ),
    )


def test_pools(
    ensemble: FittedEnsemble,
    members: Sequence[AnyMember],
    predictions: Sequence[TestPrediction],
    similarities: Similarities,
    test: TestData,
) -> TestPools:
    """The test as the networks of each scored fold alone rank it, and as the ensemble does.

    similarities: the ensemble's. Those of a fold are in the ensemble's views and by its weights,
    without the query bank, as out of fold.
    """
    by_fold = [
        _fold_similarities(ensemble, members, predictions, fold, test) for fold in ensemble.folds
    ]
    return TestPools(tuple(map(pad_pools, by_fold)), pad_pools(similarities))


def _fold_similarities(
    ensemble: FittedEnsemble,
    members: Sequence[AnyMember],
    predictions: Sequence[TestPrediction],
    fold: int,
    test: TestData,
) -> Similarities:
    """A member that has no network of the fold for the test takes its first one."""
    of_fold: list[TestPrediction] = []
    for member, prediction in zip(members, predictions, strict=True):
        if isinstance(prediction, ExternalMember) or isinstance(member, ExternalMember):
            of_fold.append(prediction)
            continue
        network_folds = [of_network for _, of_network in member.models]
        network_idx = network_folds.index(fold) if fold in network_folds else 0
        of_fold.append([prediction[network_idx]])
    without_bank = replace(ensemble, beta=None)
    return rank_unusable_last(_mixture(without_bank, of_fold, test), test)


def _mixture(
    ensemble: FittedEnsemble, predictions: Sequence[TestPrediction], test: TestData
) -> Similarities:
    """The members by their fitted weights; models are normalised by the query bank if there is a
    beta."""
    if ensemble.beta is None:
        return _weighted_mean(
            [_member_similarities(prediction, test) for prediction in predictions], ensemble.weights
        )
    models = {
        idx: prediction
        for idx, prediction in enumerate(predictions)
        if isinstance(prediction, list) and ensemble.weights[idx]
    }

    def mixed(similarity: Callable[[GalleryEmbeddings], np.ndarray]) -> np.ndarray:
        scores = {idx: _mean([similarity(model) for model in models[idx]]) for idx in models}
        return galleries.mix(ensemble.weights, scores)

    bank = query_bank.build_query_bank(
        lambda motions: mixed(lambda model: model.bank_similarity(motions)),
        len(test.store.ids),
        (ensemble.beta,),
    )
    queries = mixed(lambda model: model.query_similarity())
    normalized = _of_candidates(bank.normalize(queries, ensemble.beta), test)
    external = [
        (prediction.standardized_similarities(), ensemble.weights[idx])
        for idx, prediction in enumerate(predictions)
        if isinstance(prediction, ExternalMember) and ensemble.weights[idx]
    ]
    parts = [(normalized, 1.0), *external]
    return _weighted_mean([scores for scores, _ in parts], [weight for _, weight in parts])


def _member_similarities(
    prediction: TestPrediction, test: TestData, with_views: bool = True
) -> Similarities:
    """A member's similarities, the mean over its models."""
    if isinstance(prediction, ExternalMember):
        return prediction.standardized_similarities()
    models = prediction if with_views else [model.without_views() for model in prediction]
    return _of_candidates(_mean([model.query_similarity() for model in models]), test)


def _mean(similarities: Sequence[np.ndarray]) -> np.ndarray:
    return np.asarray(np.mean(similarities, axis=0))


def _of_candidates(similarity: np.ndarray, test: TestData) -> Similarities:
    """Each query's similarities to its candidates, from those to the whole gallery (Q, G)."""
    return [
        scores[candidates].astype(np.float64)
        for scores, candidates in zip(similarity, test.candidate_idx, strict=True)
    ]


def _weighted_mean(
    similarities: Sequence[Similarities], weights: Sequence[float] | np.ndarray
) -> Similarities:
    return [
        reduce(np.add, (weight * scores for weight, scores in zip(weights, of_query, strict=True)))
        for of_query in zip(*similarities, strict=True)
    ]


def rank_unusable_last(similarities: Similarities, test: TestData) -> Similarities:
    """Candidates that cannot be used get a similarity below all others of their query."""
    ranked = []
    for scores, candidates in zip(similarities, test.candidate_idx, strict=True):
        usable = candidates >= 0
        low = scores[usable].min() if usable.any() else 0.0
        ranked.append(np.where(usable, scores, low - 1))
    return ranked
