"""An ensemble fitted out of fold: weights, views, query-bank normalisation, and a score from folds that had no part in choosing them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, product
from typing import TypeVar

import numpy as np

from motret import bank, encode, members, metrics, showing, standing
from motret.config import EnsembleSettings
from motret.dataset import TrainingData
from motret.encode import Encoder
from motret.faults import SettingFault
from motret.folds import Folds
from motret.members import ForeignMember, Member
from motret.rank import LocalScore, Scale
from motret.standing import Standing
from motret.weigh import Contest, Weigher

Views = tuple[str, ...]
"""Kinds of views that an ensemble's members are asked for."""
Option = TypeVar("Option")


@dataclass(frozen=True)
class Fusion:
    """What the ensemble is and what it earns.

    members, weights: (members,); views: that the members are asked for; beta: of the query-bank normalisation, None without. alone:
    where the right motions stand for each member without views, a gallery each; together: the same for the ensemble, by weights, views
    and beta chosen on other folds; viewed: for the best member in those views, None where there are no views or it has no weight;
    folds: of the galleries.
    """

    members: tuple[Member | ForeignMember, ...]
    weights: np.ndarray
    views: Views
    beta: float | None
    alone: tuple[tuple[Standing, ...], ...]
    viewed: tuple[Standing, ...] | None
    together: tuple[Standing, ...]
    folds: tuple[int, ...]

    @property
    def local(self) -> LocalScore:
        """The ensemble's nested score."""
        by_fold = {fold: standing.score([own]) for fold, own in zip(self.folds, self.together, strict=True)}
        return LocalScore(standing.score(self.together), by_fold, {})

    @property
    def changes_nothing(self) -> bool:
        """Whether the ensemble is one member as it is, without views or normalisation."""
        return len(self.members) == 1 and not self.views and self.beta is None

    def best(self) -> int:
        """The member with the highest score."""
        return _highest(self.alone)


@dataclass(frozen=True)
class Galleries:
    """The held-out galleries that all members have; contests: fold -> what the members' weights decide there."""

    members: tuple[Member | ForeignMember, ...]
    contests: dict[int, Contest]
    data: TrainingData
    folds: Folds

    @classmethod
    def open(cls, gathered: Sequence[Member | ForeignMember], common: Sequence[int], data: TrainingData, folds: Folds) -> "Galleries":
        """Of members that say the same the first alone is taken."""
        contests, same = {}, np.ones((len(gathered), len(gathered)), dtype=bool)
        for fold in common:
            similarities = [standardised(member, fold) for member in gathered]
            contests[fold] = Contest.of(similarities, *held_out(data, folds, fold))
            same &= members.alike(similarities)
        kept = [number for number in range(len(gathered)) if not same[number, :number].any()]
        distinct = {fold: contest.only(kept) for fold, contest in contests.items()}
        return cls(tuple(gathered[number] for number in kept), distinct, data, folds)

    def standings(self, mixes: Collection[tuple[float, ...]], fold: int) -> dict[tuple[float, ...], Standing]:
        """Where the right motions of a gallery stand, for each mixture."""
        used = [number for number in range(len(self.members)) if any(weights[number] for weights in mixes)]
        told = {number: standardised(self.members[number], fold) for number in used}
        mixed = {weights: sum(weights[number] * told[number] for number in used if weights[number]) for weights in mixes}
        return {weights: Standing.of(similarity, *held_out(self.data, self.folds, fold)) for weights, similarity in mixed.items()}

    def with_bank(
        self, mixes: Collection[tuple[float, ...]], fold: int, encoder: Encoder
    ) -> dict[tuple[float, ...], dict[float | None, Standing]]:
        """Where the right motions of a gallery stand, for each mixture and beta, the bank being the captions that were learned from."""
        captions = encode.distinct([self.data.training.captions[row] for row in self.folds.training(fold)])
        members = {number: member for number, member in enumerate(self.members) if any(weights[number] for weights in mixes)}
        told = {number: member.vectors(fold) for number, member in members.items()}
        scales = {number: Scale.of(text @ motion.T) for number, (text, motion) in told.items()}
        banks = {number: encoder.bank_of_fold(member, fold, captions) for number, member in members.items()}

        def mixed(asked: dict[int, np.ndarray], weights: tuple[float, ...], motions: slice) -> np.ndarray:
            used = [number for number in members if weights[number]]
            return sum(weights[number] * scales[number](asked[number] @ told[number][1][motions].T) for number in used)

        owner, group = held_out(self.data, self.folds, fold)
        texts, found = {number: text for number, (text, _) in told.items()}, {}
        for weights in mixes:
            said = bank.ask(partial(mixed, banks, weights), len(group))
            similarity = mixed(texts, weights, slice(None))
            found[weights] = {beta: Standing.of(said.normalise(similarity, beta), owner, group) for beta in said.offset}
        return found


