"""Fits an ensemble on held-out galleries in four steps: weights, views, query bank, nested score.

A pure function of arrays: it reads no file and asks no model. Weights need only the embeddings that
training kept, so they are fitted first and on their own: members that get no weight are then never
asked for views or a query bank.

Every choice is scored by nested cross-validation: each fold is scored by an ensemble fitted on the
other folds. The ensemble that ranks the test is fitted on all of them.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import TypeVar

import numpy as np

from motret.config.scripts import VIEW_KINDS, EnsembleConfig
from motret.ensemble import query_bank
from motret.ensemble.galleries import MemberGallery, Mixture, OofGalleries, Views
from motret.ensemble.weights import ContestedPairs, WeightSearch
from motret.errors import ConfigError
from motret.evaluation import gallery_ranks, metrics
from motret.evaluation.gallery_ranks import GalleryRanks, LocalScore

SAME_TOLERANCE = 1e-4
"""Standardized similarities that differ by no more are equal."""

FoldSet = tuple[int, ...]
"""Folds that something is fitted on."""
Option = TypeVar("Option", bound=Hashable)


@dataclass(frozen=True)
class NestedFolds:
    """Which folds an ensemble is fitted on.

    fitted_on: scored fold -> the folds of the fit that it scores; final: those of the ensemble that
    ranks the test.
    """

    fitted_on: dict[int, FoldSet]
    final: FoldSet

    @classmethod
    def of(cls, folds: Sequence[int], only: int | None) -> "NestedFolds":
        """The folds of each fit: a scored fold takes no part in it.

        With `only` that fold alone is scored, and takes no part in the final fit either. With one
        fold nothing can be fitted. ConfigError where `only` is none of the folds.
        """
        if only is not None and only not in folds:
            fix = f"give one of {', '.join(map(str, folds))}"
            raise ConfigError("--fold", f"fold {only} is not finished in all members", fix)
        scored = folds if only is None else [only]
        fitted_on = {fold: tuple(other for other in folds if other != fold) for fold in scored}
        if only is not None:
            return cls(fitted_on, fitted_on[only])
        return cls(fitted_on, tuple(folds) if len(folds) > 1 else ())

    @property
    def fold_sets(self) -> set[FoldSet]:
        """All sets of folds that something is fitted on."""
        return {*self.fitted_on.values(), self.final}


@dataclass(frozen=True, eq=False)
class FittedWeights:
    """Step 1: the members that differ from those before them, and their weights.

    member_idx: these members; pairs: fold -> the pairs that the weights decide; by_folds: folds
    fitted on -> the weights (members,), which sum to 1.
    """

    member_idx: tuple[int, ...]
    pairs: dict[int, ContestedPairs]
    nested: NestedFolds
    by_folds: dict[FoldSet, np.ndarray]

    @property
    def used(self) -> np.ndarray:
        """(members,) which have a weight in some fit."""
        return np.asarray(np.any(list(self.by_folds.values()), axis=0))

    def mixture(self, fold_set: FoldSet) -> Mixture:
        """The weights that are fitted on some folds."""
        return tuple(self.by_folds[fold_set])

    def ranks(self, fold_set: FoldSet, fold: int) -> GalleryRanks:
        """Ranks of a fold's right motions under the weights that are fitted on some folds."""
        return self.pairs[fold].ranks(self.by_folds[fold_set])


@dataclass(frozen=True, eq=False)
class FittedViews:
    """Step 2: the views.

    by_folds: folds fitted on -> the kinds; ranks: (folds fitted on, fold) -> ranks of its right
    motions in them.
    """

    by_folds: dict[FoldSet, Views]
    ranks: dict[tuple[FoldSet, int], GalleryRanks]


@dataclass(frozen=True, eq=False)
class FittedQueryBank:
    """Step 3: query-bank normalisation.

    by_folds: folds fitted on -> beta, None without; ranks: as in `FittedViews`; of_queries: whether
    the bank holds the test's queries, not the training captions.
    """

    by_folds: dict[FoldSet, float | None]
    ranks: dict[tuple[FoldSet, int], GalleryRanks]
    of_queries: bool = False


