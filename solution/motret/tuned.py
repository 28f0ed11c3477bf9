"""Tuned values: where they are kept, what they belong to, and whether they fit a run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motret import files, part_texts
from motret.config import TrainSettings
from motret.faults import SettingFault


def folder(out_dir: Path, variant: str) -> Path:
    """Where the results of a variant's tuning are."""
    return out_dir / "tune" / variant


def belongings(settings: TrainSettings, data: str | None, folds: str | None) -> dict[str, Any]:
    """What tuned values depend on; data, folds: fingerprint and hash."""
    preset, tower = settings.preset or "none", f"{settings.text.text_tower} {settings.text.text_weights}"
    found = {"variant": settings.variant, "preset": preset, "text tower": tower, "data": data, "folds": folds}
    texts = part_texts.digest(settings)
    return found if texts is None else found | {"part texts": texts}


@dataclass(frozen=True)
class Tuned:
    """Tuned values that a run takes, none where the defaults stand.

    line: says what became of them, None where none were asked for; source: on which folds they were chosen and confirmed. The first
    are scored a little too high by the values that were chosen on them.
    """

    values: dict[str, Any] = field(default_factory=dict)
    line: str | None = None
    source: str = "tuned"


def find(settings: TrainSettings) -> Tuned:
    """The tuned values that `--tuned` names, if they fit these settings.

    SettingFault where a file is named that is none of tune.py's.
    """
    if settings.tuned == "none":
        return Tuned()
    file = folder(settings.out_dir, settings.variant) / "best.json" if settings.tuned == "auto" else Path(settings.tuned)
    about = files.read_json(file)
    if not isinstance(about, dict) or not {"belongs", "values"} <= about.keys():
        if settings.tuned != "auto":
            raise SettingFault("--tuned", f"{file} is no best.json of tune.py", "give auto, none or the file that tune.py wrote")
        return Tuned(line=f"tuned: nothing in {file}; `python solution/tune.py {settings.variant}` makes it")
    made = files.read_json(settings.data.folds_dir / "folds.json") or {}
    here = belongings(settings, made.get("data"), made.get("hash"))
    differing = [
        f"{name} {about['belongs'][name]}, here {value}" for name, value in here.items() if about["belongs"].get(name, value) != value
    ]
    if differing:
        return Tuned(line=f"tuned: {file} is left aside, it was made for {'; '.join(differing)}")
    if not about["values"]:
        return Tuned(line=f"tuned: the default stands ({file}: nothing better was confirmed)")
    if not about.get("confirmed_on"):
        again = f"`python solution/tune.py {settings.variant}` confirms them on other folds"
        return Tuned(line=f"tuned: {file} is left aside, its values were confirmed on no fold but those that chose them; {again}")
    told = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in about["values"].items())
    on, confirmed = (", ".join(map(str, about[name])) for name in ("tuned_on", "confirmed_on"))
    flatters = f"the score on fold {on} is a little flattered by that choice"
    line = f"tuned by {file} on fold {on}, confirmed on fold {confirmed}: {told} ({flatters})"
    return Tuned(dict(about["values"]), line, f"tuned on fold {on}, confirmed on fold {confirmed}")
