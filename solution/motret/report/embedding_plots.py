"""Figures of embeddings and their similarities: heatmap, t-SNE, distributions of cosines."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from motret.report.plot_style import (
    BLUE,
    GREY,
    LIGHT_GREY,
    ORANGE,
    WIDTH,
    save_figure,
    style,
)

PAIR_COLOUR = "#B5B5B5"
MIN_LABEL_SHARE = 1 / 45
"""A group is labelled where it has at least this share of the heatmap's height."""


def plot_heatmap(path: Path, title: str, sim_nn: np.ndarray, groups: Sequence[str]) -> None:
    """Draws the similarity of N texts to N motions, matching pairs on the diagonal.

    sim_nn: (N, N) texts x motions; groups: (N,) name of each pair's group. Lines separate the
    groups, and each is labelled once where there is room.
    """
    count = len(sim_nn)
    bounds = [index for index in range(1, count) if groups[index] != groups[index - 1]]
    spans = list(pairwise([0, *bounds, count]))
    labelled = [(start, end) for start, end in spans if end - start >= count * MIN_LABEL_SHARE]
    ticks = [(start + end - 1) / 2 for start, end in labelled]
    labels = [groups[start] for start, _ in labelled]
    with style(**{"axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 8.4), layout="constrained")
        figure.suptitle(title, x=0.006, ha="left")
        ax = figure.subplots()
        image = ax.imshow(sim_nn, cmap="cividis", interpolation="nearest", aspect="equal")
        figure.colorbar(image, ax=ax, label="cosine similarity", shrink=0.8, pad=0.02)
        ax.set_yticks(ticks, labels, fontsize=10.5)
        ax.set_xticks(ticks, labels, fontsize=10.5, rotation=90)
        ax.tick_params(length=0)
        for bound in bounds:
            ax.axhline(bound - 0.5, color="white", linewidth=0.6, alpha=0.6)
            ax.axvline(bound - 0.5, color="white", linewidth=0.6, alpha=0.6)
        ax.set_ylabel("texts")
        ax.set_xlabel("motions in the same order: matching pairs are on the diagonal")
        ax.spines[:].set_visible(False)
        save_figure(figure, path)


@dataclass(frozen=True)
class Map2D:
    """N pairs in the plane. text, motion: (N, 2)."""

    title: str
    text: np.ndarray
    motion: np.ndarray


def plot_tsne(path: Path, title: str, maps: Sequence[Map2D]) -> None:
    """Draws texts and motions in a plane, matching pairs joined by lines; maps side by side."""
    with style():
        figure = Figure(figsize=(WIDTH, 5.6 if len(maps) > 1 else 9.0), layout="constrained")
        figure.suptitle(title, x=0.006, ha="left")
        for ax, plane in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps, strict=True):
            pairs = list(np.stack([plane.text, plane.motion], axis=1))
            ax.add_collection(LineCollection(pairs, colors=PAIR_COLOUR, linewidths=0.7, zorder=1))
            dots: dict[str, Any] = {"s": 20, "alpha": 0.85, "linewidths": 0, "zorder": 2}
            ax.scatter(*plane.text.T, color=BLUE, marker="o", **dots)
            ax.scatter(*plane.motion.T, color=ORANGE, marker="^", **dots)
            ax.set_title(plane.title, fontweight="normal")
            ax.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
            ax.margins(0.04)
            ax.spines[:].set_visible(True)
            ax.spines[:].set_color(LIGHT_GREY)
        handles = [
            Line2D([], [], color=BLUE, marker="o", linestyle="", label="text"),
            Line2D([], [], color=ORANGE, marker="^", linestyle="", label="motion"),
            Line2D([], [], color=PAIR_COLOUR, linewidth=1.2, label="matching pair"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        save_figure(figure, path)


def plot_similarities(
    path: Path, title: str, positives: np.ndarray, negatives: np.ndarray, hardest: np.ndarray
) -> None:
    """Draws the distributions of cosines.

    positives: (C,) of matching pairs; negatives: (N,) of all other pairs; hardest: (C,) the highest
    negative of each caption.
    """
    values = np.concatenate([positives, negatives, hardest])
    bins = np.linspace(values.min(), values.max() + 1e-6, 61)
    groups: tuple[tuple[str, np.ndarray, str, Any], ...] = (
        ("negatives", negatives, GREY, "-"),
        ("hardest negative of each text", hardest, ORANGE, (0, (4, 1.2))),
        ("matching pairs", positives, BLUE, "-"),
    )
    with style():
        figure = Figure(figsize=(WIDTH, 4.8))
        ax = figure.add_axes((0.085, 0.12, 0.88, 0.76))
        ax.set_title(title)
        for name, cosines, color, dash in groups:
            density = np.histogram(cosines, bins)[0] / len(cosines)
            label = f"{name}, median {np.median(cosines):.2f}"
            ax.stairs(density, bins, color=color, fill=True, alpha=0.18)
            ax.stairs(density, bins, color=color, linewidth=2, linestyle=dash, label=label)
        ax.set_xlabel("cosine similarity of text and motion")
        ax.set_ylabel("share of pairs")
        decimals = 0 if ax.get_ylim()[1] > 0.05 else 1
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=decimals))
        ax.set_ylim(bottom=0)
        ax.legend()
        save_figure(figure, path)
