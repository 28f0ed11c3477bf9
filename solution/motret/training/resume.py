"""Going on with a run: its settings from args.json, more epochs for finished folds, and training from one of its checkpoint files."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from motret.config import base, training
from motret.config.training import TrainConfig
from motret.errors import ConfigError, RunError
from motret.runs import checkpoints, history
from motret.runs.resolve import changed_settings_error, no_run_error, run_dir_of
from motret.runs.run import Run, open_run, settings_hash
from motret.utils import files

LENGTH = ("epochs", "max_minutes")
"""How long to train: what a run that goes on may be given anew."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file of a run that `--resume` names, and the fold it is of (None: of the model of all motions)."""

    file: Path
    fold: int | None


def resumed_run_dir(config: TrainConfig) -> Path | None:
    """Folder of the run that `--resume` names: by folder, by a file in it, or auto by its --run_name. None where a new run begins.

    auto without a name, and `same`, look for a run with the same settings, which takes all of them (`resolve.resolve_run`). RunError for a
    folder that is no run.
    """
    if config.resume in (None, "same") or (config.resume == "auto" and config.run_name is None):
        return None
    folder = config.out_dir / config.run_name if config.resume == "auto" else run_dir_of(config.resume)
    there = (folder / "args.json").is_file()
    if not there and config.resume != "auto":
        raise no_run_error(folder)
    return folder if there else None


def resumed_settings(folder: Path, config: TrainConfig, sources: Mapping[str, str]) -> tuple[TrainConfig, dict[str, str]]:
    """The settings a run goes on with: its own, but for flags that say where, when, or how long. With the source of each.

    RunError where another flag contradicts the run.
    """
    there = open_run(folder)
    old, new = base.flatten(there.config), base.flatten(config)
    given = {name for name, source in sources.items() if source == "flag"}
    given |= {"variant"} if sources.get("variant") != "default" else set()
    free = (training.NON_MODEL_SETTINGS - {"preset"}) | set(LENGTH)
    changed = [name for name in new if name in given - free and old[name] != new[name]]
    if changed:
        raise changed_settings_error(folder, old, new, changed)
    asked = {name: new[name] for name in (given & free) | {"resume", "run_name", "out_dir", "debug"}}
    if checkpoint := resumed_checkpoint(config):
        fold = "full" if checkpoint.fold is None else str(checkpoint.fold)
        if "fold" in given and config.fold not in (fold, "all"):
            raise ConfigError("--fold", f"{config.fold}, but {checkpoint.file} is of fold {fold}", "leave it out")
        asked["fold"] = fold
    taken = base.build_config(TrainConfig, old | asked)
    print(f"settings of {folder / 'args.json'}" + (f", but for {', '.join(sorted(given & free))}" if given & free else ""))
    return taken, there.sources | dict.fromkeys(given & free, "flag")


def resumed_checkpoint(config: TrainConfig) -> Checkpoint | None:
    """The checkpoint file that `--resume` names, if it names a file. RunError where it lies in no fold of a run."""
    file = Path(config.resume) if config.resume not in (None, "auto", "same") else None
    if file is None or not file.is_file():
        return None
    name = file.parent.name
    if name != "full" and not name.removeprefix("fold").isdecimal():
        raise RunError(file, "lies in no fold of a run", "name a checkpoint in runs/<name>/fold<k>/ or full/")
    return Checkpoint(file, None if name == "full" else int(name.removeprefix("fold")))


