"""Figures of a search: its course, which settings matter, and what good trials have in common."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from motret.evaluation.metrics import Score
from motret.tuning.study import score_of
from motret.utils import files

ACCENT, MUTED, PRUNED = "#1f5fa8", "#9aa4b0", "#c4603a"
"""Colours of the trials, of the default, and of trials that ended early."""
MIN_TRIALS = 10
"""Fewer finished trials do not show the importance of a setting."""


def draw_study(
    trials: Sequence[FrozenTrial],
    variant: str,
    space: Mapping[str, BaseDistribution],
    default: Mapping[str, Any],
    score: Score,
    folder: Path,
) -> str | None:
    """Writes history.png, importance.png and parallel.png.

    score: of the default configuration, whose values are `default`. Returns a line with the reason
    where importance.png is not drawn.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    _save(plot_history(trials, variant, score), folder / "history.png")
    _save(plot_parallel(complete, variant, space, default), folder / "parallel.png")
    if len(complete) < MIN_TRIALS or len({trial.value for trial in complete}) < 2:
        few = f"{len(complete)} finished trials are too few for it, it takes {MIN_TRIALS}"
        return f"{folder / 'importance.png'} is not drawn: {few}"
    _save(plot_importance(complete, variant, space), folder / "importance.png")
    return None


def plot_history(trials: Sequence[FrozenTrial], variant: str, score: Score) -> Figure:
    """Score of each trial, the best so far, and the default with its standard error."""
    figure, axes = _figure(8, 4.5)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    pruned = [
        trial for trial in trials if trial.state == TrialState.PRUNED and trial.intermediate_values
    ]
    numbers, values = (
        [trial.number for trial in complete],
        np.array([trial.value for trial in complete]),
    )
    last_scores = [last_score(trial) for trial in pruned]
    axes.axhspan(
        score.mean - score.error, score.mean + score.error, color=MUTED, alpha=0.2, linewidth=0
    )
    axes.axhline(score.mean, color=MUTED, linewidth=1, label="default, with its standard error")
    axes.scatter(
        [trial.number for trial in pruned],
        last_scores,
        marker="x",
        color=PRUNED,
        label="ended early",
    )
    axes.scatter(numbers, values, color=ACCENT, zorder=3, label="trial")
    axes.step(
        numbers, np.maximum.accumulate(values), where="post", color=ACCENT, label="best so far"
    )
    axes.set(
        xlabel="trial",
        ylabel="local score of the trial",
        title=f"{variant}: tuning, trial by trial",
    )
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=4)
    return figure


def last_score(trial: FrozenTrial) -> float:
    """The last score that a trial reported."""
    assert trial.last_step is not None, "only trials with reports have a last score"
    return trial.intermediate_values[trial.last_step]


def plot_importance(
    complete: Sequence[FrozenTrial], variant: str, space: Mapping[str, BaseDistribution]
) -> Figure:
    """Fraction of the scores' variance that each setting explains (fANOVA, Hutter et al. 2014)."""
    figure, axes = _figure(7, 1.2 + 0.35 * len(space))
    study = optuna.create_study(direction="maximize")
    study.add_trials(complete)
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    importances = optuna.importance.get_param_importances(study, evaluator=evaluator)
    names = sorted(importances, key=importances.__getitem__)
    bars = axes.barh(names, [importances[name] for name in names], color=ACCENT)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    title = f"{variant}: importance of each setting, {len(complete)} trials"
    xlim = (0, max(importances.values()) * 1.15)
    axes.set(xlabel="fraction of the scores' variance", xlim=xlim, title=title)
    return figure


def plot_parallel(
    complete: Sequence[FrozenTrial],
    variant: str,
    space: Mapping[str, BaseDistribution],
    default: Mapping[str, Any],
) -> Figure:
    """A curve for each finished trial through its values of all settings, colored by its score;
    the default is dashed."""
    figure, axes = _figure(1.5 + 1.35 * len(space), 5)
    scores = np.array([trial.value for trial in complete])
    color_scale = mpl.colors.Normalize(scores.min(), max(scores.max(), scores.min() + 1e-9))
    positions = range(len(space))
    for trial in sorted(complete, key=score_of):
        heights = [figure_height(space[name], trial.params[name]) for name in space]
        style = "--" if trial.params == default else "-"
        color = mpl.colormaps["viridis_r"](color_scale(score_of(trial)))
        axes.plot(positions, heights, style, color=color, linewidth=1.6, alpha=0.85)
    for position, distribution in enumerate(space.values()):
        _draw_axis(axes, position, distribution)
    axes.set_xticks(positions, list(space), rotation=30, ha="right")
    title = f"{variant}: settings and score of each trial"
    axes.set(xlim=(-0.3, len(space) - 0.4), ylim=(-0.05, 1.05), title=title)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    colors = mpl.cm.ScalarMappable(color_scale, "viridis_r")
    figure.colorbar(colors, ax=axes, label="local score (dashed: default)", pad=0.02)
    return figure


def figure_height(distribution: BaseDistribution, value: Any) -> float:
    """Position of a value on its axis, 0 to 1."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices.index(value) / max(1, len(distribution.choices) - 1)
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    if distribution.log:
        low, high, value = np.log(low), np.log(high), np.log(value)
    return float((value - low) / (high - low))


def _draw_axis(axes: Axes, position: int, distribution: BaseDistribution) -> None:
    """The axis of a setting, with some of its values."""
    axes.axvline(position, color=MUTED, linewidth=0.8, zorder=0)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
    for value in _labelled_values(distribution):
        axes.annotate(
            f"{value:.3g}" if isinstance(value, float) else str(value),
            (position, figure_height(distribution, value)),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            bbox=box,
        )


def _labelled_values(distribution: BaseDistribution) -> Sequence[Any]:
    """All choices, or the ends and the middle of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    middle = low * (high / low) ** 0.5 if distribution.log else (low + high) / 2
    return [float(low), float(middle), float(high)]


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    files.atomic_write(path, lambda tmp_path: figure.savefig(tmp_path, bbox_inches="tight"))
