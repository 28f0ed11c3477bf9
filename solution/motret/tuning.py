"""The search for a variant's settings: one Optuna study in which any number of workers take part, and what it found.

The study is the only thing that workers share: whoever asks it for a trial has that trial to himself. Trial 0 is the default
configuration; what a later one draws follows from the seed and its number alone, so one worker repeats the same search, broken off
or not. The per-motion scores of a finished trial are kept in the study, so that any worker can compare it with the default.
"""

import functools
import os
import shutil
import socket
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import optuna
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from motret import config, dataset, files, fit, folds, metrics, runs, search_space, training, tuned, tuning_plots
from motret.config import TrainSettings, TuneSettings
from motret.dataset import TrainingData
from motret.faults import RunFault, SettingFault
from motret.folds import Folds
from motret.history import Epoch
from motret.metrics import Score
from motret.runs import Run

STARTUP = 5
"""Trials drawn at random before the sampler has something to go by; as many before the pruner ends any."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
AGAIN = "runs again"
"""Attribute of a trial: the number of the lost one whose values it takes."""
SILENT = timedelta(hours=12)
"""A worker of which nothing was heard for so long is dead, on whatever machine; each epoch of a trial is heard of."""
DIGITS = 5
"""Of the per-motion scores kept in the study."""


@dataclass(frozen=True)
class Search:
    """A variant's search: all that a worker in another process needs to take part.

    base: the default configuration as a trial trains it; space, default: what is searched, and its values in `base`;
    minutes: time limit of this variant; belongs: what the result will depend on.
    """

    base: TrainSettings
    asked: TuneSettings
    space: dict[str, BaseDistribution]
    default: dict[str, Any]
    minutes: float | None
    belongs: dict[str, Any]
    count: int
    """Number of folds that a trial trains."""

    @property
    def folder(self) -> Path:
        return tuned.folder(self.asked.out_dir, self.base.variant)

    @property
    def name(self) -> str:
        """Of the study: another one for whatever makes trials incomparable."""
        space = {name: str(distribution) for name, distribution in self.space.items()}
        parts = (self.belongs, runs.settings_hash(self.base), space, self.count, self.asked.pruner)
        return f"{self.base.variant}-{files.digest(*parts)}"


class SeededByTrial(BaseSampler):
    """The default configuration for trial 0; for each other a TPE sampler seeded with the search's seed and the trial's number."""

    def __init__(self, seed: int, default: Mapping[str, Any]):
        self.seed, self.default = seed, default
        self.tpe = TPESampler(seed=seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        seed = int(np.random.SeedSequence([self.seed, trial.number]).generate_state(1)[0])
        self.tpe = TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=STARTUP)
        self.tpe.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {} if trial.number == 0 else self.tpe.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return {} if trial.number == 0 else self.tpe.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        return self.default[param_name] if trial.number == 0 else self.tpe.sample_independent(study, trial, param_name, param_distribution)


@dataclass(frozen=True)
class Found:
    """What a study has come to: its default trial and its best one, scored, and the paired difference of the two."""

    default: FrozenTrial
    best: FrozenTrial
    default_score: Score
    best_score: Score
    gain: Score

    @property
    def better(self) -> bool:
        """Whether the best is better than the default by more than the standard error of their difference."""
        return self.best.number != self.default.number and self.gain.mean > self.gain.error

    @property
    def values(self) -> dict[str, Any]:
        """The settings to take; none where the default stands."""
        return dict(self.best.params) if self.better else {}


def tune(settings: TrainSettings, sources: Mapping[str, str], asked: TuneSettings, share: float = 1.0) -> str:
    """Searches for a variant's settings until its trials or its share of the time are used up; writes the results.

    Returns a line that says what was found.
    """
    settings, sources = training.settle(settings, sources)
    data, made = training.load(settings, sources)
    search = plan(settings, sources, asked, data, made, share)
    search.folder.mkdir(parents=True, exist_ok=True)
    study = open_study(search)
    requeue_lost(search, study)
    before = len(_ended(study))
    _work(search, study)
    found = outcome(search, study, made)
    _write(search, study, found, anew=len(_ended(study)) > before)
    return _line(search, study, found)


def plan(
    settings: TrainSettings, sources: Mapping[str, str], asked: TuneSettings, data: TrainingData, made: Folds, share: float = 1.0
) -> Search:
    """What is searched, and how a trial trains: scored after every epoch, for few of them, without limits of its own."""
    space, default = search_space.space_of(settings, {name for name, source in sources.items() if source == "flag"})
    if not space:
        raise SettingFault("tune.py", "flags give every setting that would be searched", "leave some of them out")
    trial = {"epochs": min(settings.fit.epochs, asked.trial_epochs), "eval_interval": 1, "max_minutes": None, "save_every": 0}
    plain = {"early_stop_patience": 0, "fold": "all", "run_name": None, "resume": None, "tuned": "none"}
    base = config.build(TrainSettings, config.flat(settings) | trial | plain)
    minutes = None if asked.max_minutes is None else asked.max_minutes * share
    belongs = tuned.belongings(settings, data.fingerprint, made.hash)
    return Search(base, asked, space, default, minutes, belongs, min(asked.tune_folds, made.count))


def open_study(search: Search) -> Study:
    """The study of this search, made where there is none. SettingFault where its storage cannot be had."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    journal = (search.folder / "journal.log").resolve()  # its lock is a link to it, which a relative path would leave dangling
    pruners = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=search.base.fit.epochs // 2),
        "hyperband": optuna.pruners.HyperbandPruner(min_resource=1, max_resource=search.base.fit.epochs * search.count),
        "none": optuna.pruners.NopPruner(),
    }
    try:
        storage = optuna.storages.journal.JournalFileBackend(str(journal)) if search.asked.storage is None else search.asked.storage
        return optuna.create_study(
            study_name=search.name,
            storage=optuna.storages.JournalStorage(storage) if search.asked.storage is None else storage,
            sampler=SeededByTrial(search.base.machine.seed, search.default),
            pruner=pruners[search.asked.pruner],
            direction="maximize",
            load_if_exists=True,
        )
    except Exception as error:  # whatever the driver of a data base raises
        place = search.asked.storage or str(journal)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SettingFault("--storage", f"{place} cannot be opened ({reason})", "give an Optuna URL whose driver is installed") from error


