"""An ensemble fitted out of fold: weights, views, query-bank normalisation, and a score from folds that had no part in choosing them."""
# MERGED: """Which views the members of an ensemble have, and what their models say in them of the motions they had not seen."""
#

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, product
from typing import TypeVar

import numpy as np

from motret.config.scripts import VIEW_KINDS, EnsembleConfig
from motret.data import dataset
from motret.data.dataset import TrainingData
from motret.data.features import FeatureConfig
from motret.data.folds import Folds
from motret.ensemble import inference, query_bank, tta
from motret.ensemble.inference import Encoder
from motret.ensemble.members import ExternalMember, Member, common_folds, equal_similarities
from motret.ensemble.tta import TtaView
from motret.ensemble.weights import ContestedPairs, WeightSearch
from motret.errors import ConfigError
from motret.evaluation import gallery_ranks, metrics
from motret.evaluation.gallery_ranks import GalleryRanks
from motret.evaluation.local_score import LocalScore, ZScore

Views = tuple[str, ...]
"""Kinds of views that an ensemble's members are asked for."""
Option = TypeVar("Option")


@dataclass(frozen=True)
class FittedEnsemble:
    """What the ensemble is and what it earns.

    members, weights: (members,); views: that the members are asked for; beta: of the query-bank normalisation, None without. alone:
    where the right motions stand for each member without views, a gallery each; together: the same for the ensemble, by weights, views
    and beta chosen on other folds; viewed: for the best member in those views, None where there are no views or it has no weight;
    folds: of the galleries.
    """

    members: tuple[Member | ExternalMember, ...]
    weights: np.ndarray
    views: Views
    beta: float | None
    alone: tuple[tuple[GalleryRanks, ...], ...]
    viewed: tuple[GalleryRanks, ...] | None
    together: tuple[GalleryRanks, ...]
    folds: tuple[int, ...]

    @property
    def local(self) -> LocalScore:
        """The ensemble's nested score."""
        by_fold = {fold: gallery_ranks.mean_score([own]) for fold, own in zip(self.folds, self.together, strict=True)}
        return LocalScore(gallery_ranks.mean_score(self.together), by_fold, {})

    @property
    def changes_nothing(self) -> bool:
        """Whether the ensemble is one member as it is, without views or normalisation."""
        return len(self.members) == 1 and not self.views and self.beta is None

    def best(self) -> int:
        """The member with the highest score."""
        return _best_single(self.alone)


@dataclass(frozen=True)
class OofGalleries:
    """The held-out galleries that all members have; contests: fold -> what the members' weights decide there."""

    members: tuple[Member | ExternalMember, ...]
    contests: dict[int, ContestedPairs]
    data: TrainingData
    folds: Folds

    @classmethod
    def open(cls, gathered: Sequence[Member | ExternalMember], common: Sequence[int], data: TrainingData, folds: Folds) -> "OofGalleries":
        """Of members that say the same the first alone is taken."""
        contests, same = {}, np.ones((len(gathered), len(gathered)), dtype=bool)
        for fold in common:
            similarities = [standardized_similarity(member, fold) for member in gathered]
            contests[fold] = ContestedPairs.of(similarities, *held_out_captions(data, folds, fold))
            same &= equal_similarities(similarities)
        kept = [number for number in range(len(gathered)) if not same[number, :number].any()]
        distinct = {fold: contest.only(kept) for fold, contest in contests.items()}
        return cls(tuple(gathered[number] for number in kept), distinct, data, folds)

    def standings(self, mixes: Collection[tuple[float, ...]], fold: int) -> dict[tuple[float, ...], GalleryRanks]:
        """Where the right motions of a gallery stand, for each mixture."""
        used = [number for number in range(len(self.members)) if any(weights[number] for weights in mixes)]
        told = {number: standardized_similarity(self.members[number], fold) for number in used}
        mixed = {weights: sum(weights[number] * told[number] for number in used if weights[number]) for weights in mixes}
        return {
            weights: GalleryRanks.of(similarity, *held_out_captions(self.data, self.folds, fold)) for weights, similarity in mixed.items()
        }

    def with_bank(
        self, mixes: Collection[tuple[float, ...]], fold: int, encoder: Encoder
    ) -> dict[tuple[float, ...], dict[float | None, GalleryRanks]]:
        """Where the right motions of a gallery stand, for each mixture and beta, the bank being the captions that were learned from."""
        captions = inference.distinct_captions([self.data.training.captions[row] for row in self.folds.train_idx(fold)])
        members = {number: member for number, member in enumerate(self.members) if any(weights[number] for weights in mixes)}
        told = {number: member.vectors(fold) for number, member in members.items()}
        scales = {number: ZScore.of(text @ motion.T) for number, (text, motion) in told.items()}
        banks = {number: encoder.bank_of_fold(member, fold, captions) for number, member in members.items()}

        def mixed(asked: dict[int, np.ndarray], weights: tuple[float, ...], motions: slice) -> np.ndarray:
            used = [number for number in members if weights[number]]
            return sum(weights[number] * scales[number](asked[number] @ told[number][1][motions].T) for number in used)

        motion_idx, group = held_out_captions(self.data, self.folds, fold)
        texts, found = {number: text for number, (text, _) in told.items()}, {}
        for weights in mixes:
            said = query_bank.build_query_bank(partial(mixed, banks, weights), len(group))
            similarity = mixed(texts, weights, slice(None))
            found[weights] = {beta: GalleryRanks.of(said.normalise(similarity, beta), motion_idx, group) for beta in said.offset}
        return found


