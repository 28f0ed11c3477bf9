"""The search for a variant's settings: one Optuna study in which any number of workers take part, and what it found.

The study is the only thing that workers share: whoever asks it for a trial has that trial to himself. Trial 0 is the default
configuration; what a later one draws follows from the seed and its number alone, so one worker repeats the same search, broken off
or not. The per-motion scores of a finished trial are kept in the study, so that any worker can compare it with the default.

When the trials are through, the best few and the default are trained once more on folds that the study did not use, and only what is
confirmed there is adopted (`confirmation`). These scores are kept in the study too, so that a stopped confirmation goes on.
"""

import functools
import math
import os
import shutil
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

from motret import config, confirmation, dataset, files, fit, folds, metrics, progress, runs, search_space, training, tuned, tuning_plots
from motret.config import TrainSettings, TuneSettings
from motret.confirmation import FINALISTS, Confirmed
from motret.dataset import TrainingData
from motret.faults import RunFault, SettingFault
from motret.folds import Folds
from motret.history import Epoch, Watch
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
    minutes: time limit of this variant; belongs: what the result will depend on; folds: that a trial trains and is scored on;
    confirming: other folds, on which the best trials are confirmed.
    """

    base: TrainSettings
    asked: TuneSettings
    space: dict[str, BaseDistribution]
    default: dict[str, Any]
    minutes: float | None
    belongs: dict[str, Any]
    folds: tuple[int, ...]
    confirming: tuple[int, ...] = ()

    @property
    def folder(self) -> Path:
        return tuned.folder(self.asked.out_dir, self.base.variant)

    @property
    def name(self) -> str:
        """Of the study: another one for whatever makes trials incomparable."""
        space = {name: str(distribution) for name, distribution in self.space.items()}
        parts = (self.belongs, runs.settings_hash(self.base), space, len(self.folds), self.asked.pruner)
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
    """What a study has come to: its default trial and its best one, scored on the folds it searched, and what was confirmed on others.

    gain: of the best over the default on the folds that chose it, which flatters it.
    """

    default: FrozenTrial
    best: FrozenTrial
    default_score: Score
    best_score: Score
    gain: Score
    confirmed: tuple[Confirmed, ...]

    @property
    def adopted(self) -> Confirmed | None:
        """The confirmed trial whose values are taken; None where the default stands."""
        return confirmation.adopt(self.confirmed)

    @property
    def values(self) -> dict[str, Any]:
        """The settings to take; none where the default stands."""
        return dict(self.adopted.values) if self.adopted else {}


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
    print(_on_folds(search), flush=True)
    _work(search, study)
    _confirm(search, study)
    found = outcome(search, study, made)
    _write(search, study, found, anew=len(_ended(study)) > before)
    return _line(search, study, found)


def plan(
    settings: TrainSettings, sources: Mapping[str, str], asked: TuneSettings, data: TrainingData, made: Folds, share: float = 1.0
) -> Search:
    """What is searched, and how a trial trains: scored after every epoch, for few of them, without limits of its own."""
    space, default = search_space.space_of(
        settings, {name for name, source in sources.items() if source == "flag"}, (asked.search or "").replace(",", " ").split()
    )
    if not space:
        raise SettingFault("tune.py", "flags give every setting that would be searched", "leave some of them out")
    trial = {"epochs": min(settings.fit.epochs, asked.trial_epochs), "eval_interval": 1, "max_minutes": None, "save_every": 0}
    plain = {"early_stop_patience": 0, "fold": "all", "run_name": None, "resume": None, "tuned": "none"}
    base = config.build(TrainSettings, config.flat(settings) | trial | plain)
    minutes = None if asked.max_minutes is None else asked.max_minutes * share
    belongs = tuned.belongings(settings, data.fingerprint, made.hash)
    return Search(base, asked, space, default, minutes, belongs, *_share_folds(asked, made.count))


def _share_folds(asked: TuneSettings, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The folds to search on and those to confirm on. SettingFault where the first leave none for the second; one fold alone may."""
    if count > 1 and asked.tune_folds >= count:
        wrong = f"is {asked.tune_folds} of {count} folds, which leaves none to confirm the best trials on"
        raise SettingFault("--tune_folds", wrong, f"give at most {count - 1}")
    return tuple(range(asked.tune_folds))[:count], tuple(range(asked.tune_folds, min(count, asked.tune_folds + asked.confirm_folds)))


