"""What can be known to fail before any work begins: the data's form, weights, folders, disk space; and how long it will take."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from motret import skeleton
from motret.config import cli
from motret.config.training import TextConfig, TrainConfig
from motret.data import dataset, features, folds
from motret.errors import ConfigError, DataError, WeightsError
from motret.formats import motion_files
from motret.formats.queries import read_queries
from motret.skeleton import Skeleton, count_persons
from motret.utils import files, network

ASSUMED_EFFICIENCY = 0.15
"""Share of the machine's matrix-product rate that training reaches, roughly; for the forecast alone."""
HEADER_SAMPLE = 50
"""Motions whose headers are read."""
SPARE_BYTES = 200e6
"""Disk space for what is small: logs, pages, submissions."""
DEFAULT_WEIGHTS = "timm/vit_base_patch32_clip_224.openai"
"""Repository of the default text tower's weights, as open_clip names it (which takes seconds to ask)."""
PUBLISHED_CLIP_BYTES = 600e6
"""Roughly what CLIP's weights take where they are downloaded."""


def check_before_run(data_dir: Path, test_dir: Path | None, folders: Mapping[str, Path], train_calls: Sequence[Sequence[str]]) -> None:
    """Raises the first fault that would stop a run later; nothing is left behind.

    data_dir: None of its files is needed where it does not exist yet; folders: by flag, where the scripts write; train_calls: the
    arguments of each call of train.py.
    """
    for flag, folder in folders.items():
        check_writable(folder, f"--{flag}")
    runs = [cli.parse_train(call, None)[0] for call in train_calls]
    for config in {(one.text.text_tower, one.text.text_weights): one.text for one in runs}.values():
        check_text_weights(config)
    for config in runs:
        weights = config.motion.weights_file
        if weights is not None and not Path(weights).is_file():
            raise WeightsError("--backbone_weights", f"{weights}: no such file", "give the path of a published file, or leave it out")
    if data_dir.is_dir():
        training = dataset.read_training(data_dir, id_width=runs[0].data.id_width)
        headers = read_headers(training.paths)
        if test_dir is not None:
            read_queries(test_dir)
        check_disk(folders, packed_bytes(len(training.paths), headers, skeleton.skeleton_from_spec(training.skeleton)), runs)


