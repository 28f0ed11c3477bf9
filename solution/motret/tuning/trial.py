"""One trial of a search, and one confirmation: train some folds with given values and keep the
per-motion scores."""

import contextlib
import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import TrialState

from motret.config.base import build_config, flatten
from motret.config.training import TrainConfig
from motret.data import dataset
from motret.data.dataset import TrainingData
from motret.data.folds import Folds, read_folds
from motret.errors import MachineError, MotretError, WriteError, first_line
from motret.evaluation import metrics
from motret.models.text_tower import TextTower
from motret.runs import oof
from motret.runs.history import EpochStats
from motret.runs.run import Run
from motret.training import fit as fit_module
from motret.training import train
from motret.training.context import FoldContext, TrainContext
from motret.tuning.budget import is_used_up
from motret.tuning.scores import SCORES, SCORES_DIR, check_shared_folder, save_scores
from motret.tuning.storage import connection_errors, named_connection_errors
from motret.tuning.study import (
    FAULT,
    LAST_REPORT,
    SURPLUS,
    WORKER,
    StudyPlan,
    confirmation_key,
    is_surplus,
    requeue_trial,
    score_of,
    trial_dir_name,
    worker_name,
    worker_study,
)
from motret.utils import claims, reading
from motret.utils.on_error import OnError
from motret.utils.parallel import begin_worker


class ValuesError(MotretError):
    """A training failed, and another one with other values may not."""

    @property
    def fault(self) -> str:
        """What went wrong, in one line."""
        return first_line(self.__cause__ or self)


FoldEpochCallback = Callable[[int, EpochStats], None]
"""Gets the position of a fold among the trial's folds, and the stats of each of its epochs; an
error it raises ends the training."""


@functools.lru_cache(maxsize=1)
def load_shared_data(base: TrainConfig) -> tuple[TrainingData, Folds, TrainContext, TextTower]:
    """What all trials of a process share."""
    data = dataset.load_training(base.data, base.machine.jobs, base.motion.features)
    context, tower = train.make_tower_and_context(base, data)
    return data, read_folds(data, base.data.folds_dir), context, tower


# ---- a trial


def run_trial(plan: StudyPlan, threads: int | None = None) -> str | None:
    """Runs one trial of the study; returns a line about it, None where the search is used up.

    A trial that fails is recorded. An error of the default configuration is raised: there would be
    nothing to compare with. So is what the system refuses, which other values would not avoid.
    """
    begin_worker(threads)
    with named_connection_errors(plan.tune_config.storage):
        study = worker_study(plan)
        while not is_used_up(plan, study):
            check_shared_folder(plan, study)
            number = _next_trial(plan, study)
            if study.trials[number].user_attrs.get(FAULT) != SURPLUS:
                return _describe_trial(plan, study, number)
    return None


def _next_trial(plan: StudyPlan, study: Study) -> int:
    """Runs the next trial; returns its number. It may end as failed, since another worker took this
    one for dead and runs it again."""
    load_shared_data(plan.base)  # an error in the data or the text tower is no trial's failure
    trials: list[optuna.Trial] = []
    taken_over: list[UpdateFinishedTrialError] = []

    def objective(trial: optuna.Trial) -> float:
        trials.append(trial)
        try:
            return _score_trial(plan, trial)
        except UpdateFinishedTrialError as error:
            taken_over.append(error)
            raise

    def put_back(error: BaseException) -> None:
        if trials:
            _put_back(plan, study, trials[0].number, error)

    try:
        with OnError(put_back):
            study.optimize(objective, n_trials=1, catch=(ValuesError,))
    except (UpdateFinishedTrialError, ValueError):  # the second comes from Optuna after the first
        if not taken_over:
            raise
    return trials[0].number


def _put_back(plan: StudyPlan, study: Study, number: int, error: BaseException) -> None:
    """Queues a trial again that an error ended for which its values cannot be blamed. WriteError
    where that is what ended it."""
    trial = study.trials[number]
    with contextlib.suppress(WriteError):  # the next call queues it (requeue_stale_trials)
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
        requeue_trial(plan, study, trial)
    if refused := _write_error_behind(error):
        raise refused from None


def _write_error_behind(error: BaseException | None) -> WriteError | None:
    """What the system refused where an error of Optuna's came of it."""
    while error is not None and not isinstance(error, WriteError):
        error = error.__context__
    return error


def _score_trial(plan: StudyPlan, trial: optuna.Trial) -> float:
    """Trains a trial's folds; keeps the per-motion scores in a file and returns the trial's
    score."""
    trial.set_user_attr(WORKER, worker_name())
    if is_surplus(plan, trial.study, trial.number):
        trial.set_user_attr(FAULT, SURPLUS)
        raise ValuesError(trial_dir_name(trial.number), SURPLUS, "it does not count")
    values = {
        name: _suggest(trial, name, distribution) for name, distribution in plan.space.items()
    }
    on_epoch_end = functools.partial(_report_epoch, plan, trial)
    try:
        scores = _try_values(plan, trial_dir_name(trial.number), values, plan.folds, on_epoch_end)
    except ValuesError as error:
        trial.set_user_attr(FAULT, error.fault)
        raise
    score = metrics.cluster_robust_mean(
        scores, val_groups(load_shared_data(plan.base)[1], plan.folds)
    )
    trial.set_user_attr("error", score.error)
    trial.set_user_attr(SCORES, save_scores(plan, str(trial.number), scores))
    return score.mean


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


