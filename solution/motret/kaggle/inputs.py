"""What is attached to a Kaggle notebook: competition data, runs, folds, wheels, text towers.

Kaggle mounts a source at /kaggle/input/<name>, or under competitions/, datasets/<owner>/ and
notebooks/<owner>/ there. So a thing is known by what its folder holds, wherever that is.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from motret.errors import DataError
from motret.utils import files, reading

MAX_DEPTH = 8
"""Folders below the root that are looked into."""
MAX_LISTED = 12
"""Names in a message at most."""
DATA_LAYOUTS = ({"motions", "texts"}, {"split_joints", "texts"})
"""Names in a folder of competition data, in either layout."""
PACKAGE_FIX = "attach the dataset that `python solution/package.py` makes"


@dataclass(frozen=True)
class AttachedInputs:
    """Folders by what they hold, in the order of their paths.

    root: the folder that was searched; competitions: motions and texts; runs: finished runs; folds:
    folds.json; wheels: packages to install; towers: text towers of a package.
    """

    root: Path
    competitions: list[Path] = field(default_factory=list)
    runs: list[Path] = field(default_factory=list)
    folds: list[Path] = field(default_factory=list)
    wheels: list[Path] = field(default_factory=list)
    towers: list[Path] = field(default_factory=list)

    def competition(self) -> Path:
        """The folder of the competition's data. DataError where there is none, or several."""
        if len(self.competitions) == 1:
            return self.competitions[0]
        if not self.competitions:
            problem = f"no competition data: no folder with motions/ and texts/ {self._listing()}"
            fix = "attach the competition with Add Input, and accept its rules"
            raise DataError(self.root, problem, fix)
        names = ", ".join(map(str, self.competitions))
        problem = f"{len(self.competitions)} folders with competition data: {names}"
        raise DataError(self.root, problem, "set DATA_DIR to one of them, or detach the others")

    def finished_runs(self) -> list[Path]:
        """The folders of all finished runs. DataError where there is none."""
        if not self.runs:
            problem = (
                f"no finished run: no folder with args.json and fold*/oof.npz {self._listing()}"
            )
            fix = f"attach the output of the training notebook, or {PACKAGE_FIX}"
            raise DataError(self.root, problem, fix)
        return self.runs

    def folds_of_runs(self) -> Path:
        """The folder of the folds that the runs were trained on. DataError where there is none."""
        hashes = {run: _read_value(run / "args.json", "folds") for run in self.finished_runs()}
        for folder in self.folds:
            if _read_value(folder / "folds.json", "hash") in hashes.values():
                return folder
        problem = f"no folds of {', '.join(run.name for run in hashes)}: no such folds.json"
        raise DataError(self.root, problem, "attach folds/ together with the runs")

    def text_tower_flags(self, preset: str, flags: str) -> list[str]:
        """The flags of an attached text tower, if there is one and nothing else is asked for.

        flags: those of the notebook's settings, which come first; a preset that trains its own
        tower needs none.
        """
        entries = [(folder, entry) for folder in self.towers for entry in _entries(folder)]
        if preset != "full" or "--text_" in flags or len(entries) != 1:
            return []
        ((folder, entry),) = entries
        name, path = entry["text_tower"], folder / entry["path"]
        if name.startswith("hf:"):
            return [f"--text_tower=hf:{path}"]
        return [f"--text_tower={name}", f"--text_weights={path}"]

    def _listing(self) -> str:
        """What is attached, for messages: the first levels of folders and archives."""
        names = [
            path.relative_to(self.root).as_posix()
            for pattern in ("*", "*/*", "*/*/*")
            for path in sorted(self.root.glob(pattern))
            if path.is_dir() or path.suffix == ".zip"
        ]
        more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
        return f"among {', '.join(names[:MAX_LISTED])}{more}" if names else "(nothing is attached)"


def find_inputs(root: Path) -> AttachedInputs:
    """Searches a folder. DataError where there is no such folder."""
    if not root.is_dir():
        raise DataError(root, "no such folder", "set KAGGLE_INPUT to the folder of attached data")
    inputs = AttachedInputs(root)
    _search(root, inputs, MAX_DEPTH)
    return inputs


def _search(folder: Path, inputs: AttachedInputs, depth: int) -> None:
    """Adds what a folder is to the inputs, or what is in it."""
    with os.scandir(folder) as entries:
        is_folder = {entry.name: entry.is_dir() for entry in entries}
    if any(layout <= is_folder.keys() for layout in DATA_LAYOUTS):
        inputs.competitions.append(folder)
        return
    if "args.json" in is_folder:
        finished = any(folder.glob("fold*/oof.npz")) or (folder / "full" / "done.json").is_file()
        if finished and not any(_is_copy(folder, run) for run in inputs.runs):
            inputs.runs.append(folder)
        return
    if "folds.json" in is_folder:
        inputs.folds.append(folder)
    if "towers.json" in is_folder:
        inputs.towers.append(folder)
    if any(name.endswith(".whl") for name in is_folder):
        inputs.wheels.append(folder)
    is_tuning = folder.name == "tune"  # its trials are runs too, but no models to rank with
    if depth and not is_tuning:
        for name in sorted(name for name, is_dir in is_folder.items() if is_dir):
            _search(folder / name, inputs, depth - 1)


def _is_copy(run: Path, other: Path) -> bool:
    """Whether two folders hold the same run, as an output with runs/ and a package does."""
    return reading.read_bytes(run / "args.json") == reading.read_bytes(other / "args.json")


def _entries(folder: Path) -> list[dict[str, str]]:
    """The text towers that a folder lists (`runs.text_towers`), without classes.

    A flag may name a class, and a file may not: the flags made of these entries would import it.
    """
    path, fix = folder / "towers.json", PACKAGE_FIX
    content = reading.read_json(path, fix)
    with reading.boundary(path, "is no list of text towers", fix):
        entries = [(str(entry["text_tower"]), str(entry["path"])) for entry in content]
    if any(not reading.is_inner_path(inner) for _, inner in entries):
        raise DataError(path, "names something outside its folder", fix)
    return [
        {"text_tower": name, "path": inner}
        for name, inner in entries
        if name.startswith("hf:") or ":" not in name
    ]


def _read_value(path: Path, name: str) -> object:
    """A value of a JSON file; None where the file is broken or has none."""
    content = files.read_json(path)
    return content.get(name) if isinstance(content, dict) else None
