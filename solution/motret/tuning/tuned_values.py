"""Tuned values: where they are kept, what they belong to, and whether they fit a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motret.config import base, training
from motret.config.training import TrainConfig
from motret.data.folds import read_sidecar
from motret.data.parts import part_texts
from motret.errors import ConfigError
from motret.utils import reading

UNTUNED = {"motion_tower", "text_tower", "text_weights", "backbone_weights"}
"""Settings that name code or files, which tuned values never do."""


def tuning_dir(out_dir: Path, variant: str) -> Path:
    """Folder of the results of a variant's tuning."""
    return out_dir / "tune" / variant


def tuning_identity(config: TrainConfig, data: str | None, folds: str | None) -> dict[str, Any]:
    """What tuned values depend on. data, folds: fingerprint and hash."""
    identity = {
        "variant": config.variant,
        "preset": config.preset or "none",
        "text tower": f"{config.text.text_tower} {config.text.text_weights}",
        "data": data,
        "folds": folds,
    }
    texts = part_texts.part_texts_digest(config)
    return identity if texts is None else identity | {"part texts": texts}


@dataclass(frozen=True)
class TunedValues:
    """Tuned values that a run takes; none where the defaults stand.

    message: what became of them, None where the run asks for none; source: on which folds they were
    chosen and confirmed.
    """

    values: dict[str, Any] = field(default_factory=dict)
    message: str | None = None
    source: str = "tuned"


def find_tuned_values(config: TrainConfig) -> TunedValues:
    """The tuned values that `--tuned` names, if they fit these settings.

    ConfigError where a file is named that is none of tune.py's.
    """
    if config.tuned == "none":
        return TunedValues()
    command = f"`python solution/tune.py {config.variant}`"
    is_auto = config.tuned == "auto"
    file = (
        tuning_dir(config.out_dir, config.variant) / "best.json" if is_auto else Path(config.tuned)
    )
    content = reading.read_json(file, error=ConfigError) if reading.is_file(file) else None
    if not isinstance(content, dict) or not {"belongs", "values"} <= content.keys():
        if not is_auto:
            fix = "give auto, none or the file that tune.py wrote"
            raise ConfigError("--tuned", f"{file} is no best.json of tune.py", fix)
        return TunedValues(message=f"tuned: nothing in {file}; {command} makes it")
    fix = "run tune.py again, or give --tuned none"
    with reading.boundary(file, "is no best.json of tune.py", fix, ConfigError):
        return _fitting_values(config, file, content, command)


def _fitting_values(
    config: TrainConfig, file: Path, content: Mapping[str, Any], command: str
) -> TunedValues:
    """The values of a file, if they fit these settings. command: makes them anew."""
    if differences := _differences(config, content["belongs"]):
        return TunedValues(
            message=f"tuned: {file} is ignored, it was made for {'; '.join(differences)}"
        )
    if not content["values"]:
        return TunedValues(
            message=f"tuned: the default stands ({file}: nothing better was confirmed)"
        )
    if not content.get("confirmed_on"):
        reason = "its values were confirmed on no fold but those that chose them"
        return TunedValues(
            message=f"tuned: {file} is ignored, {reason}; {command} confirms them on other folds"
        )
    return _usable_values(config, file, content)


def _differences(config: TrainConfig, made_for: Mapping[str, Any]) -> list[str]:
    """What differs between this run and what the values were made for; what an old file lacks is
    not compared."""
    sidecar = read_sidecar(config.data.folds_dir)
    here = tuning_identity(config, sidecar.get("data"), sidecar.get("hash"))
    return [
        f"{name} {made_for[name]}, here {value}"
        for name, value in here.items()
        if made_for.get(name, value) != value
    ]


def _usable_values(config: TrainConfig, file: Path, content: Mapping[str, Any]) -> TunedValues:
    """The values of a file that fits. The folds that chose them are scored a little too high by
    them."""
    tuned_on, confirmed_on = (
        ", ".join(map(str, content[name])) for name in ("tuned_on", "confirmed_on")
    )
    listing = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in content["values"].items()
    )
    message = (
        f"tuned by {file} on fold {tuned_on}, confirmed on fold {confirmed_on}: {listing} "
        f"(the score on fold {tuned_on} is a little flattered by that choice)"
    )
    values = {base.FORMER_NAMES.get(name, name): value for name, value in content["values"].items()}
    if unusable := [name for name in values if name in UNTUNED | training.NON_MODEL_SETTINGS]:
        problem = f"{file} sets {unusable[0]}, which tune.py never does"
        raise ConfigError("--tuned", problem, "run tune.py again, or give --tuned none")
    base.check_types(TrainConfig, values)
    try:
        base.build_config(TrainConfig, base.flatten(config) | values)
    except ConfigError as error:
        problem = f"its {error.path.removeprefix('--')} {error.problem}"
        raise ConfigError(file, problem, "run tune.py again, or give --tuned none") from error
    return TunedValues(
        values, message, f"tuned on fold {tuned_on}, confirmed on fold {confirmed_on}"
    )
