"""One Optuna study per search: its plan, its storage, its sampler, and what becomes of trials whose
worker died.

The study is all that workers share: each trial belongs to the worker that asked for it. Trial 0 is
the default configuration; the values of a later trial follow from the seed and its number, so one
worker repeats the same search, interrupted or not. The study also names the files with the
per-motion scores of each completed trial and of each confirmation (`scores`), so any worker can
compare them and an interrupted search resumes.
"""

import functools
import os
import shutil
import socket
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from motret.config.scripts import TuneConfig
from motret.config.training import TrainConfig
from motret.errors import RunError, first_line
from motret.runs.run import settings_hash
from motret.tuning import tuned_values
from motret.tuning.journal import Journal, repair_journal
from motret.tuning.storage import open_storage
from motret.utils import files
from motret.utils.process_tokens import (
    has_ended,
    host_start,
    is_alive,
    is_of_this_host,
    process_token,
)

N_STARTUP_TRIALS = 5
"""Random trials before the sampler learns from earlier ones, and before the pruner ends any."""
ENDED_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
RETRY_OF = "runs again"
"""Attribute of a trial: the number of the stale or failed trial whose values it runs again."""
WORKER, LAST_REPORT, FAULT = "worker", "heard", "fault"
"""Attributes of a trial: host and process of its worker, the time of its last epoch, and why it
failed, if that was due to its values."""
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError)
"""What Optuna raises where a journal holds something else."""
STALE_AFTER = timedelta(hours=12)
"""A worker on another machine is dead if it has ended no epoch for so long; for storages without a
heartbeat."""
NAMELESS_AFTER = timedelta(minutes=10)
"""A worker is dead that has not put its name to its trial for so long, which it does at once."""
SURPLUS = "one too many: workers began more trials at the same time than were left"
"""The fault of a trial that does not count."""


@dataclass(frozen=True)
class StudyPlan:
    """A variant's search: all that a worker in another process needs to take part.

    base: the default configuration as a trial trains it; space, default: what is searched, and its
    values in `base`; max_minutes: time limit of this variant; identity: what the result depends on;
    folds: that a trial trains and is scored on; confirm_folds: other folds, on which the best
    trials are confirmed.
    """

    base: TrainConfig
    tune_config: TuneConfig
    space: dict[str, BaseDistribution]
    default: dict[str, Any]
    max_minutes: float | None
    identity: dict[str, Any]
    folds: tuple[int, ...]
    confirm_folds: tuple[int, ...] = ()

    @property
    def folder(self) -> Path:
        """Folder of the results."""
        return tuned_values.tuning_dir(self.tune_config.out_dir, self.base.variant)

    @property
    def name(self) -> str:
        """Name of the study: another one for whatever makes trials incomparable."""
        space = {name: str(distribution) for name, distribution in self.space.items()}
        pruner = self.tune_config.pruner
        content = (self.identity, settings_hash(self.base), space, len(self.folds), pruner)
        return f"{self.base.variant}-{files.content_hash(*content)}"


