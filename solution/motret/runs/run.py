"""Run folders: settings, and the data and folds they belong to.

runs/<name>/args.json             settings, the source of each, data and folds, versions
runs/<name>/fold<k>/ or full/     best_epoch<N>.pt, last.pt, metrics.csv, train_log.txt;
                                  and oof.npz or done.json when finished
"""

import functools
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from motret.config import base, training
from motret.config.training import TrainConfig
from motret.data.features import FeatureConfig
from motret.errors import MotretError, RunError
from motret.runs.environment import describe_environment
from motret.utils import files

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A run folder opened: its settings and what they were used on.

    sources: where each setting came from; data, folds: fingerprint and hash of those it was trained
    on; part_weight: so many times the similarity of parts is added to that of the whole when its
    models are asked; part_texts: digest of the part texts it learned from, None where from none and
    in runs of before it was recorded; inputs: digests of what else its models are made from
    (`provenance`), None in runs of before they were recorded; elsewhere: where its reports and
    views go instead of its own folder, which may be read-only (`with_output_dir`).
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
        """Where reports and views of the finished run go."""
        return self.elsewhere or self.folder

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    def fold_dir(self, fold: int | None) -> Path:
        """The folder of one fold's model, or of the model of all data (None)."""
        return self.folder / ("full" if fold is None else f"fold{fold}")

    def finished_folds(self) -> list[int]:
        """Folds whose models are finished."""
        finished = self.folder.glob("fold*/oof.npz")
        return sorted(int(path.parent.name.removeprefix("fold")) for path in finished)

    def has_full_model(self) -> bool:
        """Whether the model of all data is finished."""
        return (self.folder / "full" / "done.json").is_file()


def settings_hash(config: TrainConfig) -> str:
    """Changes with every setting that changes a model."""
    return files.content_hash(training.model_settings(config))


def same_configuration(first: Run, second: Run) -> bool:
    """Whether the models of two runs are of one kind: settings, part texts and inputs agree.

    Part texts and inputs count as far as both runs have recorded them.
    """
    if settings_hash(first.config) != settings_hash(second.config):
        return False
    if first.part_texts and second.part_texts and first.part_texts != second.part_texts:
        return False
    inputs, other_inputs = first.inputs or {}, second.inputs or {}
    return all(inputs[name] == other_inputs[name] for name in inputs.keys() & other_inputs.keys())


def fold_key(run: Run, fold: int | None) -> str:
    """Short hash of a fold of a run that has its folder; another for a new run of the same name."""
    started = json.loads((run.folder / "args.json").read_text(encoding="utf-8")).get("started")
    return files.content_hash(run.name, started, run.fold_dir(fold).name)


def create_run_dir(run: Run) -> None:
    """Makes the run's folder with its args.json, unless it is there."""
    if (run.folder / "args.json").is_file():
        return
    content = {
        "settings": base.flatten(run.config),
        "sources": run.sources,
        "data": run.data,
        "folds": run.folds,
        "features": run.features.__dict__,
        "persons": run.persons,
        "part_texts": run.part_texts,
        "inputs": run.inputs,
        "hash": settings_hash(run.config),
    }
    files.write_json(run.folder / "args.json", content | describe_environment())


def open_run(folder: Path) -> Run:
    """Opens a run folder by its args.json. RunError where there is none, or it cannot be read."""
    path = folder / "args.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Run(
            folder,
            base.build_config(TrainConfig, _current_settings(content["settings"])),
            content["sources"],
            content["data"],
            content["folds"],
            FeatureConfig(**content["features"]),
            content["persons"],
            part_texts=content.get("part_texts"),
            inputs=content.get("inputs"),
        )
    except FileNotFoundError as error:
        fix = "name a folder that train.py made"
        raise RunError(folder, "is no run: it has no args.json", fix) from error
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        fix = "remove the run and train it again"
        raise RunError(path, f"cannot be read ({error})", fix) from error


def open_named_run(name: str, out_dir: Path) -> Run:
    """Opens the run that a flag names: by its path, or by its name in `out_dir`."""
    is_path = (Path(name) / "args.json").is_file()
    return open_run(Path(name) if is_path else out_dir / name)


def list_runs(out_dir: Path) -> list[Run]:
    """All runs in a folder, by name; one that cannot be opened is left out, with a warning."""
    runs = []
    for path in sorted(out_dir.glob("*/args.json")):
        try:
            runs.append(open_run(path.parent))
        except MotretError as error:
            warnings.warn(f"left out: {error}", stacklevel=1)
    return runs


def with_output_dir(run: Run, work_dir: Path) -> Run:
    """The run with a folder for its reports and views.

    It is the run's own, or where that cannot be written one under `work_dir`, with a message.
    """
    if files.is_writable(run.folder):
        return run
    digest = files.content_hash(str(run.folder.resolve()))[:8]
    elsewhere = work_dir / "runs" / f"{run.name}-{digest}"
    _report_output_dir(run.folder, elsewhere)
    return replace(run, elsewhere=elsewhere)


@functools.cache  # once for each run
def _report_output_dir(folder: Path, elsewhere: Path) -> None:
    logger.info(f"{folder} cannot be written: what is made of it goes to {elsewhere}")


def _current_settings(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an args.json under today's names, with paths as paths.

    Settings that no longer exist are left out. A run of before a setting existed gets what was done
    then.
    """
    values = {base.FORMER_NAMES.get(name, name): value for name, value in recorded.items()}
    scratch = values.get("text_weights") == "none"
    if not scratch and not values.get("text_tower", "").startswith("hf:"):
        values.setdefault("text_activation", "model")  # what open_clip took
    tower = values.get("motion_tower", "")
    if base.FORMER_MOTION_TOWERS.get(tower, tower) == "frame":
        values.setdefault("dropout", 0.1)  # torch's own
    defaults = base.flag_defaults(TrainConfig)
    return {
        name: Path(value) if isinstance(defaults[name], Path) else value
        for name, value in values.items()
        if name in defaults
    }
