"""Text towers packed beside runs: a run finds its own under another path.

A run records its text tower as a flag named it: a folder or a file of the machine that trained it,
or a name that needs the network. `package.py` copies what was meant into text_towers/ next to the
folder of runs, and lists it in towers.json there. Whether it is the same tower is checked when a
model is opened, by the digests of `provenance`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from motret.config.base import typed
from motret.config.training import TextConfig
from motret.errors import RunError
from motret.models.text_tower import is_hugging_face
from motret.runs.run import Run
from motret.utils import files, reading

FOLDER, INDEX = "text_towers", "towers.json"


@dataclass(frozen=True)
class PackedTower:
    """A text tower in a package: how flags name it, and where it lies in the folder `FOLDER`."""

    text_tower: str
    text_weights: str
    path: str

    def config(self, text: TextConfig, folder: Path) -> TextConfig:
        """These settings with the packed tower. folder: the one that `path` is relative to."""
        path = folder / self.path
        if is_hugging_face(text):
            return replace(text, text_tower=f"hf:{path}")
        return replace(text, text_weights=str(path))


def write_index(folder: Path, towers: Sequence[PackedTower]) -> None:
    """Writes the list of the towers in a folder."""
    files.write_json(folder / INDEX, [asdict(tower) for tower in towers])


def read_index(folder: Path) -> list[PackedTower]:
    """The towers that a folder lists; none without a list.

    RunError where the list is broken, or names anything outside its folder.
    """
    path, fix = folder / INDEX, "pack again where the runs were trained"
    if not reading.is_file(path, RunError):
        return []
    content = reading.read_json(path, fix, RunError)
    with reading.boundary(path, "is no list of text towers", fix, RunError):
        towers = [typed(PackedTower, entry) for entry in content]
        for tower in towers:
            if not reading.is_inner_path(tower.path):
                raise ValueError(f"{tower.path!r} is not in its folder")
    return towers


def text_config(run: Run) -> TextConfig:
    """The text settings that a run's tower is loaded with: a tower packed beside it comes first."""
    text = run.config.text
    folder = run.folder.absolute().parent.parent / FOLDER
    for tower in read_index(folder):
        if (tower.text_tower, tower.text_weights) == (text.text_tower, text.text_weights):
            return tower.config(text, folder)
    return text
