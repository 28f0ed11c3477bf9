"""Scripts called without data: they use the generated challenge and make what is missing."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from motret.config import base, cli
from motret.config.scripts import SceneConfig
from motret.errors import RunError
from motret.pipeline import steps
from motret.pipeline.plan import make_plan
from motret.synthetic import challenge
from motret.utils import reading

logger = logging.getLogger(__name__)

PASSED_FLAGS = (*base.WRITTEN_FOLDERS, "device", "jobs", "debug")
"""Flags of a script that also hold for the training it needs."""
TRAINING_SCRIPTS = ("prepare", "make_folds", "tune", "train")
"""Scripts of run_all.sh that make finished runs."""


def with_demo_data(
    argv: Sequence[str] | None, takes_preset: bool = False
) -> tuple[list[str], bool]:
    """A script's arguments, and whether the generated challenge was added to them as its data.

    It is added if no flag names the data and there is no data folder. takes_preset: then the fast
    preset is added too, as in run_all.sh.
    """
    args = cli.arguments(argv)
    flags = cli.flag_names(args)
    if reading.is_folder(base.default_path("data_dir")) or flags & {"data_dir", "help", "h"}:
        return args, False
    preset = ["--preset", "fast"] if takes_preset and "preset" not in flags else []
    return [*args, "--data_dir", str(base.sample_dir()), *preset], True


def make_missing(config: Any, needs_runs: bool = False) -> None:
    """Generates the challenge for a script with these settings, and says so.

    needs_runs: also trains what run_all.sh would, if no run is finished and no flag names one.
    RunError where the training fails.
    """
    default, sample, values = base.default_path("data_dir"), base.sample_dir(), base.flatten(config)
    preset = f" with the {values['preset']} preset" if values.get("preset") else ""
    logger.info(
        f"no {default}/ here: using the generated challenge in {sample}{preset} "
        f"(put the competition's data into {default}/)"
    )
    challenge.make_sample(sample, SceneConfig())
    if needs_runs and not (values.get("run") or values.get("runs")):
        _train_missing_runs(values, base.flag_defaults(type(config)))


def _train_missing_runs(values: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Trains the models that run_all.sh trains, if no run is finished."""
    out_dir: Path = values["out_dir"]
    if any(out_dir.glob("*/fold*/oof.npz")):
        return
    changed = [name for name in PASSED_FLAGS if values.get(name) != defaults.get(name)]
    plan = make_plan([_flag(name, values[name]) for name in changed])
    needed = tuple(step for step in plan.steps if step.script in TRAINING_SCRIPTS)
    logger.info(
        "no finished run yet: training the models that run_all.sh trains, which takes some minutes"
    )
    if steps.run_steps(needed, plan.n_parallel).code:
        raise RunError(out_dir, "the training failed", "see above")


def _flag(name: str, value: Any) -> str:
    return f"--{name}" if value is True else f"--{name}={value}"
