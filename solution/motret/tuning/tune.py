"""The search for a variant's settings: trials until the budget is used up, the best of them
confirmed, the results written.

When the trials are through, the best few and the default are trained once more on folds that the
study did not use, and only what is confirmed there is adopted (`confirmation`).
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import joblib
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from optuna.study import Study
from optuna.trial import FrozenTrial
from tqdm import tqdm

from motret.config.base import build_config, flatten
from motret.config.scripts import TuneConfig
from motret.config.training import TrainConfig
from motret.data.dataset import TrainingData
from motret.data.folds import Folds
from motret.errors import ConfigError, RunError
from motret.training import train
from motret.tuning import tuned_values
from motret.tuning.budget import choose_finalists, n_jobs
from motret.tuning.results import collect_results, describe_result, write_results
from motret.tuning.search_space import space_of
from motret.tuning.storage import named_connection_errors
from motret.tuning.study import (
    StudyPlan,
    completed_trials,
    confirmation_key,
    default_trial,
    ended_trials,
    format_folds,
    requeue_stale_trials,
    score_of,
    worker_study,
)
from motret.tuning.trial import confirm_trial, run_trial
from motret.utils import files, progress

logger = logging.getLogger(__name__)

TRIAL_SETTINGS = {
    "eval_interval": 1,
    "max_minutes": None,
    "save_every": 0,
    "early_stop_patience": 0,
}
"""How a trial trains: scored after every epoch, without limits of its own."""
NO_RUN = {"fold": "all", "run_name": None, "resume": None, "tuned": "none", "log": "none"}
"""A trial is no run: settings that say which run, and from where, are at their defaults."""


def tune(
    config: TrainConfig,
    sources: Mapping[str, str],
    tune_config: TuneConfig,
    time_fraction: float = 1.0,
) -> str:
    """Searches for a variant's settings until its trials or its time are used up; writes the
    results.

    time_fraction: of --max_minutes, for this variant. Returns a line that describes the result.
    """
    config, sources = train.apply_weights_settings(config, sources)
    data, folds = train.load_data(config, sources)
    plan = plan_study(config, sources, tune_config, data, folds, time_fraction)
    files.make_dir(plan.folder)
    with named_connection_errors(tune_config.storage):
        study = worker_study(plan, reopen=True)
        requeue_stale_trials(plan, study)
        n_before = len(ended_trials(study))
        logger.info(_describe_folds(plan))
        _run_trials(plan, study)
        _run_confirmations(plan, study)
        result = collect_results(plan, study, folds)
        write_results(plan, study, result, redraw=len(ended_trials(study)) > n_before)
        return describe_result(plan, study, result)


# ---- the plan


def plan_study(
    config: TrainConfig,
    sources: Mapping[str, str],
    tune_config: TuneConfig,
    data: TrainingData,
    folds: Folds,
    time_fraction: float = 1.0,
) -> StudyPlan:
    """What is searched, and how a trial trains. ConfigError where nothing is left to search, or no
    fold to confirm on."""
    flags = {name for name, source in sources.items() if source == "flag"}
    only = (tune_config.search or "").replace(",", " ").split()
    space, default = space_of(config, flags, only)
    if not space:
        problem = "flags give every setting that would be searched"
        raise ConfigError("tune.py", problem, "leave some of them out")
    epochs = {"epochs": min(config.fit.epochs, tune_config.trial_epochs)}
    tune_folds, confirm_folds = _split_folds(tune_config, folds.count)
    minutes = tune_config.max_minutes
    return StudyPlan(
        base=build_config(TrainConfig, flatten(config) | epochs | TRIAL_SETTINGS | NO_RUN),
        tune_config=tune_config,
        space=space,
        default=default,
        max_minutes=None if minutes is None else minutes * time_fraction,
        identity=tuned_values.tuning_identity(config, data.fingerprint, folds.hash),
        folds=tune_folds,
        confirm_folds=confirm_folds,
    )


def _split_folds(tune_config: TuneConfig, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The folds to search on and those to confirm on.

    ConfigError where the search leaves no fold to confirm on, unless there is one fold in all.
    """
    n_tune = tune_config.tune_folds
    if count > 1 and n_tune >= count:
        problem = f"is {n_tune} of {count} folds, which leaves none to confirm the best trials on"
        raise ConfigError("--tune_folds", problem, f"give at most {count - 1}")
    n_all = min(count, n_tune + tune_config.confirm_folds)
    return tuple(range(n_tune))[:count], tuple(range(n_tune, n_all))


