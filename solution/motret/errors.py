"""Errors and warnings a user can act on, each in one line: the path, the problem, the fix."""

import warnings
from pathlib import Path


class MotretError(Exception):
    """An input the program cannot use; `str()` is the line that a script prints after `error: `.

    path: the file, flag or setting; problem: what is wrong with it; fix: what to do about it.
    """

    def __init__(self, path: str | Path, problem: str, fix: str):
        # all three in `args`, so that an error from a worker process arrives complete
        super().__init__(str(path), problem, fix)
        self.path, self.problem, self.fix = str(path), problem, fix

    def __str__(self) -> str:
        return f"{self.path}: {self.problem} ({self.fix})"

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


class WriteError(MotretError):
    """A file cannot be written: the disk is full or read-only, or may not be written to."""


def warn(path: str | Path, problem: str, fix: str) -> None:
    """Warns in one line of the form of a `MotretError`; scripts print it after `warning: `."""
    # attributed to the caller, a file of this package: `config.cli` shows the package's warnings
    warnings.warn(f"{path}: {problem} ({fix})", stacklevel=2)


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its class where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