def fit(
    gathered: Sequence[Member | ForeignMember], data: TrainingData, folds: Folds, settings: EnsembleSettings, encoder: Encoder
) -> Fusion:
    """Weighs the members, tries views and then query-bank normalisation: for each fold on the others, to score it; for the ensemble on all.

    Where the ensemble comes to one member as it is, its score is the member's own, whatever was tried on the way. With
    `settings.fold` that fold is the one that is scored and ranked by, and has no part in the choice. Where there is but one fold,
    weights are equal, nothing is normalised, and there are no views but those that are named. Of members that say the same the first is
    taken.
    """
    common = members.common_folds(gathered, folds.count)
    if settings.fold is not None and settings.fold not in common:
        raise SettingFault("--fold", f"fold {settings.fold} is not finished in all members", f"give one of {', '.join(map(str, common))}")
    galleries = Galleries.open(gathered, common, data, folds)
    gathered, contests = galleries.members, galleries.contests
    scored = common if settings.fold is None else [settings.fold]
    learned = {fold: tuple(other for other in common if other != fold) for fold in scored}
    whole = learned[scored[0]] if settings.fold is not None else tuple(common) if len(common) > 1 else ()
    weigher, equal = Weigher(contests), np.full(len(gathered), 1 / len(gathered))
    weights = {own: weigher.choose(own) if own and settings.weights == "auto" else equal for own in {*learned.values(), whole}}
    due = [(own, fold) for own in weights for fold in {*own, *scored}]
    shown = {(): galleries} | in_views(galleries, weights, settings, encoder)
    seen: dict = {(own, fold): {(): contests[fold].standing(weights[own])} for own, fold in due}
    for option, fold in product([option for option in shown if option], common):
        asked = [own for own in weights if (own, fold) in seen]
        found = shown[option].standings({tuple(weights[own]) for own in asked}, fold)
        for own in asked:
            seen[own, fold][option] = found[tuple(weights[own])]
    named = max(shown, key=len) if showing.is_named(settings) else None
    views = {own: named or _helpful([seen[own, fold] for fold in own], ()) for own in weights}
    asks = encoder if settings.query_bank == "auto" else None
    table: dict = {(own, fold): {None: seen[own, fold][views[own]]} for own, fold in due}
    for fold in common:
        asked = [own for own in weights if asks and own and (own, fold) in table and can_ask(gathered, weights[own])]
        for option in {views[own] for own in asked}:
            mine = [own for own in asked if views[own] == option]
            found = shown[option].with_bank({tuple(weights[own]) for own in mine}, fold, asks)
            for own in mine:
                table[own, fold] |= found[tuple(weights[own])]
    beta = {own: _helpful([table[own, fold] for fold in own], None) for own in weights}
    single = [tuple(own) for own in np.eye(len(gathered))]
    alone = tuple(tuple(contests[fold].standing(np.array(one)) for fold in scored) for one in single)
    best, viewed = _highest(alone), None
    if views[whole] and weights[whole][best]:
        viewed = tuple(shown[views[learned[fold]]].standings({single[best]}, fold)[single[best]] for fold in scored)
    nested = tuple(table[learned[fold], fold][beta[learned[fold]]] for fold in scored)
    fused = Fusion(shown[views[whole]].members, weights[whole], views[whole], beta[whole], alone, viewed, nested, tuple(scored))
    return replace(fused, together=alone[0]) if fused.changes_nothing else fused


def in_views(
    galleries: Galleries, weights: Mapping[tuple[int, ...], np.ndarray], settings: EnsembleSettings, encoder: Encoder
) -> dict[Views, Galleries]:
    """The galleries by the views that members are asked for: those that are named, or each set of the kinds that members have (auto).

    weights: by the folds that they were fitted on; members without any are not asked. On one fold alone nothing can be chosen.
    """
    if settings.views == "none" or (settings.views == "auto" and all(len(own) < 2 for own in weights)):
        return {}
    used = np.any(list(weights.values()), axis=0)
    asked = [member for member, taken in zip(galleries.members, used, strict=True) if taken]
    found = iter(showing.find(asked, galleries.data, galleries.folds, settings, encoder))
    own = [next(found) if taken else {} for taken in used]
    there = tuple(kind for kind in showing.wanted(settings) if any(kind in one for one in own))
    options = [there] if showing.is_named(settings) else [views for size in range(1, len(there) + 1) for views in combinations(there, size)]
    return {
        option: replace(galleries, members=tuple(showing.shown(*one, option) for one in zip(galleries.members, own, strict=True)))
        for option in options
    }


def held_out(data: TrainingData, folds: Folds, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the motions a fold holds out: the motion (C,) of each caption, and the groups (M,)."""
    rows = folds.held_out(fold)
    return np.repeat(np.arange(len(rows)), [len(data.training.captions[row]) for row in rows]), folds.group[rows]


def standardised(member: Member | ForeignMember, fold: int) -> np.ndarray:
    """A member's (C, M) similarities of a held-out gallery, by its mean and deviation there."""
    similarity = member.similarity(fold)
    return Scale.of(similarity)(similarity)


def can_ask(gathered: Sequence[Member | ForeignMember], weights: np.ndarray) -> bool:
    """Whether all members that count can be asked for a bank of captions."""
    return all(isinstance(member, Member) for member, weight in zip(gathered, weights, strict=True) if weight)


def _helpful(tables: Sequence[Mapping[Option, Standing]], plain: Option) -> Option:
    """The option (a beta, a set of views) that scores best on some galleries; `plain`, which is one of them, where none helps.

    One helps where on each gallery that which is best on the others gains more than the error of this gain.
    """
    if len(tables) < 2 or len(tables[0]) < 2:
        return plain
    scores = [{option: own.values() for option, own in table.items()} for table in tables]
    chosen = [_best(scores[:place] + scores[place + 1 :]) for place in range(len(scores))]
    differences = np.concatenate([own[option] - own[plain] for own, option in zip(scores, chosen, strict=True)])
    gain = metrics.clustered(differences, standing.groups([table[plain] for table in tables]))
    return _best(scores) if gain.mean > gain.error else plain


def _highest(alone: Sequence[Sequence[Standing]]) -> int:
    return int(np.argmax([standing.values(own).mean() for own in alone]))


def _best(scores: Sequence[Mapping[Option, np.ndarray]]) -> Option:
    return max(scores[0], key=lambda option: np.concatenate([own[option] for own in scores]).mean())
