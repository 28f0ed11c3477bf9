"""Which runs a script works on: those that a flag names, or all that are finished."""

from collections.abc import Collection, Sequence
from pathlib import Path

from motret.data.dataset import TrainingData
from motret.data.folds import Folds
from motret.errors import RunError
from motret.runs.run import Run, list_runs, open_named_run


def select_runs(
    names: Sequence[str],
    out_dir: Path,
    data: TrainingData,
    folds: Folds,
    partial: bool = False,
    flag: str = "--runs",
    allow_towers: Collection[str] = (),
) -> list[Run]:
    """The runs of these names (or paths), or all finished ones of this data and these folds.

    partial: one finished fold is enough; flag: that names them; allow_towers: see `open_run`.
    RunError where a named run is of
    other data or folds, or no run is finished.
    """
    if names:
        runs = [open_named_run(name, out_dir, allow_towers) for name in names]
        for run in runs:
            check_run_matches(run, data, folds, flag)
        return runs
    runs = list_runs(out_dir, allow_towers)
    needed = 1 if partial else folds.count
    identity = (data.fingerprint, folds.hash)
    selected = [
        run
        for run in runs
        if (run.data, run.folds) == identity and len(run.finished_folds()) >= needed
    ]
    if not selected:
        problem = "holds no run"
        if runs:
            problem = f"none of its {len(runs)} runs is finished and of this data and these folds"
        fix = f"train one: `python solution/train.py holistic`; or name partial ones with {flag}"
        raise RunError(out_dir, problem, fix)
    return selected


def check_run_matches(run: Run, data: TrainingData, folds: Folds, flag: str = "--runs") -> None:
    """RunError where a run was trained on other data or folds.

    Its out-of-fold score would not be one. flag: that named the run.
    """
    pairs = {"data": (run.data, data.fingerprint), "folds": (run.folds, folds.hash)}
    for what, (recorded, now) in pairs.items():
        if recorded != now:
            problem = f"was trained on other {what} ({recorded}, now {now})"
            raise RunError(run.folder, problem, f"leave it out of {flag}, or train it again")


def common_folds(
    names: Sequence[str], finished: Sequence[Collection[int]], among: Collection[int]
) -> list[int]:
    """The folds among these that every model has finished. RunError where there is none.

    names, finished: of each model.
    """
    common = sorted(set(among).intersection(*finished))
    if not common:
        fix = "train the same folds of each, with --resume auto"
        raise RunError(", ".join(names), "no fold that all of them have finished", fix)
    return common


def folds_of_runs(runs: Sequence[Run], among: Collection[int]) -> list[int]:
    """The folds among these that all of these runs have finished, as `common_folds`."""
    return common_folds([run.name for run in runs], [run.finished_folds() for run in runs], among)
