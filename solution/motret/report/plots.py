"""Pictures: pure functions of arrays, each of which writes one PNG file, in one style.

A picture is 10 inches wide, so that its letters are still 12 pixels high where a README shows it 830 pixels wide. Colours are those
of Okabe and Ito, which the colour-blind tell apart; what a colour says is also said by a name, a marker or a dash.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from motret.evaluation import metrics
from motret.skeleton import SMPL, Skeleton
from motret.utils import files

WIDTH = 10.0
"""Of every picture, in inches."""
BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#8C8C8C", "#222222"
PERSONS = (BLUE, ORANGE)
"""Colour of each person."""
STYLE: dict[str, Any] = {
    "figure.dpi": 130,
    "savefig.dpi": 130,
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.constrained_layout.w_pad": 0.08,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "lines.linewidth": 2,
    "legend.frameon": True,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fontsize": 10.5,
    "legend.handlelength": 2.4,
    "figure.titlesize": 14,
    "figure.titleweight": "bold",
    "text.parse_math": False,  # a caption may hold a dollar sign
}
CHANCE_SCORE = metrics.chance_score()
"""Competition score of a random order."""
N_POSES = 7
NEAR_DISTANCE = 1.3
"""Metres between two persons in a picture, at most."""


# ---- curves


@dataclass(frozen=True)
class History:
    """What metrics.csv says of one fold's training: (E,) values of each column, NaN where there is none.

    kept: the epoch whose checkpoint is kept; None: not known, which will do where several histories are drawn.
    """

    columns: Mapping[str, np.ndarray]
    kept: int | None

    def series(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Epochs and values where the column has one; empty where it is not there."""
        values = self.columns.get(column, np.full(len(self.columns["epoch"]), np.nan))
        there = np.isfinite(values)
        return self.columns["epoch"][there], values[there]


@dataclass(frozen=True)
class _Curve:
    column: str
    label: str
    colour: str
    dash: str = "-"
    times: float = 1.0


def plot_curves(path: Path, title: str, histories: Sequence[History], rates: Mapping[str, float], train_label: str) -> None:
    """How training went: losses, local score, R@k, temperature, learning rates, spread of the embeddings.

    Several histories are drawn thin, and their mean over the epochs they share thick. rates: name of each group of weights, and its
    learning rate as a multiple of the column `lr`; train_label: what the training loss is of.
    """
    dashes, colours = ("-", "--", ":"), (BLUE, ORANGE, GREEN)
    panels = {
        "loss": _losses(train_label),
        "local score": (_Curve("score", "score", BLUE),),
        "recall in the whole fold": tuple(_Curve(f"t2m_r{k}", f"R@{k}", c, d) for k, c, d in zip((10, 5, 1), colours, dashes, strict=True)),
        "temperature": (_Curve("tau", "temperature", BLUE),),
        "learning rates": tuple(
            _Curve("lr", name, c, d, times) for (name, times), c, d in zip(rates.items(), colours, dashes, strict=False)
        ),
        "spread (1 - mean cosine)": (_Curve("spread", "spread", BLUE),),
    }
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 6.2))
        figure.subplots_adjust(left=0.085, right=0.985, bottom=0.085, top=0.87, wspace=0.36, hspace=0.4)  # by hand, as in `_stage`
        figure.suptitle(title, x=0.006, ha="left", y=0.985, va="top")
        for ax, (name, lines) in zip(figure.subplots(2, 3).flat, panels.items(), strict=True):
            ax.set_title(name)
            ax.yaxis.set_major_locator(MaxNLocator(5))
            ax.yaxis.set_major_formatter(lambda value, _, digits=2 if name == "learning rates" else 4: f"{value:.{digits}g}")
            drawn = [line for line in lines if _draw_curve(ax, line, histories)]
            _epoch_axis(ax, histories)
            if not drawn:
                ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", color=GREY)
            if len(drawn) > 1 or (drawn and name == "recall in the whole fold"):
                ax.legend()
            if name == "local score":
                _draw_score_context(ax, histories)
            if name == "recall in the whole fold":
                ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            if name not in ("temperature", "local score") and drawn:
                ax.set_ylim(0, 1.04 * ax.dataLim.y1 or 1)
        _save(figure, path)