def _on_folds(search: Search) -> str:
    """Says which folds are searched on and which confirm."""
    confirms = f"the best confirmed on {named(search.confirming)}" if search.confirming else "no other fold to confirm on"
    return f"{search.base.variant}: tuned on {named(search.folds)}, {confirms}"


def named(folds: Sequence[int]) -> str:
    """`fold 0`, `folds 1, 2`."""
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"


def open_study(search: Search) -> Study:
    """The study of this search, made where there is none. SettingFault where its storage cannot be had."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    journal = (search.folder / "journal.log").resolve()  # its lock is a link to it, which a relative path would leave dangling
    pruners = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=search.base.fit.epochs // 2),
        "hyperband": optuna.pruners.HyperbandPruner(min_resource=1, max_resource=search.base.fit.epochs * len(search.folds)),
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
    shutil.rmtree(search.folder / _name(trial.number), ignore_errors=True)
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
    seconds = _pace(study)
    if search.minutes is None or seconds is None:
        return False
    return _spent(ended) + seconds + _confirming(search, seconds, how_many(search, study)) > search.minutes * 60


def _pace(study: Study) -> float | None:
    """Seconds that a trial takes which is not ended early; None before there is one."""
    whole = [trial.duration.total_seconds() for trial in _complete(study)]
    return float(np.mean(whole)) if whole else None


def how_many(search: Search, study: Study) -> int:
    """Finalists to confirm: with a time limit no more than a third of it is time enough for, but one at least."""
    seconds = _pace(study)
    if search.minutes is None or seconds is None:
        return FINALISTS
    fit = [count for count in range(1, FINALISTS + 1) if _confirming(search, seconds, count) <= search.minutes * 20]
    return max(fit, default=1)


def _confirming(search: Search, seconds: float, finalists: int) -> float:
    """Seconds that it takes to confirm so many finalists, where a trial takes `seconds`."""
    trainings = (finalists + 1) * len(search.confirming)
    return math.ceil(trainings / _jobs(search, trainings)) * seconds / len(search.folds) if trainings else 0.0


def _jobs(search: Search, tasks: int) -> int:
    """Processes for so many tasks."""
    return max(1, min(tasks, joblib.effective_n_jobs(search.asked.jobs)))


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
    done = len(_ended(study))
    threads = _threads(_jobs(search, search.asked.trials))
    tasks = (joblib.delayed(take_part)(search, threads) for _ in range(search.asked.trials - done))
    with progress.bar(total=search.asked.trials, initial=done, desc=f"tune {search.base.variant}", unit="trial") as bar:
        for _ in _side_by_side(search, search.asked.trials, tasks, bar):
            bar.set_postfix_str(_best_so_far(study))


def _confirm(search: Search, study: Study) -> None:
    """Trains the default and the finalists on the confirming folds, but for what is kept in the study, `--jobs` at a time."""
    finalists = choose_finalists(search, study)
    contenders = [_default_of(search, study), *finalists] if finalists else []
    due = [(trial, fold) for fold in search.confirming for trial in contenders if _key(trial.number, fold) not in study.user_attrs]
    threads = _threads(_jobs(search, len(due)))
    tasks = (joblib.delayed(confirm_on)(search, trial.number, dict(trial.params), fold, threads) for trial, fold in due)
    with progress.bar(total=len(due), desc=f"confirm {search.base.variant}", unit="fold", hidden=not due) as bar:
        for _ in _side_by_side(search, len(due), tasks, bar):
            pass


def _side_by_side(search: Search, count: int, tasks: Iterable[Any], bar: tqdm) -> Iterator[None]:
    """Runs tasks that return a line (None: nothing was done), and prints it. RunFault where a process was killed."""
    workers = joblib.Parallel(n_jobs=_jobs(search, count), return_as="generator_unordered")
    try:
        for line in workers(tasks):
            if line is not None:
                tqdm.write(line)
                bar.update()
                yield
    except TerminatedWorkerError as killed:
        wrong = "a process that ran a trial was killed, perhaps for want of memory"
        raise RunFault(search.folder, wrong, "the same command goes on; lower --jobs") from killed


def _threads(jobs: int) -> int | None:
    """Threads of each of several processes; None: one process keeps those it has."""
    return max(1, torch.get_num_threads() // jobs) if jobs > 1 else None


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
        watch = functools.partial(_report, search, trial)
        values = train_folds(search, _name(trial.number), trial.params, search.folds, watch)
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
    score = metrics.clustered(values, groups_of(room(search.base)[1], search.folds))
    trial.set_user_attr("error", score.error)
    trial.set_user_attr("scores", _rounded(values))
    study.tell(trial, score.mean)
    return f"trial {trial.number}: score {score}" + (" (the default configuration)" if trial.params == search.default else "")


def confirm_on(search: Search, number: int, values: Mapping[str, Any], fold: int, threads: int | None = None) -> str:
    """Trains a trial's values on a confirming fold, keeps the score of each motion in the study and returns a line about it.

    A finalist that fails there is recorded as such and cannot be adopted; what is wrong with the default configuration is raised.
    """
    if threads:
        torch.set_num_threads(threads)
    study, said = open_study(search), f"confirm trial {number} on fold {fold}"
    try:
        scores = train_folds(search, f"confirm{number}-{fold}", values, (fold,))
    except Exception as error:
        if values == search.default:
            raise
        fault = str(error).strip().split("\n")[0] or type(error).__name__
        study.set_user_attr(_key(number, fold), {"fault": fault})
        return f"{said}: failed ({fault})"
    study.set_user_attr(_key(number, fold), {"scores": _rounded(scores)})
    score = metrics.clustered(scores, groups_of(room(search.base)[1], (fold,)))
    return f"{said}: score {score}" + (" (the default configuration)" if values == search.default else "")


def train_folds(
    search: Search, name: str, values: Mapping[str, Any], folds: Sequence[int], watch: Callable[[int, Epoch], None] | None = None
) -> np.ndarray:
    """Trains some folds with these values, in a folder of this name that is gone afterwards; the local score (M,) of each held-out motion.

    watch: is told of each epoch, with the place of its fold among them; what it raises ends the training.
    """
    data, made, place, tower = room(search.base)
    settings = config.build(TrainSettings, config.flat(search.base) | dict(values))
    folder = search.folder / name
    run = Run(folder, settings, {}, data.fingerprint, made.hash, data.store.settings, data.store.persons)
    scores = []
    try:
        for number, fold in enumerate(folds):
            told: Watch = functools.partial(watch or _silent, number)
            fit.fit(run, data, made, place, tower, fold, told)
            out = runs.load_out_of_fold(run, fold)
            scores.append(metrics.caption_scores(out.similarity(), out.owner))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return np.concatenate(scores)


def _silent(place: int, line: Epoch) -> None:
    """Shows no bar and says nothing."""


def _report(search: Search, trial: optuna.Trial, place: int, line: Epoch) -> None:
    """Of an epoch of the trial's fold at this place among its folds."""
    trial.report(line.score, place * search.base.fit.epochs + line.epoch)
    trial.set_user_attr("heard", datetime.now().isoformat())
    if trial.params != search.default and trial.should_prune():
        raise optuna.TrialPruned


