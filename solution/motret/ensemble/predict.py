"""Phase one of an ensemble: its members' models are asked, and embeddings are kept as arrays.

Held-out galleries come first, plain from what training kept, then in views and with a query bank.
The test comes when the ensemble is fitted, in the views that the ensemble takes, and with a query
bank only where it takes one.
"""

from collections.abc import Mapping, Sequence
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

AnyMember = Member | ExternalMember
TestPrediction = list[GalleryEmbeddings] | ExternalMember
"""What a member predicts of the test: embeddings by each of its models, or the similarities in its
file.
"""


def load_galleries(members: Sequence[AnyMember], data: TrainingData, folds: Folds) -> OofGalleries:
    """The held-out galleries of the folds that all members have, as training embedded them; no
    model is asked.
    """
    galleries = {
        fold: FoldGallery(
            *held_out_captions(data, folds, fold), tuple(member.gallery(fold) for member in members)
        )
        for fold in common_folds(members, folds.count)
    }
    return OofGalleries(tuple(member.name for member in members), galleries)


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
    """The members with their views, and the galleries with these and with query banks, as far as
    the fit may take them.

    galleries: plain, of these members. Members without a weight are not asked. The query bank of a
    fold holds what its model was trained on: the captions of the other folds.
    """
    data_of: dict[FeatureConfig, TrainingData] = {}
    if fit.tries_views(weights, config):
        used = [
            member
            for member, is_used in zip(members, weights.used, strict=True)
            if is_used and isinstance(member, Member)
        ]
        for features in dict.fromkeys(member.features for member in used):
            data_of[features] = dataset.with_features(
                data, features, config.data, config.machine.jobs
            )
        with_views = iter(with_member_views(used, data_of, config))
        members = [next(with_views) if member in used else member for member in members]
    in_bank = fit.bank_members(galleries, weights, config)
    predicted = {fold: list(gallery.members) for fold, gallery in galleries.folds.items()}
    for member_idx, member in enumerate(members):
        if not isinstance(member, Member) or not (member.views or in_bank[member_idx]):
            continue
        for fold in member.folds:
            captions = (
                _training_captions(data, folds, fold)
                if in_bank[member_idx] and fold in predicted
                else None
            )
            bank = encoder.predict_held_out(
                member, fold, data_of.get(member.features, data), folds, captions
            )
            if fold in predicted:
                predicted[fold][member_idx] = replace(member.gallery(fold), bank=bank)
    by_fold = {
        fold: replace(galleries.folds[fold], members=tuple(of_fold))
        for fold, of_fold in predicted.items()
    }
    return list(members), replace(galleries, folds=by_fold)


def with_member_views(
    members: Sequence[Member], data_of: Mapping[FeatureConfig, TrainingData], config: EnsembleConfig
) -> list[Member]:
    """The members with those of the requested views that they have. data_of: the training motions
    by a member's features.

    ConfigError where a view is named that no member has.
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
    if named and (
        missing := [
            kind for kind in kinds if not any(kind in member.views for member in with_views)
        ]
    ):
        raise ConfigError(tta.FLAG, f"no member has the view {missing[0]}", "leave it out")
    return with_views


def predict_test(
    members: Sequence[AnyMember],
    ensemble: FittedEnsemble,
    tests: Mapping[FeatureConfig, TestData],
    encoder: Encoder,
) -> list[TestPrediction]:
    """The test as each member of the fitted ensemble predicts it. tests: the queries, by the
    features that models take.

    Members without a weight are asked plainly, for the table of scores.
    """
    predictions: list[TestPrediction] = []
    for member, weight in zip(members, ensemble.weights, strict=True):
        if isinstance(member, Member):
            kinds, with_bank = (
                (ensemble.views, ensemble.beta is not None) if weight else ((), False)
            )
            predictions.append(
                encoder.predict_test(member.with_views(kinds), tests[member.features], with_bank)
            )
        else:
            predictions.append(member)
    return predictions


def _training_captions(data: TrainingData, folds: Folds, fold: int) -> list[str]:
    """The captions that a fold's model was trained on, each once."""
    return distinct_captions(
        [data.training.captions[motion_idx] for motion_idx in folds.train_idx(fold)]
    )
