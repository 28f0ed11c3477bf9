"""Resuming a run: its settings from args.json, more epochs for finished folds, and training from
one of its checkpoint files."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from motret.config import base, training
from motret.config.training import TrainConfig
from motret.errors import ConfigError, MotretError, RunError
from motret.runs import checkpoints, history, oof
from motret.runs.history import EpochStats
from motret.runs.resolve import changed_settings_error, no_run_error, run_dir_of
from motret.runs.run import Run, open_run, settings_hash
from motret.utils import files, reading

logger = logging.getLogger(__name__)

LENGTH_SETTINGS = ("epochs", "max_minutes")
"""How long to train: settings that a resumed run may change."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class ResumedCheckpoint:
    """A checkpoint file of a run that `--resume` names, and its fold (None: the model of all
    motions)."""

    file: Path
    fold: int | None


def resumed_run_dir(config: TrainConfig) -> Path | None:
    """Folder of the run that `--resume` names; None where a new run begins.

    It is named by its folder, by a file in it, or by auto and --run_name. auto without a name, and
    `same`, look for a run with the same settings, which needs all of them (`run.resolve_run`).
    RunError for a folder that is no run.
    """
    if config.resume in (None, "same") or (config.resume == "auto" and config.run_name is None):
        return None
    if config.resume == "auto":
        folder = config.out_dir / str(config.run_name)
        return folder if (folder / "args.json").is_file() else None
    folder = run_dir_of(str(config.resume))
    if not (folder / "args.json").is_file():
        raise no_run_error(folder)
    return folder


def resumed_settings(
    folder: Path, config: TrainConfig, sources: Mapping[str, str]
) -> tuple[TrainConfig, dict[str, str]]:
    """The settings of the run in `folder`, changed by the flags that say where, when or how long;
    and the source of each.

    RunError where another flag contradicts the run.
    """
    run = open_run(folder, config.towers)
    old, new = base.flatten(run.config), base.flatten(config)
    flags = {name for name, source in sources.items() if source == "flag"}
    flags |= {"variant"} if sources.get("variant") != "default" else set()
    changeable = (training.NON_MODEL_SETTINGS - {"preset"}) | set(LENGTH_SETTINGS)
    changed = [name for name in new if name in flags - changeable and old[name] != new[name]]
    if changed:
        raise changed_settings_error(folder, old, new, changed)
    overrides = {
        name: new[name]
        for name in (flags & changeable)
        | {"resume", "run_name", "out_dir", "debug", "allow_towers"}
    }
    if checkpoint := resumed_checkpoint(config):
        fold = "full" if checkpoint.fold is None else str(checkpoint.fold)
        if "fold" in flags and config.fold not in (fold, "all"):
            raise ConfigError(
                "--fold", f"{config.fold}, but {checkpoint.file} is of fold {fold}", "leave it out"
            )
        overrides["fold"] = fold
    resumed = base.build_config(TrainConfig, old | overrides)
    exceptions = f", but for {', '.join(sorted(flags & changeable))}" if flags & changeable else ""
    logger.info(f"settings of {folder / 'args.json'}{exceptions}")
    return resumed, run.sources | dict.fromkeys(flags & changeable, "flag")


def resumed_checkpoint(config: TrainConfig) -> ResumedCheckpoint | None:
    """The checkpoint file that `--resume` names, if it names a file. RunError where it lies in no
    fold of a run."""
    file = Path(config.resume) if config.resume not in (None, "auto", "same") else None
    if file is None or not file.is_file():
        return None
    name = file.parent.name
    if name != "full" and not name.removeprefix("fold").isdecimal():
        raise RunError(
            file, "lies in no fold of a run", "name a checkpoint in runs/<name>/fold<k>/ or full/"
        )
    return ResumedCheckpoint(file, None if name == "full" else int(name.removeprefix("fold")))


# ---- more epochs