def check_writable(folder: Path, flag: str) -> None:
    """DataError where nothing can be written to a folder, or to the first of its parents that exists."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return
    except OSError as error:
        raise DataError(folder, f"cannot be written to ({error.strerror or error})", f"give another folder with {flag}") from error


def check_text_weights(config: TextConfig) -> None:
    """WeightsError where pretrained weights of a text tower are neither here nor can be downloaded."""
    name, weights = config.text_tower, config.text_weights
    if name.startswith("hf:"):
        folder = name.removeprefix("hf:")
        if not (Path(folder).is_dir() or network.hub_reachable() or _in_hub_cache(folder)):
            fix = "give the folder of an encoder: --text_tower hf:FOLDER; or train a small one from scratch: --text_weights none"
            raise WeightsError(name, "no such folder, and the model hub cannot be reached", fix)
        return
    if ":" in name:  # a class, module:Class, loads its weights itself
        return
    if weights == "none" or Path(weights).is_file() or network.hub_reachable():
        return
    if not _has_cached_weights(name, weights):
        where = f" from https://huggingface.co/{DEFAULT_WEIGHTS}" if (name, weights) == ("ViT-B-32", "openai") else ""
        fix = (
            f"download them elsewhere{where} and give the file: --text_weights FILE; or an encoder's folder: --text_tower hf:FOLDER; "
            "or train without: --preset fast"
        )
        raise WeightsError(f"{name} {weights}", "the weights are not on this machine and the model hub cannot be reached", fix)


def check_disk(folders: Mapping[str, Path], packed: float, runs: Sequence[TrainConfig]) -> None:
    """DataError where the disk has less free space than a run will take, roughly. packed: bytes of the packed features."""
    begun = {config.run_name for config in runs if config.run_name and (config.out_dir / config.run_name).is_dir()}
    new = sum(checkpoint_bytes(config) for config in runs if config.run_name not in begun)
    needed = {"work_dir": packed, "out_dir": new}
    for flag, size in needed.items():
        there = next(parent for parent in (folders[flag].absolute(), *folders[flag].absolute().parents) if parent.exists())
        free = shutil.disk_usage(there).free
        if free < size + SPARE_BYTES:
            problem = f"about {(size + SPARE_BYTES) / 1e9:.1f} GB will be written, {free / 1e9:.1f} GB are free"
            raise DataError(folders[flag], problem, f"free some space, or give a folder on another disk with --{flag}")


def forecast(data_dir: Path, train_calls: Sequence[Sequence[str]], tune_calls: Sequence[Sequence[str]]) -> str:
    """Rough time and disk space of a run, from the data's headers and this machine's speed."""
    runs = [cli.parse_train(call, None)[0] for call in train_calls]
    training = dataset.read_training(data_dir, id_width=runs[0].data.id_width)
    headers = read_headers(training.paths)
    body = skeleton.skeleton_from_spec(training.skeleton)
    frames = float(np.mean([shape[0] for shape in headers])) * len(training.paths) * count_persons(headers[0][1], body)
    seconds = frames / 60_000  # packing
    seconds += sum(60 * (cli.parse_tune(call, None)[0].max_minutes or 0) for call in tune_calls)
    rate = _matrix_rate()
    for config in runs:
        motion, fit = config.motion, config.fit
        weights = 12 * motion.width**2 * motion.layers
        tokens = frames / motion.patch * (1 - motion.token_drop)
        limit = fit.max_minutes * 60 if fit.max_minutes else float("inf")
        epochs = fit.epochs * (1 - 1 / config.folds)
        seconds += _folds(config) * min(limit, epochs * 6 * weights * tokens / (ASSUMED_EFFICIENCY * rate) + fit.epochs * 0.5)
    size = packed_bytes(len(training.paths), headers, body) + sum(map(checkpoint_bytes, runs))
    return f"forecast: about {files.format_duration(seconds)} on this machine, {size / 1e9:.1f} GB of disk"


def packed_bytes(motions: int, headers: Sequence[tuple[int, int]], body: Skeleton) -> float:
    """Size of the packed features of so many motions; headers: (frames, columns) of some of them."""
    persons = count_persons(headers[0][1], body)
    frames = float(np.mean([shape[0] for shape in headers])) * motions
    return frames * persons * features.feature_width(persons, headers[0][1] > body.position_columns, body) * 2


def checkpoint_bytes(config: TrainConfig) -> float:
    """Size of a run's checkpoints: weights, their average, the optimiser's two moments, and the best weights once more."""
    weights = 12 * config.motion.width**2 * config.motion.layers * 4.0
    if config.text.text_weights == "none":
        weights += 49_408 * config.text.text_width * 4.0
    elif config.text.unfreeze_text:
        weights += PUBLISHED_CLIP_BYTES / 2
    return _folds(config) * weights * 5


def read_headers(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Frames and columns of some of the motions; broken ones, which are left out of the training, do not count."""
    shapes = []
    for row in np.unique(np.linspace(0, len(paths) - 1, HEADER_SAMPLE).astype(int)):
        with contextlib.suppress(DataError):
            shapes.append(motion_files.motion_shape(paths[row]))
    if not shapes:
        raise DataError(paths[0].parent, "no readable motion among those looked at", "see `python solution/prepare.py`")
    return shapes


def _folds(config: TrainConfig) -> int:
    lists = config.prefer_txt_split or folds.choose_split_lists(config.data.data_dir, prefer_txt=False, count_given=False)
    return config.folds if config.fold == "all" and not lists else 1


def _has_cached_weights(name: str, tag: str) -> bool:
    """Whether open_clip finds the weights of a tag on this machine. It is slow to import, so empty caches answer first."""
    from huggingface_hub import constants

    cached = Path("~/.cache/clip").expanduser(), Path(constants.HF_HUB_CACHE)
    if not any(folder.is_dir() and any(folder.iterdir()) for folder in cached):
        return False
    import open_clip

    if name not in open_clip.list_models():
        raise ConfigError("--text_tower", f"open_clip has no model {name!r}", "take one of its names, or hf:FOLDER")
    if tag not in open_clip.list_pretrained_tags_by_model(name):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name))
        raise WeightsError("--text_weights", f"{tag!r} is neither a file nor a tag of {name}", f"its tags: {tags}")
    about = open_clip.get_pretrained_cfg(name, tag)
    repository = about.get("hf_hub", "").strip("/")
    url = about.get("url", "")
    return bool((repository and _in_hub_cache(repository)) or (url and (cached[0] / os.path.basename(url)).is_file()))  # noqa: PTH119


def _in_hub_cache(repository: str) -> bool:
    """Whether the hub client's cache holds a whole snapshot of a repository."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot = Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError, OSError):
        return False
    return any(_weight_files(snapshot))


def _weight_files(folder: Path) -> Iterable[Path]:
    return (path for pattern in ("*.safetensors", "*.bin", "*.pt") for path in folder.glob(pattern))


def _matrix_rate() -> float:
    """Matrix-product operations a second of this machine; torch is slow to import, so it is imported here."""
    from motret.utils.device import choose_device, matmul_dtype, matrix_rate

    device = choose_device("auto")
    return matrix_rate(device, matmul_dtype(device), sizes=(1024,))
