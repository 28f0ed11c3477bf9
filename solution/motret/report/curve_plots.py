"""Training curves: losses, local score, recall, temperature, learning rates, over the epochs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from motret.evaluation import metrics
from motret.report.plot_style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PINK,
    WIDTH,
    YELLOW,
    save_figure,
    style,
)
from motret.runs.history import LOSS_PREFIX

DASHES, COLOURS = ("-", "--", ":"), (BLUE, ORANGE, GREEN)
TERM_STYLES = ((GREEN, ":"), (PINK, "-."), (YELLOW, (0, (4, 1, 1, 1, 1, 1))), (GREY, (0, (1, 3))))
"""Colour and dash of each loss term; from the first again where there are more."""


@dataclass(frozen=True)
class History:
    """The metrics.csv of one fold: (E,) values of each column, NaN where there is none.

    selected_epoch: the epoch of the selected checkpoint; None where it is not known or does not
    matter, as where several histories are drawn.
    """

    columns: Mapping[str, np.ndarray]
    selected_epoch: int | None

    def series(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Epochs and values where a column has values; empty arrays without such a column."""
        values = self.columns.get(column, np.full(len(self.columns["epoch"]), np.nan))
        finite = np.isfinite(values)
        return self.columns["epoch"][finite], values[finite]


@dataclass(frozen=True)
class Curve:
    """How a column of the history is drawn. factor: of its values."""

    column: str
    label: str
    color: str = BLUE
    dash: Any = "-"
    factor: float = 1.0


@dataclass(frozen=True)
class _Panel:
    title: str
    curves: tuple[Curve, ...]
    from_zero: bool = True
    digits: int = 4
    percent: bool = False
    legend: bool = False
    """Also with a single curve."""


def plot_curves(
    path: Path,
    title: str,
    histories: Sequence[History],
    lr_mults: Mapping[str, float],
    train_label: str,
    pool: int,
) -> None:
    """Draws the course of a training in six panels.

    Several histories are drawn thin, and their mean over the epochs they share thick.

    lr_mults: name of each parameter group, and its learning rate as a multiple of the column `lr`;
    train_label: what the training loss is of; pool: candidates behind the local score.
    """
    recalls = zip((10, 5, 1), COLOURS, DASHES, strict=True)
    groups = zip(lr_mults.items(), COLOURS, DASHES, strict=False)
    score = _Panel("local score", (Curve("score", "score"),), from_zero=False)
    panels = (
        _Panel("loss", _loss_curves(train_label)),
        score,
        _Panel(
            "recall in the whole fold",
            tuple(Curve(f"t2m_r{k}", f"R@{k}", color, dash) for k, color, dash in recalls),
            percent=True,
            legend=True,
        ),
        _Panel("temperature", (Curve("tau", "temperature"),), from_zero=False),
        _Panel(
            "learning rates",
            tuple(Curve("lr", name, color, dash, mult) for (name, mult), color, dash in groups),
            digits=2,
        ),
        _Panel("mean cosine distance", (Curve("spread", "mean cosine distance"),)),
    )
    with style():
        figure = Figure(figsize=(WIDTH, 6.2))
        # margins by hand: a layout that computes them takes as long as the drawing
        figure.subplots_adjust(
            left=0.085, right=0.985, bottom=0.085, top=0.87, wspace=0.36, hspace=0.4
        )
        figure.suptitle(title, x=0.006, ha="left", y=0.985, va="top")
        for ax, panel in zip(figure.subplots(2, 3).flat, panels, strict=True):
            _draw_panel(ax, panel, histories)
            if panel is score:
                _draw_score_context(ax, histories, pool)
        save_figure(figure, path)


def plot_loss_curve(path: Path, title: str, history: History, train_label: str) -> None:
    """Draws the training and validation loss of one fold, and the terms of the training loss.

    A single term is the loss, and is not drawn.
    """
    with style():
        figure = Figure(figsize=(WIDTH, 4.5))
        ax = figure.add_axes((0.085, 0.125, 0.89, 0.79))
        ax.set_title(title)
        for curve in (*_loss_curves(train_label), *_term_curves(history)):
            draw_curve(ax, curve, [history])
        if history.selected_epoch is not None and len(history.series("val_loss")[0]):
            ax.axvline(history.selected_epoch, color=GREY, linestyle=":", label="selected epoch")
        _set_epoch_axis(ax, [history])
        ax.set_ylabel("loss")
        ax.set_ylim(bottom=0)
        ax.legend()
        save_figure(figure, path)