class TrialSeededSampler(BaseSampler):
    """The default configuration for trial 0; for others TPE, seeded with the search's seed and the
    trial's number. Trials that run again are not counted, and have the seed of the first try."""

    def __init__(self, seed: int, default: Mapping[str, Any]):
        self.seed, self.default = seed, default
        self.tpe = TPESampler(seed=seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        earlier = study.get_trials(deepcopy=False)[: trial.number]
        draw = sum(RETRY_OF not in one.user_attrs for one in earlier[: first_try(earlier, trial)])
        seed = int(np.random.SeedSequence([self.seed, draw]).generate_state(1)[0])
        self.tpe = TPESampler(
            seed=seed, multivariate=True, group=True, n_startup_trials=N_STARTUP_TRIALS
        )
        self.tpe.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {} if trial.number == 0 else self.tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {} if trial.number == 0 else self.tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        if trial.number == 0:
            return self.default[param_name]
        return self.tpe.sample_independent(study, trial, param_name, param_distribution)


# ---- storage


_open_studies: dict[tuple[Any, ...], Study] = {}
"""The study that this process has open, by what `worker_study` knows it by."""


def worker_study(plan: StudyPlan, reopen: bool = False) -> Study:
    """The study of this search, which each worker opens once. Errors as in `open_study`.

    reopen: opens it again. So does a journal that was replaced since.
    """
    key = _study_key(plan)
    if reopen or key not in _open_studies:
        _open_studies.clear()
        study = open_study(plan)
        _open_studies[_study_key(plan)] = study
        return study
    return _open_studies[key]


def _study_key(plan: StudyPlan) -> tuple[Any, ...]:
    journal, url = _journal_file(plan), plan.tune_config.storage
    inode = journal.stat().st_ino if url is None and journal.exists() else None
    return os.getpid(), url, journal, inode, plan.name


def open_study(plan: StudyPlan) -> Study:
    """The study of this search, created where there is none. ConfigError where its storage cannot
    be opened."""
    optuna.logging.set_verbosity(
        optuna.logging.ERROR
    )  # trials that fail are reported by `run_trial`
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    url = plan.tune_config.storage
    if url is None:
        return _open_journal(plan)
    return _create_study(plan, open_storage(url, functools.partial(requeue_trial, plan)))


def _create_study(plan: StudyPlan, storage: BaseStorage) -> Study:
    return optuna.create_study(
        study_name=plan.name,
        storage=storage,
        sampler=TrialSeededSampler(plan.base.machine.seed, plan.default),
        pruner=_make_pruner(plan),
        direction="maximize",
        load_if_exists=True,
    )


def _open_journal(plan: StudyPlan) -> Study:
    """The study of the journal file, repaired where that is needed. RunError where it cannot be."""
    path = _journal_file(plan)
    try:
        return _create_study(plan, JournalStorage(Journal(path)))
    except UNREADABLE:  # a line is not whole, perhaps
        repair_journal(path)
    try:
        return _create_study(plan, JournalStorage(Journal(path)))
    except UNREADABLE as error:
        problem = f"cannot be read ({first_line(error)})"
        raise RunError(path, problem, "move it away: a new search begins") from error


def _journal_file(plan: StudyPlan) -> Path:
    """The journal, by its absolute path: where links stand for locks, a relative one would
    dangle."""
    return (plan.folder / "journal.log").resolve()


def _make_pruner(plan: StudyPlan) -> BasePruner:
    epochs = plan.base.fit.epochs
    if plan.tune_config.pruner == "median":
        return MedianPruner(n_startup_trials=N_STARTUP_TRIALS, n_warmup_steps=epochs // 2)
    if plan.tune_config.pruner == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=epochs * len(plan.folds))
    return NopPruner()


# ---- stale trials


def requeue_stale_trials(plan: StudyPlan, study: Study) -> None:
    """Queues the trials of dead workers again; of several workers that try it one succeeds.

    So it does those that a worker ended for a reason that was not theirs, and was stopped before it
    queued them again.
    """
    optuna.storages.fail_stale_trials(study)  # by heartbeat, where the storage has one
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if is_stale(trial):
            try:
                study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, RuntimeError):  # another worker was quicker
                continue
            requeue_trial(plan, study, trial)
    for trial in ended_trials(study):
        if trial.state == TrialState.FAIL and FAULT not in trial.user_attrs:
            requeue_trial(plan, study, trial)


def worker_name() -> str:
    """Host and process of this worker, as `is_stale` reads them."""
    return f"{socket.gethostname()}:{process_token()}"


