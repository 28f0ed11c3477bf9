"""Tuned values: where they are kept, what they belong to, and whether they fit a run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motret.config import base
from motret.config.training import TrainConfig
from motret.data.folds import read_sidecar
from motret.data.parts import part_texts
from motret.errors import ConfigError
from motret.utils import files


def tuning_dir(out_dir: Path, variant: str) -> Path:
    """Where the results of a variant's tuning are."""
    return out_dir / "tune" / variant


def tuning_identity(config: TrainConfig, data: str | None, folds: str | None) -> dict[str, Any]:
    """What tuned values depend on; data, folds: fingerprint and hash."""
    preset, tower = config.preset or "none", f"{config.text.text_tower} {config.text.text_weights}"
    found = {"variant": config.variant, "preset": preset, "text tower": tower, "data": data, "folds": folds}
    texts = part_texts.part_texts_digest(config)
    return found if texts is None else found | {"part texts": texts}


@dataclass(frozen=True)
class TunedValues:
    """Tuned values that a run takes, none where the defaults stand.

    message: says what became of them, None where none were asked for; source: on which folds they were chosen and confirmed. The first
    are scored a little too high by the values that were chosen on them.
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
    file = tuning_dir(config.out_dir, config.variant) / "best.json" if config.tuned == "auto" else Path(config.tuned)
    about = files.read_json(file)
    if not isinstance(about, dict) or not {"belongs", "values"} <= about.keys():
        if config.tuned != "auto":
            raise ConfigError("--tuned", f"{file} is no best.json of tune.py", "give auto, none or the file that tune.py wrote")
        return TunedValues(message=f"tuned: nothing in {file}; `python solution/tune.py {config.variant}` makes it")
    made = read_sidecar(config.data.folds_dir)
    here = tuning_identity(config, made.get("data"), made.get("hash"))
    differing = [
        f"{name} {about['belongs'][name]}, here {value}" for name, value in here.items() if about["belongs"].get(name, value) != value
    ]
    if differing:
        return TunedValues(message=f"tuned: {file} is left aside, it was made for {'; '.join(differing)}")
    if not about["values"]:
        return TunedValues(message=f"tuned: the default stands ({file}: nothing better was confirmed)")
    if not about.get("confirmed_on"):
        again = f"`python solution/tune.py {config.variant}` confirms them on other folds"
        return TunedValues(message=f"tuned: {file} is left aside, its values were confirmed on no fold but those that chose them; {again}")
    told = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in about["values"].items())
    on, confirmed = (", ".join(map(str, about[name])) for name in ("tuned_on", "confirmed_on"))
    flatters = f"the score on fold {on} is a little flattered by that choice"
    line = f"tuned by {file} on fold {on}, confirmed on fold {confirmed}: {told} ({flatters})"
    values = {base.FORMER_NAMES.get(name, name): value for name, value in about["values"].items()}
    return TunedValues(values, line, f"tuned on fold {on}, confirmed on fold {confirmed}")
