"""Errors a user can fix, each in one line: the file, the problem, the fix."""

import warnings
from pathlib import Path


class MotretError(Exception):
    """An input the program cannot go on with; `str()` is the line a script prints after `error: `.

    path: the file, flag or setting; problem: what is wrong with it; fix: what to do about it.
    """

    def __init__(self, path: str | Path, problem: str, fix: str):
        # all three in `args`, so that an error from a worker process arrives complete
        super().__init__(str(path), problem, fix)
        self.path, self.problem, self.fix = str(path), problem, fix

    def __str__(self) -> str:
        return f"{self.path}: {self.problem} ({self.fix})"


class DataError(MotretError):
    """A file of the competition's data is missing or not what it should be."""


class FoldError(MotretError):
    """The folds are missing, or belong to other data."""


class WeightsError(MotretError):
    """Pretrained weights or a checkpoint cannot be had or do not fit."""


class ConfigError(MotretError):
    """A flag or a setting has a value that cannot be used."""


class RunError(MotretError):
    """A run folder is missing, unfinished, in the way, or of other data."""


def warn(file: Path, problem: str, fix: str) -> None:
    """A warning in the form of a fault."""
    warnings.warn(f"{file}: {problem} ({fix})", stacklevel=2)  # our own file: `cli` tells our warnings by it


def first_line(error: Exception) -> str:
    """The first line of an error's message; the name of its class where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
