"""tuning.tune."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import joblib
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from optuna.study import Study
from optuna.trial import TrialState
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
from motret.tuning.results import collect_results, result_line, write_results
from motret.tuning.search_space import space_of
from motret.tuning.study import StudyPlan, confirmation_key, default_trial, ended_trials, format_folds, open_study, requeue_stale_trials
from motret.tuning.trial import confirm_trial, run_trial
from motret.utils import progress


def tune(config: TrainConfig, sources: Mapping[str, str], tune_config: TuneConfig, time_fraction: float = 1.0) -> str:
    """Searches for a variant's settings until its trials or its share of the time are used up; writes the results.

    Returns a line that says what was found.
    """
    config, sources = train.apply_weights_settings(config, sources)
    data, made = train.load_data(config, sources)
    search = plan_study(config, sources, tune_config, data, made, time_fraction)
    search.folder.mkdir(parents=True, exist_ok=True)
    study = open_study(search)
    requeue_stale_trials(search, study)
    before = len(ended_trials(study))
    print(_folds_line(search), flush=True)
    _run_trials(search, study)
    _run_confirmations(search, study)
    found = collect_results(search, study, made)
    write_results(search, study, found, anew=len(ended_trials(study)) > before)
    return result_line(search, study, found)


def plan_study(
    config: TrainConfig, sources: Mapping[str, str], tune_config: TuneConfig, data: TrainingData, made: Folds, time_fraction: float = 1.0
) -> StudyPlan:
    """What is searched, and how a trial trains: scored after every epoch, for few of them, without limits of its own."""
    space, default = space_of(
        config, {name for name, source in sources.items() if source == "flag"}, (tune_config.search or "").replace(",", " ").split()
    )
    if not space:
        raise ConfigError("tune.py", "flags give every setting that would be searched", "leave some of them out")
    trial = {"epochs": min(config.fit.epochs, tune_config.trial_epochs), "eval_interval": 1, "max_minutes": None, "save_every": 0}
    plain = {"early_stop_patience": 0, "fold": "all", "run_name": None, "resume": None, "tuned": "none"}
    base = build_config(TrainConfig, flatten(config) | trial | plain)
    minutes = None if tune_config.max_minutes is None else tune_config.max_minutes * time_fraction
    belongs = tuned_values.tuning_identity(config, data.fingerprint, made.hash)
    return StudyPlan(base, tune_config, space, default, minutes, belongs, *_split_folds(tune_config, made.count))


def _split_folds(tune_config: TuneConfig, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The folds to search on and those to confirm on. ConfigError where the first leave none for the second; one fold alone may."""
    if count > 1 and tune_config.tune_folds >= count:
        problem = f"is {tune_config.tune_folds} of {count} folds, which leaves none to confirm the best trials on"
        raise ConfigError("--tune_folds", problem, f"give at most {count - 1}")
    return tuple(range(tune_config.tune_folds))[:count], tuple(
        range(tune_config.tune_folds, min(count, tune_config.tune_folds + tune_config.confirm_folds))
    )


def _folds_line(search: StudyPlan) -> str:
    """Says which folds are searched on and which confirm."""
    confirms = f"the best confirmed on {format_folds(search.confirming)}" if search.confirming else "no other fold to confirm on"
    return f"{search.base.variant}: tuned on {format_folds(search.folds)}, {confirms}"


def _run_trials(search: StudyPlan, study: Study) -> None:
    """Runs trials until the search is used up, `--jobs` at a time, with a bar and a line for each."""
    done = len(ended_trials(study))
    threads = _threads_per_job(n_jobs(search, search.asked.trials))
    tasks = (joblib.delayed(run_trial)(search, threads) for _ in range(search.asked.trials - done))
    with progress.progress_bar(total=search.asked.trials, initial=done, desc=f"tune {search.base.variant}", unit="trial") as bar:
        for _ in _run_parallel(search, search.asked.trials, tasks, bar):
            bar.set_postfix_str(_best_so_far(study))


def _run_confirmations(search: StudyPlan, study: Study) -> None:
    """Trains the default and the finalists on the confirming folds, but for what is kept in the study, `--jobs` at a time."""
    finalists = choose_finalists(search, study)
    contenders = [default_trial(search, study), *finalists] if finalists else []
    due = [
        (trial, fold) for fold in search.confirming for trial in contenders if confirmation_key(trial.number, fold) not in study.user_attrs
    ]
    threads = _threads_per_job(n_jobs(search, len(due)))
    tasks = (joblib.delayed(confirm_trial)(search, trial.number, dict(trial.params), fold, threads) for trial, fold in due)
    with progress.progress_bar(total=len(due), desc=f"confirm {search.base.variant}", unit="fold", hidden=not due) as bar:
        for _ in _run_parallel(search, len(due), tasks, bar):
            pass


def _run_parallel(search: StudyPlan, count: int, tasks: Iterable[Any], bar: tqdm) -> Iterator[None]:
    """Runs tasks that return a line (None: nothing was done), and prints it. RunError where a process was killed."""
    workers = joblib.Parallel(n_jobs=n_jobs(search, count), return_as="generator_unordered")
    try:
        for line in workers(tasks):
            if line is not None:
                tqdm.write(line)
                bar.update()
                yield
    except TerminatedWorkerError as killed:
        problem = "a process that ran a trial was killed, perhaps for want of memory"
        raise RunError(search.folder, problem, "the same command goes on; lower --jobs") from killed


def _threads_per_job(jobs: int) -> int | None:
    """Threads of each of several processes; None: one process keeps those it has."""
    return max(1, torch.get_num_threads() // jobs) if jobs > 1 else None


def _best_so_far(study: Study) -> str:
    values = [trial.value for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
    return f"best {max(values):.4f}" if values else ""
