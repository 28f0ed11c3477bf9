"""The common style of all figures, and how they are saved.

A figure is 10 inches wide, so that its letters are still 12 pixels high where a README shows it 830
pixels wide. Colours are those of Okabe and Ito, which color-blind people can distinguish; a
name, a marker or a dash repeats the meaning of each color.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from motret.utils import files

WIDTH = 10.0
"""Of every figure, in inches."""
BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#8C8C8C", "#222222"
PINK, YELLOW, LIGHT_GREY = "#CC79A7", "#E69F00", "#CCCCCC"
PERSON_COLOURS = (ORANGE, BLUE)
PERSON_DASHES: tuple[Any, Any] = ("-", (0, (4, 1.2)))
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
    "text.parse_math": False,  # a caption may contain a dollar sign
}


def style(**changes: Any) -> AbstractContextManager[None]:
    """The style, with some changes, for the figures that are drawn in a `with` block."""
    settings: Any = STYLE | changes  # its type lists every key of matplotlib
    return mpl.rc_context(settings)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG file, whole or not at all; the same figure gives the same bytes."""
    options: dict[str, Any] = {
        "format": "png",
        "metadata": {"Software": None},
        "pil_kwargs": {"compress_level": 3},  # takes two thirds of the default's time
    }
    files.atomic_write(path, lambda tmp_path: figure.savefig(tmp_path, **options))