@dataclass(frozen=True, eq=False)
class FittedEnsemble:
    """The ensemble that ranks the test, and its nested score.

    names, weights: of the members; views, beta: of all members, beta None without query-bank
    normalisation. folds: those scored. member_ranks: of each member alone without views, one
    gallery a fold; ensemble_ranks: of the ensembles fitted on the other folds;
    best_member_tta_ranks: of the best member in the ensemble's views, None where there are no views
    or it has no weight. bank_of_queries: as in `FittedQueryBank`.
    """

    names: tuple[str, ...]
    weights: np.ndarray
    views: Views
    beta: float | None
    folds: tuple[int, ...]
    member_ranks: tuple[tuple[GalleryRanks, ...], ...]
    ensemble_ranks: tuple[GalleryRanks, ...]
    best_member_tta_ranks: tuple[GalleryRanks, ...] | None
    bank_of_queries: bool = False

    @property
    def local(self) -> LocalScore:
        """The ensemble's nested score."""
        by_fold = {
            fold: gallery_ranks.mean_score([ranks])
            for fold, ranks in zip(self.folds, self.ensemble_ranks, strict=True)
        }
        return LocalScore(gallery_ranks.mean_score(self.ensemble_ranks), by_fold, {})

    @property
    def is_plain_member(self) -> bool:
        """Whether the ensemble is one member as it is, without views or normalisation."""
        return len(self.names) == 1 and not self.views and self.beta is None

    @property
    def best_member_idx(self) -> int:
        """The member with the highest local score."""
        return _best_member_idx(self.member_ranks)


def fit_weights(
    galleries: OofGalleries,
    config: EnsembleConfig,
    target: Mapping[int, np.ndarray] | None = None,
) -> FittedWeights:
    """Step 1: the members' weights. Of members with equal similarities only the first is taken.

    target: fold -> weights (C,) of its captions, by which captions and candidates are drawn; None:
    all alike, as in the local score.

    Weights are equal with `--weights equal`, and where there is one fold alone. ConfigError where a
    member lacks `--fold`.
    """
    nested = NestedFolds.of(list(galleries.folds), config.fold)
    members = range(len(galleries.names))
    pairs, equal = {}, np.ones((len(members), len(members)), dtype=bool)
    for fold, gallery in galleries.folds.items():
        similarities = [gallery.standardized_similarity(idx) for idx in members]
        pairs[fold] = ContestedPairs.of(
            similarities,
            gallery.motion_idx,
            gallery.group,
            gallery.compared,
            None if target is None else target[fold],
        )
        equal &= equal_similarities(similarities)
    distinct = tuple(idx for idx in members if not equal[idx, :idx].any())
    pairs = {fold: gallery_pairs.only(distinct) for fold, gallery_pairs in pairs.items()}
    search, equal_weights = WeightSearch(pairs), np.full(len(distinct), 1 / len(distinct))
    by_folds = {
        fold_set: search.fit(fold_set) if fold_set and config.weights != "equal" else equal_weights
        for fold_set in nested.fold_sets
    }
    return FittedWeights(distinct, pairs, nested, by_folds)


def fit_ensemble(
    galleries: OofGalleries, weights: FittedWeights, config: EnsembleConfig
) -> FittedEnsemble:
    """Steps 2 to 4.

    galleries: of the distinct members (`FittedWeights.member_idx`), with their views and query
    bank.
    """
    views = fit_views(galleries, weights, config)
    bank = fit_query_bank(galleries, weights, views, config)
    return nested_score(galleries, weights, views, bank)