def is_stale(trial: FrozenTrial) -> bool:
    """Whether the worker of a running trial is dead: its process on this machine is gone, the
    machine was started again, a worker elsewhere was silent for too long, or it has no name.

    While this machine runs, the time says nothing: clocks are set.
    """
    host, _, process = trial.user_attrs.get(WORKER, "").rpartition(":")
    start = trial.datetime_start or datetime.now()
    last_report = datetime.fromisoformat(trial.user_attrs.get(LAST_REPORT, start.isoformat()))
    if not process:
        return datetime.now() - start > NAMELESS_AFTER
    if host == socket.gethostname():
        if process.isdecimal():  # of a version that recorded the number alone
            return not is_alive(int(process))
        if is_of_this_host(process):
            return has_ended(process)
        if last_report < host_start():
            return True
    return datetime.now() - last_report > STALE_AFTER


def requeue_trial(plan: StudyPlan, study: Study, trial: FrozenTrial) -> None:
    """Queues the values of a failed trial again and removes its folder, unless that was done.

    Of two workers that queue it at the same time both do; `is_surplus` finds the second.
    """
    trials = study.get_trials(deepcopy=False)
    if any(other.user_attrs.get(RETRY_OF) == trial.number for other in trials):
        return
    shutil.rmtree(plan.folder / trial_dir_name(trial.number), ignore_errors=True)
    values = (
        plan.default if trial.number == 0 else trial.system_attrs.get("fixed_params", trial.params)
    )
    if values.keys() != plan.space.keys():
        values = {}  # drawn in part: the sampler, seeded as before, draws all of them again
    study.enqueue_trial(values, user_attrs={RETRY_OF: trial.number})


# ---- trials of a study


def ended_trials(study: Study) -> list[FrozenTrial]:
    """The trials that have ended, without those that are run again or one too many."""
    trials = study.get_trials(deepcopy=False)
    retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    return [
        trial
        for trial in trials
        if trial.state in ENDED_STATES
        and trial.number not in retried
        and trial.user_attrs.get(FAULT) != SURPLUS
    ]


def is_surplus(plan: StudyPlan, study: Study, number: int) -> bool:
    """Whether a trial that has begun is one too many.

    Workers that look at the same time all see that a trial is left, or that one is to be run again.
    The order of numbers, which the storage gives, decides for all of them alike.
    """
    trials = study.get_trials(deepcopy=False)
    trial, earlier = trials[number], trials[:number]
    retried = trial.user_attrs.get(RETRY_OF)
    if retried is not None and any(one.user_attrs.get(RETRY_OF) == retried for one in earlier):
        return True
    counted = [
        RETRY_OF not in one.user_attrs and one.user_attrs.get(FAULT) != SURPLUS
        for one in earlier[: first_try(earlier, trial)]
    ]
    return sum(counted) >= plan.tune_config.trials


def first_try(earlier: Sequence[FrozenTrial], trial: FrozenTrial) -> int:
    """The number of the trial that a trial runs again, through all its tries; its own where it is
    the first. earlier: all trials before it."""
    while RETRY_OF in trial.user_attrs:
        trial = earlier[trial.user_attrs[RETRY_OF]]
    return trial.number


def completed_trials(study: Study) -> list[FrozenTrial]:
    """The trials that have a score."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def default_trial(plan: StudyPlan, study: Study) -> FrozenTrial | None:
    """The completed trial of the default configuration."""
    return next((trial for trial in completed_trials(study) if trial.params == plan.default), None)


def score_of(trial: FrozenTrial) -> float:
    """The score of a completed trial."""
    assert trial.value is not None, "only completed trials have a score"
    return trial.value


def trial_dir_name(number: int) -> str:
    """Folder in which a trial trains; removed when it ends. It is no run: only folders with an
    args.json are."""
    return f"trial{number}"


def confirmation_key(number: int, fold: int) -> str:
    """Attribute of the study that keeps a trial's scores on a confirming fold."""
    return f"confirm {number} {fold}"


def format_folds(folds: Sequence[int]) -> str:
    """`fold 0`, `folds 1, 2`."""
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"
