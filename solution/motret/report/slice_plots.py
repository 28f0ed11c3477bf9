"""The local score by what captions are like: a bar for each slice, with its standard error."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from motret.evaluation.metrics import Score
from motret.evaluation.slices import SliceScore
from motret.report.plot_style import BLUE, INK, ORANGE, WIDTH, save_figure, style

BAR_HEIGHT = 0.3
"""Of a bar with its gap, in inches."""


def plot_slices(path: Path, title: str, scores: Sequence[SliceScore], whole: Score) -> None:
    """Draws a horizontal bar for each slice, those of one kind together.

    whole: the local score of all captions, a line. A slice that is lower by more than two standard
    errors of its difference to the rest is orange.
    """
    positions: list[float] = []
    with style(**{"axes.grid.axis": "x", "ytick.major.size": 0}):
        n_kinds = len({score.name for score in scores})
        height = BAR_HEIGHT * (len(scores) + 1.4 * n_kinds) + 1.3
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots()
        position = 0.0
        for name, of_kind in groupby(scores, key=lambda score: score.name):
            heading: dict[str, Any] = {"ha": "left", "va": "center", "weight": "bold"}
            axes.text(0.005, position, name, **heading)
            position += 1
            for score in of_kind:
                _draw_bar(axes, position, score)
                positions.append(position)
                position += 1
            position += 0.4
        axes.axvline(whole.mean, color=INK, linestyle="--", linewidth=1.2)
        axes.set_yticks(positions, [score.label for score in scores])
        axes.set_ylim(position, -0.8)
        axes.set_xlim(0, 1)
        axes.set_xlabel(
            "local score ± standard error; in a bar: captions; dashed: all captions; "
            "orange: below the rest"
        )
        figure.suptitle(title, x=0.01, ha="left")
        save_figure(figure, path)


def _draw_bar(axes: Axes, position: float, score: SliceScore) -> None:
    """One slice: its bar, its number of captions, and its score behind the error."""
    mean, error = score.score.mean, score.score.error
    to_rest = score.to_rest
    is_low = to_rest is not None and to_rest.mean < -2 * to_rest.error
    axes.barh(position, mean, height=0.8, color=ORANGE if is_low else BLUE)
    axes.errorbar(mean, position, xerr=error, color=INK, capsize=3, linewidth=1.2)
    label: dict[str, Any] = {"va": "center", "fontsize": 10}
    color = "white" if mean > 0.1 else INK
    axes.text(0.008, position, f"{score.captions:,}", color=color, **label)
    background = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    end = min(mean + np.nan_to_num(error), 0.93)
    axes.text(end + 0.008, position, f"{mean:.3f}", bbox=background, **label)