def fit_ensemble(
    gathered: Sequence[Member | ExternalMember], data: TrainingData, folds: Folds, config: EnsembleConfig, encoder: Encoder
) -> FittedEnsemble:
    """Weighs the members, tries views and then query-bank normalisation: for each fold on the others, to score it; for the ensemble on all.

    Where the ensemble comes to one member as it is, its score is the member's own, whatever was tried on the way. With
    `settings.fold` that fold is the one that is scored and ranked by, and has no part in the choice. Where there is but one fold,
    weights are equal, nothing is normalised, and there are no views but those that are named. Of members that say the same the first is
    taken.
    """
    common = common_folds(gathered, folds.count)
    if config.fold is not None and config.fold not in common:
        raise ConfigError("--fold", f"fold {config.fold} is not finished in all members", f"give one of {', '.join(map(str, common))}")
    galleries = OofGalleries.open(gathered, common, data, folds)
    gathered, contests = galleries.members, galleries.contests
    scored = common if config.fold is None else [config.fold]
    learned = {fold: tuple(other for other in common if other != fold) for fold in scored}
    whole = learned[scored[0]] if config.fold is not None else tuple(common) if len(common) > 1 else ()
    weigher, equal = WeightSearch(contests), np.full(len(gathered), 1 / len(gathered))
    weights = {own: weigher.choose(own) if own and config.weights == "auto" else equal for own in {*learned.values(), whole}}
    due = [(own, fold) for own in weights for fold in {*own, *scored}]
    shown = {(): galleries} | galleries_by_views(galleries, weights, config, encoder)
    seen: dict = {(own, fold): {(): contests[fold].standing(weights[own])} for own, fold in due}
    for option, fold in product([option for option in shown if option], common):
        asked = [own for own in weights if (own, fold) in seen]
        found = shown[option].standings({tuple(weights[own]) for own in asked}, fold)
        for own in asked:
            seen[own, fold][option] = found[tuple(weights[own])]
    named = max(shown, key=len) if views_are_named(config) else None
    views = {own: named or _select_if_significant([seen[own, fold] for fold in own], ()) for own in weights}
    asks = encoder if config.query_bank == "auto" else None
    table: dict = {(own, fold): {None: seen[own, fold][views[own]]} for own, fold in due}
    for fold in common:
        asked = [own for own in weights if asks and own and (own, fold) in table and supports_query_bank(gathered, weights[own])]
        for option in {views[own] for own in asked}:
            mine = [own for own in asked if views[own] == option]
            found = shown[option].with_bank({tuple(weights[own]) for own in mine}, fold, asks)
            for own in mine:
                table[own, fold] |= found[tuple(weights[own])]
    beta = {own: _select_if_significant([table[own, fold] for fold in own], None) for own in weights}
    single = [tuple(own) for own in np.eye(len(gathered))]
    alone = tuple(tuple(contests[fold].standing(np.array(one)) for fold in scored) for one in single)
    best, viewed = _best_single(alone), None
    if views[whole] and weights[whole][best]:
        viewed = tuple(shown[views[learned[fold]]].standings({single[best]}, fold)[single[best]] for fold in scored)
    nested = tuple(table[learned[fold], fold][beta[learned[fold]]] for fold in scored)
    fused = FittedEnsemble(shown[views[whole]].members, weights[whole], views[whole], beta[whole], alone, viewed, nested, tuple(scored))
    return replace(fused, together=alone[0]) if fused.changes_nothing else fused


def galleries_by_views(
    galleries: OofGalleries, weights: Mapping[tuple[int, ...], np.ndarray], config: EnsembleConfig, encoder: Encoder
) -> dict[Views, OofGalleries]:
    """The galleries by the views that members are asked for: those that are named, or each set of the kinds that members have (auto).

    weights: by the folds that they were fitted on; members without any are not asked. On one fold alone nothing can be chosen.
    """
    if config.views == "none" or (config.views == "auto" and all(len(own) < 2 for own in weights)):
        return {}
    used = np.any(list(weights.values()), axis=0)
    asked = [member for member, taken in zip(galleries.members, used, strict=True) if taken]
    found = iter(find_member_views(asked, galleries.data, galleries.folds, config, encoder))
    own = [next(found) if taken else {} for taken in used]
    there = tuple(kind for kind in requested_view_kinds(config) if any(kind in one for one in own))
    options = [there] if views_are_named(config) else [views for size in range(1, len(there) + 1) for views in combinations(there, size)]
    return {
        option: replace(galleries, members=tuple(with_view_kinds(*one, option) for one in zip(galleries.members, own, strict=True)))
        for option in options
    }