def plot_loss_curve(path: Path, title: str, history: History, train_label: str) -> None:
    """Training and validation loss of one fold."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.5))
        ax = figure.add_axes((0.085, 0.125, 0.89, 0.79))
        ax.set_title(title)
        for line in _losses(train_label):
            _draw_curve(ax, line, [history])
        if len(history.series("val_loss")[0]):
            ax.axvline(history.kept, color=GREY, linestyle=":", label="kept epoch")
        _epoch_axis(ax, [history])
        ax.set_ylabel("loss")
        ax.set_ylim(bottom=0)
        ax.legend()
        _save(figure, path)


def _losses(train_label: str) -> tuple[_Curve, ...]:
    return _Curve("train_loss", train_label, BLUE), _Curve("val_loss", "validation", ORANGE, "--")


def _draw_curve(ax: Axes, line: _Curve, histories: Sequence[History]) -> bool:
    """Draws one quantity of all histories; whether there was any."""
    found = [(epochs, values * line.times) for epochs, values in (history.series(line.column) for history in histories) if len(epochs)]
    for epochs, values in found if len(histories) > 1 else ():
        ax.plot(epochs, values, color=line.colour, linestyle=line.dash, linewidth=0.9, alpha=0.45)
    if not found:
        return False
    shared = sorted(set.intersection(*(set(epochs) for epochs, _ in found)))
    mean = np.mean([values[np.isin(epochs, shared)] for epochs, values in found], axis=0)
    marker = "o" if len(shared) <= 30 else ""
    ax.plot(shared, mean, color=line.colour, linestyle=line.dash, label=line.label, marker=marker, markersize=3.5)
    return True


def _draw_score_context(ax: Axes, histories: Sequence[History]) -> None:
    """The error band of the (mean) score, chance, and the kept epoch of a single history."""
    found = [(*history.series("score"), history.series("error")[1]) for history in histories if len(history.series("score")[0])]
    if not found:
        return
    shared = sorted(set.intersection(*(set(epochs) for epochs, _, _ in found)))
    at = [np.isin(epochs, shared) for epochs, _, _ in found]
    mean = np.mean([values[rows] for (_, values, _), rows in zip(found, at, strict=True)], axis=0)
    error = np.sqrt(np.sum([errors[rows] ** 2 for (_, _, errors), rows in zip(found, at, strict=True)], axis=0)) / len(found)
    ax.fill_between(shared, mean - error, mean + error, color=BLUE, alpha=0.2, linewidth=0, label="± standard error")
    if len(histories) == 1:
        (history,) = histories
        epochs, values = history.series("score")
        ax.plot(history.kept, values[epochs == history.kept], "o", markersize=9, fillstyle="none", color=INK, label="kept", linestyle="")
    low = min(float((values - errors).min()) for _, values, errors in found)
    high = max(float((values + errors).max()) for _, values, errors in found)
    room = 0.1 * (high - low) + 0.005
    ax.set_ylim(max(0.0, low - room), high + room)
    above_chance = low - room >= CHANCE_SCORE
    if not above_chance:
        ax.axhline(CHANCE_SCORE, color=GREY, linestyle=":")
        ax.text(1, CHANCE_SCORE, "chance", transform=ax.get_yaxis_transform(), ha="right", va="bottom", fontsize=10.5)
    ax.legend(loc="lower right" if above_chance else "center right")


def _epoch_axis(ax: Axes, histories: Sequence[History]) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlim(0.5, max(history.columns["epoch"].max() for history in histories) + 0.5)
    ax.set_xlabel("epoch")


# ---- attention


def plot_attention(
    path: Path,
    title: str,
    caption: str,
    weights: np.ndarray,
    edges: np.ndarray,
    positions: np.ndarray,
    fps: float,
    layer: str,
    part: Sequence[int] = (),
    body: Skeleton = SMPL,
) -> None:
    """What one special token of each person attends to over time, key poses of both below.

    weights: (persons, persons, N) of each person's token on the motion tokens of each person; edges: (N + 1,) seconds between the
    tokens; positions: (T, persons, 22, 3) y-up; layer: what the weights are of; part: joints to draw thick.
    """
    persons, _, count = weights.shape
    end = max(edges[-1], len(positions) / fps)
    with mpl.rc_context(STYLE):
        told = _wrapped(f"“{caption}”", 95)
        figure, rows, ground = _attention_axes(persons, told.count("\n") + 1)
        figure.suptitle(title, x=0.006, ha="left", y=1 - 0.1 / figure.get_figheight(), va="top")
        rows[0].set_xlim(0, end)
        for me, ax in enumerate(rows):
            for other in range(persons):
                ax.stairs(weights[me, other], edges, color=PERSONS[other], linewidth=2, linestyle="-" if other == 0 else (0, (4, 1.2)))
                ax.stairs(weights[me, other], edges, color=PERSONS[other], alpha=0.18, fill=True)
            share = weights[me].sum()
            ax.axhline(share / (persons * count), color=GREY, linestyle=":", linewidth=1.5)
            name = f"token of person {'AB'[me]}: " if persons > 1 else ""
            ax.set_title(f"{name}{share:.0%} of its attention is on motion", fontweight="normal", fontsize=11)
            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if weights.max() > 0.05 else 1))
            ax.yaxis.set_major_locator(MaxNLocator(4))
            ax.grid(visible=False, axis="x")
            ax.set_ylim(0, 1.08 * weights.max())
        rows[0].set_title(layer, loc="right", fontweight="normal", fontsize=10.5, color="#666666")
        rows[-1].set_xlabel("seconds")
        handles = [Line2D([], [], color=PERSONS[p], linestyle="-" if p == 0 else (0, (4, 1.2))) for p in range(persons)]
        handles.append(Line2D([], [], color=GREY, linestyle=":"))
        names = ["on person A", "on person B"] if persons > 1 else ["attention"]
        figure.legend(handles, [*names, "if it were even"], loc="lower center", ncols=3)
        _draw_poses(ground, positions, fps, end, rows, part, body)
        ground.set_title(told, fontweight="normal", fontsize=11, style="italic")
        _save(figure, path)


def _attention_axes(persons: int, lines: int) -> tuple[Figure, list[Axes], Axes]:
    """A figure with a row of axes for each person and one for the poses below, which all share their place from left to right.

    lines: of text above the poses. All is put in place by hand, in inches from the top: a layout
    that finds the places itself takes as long as the drawing.
    """
    top, row, gap, below, ground, legend = 0.65, 1.25, 0.42, 0.6 + 0.2 * lines, 1.45, 0.45
    height = top + persons * row + (persons - 1) * gap + below + ground + legend
    figure = Figure(figsize=(WIDTH, height))
    left, wide = 0.07, 0.92
    rows: list[Axes] = []
    for number in range(persons):
        bottom = 1 - (top + (number + 1) * row + number * gap) / height
        rows.append(figure.add_axes((left, bottom, wide, row / height), sharex=rows[0] if rows else None))
        rows[-1].tick_params(labelbottom=number == persons - 1)
    return figure, rows, figure.add_axes((left, legend / height, wide, ground / height))


def _draw_poses(
    ground: Axes, positions: np.ndarray, fps: float, end: float, rows: Sequence[Axes], part: Sequence[int], body: Skeleton
) -> None:
    """Stick figures at evenly spaced moments, each below its place on the time axis, all seen from one side and to one scale."""
    ground.set_xlim(0, end)
    ground.axis("off")
    at = (np.arange(N_POSES) + 0.5) * end / N_POSES
    frames = np.minimum((at * fps).astype(int), len(positions) - 1)
    seen = project_to_side_view(positions)[frames]
    low, high = seen[..., 1].min() - 0.05, seen[..., 1].max() + 0.05
    half = max(0.45, np.abs(seen[..., 0]).max()) * 1.25
    ax = ground.inset_axes((0, 0.13, 1, 0.87))
    ax.axis("off")
    box = ax.get_window_extent()
    scale = max(2 * half / (box.width / N_POSES), (high - low) / box.height)  # metres a pixel, the same both ways
    room = scale * box.width / N_POSES
    ax.set(xlim=(0, N_POSES * room), ylim=(low, low + scale * box.height))
    centres = (np.arange(N_POSES) + 0.5) * room
    ax.hlines([low + 0.03] * N_POSES, centres - 0.85 * half, centres + 0.85 * half, color="#CCCCCC", linewidth=1)
    bones = [(joint, parent) for joint, parent in enumerate(body.parents) if parent >= 0]
    widths = [4.2 if joint in part and parent in part else 1.7 for joint, parent in bones]
    seen[..., 0] += centres[:, None, None]
    for person in range(seen.shape[1]):
        lines = seen[:, person][:, bones].reshape(-1, 2, 2)
        ax.add_collection(LineCollection(list(lines), colors=PERSONS[person], linewidths=widths * N_POSES, capstyle="round"))
        ax.plot(*seen[:, person, body.joint("head")].T, "o" if person == 0 else "s", color=PERSONS[person], markersize=5.5)
    for moment in at:
        ground.text(moment, 0.0, f"{moment:.1f} s", transform=ground.get_xaxis_transform(), ha="center", va="bottom", fontsize=10.5)
        for row in rows:
            row.axvline(moment, color="#CCCCCC", linewidth=0.8, zorder=0)


def project_to_side_view(positions: np.ndarray, turned: float = 0.5, raised: float = 0.2) -> np.ndarray:
    """(T, persons, 22, 2) picture plane of (T, persons, 22, 3) y-up joints, seen from where the scene is widest, or nearly.

    The eye is turned about the scene by `turned` radians, so that legs do not hide one another, and raised by `raised`. The picture is
    centred on the persons' middle; those further apart than `NEAR_DISTANCE` are drawn at that distance, so that figures stay large.
    """
    floor = positions[..., (0, 2)].reshape(len(positions), -1, 2)
    floor = (floor - floor.mean(axis=1, keepdims=True)).reshape(-1, 2)
    x, z = np.linalg.eigh(floor.T @ floor)[1][:, 1]
    angle = np.arctan2(z, x) % np.pi + turned  # an axis has no sign: half a turn is none
    axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    place = positions[..., (0, 2)] @ axes  # across the picture, and away from the eye
    pelvis = place[:, :, :1]
    offset = pelvis - pelvis.mean(axis=1, keepdims=True)
    distance = 2 * np.linalg.norm(offset, axis=-1, keepdims=True)
    drawn = place - pelvis + offset * np.minimum(1, NEAR_DISTANCE / np.maximum(distance, NEAR_DISTANCE))
    return np.stack([drawn[..., 0], np.cos(raised) * positions[..., 1] + np.sin(raised) * drawn[..., 1]], axis=-1)


# ---- similarities and embeddings


def plot_heatmap(path: Path, title: str, sim_nn: np.ndarray, groups: Sequence[str]) -> None:
    """Similarity of N texts (rows) to N motions (columns), the right pairs on the diagonal.

    groups: (N,) what each belongs to; equal neighbours are bracketed and named once where there is room.
    """
    count = len(sim_nn)
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 8.4), layout="constrained")
        figure.suptitle(title, x=0.006, ha="left")
        ax = figure.subplots()
        image = ax.imshow(sim_nn, cmap="cividis", interpolation="nearest", aspect="equal")
        figure.colorbar(image, ax=ax, label="cosine similarity", shrink=0.8, pad=0.02)
        starts = [0, *(place for place in range(1, count) if groups[place] != groups[place - 1]), count]
        middles = [(a + b - 1) / 2 for a, b in pairwise(starts)]
        roomy = [(middle, groups[a]) for middle, (a, b) in zip(middles, pairwise(starts), strict=True) if b - a >= count / 45]
        ax.set_yticks([place for place, _ in roomy], [name for _, name in roomy], fontsize=10.5)
        ax.set_xticks([place for place, _ in roomy], [name for _, name in roomy], fontsize=10.5, rotation=90)
        ax.tick_params(length=0)
        for edge in starts[1:-1]:
            ax.axhline(edge - 0.5, color="white", linewidth=0.6, alpha=0.6)
            ax.axvline(edge - 0.5, color="white", linewidth=0.6, alpha=0.6)
        ax.set_ylabel("texts")
        ax.set_xlabel("motions, in the same order: the diagonal holds the right pairs")
        ax.spines[:].set_visible(False)
        _save(figure, path)


@dataclass(frozen=True)
class Map2D:
    """N pairs in the plane. text, motion: (N, 2); title: what they are of."""

    title: str
    text: np.ndarray
    motion: np.ndarray


def plot_tsne(path: Path, title: str, maps: Sequence[Map2D]) -> None:
    """Texts and motions in one plane, pairs joined by grey lines; several planes side by side."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 5.6 if len(maps) > 1 else 9.0), layout="constrained")
        figure.suptitle(title, x=0.006, ha="left")
        for ax, shown in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps, strict=True):
            ax.add_collection(
                LineCollection(list(np.stack([shown.text, shown.motion], axis=1)), colors="#B5B5B5", linewidths=0.7, zorder=1)
            )
            for points, colour, marker in ((shown.text, BLUE, "o"), (shown.motion, ORANGE, "^")):
                ax.scatter(*points.T, s=20, color=colour, marker=marker, alpha=0.85, linewidths=0, zorder=2)
            ax.set_title(shown.title, fontweight="normal")
            ax.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
            ax.margins(0.04)
            ax.spines[:].set_visible(True)
            ax.spines[:].set_color("#CCCCCC")
        handles = [
            Line2D([], [], color=BLUE, marker="o", linestyle="", label="text"),
            Line2D([], [], color=ORANGE, marker="^", linestyle="", label="motion"),
            Line2D([], [], color="#B5B5B5", linewidth=1.2, label="right pair"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        _save(figure, path)


def plot_similarities(path: Path, title: str, right: np.ndarray, wrong: np.ndarray, hardest: np.ndarray) -> None:
    """Distributions of cosines: right pairs (C,), all wrong pairs (W,), and the best wrong motion of each caption (C,)."""
    low = min(values.min() for values in (right, wrong, hardest))
    bins = np.linspace(low, max(values.max() for values in (right, wrong, hardest)) + 1e-6, 61)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.8))
        ax = figure.add_axes((0.085, 0.12, 0.88, 0.76))
        ax.set_title(title)
        shown: tuple[tuple[str, np.ndarray, str, Any], ...] = (
            ("wrong pairs", wrong, GREY, "-"),
            ("best wrong motion of each text", hardest, ORANGE, (0, (4, 1.2))),
            ("right pairs", right, BLUE, "-"),
        )
        for name, values, colour, dash in shown:
            density, _ = np.histogram(values, bins)
            density = density / len(values)
            ax.stairs(density, bins, color=colour, fill=True, alpha=0.18)
            ax.stairs(density, bins, color=colour, linewidth=2, linestyle=dash, label=f"{name}, median {np.median(values):.2f}")
        ax.set_xlabel("cosine similarity of text and motion")
        ax.set_ylabel("share of pairs")
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if ax.get_ylim()[1] > 0.05 else 1))
        ax.set_ylim(bottom=0)
        ax.legend()
        _save(figure, path)


def _wrapped(text: str, width: int) -> str:
    """At most two lines of so many characters."""
    return "\n".join(textwrap.wrap(text, width, max_lines=2, placeholder=" …”"))


def _save(figure: Figure, path: Path) -> None:
    about = {"format": "png", "metadata": {"Software": None}, "pil_kwargs": {"compress_level": 3}}  # two thirds of the usual time
    files.atomic_write(path, lambda beside: figure.savefig(beside, **about))
