"""Which run some settings name: a new one, or one that was begun and goes on (--resume)."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from motret.config import base, training
from motret.config.training import TrainConfig
from motret.data.dataset import TrainingData
from motret.data.folds import Folds
from motret.data.parts.part_texts import part_texts_digest
from motret.errors import RunError
from motret.runs.run import Run, list_runs, open_run, settings_hash
from motret.utils import claims

logger = logging.getLogger(__name__)

MAX_SETTINGS_IN_MESSAGE = 5


def resolve_run(
    config: TrainConfig, sources: Mapping[str, str], data: TrainingData, folds: Folds
) -> Run:
    """The run that these settings name, new or (--resume) begun before.

    RunError where a folder is in the way, or of other data or settings; with `--resume same` that
    folder is renamed instead.
    """
    names_folder = config.resume not in (None, "auto", "same")
    folder = run_dir_of(str(config.resume)) if names_folder else _named_folder(config, data, folds)
    run = Run(
        folder,
        config,
        dict(sources),
        data.fingerprint,
        folds.hash,
        data.store.config,
        data.store.persons,
        part_texts=part_texts_digest(config),
    )
    if not (folder / "args.json").is_file():
        if names_folder:
            raise no_run_error(folder)
        return run
    if config.resume is None:
        fix = "give another --run_name, or --resume auto to go on with it"
        raise RunError(folder, "exists already", fix)
    if config.resume == "same":
        _set_aside_unless_same(folder, run)
    else:
        _check_match(open_run(folder, config.towers), run)
    return run


def no_run_error(folder: Path) -> RunError:
    """The error of a folder that `--resume` names and that is no run."""
    return RunError(folder, "no run to resume there", "give the folder that has args.json")


def run_dir_of(resume: str) -> Path:
    """The folder of the run that `--resume` names by itself or by a file in one of its folds."""
    path = Path(resume)
    return path.parent.parent if path.is_file() else path


def changed_settings_error(
    folder: Path, recorded: Mapping[str, Any], new: Mapping[str, Any], changed: Sequence[str]
) -> RunError:
    """The error of settings that a run which goes on cannot take."""
    changes = [
        f"{name} {recorded[name]} -> {new[name]}" for name in changed[:MAX_SETTINGS_IN_MESSAGE]
    ]
    fix = "leave these flags out, or give another --run_name"
    return RunError(folder, f"has other settings: {', '.join(changes)}", fix)


def _named_folder(config: TrainConfig, data: TrainingData, folds: Folds) -> Path:
    """The folder by --run_name; without one that of the newest such run, or a new name."""
    name = config.run_name
    if config.resume == "auto" and not name:
        name = _newest_matching(config, data, folds)
    return config.out_dir / (name or f"{config.variant}_{datetime.now():%Y-%m-%d_%H-%M-%S}")


def _newest_matching(config: TrainConfig, data: TrainingData, folds: Folds) -> str | None:
    """Name of the run with these settings, data and folds that was begun last; None without one."""
    identity = (settings_hash(config), data.fingerprint, folds.hash)
    part_texts = part_texts_digest(config)
    matching = [
        run
        for run in list_runs(config.out_dir, config.towers)
        if (settings_hash(run.config), run.data, run.folds) == identity
        and run.part_texts in (None, part_texts)
    ]
    newest = max(
        matching, key=lambda run: (run.folder / "args.json").stat().st_mtime_ns, default=None
    )
    return newest.name if newest else None


def _set_aside_unless_same(folder: Path, run: Run) -> None:
    """Renames the folder of a run of other data, folds, part texts or settings.

    A new run can then take its name.
    """
    if _mismatch(folder, run) is None:
        return
    with claims.in_turn(folder.with_name(f".{folder.name}.claim")):  # of workers that share folders
        error = _mismatch(folder, run)
        if error is not None:
            aside = folder.with_name(f"{folder.name}_before_{datetime.now():%Y-%m-%d_%H-%M-%S}")
            folder.rename(aside)
            new = f"renamed to {aside.name}, a new run takes its name"
            logger.info(f"{folder}: {error.problem}; {new}")


def _mismatch(folder: Path, run: Run) -> RunError | None:
    """Why the run in a folder is not that one; None where it is, or where there is none."""
    try:
        if (folder / "args.json").is_file():
            _check_match(open_run(folder, run.config.towers), run)
    except RunError as error:
        return error
    return None


def _check_match(recorded: Run, new: Run) -> None:
    """RunError where a run that is to go on was of other data, folds, part texts or settings."""
    pairs = {"data": (recorded.data, new.data), "folds": (recorded.folds, new.folds)}
    if recorded.part_texts and new.part_texts:
        pairs["part texts"] = recorded.part_texts, new.part_texts
    for what, (before, now) in pairs.items():
        if before != now:
            problem = f"was trained on other {what} ({before}, now {now})"
            raise RunError(recorded.folder, problem, "give another --run_name")
    before_values, values = base.flatten(recorded.config), base.flatten(new.config)
    free = {*training.NON_MODEL_SETTINGS, "epochs", "max_minutes"}
    changed = [name for name in values if name not in free and before_values[name] != values[name]]
    if changed:
        raise changed_settings_error(recorded.folder, before_values, values, changed)
