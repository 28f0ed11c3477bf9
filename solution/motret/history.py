"""The epochs of a fold's training: what each came to, how many there will be, what a checkpoint is chosen by, metrics.csv."""

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from motret import files
from motret.config import FitSettings
from motret.faults import RunFault
from motret.model import DualEncoder


@dataclass(frozen=True)
class Epoch:
    """One line of metrics.csv; losses and scores are NaN where nothing was held out or no validation was due.

    t2m: each caption ranks the motions of the fold; m2t: each motion its captions, the best-placed of its own counts. r1, r5, r10:
    recalls; meanr, medr: mean and median of the ranks, from 1.
    """

    epoch: int
    seconds: float
    lr: float
    tau: float
    train_loss: float
    val_loss: float = math.nan
    score: float = math.nan
    error: float = math.nan
    t2m_r1: float = math.nan
    t2m_r5: float = math.nan
    t2m_r10: float = math.nan
    t2m_meanr: float = math.nan
    t2m_medr: float = math.nan
    m2t_r1: float = math.nan
    m2t_r5: float = math.nan
    m2t_r10: float = math.nan
    m2t_meanr: float = math.nan
    m2t_medr: float = math.nan
    spread: float = math.nan
    text_spread: float = math.nan


RENAMED = {"r1": "t2m_r1", "r5": "t2m_r5", "r10": "t2m_r10"}
"""Columns as runs made before both directions were measured have them."""


def restored(line: Mapping[str, Any]) -> Epoch:
    """The epoch that a checkpoint holds as a dictionary, perhaps under older names."""
    return Epoch(**{RENAMED.get(name, name): value for name, value in line.items()})


CHOSEN_THERE = "chosen on the fold it is scored on, which flatters the score a little"
"""What is said of an epoch that was not simply the last."""

Watch = Callable[[Epoch], None]
"""Is told of each epoch as it ends, in place of a bar; what it raises ends the training."""

Draw = Callable[[DualEncoder, int, bool], None]
"""Is shown the model after each epoch, with the epoch's number and whether it is the last; may put it into evaluation mode."""


def planned_epochs(settings: FitSettings, history: list[Epoch]) -> int:
    """Epochs in all: --epochs, or what still fits into --max_minutes at the pace so far."""
    if settings.max_minutes is None or not history:
        return settings.epochs
    spent = sum(line.seconds for line in history)
    left = settings.max_minutes * 60 - spent
    return min(settings.epochs, len(history) + max(0, int(left / (spent / len(history)))))


def describe(line: Epoch) -> str:
    """An epoch as a line of the log."""
    told = f"epoch {line.epoch}: {line.seconds:.1f} s, lr {line.lr:.2e}, tau {line.tau:.4f}, train loss {line.train_loss:.4f}"
    if not math.isfinite(line.score):
        return told
    told += f", val loss {line.val_loss:.4f}, score {line.score:.4f} +- {line.error:.4f}, R@1 {line.t2m_r1:.4f}"
    return f"{told}, spread {line.spread:.3f} text {line.text_spread:.3f}"


def worth(line: Epoch, settings: FitSettings) -> float:
    """What a checkpoint is chosen by; NaN without a validation."""
    if settings.chosen_by == "last":
        return float(line.epoch) if math.isfinite(line.score) else math.nan
    return line.t2m_r1 if settings.chosen_by == "r1" else line.score


def stale(history: list[Epoch], settings: FitSettings) -> bool:
    """Whether as many validations as the patience allows have gone by without a better one."""
    worths = [worth(line, settings) for line in history if math.isfinite(line.score)]
    if not settings.early_stop_patience or not worths:
        return False
    return len(worths) - 1 - int(np.argmax(worths)) >= settings.early_stop_patience


def write(path: Path, history: list[Epoch]) -> None:
    """Writes metrics.csv, a line an epoch."""
    files.write_table(path, [asdict(line) for line in history])


def read(path: Path) -> list[Epoch]:
    """The epochs in a metrics.csv; columns that an older file has not are NaN. RunFault where it cannot be read."""
    known = {item.name for item in fields(Epoch)}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = [{RENAMED.get(name, name): value for name, value in row.items()} for row in csv.DictReader(stream)]
            rows = [{name: float(value) for name, value in row.items() if name in known} for row in rows]
        if not rows:
            raise ValueError("it holds no epoch")
        return [Epoch(**row | {"epoch": int(row["epoch"])}) for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as broken:
        raise RunFault(path, f"cannot be read ({broken})", "train the fold again") from broken
