"""What every group of settings needs: default paths, checks, and groups taken apart and built
again."""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from motret.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
"""The repository. Paths in SETTINGS.json are relative to it, paths in flags to the current
folder."""

FORMER_NAMES = {
    "joint_layers": "cross_person_layers",
    "save_halves": "save_towers",
    "rival": "baseline_command",
}
"""Former name of a setting -> its name. Flags and the files of earlier runs may still use the
former names."""

FORMER_MOTION_TOWERS = {
    "motret.motion:MotionTransformer": "transformer",
    "motret.parts:PartTransformer": "part",
    "motret.frames:FrameTransformer": "frame",
    "motret.models.motion_tower:MotionTransformer": "transformer",
    "motret.models.part_tower:PartTransformer": "part",
    "motret.models.frame_tower:FrameTransformer": "frame",
}
"""Former name of a motion tower -> its name, as for settings."""

MAX_NUMBER = 1e15
"""No setting has a larger number, and floats are exact up to it."""
MAX_ID_WIDTH = 64
"""Digits of a numeric id at most."""
MAX_SHOWN = 40
"""Characters of an unusable value that an error shows."""

WRITTEN_FOLDERS = ("work_dir", "folds_dir", "out_dir", "submissions_dir")
"""Names of the folders that scripts write to."""


def relative_path(path: Path) -> Path:
    """A path as one would type it: relative to the current folder where it is inside that
    folder."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def default_path(name: str) -> Path:
    """A path that SETTINGS.json lists."""
    settings = json.loads((ROOT / "SETTINGS.json").read_text(encoding="utf-8"))
    return relative_path(ROOT / settings[name])


def sample_dir() -> Path:
    """The folder of the generated challenge."""
    return default_path("work_dir") / "sample"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Folders, and how raw motions are read."""

    data_dir: Path = field(default_factory=partial(default_path, "data_dir"))
    """The competition's data: motions/, texts/, train.txt and test/; or split_joints/ and
    texts/gar_train.json."""
    work_dir: Path = field(default_factory=partial(default_path, "work_dir"))
    """Cache of packed features and text embeddings. It can be deleted at any time."""
    folds_dir: Path = field(default_factory=partial(default_path, "folds_dir"))
    """Folder of folds.csv and folds.json."""
    id_width: int | None = None
    """Digits of numeric motion ids. By default read from the file names."""
    fps: float = 30.0
    """Frames per second of the raw motions."""
    min_frames: int = 6
    """Shortest motion. Shorter ones are left out of the training; in the test their last frame is
    repeated."""
    rotations: bool = True
    """Include joint rotations in the features."""
    follow_links: bool = False
    """Read texts and lists through links that lead out of the data folder. Otherwise such a link is
    an error, since what it leads to would be shown as captions. Motions may always be links."""
    strict: bool = False
    """Stop at the first broken file. Otherwise a broken training motion is left out, and a broken
    candidate of the test is repaired or ranked last."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "min_frames")
        check_positive(self, "fps")
        if self.id_width is not None and not 1 <= self.id_width <= MAX_ID_WIDTH:
            fix = f"give a whole number from 1 to {MAX_ID_WIDTH}"
            raise ConfigError("--id_width", f"is {self.id_width}", fix)


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """What to run on."""

    device: str = "auto"
    """Device that computes: auto, cpu, cuda, or cuda:<number> for one of several GPUs. auto: a GPU
    if there is one that works. Processes side by side each take a GPU of their own."""
    seed: int = 0
    """Seed of everything random except the folds, which have --fold_seed."""
    jobs: int = -1
    """Threads that pack motions, and processes that derive part texts from motions. -1: one per
    core."""
    debug: bool = False
    """Show the traceback of an error."""

    def __post_init__(self) -> None:
        check_process_count(self, "jobs")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            fix = "give auto, cpu, cuda, or cuda:<number>"
            raise ConfigError("--device", f"{self.device!r} is no device", fix)
        if not 0 <= self.seed < 2**32:
            fix = "give a whole number from 0 to 4294967295"
            raise ConfigError("--seed", f"is {self.seed}", fix)


def flatten(config: Any) -> dict[str, Any]:
    """Field name -> value of a config object, groups opened. Names are unique over the groups."""
    values: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        values.update(flatten(value) if is_dataclass(value) else {item.name: value})
    return values


def build_config(kind: type, values: Mapping[str, Any]) -> Any:
    """A config object of this kind with the named values; other fields keep their defaults."""
    arguments = {}
    for item in fields(kind):
        default = field_default(item)
        if is_dataclass(default):
            arguments[item.name] = build_config(type(default), values)
        elif item.name in values:
            arguments[item.name] = values[item.name]
    return kind(**arguments)


def typed(kind: Any, values: Mapping[str, Any]) -> Any:
    """A dataclass object made of values that a file holds.

    ValueError where one is of another type, TypeError where a name is unknown.
    """
    check_types(kind, values)
    return kind(**values)


def check_types(kind: Any, values: Mapping[str, Any]) -> None:
    """ValueError where a value that a file holds is not of the type of its setting.

    values: by name, groups opened; it may lack settings and have others.
    """
    hints = get_type_hints(kind)
    for item in fields(kind):
        hint = hints[item.name]
        if is_dataclass(hint):
            check_types(hint, values)
        elif item.name in values and not _is_of_type(values[item.name], hint):
            value = str(values[item.name])[:MAX_SHOWN]
            raise ValueError(f"{item.name} is {value!r}, which is of another type")


def _is_of_type(value: Any, hint: Any) -> bool:
    """Whether a value is of a type of a setting; JSON has lists for tuples and text for paths."""
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_is_of_type(value, option) for option in options)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in options)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(
            _is_of_type(each, options[0]) for each in value
        )
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return (is_number and abs(value) <= MAX_NUMBER) or value == float("inf")
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER
    return isinstance(value, str | Path) if hint is Path else isinstance(value, hint)


def field_default(item: dataclasses.Field[Any]) -> Any:
    """The default of a dataclass field; MISSING where it has none."""
    factory = item.default_factory
    return item.default if factory is dataclasses.MISSING else factory()


def flag_defaults(kind: type) -> dict[str, Any]:
    """Flag name -> default of a kind of config, groups opened; MISSING where a flag has none."""
    defaults: dict[str, Any] = {}
    for item in fields(kind):
        default = field_default(item)
        is_group = is_dataclass(default) and not isinstance(default, type)
        defaults.update(flatten(default) if is_group else {item.name: default})
    return defaults


def check_at_least(config: Any, low: int, *names: str) -> None:
    """ConfigError where one of these settings is below `low`."""
    for name in names:
        if not getattr(config, name) >= low:
            raise ConfigError(f"--{name}", f"is {getattr(config, name):g}", f"give {low} or more")


def check_positive(config: Any, *names: str) -> None:
    """ConfigError where one of these settings is neither None nor above 0."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ConfigError(f"--{name}", f"is {value:g}", "give a number above 0")


def check_fraction(config: Any, *names: str, below_one: bool = False) -> None:
    """ConfigError where one of these settings is not from 0 to 1; below_one: 1 is refused too."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value <= 1 or (below_one and value == 1):
            problem = f"{value} is no fraction" + (" below 1" if below_one else "")
            fix = f"give a number from 0 to {0.9 if below_one else 1}"
            raise ConfigError(f"--{name}", problem, fix)


def check_process_count(config: Any, name: str) -> None:
    """ConfigError where a number of processes is 0."""
    if getattr(config, name) == 0:
        fix = "give 1 or more, or -1 for one per core"
        raise ConfigError(f"--{name}", "0 processes do nothing", fix)