def held_out_captions(data: TrainingData, folds: Folds, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the motions a fold holds out: the motion (C,) of each caption, and the groups (M,)."""
    rows = folds.val_idx(fold)
    return np.repeat(np.arange(len(rows)), [len(data.training.captions[row]) for row in rows]), folds.group[rows]


def standardized_similarity(member: Member | ExternalMember, fold: int) -> np.ndarray:
    """A member's (C, M) similarities of a held-out gallery, by its mean and deviation there."""
    similarity = member.similarity(fold)
    return ZScore.of(similarity)(similarity)


def supports_query_bank(gathered: Sequence[Member | ExternalMember], weights: np.ndarray) -> bool:
    """Whether all members that count can be asked for a bank of captions."""
    return all(isinstance(member, Member) for member, weight in zip(gathered, weights, strict=True) if weight)


def _select_if_significant(tables: Sequence[Mapping[Option, GalleryRanks]], plain: Option) -> Option:
    """The option (a beta, a set of views) that scores best on some galleries; `plain`, which is one of them, where none helps.

    One helps where on each gallery that which is best on the others gains more than the error of this gain.
    """
    if len(tables) < 2 or len(tables[0]) < 2:
        return plain
    scores = [{option: own.values() for option, own in table.items()} for table in tables]
    chosen = [_best_option(scores[:place] + scores[place + 1 :]) for place in range(len(scores))]
    differences = np.concatenate([own[option] - own[plain] for own, option in zip(scores, chosen, strict=True)])
    gain = metrics.cluster_robust_mean(differences, gallery_ranks.motion_groups([table[plain] for table in tables]))
    return _best_option(scores) if gain.mean > gain.error else plain


def _best_single(alone: Sequence[Sequence[GalleryRanks]]) -> int:
    return int(np.argmax([gallery_ranks.motion_values(own).mean() for own in alone]))


def _best_option(scores: Sequence[Mapping[Option, np.ndarray]]) -> Option:
    return max(scores[0], key=lambda option: np.concatenate([own[option] for own in scores]).mean())


MemberViews = dict[str, tuple[TtaView, ...]]
"""Of a member: kind -> its views of that kind; those it does not have are not there."""


def find_member_views(
    members: Sequence[Member | ExternalMember], data: TrainingData, folds: Folds, config: EnsembleConfig, encoder: Encoder
) -> list[MemberViews]:
    """The views of each member; a file has none. What the models say in them is made where it is not kept from an earlier call.

    ConfigError where a kind is named that no member has.
    """
    kinds = requested_view_kinds(config)
    seen_as: dict[FeatureConfig, TrainingData] = {}
    mirrors: dict[FeatureConfig, tuple[TtaView, ...]] = {}
    found: list[MemberViews] = []
    for member in members:
        own: MemberViews = {}
        if isinstance(member, Member):
            kind = member.features
            if kind not in seen_as:
                seen_as[kind] = dataset.with_features(data, kind, config.data, config.machine.jobs)
                mirrors[kind] = tta.mirror_view(seen_as[kind], views_are_named(config)) if "mirror" in kinds else ()
            own = {"mirror": mirrors[kind], "speed": tta.speed_view(), "swap": tta.swap_view(next(iter(member.folds.values())))}
        found.append({kind: own[kind] for kind in kinds if own.get(kind)})
    if views_are_named(config) and (missing := [kind for kind in kinds if not any(kind in own for own in found)]):
        raise ConfigError(tta.FLAG, f"no member has the view {missing[0]}", "leave it out")
    for member, own in zip(members, found, strict=True):
        if own:
            encoder.keep_views(with_view_kinds(member, own, kinds), seen_as[member.features], folds)
    return found


def with_view_kinds(member: Member | ExternalMember, own: MemberViews, kinds: Sequence[str]) -> Member | ExternalMember:
    """A member with those of its own views that are of these kinds."""
    return replace(member, views=tuple(view for kind in kinds for view in own.get(kind, ()))) if own else member


def requested_view_kinds(config: EnsembleConfig) -> tuple[str, ...]:
    """The kinds of views that are named, or all; none where none is wanted."""
    return VIEW_KINDS if config.views == "auto" else () if config.views == "none" else tuple(dict.fromkeys(config.views.split(",")))


def views_are_named(config: EnsembleConfig) -> bool:
    """Whether the command names the views that are taken."""
    return config.views not in ("auto", "none")
