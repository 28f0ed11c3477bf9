"""Run folders: settings and provenance, checkpoints, out-of-fold embeddings.

runs/<name>/args.json                 settings, the source of each, data and folds they belong to, versions
runs/<name>/fold<k>/ or full/         best_epoch<N>.pt, last.pt, metrics.csv, train_log.txt, and oof.npz or done.json when finished
"""

import functools
import platform
import subprocess
import sys
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from json import JSONDecodeError, loads
from pathlib import Path
from typing import Any

import torch

from motret.config import base, training
from motret.config.training import TrainConfig
from motret.data.dataset import TrainingData
from motret.data.features import FeatureConfig
from motret.data.folds import Folds
from motret.data.parts.part_texts import part_texts_digest
from motret.errors import MotretError, RunError
from motret.utils import files


@dataclass(frozen=True)
class Run:
    """A run folder opened: its settings and what they were used on.

    part_weight: so many times the similarity of parts is added to that of the whole when its models are asked; part_texts: which texts
    of parts it learned from, None where from none and in runs of before they were kept; inputs: digests of what else its models are
    made from (`provenance`), None in runs of before they were kept; elsewhere: where reports and views of it go instead of its own
    folder, which may be read-only (`with_output_dir`).
    """

    folder: Path
    config: TrainConfig
    sources: dict[str, str]
    data: str
    folds: str
    features: FeatureConfig
    persons: int
    part_weight: float = 0.0
    part_texts: str | None = None
    inputs: dict[str, str] | None = None
    elsewhere: Path | None = None

    @property
    def output_dir(self) -> Path:
        """Where what is made of the finished run goes."""
        return self.elsewhere or self.folder

    @property
    def name(self) -> str:
        return self.folder.name

    def fold_dir(self, fold: int | None) -> Path:
        """The folder of one fold's model, or of the model of all data (None)."""
        return self.folder / ("full" if fold is None else f"fold{fold}")

    def finished_folds(self) -> list[int]:
        """Folds whose models are finished."""
        return sorted(
            int(done.parent.name.removeprefix("fold")) for done in self.folder.glob("fold*/oof.npz")
        )

    def has_full_model(self) -> bool:
        """Whether the model of all data is finished."""
        return (self.folder / "full" / "done.json").is_file()


def settings_hash(config: TrainConfig) -> str:
    """Changes with every setting that changes a model."""
    return files.content_hash(
        {
            name: value
            for name, value in sorted(base.flatten(config).items())
            if name not in training.NON_MODEL_SETTINGS
        }
    )


def same_configuration(one: Run, other: Run) -> bool:
    """Whether the models of two runs are of one kind: the same settings, part texts and inputs, as far as both have kept them."""
    if settings_hash(one.config) != settings_hash(other.config):
        return False
    if one.part_texts and other.part_texts and one.part_texts != other.part_texts:
        return False
    kept, here = one.inputs or {}, other.inputs or {}
    return all(kept[name] == here[name] for name in kept.keys() & here.keys())


def resolve_run(
    config: TrainConfig, sources: Mapping[str, str], data: TrainingData, folds: Folds
) -> Run:
    """The run these settings name, new or (--resume) begun before.

    RunError where a folder is in the way, or of other data or settings; with `--resume same` that folder is renamed instead.
    """
    name = config.run_name or f"{config.variant}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    if config.resume == "auto" and not config.run_name:
        name = _newest_matching(config, data, folds) or name
    folder = (
        run_dir_of(config.resume)
        if config.resume not in (None, "auto", "same")
        else config.out_dir / name
    )
    texts = part_texts_digest(config)
    run = Run(
        folder,
        config,
        dict(sources),
        data.fingerprint,
        folds.hash,
        data.store.config,
        data.store.persons,
        part_texts=texts,
    )
    if (folder / "args.json").is_file():
        if config.resume is None:
            raise RunError(
                folder,
                "exists already",
                "give another --run_name, or --resume auto to go on with it",
            )
        if config.resume == "same":
            _set_aside_unless_same(folder, run)
        else:
            _check_match(open_run(folder), run)
        return run
    if config.resume not in (None, "auto", "same"):
        raise no_run_error(folder)
    return run


def no_run_error(folder: Path) -> RunError:
    """The fault of a folder that `--resume` names and that is no run."""
    return RunError(folder, "no run to resume there", "give the folder that has args.json")


