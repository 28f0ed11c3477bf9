"""An ensemble fitted out of fold: weights and query-bank normalisation, and a score from folds that had no part in choosing them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from motret import bank, encode, members, metrics, standing
from motret.config import EnsembleSettings
from motret.dataset import TrainingData
from motret.encode import Encoder
from motret.faults import SettingFault
from motret.folds import Folds
from motret.members import ForeignMember, Member
from motret.rank import LocalScore, Scale
from motret.standing import Standing
from motret.weigh import Contest, Weigher


@dataclass(frozen=True)
class Fusion:
    """What the ensemble is and what it earns.

    members, weights: (members,); beta: of the query-bank normalisation, None without. alone: where the right motions stand for each
    member, a gallery each; together: the same for the ensemble, by weights and beta chosen on other folds; folds: of the galleries.
    """

    members: tuple[Member | ForeignMember, ...]
    weights: np.ndarray
    beta: float | None
    alone: tuple[tuple[Standing, ...], ...]
    together: tuple[Standing, ...]
    folds: tuple[int, ...]

    @property
    def local(self) -> LocalScore:
        """The ensemble's nested score."""
        by_fold = {fold: standing.score([own]) for fold, own in zip(self.folds, self.together, strict=True)}
        return LocalScore(standing.score(self.together), by_fold, {})

    def best(self) -> int:
        """The member with the highest score."""
        return int(np.argmax([standing.values(own).mean() for own in self.alone]))


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
    """Weighs the members and tries query-bank normalisation: for each fold on the others, to score it; for the ensemble on all.

    With `settings.fold` that fold is the one that is scored and ranked by, and has no part in the choice. Where there is but one fold,
    weights are equal and nothing is normalised. Of members that say the same the first is taken.
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
    asks = encoder if settings.query_bank == "auto" else None
    table = {(own, fold): {None: contests[fold].standing(weights[own])} for own in weights for fold in {*own, *scored}}
    for fold in common:
        asked = [own for own in weights if asks and own and (own, fold) in table and can_ask(gathered, weights[own])]
        found = galleries.with_bank({tuple(weights[own]) for own in asked}, fold, asks) if asked else {}
        for own in asked:
            table[own, fold] |= found[tuple(weights[own])]
    beta = {own: _beta([table[own, fold] for fold in own]) for own in weights}
    single = np.eye(len(gathered))
    return Fusion(
        gathered,
        weights[whole],
        beta[whole],
        tuple(tuple(contests[fold].standing(one) for fold in scored) for one in single),
        tuple(table[learned[fold], fold][beta[learned[fold]]] for fold in scored),
        tuple(scored),
    )


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


def _beta(tables: Sequence[dict[float | None, Standing]]) -> float | None:
    """The beta that scores best on some galleries, None for no normalisation.

    It is normalised where that gains more than its error on each gallery by the beta that is best on the others.
    """
    if len(tables) < 2 or len(tables[0]) < 2:
        return None
    scores = [{beta: own.values() for beta, own in table.items()} for table in tables]
    chosen = [_best(scores[:place] + scores[place + 1 :]) for place in range(len(scores))]
    differences = np.concatenate([own[beta] - own[None] for own, beta in zip(scores, chosen, strict=True)])
    gain = metrics.clustered(differences, standing.groups([table[None] for table in tables]))
    return _best(scores) if gain.mean > gain.error else None


def _best(scores: Sequence[dict[float | None, np.ndarray]]) -> float | None:
    return max(scores[0], key=lambda beta: np.concatenate([own[beta] for own in scores]).mean())
