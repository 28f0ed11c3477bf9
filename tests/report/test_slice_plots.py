"""The figure of slices: its bars, labels and colors."""

from pathlib import Path

import pytest
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from motret.evaluation.metrics import Score
from motret.evaluation.slices import SliceScore
from motret.report import slice_plots
from motret.report.plot_style import BLUE, ORANGE

SCORES = [
    SliceScore("persons named", "one", 1234, Score(0.5, 0.02, 60, 6), Score(-0.2, 0.03, 90, 6)),
    SliceScore("persons named", "both", 2000, Score(0.7, 0.01, 90, 6), Score(0.2, 0.03, 90, 6)),
    SliceScore("source", "cmu", 10, Score(0.0, float("nan"), 1, 1), Score(-0.1, 0.09, 90, 6)),
    SliceScore("source", "kit", 3224, Score(1.0, 0.0, 90, 5), None),
]


def test_each_slice_is_a_bar_and_those_below_the_rest_are_orange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    save = slice_plots.save_figure

    def save_and_keep(figure: Figure, path: Path) -> None:
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(slice_plots, "save_figure", save_and_keep)
    path = tmp_path / "slices.png"
    slice_plots.plot_slices(path, "a run", SCORES, Score(0.6, 0.01, 100, 6))
    assert path.stat().st_size > 10_000
    (axes,) = figures[0].axes
    bars = [bar for one in axes.containers if isinstance(one, BarContainer) for bar in one]
    assert [bar.get_width() for bar in bars] == [0.5, 0.7, 0.0, 1.0]
    colors = [ORANGE, BLUE, BLUE, BLUE]
    assert [bar.get_facecolor() for bar in bars] == [pytest.approx(rgba(color)) for color in colors]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "both", "cmu", "kit"]
    texts = [text.get_text() for text in axes.texts]
    assert {"persons named", "source", "1,234", "0.500", "1.000"} <= set(texts)
    assert texts.count("persons named") == 1


def rgba(color: str) -> tuple[float, ...]:
    return (*(int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)), 1.0)
