"""What can be wrong with an input, said in one line: the file, the fault, the mend."""

from pathlib import Path


class Fault(Exception):
    """An input the program cannot go on with; `str()` is the line a script prints after `error: `.

    file: what is at fault (a path, a flag, a setting); wrong: what is wrong with it; mend: what to do about it.
    """

    def __init__(self, file: str | Path, wrong: str, mend: str):
        super().__init__(str(file), wrong, mend)  # all three in `args`: a fault crosses from a worker process whole
        self.file, self.wrong, self.mend = str(file), wrong, mend

    def __str__(self) -> str:
        return f"{self.file}: {self.wrong} ({self.mend})"


class DataFault(Fault):
    """A file of the competition's data is missing or not what it should be."""


class FoldFault(Fault):
    """The folds are missing, or belong to other data."""


class WeightsFault(Fault):
    """Pretrained weights or a checkpoint cannot be had or do not fit."""


class SettingFault(Fault):
    """A flag or a setting has a value that cannot be used."""


class RunFault(Fault):
    """A run folder is missing, unfinished, in the way, or of other data."""
