"""Members of an ensemble: the runs that take part, those of the same settings as one member."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from motret.config.scripts import EnsembleConfig
from motret.data.dataset import TrainingData
from motret.data.features import FeatureConfig
from motret.data.folds import Folds
from motret.ensemble import tta
from motret.ensemble.external import ExternalMember
from motret.ensemble.galleries import MemberGallery, ViewEmbeddings
from motret.ensemble.tta import TtaView
from motret.errors import RunError
from motret.evaluation import local_score
from motret.evaluation.z_score import ZScore
from motret.runs import oof, selection
from motret.runs.run import (
    Run,
    list_runs,
    same_configuration,
    training_command,
    with_output_dir,
)
from motret.runs.selection import select_runs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """Runs of the same settings, data, folds, part texts and text tower, which count as one.

    folds: fold -> the run that has its model and its out-of-fold embeddings; models: the models
    that rank queries, as run and fold (None: the model of all motions); runs: names of all its
    runs; views: kind -> the test-time views that its models are asked for.
    """

    name: str
    folds: Mapping[int, Run]
    models: tuple[tuple[Run, int | None], ...]
    runs: tuple[str, ...]
    views: Mapping[str, tuple[TtaView, ...]] = field(default_factory=dict)

    @property
    def features(self) -> FeatureConfig:
        """The features that its models take."""
        return self.models[0][0].features

    @property
    def persons(self) -> int:
        """Persons in each motion that its models take."""
        return self.models[0][0].persons

    @property
    def all_views(self) -> list[TtaView]:
        """Its views, of one kind after the other."""
        return [view for views in self.views.values() for view in views]

    def with_views(self, kinds: Sequence[str]) -> "Member":
        """The member with those of its views that are of these kinds."""
        return replace(self, views={kind: self.views[kind] for kind in kinds if kind in self.views})

    def plain_embeddings(self, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """(C, v) and (M, v) embeddings of what a fold holds out, without views."""
        run = self.folds[fold]
        return oof.load_out_of_fold(run, fold).vectors(run.part_weight)

    def view_embeddings(self, fold: int) -> dict[str, tuple[ViewEmbeddings, ...]]:
        """Kind -> embeddings of what a fold holds out in its views, from the cache.

        RunError where they are not there.
        """
        return {
            kind: tuple(self._load_view(fold, view) for view in views)
            for kind, views in self.views.items()
        }

    def gallery(self, fold: int) -> MemberGallery:
        """What a fold holds out, as the member embeds it, with its views."""
        return MemberGallery(*self.plain_embeddings(fold), self.view_embeddings(fold))

    def deviations(self, fold: int | None) -> list[float]:
        """Deviation of each view (`ViewEmbeddings`) in a fold.

        For the model of all motions (None) the mean over the folds.
        """
        folds = list(self.folds) if fold is None else [fold]
        return [
            float(np.mean([self._load_view(of, view).deviation for of in folds]))
            for view in self.all_views
        ]

    def model_scales(self, with_views: bool = True) -> dict[int | None, ZScore]:
        """Fold -> scale of its model's similarities, those of its held-out gallery.

        The model of all motions (None), which has no such gallery, takes the mean over the folds.
        """
        member = self if with_views else self.with_views(())
        scales: dict[int | None, ZScore] = {
            fold: ZScore.of(member.gallery(fold).similarity(tuple(member.views)))
            for fold in self.folds
        }
        return scales | {None: ZScore.mean_of(list(scales.values()))}

    def only(self, fold: int) -> "Member":
        """The member with the model of one fold alone. RunError where it has none."""
        models = tuple(model for model in self.models if model[1] == fold)
        if not models:
            raise RunError(
                self.name,
                f"has not finished fold {fold}",
                "leave it out of --runs, or train that fold of it",
            )
        return replace(self, models=models)

    def _load_view(self, fold: int, view: TtaView) -> ViewEmbeddings:
        embeddings = tta.load_view_embeddings(self.folds[fold], fold, view)
        if embeddings is None:
            folder = self.folds[fold].output_dir
            raise RunError(
                folder,
                f"its view {view.name} of fold {fold} cannot be read",
                "run ensemble.py again",
            )
        return embeddings


def gather_members(config: EnsembleConfig, data: TrainingData, folds: Folds) -> list[Member]:
    """The members that are named, or all finished ones of this data and these folds.

    Runs of the same settings (`run.same_configuration`) are one member. A model of all motions
    joins the folds of its settings. It may also be named alone, where another run of its settings
    has the out-of-fold embeddings. RunError where none has.
    """
    same_data = [
        run
        for run in list_runs(config.out_dir, config.allow_towers)
        if (run.data, run.folds) == (data.fingerprint, folds.hash)
    ]
    selected = select_runs(
        config.runs, config.out_dir, data, folds, allow_towers=config.allow_towers
    )
    if not config.runs:
        selected += [
            run
            for run in same_data
            if run.has_full_model()
            and not run.finished_folds()
            and any(same_configuration(run, other) for other in selected)
        ]
        names = {run.name for run in selected}
        _report_left_out(
            [
                run
                for run in list_runs(config.out_dir, config.allow_towers)
                if run.name not in names
            ],
            data,
            folds,
        )
    members = []
    for runs in _group_by_configuration(selected):
        twins = [run for run in same_data if all(same_configuration(run, other) for other in runs)]
        member = _with_part_weight(_make_member(runs, twins), folds, config.part_weight)
        in_output_dir = {
            fold: with_output_dir(run, config.data.work_dir) for fold, run in member.folds.items()
        }
        members.append(replace(member, folds=in_output_dir))
    return members if config.fold is None else [member.only(config.fold) for member in members]


def common_folds(members: Sequence[Member | ExternalMember], count: int) -> list[int]:
    """Folds that all members have out-of-fold predictions of. RunError where there is none."""
    names = [member.name for member in members]
    return selection.common_folds(names, [member.folds for member in members], range(count))


def _report_left_out(runs: Sequence[Run], data: TrainingData, folds: Folds) -> None:
    """Logs which runs do not take part, and why."""
    reasons = []
    for run in runs:
        if run.data != data.fingerprint:
            reason = "other data"
        elif run.folds != folds.hash:
            reason = "other folds"
        else:
            reason = f"{len(run.finished_folds())} of {folds.count} folds finished"
        reasons.append(f"{run.name} ({reason})")
    if reasons:
        logger.info("left out: %s", ", ".join(reasons))


def _group_by_configuration(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs of the same settings together, in the order of their first."""
    groups: list[list[Run]] = []
    for run in runs:
        group = next(
            (group for group in groups if all(same_configuration(run, other) for other in group)),
            None,
        )
        if group is None:
            groups.append([run])
        else:
            group.append(run)
    return groups