def run_dir_of(resume: str) -> Path:
    """The folder of the run that `--resume` names by itself or by a file in one of its folds."""
    path = Path(resume)
    return path.parent.parent if path.is_file() else path


def _set_aside_unless_same(folder: Path, run: Run) -> None:
    """Renames the folder of a run of other data, folds, part texts or settings, so that a new run can take its name."""
    try:
        _check_match(open_run(folder), run)
    except RunError as other:
        aside = folder.with_name(f"{folder.name}_before_{datetime.now():%Y-%m-%d_%H-%M-%S}")
        folder.rename(aside)
        print(f"{folder}: {other.problem}; renamed to {aside.name}, a new run takes its name")


def create_run_dir(run: Run) -> None:
    """Makes the run's folder with its args.json, unless it is there."""
    if not (run.folder / "args.json").is_file():
        files.write_json(run.folder / "args.json", _args_json(run))


def _newest_matching(config: TrainConfig, data: TrainingData, folds: Folds) -> str | None:
    """Name of the run with these settings, data and folds that was begun last; None where there is none."""
    wanted = (settings_hash(config), data.fingerprint, folds.hash)
    there = [
        run
        for run in list_runs(config.out_dir)
        if (settings_hash(run.config), run.data, run.folds) == wanted
    ]
    alike = [run for run in there if run.part_texts in (None, part_texts_digest(config))]
    return (
        max(alike, key=lambda run: (run.folder / "args.json").stat().st_mtime_ns).name
        if alike
        else None
    )


def open_run(folder: Path) -> Run:
    """Opens a run folder by its args.json."""
    try:
        about = loads((folder / "args.json").read_text(encoding="utf-8"))
        config = base.build_config(TrainConfig, _typed_settings(about["settings"]))
        features = FeatureConfig(**about["features"])
        belongs = about["sources"], about["data"], about["folds"], features, about["persons"]
        return Run(
            folder, config, *belongs, part_texts=about.get("part_texts"), inputs=about.get("inputs")
        )
    except FileNotFoundError as missing:
        raise RunError(
            folder, "is no run: it has no args.json", "name a folder that train.py made"
        ) from missing
    except (JSONDecodeError, KeyError, TypeError, AttributeError) as broken:
        raise RunError(
            folder / "args.json", f"cannot be read ({broken})", "remove the run and train it again"
        ) from broken


def open_named_run(name: str, out_dir: Path) -> Run:
    """Opens the run that a flag names: by its path, or by its name in `out_dir`."""
    return open_run(Path(name) if (Path(name) / "args.json").is_file() else out_dir / name)


def list_runs(out_dir: Path) -> list[Run]:
    """All runs in a folder, by name; one that cannot be opened is left out, with a warning."""
    found = []
    for path in sorted(out_dir.glob("*/args.json")):
        try:
            found.append(open_run(path.parent))
        except MotretError as fault:
            warnings.warn(f"left out: {fault}", stacklevel=1)
    return found


def with_output_dir(run: Run, work_dir: Path) -> Run:
    """The run with a folder for its reports and views: its own, or where that cannot be written one under `work_dir`, aloud."""
    if files.is_writable(run.folder):
        return run
    elsewhere = (
        work_dir / "runs" / f"{run.name}-{files.content_hash(str(run.folder.resolve()))[:8]}"
    )
    _warn_elsewhere(run.folder, elsewhere)
    return replace(run, elsewhere=elsewhere)


@functools.cache
def _warn_elsewhere(folder: Path, elsewhere: Path) -> None:
    print(f"{folder} cannot be written: what is made of it goes to {elsewhere}")


