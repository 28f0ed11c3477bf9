"""Tuned values: where they are kept, what they belong to, and whether they fit a run."""

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


def find(settings: TrainSettings) -> tuple[dict[str, Any], str | None]:
    """The tuned values that `--tuned` names, if they fit these settings, and a line that says what became of them.

    SettingFault where a file is named that is none of tune.py's.
    """
    if settings.tuned == "none":
        return {}, None
    file = folder(settings.out_dir, settings.variant) / "best.json" if settings.tuned == "auto" else Path(settings.tuned)
    about = files.read_json(file)
    if not isinstance(about, dict) or not {"belongs", "values"} <= about.keys():
        if settings.tuned != "auto":
            raise SettingFault("--tuned", f"{file} is no best.json of tune.py", "give auto, none or the file that tune.py wrote")
        return {}, f"tuned: nothing in {file}; `python solution/tune.py {settings.variant}` makes it"
    made = files.read_json(settings.data.folds_dir / "folds.json") or {}
    here = belongings(settings, made.get("data"), made.get("hash"))
    differing = [
        f"{name} {about['belongs'][name]}, here {value}" for name, value in here.items() if about["belongs"].get(name, value) != value
    ]
    if differing:
        return {}, f"tuned: {file} is left aside, it was made for {'; '.join(differing)}"
    if not about["values"]:
        return {}, f"tuned: the default stands ({file}: nothing was better by more than its error)"
    told = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in about["values"].items())
    return dict(about["values"]), f"tuned by {file}: {told}"
