"""Scripts typed alone in a fresh clone: without data they work on the generated challenge, and make what is missing of it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from motret.config import base, cli
from motret.config.scripts import SceneConfig
from motret.errors import RunError
from motret.pipeline import steps
from motret.pipeline.plan import make_plan

PASSED_FLAGS = (*base.WRITTEN_FOLDERS, "device", "jobs", "debug")
"""Flags of a script that hold for the training it needs, too."""


def with_data(argv: Sequence[str] | None, takes_preset: bool = False) -> list[str]:
    """A script's arguments; where no data folder is named and none is there, with the generated challenge as data.

    takes_preset: the script has a preset; then it is the one that run_all.sh takes for the generated challenge.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if base.default_path("data_dir").is_dir() or cli.given_flags(args) & {"data_dir", "help"} or "-h" in args:
        return args
    preset = ["--preset", "fast"] if takes_preset and "preset" not in cli.given_flags(args) else []
    return [*args, "--data_dir", str(base.sample_dir()), *preset]


def make_missing(args: Sequence[str], argv: Sequence[str] | None, runs: bool = False) -> None:
    """Makes the generated challenge where `with_data` put it into the arguments, and says so.

    argv: the arguments before that; runs: also trains what run_all.sh would, where no run of the challenge is finished.
    """
    if "data_dir" in cli.given_flags(args) - cli.given_flags(sys.argv[1:] if argv is None else argv):
        flags = dict(cli.flag_groups(args[next(place for place, arg in enumerate(args) if arg.startswith("--")) :]))
        _make_challenge(flags, runs)


def _make_challenge(flags: dict[str, list[str]], runs: bool) -> None:
    default, sample = base.default_path("data_dir"), base.sample_dir()
    from motret.synthetic import challenge

    preset = f" with the {flags['preset'][-1]} preset" if "preset" in flags else ""
    print(f"no {default}/ here: using the generated challenge in {sample}{preset} (put the competition's data into {default}/)", flush=True)
    challenge.make_sample(sample, SceneConfig())
    out_dir = Path(flags["out_dir"][-1]) if "out_dir" in flags else base.default_path("out_dir")
    if runs and not {"run", "runs"} & flags.keys() and not any(out_dir.glob("*/fold*/oof.npz")):
        _train_runs(flags, out_dir)


def _train_runs(flags: dict[str, list[str]], out_dir: Path) -> None:
    plan = make_plan([word for name in PASSED_FLAGS for word in flags.get(name, ())])
    needed = tuple(step for step in plan.steps if step.script in ("prepare", "make_folds", "tune", "train"))
    print("no finished run yet: training the models that run_all.sh trains, which takes some minutes", flush=True)
    if steps.run_steps(needed, plan.side_by_side).code:
        raise RunError(out_dir, "the training did not end", "see above")
