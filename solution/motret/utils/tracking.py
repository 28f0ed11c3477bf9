"""Curves of a training in TensorBoard or Weights & Biases (--log): a run for each fold, a step for
each epoch.

A tracker is a context manager that gives a function; it gets each epoch's row of metrics.csv. The
packages are optional and imported when a tracker opens. To add one, write such a context manager
and put it into `_TRACKERS`.
"""

import contextlib
import importlib.util
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motret.errors import ConfigError, first_line
from motret.utils import files, network, reading

logger = logging.getLogger(__name__)

Row = Mapping[str, float]
"""An epoch's row of metrics.csv: column -> value, NaN where there is none; `epoch` is from 1."""
LogEpoch = Callable[[Row], None]

WANDB_PROJECT = "motret"
"""The project in Weights & Biases, unless the environment variable WANDB_PROJECT names one."""
HEADLINE = "score"
"""The column beside the settings in TensorBoard's table of runs."""


@dataclass(frozen=True)
class TrackedFold:
    """The fold that is trained, as a tracker shows it.

    folder: the tracker's files go there; run, fold: names; key: the same whenever this fold goes
    on, another for any other; settings: name -> value; earlier: the epochs that were trained
    before, from the first.
    """

    folder: Path
    run: str
    fold: str
    key: str
    settings: Mapping[str, Any]
    earlier: Sequence[Row]


def check_tracker(kind: str) -> None:
    """ConfigError where the package is missing that --log needs. kind: its value, or none."""
    if kind == "none":
        return
    spec = importlib.util.find_spec(kind)
    if spec is None or spec.origin is None:  # a folder of that name is no package
        fix = f"install it with `{sys.executable} -m pip install {kind}`, or use --log none"
        raise ConfigError(f"--log {kind}", "this package is not installed", fix)


def open_tracker(kind: str, fold: TrackedFold) -> contextlib.AbstractContextManager[LogEpoch]:
    """Gives the function that logs an epoch. kind: tensorboard or wandb.

    A fold that goes on continues its curves: epochs that are trained again are not doubled, and
    earlier ones are added if the tracker does not have them.
    """
    check_tracker(kind)
    return _TRACKERS[kind](fold)


def _values(row: Row) -> dict[str, float]:
    """The columns of an epoch that have a value."""
    return {name: value for name, value in row.items() if name != "epoch" and not math.isnan(value)}


@contextlib.contextmanager
def _open_tensorboard(fold: TrackedFold) -> Iterator[LogEpoch]:
    """Writes event files into the fold's folder."""
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    goes_on = any(fold.folder.glob("events.out.tfevents.*"))
    purge_step = len(fold.earlier) + 1 if goes_on else None  # hides what is trained again
    plain = str | int | float | bool | None
    settings = {
        name: value if isinstance(value, plain) else str(value)
        for name, value in fold.settings.items()
    }
    with SummaryWriter(str(fold.folder), purge_step=purge_step) as writer:
        for summary in hparams(settings, {HEADLINE: 0.0}):
            writer._get_file_writer().add_summary(summary)  # add_hparams would make a second file

        def log_epoch(row: Row) -> None:
            for name, value in _values(row).items():
                writer.add_scalar(name, value, int(row["epoch"]))
            writer.flush()

        for row in () if goes_on else fold.earlier:
            log_epoch(row)
        yield log_epoch


@contextlib.contextmanager
def _open_wandb(fold: TrackedFold) -> Iterator[LogEpoch]:
    """Logs to Weights & Biases; its files are in wandb/ in the fold's folder.

    A file there counts the epochs that were logged: without network there is no server to ask.
    """
    counter = fold.folder / "wandb" / "logged_epochs.txt"
    count = reading.quiet_json(counter)
    n_logged = count if isinstance(count, int) else 0
    with _start_wandb_run(fold) as run:

        def log_epoch(row: Row) -> None:
            nonlocal n_logged
            epoch = int(row["epoch"])
            if epoch > n_logged:
                run.log(_values(row), step=epoch, commit=True)
                n_logged = epoch
                files.write_text(counter, str(epoch))

        for row in fold.earlier:
            log_epoch(row)
        yield log_epoch


def _start_wandb_run(fold: TrackedFold) -> Any:
    """The run of this fold in Weights & Biases; offline where it cannot be reached, or nobody is
    logged in."""
    import wandb

    def start(**mode: str) -> Any:
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", WANDB_PROJECT),
            dir=fold.folder,
            id=fold.key,
            name=f"{fold.run}/{fold.fold}",
            group=fold.run,
            config={
                name: str(value) if isinstance(value, Path) else value
                for name, value in fold.settings.items()
            },
            allow_val_change=True,
            settings=wandb.Settings(console="off", silent=True),
            **mode,
        )

    wandb_settings = wandb.setup().settings
    if wandb_settings.mode not in (None, "online"):
        return start(mode=wandb_settings.mode)
    try:
        if network.responds(wandb_settings.base_url):
            with _no_terminal_input():
                run = start(resume="allow")
            logger.info(f"{fold.fold}: curves at {run.url}")
            return run
        reason = f"{wandb_settings.base_url} does not answer"
    except wandb.errors.UsageError as error:  # nobody is logged in
        reason = first_line(error)
    except wandb.errors.Error as error:
        fix = "repair it (`wandb login`), or set WANDB_MODE=offline to keep the curves here"
        raise ConfigError("--log wandb", first_line(error), fix) from error
    logger.info(f"--log wandb: {reason}")
    folder = fold.folder / "wandb"
    logger.info(f"curves stay in {folder}: `wandb sync {folder}/offline-run-*` uploads them")
    return start(mode="offline")


@contextlib.contextmanager
def _no_terminal_input() -> Iterator[None]:
    """Within it, a library that would ask for a login on the terminal finds none."""
    stdin = sys.stdin
    with Path(os.devnull).open(encoding="utf-8") as sys.stdin:
        try:
            yield
        finally:
            sys.stdin = stdin


_TRACKERS: Mapping[str, Callable[[TrackedFold], contextlib.AbstractContextManager[LogEpoch]]] = {
    "tensorboard": _open_tensorboard,
    "wandb": _open_wandb,
}
