"""A folder of .npy motions, by the names of its files."""

from pathlib import Path

from motret.errors import DataError
from motret.utils import reading

SUFFIX = ".npy"


def motion_names(folder: Path) -> list[str]:
    """Names of the .npy files of a folder without their ending, sorted. DataError without any."""
    if not reading.is_folder(folder):
        raise DataError(folder, "no such folder", "give the folder that the motions lie in")
    names = [path.name for path in reading.list_folder(folder)]
    motions = [name for name in names if name.endswith(SUFFIX) and not name.startswith(".")]
    if not motions:
        raise DataError(folder, "holds no .npy file", "give the folder that the motions lie in")
    return sorted(name.removesuffix(SUFFIX) for name in motions)
