"""Many workers on one study, some of them killed: is a trial lost or done twice?

    python tests/tune_load.py --workers 32 --trials 500 --kills 8
    python tests/tune_load.py --storage sqlite:////tmp/study.db

Each worker is a process that does what tune.py's workers do, but for the training: its scores are
drawn. So the storage is what is tried, by default a PostgreSQL server that the program starts.
Workers are killed at random moments, and another one is started for each. At the end the study must
have as many completed trials as asked for, all different, each with its scores. Exit code 1
where it has not.
"""

import argparse
import contextlib
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "solution"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

import postgresql
from motret.config.base import build_config
from motret.config.scripts import TuneConfig
from motret.config.training import TrainConfig
from motret.data.folds import Folds
from motret.runs.history import EpochStats
from motret.tuning import study as study_module
from motret.tuning import trial as trial_module
from motret.tuning.scores import SCORES_DIR, trial_scores
from motret.tuning.study import (
    FAULT,
    RETRY_OF,
    SURPLUS,
    WORKER,
    StudyPlan,
    completed_trials,
    ended_trials,
    requeue_stale_trials,
    worker_study,
)

FOLDS = Folds(np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array(list("abcdefgh")), "h", 2)
EPOCHS = 3


@dataclass(frozen=True)
class Load:
    """What is tried: so many workers, trials and kills, and the seconds that a trial waits."""

    workers: int
    trials: int
    kills: int
    trial_seconds: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class LoadResult:
    """What came of it: faults, in a line each, seconds, and trials completed by each worker."""

    faults: list[str]
    seconds: float
    trials_by_worker: Counter[str]
    kills: int
    rerun: int
    surplus: int


def run_load(load: Load, url: str | None, out_dir: Path) -> LoadResult:
    """Lets the workers run until no trial is left. url: of the storage, None for a journal."""
    plan = make_plan(load, url, out_dir)
    plan.folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    kills = _run_workers(plan, load)
    with mock.patch.object(study_module, "NAMELESS_AFTER", timedelta(0)):
        work(plan, load.trial_seconds)  # as the same command later: takes up what the killed left
    seconds = time.monotonic() - start
    study = worker_study(plan, reopen=True)
    trials = study.get_trials(deepcopy=False)
    return LoadResult(
        faults=find_faults(plan, study),
        seconds=seconds,
        trials_by_worker=Counter(trial.user_attrs[WORKER] for trial in completed_trials(study)),
        kills=kills,
        rerun=sum(RETRY_OF in trial.user_attrs for trial in trials),
        surplus=sum(trial.user_attrs.get(FAULT) == SURPLUS for trial in trials),
    )


def make_plan(load: Load, url: str | None, out_dir: Path) -> StudyPlan:
    """The plan of a search for one setting."""
    tune_config = TuneConfig(trials=load.trials, storage=url, out_dir=out_dir, pruner="none")
    base = build_config(TrainConfig, {"variant": "holistic", "epochs": EPOCHS})
    space: dict[str, Any] = {"lr": FloatDistribution(1e-5, 1e-2, log=True)}
    return StudyPlan(base, tune_config, space, {"lr": 1e-3}, None, {}, (0,), (1,))


def find_faults(plan: StudyPlan, study: Any) -> list[str]:
    """What is wrong with a study whose search is over."""
    trials, faults = study.get_trials(deepcopy=False), []
    complete = completed_trials(study)
    if len(complete) != plan.tune_config.trials or len(ended_trials(study)) != len(complete):
        faults.append(f"{len(complete)} trials are complete, not {plan.tune_config.trials}")
    if len({trial.params["lr"] for trial in complete}) != len(complete):
        faults.append("two trials have the same values")
    if running := [trial.number for trial in trials if trial.state == TrialState.RUNNING]:
        faults.append(f"trials {running} never ended")
    repeats = Counter(
        trial.user_attrs[RETRY_OF]
        for trial in trials
        if RETRY_OF in trial.user_attrs and trial.state == TrialState.COMPLETE
    )
    faults += [f"trial {number} ran {n} times again" for number, n in repeats.items() if n > 1]
    for trial in complete:
        if abs(trial_scores(plan, trial).mean() - trial.value) > 1e-4:
            faults.append(f"trial {trial.number} has scores of another one")
    return faults


# ---- processes


def _run_workers(plan: StudyPlan, load: Load) -> int:
    """Starts the workers, kills some and starts others for them; returns the number of kills."""
    rng = random.Random(load.seed)
    context = multiprocessing.get_context("fork")  # to import torch once

    def start_worker() -> BaseProcess:
        process = context.Process(target=work, args=(plan, load.trial_seconds))
        process.start()
        return process

    workers = [start_worker() for _ in range(load.workers)]
    moments = sorted(rng.sample(range(1, max(2, load.trials - load.workers)), load.kills))
    kills = 0
    while any(worker.is_alive() for worker in workers):
        time.sleep(rng.uniform(0, 0.2))
        done = len(list((plan.folder / SCORES_DIR).glob("*.npz")))  # a fork takes no open storage
        alive = [worker for worker in workers if worker.is_alive()]
        if alive and kills < len(moments) and done >= moments[kills]:
            victim = rng.choice(alive)
            victim.kill()
            victim.join()
            workers.append(start_worker())
            kills += 1
    return kills


def work(
    plan: StudyPlan, trial_seconds: float = 0.0, wait: Callable[[float], object] = time.sleep
) -> None:
    """A worker of tune.py: takes up what the dead left, and runs trials until none is left."""

    def draw_scores(
        plan: StudyPlan, name: str, values: Any, folds: Any, on_epoch_end: Any = None
    ) -> np.ndarray:
        rng = np.random.default_rng()
        for epoch in range(1, EPOCHS + 1):
            wait(rng.uniform(0, 2 * trial_seconds / EPOCHS))
            on_epoch_end(0, EpochStats(epoch, 1.0, 1e-3, 0.07, 1.0, score=rng.uniform()))
        return rng.uniform(size=len(FOLDS.val_idx(0)))

    stand_ins = {
        "train_folds": draw_scores,
        "load_shared_data": lambda base: (None, FOLDS, None, None),
    }
    with mock.patch.multiple(trial_module, **stand_ins):
        requeue_stale_trials(plan, worker_study(plan, reopen=True))
        while trial_module.run_trial(plan, threads=1) is not None:
            pass


# ---- the command line


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--trial_seconds", type=float, default=0.0, help="that a trial waits")
    parser.add_argument("--storage", help="Optuna URL or journal; default: PostgreSQL")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    load = Load(args.workers, args.trials, args.kills, args.trial_seconds, args.seed)
    with contextlib.ExitStack() as stack:
        out_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = None if args.storage == "journal" else args.storage
        if args.storage is None:
            if reason := postgresql.missing():
                sys.exit(f"{reason}, or give --storage")
            url = stack.enter_context(postgresql.running_server())
        result = run_load(load, url, out_dir)
    for worker, count in result.trials_by_worker.most_common():
        print(f"{worker}: {count} trials, {count / result.seconds:.2f} a second")
    print(
        f"{result.trials_by_worker.total()} trials of {len(result.trials_by_worker)} workers in "
        f"{result.seconds:.0f} s, {result.kills} workers killed, {result.rerun} trials queued "
        f"again, {result.surplus} one too many and left out"
    )
    print("\n".join(result.faults) or "no trial is lost or doubled")
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
