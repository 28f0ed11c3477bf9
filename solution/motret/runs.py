"""Run folders: settings and provenance, checkpoints, out-of-fold embeddings.

runs/<name>/args.json                 settings, the source of each, data and folds they belong to, versions
runs/<name>/fold<k>/ or full/         best_epoch<N>.pt, last.pt, metrics.csv, train_log.txt, and oof.npz or done.json when finished
"""

import functools
import pickle
import platform
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from json import JSONDecodeError, loads
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from motret import config, files, part_texts
from motret.config import TrainSettings
from motret.dataset import TrainingData
from motret.faults import Fault, RunFault, WeightsFault
from motret.features import FeatureSettings
from motret.folds import Folds


@dataclass(frozen=True)
class Run:
    """A run folder opened: its settings and what they were used on.

    part_weight: so many times the similarity of parts is added to that of the whole when its models are asked; part_texts: which texts
    of parts it learned from, None where from none and in runs of before they were kept; inputs: digests of what else its models are
    made from (`provenance`), None in runs of before they were kept; elsewhere: where reports and views of it go instead of its own
    folder, which may be read-only (`with_output`).
    """

    folder: Path
    settings: TrainSettings
    sources: dict[str, str]
    data: str
    folds: str
    features: FeatureSettings
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

    def part(self, fold: int | None) -> Path:
        """The folder of one fold's model, or of the model of all data (None)."""
        return self.folder / ("full" if fold is None else f"fold{fold}")

    def finished(self) -> list[int]:
        """Folds whose models are finished."""
        return sorted(int(done.parent.name.removeprefix("fold")) for done in self.folder.glob("fold*/oof.npz"))

    def full(self) -> bool:
        """Whether the model of all data is finished."""
        return (self.folder / "full" / "done.json").is_file()