def _describe_folds(plan: StudyPlan) -> str:
    """Which folds are searched on and which confirm."""
    confirm = "no other fold to confirm on"
    if plan.confirm_folds:
        confirm = f"the best confirmed on {format_folds(plan.confirm_folds)}"
    return f"{plan.base.variant}: tuned on {format_folds(plan.folds)}, {confirm}"


# ---- trials and confirmations, --jobs at a time


def _run_trials(plan: StudyPlan, study: Study) -> None:
    """Runs trials until the budget is used up, with a bar and a line for each."""
    done, total = len(ended_trials(study)), plan.tune_config.trials
    threads = _threads_per_job(n_jobs(plan, total))
    tasks = (joblib.delayed(run_trial)(plan, threads) for _ in range(total - done))
    title = f"tune {plan.base.variant}"
    with progress.progress_bar(total=total, initial=done, desc=title, unit="trial") as bar:
        for _ in _run_parallel(plan, total, tasks, bar):
            bar.set_postfix_str(_describe_best(study))


def _run_confirmations(plan: StudyPlan, study: Study) -> None:
    """Trains the default and the finalists on the confirming folds, except what the study has
    already; waits for what other workers train."""
    finalists, default = choose_finalists(plan, study), default_trial(plan, study)
    trials = [default, *finalists] if finalists and default is not None else []
    tasks = [(trial, fold) for fold in plan.confirm_folds for trial in trials]
    _run_missing_confirmations(plan, study, tasks, wait=False)
    _run_missing_confirmations(plan, study, tasks, wait=True)


def _run_missing_confirmations(
    plan: StudyPlan, study: Study, tasks: Sequence[tuple[FrozenTrial, int]], wait: bool
) -> None:
    """Runs what the study has not. wait: also for what another worker has claimed, and does it
    where that one was killed."""
    confirmed = study.user_attrs
    missing = [
        (trial, fold)
        for trial, fold in tasks
        if confirmation_key(trial.number, fold) not in confirmed
    ]
    if wait and missing:
        logger.info("waiting for other workers, which train confirmations")
    threads = _threads_per_job(n_jobs(plan, len(missing)))
    calls = (
        joblib.delayed(confirm_trial)(plan, trial.number, dict(trial.params), fold, threads, wait)
        for trial, fold in missing
    )
    title = f"confirm {plan.base.variant}"
    with progress.progress_bar(
        total=len(missing), desc=title, unit="fold", hidden=not missing
    ) as bar:
        for _ in _run_parallel(plan, len(missing), calls, bar):
            pass


def _run_parallel(plan: StudyPlan, count: int, tasks: Iterable[Any], bar: tqdm) -> Iterator[None]:
    """Runs tasks that return a line (None: there was nothing to do) and logs it. RunError where a
    process was killed."""
    workers = joblib.Parallel(n_jobs=n_jobs(plan, count), return_as="generator_unordered")
    try:
        for line in workers(tasks):
            if line is not None:
                with tqdm.external_write_mode():
                    logger.info(line)
                bar.update()
                yield
    except TerminatedWorkerError as error:
        problem = "a process that ran a trial was killed, perhaps for want of memory"
        raise RunError(plan.folder, problem, "the same command goes on; lower --jobs") from error


def _threads_per_job(jobs: int) -> int | None:
    """Threads of each of several processes; None: one process has all threads."""
    return max(1, torch.get_num_threads() // jobs) if jobs > 1 else None


def _describe_best(study: Study) -> str:
    scores = [score_of(trial) for trial in completed_trials(study)]
    return f"best {max(scores):.4f}" if scores else ""
