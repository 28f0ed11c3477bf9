"""Progress on a terminal: bars. In a pipe or a log file there are none, since each redrawing would be a line of rubbish there."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_DRAWINGS = 0.5


def on_terminal() -> bool:
    """Whether somebody watches: standard error, where bars are drawn, is a terminal."""
    return sys.stderr.isatty()


def progress_bar(steps: Iterable[Any] | None = None, hidden: bool = False, **options: Any) -> tqdm:
    """A tqdm bar over some steps or with the options given; hidden: whatever it is drawn on."""
    return tqdm(steps, mininterval=SECONDS_BETWEEN_DRAWINGS, disable=True if hidden else None, **options)
