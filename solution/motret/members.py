"""Members of an ensemble: which runs and foreign files take part, identical ones as one, and what each says out of fold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from motret import rank, runs, views
from motret.config import EnsembleSettings
from motret.dataset import TrainingData
from motret.faults import RunFault
from motret.features import FeatureSettings
from motret.folds import Folds
from motret.foreign import Foreign
from motret.rank import Scale
from motret.runs import Run
from motret.views import Showing

SAME = 1e-4
"""Standardised similarities that differ by no more are equal."""


@dataclass(frozen=True)
class Member:
    """Runs of the same settings, data, folds, part texts and text tower, which count as one.

    folds: fold -> the run that has its model and its out-of-fold similarities; models: the models that rank queries, as run and fold
    (None: the model of all motions); runs: names of all runs in it; views: what its models are shown besides.
    """

    name: str
    folds: Mapping[int, Run]
    models: tuple[tuple[Run, int | None], ...]
    runs: tuple[str, ...]
    views: tuple[Showing, ...] = ()

    @property
    def features(self) -> FeatureSettings:
        """How its models see motions."""
        return self.models[0][0].features

    def vectors(self, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """(C, v) and (M, v) of the captions and motions that the fold holds out; their products are similarities."""
        return views.joined(*self.plain_vectors(fold), [views.load(self.folds[fold], fold, view) for view in self.views])

    def plain_vectors(self, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """The same without views."""
        return runs.load_out_of_fold(self.folds[fold], fold).vectors(self.folds[fold].part_weight)

    def deviations(self, part: int | None) -> list[float]:
        """Of each view's similarities, as a multiple of the plain ones'; for the model of all motions (None) the folds' mean."""
        folds = list(self.folds) if part is None else [part]
        return [float(np.mean([views.load(self.folds[fold], fold, view).deviation for fold in folds])) for view in self.views]

    def similarity(self, fold: int) -> np.ndarray:
        """(C, M) captions and motions that the fold holds out, on the member's own scale."""
        text, motion = self.vectors(fold)
        return text @ motion.T

    def only(self, fold: int) -> "Member":
        """The member with the model of one fold alone. RunFault where it has none."""
        models = tuple(model for model in self.models if model[1] == fold)
        if not models:
            raise RunFault(self.name, f"has not finished fold {fold}", "leave it out of --runs, or train that fold of it")
        return replace(self, models=models)


@dataclass(frozen=True)
class ForeignMember:
    """A file made elsewhere; it has no models, so it cannot be asked for anything but what stands in it."""

    name: str
    told: Foreign

    @property
    def folds(self) -> Mapping[int, np.ndarray]:
        return self.told.out_of_fold

    def similarity(self, fold: int) -> np.ndarray:
        return self.told.out_of_fold[fold].astype(np.float32)


def gather(settings: EnsembleSettings, data: TrainingData, folds: Folds) -> list[Member]:
    """The members that are named, or all finished ones of this data and these folds.

    Runs of one kind (`runs.same_kind`) are one member. A model of all motions takes part beside its folds; alone, where it is named
    and another run of its kind tells what its local score would be. RunFault where nothing does.
    """
    there = [run for run in runs.find_runs(settings.out_dir) if (run.data, run.folds) == (data.fingerprint, folds.hash)]
    chosen = rank.choose(settings.runs, settings.out_dir, data, folds)
    if not settings.runs:  # the models of all motions of those that are taken
        chosen += [run for run in there if run.full() and not run.finished() and any(runs.same_kind(run, one) for one in chosen)]
        _tell_aside([run for run in runs.find_runs(settings.out_dir) if run.name not in {one.name for one in chosen}], data, folds)
    alike: list[list[Run]] = []
    for run in chosen:
        own = next((own for own in alike if all(runs.same_kind(run, one) for one in own)), None)
        if own is None:
            alike.append([run])
        else:
            own.append(run)
    found = []
    for own in alike:
        twins = [run for run in there if all(runs.same_kind(run, one) for one in own)]
        member = _weigh_parts(_member(own, twins), folds, settings.part_weight)
        kept = {fold: runs.with_output(run, settings.data.work_dir) for fold, run in member.folds.items()}
        found.append(replace(member, folds=kept))
    return found if settings.fold is None else [member.only(settings.fold) for member in found]


def _tell_aside(left: Sequence[Run], data: TrainingData, folds: Folds) -> None:
    """Says which runs do not take part, and why."""
    told = []
    for run in left:
        why = "other data" if run.data != data.fingerprint else "other folds" if run.folds != folds.hash else None
        told.append(f"{run.name} ({why or f'{len(run.finished())} of {folds.count} folds finished'})")
    if told:
        print(f"left aside: {', '.join(told)}")


def _member(own: Sequence[Run], twins: Sequence[Run]) -> Member:
    """Runs of the same settings as one member. twins: all runs of these settings, asked for folds where `own` have none."""
    folds = {fold: run for run in reversed(own) for fold in run.finished()}
    full = next((run for run in own if run.full()), None)
    models = [(run, fold) for fold, run in sorted(folds.items())] + ([(full, None)] if full else [])
    if not models:
        raise RunFault(own[0].folder, "has no finished model", "finish it with --resume auto, or leave it out of --runs")
    folds = folds or {fold: run for run in twins for fold in run.finished()}
    if not folds:
        wrong = "holds a model of all motions alone, and no run with the same settings tells its local score"
        raise RunFault(own[0].folder, wrong, "train its folds as well: the same command with --fold all and another --run_name")
    return Member(next((run.name for run in own if run.finished()), own[0].name), folds, tuple(models), tuple(run.name for run in own))


def _weigh_parts(member: Member, folds: Folds, wanted: float | str) -> Member:
    """The member with the part weight that is wanted, which all of its runs share."""
    weight = rank.with_parts(next(iter(member.folds.values())), folds, wanted).part_weight
    models = tuple((replace(run, part_weight=weight), fold) for run, fold in member.models)
    return replace(member, folds={fold: replace(run, part_weight=weight) for fold, run in member.folds.items()}, models=models)


def common_folds(members: Sequence[Member | ForeignMember], count: int) -> list[int]:
    """Folds that all members tell out-of-fold similarities of. RunFault where there is none."""
    return rank.common_folds([member.name for member in members], [member.folds for member in members], range(count))


def alike(similarities: Sequence[np.ndarray]) -> np.ndarray:
    """Which of several (C, M) similarities on one scale are equal: (members, members)."""
    return np.array([[np.allclose(one, other, rtol=0, atol=SAME) for other in similarities] for one in similarities])


def scales(member: Member) -> dict[int | None, Scale]:
    """Scale of each model: of the gallery that it had not seen; the model of all motions, which has none, takes the folds' mean."""
    own: dict[int | None, Scale] = {fold: Scale.of(member.similarity(fold)) for fold in member.folds}
    return own | {None: Scale.mean_of(list(own.values()))}