def groups_of(made: Folds, folds: Sequence[int]) -> np.ndarray:
    """Groups (M,) of the motions that some folds hold out, in the order of `train_folds`."""
    return np.concatenate([made.group[made.held_out(fold)] for fold in folds])


def _name(number: int) -> str:
    """Folder in which a trial trains; gone when it ends. Not a run: only folders with an args.json are."""
    return f"trial{number}"


def _key(number: int, fold: int) -> str:
    """Attribute of the study that keeps a trial's scores on a confirming fold."""
    return f"confirm {number} {fold}"


def _rounded(scores: np.ndarray) -> list[float]:
    return [round(float(score), DIGITS) for score in scores]


def choose_finalists(search: Search, study: Study) -> list[FrozenTrial]:
    """The trials to confirm: the best ones, each of other values, that beat the default on the folds searched."""
    default = _default_of(search, study)
    distinct: dict[str, FrozenTrial] = {}
    for trial in _complete(study):
        if default is not None and trial.value > default.value:
            distinct.setdefault(files.digest(trial.params), trial)
    return sorted(distinct.values(), key=lambda trial: (-trial.value, trial.number))[: how_many(search, study)]


def _complete(study: Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _default_of(search: Search, study: Study) -> FrozenTrial | None:
    """The finished trial of the default configuration."""
    return next((trial for trial in _complete(study) if trial.params == search.default), None)


def outcome(search: Search, study: Study, made: Folds) -> Found:
    """Compares the best trial with the default, and what was confirmed. RunFault where the default has no score yet."""
    default = _default_of(search, study)
    if default is None:
        raise RunFault(search.folder, "the default configuration has no score yet", "run the same command again, with more --trials")
    best = max(_complete(study), key=lambda trial: (trial.value, -trial.number))
    groups = groups_of(made, search.folds)
    own, other = np.array(best.user_attrs["scores"]), np.array(default.user_attrs["scores"])
    scores = (metrics.clustered(values, groups) for values in (other, own, own - other))
    return Found(default, best, *scores, tuple(_confirmed(search, study, default, made)))


def _confirmed(search: Search, study: Study, default: FrozenTrial, made: Folds) -> Iterator[Confirmed]:
    """Every trial that was ever confirmed on all confirming folds, since each was a chance to adopt luck."""
    kept, base = study.user_attrs, None
    for trial in _complete(study):
        scores = [kept.get(_key(trial.number, fold), {}).get("scores") for fold in search.confirming]
        if scores and all(scores) and trial.number != default.number:
            groups = groups_of(made, search.confirming)
            base = np.concatenate([kept[_key(default.number, fold)]["scores"] for fold in search.confirming])
            own = np.concatenate(scores)
            told = (metrics.clustered(values, groups) for values in (own, base, own - base))
            yield Confirmed(trial.number, dict(trial.params), *told)


def _write(search: Search, study: Study, found: Found, anew: bool) -> None:
    """The results; figures only where there is something new in them."""
    adopted = found.adopted
    about = {
        "values": found.values,
        "adopted": None if adopted is None else adopted.trial,
        "tuned_on": list(search.folds),
        "confirmed_on": list(search.confirming),
        "errors_needed": _needed(found),
        "confirmed": [one.about() for one in found.confirmed],
        "gain": None if adopted is None else adopted.about()["gain"],
        "default": {"trial": found.default.number, "mean": found.default_score.mean, "error": found.default_score.error},
        "best": {
            "trial": found.best.number,
            "mean": found.best_score.mean,
            "error": found.best_score.error,
            "gain_where_chosen": {"mean": found.gain.mean, "error": found.gain.error},
            "values": found.best.params,
        },
        "belongs": search.belongs,
        "study": study.study_name,
        "trials": len(_ended(study)),
        "epochs": search.base.fit.epochs,
    }
    files.write_json(search.folder / "best.json", about)
    files.write_table(search.folder / "trials.csv", list(_rows(search, study)))
    if anew or not (search.folder / "parallel.png").is_file():
        drawn = (search.base.variant, search.space, search.default, found.default_score, search.folder)
        told = tuning_plots.draw(study.get_trials(deepcopy=False), *drawn)
        if told:
            print(told)


def _needed(found: Found) -> float | None:
    """Standard errors that a gain had to exceed; None where nothing was confirmed."""
    confirmed = found.confirmed
    return confirmation.errors_needed(len(confirmed), confirmed[0].gain.groups) if confirmed else None


def _rows(search: Search, study: Study) -> Iterator[dict[str, Any]]:
    """A line of trials.csv for each trial."""
    for trial in study.get_trials(deepcopy=False):
        seconds = f"{trial.duration.total_seconds():.1f}" if trial.duration else ""
        about = {"trial": trial.number, "state": trial.state.name.lower(), "score": trial.value, "error": trial.user_attrs.get("error")}
        about |= {"epochs": trial.last_step, "seconds": seconds, "fault": trial.user_attrs.get("fault")}
        yield about | {name: trial.params.get(name) for name in search.space}


def _line(search: Search, study: Study, found: Found) -> str:
    """What came of the search, in one line."""
    said = f"{search.base.variant}: {len(_ended(study))} trials on {named(search.folds)}, default {found.default_score}"
    return f"{said}; {_result(search, found)}: {search.folder / 'best.json'}"


def _result(search: Search, found: Found) -> str:
    there, adopted = named(search.confirming) if search.confirming else "", found.adopted
    if adopted:
        return f"trial {adopted.trial} is adopted, better by {adopted.gain} on {there} ({_needed(found):.2f} errors needed)"
    if found.best.number == found.default.number:
        return "the default stands, no trial was better"
    best = f"the best, trial {found.best.number}, is better by {found.gain} where it was chosen"
    if not search.confirming:
        flags = " ".join(f"--{name} {value}" for name, value in found.best.params.items())
        return f"the default stands, since there is no other fold to confirm on; {best}. By hand: {flags}"
    if not found.confirmed:
        return f"the default stands, since no finalist could be trained on {there}; {best}"
    first = max(found.confirmed, key=lambda one: one.gain.mean)
    gain = f"{first.gain.mean:+.4f} +- {first.gain.error:.4f}"
    return f"the default stands; of {len(found.confirmed)} confirmed, trial {first.trial} gains most on {there}: {gain}, " + (
        f"not more than {_needed(found):.2f} errors"
    )
