"""Progress bars on a terminal; a pipe or a log file gets none, as each update would be a line."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

MIN_INTERVAL_SECONDS = 0.5
"""Between two updates of a bar."""


def on_terminal() -> bool:
    """Whether standard error, where bars are drawn, is a terminal."""
    return sys.stderr.isatty()


def progress_bar(steps: Iterable[Any] | None = None, hidden: bool = False, **options: Any) -> tqdm:
    """A tqdm bar, over `steps` where they are given.

    hidden: draw nothing, even on a terminal; options: tqdm's own.
    """
    disable = True if hidden else None  # None: tqdm looks whether it draws on a terminal
    return tqdm(steps, mininterval=MIN_INTERVAL_SECONDS, disable=disable, **options)
