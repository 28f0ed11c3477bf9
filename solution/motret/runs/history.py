"""The epochs of a fold's training: their statistics, how many there will be, and metrics.csv."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from motret.config.training import CheckpointConfig, FitConfig
from motret.errors import RunError
from motret.models.dual_encoder import DualEncoder
from motret.runs.run import training_command
from motret.utils import files, reading


@dataclass(frozen=True)
class EpochStats:
    """One row of metrics.csv; losses and scores are NaN where there was no validation.

    score, error: local score and its standard error; t2m: each caption ranks the motions of the
    fold; m2t: each motion ranks its captions, of which the best counts; r1, r5, r10: recalls;
    meanr, medr: mean and median of the ranks, from 1; spread, text_spread: mean cosine distance
    between motions and between captions. skipped_steps: steps left out because a gradient
    overflowed in float16. loss_terms: mean of each term of the training loss, not
    weighted, by name; in the columns loss_<name>; a run has those of its objective.
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
    skipped_steps: int = 0
    loss_terms: dict[str, float] = field(default_factory=dict)


LOSS_PREFIX = "loss_"
"""Prefix of the columns of loss terms."""

RENAMED_COLUMNS = {"r1": "t2m_r1", "r5": "t2m_r5", "r10": "t2m_r10"}
"""Columns by the names they had before both directions were measured."""

BEST_EPOCH_NOTE = "chosen on the fold it is scored on, which flatters the score a little"
"""The note on an epoch that was not simply the last."""

EpochCallback = Callable[[EpochStats], None]
"""Gets the statistics of each epoch as it ends, in place of a bar; its exceptions end training."""

PlotCallback = Callable[[DualEncoder, int, bool], None]
"""Gets the model after each epoch, the epoch's number, and whether it is the last; it may put the
model into evaluation mode."""


def restore_stats(values: Mapping[str, Any]) -> EpochStats:
    """The epoch that a checkpoint holds as a dictionary, perhaps under former names."""
    return EpochStats(**{RENAMED_COLUMNS.get(name, name): value for name, value in values.items()})


def planned_epochs(config: FitConfig, history: Sequence[EpochStats]) -> int:
    """Epochs in all: --epochs, or what still fits into --max_minutes at the mean time so far."""
    if config.max_minutes is None or not history:
        return config.epochs
    spent = sum(stats.seconds for stats in history)
    remaining = config.max_minutes * 60 - spent
    more = max(0, int(remaining / (spent / len(history))))
    return min(config.epochs, len(history) + more)


def describe_epoch(stats: EpochStats) -> str:
    """An epoch as a line of the log."""
    message = (
        f"epoch {stats.epoch}: {stats.seconds:.1f} s, lr {stats.lr:.2e}, tau {stats.tau:.4f}, "
        f"train loss {stats.train_loss:.4f}"
    )
    if len(stats.loss_terms) > 1:
        terms = ", ".join(f"{name} {value:.4f}" for name, value in stats.loss_terms.items())
        message = f"{message} ({terms})"
    if stats.skipped_steps:
        message = f"{message}, {stats.skipped_steps} steps skipped (float16 overflow)"
    if not math.isfinite(stats.score):
        return message
    return (
        f"{message}, val loss {stats.val_loss:.4f}, score {stats.score:.4f} +- {stats.error:.4f}, "
        f"R@1 {stats.t2m_r1:.4f}, spread {stats.spread:.3f} text {stats.text_spread:.3f}"
    )


def selection_metric(stats: EpochStats, config: CheckpointConfig) -> float:
    """The value by which a checkpoint is selected; NaN without a validation."""
    if config.selection == "last":
        return float(stats.epoch) if math.isfinite(stats.score) else math.nan
    return stats.t2m_r1 if config.selection == "r1" else stats.score


def should_stop_early(history: Sequence[EpochStats], config: CheckpointConfig) -> bool:
    """Whether --early_stop_patience validations have gone by without a better one."""
    validated = [stats for stats in history if math.isfinite(stats.score)]
    if not config.early_stop_patience or not validated:
        return False
    best = int(np.argmax([selection_metric(stats, config) for stats in validated]))
    return len(validated) - 1 - best >= config.early_stop_patience


def write_metrics(path: Path, history: Sequence[EpochStats]) -> None:
    """Writes metrics.csv, one row an epoch; a loss term that an epoch lacks is NaN."""
    rows = [metrics_row(stats) for stats in history]
    columns = dict.fromkeys((name for row in rows for name in row), math.nan)
    files.write_csv(path, [columns | row for row in rows], flush=False)


def metrics_row(stats: EpochStats) -> dict[str, float]:
    """An epoch as a row of metrics.csv: column -> value, NaN where there is none."""
    row = asdict(stats)
    terms = row.pop("loss_terms")
    return row | {LOSS_PREFIX + name: value for name, value in terms.items()}


def read_metrics(path: Path) -> list[EpochStats]:
    """The epochs in a metrics.csv; columns that an older file lacks are NaN.

    RunError where it cannot be read.
    """
    fix = training_command(path.parent)
    if not (path.parent / "last.pt").exists():  # which the epochs could be taken from
        fix = f"put a copy back, or move {path.parent} away and {fix}"
    text = reading.read_text(path, error=RunError)
    with reading.boundary(path, "cannot be read", fix, RunError):
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        if not rows:
            raise ValueError("it holds no epoch")
        return [_parse_row(row) for row in rows]


def _parse_row(row: Mapping[str, str]) -> EpochStats:
    columns = {item.name for item in fields(EpochStats)} - {"loss_terms"}
    renamed = {RENAMED_COLUMNS.get(name, name): value for name, value in row.items()}
    if None in renamed or None in renamed.values():
        raise ValueError("a row is not as long as the header")
    values: dict[str, Any] = {
        name: float(value) for name, value in renamed.items() if name in columns
    }
    terms = {
        name.removeprefix(LOSS_PREFIX): float(value)
        for name, value in renamed.items()
        if name and name.startswith(LOSS_PREFIX) and not math.isnan(float(value))
    }
    counts = {name: int(values.get(name, 0)) for name in ("epoch", "skipped_steps")}
    return EpochStats(**values | counts | {"loss_terms": terms})
