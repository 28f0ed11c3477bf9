"""Errors and warnings a user can act on, each in one line: the path, the problem, the fix."""

import re
import warnings
from pathlib import Path

MAX_MESSAGE = 2000
"""Characters of an error's line at most."""
_STEERING = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNPRINTABLE = re.compile(rf"[\x00-\x1f{_STEERING}]")
_UNPRINTABLE_BUT_LAYOUT = re.compile(rf"[\x00-\x08\x0b-\x1f{_STEERING}]")


class MotretError(Exception):
    """An input the program cannot use; `str()` is the line that a script prints after `error: `.

    path: the file, flag or setting; problem: what is wrong with it; fix: what to do about it.
    """

    def __init__(self, path: str | Path, problem: str, fix: str):
        # all three in `args`, so that an error from a worker process arrives complete
        super().__init__(str(path), problem, fix)
        self.path, self.problem, self.fix = str(path), problem, fix

    def __str__(self) -> str:
        return _one_line(self.path, self.problem, self.fix)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback: in a notebook, too, an error is one line."""
        return [f"error: {self}"]


class DataError(MotretError):
    """A data file is missing, broken or of the wrong form."""


class FoldError(MotretError):
    """The folds are missing, or belong to other data."""


class WeightsError(MotretError):
    """Pretrained weights or a checkpoint are missing or do not fit the model."""


class ConfigError(MotretError):
    """A flag or a setting has an unusable value."""


class RunError(MotretError):
    """A run folder is missing, unfinished, in the way, or belongs to other data."""


class MachineError(MotretError):
    """The system fails while it reads a file, which may be whole: nothing is left out for that."""


class WriteError(MotretError):
    """A file cannot be written: the disk is full or read-only, or may not be written to."""


def warn(path: str | Path, problem: str, fix: str) -> None:
    """Warns in one line of the form of a `MotretError`; scripts print it after `warning: `."""
    # attributed to the caller, a file of this package: `config.cli` shows the package's warnings
    warnings.warn(_one_line(path, problem, fix), stacklevel=2)


def printable(text: str, keep_layout: bool = False) -> str:
    """Text as it can be shown: what would steer a terminal is written as `\\x1b`.

    That is control characters, marks that turn the direction of writing, and halves of surrogate
    pairs, which stand for bytes of a file name that are no UTF-8. keep_layout: tabs and line ends
    stay.
    """
    pattern = _UNPRINTABLE_BUT_LAYOUT if keep_layout else _UNPRINTABLE
    return pattern.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _one_line(path: str | Path, problem: str, fix: str) -> str:
    line = printable(f"{path}: {problem} ({fix})")
    if len(line) <= MAX_MESSAGE:
        return line
    return f"{line[: MAX_MESSAGE - 500]} ... {line[-490:]}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its class where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
