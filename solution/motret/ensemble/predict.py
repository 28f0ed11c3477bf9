"""Predictions of an ensemble's members, kept as arrays.

Before the fit: the held-out galleries, plain as training kept them, then in views and with a query
bank. After it: the test, in the views that the ensemble takes, with a query bank if it takes one.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from motret.config.scripts import EnsembleConfig
from motret.data import dataset
from motret.data.dataset import TestData, TrainingData
from motret.data.features import FeatureConfig
from motret.data.folds import Folds
from motret.ensemble import fit, tta
from motret.ensemble.external import ExternalMember
from motret.ensemble.fit import FittedEnsemble, FittedWeights
from motret.ensemble.galleries import FoldGallery, GalleryEmbeddings, OofGalleries
from motret.ensemble.inference import Encoder, distinct_captions
from motret.ensemble.members import Member, common_folds
from motret.errors import ConfigError
from motret.formats.challenge import POOL_SIZE

logger = logging.getLogger(__name__)

AnyMember = Member | ExternalMember
TestPrediction = list[GalleryEmbeddings] | ExternalMember
"""The test by a member: embeddings by each of its models, or the similarities in its file."""


def load_galleries(members: Sequence[AnyMember], data: TrainingData, folds: Folds) -> OofGalleries:
    """The held-out galleries of the folds that all members have, as training embedded them.

    No model is asked. ConfigError where members have scored other pairs than each other, and too
    few the same.
    """
    galleries = {
        fold: FoldGallery(
            *held_out_captions(data, folds, fold), tuple(member.gallery(fold) for member in members)
        )
        for fold in common_folds(members, folds.count)
    }
    n_compared = {
        int(count)
        for gallery in galleries.values()
        if gallery.compared is not None
        for count in gallery.compared.sum(axis=1)
    }
    if n_compared and min(n_compared) < POOL_SIZE:
        problem = f"some captions are scored with {min(n_compared)} motions by all of them"
        fix = "make them with the same --seed and --gallery of rerank.py"
        raise ConfigError("--members", problem, fix)
    if n_compared:
        logger.info(f"out of fold each caption is ranked among {_range(n_compared)} motions")
    return OofGalleries(tuple(member.name for member in members), galleries)


def _range(numbers: Collection[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def held_out_captions(data: TrainingData, folds: Folds, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the motions that a fold holds out: (C,) motion of each caption, and (M,) groups."""
    val_idx = folds.val_idx(fold)
    counts = [len(data.training.captions[motion_idx]) for motion_idx in val_idx]
    return np.repeat(np.arange(len(val_idx)), counts), folds.group[val_idx]


def predict_out_of_fold(
    members: Sequence[AnyMember],
    galleries: OofGalleries,
    weights: FittedWeights,
    data: TrainingData,
    folds: Folds,
    config: EnsembleConfig,
    encoder: Encoder,
) -> tuple[list[AnyMember], OofGalleries]:
    """The members and the galleries with those views and query banks that the fit may take.

    galleries: plain, of these members. Members without a weight are not asked. The query bank of a
    fold holds what its model was trained on: the captions of the other folds. One of the test's
    queries is stood in for by the first caption of each motion that the fold holds out.
    """
    members, data_of = _ask_for_views(members, weights, data, config)
    in_bank = fit.bank_members(galleries, weights, config)
    by_fold = {fold: list(gallery.members) for fold, gallery in galleries.folds.items()}
    for idx, member in enumerate(members):
        if not isinstance(member, Member) or not (member.views or in_bank[idx]):
            continue
        features_data = data_of.get(member.features, data)
        for fold in member.folds:
            needs_bank = in_bank[idx] and fold in by_fold
            of_training = needs_bank and config.query_bank == "auto"
            captions = _training_captions(data, folds, fold) if of_training else None
            bank = encoder.predict_held_out(member, fold, features_data, folds, captions)
            if fold not in by_fold:
                continue
            gallery = member.gallery(fold)
            if needs_bank and not of_training:
                first_caption = np.unique(galleries.folds[fold].motion_idx, return_index=True)[1]
                bank = gallery.caption_bank(first_caption)
            by_fold[fold][idx] = replace(gallery, bank=bank)
    predicted = {
        fold: replace(gallery, members=tuple(by_fold[fold]))
        for fold, gallery in galleries.folds.items()
    }
    return members, replace(galleries, folds=predicted)


def with_member_views(
    members: Sequence[Member], data_of: Mapping[FeatureConfig, TrainingData], config: EnsembleConfig
) -> list[Member]:
    """The members with those of the requested views that they have.

    data_of: the training motions by a member's features. ConfigError where a view is named that no
    member has.
    """
    kinds, named = fit.requested_view_kinds(config), fit.views_are_named(config)
    mirrors = {
        features: tta.mirror_views(data, named) if "mirror" in kinds else ()
        for features, data in data_of.items()
    }
    with_views = []
    for member in members:
        run = next(iter(member.folds.values()))
        views = {
            "mirror": mirrors[member.features],
            "speed": tta.speed_views(),
            "swap": tta.swap_views(run),
        }
        with_views.append(
            replace(member, views={kind: views[kind] for kind in kinds if views[kind]})
        )
    available = {kind for member in with_views for kind in member.views}
    if named and (missing := [kind for kind in kinds if kind not in available]):
        raise ConfigError(tta.FLAG, f"no member has the view {missing[0]}", "leave it out")
    return with_views


def predict_test(
    members: Sequence[AnyMember],
    ensemble: FittedEnsemble,
    tests: Mapping[FeatureConfig, TestData],
    encoder: Encoder,
) -> list[TestPrediction]:
    """The test as each member of the fitted ensemble predicts it.

    tests: the queries, by the features that models take. Members without a weight are asked
    without views, for the table of scores.
    """
    predictions: list[TestPrediction] = []
    for member, weight in zip(members, ensemble.weights, strict=True):
        if isinstance(member, ExternalMember):
            predictions.append(member)
            continue
        in_views = member.with_views(ensemble.views if weight else ())
        with_bank = bool(weight) and ensemble.beta is not None
        of_training = with_bank and not ensemble.bank_of_queries
        embeddings = encoder.predict_test(in_views, tests[member.features], of_training)
        if with_bank and ensemble.bank_of_queries:
            embeddings = [replace(model, bank=model.query) for model in embeddings]
        predictions.append(embeddings)
    return predictions


def _ask_for_views(
    members: Sequence[AnyMember], weights: FittedWeights, data: TrainingData, config: EnsembleConfig
) -> tuple[list[AnyMember], dict[FeatureConfig, TrainingData]]:
    """The members with their views, if they are tried, and the training motions by features."""
    if not fit.tries_views(weights, config):
        return list(members), {}
    used = {
        idx: member
        for idx, member in enumerate(members)
        if weights.used[idx] and isinstance(member, Member)
    }
    jobs = config.machine.jobs
    data_of = {
        features: dataset.with_features(data, features, config.data, jobs)
        for features in {member.features for member in used.values()}
    }
    with_views = dict(
        zip(used, with_member_views(list(used.values()), data_of, config), strict=True)
    )
    return [with_views.get(idx, member) for idx, member in enumerate(members)], data_of


def _training_captions(data: TrainingData, folds: Folds, fold: int) -> list[str]:
    """The captions that a fold's model was trained on, each once."""
    return distinct_captions(
        [data.training.captions[motion_idx] for motion_idx in folds.train_idx(fold)]
    )