def requeue_lost(search: Search, study: Study) -> None:
    """Queues the trials of dead workers again; exactly one of several that try it succeeds."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if lost(trial):
            _requeue(search, study, trial)


def lost(trial: FrozenTrial) -> bool:
    """Whether the worker of a running trial is dead: its process on this machine is gone, or nothing was heard of it for long."""
    host, _, process = trial.user_attrs.get("worker", "").rpartition(":")
    if host == socket.gethostname() and not _alive(int(process)):
        return True
    heard = datetime.fromisoformat(trial.user_attrs.get("heard", trial.datetime_start.isoformat()))
    return datetime.now() - heard > SILENT


def _requeue(search: Search, study: Study, trial: FrozenTrial) -> None:
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, RuntimeError):  # another worker was quicker
        return
    shutil.rmtree(_folder(search, trial.number), ignore_errors=True)
    values = search.default if trial.number == 0 else trial.system_attrs.get("fixed_params", trial.params)
    study.enqueue_trial(values, user_attrs={AGAIN: trial.number})


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _ended(study: Study) -> list[FrozenTrial]:
    """The trials that have come to an end, those that are run again left out."""
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get(AGAIN) for trial in trials}
    return [trial for trial in trials if trial.state in ENDED and trial.number not in again]


def _used_up(search: Search, study: Study) -> bool:
    """Whether no further trial may begin."""
    ended = _ended(study)
    if len(ended) + len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))) >= search.asked.trials:
        return True
    whole = [trial.duration.total_seconds() for trial in ended if trial.state == TrialState.COMPLETE]
    return search.minutes is not None and bool(whole) and _spent(ended) + float(np.mean(whole)) > search.minutes * 60


def _spent(trials: list[FrozenTrial]) -> float:
    """Seconds during which at least one of these trials ran."""
    total, until = 0.0, datetime.min
    for trial in sorted(trials, key=lambda trial: trial.datetime_start):
        if trial.datetime_complete > until:
            total += (trial.datetime_complete - max(until, trial.datetime_start)).total_seconds()
            until = trial.datetime_complete
    return total


def _work(search: Search, study: Study) -> None:
    """Runs trials until the search is used up, `--jobs` at a time, with a bar and a line for each."""
    jobs = min(search.asked.trials, joblib.effective_n_jobs(search.asked.jobs))
    threads = max(1, torch.get_num_threads() // jobs) if jobs > 1 else None
    done = len(_ended(study))
    workers = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
    tasks = (joblib.delayed(take_part)(search, threads) for _ in range(search.asked.trials - done))
    with tqdm(total=search.asked.trials, initial=done, desc=f"tune {search.base.variant}", unit="trial", disable=None) as bar:
        try:
            for told in workers(tasks):
                if told is not None:
                    tqdm.write(told)
                    bar.update()
                    bar.set_postfix_str(_best_so_far(study))
        except TerminatedWorkerError as killed:
            wrong = "a process that ran a trial was killed, perhaps for want of memory"
            raise RunFault(search.folder, wrong, "the same command goes on; lower --jobs") from killed


def _best_so_far(study: Study) -> str:
    values = [trial.value for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
    return f"best {max(values):.4f}" if values else ""


@functools.lru_cache(maxsize=1)
def room(base: TrainSettings) -> tuple[TrainingData, Folds, Any, Any]:
    """What all trials of a process share."""
    data = dataset.load_training(base.data, base.machine.jobs, base.motion.features)
    return data, folds.read(data, base.data.folds_dir), *training.set_up(base, data)


def take_part(search: Search, threads: int | None = None) -> str | None:
    """Runs one trial of the study and returns a line about it; None where the search is used up. A trial that fails is recorded.

    Whatever is wrong with the default configuration is raised: there would be nothing to compare with.
    """
    if threads:
        torch.set_num_threads(threads)
    study = open_study(search)
    if _used_up(search, study):
        return None
    room(search.base)  # what is wrong with the data or the text tower is no trial's fault
    trial = study.ask(search.space)
    trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
    try:
        score, values = _score(search, trial)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        return f"trial {trial.number}: ended early"
    except Exception as error:
        trial.set_user_attr("fault", str(error).strip().split("\n")[0] or type(error).__name__)
        if trial.params == search.default:
            _requeue(search, study, study.trials[trial.number])
            raise
        study.tell(trial, state=TrialState.FAIL)
        return f"trial {trial.number}: failed ({trial.user_attrs['fault']})"
    except BaseException:
        _requeue(search, study, study.trials[trial.number])
        raise
    finally:
        shutil.rmtree(_folder(search, trial.number), ignore_errors=True)
    trial.set_user_attr("error", score.error)
    trial.set_user_attr("scores", [round(float(value), DIGITS) for value in values])
    study.tell(trial, score.mean)
    return f"trial {trial.number}: score {score}" + (" (the default configuration)" if trial.params == search.default else "")


def _score(search: Search, trial: optuna.Trial) -> tuple[Score, np.ndarray]:
    """Trains the folds of a trial, ended early where the pruner says so; its local score, and that of each motion it holds out."""
    data, made, place, tower = room(search.base)
    settings = config.build(TrainSettings, config.flat(search.base) | trial.params)
    run = Run(_folder(search, trial.number), settings, {}, data.fingerprint, made.hash, data.store.settings, data.store.persons)
    values, groups = [], []
    for fold in range(search.count):
        fit.fit(run, data, made, place, tower, fold, functools.partial(_report, search, trial, fold))
        out = runs.load_out_of_fold(run, fold)
        values.append(metrics.caption_scores(out.similarity(), out.owner))
        groups.append(made.group[out.row])
    scores = np.concatenate(values)
    return metrics.clustered(scores, np.concatenate(groups)), scores


def _report(search: Search, trial: optuna.Trial, fold: int, line: Epoch) -> None:
    trial.report(line.score, fold * search.base.fit.epochs + line.epoch)
    trial.set_user_attr("heard", datetime.now().isoformat())
    if trial.params != search.default and trial.should_prune():
        raise optuna.TrialPruned


def _folder(search: Search, number: int) -> Path:
    """Where a trial trains; gone when it ends. Not a run: only folders with an args.json are."""
    return search.folder / f"trial{number}"


def outcome(search: Search, study: Study, made: Folds) -> Found:
    """Compares the best trial with the default. RunFault where the default has no score yet."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    default = next((trial for trial in complete if trial.params == search.default), None)
    if default is None:
        raise RunFault(search.folder, "the default configuration has no score yet", "run the same command again, with more --trials")
    best = max(complete, key=lambda trial: (trial.value, -trial.number))
    groups = np.concatenate([made.group[made.held_out(fold)] for fold in range(search.count)])
    own, other = np.array(best.user_attrs["scores"]), np.array(default.user_attrs["scores"])
    scores = (metrics.clustered(values, groups) for values in (other, own, own - other))
    return Found(default, best, *scores)


