"""Members of an ensemble: which runs and foreign files take part, identical ones as one, and what each says out of fold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from motret.config.scripts import EnsembleConfig
from motret.data.dataset import TrainingData
from motret.data.features import FeatureConfig
from motret.data.folds import Folds
from motret.ensemble import tta
from motret.ensemble.external import ExternalPredictions
from motret.ensemble.tta import TtaView
from motret.errors import RunError
from motret.evaluation import local_score
from motret.evaluation.z_score import ZScore
from motret.runs import oof
from motret.runs import run as run_module
from motret.runs.run import Run, list_runs, same_configuration, select_runs, with_output_dir

SAME_TOLERANCE = 1e-4
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
    views: tuple[TtaView, ...] = ()

    @property
    def features(self) -> FeatureConfig:
        """How its models see motions."""
        return self.models[0][0].features

    def vectors(self, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """(C, v) and (M, v) of the captions and motions that the fold holds out; their products are similarities."""
        return tta.concat_views(*self.plain_vectors(fold), [tta.load_view_embeddings(self.folds[fold], fold, view) for view in self.views])

    def plain_vectors(self, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """The same without views."""
        return oof.load_out_of_fold(self.folds[fold], fold).vectors(self.folds[fold].part_weight)

    def deviations(self, part: int | None) -> list[float]:
        """Of each view's similarities, as a multiple of the plain ones'; for the model of all motions (None) the folds' mean."""
        folds = list(self.folds) if part is None else [part]
        return [float(np.mean([tta.load_view_embeddings(self.folds[fold], fold, view).deviation for fold in folds])) for view in self.views]

    def similarity(self, fold: int) -> np.ndarray:
        """(C, M) captions and motions that the fold holds out, on the member's own scale."""
        text, motion = self.vectors(fold)
        return text @ motion.T

    def only(self, fold: int) -> "Member":
        """The member with the model of one fold alone. RunError where it has none."""
        models = tuple(model for model in self.models if model[1] == fold)
        if not models:
            raise RunError(self.name, f"has not finished fold {fold}", "leave it out of --runs, or train that fold of it")
        return replace(self, models=models)


@dataclass(frozen=True)
class ExternalMember:
    """A file made elsewhere; it has no models, so it cannot be asked for anything but what stands in it."""

    name: str
    told: ExternalPredictions

    @property
    def folds(self) -> Mapping[int, np.ndarray]:
        return self.told.out_of_fold

    def similarity(self, fold: int) -> np.ndarray:
        return self.told.out_of_fold[fold].astype(np.float32)


def gather_members(config: EnsembleConfig, data: TrainingData, folds: Folds) -> list[Member]:
    """The members that are named, or all finished ones of this data and these folds.

    Runs of one kind (`run.same_configuration`) are one member. A model of all motions takes part beside its folds; alone, where it is named
    and another run of its kind tells what its local score would be. RunError where nothing does.
    """
    there = [run for run in list_runs(config.out_dir) if (run.data, run.folds) == (data.fingerprint, folds.hash)]
    chosen = select_runs(config.runs, config.out_dir, data, folds)
    if not config.runs:  # the models of all motions of those that are taken
        chosen += [
            run
            for run in there
            if run.has_full_model() and not run.finished_folds() and any(same_configuration(run, one) for one in chosen)
        ]
        _say_left_out([run for run in list_runs(config.out_dir) if run.name not in {one.name for one in chosen}], data, folds)
    alike: list[list[Run]] = []
    for run in chosen:
        own = next((own for own in alike if all(same_configuration(run, one) for one in own)), None)
        if own is None:
            alike.append([run])
        else:
            own.append(run)
    found = []
    for own in alike:
        twins = [run for run in there if all(same_configuration(run, one) for one in own)]
        member = _with_part_weight(_make_member(own, twins), folds, config.part_weight)
        kept = {fold: with_output_dir(run, config.data.work_dir) for fold, run in member.folds.items()}
        found.append(replace(member, folds=kept))
    return found if config.fold is None else [member.only(config.fold) for member in found]


def _say_left_out(left: Sequence[Run], data: TrainingData, folds: Folds) -> None:
    """Says which runs do not take part, and why."""
    told = []
    for run in left:
        why = "other data" if run.data != data.fingerprint else "other folds" if run.folds != folds.hash else None
        told.append(f"{run.name} ({why or f'{len(run.finished_folds())} of {folds.count} folds finished'})")
    if told:
        print(f"left aside: {', '.join(told)}")


def _make_member(own: Sequence[Run], twins: Sequence[Run]) -> Member:
    """Runs of the same settings as one member. twins: all runs of these settings, asked for folds where `own` have none."""
    folds = {fold: run for run in reversed(own) for fold in run.finished_folds()}
    full = next((run for run in own if run.has_full_model()), None)
    models = [(run, fold) for fold, run in sorted(folds.items())] + ([(full, None)] if full else [])
    if not models:
        raise RunError(own[0].folder, "has no finished model", "finish it with --resume auto, or leave it out of --runs")
    folds = folds or {fold: run for run in twins for fold in run.finished_folds()}
    if not folds:
        problem = "holds a model of all motions alone, and no run with the same settings tells its local score"
        raise RunError(own[0].folder, problem, "train its folds as well: the same command with --fold all and another --run_name")
    return Member(
        next((run.name for run in own if run.finished_folds()), own[0].name), folds, tuple(models), tuple(run.name for run in own)
    )


def _with_part_weight(member: Member, folds: Folds, wanted: float | str) -> Member:
    """The member with the part weight that is wanted, which all of its runs share."""
    weight = local_score.with_part_weight(next(iter(member.folds.values())), folds, wanted).part_weight
    models = tuple((replace(run, part_weight=weight), fold) for run, fold in member.models)
    return replace(member, folds={fold: replace(run, part_weight=weight) for fold, run in member.folds.items()}, models=models)


def common_folds(members: Sequence[Member | ExternalMember], count: int) -> list[int]:
    """Folds that all members tell out-of-fold similarities of. RunError where there is none."""
    return run_module.common_folds([member.name for member in members], [member.folds for member in members], range(count))


def equal_similarities(similarities: Sequence[np.ndarray]) -> np.ndarray:
    """Which of several (C, M) similarities on one scale are equal: (members, members)."""
    return np.array([[np.allclose(one, other, rtol=0, atol=SAME_TOLERANCE) for other in similarities] for one in similarities])


def model_scales(member: Member) -> dict[int | None, ZScore]:
    """Scale of each model: of the gallery that it had not seen; the model of all motions, which has none, takes the folds' mean."""
    own: dict[int | None, ZScore] = {fold: ZScore.of(member.similarity(fold)) for fold in member.folds}
    return own | {None: ZScore.mean_of(list(own.values()))}
