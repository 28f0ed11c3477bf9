"""The trainings of a plan as tasks for workers on many machines: a fold of a variant and seed each.

A worker does its share, or whatever no other does. Claims beside the runs keep two workers of one
folder from the same task, and pass on what a killed one has left.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from motret.config import cli
from motret.config.scripts import FoldConfig
from motret.config.training import TrainConfig
from motret.data import folds
from motret.errors import ConfigError
from motret.pipeline.steps import STOPPED, Step
from motret.utils import claims, files

logger = logging.getLogger(__name__)

CLAIMS_DIR = "claims"
"""Folder of claims inside --out_dir."""
POLL_SECONDS = 5.0
ANY = "any"


@dataclass(frozen=True)
class TaskShare:
    """The tasks of one of `count` workers, counted from 1; of None: whatever no other does."""

    number: int | None
    count: int = 1

    def select(self, tasks: "Sequence[Task]") -> "list[Task]":
        """The tasks of this worker."""
        return list(tasks) if self.number is None else list(tasks[self.number - 1 :: self.count])

    def __str__(self) -> str:
        return ANY if self.number is None else f"{self.number}/{self.count}"


@dataclass(frozen=True)
class Task:
    """A training of one fold. step: its call of train.py; needs: files of the folds that have to be
    finished before."""

    name: str
    step: Step
    needs: tuple[Path, ...] = ()

    def is_ready(self) -> bool:
        return all(path.is_file() for path in self.needs)


def parse_share(text: str) -> TaskShare:
    """The share that --task names. ConfigError where it names none."""
    if text == ANY:
        return TaskShare(None)
    number, slash, count = text.partition("/")
    if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return TaskShare(int(number), int(count))
    raise ConfigError("--task", f"{text!r} is no share", "give 1/4 to 4/4, or any")


def list_tasks(train_steps: Sequence[Step], fold_call: Sequence[str]) -> list[Task]:
    """The trainings as tasks, models of all data last: they may follow from what folds have found.

    fold_call: the arguments of make_folds.py.
    """
    tasks: list[Task] = []
    for step in train_steps:
        config, _ = cli.parse_train(step.args, None)
        run_dir = config.out_dir / str(config.run_name)
        if config.fold == "full":
            needs = [run_dir / f"fold{fold}" / "oof.npz" for fold in range(_n_folds(fold_call))]
            tasks.append(Task(f"{config.run_name} full", step, tuple(needs)))
            continue
        numbers = range(_n_folds(fold_call)) if config.fold == "all" else [int(config.fold)]
        tasks += [_fold_task(config, step, fold) for fold in numbers]
    return sorted(tasks, key=lambda task: bool(task.needs))


def _fold_task(config: TrainConfig, step: Step, fold: int) -> Task:
    step = replace(step, title=f"{step.title}, fold {fold}", args=(*step.args, "--fold", str(fold)))
    return Task(f"{config.run_name} fold{fold}", step)


def _n_folds(fold_call: Sequence[str]) -> int:
    """Folds that make_folds.py makes with these arguments."""
    config = cli.parse(FoldConfig, fold_call, None)
    by_flag = config.folds is not None
    lists = folds.choose_split_lists(config.data.data_dir, config.prefer_txt_split, by_flag)
    return 1 if lists else config.folds or 5


def run_once(name: str, folder: Path, work: Callable[[], int], stop: Callable[[], object]) -> int:
    """Does what all workers need once, and returns its exit code; one that finds another at it
    waits for its end instead. folder: of the claims."""
    path = _claim_path(name, folder)
    with claims.claimed(path, stop) as is_claimed:
        if is_claimed:
            return work()
    logger.info(f"{name}: {claims.describe_owner(path)} is at work on it; waiting")
    while path.exists():
        time.sleep(POLL_SECONDS)
        with claims.claimed(path, stop, only_stale=True) as is_claimed:
            if is_claimed:
                return work()
    return 0


def run_tasks(
    tasks: Sequence[Task], folder: Path, call: Callable[[Step], int], stop: Callable[[], object]
) -> int:
    """Does the tasks that no other process does, and waits for those that one does; returns the
    exit code.

    folder: of the claims; call: runs a step and returns its exit code; stop: ends the running one,
    whose claim another process has taken over. After a task that fails the others are still done.
    """
    pending, failed, waits_for = list(tasks), 0, ""
    files.make_dir(folder)
    start = claims.folder_time(folder)
    while pending:
        progressed = False
        for task in list(pending):
            if _is_done_since(start, task, folder):
                pending.remove(task)
                progressed = True
                continue
            if task.needs and not task.is_ready():
                continue
            lost: list[bool] = []

            def on_lost(lost: list[bool] = lost) -> None:
                lost.append(True)
                stop()

            with claims.claimed(_claim_path(task.name, folder), on_lost) as is_claimed:
                code = call(task.step) if is_claimed else 0
            if not is_claimed or lost:
                continue
            if code in STOPPED:
                return code
            failed = failed or code
            if not code:
                _done_path(task, folder).touch()
            pending.remove(task)
            progressed = True
        if progressed:
            continue
        claimed = [task for task in pending if _claim_path(task.name, folder).exists()]
        if pending and not claimed and all(task.needs for task in pending):
            names = ", ".join(task.name for task in pending)
            logger.info(f"left for the last call, as not all of their folds are finished: {names}")
            break
        names = ", ".join(f"{task.name} ({_describe_worker(task, folder)})" for task in claimed)
        if names != waits_for:
            logger.info(f"others are at work on {names}; waiting, to take over what is left")
            waits_for = names
        time.sleep(POLL_SECONDS)
    return failed


def _is_done_since(start: float, task: Task, folder: Path) -> bool:
    """Whether a worker has finished a task since this one began. Of what was finished before,
    train.py knows whether it is of these data and settings."""
    try:
        return _done_path(task, folder).stat().st_mtime > start
    except FileNotFoundError:
        return False


def _done_path(task: Task, folder: Path) -> Path:
    return _claim_path(task.name, folder).with_suffix(".done")


def _claim_path(name: str, folder: Path) -> Path:
    return folder / f"{name.replace(' ', '-')}.json"


def _describe_worker(task: Task, folder: Path) -> str:
    return claims.describe_owner(_claim_path(task.name, folder))
