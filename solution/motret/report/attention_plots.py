"""The attention of one special token of each person over time, with key poses below."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from motret.report.plot_style import (
    GREY,
    LIGHT_GREY,
    PERSON_COLOURS,
    PERSON_DASHES,
    WIDTH,
    save_figure,
    style,
)
from motret.skeleton import SMPL, Skeleton

N_POSES = 7
MAX_DISTANCE = 1.3
"""Metres between two persons in a figure, at most."""
CAPTION_WIDTH = 95
"""Letters in a line of the caption."""


@dataclass(frozen=True)
class TokenAttention:
    """Attention of one special token of each person to the motion tokens.

    weights: (persons, persons, N) from each person's token to the motion tokens of each person;
    edges: (N + 1,) seconds at which the motion tokens begin and end; layer: in words.
    """

    weights: np.ndarray
    edges: np.ndarray
    layer: str


@dataclass(frozen=True)
class PosedMotion:
    """A motion to draw: positions (T, persons, J, 3) in metres, y-up; highlighted: joints."""

    positions: np.ndarray
    fps: float
    skeleton: Skeleton = SMPL
    highlighted: Sequence[int] = ()

    @property
    def seconds(self) -> float:
        return len(self.positions) / self.fps


def plot_attention(
    path: Path, title: str, caption: str, attention: TokenAttention, motion: PosedMotion
) -> None:
    """Draws a panel of attention over time for each person, and key poses of all of them below."""
    persons = len(attention.weights)
    end = max(attention.edges[-1], motion.seconds)
    caption = _two_lines(f"“{caption}”", CAPTION_WIDTH)
    with style():
        figure, panels, stage = _make_axes(persons, caption.count("\n") + 1)
        figure.suptitle(title, x=0.006, ha="left", y=1 - 0.1 / figure.get_figheight(), va="top")
        panels[0].set_xlim(0, end)
        for person, ax in enumerate(panels):
            _draw_panel(ax, attention, person)
        panels[0].set_title(
            attention.layer, loc="right", fontweight="normal", fontsize=10.5, color="#666666"
        )
        panels[-1].set_xlabel("seconds")
        _add_legend(figure, persons)
        stage.set_title(caption, fontweight="normal", fontsize=11, style="italic")
        _draw_poses(stage, motion, end, panels)
        save_figure(figure, path)


def _draw_panel(ax: Axes, attention: TokenAttention, person: int) -> None:
    """Draws the weights from one person's token to both persons' motion tokens."""
    weights = attention.weights
    persons, _, n_tokens = weights.shape
    for target in range(persons):
        color, dash = PERSON_COLOURS[target], PERSON_DASHES[target]
        curve = weights[person, target]
        ax.stairs(curve, attention.edges, color=color, linewidth=2, linestyle=dash)
        ax.stairs(curve, attention.edges, color=color, alpha=0.18, fill=True)
    total = weights[person].sum()
    uniform = total / (persons * n_tokens)
    ax.axhline(uniform, color=GREY, linestyle=":", linewidth=1.5)
    name = f"token of person {person + 1}: " if persons > 1 else ""
    ax.set_title(
        f"{name}{total:.0%} of its attention is on motion tokens", fontweight="normal", fontsize=11
    )
    decimals = 0 if weights.max() > 0.05 else 1
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=decimals))
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.grid(visible=False, axis="x")
    ax.set_ylim(0, 1.08 * weights.max())


def _add_legend(figure: Figure, persons: int) -> None:
    handles = [
        Line2D([], [], color=PERSON_COLOURS[person], linestyle=PERSON_DASHES[person])
        for person in range(persons)
    ]
    names = ["to person 1", "to person 2"] if persons > 1 else ["attention"]
    handles.append(Line2D([], [], color=GREY, linestyle=":"))
    figure.legend(handles, [*names, "uniform attention"], loc="lower center", ncols=3)


def _make_axes(persons: int, caption_lines: int) -> tuple[Figure, list[Axes], Axes]:
    """A figure with a panel for each person above a stage for the poses, all equally wide.

    Everything is placed by hand, in inches from the top: a layout that computes the places takes
    as long as the drawing.
    """
    top, panel, gap, between = 0.65, 1.25, 0.42, 0.6 + 0.2 * caption_lines
    stage, legend = 1.45, 0.45
    height = top + persons * panel + (persons - 1) * gap + between + stage + legend
    figure = Figure(figsize=(WIDTH, height))
    left, width = 0.07, 0.92
    panels: list[Axes] = []
    for person in range(persons):
        bottom = 1 - (top + (person + 1) * panel + person * gap) / height
        shared = panels[0] if panels else None
        panels.append(figure.add_axes((left, bottom, width, panel / height), sharex=shared))
        panels[-1].tick_params(labelbottom=person == persons - 1)
    return figure, panels, figure.add_axes((left, legend / height, width, stage / height))


def _draw_poses(stage: Axes, motion: PosedMotion, end: float, panels: Sequence[Axes]) -> None:
    """Draws stick figures at evenly spaced times, each below its time, in one view and scale."""
    stage.set_xlim(0, end)
    stage.axis("off")
    times = (np.arange(N_POSES) + 0.5) * end / N_POSES
    frames = np.minimum((times * motion.fps).astype(int), len(motion.positions) - 1)
    poses = project_to_side_view(motion.positions)[frames]
    low, high = poses[..., 1].min() - 0.05, poses[..., 1].max() + 0.05
    half_width = max(0.45, np.abs(poses[..., 0]).max()) * 1.25
    ax = stage.inset_axes((0, 0.13, 1, 0.87))
    ax.axis("off")
    box = ax.get_window_extent()
    metres_per_pixel = max(2 * half_width / (box.width / N_POSES), (high - low) / box.height)
    cell = metres_per_pixel * box.width / N_POSES
    ax.set(xlim=(0, N_POSES * cell), ylim=(low, low + metres_per_pixel * box.height))
    centres = (np.arange(N_POSES) + 0.5) * cell
    floor = [low + 0.03] * N_POSES
    half_floor = 0.85 * half_width
    ax.hlines(floor, centres - half_floor, centres + half_floor, color=LIGHT_GREY, linewidth=1)
    poses[..., 0] += centres[:, None, None]
    _draw_bodies(ax, poses, motion)
    label: dict[str, Any] = {
        "transform": stage.get_xaxis_transform(),
        "ha": "center",
        "va": "bottom",
    }
    for time in times:
        stage.text(time, 0.0, f"{time:.1f} s", fontsize=10.5, **label)
        for panel in panels:
            panel.axvline(time, color=LIGHT_GREY, linewidth=0.8, zorder=0)


def _draw_bodies(ax: Axes, poses: np.ndarray, motion: PosedMotion) -> None:
    """Draws the bones and heads of poses (N_POSES, persons, J, 2); highlighted bones are thick."""
    skeleton = motion.skeleton
    bones = [(joint, parent) for joint, parent in enumerate(skeleton.parents) if parent >= 0]
    highlighted = set(motion.highlighted)
    widths = [4.2 if highlighted.issuperset(bone) else 1.7 for bone in bones]
    for person in range(poses.shape[1]):
        color = PERSON_COLOURS[person]
        segments = list(poses[:, person][:, bones].reshape(-1, 2, 2))
        ax.add_collection(
            LineCollection(segments, colors=color, linewidths=widths * N_POSES, capstyle="round")
        )
        heads = poses[:, person, skeleton.joint("head")].T
        ax.plot(*heads, "o" if person == 0 else "s", color=color, markersize=5.5)


def project_to_side_view(positions: np.ndarray, yaw: float = 0.5, pitch: float = 0.2) -> np.ndarray:
    """Projects y-up positions (T, persons, J, 3) to (T, persons, J, 2): across and up.

    The camera sees the scene where it is widest, turned by `yaw` radians, so that one leg does not
    hide the other, and raised by `pitch` radians. The picture is centred on the middle between the
    persons. Persons further apart than `MAX_DISTANCE` are drawn at that distance, so that figures
    stay large.
    """
    floor = positions[..., (0, 2)]
    centred = floor.reshape(len(positions), -1, 2)
    centred = (centred - centred.mean(axis=1, keepdims=True)).reshape(-1, 2)
    x, z = np.linalg.eigh(centred.T @ centred)[1][:, 1]
    angle = np.arctan2(z, x) % np.pi + yaw  # the widest direction has no sign
    # right-handed, so that left is not right: across, up, towards the camera
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    across_towards = floor @ rotation
    pelvis = across_towards[:, :, :1]
    offset = pelvis - pelvis.mean(axis=1, keepdims=True)
    distance = 2 * np.linalg.norm(offset, axis=-1, keepdims=True)
    offset *= np.minimum(1, MAX_DISTANCE / np.maximum(distance, MAX_DISTANCE))
    across, towards = np.moveaxis(across_towards - pelvis + offset, -1, 0)
    return np.stack([across, np.cos(pitch) * positions[..., 1] - np.sin(pitch) * towards], axis=-1)


def _two_lines(text: str, width: int) -> str:
    """At most two lines of `width` letters."""
    return "\n".join(textwrap.wrap(text, width, max_lines=2, placeholder=" …”"))
