"""Pictures of a search: how it went, which settings matter, and what good trials have in common."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from motret.evaluation.metrics import Score
from motret.utils import files

ACCENT, QUIET, GONE = "#1f5fa8", "#9aa4b0", "#c4603a"
"""Of the best, of the others, of trials that ended early."""
MIN_TRIALS = 10
"""Fewer finished trials say nothing about the importance of a setting."""


def draw_study(
    trials: Sequence[FrozenTrial],
    variant: str,
    space: Mapping[str, BaseDistribution],
    default: Mapping[str, Any],
    score: Score,
    folder: Path,
) -> str | None:
    """Writes history.png, importance.png and parallel.png. score: of the default configuration, whose values are `default`.

    Returns a line that says why importance.png is not drawn, where it is not.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    _save(plot_history(trials, variant, score), folder / "history.png")
    _save(plot_parallel(complete, variant, space, default), folder / "parallel.png")
    if len(complete) < MIN_TRIALS or len({trial.value for trial in complete}) < 2:
        return f"{folder / 'importance.png'} is not drawn: {len(complete)} finished trials are too few for it, it takes {MIN_TRIALS}"
    _save(plot_importance(complete, variant, space), folder / "importance.png")
    return None


def plot_history(trials: Sequence[FrozenTrial], variant: str, score: Score) -> Figure:
    """Score of each trial, the best so far, and the default with its standard error."""
    figure, axes = _figure(8, 4.5)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    cut = [trial for trial in trials if trial.state == TrialState.PRUNED and trial.intermediate_values]
    numbers, values = np.array([trial.number for trial in complete]), np.array([trial.value for trial in complete])
    axes.axhspan(score.mean - score.error, score.mean + score.error, color=QUIET, alpha=0.2, linewidth=0)
    axes.axhline(score.mean, color=QUIET, linewidth=1, label="default, with its standard error")
    axes.scatter([trial.number for trial in cut], [last_score(trial) for trial in cut], marker="x", color=GONE, label="ended early")
    axes.scatter(numbers, values, color=ACCENT, zorder=3, label="trial")
    axes.step(numbers, np.maximum.accumulate(values), where="post", color=ACCENT, label="best so far")
    axes.set(xlabel="trial", ylabel="local score of the trial", title=f"{variant}: tuning, trial by trial")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=4)
    return figure


def last_score(trial: FrozenTrial) -> float:
    """The last score that a trial reported."""
    return trial.intermediate_values[trial.last_step]


def plot_importance(complete: Sequence[FrozenTrial], variant: str, space: Mapping[str, BaseDistribution]) -> Figure:
    """Share of the scores' variance that each setting explains (fANOVA, Hutter et al. 2014)."""
    figure, axes = _figure(7, 1.2 + 0.35 * len(space))
    study = optuna.create_study(direction="maximize")
    study.add_trials(complete)
    found = optuna.importance.get_param_importances(study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0))
    names = sorted(found, key=found.__getitem__)
    bars = axes.barh(names, [found[name] for name in names], color=ACCENT)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    title = f"{variant}: importance of each setting, {len(complete)} trials"
    axes.set(xlabel="share of the scores' variance", xlim=(0, max(found.values()) * 1.15), title=title)
    return figure


def plot_parallel(
    complete: Sequence[FrozenTrial], variant: str, space: Mapping[str, BaseDistribution], default: Mapping[str, Any]
) -> Figure:
    """A line for each finished trial through its values of all settings, coloured by its score; the default is dashed."""
    figure, axes = _figure(1.5 + 1.35 * len(space), 5)
    scores = np.array([trial.value for trial in complete])
    shades = mpl.colors.Normalize(scores.min(), max(scores.max(), scores.min() + 1e-9))
    across = range(len(space))
    for trial in sorted(complete, key=lambda trial: trial.value):
        heights = [figure_height(space[name], trial.params[name]) for name in space]
        dashes = "--" if trial.params == default else "-"
        axes.plot(across, heights, dashes, color=mpl.colormaps["viridis_r"](shades(trial.value)), linewidth=1.6, alpha=0.85)
    for place, item in enumerate(space.values()):
        _scale(axes, place, item)
    axes.set_xticks(across, list(space), rotation=30, ha="right")
    axes.set(xlim=(-0.3, len(space) - 0.4), ylim=(-0.05, 1.05), title=f"{variant}: settings and score of each trial")
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    figure.colorbar(mpl.cm.ScalarMappable(shades, "viridis_r"), ax=axes, label="local score (dashed: default)", pad=0.02)
    return figure


def figure_height(item: BaseDistribution, value: Any) -> float:
    """Place of a value on its axis, 0 to 1."""
    if isinstance(item, CategoricalDistribution):
        return item.choices.index(value) / max(1, len(item.choices) - 1)
    low, high = (np.log(item.low), np.log(item.high)) if item.log else (item.low, item.high)
    return float(((np.log(value) if item.log else value) - low) / (high - low))


def _scale(axes: Axes, place: int, item: BaseDistribution) -> None:
    """An axis with its values."""
    axes.axvline(place, color=QUIET, linewidth=0.8, zorder=0)
    shown = item.choices if isinstance(item, CategoricalDistribution) else [_between(item, share) for share in (0, 0.5, 1)]
    for value in shown:
        told = f"{value:.3g}" if isinstance(value, float) else str(value)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
        axes.annotate(
            told, (place, figure_height(item, value)), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8, bbox=box
        )


def _between(item: BaseDistribution, share: float) -> float:
    return float(item.low * (item.high / item.low) ** share if item.log else item.low + share * (item.high - item.low))


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    files.atomic_write(path, lambda beside: figure.savefig(beside, bbox_inches="tight"))
