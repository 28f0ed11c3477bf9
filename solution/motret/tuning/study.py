"""The search for a variant's settings: one Optuna study in which any number of workers take part, and what it found.

The study is the only thing that workers share: whoever asks it for a trial has that trial to himself. Trial 0 is the default
configuration; what a later one draws follows from the seed and its number alone, so one worker repeats the same search, broken off
or not. The per-motion scores of a finished trial are kept in the study, so that any worker can compare it with the default.

When the trials are through, the best few and the default are trained once more on folds that the study did not use, and only what is
confirmed there is adopted (`confirmation`). These scores are kept in the study too, so that a stopped confirmation goes on.
"""

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
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from motret.config.scripts import TuneConfig
from motret.config.training import TrainConfig
from motret.errors import ConfigError
from motret.runs.run import settings_hash
from motret.tuning import tuned_values
from motret.utils import files

N_STARTUP_TRIALS = 5
"""Trials drawn at random before the sampler has something to go by; as many before the pruner ends any."""
ENDED_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
RETRY_OF = "runs again"
"""Attribute of a trial: the number of the lost one whose values it takes."""
STALE_AFTER = timedelta(hours=12)
"""A worker of which nothing was heard for so long is dead, on whatever machine; each epoch of a trial is heard of."""


@dataclass(frozen=True)
class StudyPlan:
    """A variant's search: all that a worker in another process needs to take part.

    base: the default configuration as a trial trains it; space, default: what is searched, and its values in `base`;
    minutes: time limit of this variant; belongs: what the result will depend on; folds: that a trial trains and is scored on;
    confirming: other folds, on which the best trials are confirmed.
    """

    base: TrainConfig
    asked: TuneConfig
    space: dict[str, BaseDistribution]
    default: dict[str, Any]
    minutes: float | None
    belongs: dict[str, Any]
    folds: tuple[int, ...]
    confirming: tuple[int, ...] = ()

    @property
    def folder(self) -> Path:
        return tuned_values.tuning_dir(self.asked.out_dir, self.base.variant)

    @property
    def name(self) -> str:
        """Of the study: another one for whatever makes trials incomparable."""
        space = {name: str(distribution) for name, distribution in self.space.items()}
        parts = (self.belongs, settings_hash(self.base), space, len(self.folds), self.asked.pruner)
        return f"{self.base.variant}-{files.content_hash(*parts)}"


class TrialSeededSampler(BaseSampler):
    """The default configuration for trial 0; for each other a TPE sampler seeded with the search's seed and the trial's number."""

    def __init__(self, seed: int, default: Mapping[str, Any]):
        self.seed, self.default = seed, default
        self.tpe = TPESampler(seed=seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        seed = int(np.random.SeedSequence([self.seed, trial.number]).generate_state(1)[0])
        self.tpe = TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=N_STARTUP_TRIALS)
        self.tpe.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {} if trial.number == 0 else self.tpe.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return {} if trial.number == 0 else self.tpe.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        return self.default[param_name] if trial.number == 0 else self.tpe.sample_independent(study, trial, param_name, param_distribution)


def format_folds(folds: Sequence[int]) -> str:
    """`fold 0`, `folds 1, 2`."""
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"


def open_study(search: StudyPlan) -> Study:
    """The study of this search, made where there is none. ConfigError where its storage cannot be had."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    journal = (search.folder / "journal.log").resolve()  # its lock is a link to it, which a relative path would leave dangling
    pruners = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=N_STARTUP_TRIALS, n_warmup_steps=search.base.fit.epochs // 2),
        "hyperband": optuna.pruners.HyperbandPruner(min_resource=1, max_resource=search.base.fit.epochs * len(search.folds)),
        "none": optuna.pruners.NopPruner(),
    }
    try:
        storage = optuna.storages.journal.JournalFileBackend(str(journal)) if search.asked.storage is None else search.asked.storage
        return optuna.create_study(
            study_name=search.name,
            storage=optuna.storages.JournalStorage(storage) if search.asked.storage is None else storage,
            sampler=TrialSeededSampler(search.base.machine.seed, search.default),
            pruner=pruners[search.asked.pruner],
            direction="maximize",
            load_if_exists=True,
        )
    except Exception as error:  # whatever the driver of a data base raises
        place = search.asked.storage or str(journal)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError("--storage", f"{place} cannot be opened ({reason})", "give an Optuna URL whose driver is installed") from error


def requeue_stale_trials(search: StudyPlan, study: Study) -> None:
    """Queues the trials of dead workers again; exactly one of several that try it succeeds."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if is_stale(trial):
            requeue_trial(search, study, trial)


def is_stale(trial: FrozenTrial) -> bool:
    """Whether the worker of a running trial is dead: its process on this machine is gone, or nothing was heard of it for long."""
    host, _, process = trial.user_attrs.get("worker", "").rpartition(":")
    if host == socket.gethostname() and not _is_alive(int(process)):
        return True
    heard = datetime.fromisoformat(trial.user_attrs.get("heard", trial.datetime_start.isoformat()))
    return datetime.now() - heard > STALE_AFTER


def requeue_trial(search: StudyPlan, study: Study, trial: FrozenTrial) -> None:
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, RuntimeError):  # another worker was quicker
        return
    shutil.rmtree(search.folder / trial_dir_name(trial.number), ignore_errors=True)
    values = search.default if trial.number == 0 else trial.system_attrs.get("fixed_params", trial.params)
    study.enqueue_trial(values, user_attrs={RETRY_OF: trial.number})


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def ended_trials(study: Study) -> list[FrozenTrial]:
    """The trials that have come to an end, those that are run again left out."""
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    return [trial for trial in trials if trial.state in ENDED_STATES and trial.number not in again]


def trial_dir_name(number: int) -> str:
    """Folder in which a trial trains; gone when it ends. Not a run: only folders with an args.json are."""
    return f"trial{number}"


def confirmation_key(number: int, fold: int) -> str:
    """Attribute of the study that keeps a trial's scores on a confirming fold."""
    return f"confirm {number} {fold}"


def completed_trials(study: Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def default_trial(search: StudyPlan, study: Study) -> FrozenTrial | None:
    """The finished trial of the default configuration."""
    return next((trial for trial in completed_trials(study) if trial.params == search.default), None)
