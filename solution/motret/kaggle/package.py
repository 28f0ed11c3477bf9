"""Packs code, runs, folds, text towers and wheels into a folder that becomes a dataset on Kaggle.

OUT/dataset/code/            the repository without tests and documentation
OUT/dataset/runs/            of each run what ranking reads: args.json; of each model its
                             checkpoint, out-of-fold embeddings and metrics.csv
OUT/dataset/folds/           folds.csv and folds.json
OUT/dataset/text_towers/     the pretrained text towers of the runs (`runs.text_towers`)
OUT/dataset/wheels/          packages that Kaggle's image lacks (`kaggle.packages`)
OUT/train/, OUT/infer/       the notebooks, each with its metadata
"""

import logging
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from motret.config import base
from motret.config.scripts import PackageConfig
from motret.config.training import TextConfig
from motret.errors import RunError
from motret.kaggle import metadata, packages, tower_files
from motret.kaggle.metadata import KaggleNames
from motret.models import registry, text_tower
from motret.runs import checkpoints, provenance
from motret.runs.run import Run, list_runs, open_named_run, open_run, training_command
from motret.runs.text_towers import FOLDER, PackedTower, text_config, write_index
from motret.utils import files, reading

logger = logging.getLogger(__name__)

MARKER = "package.json"
"""A file of every package: what is in it."""
CODE = ("solution", "run_all.sh", "requirements.txt", "pyproject.toml", "SETTINGS.json", "LICENSE")
"""Folders and files of the repository that its scripts need."""
NOTEBOOKS = ("train", "infer")
FOLD_FILES = ("folds.csv", "folds.json")


def write_package(config: PackageConfig) -> list[str]:
    """Writes the package; returns lines about it, with the commands that come next.

    RunError where no run can be packed, WeightsError where a text tower is not on this machine.
    """
    names = KaggleNames.of(config)
    runs = choose_runs(config)
    with files.atomic_dir(config.out, MARKER) as out:
        dataset = out / "dataset"
        n_files = copy_code(dataset / "code")
        for run in runs:
            copy_run(run, dataset / "runs" / run.name)
        if runs:
            copy_folds(config.folds_dir, dataset / "folds")
        towers = copy_text_towers(needed_towers(runs, config), dataset / FOLDER)
        copies = [dataset / "runs" / run.name for run in runs]
        check_runs([open_run(copy, config.allow_towers) for copy in copies])
        wheels = _download_wheels(dataset / "wheels", config)
        content = {
            "code files": n_files,
            "runs": [run.name for run in runs],
            "text towers": [tower.path for tower in towers],
            "wheels": f"{len(wheels)} for Python {config.python_version}" if wheels else "none",
        }
        files.write_json(out / MARKER, content)
        if names:
            write_metadata(out, names, config.accelerator, from_training=not runs)
    lines = [
        f"package {config.out}",
        *(f"  {what}: {_listing(value)}" for what, value in content.items()),
        f"  in all: {_size(config.out) / 1e6:.1f} MB",
    ]
    if names is None:
        return [*lines, "with --user NAME and --competition SLUG the notebooks are made ready too"]
    commands = metadata.next_commands(names, config.out, from_training=not runs)
    return [*lines, "", "next:", *commands]


def choose_runs(config: PackageConfig) -> list[Run]:
    """The runs to pack. RunError where they are of different data or folds, or have one name.

    By default those of the folds in --folds_dir that have every fold; without any, none.
    """
    if config.runs == ("none",):
        return []
    path, fix = config.folds_dir / "folds.json", "make the folds again"
    sidecar = reading.read_json_object(path, fix) if reading.is_file(path) else {}
    if config.runs:
        runs = [open_named_run(name, config.out_dir, config.allow_towers) for name in config.runs]
    else:
        runs = [
            run
            for run in list_runs(config.out_dir, config.allow_towers)
            if (run.data, run.folds) == (sidecar.get("data"), sidecar.get("hash"))
            and (len(run.finished_folds()) >= sidecar["folds"] or run.has_full_model())
        ]
        if not runs:
            logger.info(f"no finished run in {config.out_dir}: a package to train on Kaggle")
    for run in runs:
        if (run.data, run.folds) != (sidecar.get("data"), sidecar.get("hash")):
            problem = f"is of other data or folds than {config.folds_dir / 'folds.json'}"
            fix = "leave it out of --runs, or give its folds with --folds_dir"
            raise RunError(run.folder, problem, fix)
        if not (run.finished_folds() or run.has_full_model()):
            fix = f"finish it: {training_command(run.fold_dir(0))}"
            raise RunError(run.folder, "has no finished fold", fix)
    names = [run.name for run in runs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise RunError(repeated[0], "two of the runs have this name", "rename one of the folders")
    return runs


def copy_code(target: Path) -> int:
    """Copies the repository's own files; returns how many.

    In a git checkout these are the tracked and the new ones, otherwise all but caches.
    """
    count = 0
    for path in _code_files(base.ROOT):
        destination = target / path.relative_to(base.ROOT)
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, destination)
        count += 1
    return count