@dataclass(frozen=True)
class OutOfFold:
    """Embeddings of the motions a fold held out, by the model that had not seen them.

    motion: (M, d) and text: (C, d) unit vectors; ids: (M,); owner: (C,) motion of each caption; row: (M,) place in the training data.
    Of a model that knows parts also motion_parts: (M, 5, d), text_parts: (C, 5, d), and named: (C, 5) the parts a caption speaks of.
    """

    ids: np.ndarray
    row: np.ndarray
    motion: np.ndarray
    text: np.ndarray
    owner: np.ndarray
    motion_parts: np.ndarray | None = None
    text_parts: np.ndarray | None = None
    named: np.ndarray | None = None

    def similarity(self, part_weight: float = 0.0) -> np.ndarray:
        """(C, M) captions x motions: cosines, and where parts are known, so many times those of the parts a caption names."""
        text, motion = self.vectors(part_weight)
        return text @ motion.T

    def vectors(self, part_weight: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """(C, v) and (M, v) vectors whose products are the similarities."""
        if not part_weight or self.named is None:
            return self.text, self.motion
        return with_named_parts(self.text, self.text_parts, self.named, part_weight), with_parts(self.motion, self.motion_parts)


def with_named_parts(text: np.ndarray, parts: np.ndarray, named: np.ndarray, weight: float) -> np.ndarray:
    """(C, d + P d) captions' vectors, whose product with `with_parts` adds `weight` times the mean cosine over the parts they name.

    text: (C, d) and parts: (C, P, d) unit vectors; named: (C, P). A caption that names no part adds 0.
    """
    share = (weight * named / np.maximum(named.sum(axis=1, keepdims=True), 1))[..., None].astype(text.dtype)
    return np.concatenate([text, (parts * share).reshape(len(text), -1)], axis=1)


def with_parts(motion: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """(M, d + P d) of unit vectors (M, d) of motions and (M, P, d) of their parts."""
    return np.concatenate([motion, parts.reshape(len(motion), -1)], axis=1)


def settings_hash(settings: TrainSettings) -> str:
    """Changes with every setting that changes a model."""
    return files.digest({name: value for name, value in sorted(config.flat(settings).items()) if name not in config.NOT_MODEL})


def same_kind(one: Run, other: Run) -> bool:
    """Whether the models of two runs are of one kind: the same settings, part texts and inputs, as far as both have kept them."""
    if settings_hash(one.settings) != settings_hash(other.settings):
        return False
    if one.part_texts and other.part_texts and one.part_texts != other.part_texts:
        return False
    kept, here = one.inputs or {}, other.inputs or {}
    return all(kept[name] == here[name] for name in kept.keys() & here.keys())


def locate(settings: TrainSettings, sources: Mapping[str, str], data: TrainingData, folds: Folds) -> Run:
    """The run these settings name, new or (--resume) begun before.

    RunFault where a folder is in the way, or of other data or settings; with `--resume same` that folder is renamed instead.
    """
    name = settings.run_name or f"{settings.variant}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    if settings.resume == "auto" and not settings.run_name:
        name = _newest_like(settings, data, folds) or name
    folder = named_by(settings.resume) if settings.resume not in (None, "auto", "same") else settings.out_dir / name
    texts = part_texts.digest(settings)
    run = Run(folder, settings, dict(sources), data.fingerprint, folds.hash, data.store.settings, data.store.persons, part_texts=texts)
    if (folder / "args.json").is_file():
        if settings.resume is None:
            raise RunFault(folder, "exists already", "give another --run_name, or --resume auto to go on with it")
        if settings.resume == "same":
            _set_aside_unless_same(folder, run)
        else:
            _must_match(open_run(folder), run)
        return run
    if settings.resume not in (None, "auto", "same"):
        raise no_run(folder)
    return run


def no_run(folder: Path) -> RunFault:
    """The fault of a folder that `--resume` names and that is no run."""
    return RunFault(folder, "no run to resume there", "give the folder that has args.json")


def named_by(resume: str) -> Path:
    """The folder of the run that `--resume` names by itself or by a file in one of its folds."""
    path = Path(resume)
    return path.parent.parent if path.is_file() else path


def _set_aside_unless_same(folder: Path, run: Run) -> None:
    """Renames the folder of a run of other data, folds, part texts or settings, so that a new run can take its name."""
    try:
        _must_match(open_run(folder), run)
    except RunFault as other:
        aside = folder.with_name(f"{folder.name}_before_{datetime.now():%Y-%m-%d_%H-%M-%S}")
        folder.rename(aside)
        print(f"{folder}: {other.wrong}; renamed to {aside.name}, a new run takes its name")


def begin(run: Run) -> None:
    """Makes the run's folder with its args.json, unless it is there."""
    if not (run.folder / "args.json").is_file():
        files.write_json(run.folder / "args.json", _about(run))


def _newest_like(settings: TrainSettings, data: TrainingData, folds: Folds) -> str | None:
    """Name of the run with these settings, data and folds that was begun last; None where there is none."""
    wanted = (settings_hash(settings), data.fingerprint, folds.hash)
    there = [run for run in find_runs(settings.out_dir) if (settings_hash(run.settings), run.data, run.folds) == wanted]
    alike = [run for run in there if run.part_texts in (None, part_texts.digest(settings))]
    return max(alike, key=lambda run: (run.folder / "args.json").stat().st_mtime_ns).name if alike else None


def open_run(folder: Path) -> Run:
    """Opens a run folder by its args.json."""
    try:
        about = loads((folder / "args.json").read_text(encoding="utf-8"))
        settings = config.build(TrainSettings, _typed(about["settings"]))
        features = FeatureSettings(**about["features"])
        belongs = about["sources"], about["data"], about["folds"], features, about["persons"]
        return Run(folder, settings, *belongs, part_texts=about.get("part_texts"), inputs=about.get("inputs"))
    except FileNotFoundError as missing:
        raise RunFault(folder, "is no run: it has no args.json", "name a folder that train.py made") from missing
    except (JSONDecodeError, KeyError, TypeError, AttributeError) as broken:
        raise RunFault(folder / "args.json", f"cannot be read ({broken})", "remove the run and train it again") from broken


def open_named(name: str, out_dir: Path) -> Run:
    """Opens the run that a flag names: by its path, or by its name in `out_dir`."""
    return open_run(Path(name) if (Path(name) / "args.json").is_file() else out_dir / name)


def find_runs(out_dir: Path) -> list[Run]:
    """All runs in a folder, by name; one that cannot be opened is left out, with a warning."""
    found = []
    for path in sorted(out_dir.glob("*/args.json")):
        try:
            found.append(open_run(path.parent))
        except Fault as fault:
            warnings.warn(f"left out: {fault}", stacklevel=1)
    return found


def with_output(run: Run, work_dir: Path) -> Run:
    """The run with a folder for its reports and views: its own, or where that cannot be written one under `work_dir`, aloud."""
    if files.writable(run.folder):
        return run
    elsewhere = work_dir / "runs" / f"{run.name}-{files.digest(str(run.folder.resolve()))[:8]}"
    _say_elsewhere(run.folder, elsewhere)
    return replace(run, elsewhere=elsewhere)


@functools.cache
def _say_elsewhere(folder: Path, elsewhere: Path) -> None:
    print(f"{folder} cannot be written: what is made of it goes to {elsewhere}")


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Saves tensors and plain values, whole or not at all."""
    files.write_whole(path, lambda beside: torch.save(content, beside))


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Reads a checkpoint safely. WeightsFault where it is missing or broken."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as missing:
        raise WeightsFault(path, "no such checkpoint", "train the run again") from missing
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, pickle.UnpicklingError) as broken:
        raise WeightsFault(path, "is no readable checkpoint", "remove it and train with --resume auto") from broken


def load_weights(path: Path, model: nn.Module, device: torch.device) -> dict[str, Any]:
    """Puts the weights of a checkpoint into a model and returns the checkpoint. WeightsFault where they do not fit."""
    kept = load_checkpoint(path, device)
    try:
        model.load_state_dict(kept["model"])
    except (RuntimeError, KeyError, TypeError) as other:
        reason = str(other).strip().splitlines()[-1].strip()
        raise WeightsFault(path, f"holds another model ({reason})", "use the code it was trained with, or train again") from other
    return kept


def best_checkpoint(part: Path) -> Path:
    """The checkpoint a finished fold is judged by."""
    found = sorted(part.glob("best_epoch*.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise RunFault(part, "has no best_epoch<N>.pt", "train it again with --resume auto")
    return found[-1]


def save_out_of_fold(path: Path, out: OutOfFold) -> None:
    arrays = {name: array for name, array in vars(out).items() if array is not None}
    files.write_whole(path, lambda beside: np.savez(beside, **arrays))


def load_out_of_fold(run: Run, fold: int) -> OutOfFold:
    """What a finished fold's model said of the motions it had not seen."""
    path = run.part(fold) / "oof.npz"
    try:
        with np.load(path, allow_pickle=False) as kept:
            return OutOfFold(**{name: kept[name] for name in OutOfFold.__dataclass_fields__ if name in kept})
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as broken:
        raise RunFault(path, "cannot be read", "remove it and train the fold again with --resume auto") from broken


def _about(run: Run) -> dict[str, Any]:
    return {
        "settings": config.flat(run.settings),
        "sources": run.sources,
        "data": run.data,
        "folds": run.folds,
        "features": run.features.__dict__,
        "persons": run.persons,
        "part_texts": run.part_texts,
        "inputs": run.inputs,
        "hash": settings_hash(run.settings),
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
        asked = ["git", "-C", str(config.ROOT), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    """Settings from JSON, their paths made paths again; settings that no longer exist are left out."""
    defaults = config.names_of(TrainSettings)
    if "text_activation" not in values and values.get("text_weights") != "none" and not values.get("text_tower", "").startswith("hf:"):
        values = values | {"text_activation": "model"}  # what open_clip took before there was a choice
    if "dropout" not in values and values.get("motion_tower") == "motret.frames:FrameTransformer":
        values = values | {"dropout": 0.1}  # torch's own, before there was a choice
    return {name: Path(value) if isinstance(defaults[name], Path) else value for name, value in values.items() if name in defaults}


def _must_match(there: Run, here: Run) -> None:
    """RunFault where a run that is to go on was of other data, folds, part texts or settings."""
    texts = [("part texts", there.part_texts, here.part_texts)] if there.part_texts and here.part_texts else []
    for what, one, other in [("data", there.data, here.data), ("folds", there.folds, here.folds), *texts]:
        if one != other:
            raise RunFault(there.folder, f"was trained on other {what} ({one}, now {other})", "give another --run_name")
    old, new = config.flat(there.settings), config.flat(here.settings)
    changed = [name for name in new if name not in {*config.NOT_MODEL, "epochs", "max_minutes"} and old[name] != new[name]]
    if changed:
        raise other_settings(there.folder, old, new, changed)


def other_settings(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any], changed: Sequence[str]) -> RunFault:
    """The fault of settings that a run which goes on cannot take."""
    told = ", ".join(f"{name} {old[name]} -> {new[name]}" for name in changed[:5])
    return RunFault(folder, f"has other settings: {told}", "leave these flags out, or give another --run_name")