def reopen(run: Run) -> list[int | None]:
    """Reopens the finished folds where --epochs or --max_minutes is raised; returns them, for all
    must be trained alike.

    Each resumes from its last.pt on a schedule of the new length. RunError where a fold has had
    more epochs than --epochs.
    """
    old, new = open_run(run.folder, run.config.towers).config.fit, run.config.fit
    changed = {
        name: getattr(new, name)
        for name in LENGTH_SETTINGS
        if getattr(old, name) != getattr(new, name)
    }
    if not changed:
        return []
    epochs = {
        fold: history.read_metrics(file)
        for fold in _begun_folds(run)
        if (file := run.fold_dir(fold) / "metrics.csv").is_file()
    }
    longest = max(map(len, epochs.values()), default=0)
    if longest > new.epochs:
        problem = f"was trained for {longest} epochs, more than --epochs {new.epochs}"
        raise RunError(run.folder, problem, "give as many or more")
    finished = [*run.finished_folds(), *([None] if run.has_full_model() else [])]
    reopened = [
        fold
        for fold in finished
        if history.planned_epochs(new, epochs[fold]) > len(epochs[fold])
        and not history.should_stop_early(epochs[fold], run.config.checkpoint)
    ]
    for fold in reopened:
        if not (run.fold_dir(fold) / "last.pt").is_file():
            problem = "has no last.pt to go on from"
            raise RunError(run.fold_dir(fold), problem, "train it again with another --run_name")
    _record_length(run, changed)
    for fold in reopened:
        _mark_unfinished(run, fold)
        planned = history.planned_epochs(new, epochs[fold])
        logger.info(
            f"{run.fold_dir(fold).name} goes on from epoch {len(epochs[fold])} to {planned}: "
            f"the learning rate rises again to where a schedule of {planned} epochs stands, "
            f"so the result is not that of {planned} epochs from the start"
        )
    return reopened


def _begun_folds(run: Run) -> list[int | None]:
    folds = [
        int(path.name.removeprefix("fold"))
        for path in run.folder.glob("fold*")
        if path.is_dir() and path.name.removeprefix("fold").isdecimal()
    ]
    return [*sorted(folds), *([None] if run.fold_dir(None).is_dir() else [])]


def _mark_unfinished(run: Run, fold: int | None) -> None:
    for name in ("oof.npz", "done.json"):
        (run.fold_dir(fold) / name).unlink(missing_ok=True)


def _record_length(run: Run, changed: Mapping[str, Any]) -> None:
    """Writes the new length into args.json, and when it was given."""
    content = reading.read_json_object(run.folder / "args.json", error=RunError)
    before = {name: content["settings"].get(name) for name in changed}
    content["settings"] |= changed
    content["sources"] |= dict.fromkeys(changed, "flag")
    content["hash"] = settings_hash(run.config)
    _record_change(run, content, before, changed)


def record_world_size(run: Run, world_size: int) -> None:
    """Writes into args.json by how many processes a run that goes on is trained, if that is new."""
    content = reading.read_json_object(run.folder / "args.json", error=RunError)
    before = content.get("world_size", 1)
    if before != world_size:
        content["world_size"] = world_size
        _record_change(run, content, {"world_size": before}, {"world_size": world_size})