def _loss_curves(train_label: str) -> tuple[Curve, ...]:
    validation = Curve("val_loss", "validation", ORANGE, "--")
    return Curve("train_loss", train_label), validation


def _term_curves(history: History) -> list[Curve]:
    names = [name for name in history.columns if name.startswith(LOSS_PREFIX)]
    if len(names) < 2:
        return []
    return [
        Curve(name, f"{name.removeprefix(LOSS_PREFIX)} term, not weighted", color, dash)
        for name, (color, dash) in zip(names, cycle(TERM_STYLES), strict=False)
    ]


def _draw_panel(ax: Axes, panel: _Panel, histories: Sequence[History]) -> None:
    ax.set_title(panel.title)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    if panel.percent:
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    else:
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.{panel.digits}g}"))
    curves = [curve for curve in panel.curves if draw_curve(ax, curve, histories)]
    _set_epoch_axis(ax, histories)
    if not curves:
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", color=GREY)
        return
    needs_row = panel.percent  # recalls leave no corner free: their legend is a row above them
    if needs_row:
        ax.legend(loc="upper center", ncols=len(curves), handlelength=1.6, columnspacing=1.0)
    elif len(curves) > 1 or panel.legend:
        ax.legend()
    if panel.from_zero:
        ax.set_ylim(0, (1.25 if needs_row else 1.04) * ax.dataLim.y1 or 1)


def draw_curve(ax: Axes, curve: Curve, histories: Sequence[History]) -> bool:
    """Draws one column of all histories; returns whether any has values."""
    series = [history.series(curve.column) for history in histories]
    series = [(epochs, values * curve.factor) for epochs, values in series if len(epochs)]
    if not series:
        return False
    line: dict[str, Any] = {"color": curve.color, "linestyle": curve.dash}
    if len(histories) > 1:
        for epochs, values in series:
            ax.plot(epochs, values, **line, linewidth=0.9, alpha=0.45)
    epochs, mean = _mean_over_shared_epochs(series)
    marker = "o" if len(epochs) <= 30 else ""
    ax.plot(epochs, mean, **line, label=curve.label, marker=marker, markersize=3.5)
    return True


def _mean_over_shared_epochs(
    series: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Epochs that all (epochs, values) share, and the mean of the values at them."""
    shared = np.array(sorted(set.intersection(*(set(epochs) for epochs, _ in series))))
    return shared, np.mean([values[np.isin(epochs, shared)] for epochs, values in series], axis=0)


def _draw_score_context(ax: Axes, histories: Sequence[History], pool: int) -> None:
    """Draws the standard error of the (mean) score, chance, and a single history's selection."""
    measured = [history for history in histories if len(history.series("score")[0])]
    if not measured:
        return
    scores = [history.series("score") for history in measured]
    errors = [history.series("error")[1] for history in measured]
    squares = [(epochs, error**2) for (epochs, _), error in zip(scores, errors, strict=True)]
    shared, mean = _mean_over_shared_epochs(scores)
    error = np.sqrt(_mean_over_shared_epochs(squares)[1] / len(measured))
    ax.fill_between(
        shared,
        mean - error,
        mean + error,
        color=BLUE,
        alpha=0.2,
        linewidth=0,
        label="± standard error",
    )
    selected = histories[0].selected_epoch if len(histories) == 1 else None
    if selected is not None:
        epochs, values = scores[0]
        ring: dict[str, Any] = {"markersize": 9, "fillstyle": "none", "color": INK}
        ax.plot(
            selected, values[epochs == selected], "o", **ring, linestyle="", label="selected epoch"
        )
    bands = list(zip((values for _, values in scores), errors, strict=True))
    low = min(float((values - error).min()) for values, error in bands)
    high = max(float((values + error).max()) for values, error in bands)
    margin = 0.1 * (high - low) + 0.005
    ax.set_ylim(max(0.0, low - margin), high + margin)
    chance = metrics.chance_score(pool)
    above_chance = low - margin >= chance
    if not above_chance:
        ax.axhline(chance, color=GREY, linestyle=":")
        label: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": 10.5}
        ax.text(1, chance, "chance", transform=ax.get_yaxis_transform(), **label)
    ax.legend(loc="lower right" if above_chance else "center right")


def _set_epoch_axis(ax: Axes, histories: Sequence[History]) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlim(0.5, max(history.columns["epoch"].max() for history in histories) + 0.5)
    ax.set_xlabel("epoch")
