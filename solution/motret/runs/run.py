"""Run folders: settings, and the data and folds they belong to.

runs/<name>/args.json             settings, the source of each, data and folds, versions
runs/<name>/fold<k>/ or full/     best_epoch<N>.pt, last.pt, metrics.csv, train_log.txt;
                                  and oof.npz or done.json when finished
"""

import functools
import logging
import re
import shlex
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from motret.config import base, presets, training
from motret.config.training import TrainConfig
from motret.data.features import FeatureConfig
from motret.errors import ConfigError, MotretError, RunError
from motret.runs.environment import describe_environment
from motret.utils import files, reading

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
        numbers = [path.parent.name.removeprefix("fold") for path in finished]
        return sorted(int(number) for number in numbers if re.fullmatch("[0-9]{1,6}", number))

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
    started = reading.read_json_object(run.folder / "args.json", error=RunError).get("started")
    return files.content_hash(run.name, started, run.fold_dir(fold).name)


def create_run_dir(run: Run, world_size: int = 1) -> None:
    """Makes the run's folder with its args.json, unless it is there. world_size: processes that
    train one model."""
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
        "world_size": world_size,
    }
    files.write_json(run.folder / "args.json", content | describe_environment())


def open_run(folder: Path, allow_towers: Collection[str] = ()) -> Run:
    """Opens a run folder by its args.json. RunError where there is none, or it cannot be read.

    allow_towers: classes that the run may name as towers. No other class is ever imported for it.
    """
    path = folder / "args.json"
    if not reading.is_file(path, RunError):
        raise RunError(folder, "is no run: it has no args.json", "name a folder that train.py made")
    fix = "put a copy back, or move the run away and train it again"
    content = reading.read_json_object(path, fix, RunError)
    with reading.boundary(path, "cannot be read", fix, RunError):
        run = _parse_run(folder, path, content, fix)
    _check_towers(path, run.config, allow_towers)
    return run


def _parse_run(folder: Path, path: Path, content: Mapping[str, Any], fix: str) -> Run:
    """The run that an args.json describes. RunError where a setting has an unusable value; any
    other error where the content has another form."""
    settings = _current_settings(content["settings"])
    base.check_types(TrainConfig, settings)
    try:
        config = base.build_config(TrainConfig, settings)
        features = base.typed(FeatureConfig, content["features"])
        features.check_names()
    except ConfigError as error:
        problem = f"its setting {error.path.removeprefix('--')}: {error.problem}"
        raise RunError(path, problem, fix) from error
    run = Run(
        folder,
        config,
        dict(content["sources"]),
        content["data"],
        content["folds"],
        features,
        content["persons"],
        part_texts=content.get("part_texts"),
        inputs=content.get("inputs"),
    )
    texts = [*run.sources, *run.sources.values(), run.data, run.folds, run.part_texts or ""]
    texts += [text for pair in (run.inputs or {}).items() for text in pair]
    if not all(isinstance(text, str) for text in texts) or run.persons not in (1, 2):
        raise ValueError("data, folds, persons, sources or inputs have another form")
    return run


def _check_towers(path: Path, config: TrainConfig, allow_towers: Collection[str]) -> None:
    """RunError where a run names a class as a tower that nobody allowed: it would be imported."""
    in_presets = {
        values[name]
        for values in presets.VARIANTS.values()
        for name in ("motion_tower", "text_tower")
        if name in values
    }
    for name in (config.motion.motion_tower, config.text.text_tower):
        is_class = ":" in name and not name.startswith("hf:")
        if is_class and name not in in_presets and name not in allow_towers:
            problem = f"has the class {name} as a tower, and what a file names is not imported"
            raise RunError(path, problem, f"if the class is yours: --allow_towers {name}")


def open_named_run(name: str, out_dir: Path, allow_towers: Collection[str] = ()) -> Run:
    """Opens the run that a flag names: by its path, or by its name in `out_dir`."""
    is_path = reading.is_file(Path(name) / "args.json", RunError)
    return open_run(Path(name) if is_path else out_dir / name, allow_towers)


def list_runs(out_dir: Path, allow_towers: Collection[str] = ()) -> list[Run]:
    """All runs in a folder, by name; one that cannot be opened is left out, with a warning."""
    runs = []
    for path in sorted(out_dir.glob("*/args.json")):
        try:
            runs.append(open_run(path.parent, allow_towers))
        except MotretError as error:
            warnings.warn(f"left out: {error}", stacklevel=1)
    return runs


def training_command(fold_dir: Path) -> str:
    """The command that makes again what a fold of a run has lost."""
    fold = fold_dir.name.removeprefix("fold")
    return f"`python solution/train.py --resume {shlex.quote(str(fold_dir.parent))} --fold {fold}`"


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
        if name in defaults and name != "allow_towers"  # which the command line alone gives
    }