def _make_member(runs: Sequence[Run], twins: Sequence[Run]) -> Member:
    """Runs of the same settings as one member.

    twins: all runs of these settings, used for folds where `runs` have none.
    """
    folds = {fold: run for run in reversed(runs) for fold in run.finished_folds()}
    full = next((run for run in runs if run.has_full_model()), None)
    models: list[tuple[Run, int | None]] = [(run, fold) for fold, run in sorted(folds.items())]
    models += [(full, None)] if full else []
    if not models:
        fix = f"finish it: {training_command(runs[0].fold_dir(0))}, or leave it out of --runs"
        raise RunError(runs[0].folder, "has no finished model", fix)
    folds = folds or {fold: run for run in twins for fold in run.finished_folds()}
    if not folds:
        problem = "holds a model of all motions alone, and no run of these settings has folds"
        fix = "train its folds as well: the same command with --fold all and another --run_name"
        raise RunError(runs[0].folder, problem, fix)
    name = next((run.name for run in runs if run.finished_folds()), runs[0].name)
    return Member(name, folds, tuple(models), tuple(run.name for run in runs))


def _with_part_weight(member: Member, folds: Folds, requested: float | str) -> Member:
    """The member with the requested part weight in all of its runs, or the one that auto finds."""
    weight = local_score.with_part_weight(
        next(iter(member.folds.values())), folds, requested
    ).part_weight
    models = tuple((replace(run, part_weight=weight), fold) for run, fold in member.models)
    by_fold = {fold: replace(run, part_weight=weight) for fold, run in member.folds.items()}
    return replace(member, folds=by_fold, models=models)