def copy_run(run: Run, target: Path) -> None:
    """Copies what ranking reads of a run: its finished models without what training needs."""
    target.mkdir(parents=True)
    shutil.copy(run.folder / "args.json", target)
    models: list[int | None] = [*run.finished_folds(), *([None] if run.has_full_model() else [])]
    for fold in models:
        source = run.fold_dir(fold)
        (target / source.name).mkdir()
        needed = [checkpoints.best_checkpoint(source), *source.glob("oof*.npz")]
        needed += [source / name for name in ("metrics.csv", "done.json")]
        for path in needed:
            if path.is_file():
                shutil.copy(path, target / source.name)


def copy_folds(source: Path, target: Path) -> None:
    """Copies the files of the folds."""
    target.mkdir()
    for name in FOLD_FILES:
        shutil.copy(source / name, target)


def needed_towers(
    runs: Sequence[Run], config: PackageConfig
) -> list[tuple[TextConfig, TextConfig]]:
    """The pretrained text towers to pack, each once, as (recorded settings, settings that load).

    The second differ where a run was trained from a package, or lies in one.
    """
    pairs = [(run.config.text, text_config(run)) for run in runs]
    if config.text_tower is not None:
        text = TextConfig(text_tower=config.text_tower, text_weights=config.text_weights)
        pairs.append((text, text))
    pairs = [pair for pair in pairs if not text_tower.trains_from_scratch(pair[0])]
    return list({(text.text_tower, text.text_weights): (text, now) for text, now in pairs}.values())


def copy_text_towers(
    towers: Sequence[tuple[TextConfig, TextConfig]], target: Path
) -> list[PackedTower]:
    """Copies text towers and lists them; returns the list. WeightsError where one is not here."""
    packed = []
    for number, (text, now) in enumerate(towers):
        folder = target / f"tower{number}"
        if path := tower_files.copy_tower(now, folder):
            relative = path.relative_to(target).as_posix()
            packed.append(PackedTower(text.text_tower, text.text_weights, relative))
    if packed:
        write_index(target, packed)
    return packed


def check_runs(runs: Sequence[Run]) -> None:
    """RunError where packed runs were trained with another text tower or other features.

    Found here, where something can be done about it, rather than in a notebook.
    """
    towers: dict[TextConfig, text_tower.TextTower] = {}
    for run in runs:
        text = text_config(run)
        if text not in towers:
            towers[text] = registry.make_text_tower(text)
        provenance.check_inputs(run, towers[text])


def write_metadata(out: Path, names: KaggleNames, accelerator: str, from_training: bool) -> None:
    """Writes the metadata of the dataset, and a folder to push for each notebook."""
    files.write_json(out / "dataset" / "dataset-metadata.json", metadata.dataset_metadata(names))
    for kind in NOTEBOOKS:
        notebook = base.ROOT / "solution" / "kaggle" / f"{kind}.ipynb"
        (out / kind).mkdir()
        shutil.copy(notebook, out / kind)
        content = metadata.kernel_metadata(names, kind, accelerator, from_training)
        files.write_json(out / kind / "kernel-metadata.json", content)


def _download_wheels(folder: Path, config: PackageConfig) -> list[str]:
    if not config.wheels:
        return []
    return packages.download_wheels(folder, config.python_version, config.extra_packages)


def _code_files(root: Path) -> Iterator[Path]:
    for path in _git_files(root) or _all_files(root):
        if path.is_file() and path.relative_to(root).parts[0] in CODE:
            yield path


def _git_files(root: Path) -> list[Path]:
    """The files that git tracks or would add; none where `root` is not a checkout's top."""
    if not (root / ".git").exists() or shutil.which("git") is None:
        return []
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others"]
    result = subprocess.run(
        [*command, "--exclude-standard"], capture_output=True, text=True, check=True
    )
    return [root / name for name in result.stdout.split("\0") if name]


def _all_files(root: Path) -> Iterator[Path]:
    for name in CODE:
        path = root / name
        in_folder = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (file for file in in_folder if "__pycache__" not in file.parts)


def _listing(value: object) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