def _report_epoch(plan: StudyPlan, trial: optuna.Trial, position: int, stats: EpochStats) -> None:
    """Reports an epoch of the fold at this position to the study. TrialPruned where the trial falls
    behind."""
    trial.report(stats.score, position * plan.base.fit.epochs + stats.epoch)
    trial.set_user_attr(LAST_REPORT, datetime.now().isoformat())
    if trial.params != plan.default and trial.should_prune():
        raise optuna.TrialPruned


def _describe_trial(plan: StudyPlan, study: Study, number: int) -> str:
    trial = study.trials[number]
    if trial.state == TrialState.PRUNED:
        return f"trial {number}: ended early"
    if trial.state == TrialState.FAIL:
        fault = trial.user_attrs.get(FAULT, "another worker runs it again")
        return f"trial {number}: failed ({fault})"
    score = f"{score_of(trial):.4f} +- {trial.user_attrs['error']:.4f}"
    return f"trial {number}: score {score}{_default_note(plan, trial.params)}"


# ---- a confirmation


def confirm_trial(
    plan: StudyPlan,
    number: int,
    values: Mapping[str, Any],
    fold: int,
    threads: int | None = None,
    wait: bool = False,
) -> str | None:
    """Trains a trial's values on a confirming fold, keeps the per-motion scores and returns a line
    about it; None where another worker does it, or did.

    wait: until that one has, or was killed. A finalist that fails there is recorded as such and
    cannot be adopted; an error of the default configuration is raised.
    """
    begin_worker(threads)
    claim = plan.folder / SCORES_DIR / f"{plan.name}-confirm{number}-{fold}.claim"
    with named_connection_errors(plan.tune_config.storage):
        study = worker_study(plan)
        turn: AbstractContextManager[bool | None]
        turn = claims.in_turn(claim) if wait else claims.claimed(claim, lambda: None)
        with turn as is_ours:
            is_missing = confirmation_key(number, fold) not in study.user_attrs
            if is_ours is False or not is_missing:
                return None
            return _score_confirmation(plan, study, number, values, fold)


def _score_confirmation(
    plan: StudyPlan, study: Study, number: int, values: Mapping[str, Any], fold: int
) -> str:
    name, task = f"confirm{number}-{fold}", f"confirm trial {number} on fold {fold}"
    try:
        scores = _try_values(plan, name, values, (fold,))
    except ValuesError as error:
        study.set_user_attr(confirmation_key(number, fold), {"fault": error.fault})
        return f"{task}: failed ({error.fault})"
    entry = {SCORES: save_scores(plan, name, scores)}
    study.set_user_attr(confirmation_key(number, fold), entry)
    score = metrics.cluster_robust_mean(scores, val_groups(load_shared_data(plan.base)[1], (fold,)))
    return f"{task}: score {score}{_default_note(plan, values)}"


# ---- what both do


def _try_values(
    plan: StudyPlan,
    name: str,
    values: Mapping[str, Any],
    folds: Sequence[int],
    on_epoch_end: FoldEpochCallback | None = None,
) -> np.ndarray:
    """What `train_folds` gives. ValuesError where it fails, whatever the reason; errors of the
    default configuration, of the study, and what the system refuses, stay as they are."""
    if values == plan.default:
        return train_folds(plan, name, values, folds, on_epoch_end)
    fix = "the search passes over it"
    passing: tuple[type[Exception], ...] = (OptunaError, *connection_errors())
    try:
        with reading.boundary(name, "cannot be trained", fix, ValuesError, passing, first_line):
            return train_folds(plan, name, values, folds, on_epoch_end)
    except (ValuesError, WriteError, MachineError):
        raise
    except MotretError as error:
        raise ValuesError(error.path, error.problem, error.fix) from error


def train_folds(
    plan: StudyPlan,
    name: str,
    values: Mapping[str, Any],
    folds: Sequence[int],
    on_epoch_end: FoldEpochCallback | None = None,
) -> np.ndarray:
    """Trains some folds with these values; returns the local score (M,) of each held-out motion.

    name: of the folder, which is removed afterwards.
    """
    data, all_folds, context, tower = load_shared_data(plan.base)
    config = build_config(TrainConfig, flatten(plan.base) | dict(values))
    folder = plan.folder / name
    run = Run(
        folder, config, {}, data.fingerprint, all_folds.hash, data.store.config, data.store.persons
    )
    scores = []
    try:
        for position, fold in enumerate(folds):
            fold_context = FoldContext(run, fold, data, all_folds, context, tower)
            fit_module.fit(fold_context, functools.partial(on_epoch_end or _ignore_epoch, position))
            out = oof.load_out_of_fold(run, fold)
            scores.append(metrics.caption_scores(out.similarity(), out.motion_idx))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return np.concatenate(scores)


def _ignore_epoch(_position: int, _stats: EpochStats) -> None:
    """A callback, so that no progress bar is shown."""


def val_groups(all_folds: Folds, folds: Sequence[int]) -> np.ndarray:
    """Groups (M,) of the motions that these folds hold out, in the order of `train_folds`."""
    return np.concatenate([all_folds.group[all_folds.val_idx(fold)] for fold in folds])


def _default_note(plan: StudyPlan, values: Mapping[str, Any]) -> str:
    return " (the default configuration)" if values == plan.default else ""