def _args_json(run: Run) -> dict[str, Any]:
    return {
        "settings": base.flatten(run.config),
        "sources": run.sources,
        "data": run.data,
        "folds": run.folds,
        "features": run.features.__dict__,
        "persons": run.persons,
        "part_texts": run.part_texts,
        "inputs": run.inputs,
        "hash": settings_hash(run.config),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        "git": git_commit(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "open-clip-torch", "transformers", "numpy")},
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def git_commit() -> str | None:
    """The commit of the code, marked where files differ from it; None outside a git checkout."""
    try:
        asked = [
            "git",
            "-C",
            str(base.ROOT),
            "describe",
            "--always",
            "--dirty",
            "--abbrev=10",
            "--exclude=*",
        ]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _typed_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Settings from JSON, their paths made paths again; settings that no longer exist are left out."""
    defaults = base.flag_defaults(TrainConfig)
    values = {base.FORMER_NAMES.get(name, name): value for name, value in values.items()}
    tower = values.get("motion_tower")
    if (
        "text_activation" not in values
        and values.get("text_weights") != "none"
        and not values.get("text_tower", "").startswith("hf:")
    ):
        values = values | {
            "text_activation": "model"
        }  # what open_clip took before there was a choice
    if "dropout" not in values and base.FORMER_MOTION_TOWERS.get(tower, tower) == "frame":
        values = values | {"dropout": 0.1}  # torch's own, before there was a choice
    return {
        name: Path(value) if isinstance(defaults[name], Path) else value
        for name, value in values.items()
        if name in defaults
    }


def _check_match(there: Run, here: Run) -> None:
    """RunError where a run that is to go on was of other data, folds, part texts or settings."""
    texts = (
        [("part texts", there.part_texts, here.part_texts)]
        if there.part_texts and here.part_texts
        else []
    )
    for what, one, other in [
        ("data", there.data, here.data),
        ("folds", there.folds, here.folds),
        *texts,
    ]:
        if one != other:
            raise RunError(
                there.folder,
                f"was trained on other {what} ({one}, now {other})",
                "give another --run_name",
            )
    old, new = base.flatten(there.config), base.flatten(here.config)
    changed = [
        name
        for name in new
        if name not in {*training.NON_MODEL_SETTINGS, "epochs", "max_minutes"}
        and old[name] != new[name]
    ]
    if changed:
        raise changed_settings_error(there.folder, old, new, changed)


def changed_settings_error(
    folder: Path, old: Mapping[str, Any], new: Mapping[str, Any], changed: Sequence[str]
) -> RunError:
    """The fault of settings that a run which goes on cannot take."""
    told = ", ".join(f"{name} {old[name]} -> {new[name]}" for name in changed[:5])
    return RunError(
        folder, f"has other settings: {told}", "leave these flags out, or give another --run_name"
    )


def check_run_matches(run: Run, data: TrainingData, folds: Folds, flag: str = "--runs") -> None:
    """RunError where a run was trained on other data or folds: its out-of-fold score would not be one. flag: that named it."""
    for what, there, here in (
        ("data", run.data, data.fingerprint),
        ("folds", run.folds, folds.hash),
    ):
        if there != here:
            raise RunError(
                run.folder,
                f"was trained on other {what} ({there}, now {here})",
                f"leave it out of {flag}, or train it again",
            )


def select_runs(
    named: Sequence[str],
    out_dir: Path,
    data: TrainingData,
    folds: Folds,
    partial: bool = False,
    flag: str = "--runs",
) -> list[Run]:
    """The runs that are named (by path, or by name in `out_dir`), or all of this data and these folds that are finished.

    partial: one finished fold is enough; flag: that names them.
    """
    if named:
        chosen = [open_named_run(name, out_dir) for name in named]
        for run in chosen:
            check_run_matches(run, data, folds, flag)
        return chosen
    found, least = list_runs(out_dir), 1 if partial else folds.count
    chosen = [
        run
        for run in found
        if (run.data, run.folds) == (data.fingerprint, folds.hash)
        and len(run.finished_folds()) >= least
    ]
    if not chosen:
        problem = (
            f"none of its {len(found)} runs is finished and of this data and these folds"
            if found
            else "holds no run"
        )
        raise RunError(
            out_dir,
            problem,
            f"train one: `python solution/train.py holistic`; or name partial ones with {flag}",
        )
    return chosen


def common_folds(
    names: Sequence[str], finished: Sequence[Collection[int]], among: Collection[int]
) -> list[int]:
    """The folds that all have finished who are called so. RunError where there is none."""
    common = sorted(set(among).intersection(*finished))
    if not common:
        raise RunError(
            ", ".join(names),
            "no fold that all of them have finished",
            "train the same folds of each, with --resume auto",
        )
    return common


def folds_of_runs(members: Sequence[Run], among: Collection[int]) -> list[int]:
    """The folds that all of these runs have finished, as `common_folds`."""
    return common_folds(
        [run.name for run in members], [run.finished_folds() for run in members], among
    )