def fit_views(
    galleries: OofGalleries, weights: FittedWeights, config: EnsembleConfig
) -> FittedViews:
    """Step 2: the views, those that are named or those that help."""
    options = _view_options(galleries, config)
    ranks: dict[tuple[FoldSet, int], dict[Views, GalleryRanks]] = {
        (fold_set, fold): {(): weights.ranks(fold_set, fold)}
        for fold_set, fold in product(weights.by_folds, galleries.folds)
    }
    mixtures = {weights.mixture(fold_set) for fold_set in weights.by_folds}
    for kinds, (fold, gallery) in product(options, galleries.folds.items()):
        by_mixture = gallery.mixture_ranks(mixtures, kinds)
        for fold_set in weights.by_folds:
            ranks[fold_set, fold][kinds] = by_mixture[weights.mixture(fold_set)]
    views = {
        fold_set: options[0]
        if views_are_named(config)
        else select_if_significant([ranks[fold_set, fold] for fold in fold_set], ())
        for fold_set in weights.by_folds
    }
    return FittedViews(views, {key: by_views[views[key[0]]] for key, by_views in ranks.items()})


def fit_query_bank(
    galleries: OofGalleries, weights: FittedWeights, views: FittedViews, config: EnsembleConfig
) -> FittedQueryBank:
    """Step 3: beta of query-bank normalisation, None where it does not help. That of a bank of the
    test's queries is given."""
    ranks: dict[tuple[FoldSet, int], dict[float | None, GalleryRanks]] = {
        key: {None: without_bank} for key, without_bank in views.ranks.items()
    }
    fold_sets = bank_fold_sets(galleries, weights, config)
    for kinds, (fold, gallery) in product(
        {views.by_folds[fold_set] for fold_set in fold_sets}, galleries.folds.items()
    ):
        mixtures = {
            fold_set: weights.mixture(fold_set)
            for fold_set in fold_sets
            if views.by_folds[fold_set] == kinds
        }
        by_mixture = gallery.bank_ranks(set(mixtures.values()), kinds)
        for fold_set, mixture in mixtures.items():
            for beta, with_bank in by_mixture[mixture].items():
                ranks[fold_set, fold][beta] = with_bank
    betas: dict[FoldSet, float | None] = {
        fold_set: (query_bank.TEST_BETA if fold_set in fold_sets else None)
        if config.query_bank == "test"
        else select_if_significant([ranks[fold_set, fold] for fold in fold_set], None)
        for fold_set in weights.by_folds
    }
    fitted_ranks = {key: by_beta[betas[key[0]]] for key, by_beta in ranks.items()}
    return FittedQueryBank(betas, fitted_ranks, config.query_bank == "test")


def nested_score(
    galleries: OofGalleries, weights: FittedWeights, views: FittedViews, bank: FittedQueryBank
) -> FittedEnsemble:
    """Step 4: the final ensemble, and the ranks of each fold by the fit on the others.

    An ensemble of one member as it is has that member's score, whatever the fits on fewer folds
    chose.
    """
    fitted_on, final = weights.nested.fitted_on, weights.nested.final
    single = np.eye(len(galleries.names))
    member_ranks = tuple(
        tuple(weights.pairs[fold].ranks(mixture) for fold in fitted_on) for mixture in single
    )
    best, tta_ranks = _best_member_idx(member_ranks), None
    if views.by_folds[final] and weights.by_folds[final][best]:
        mixture = tuple(single[best])
        tta_ranks = tuple(
            galleries.folds[fold].mixture_ranks({mixture}, views.by_folds[fold_set])[mixture]
            for fold, fold_set in fitted_on.items()
        )
    ensemble = FittedEnsemble(
        galleries.names,
        weights.by_folds[final],
        views.by_folds[final],
        bank.by_folds[final],
        tuple(fitted_on),
        member_ranks,
        tuple(bank.ranks[fold_set, fold] for fold, fold_set in fitted_on.items()),
        tta_ranks,
        bank.of_queries,
    )
    return (
        replace(ensemble, ensemble_ranks=member_ranks[0]) if ensemble.is_plain_member else ensemble
    )


def requested_view_kinds(config: EnsembleConfig) -> Views:
    """The kinds of views that are named; with auto all kinds, with none none."""
    if config.views == "auto":
        return tuple(VIEW_KINDS)
    return () if config.views == "none" else tuple(dict.fromkeys(config.views.split(",")))