def reopen(run: Run) -> list[int | None]:
    """Takes finished folds up again where --epochs or --max_minutes are raised; returns them, for all must be trained alike.

    Each goes on from its last.pt on a schedule of the new length. RunError where a fold has had more epochs than are asked for.
    """
    before, now = open_run(run.folder).config.fit, run.config.fit
    changed = {name: getattr(now, name) for name in LENGTH if getattr(before, name) != getattr(now, name)}
    if not changed:
        return []
    begun = [*_folds(run), *([None] if run.fold_dir(None).is_dir() else [])]
    lines = {fold: history.read_metrics(file) for fold in begun if (file := run.fold_dir(fold) / "metrics.csv").is_file()}
    if longest := max((len(own) for own in lines.values() if len(own) > now.epochs), default=0):
        raise RunError(run.folder, f"was trained for {longest} epochs, more than --epochs {now.epochs}", "give as many or more")
    done = [*run.finished_folds(), *([None] if run.has_full_model() else [])]
    more = [
        fold
        for fold in done
        if history.planned_epochs(now, lines[fold]) > len(lines[fold]) and not history.should_stop_early(lines[fold], run.config.checkpoint)
    ]
    for fold in more:
        if not (run.fold_dir(fold) / "last.pt").is_file():
            raise RunError(run.fold_dir(fold), "has no last.pt to go on from", "train it again with another --run_name")
    _record_length(run, changed)
    for fold in more:
        _mark_unfinished(run, fold)
        planned = history.planned_epochs(now, lines[fold])
        print(
            f"{run.fold_dir(fold).name} goes on from epoch {len(lines[fold])} to {planned}: the learning rate rises again to where a schedule "
            f"of {planned} epochs stands, so that it ends elsewhere than {planned} epochs from the start"
        )
    return more


def rewind(run: Run, checkpoint: Checkpoint) -> None:
    """Makes a checkpoint file the state its fold goes on from; the last.pt that was there is kept as last_epoch<N>.pt.

    A file of weights alone, as best_epoch<N>.pt is, goes on with a fresh optimiser. RunError where it is no checkpoint of a training.
    """
    part = run.fold_dir(checkpoint.fold)
    if checkpoint.file.resolve() == (part / "last.pt").resolve():
        return
    kept = checkpoints.load_checkpoint(checkpoint.file, CPU)
    state = kept.get("state") or (kept if "optimiser" in kept else _weights_only_state(part, checkpoint.file, kept))
    lines = [history.restore_stats(line) for line in state["history"]]
    last = part / "last.pt"
    if last.is_file():
        last.replace(part / f"last_epoch{len(checkpoints.load_checkpoint(last, CPU)['history'])}.pt")
    checkpoints.save_checkpoint(last, state | {"best": -math.inf})
    history.write_metrics(part / "metrics.csv", lines)
    _mark_unfinished(run, checkpoint.fold)
    fresh = "" if "optimiser" in state else "; it holds weights alone, so that the optimiser begins afresh"
    print(f"{part.name} goes on from {checkpoint.file} (epoch {len(lines)}){fresh}")


def _weights_only_state(part: Path, file: Path, kept: Mapping[str, Any]) -> dict[str, Any]:
    """The state after an epoch of which the weights are kept."""
    if not {"model", "epoch"} <= kept.keys():
        raise RunError(file, "is no checkpoint of a training", "name a last.pt, ckpt_epoch<N>.pt or best_epoch<N>.pt")
    lines = history.read_metrics(part / "metrics.csv")[: kept["epoch"]]
    return {"model": kept["model"], "loaded": [], "history": [asdict(line) for line in lines]}


def _folds(run: Run) -> list[int]:
    return sorted(int(part.name.removeprefix("fold")) for part in run.folder.glob("fold*") if part.is_dir())


def _mark_unfinished(run: Run, fold: int | None) -> None:
    for name in ("oof.npz", "done.json"):
        (run.fold_dir(fold) / name).unlink(missing_ok=True)


def _record_length(run: Run, changed: Mapping[str, Any]) -> None:
    """Writes the new length into args.json, and when it was given."""
    file = run.folder / "args.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    before = {name: about["settings"].get(name) for name in changed}
    about["settings"] |= changed
    about["sources"] |= dict.fromkeys(changed, "flag")
    about["hash"] = settings_hash(run.config)
    about.setdefault("went_on", []).append({"time": f"{datetime.now():%Y-%m-%d %H:%M:%S}", "before": before, "now": dict(changed)})
    files.write_json(file, about)