def _record_change(
    run: Run, content: dict[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    record = {"time": f"{datetime.now():%Y-%m-%d %H:%M:%S}", "before": before, "now": dict(now)}
    content.setdefault("went_on", []).append(record)
    files.write_json(run.folder / "args.json", content)


# ---- what a fold has lost


def mend_fold(run: Run, fold: int | None) -> None:
    """Makes a fold that was trained and then damaged one that training goes on with; logs what it
    does.

    A last.pt that cannot be read is set aside, and the fold trained from its start. Lost epochs of
    metrics.csv are written again from last.pt. Without its best checkpoint, or with embeddings that
    cannot be read, a fold is not finished: the checkpoint follows from last.pt where it is that of
    the last epoch, otherwise the fold is trained from its start.
    """
    fold_dir = run.fold_dir(fold)
    last = fold_dir / "last.pt"
    epochs = _epochs_of(last)
    if epochs is None and reading.exists(last):
        _set_aside(last, "is no training state: the fold is trained from its start")
    if epochs and not _is_readable(fold_dir / "metrics.csv", history.read_metrics):
        logger.info(f"{fold_dir / 'metrics.csv'}: is written again from last.pt")
        history.write_metrics(fold_dir / "metrics.csv", epochs)
    is_finished = run.has_full_model() if fold is None else fold in run.finished_folds()
    embeddings = fold_dir / "oof.npz"
    if fold is not None and is_finished and not _is_readable(embeddings, _read_embeddings):
        _set_aside(embeddings, "cannot be read: the fold's motions are embedded again")
    if not (epochs or is_finished) or _has_best_checkpoint(fold_dir):
        return
    _mark_unfinished(run, fold)
    if epochs and (fold is None or run.config.checkpoint.selection == "last"):
        if is_finished:
            logger.info(f"{fold_dir}: its best checkpoint is made again from last.pt")
    elif reading.exists(last):
        _set_aside(last, "the best checkpoint is gone: the fold is trained from its start")
    else:
        logger.info(f"{fold_dir}: has neither checkpoint: it is trained from its start")


def _epochs_of(last: Path) -> list[EpochStats] | None:
    """The epochs in a last.pt; None where there is no such file, or it is no training state."""
    try:
        state = checkpoints.load_checkpoint(last, CPU)
        with reading.boundary(last, "is no training state", "remove it"):
            return [history.restore_stats(stats) for stats in state["history"]]
    except MotretError:
        return None


def _has_best_checkpoint(fold_dir: Path) -> bool:
    """Whether the checkpoint of the finished model is there and can be read; sets others aside."""
    for path in fold_dir.glob("best_epoch*.pt"):
        if not _is_readable(path, lambda path: checkpoints.load_checkpoint(path, CPU)["model"]):
            _set_aside(path, "is no readable checkpoint")
    return any(fold_dir.glob("best_epoch*.pt"))


def _is_readable(path: Path, read: Callable[[Path], object]) -> bool:
    try:
        with reading.boundary(path, "cannot be read", "remove it"):
            read(path)
    except MotretError:
        return False
    return True


def _read_embeddings(path: Path) -> object:
    return oof.read_out_of_fold(path, "remove it")


def _set_aside(path: Path, reason: str) -> None:
    aside = path.with_name(f"{path.name}.damaged")
    path.replace(aside)
    logger.info(f"{path}: {reason} (kept as {aside.name})")


# ---- from a checkpoint file


def rewind(run: Run, checkpoint: ResumedCheckpoint) -> None:
    """Makes a checkpoint file the state that its fold resumes from; the former last.pt becomes
    last_epoch<N>.pt.

    A file of weights alone, such as best_epoch<N>.pt, resumes with a new optimizer. RunError where
    it is no training checkpoint.
    """
    fold_dir = run.fold_dir(checkpoint.fold)
    last = fold_dir / "last.pt"
    if checkpoint.file.resolve() == last.resolve():
        return
    state = _training_state(fold_dir, checkpoint.file)
    with reading.boundary(checkpoint.file, "is no training state", "name another", RunError):
        epochs = [history.restore_stats(stats) for stats in state["history"]]
    if last.is_file():
        last.replace(
            fold_dir / f"last_epoch{len(checkpoints.load_checkpoint(last, CPU)['history'])}.pt"
        )
    checkpoints.save_checkpoint(last, state | {"best": -math.inf})
    history.write_metrics(fold_dir / "metrics.csv", epochs)
    _mark_unfinished(run, checkpoint.fold)
    note = "" if "optimizer" in state else "; it holds weights alone, so the optimizer starts anew"
    logger.info(f"{fold_dir.name} goes on from {checkpoint.file} (epoch {len(epochs)}){note}")


def _training_state(fold_dir: Path, file: Path) -> dict[str, Any]:
    """The training state in a checkpoint file: of last.pt all of it, of others its `state`, or the
    state of weights alone."""
    content = checkpoints.load_checkpoint(file, CPU)
    if "state" in content:
        state: dict[str, Any] = content["state"]
        return state
    if "optimizer" in content:
        return content
    if not {"model", "epoch"} <= content.keys():
        raise RunError(
            file,
            "is no checkpoint of a training",
            "name a last.pt, ckpt_epoch<N>.pt or best_epoch<N>.pt",
        )
    epochs = history.read_metrics(fold_dir / "metrics.csv")[: content["epoch"]]
    return {"model": content["model"], "loaded": [], "history": [asdict(stats) for stats in epochs]}