def views_are_named(config: EnsembleConfig) -> bool:
    """Whether the command names the views, which are then taken whether they help or not."""
    return config.views not in ("auto", "none")


def tries_views(weights: FittedWeights, config: EnsembleConfig) -> bool:
    """Whether members are asked for views.

    Named ones always are; with auto there must be folds enough to choose on.
    """
    return views_are_named(config) or (
        config.views == "auto" and any(len(fold_set) > 1 for fold_set in weights.by_folds)
    )


def bank_fold_sets(
    galleries: OofGalleries, weights: FittedWeights, config: EnsembleConfig
) -> list[FoldSet]:
    """The fits that try query-bank normalisation: those in which a model has a weight."""
    is_model = _is_model(galleries)
    return [
        fold_set
        for fold_set, mixture in weights.by_folds.items()
        if (config.query_bank == "test" or (config.query_bank == "auto" and fold_set))
        and (mixture[is_model] > 0).any()
    ]


def bank_members(
    galleries: OofGalleries, weights: FittedWeights, config: EnsembleConfig
) -> np.ndarray:
    """(members,) the models that have a weight in some fit that tries query-bank normalisation."""
    members: np.ndarray = np.zeros(len(galleries.names), dtype=bool)
    for fold_set in bank_fold_sets(galleries, weights, config):
        members |= (weights.by_folds[fold_set] > 0) & _is_model(galleries)
    return members


def _is_model(galleries: OofGalleries) -> np.ndarray:
    """(members,) which are models, which can embed the captions of a query bank."""
    members = next(iter(galleries.folds.values())).members
    is_model: np.ndarray = np.array([isinstance(member, MemberGallery) for member in members])
    return is_model


def equal_similarities(similarities: Sequence[np.ndarray]) -> np.ndarray:
    """(members, members): which of the standardized similarities (C, M) are equal."""
    return np.array(
        [
            [np.allclose(one, two, rtol=0, atol=SAME_TOLERANCE) for two in similarities]
            for one in similarities
        ]
    )


def select_if_significant(
    tables: Sequence[Mapping[Option, GalleryRanks]], default: Option
) -> Option:
    """The option with the best mean score over some galleries, or `default`, which is one of them.

    tables: of each gallery, option -> ranks. An option is taken where cross-validation shows a
    gain: on each gallery the option that is best on the others is compared with `default`, and the
    mean gain must exceed its standard error.
    """
    if len(tables) < 2 or len(tables[0]) < 2:
        return default
    scores = [{option: ranks.values() for option, ranks in table.items()} for table in tables]
    best = [_best_option(scores[:number] + scores[number + 1 :]) for number in range(len(scores))]
    gains = np.concatenate(
        [
            by_option[option] - by_option[default]
            for by_option, option in zip(scores, best, strict=True)
        ]
    )
    gain = metrics.cluster_robust_mean(
        gains, gallery_ranks.motion_groups([table[default] for table in tables])
    )
    return _best_option(scores) if gain.mean > gain.error else default


def _view_options(galleries: OofGalleries, config: EnsembleConfig) -> list[Views]:
    """The sets of views to choose from, besides none.

    The named ones, or with auto each set of the kinds that some member has.
    """
    requested = requested_view_kinds(config)
    if views_are_named(config):
        return [requested]
    members = next(iter(galleries.folds.values())).members
    kinds = [
        kind
        for kind in requested
        if any(isinstance(member, MemberGallery) and kind in member.views for member in members)
    ]
    return [views for size in range(1, len(kinds) + 1) for views in combinations(kinds, size)]


def _best_member_idx(member_ranks: Sequence[Sequence[GalleryRanks]]) -> int:
    return int(np.argmax([gallery_ranks.motion_values(ranks).mean() for ranks in member_ranks]))


def _best_option(scores: Sequence[Mapping[Option, np.ndarray]]) -> Option:
    return max(
        scores[0],
        key=lambda option: float(
            np.concatenate([by_option[option] for by_option in scores]).mean()
        ),
    )
