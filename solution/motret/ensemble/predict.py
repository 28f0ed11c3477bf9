"""The members' similarities of queries and candidates, one by one and blended as the ensemble was fitted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from motret.data import dataset
from motret.data.dataset import TestData
from motret.data.features import FeatureConfig
from motret.ensemble import inference, query_bank
from motret.ensemble.external import ExternalPredictions
from motret.ensemble.fit import FittedEnsemble
from motret.ensemble.inference import Encoder, GalleryEmbeddings
from motret.ensemble.members import ExternalMember, Member
from motret.evaluation.z_score import ZScore

Similarities = list[np.ndarray]
"""Of each query to its own candidates, (n_candidates,) each."""


@dataclass(frozen=True)
class TestPredictions:
    """alone: of each member, and then of each file that was given its weight; networks: of each model of the best member, where it has
    several; viewed: of the best member in the ensemble's views, None where the ensemble has none of it; together: of the ensemble."""

    alone: tuple[Similarities, ...]
    networks: tuple[Similarities, ...]
    viewed: Similarities | None
    together: Similarities


def predict(
    fusion: FittedEnsemble, fixed: Sequence[tuple[ExternalPredictions, float]], tests: Mapping[FeatureConfig, TestData], encoder: Encoder
) -> TestPredictions:
    """Asks all models. fixed: foreign members with the share of the mean each is given; tests: the queries, by the models' features."""
    test = next(iter(tests.values()))
    for member in fusion.members:
        if isinstance(member, Member):
            dataset.check_persons(test.store, member.models[0][0].persons, test.queries[0].paths[0].parent)
    bank_too = fusion.beta is not None
    told = [encoder.test(member, tests[member.features], bank_too) if isinstance(member, Member) else member for member in fusion.members]
    plain = [inference.without_views(one, own) if isinstance(own, Member) else one for one, own in zip(told, fusion.members, strict=True)]
    files = [_file_similarities(one.similarities) for one, _ in fixed]
    own = (
        _weighted_mean([_member_similarities(one, test) for one in told], fusion.weights)
        if fusion.beta is None
        else _bank_normalised(told, fusion, test)
    )
    shares = [share for _, share in fixed]
    together = _weighted_mean([own, *files], [1 - sum(shares), *shares])
    best = plain[fusion.best()]
    networks = () if isinstance(best, ExternalMember) or len(best) < 2 else tuple(_member_similarities([one], test) for one in best)
    viewed = None if fusion.viewed is None else _member_similarities(told[fusion.best()], test)
    alone = (*(_member_similarities(one, test) for one in plain), *files)
    return TestPredictions(
        tuple(_rank_unusable_last(one, test) for one in alone),
        tuple(_rank_unusable_last(one, test) for one in networks),
        None if viewed is None else _rank_unusable_last(viewed, test),
        _rank_unusable_last(together, test),
    )


def _rank_unusable_last(similarities: Similarities, test: TestData) -> Similarities:
    """The similarities with candidates that cannot be used below all others of their query, whoever speaks of them."""
    found = []
    for own, rows in zip(similarities, test.candidate_idx, strict=True):
        low = own[rows >= 0].min() if (rows >= 0).any() else 0.0
        found.append(np.where(rows >= 0, own, low - 1))
    return found


def _weighted_mean(parts: Sequence[Similarities], weights: Sequence[float] | np.ndarray) -> Similarities:
    return [sum(weight * one for weight, one in zip(weights, own, strict=True)) for own in zip(*parts[: len(weights)], strict=True)]


def _member_similarities(told: list[GalleryEmbeddings] | ExternalMember, test: TestData) -> Similarities:
    if isinstance(told, ExternalMember):
        scale = ZScore.mean_of([ZScore.of(told.similarity(fold)) for fold in told.folds])
        return [scale(similarity) for similarity in told.told.similarities]
    whole = inference.mean_similarity(told, "query", slice(None))
    return [own[rows].astype(np.float64) for own, rows in zip(whole, test.candidate_idx, strict=True)]


def _file_similarities(similarities: Sequence[np.ndarray]) -> Similarities:
    """By mean and deviation over all pairs of the file, which has no gallery of held-out motions."""
    scale = ZScore.of(np.concatenate(similarities))
    return [scale(similarity) for similarity in similarities]


def _bank_normalised(told: Sequence[list[GalleryEmbeddings]], fusion: FittedEnsemble, test: TestData) -> Similarities:
    used = [(weight, own) for weight, own in zip(fusion.weights, told, strict=True) if weight]

    def mixed(which: str, columns: slice) -> np.ndarray:
        return sum(weight * inference.mean_similarity(own, which, columns) for weight, own in used)

    said = query_bank.build_query_bank(lambda columns: mixed("bank", columns), len(test.store.ids), (fusion.beta,))
    whole = said.normalise(mixed("query", slice(None)), fusion.beta)
    return [own[rows].astype(np.float64) for own, rows in zip(whole, test.candidate_idx, strict=True)]