def _write(search: Search, study: Study, found: Found, anew: bool) -> None:
    """The results; figures only where there is something new in them."""
    about = {
        "values": found.values,
        "better": found.better,
        "gain": {"mean": found.gain.mean, "error": found.gain.error},
        "default": {"trial": found.default.number, "mean": found.default_score.mean, "error": found.default_score.error},
        "best": {"trial": found.best.number, "mean": found.best_score.mean, "error": found.best_score.error, "values": found.best.params},
        "belongs": search.belongs,
        "study": study.study_name,
        "trials": len(_ended(study)),
        "folds": search.count,
        "epochs": search.base.fit.epochs,
    }
    files.write_json(search.folder / "best.json", about)
    files.write_table(search.folder / "trials.csv", list(_rows(search, study)))
    if anew or not (search.folder / "parallel.png").is_file():
        tuning_plots.draw(study.get_trials(deepcopy=False), search.space, search.default, found.default_score, search.folder)


def _rows(search: Search, study: Study) -> Iterator[dict[str, Any]]:
    """A line of trials.csv for each trial."""
    for trial in study.get_trials(deepcopy=False):
        seconds = f"{trial.duration.total_seconds():.1f}" if trial.duration else ""
        about = {"trial": trial.number, "state": trial.state.name.lower(), "score": trial.value, "error": trial.user_attrs.get("error")}
        about |= {"epochs": trial.last_step, "seconds": seconds, "fault": trial.user_attrs.get("fault")}
        yield about | {name: trial.params.get(name) for name in search.space}


def _line(search: Search, study: Study, found: Found) -> str:
    told = f"{search.base.variant}: {len(_ended(study))} trials, default {found.default_score}"
    file = search.folder / "best.json"
    if found.better:
        return f"{told}, best {found.best_score} (trial {found.best.number}), better by {found.gain}: {file}"
    return f"{told}; the default stands, nothing was better by more than its error: {file}"
