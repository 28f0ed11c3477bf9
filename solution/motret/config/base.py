"""config.base."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from motret.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
"""The repository: paths in SETTINGS.json are relative to it, paths in flags to the current folder."""


FORMER_NAMES = {
    "joint_layers": "cross_person_layers",
    "save_halves": "save_towers",
    "rival": "baseline_command",
}
"""Settings by the names they had before, which flags and the files of earlier runs may still use."""

FORMER_MOTION_TOWERS = {
    "motret.motion:MotionTransformer": "transformer",
    "motret.parts:PartTransformer": "part",
    "motret.frames:FrameTransformer": "frame",
    "motret.models.motion_tower:MotionTransformer": "transformer",
    "motret.models.part_tower:PartTransformer": "part",
    "motret.models.frame_tower:FrameTransformer": "frame",
}
"""Motion towers by the names they had before, which flags and the files of earlier runs may still
use."""

WRITTEN_FOLDERS = ("work_dir", "folds_dir", "out_dir", "submissions_dir")
"""Names of the folders that scripts write to."""


def relative_path(path: Path) -> Path:
    """A path as one would type it: relative to the current folder where it lies in it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def default_path(name: str) -> Path:
    """A path that SETTINGS.json lists."""
    return relative_path(ROOT / json.loads((ROOT / "SETTINGS.json").read_text(encoding="utf-8"))[name])


def sample_dir() -> Path:
    """Where the generated challenge is."""
    return default_path("work_dir") / "sample"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where things are, and how raw motions are read."""

    data_dir: Path = field(default_factory=partial(default_path, "data_dir"))
    """The competition's data: motions/, texts/, train.txt, test/; or split_joints/ and texts/gar_train.json."""
    work_dir: Path = field(default_factory=partial(default_path, "work_dir"))
    """Packed features and text embeddings; may be deleted at any time."""
    folds_dir: Path = field(default_factory=partial(default_path, "folds_dir"))
    """Where folds.csv and folds.json are."""
    id_width: int | None = None
    """Digits of numeric ids; read off the file names unless given."""
    fps: float = 30.0
    """Frames a second of the raw motions."""
    min_frames: int = 6
    """Shorter motions are left out of the training; in the test their last frame is held."""
    rotations: bool = True
    """Whether joint rotations are among the features."""
    strict: bool = False
    """Stop at the first fault in a file instead of leaving it out of the training, or repairing it or ranking it last in the test."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "min_frames")
        check_positive(self, "fps")


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """What to run on."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    seed: int = 0
    """Every random choice follows from it, but for the folds (--fold_seed)."""
    jobs: int = -1
    """Threads that pack motions, and processes that derive part texts from them; -1: one per core."""
    debug: bool = False
    """Show the traceback of an error."""

    def __post_init__(self) -> None:
        check_process_count(self, "jobs")
        if not 0 <= self.seed < 2**32:
            raise ConfigError("--seed", f"is {self.seed}", "give a whole number from 0 to 4294967295")


def flatten(config: Any) -> dict[str, Any]:
    """Field name -> value of a settings object, groups opened. Names are unique over the groups."""
    values: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        values.update(flatten(value) if is_dataclass(value) else {item.name: value})
    return values


def build_config(kind: type, values: Mapping[str, Any]) -> Any:
    """A settings object of this kind with the values named; the others keep their defaults."""
    blank = {item.name: _default_of(item) for item in fields(kind)}
    given = {}
    for name, value in blank.items():
        if is_dataclass(value):
            given[name] = build_config(type(value), values)
        elif name in values:
            given[name] = values[name]
    return kind(**given)


def _default_of(item: Any) -> Any:
    return item.default_factory() if callable(item.default_factory) else item.default


def flag_defaults(kind: type) -> dict[str, Any]:
    """Flag name -> default of a kind of settings (MISSING where it has none)."""
    listed: dict[str, Any] = {}
    for item in fields(kind):
        value = _default_of(item)
        listed.update(flatten(value) if is_dataclass(value) and not isinstance(value, type) else {item.name: value})
    return listed


def check_at_least(config: Any, low: int, *names: str) -> None:
    """ConfigError where one of these settings is below `low`."""
    for name in names:
        if not getattr(config, name) >= low:
            raise ConfigError(f"--{name}", f"is {getattr(config, name):g}", f"give {low} or more")


def check_positive(config: Any, *names: str) -> None:
    """ConfigError where one of these settings is given and not above 0."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ConfigError(f"--{name}", f"is {value:g}", "give a number above 0")


def check_process_count(config: Any, name: str) -> None:
    """ConfigError where a number of processes is 0."""
    if getattr(config, name) == 0:
        raise ConfigError(f"--{name}", "0 processes do nothing", "give 1 or more, or -1 for one per core")
