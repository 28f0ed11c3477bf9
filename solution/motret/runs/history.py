"""The epochs of a fold's training: what each came to, how many there will be, what a checkpoint is chosen by, metrics.csv."""

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from motret.config.training import CheckpointConfig, FitConfig
from motret.errors import RunError
from motret.models.dual_encoder import DualEncoder
from motret.utils import files


@dataclass(frozen=True)
class EpochStats:
    """One line of metrics.csv; losses and scores are NaN where nothing was held out or no validation was due.

    t2m: each caption ranks the motions of the fold; m2t: each motion its captions, the best-placed of its own counts. r1, r5, r10:
    recalls; meanr, medr: mean and median of the ranks, from 1. loss_terms: mean of each term of the training loss, not weighted,
    by name; columns loss_<name>; a run has those of its objective.
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
    loss_terms: dict[str, float] = field(default_factory=dict)


LOSS_PREFIX = "loss_"
"""Of the columns of loss terms."""

RENAMED_COLUMNS = {"r1": "t2m_r1", "r5": "t2m_r5", "r10": "t2m_r10"}
"""Columns as runs made before both directions were measured have them."""


def restore_stats(line: Mapping[str, Any]) -> EpochStats:
    """The epoch that a checkpoint holds as a dictionary, perhaps under older names."""
    return EpochStats(**{RENAMED_COLUMNS.get(name, name): value for name, value in line.items()})


BEST_EPOCH_NOTE = "chosen on the fold it is scored on, which flatters the score a little"
"""What is said of an epoch that was not simply the last."""

EpochCallback = Callable[[EpochStats], None]
"""Is told of each epoch as it ends, in place of a bar; what it raises ends the training."""

PlotCallback = Callable[[DualEncoder, int, bool], None]
"""Is shown the model after each epoch, with the epoch's number and whether it is the last; may put it into evaluation mode."""


def planned_epochs(config: FitConfig, history: list[EpochStats]) -> int:
    """Epochs in all: --epochs, or what still fits into --max_minutes at the pace so far."""
    if config.max_minutes is None or not history:
        return config.epochs
    spent = sum(line.seconds for line in history)
    left = config.max_minutes * 60 - spent
    return min(config.epochs, len(history) + max(0, int(left / (spent / len(history)))))


def describe_epoch(line: EpochStats) -> str:
    """An epoch as a line of the log."""
    terms = ", ".join(f"{name} {value:.4f}" for name, value in line.loss_terms.items())
    told = f"epoch {line.epoch}: {line.seconds:.1f} s, lr {line.lr:.2e}, tau {line.tau:.4f}, train loss {line.train_loss:.4f}"
    told += f" ({terms})" if len(line.loss_terms) > 1 else ""
    if not math.isfinite(line.score):
        return told
    told += f", val loss {line.val_loss:.4f}, score {line.score:.4f} +- {line.error:.4f}, R@1 {line.t2m_r1:.4f}"
    return f"{told}, spread {line.spread:.3f} text {line.text_spread:.3f}"


def selection_metric(line: EpochStats, config: CheckpointConfig) -> float:
    """What a checkpoint is chosen by; NaN without a validation."""
    if config.selection == "last":
        return float(line.epoch) if math.isfinite(line.score) else math.nan
    return line.t2m_r1 if config.selection == "r1" else line.score


def should_stop_early(history: list[EpochStats], config: CheckpointConfig) -> bool:
    """Whether as many validations as the patience allows have gone by without a better one."""
    worths = [selection_metric(line, config) for line in history if math.isfinite(line.score)]
    if not config.early_stop_patience or not worths:
        return False
    return len(worths) - 1 - int(np.argmax(worths)) >= config.early_stop_patience


def write_metrics(path: Path, history: list[EpochStats]) -> None:
    """Writes metrics.csv: one row per epoch; a loss term that an epoch lacks is NaN."""
    terms = dict.fromkeys(name for stats in history for name in stats.loss_terms)
    rows = []
    for stats in history:
        row = asdict(stats) | {LOSS_PREFIX + name: stats.loss_terms.get(name, math.nan) for name in terms}
        del row["loss_terms"]
        rows.append(row)
    files.write_csv(path, rows)


def read_metrics(path: Path) -> list[EpochStats]:
    """The epochs in a metrics.csv; columns that an older file lacks are NaN. RunError where it cannot be read."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            history = [_parse_row(row) for row in csv.DictReader(stream)]
        if not history:
            raise ValueError("it holds no epoch")
        return history
    except (OSError, ValueError, TypeError, KeyError) as broken:
        raise RunError(path, f"cannot be read ({broken})", "train the fold again") from broken


def _parse_row(row: Mapping[str, str]) -> EpochStats:
    columns = {item.name for item in fields(EpochStats)} - {"loss_terms"}
    row = {RENAMED_COLUMNS.get(name, name): value for name, value in row.items()}
    values: dict[str, Any] = {name: float(value) for name, value in row.items() if name in columns}
    values["loss_terms"] = {
        name.removeprefix(LOSS_PREFIX): float(value)
        for name, value in row.items()
        if name and name.startswith(LOSS_PREFIX) and not math.isnan(float(value))
    }
    return EpochStats(**values | {"epoch": int(row["epoch"])})
