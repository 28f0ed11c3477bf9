"""Checks before a run: data, weights, folders, disk space; and a forecast of time and size."""

import contextlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np

from motret import skeleton
from motret.config import cli
from motret.config.training import TextConfig, TrainConfig
from motret.data import dataset, features, folds
from motret.errors import ConfigError, DataError, WeightsError
from motret.formats import motion_files
from motret.formats.challenge import TrainingSet
from motret.formats.queries import read_queries
from motret.skeleton import Skeleton, count_persons
from motret.training.forecast import (
    DataSize,
    layer_weights,
    memory_problem,
    training_memory,
    training_seconds,
)
from motret.utils import files, network, reading, tracking
from motret.utils.machine import Machine, measure_machine_apart

PACKED_FRAMES_PER_SECOND = 60_000
"""Rough speed of packing; for the forecast."""
HEADER_SAMPLE = 50
"""Motions whose headers are read."""
SPARE_BYTES = 200e6
"""Disk space for small files: logs, pages, submissions."""
DEFAULT_WEIGHTS = "timm/vit_base_patch32_clip_224.openai"
"""Hub repository of the default text tower's weights; open_clip, which knows it, imports slowly."""
PUBLISHED_CLIP_BYTES = 600e6
"""Rough size of CLIP's weights."""


def check_before_run(
    data_dir: Path,
    test_dir: Path | None,
    folders: Mapping[str, Path],
    train_calls: Sequence[Sequence[str]],
) -> None:
    """Raises the first error that would stop a run later; nothing is written.

    data_dir: its files are checked if it exists; folders: flag -> folder that scripts write to;
    train_calls: the arguments of each call of train.py.
    """
    for flag, folder in folders.items():
        check_writable(folder, f"--{flag}")
    configs = [cli.parse_train(call, None)[0] for call in train_calls]
    texts = {(config.text.text_tower, config.text.text_weights): config.text for config in configs}
    for text in texts.values():
        check_text_weights(text)
    for config in configs:
        check_backbone_weights(config)
        tracking.check_tracker(config.log)
    if reading.is_folder(data_dir):
        data = configs[0].data
        training = dataset.read_training(
            data_dir, id_width=data.id_width, follow_links=data.follow_links
        )
        headers = read_headers(training.paths)
        if test_dir is not None:
            read_queries(test_dir, data.follow_links)
        body = skeleton.skeleton_from_spec(training.skeleton)
        check_disk(folders, packed_bytes(len(training.paths), headers, body), configs)


def check_writable(folder: Path, flag: str) -> None:
    """DataError where a folder cannot be written to, or if it is missing, its nearest parent."""
    try:
        with tempfile.TemporaryFile(dir=_nearest_existing(folder)):
            return
    except OSError as error:
        problem = f"cannot be written to ({error.strerror or error})"
        raise DataError(folder, problem, f"give another folder with {flag}") from error


def check_backbone_weights(config: TrainConfig) -> None:
    """WeightsError where the file of --backbone_weights is missing."""
    file = config.motion.weights_file
    if file is not None and not Path(file).is_file():
        fix = "give the path of a published file, or leave it out"
        raise WeightsError("--backbone_weights", f"{file}: no such file", fix)


def check_text_weights(config: TextConfig) -> None:
    """WeightsError where pretrained text weights are neither here nor can be downloaded."""
    name, weights = config.text_tower, config.text_weights
    if name.startswith("hf:"):
        folder = name.removeprefix("hf:")
        if not (Path(folder).is_dir() or network.hub_reachable() or _in_hub_cache(folder)):
            problem = "no such folder, and the model hub cannot be reached"
            fix = (
                "give the folder of an encoder: --text_tower hf:FOLDER; "
                "or train a small one from scratch: --text_weights none"
            )
            raise WeightsError(name, problem, fix)
        return
    if ":" in name:  # your own class, as module:Class, loads its weights itself
        return
    if weights == "none" or Path(weights).is_file() or network.hub_reachable():
        return
    if not _has_cached_weights(name, weights):
        is_default = (name, weights) == ("ViT-B-32", "openai")
        source = f" from https://huggingface.co/{DEFAULT_WEIGHTS}" if is_default else ""
        problem = "the weights are not on this machine and the model hub cannot be reached"
        fix = (
            f"download them elsewhere{source} and give the file: --text_weights FILE; "
            "or the folder of an encoder: --text_tower hf:FOLDER; "
            "or train without them: --preset fast"
        )
        raise WeightsError(f"{name} {weights}", problem, fix)


def check_disk(folders: Mapping[str, Path], packed: float, configs: Sequence[TrainConfig]) -> None:
    """DataError where the disk has less free space than a run takes, roughly.

    packed: bytes of the packed features. The checkpoints of runs that exist are not counted.
    """
    new = [
        config
        for config in configs
        if not (config.run_name and (config.out_dir / config.run_name).is_dir())
    ]
    sizes = {"work_dir": packed, "out_dir": sum(map(checkpoint_bytes, new))}
    for flag, size in sizes.items():
        needed = size + SPARE_BYTES
        free = shutil.disk_usage(_nearest_existing(folders[flag])).free
        if free < needed:
            problem = f"needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
            fix = f"free some space, or give a folder on another disk with --{flag}"
            raise DataError(folders[flag], problem, fix)


def forecast(
    data_dir: Path,
    train_calls: Sequence[Sequence[str]],
    tune_calls: Sequence[Sequence[str]],
    n_parallel: int = 1,
) -> str:
    """Lines with the rough time and disk space of a run, and the time and memory of each variant.

    They follow from the settings, the data, the headers of some motions and this machine, which is
    measured. train_calls, tune_calls: the arguments of the scripts' calls; n_parallel: variants
    that are trained at a time.
    """
    configs = [cli.parse_train(call, None)[0] for call in train_calls]
    data = configs[0].data
    training = dataset.read_training(
        data_dir, id_width=data.id_width, follow_links=data.follow_links
    )
    headers = read_headers(training.paths)
    body = skeleton.skeleton_from_spec(training.skeleton)
    machine = measure_machine_apart(configs[0].machine.device)
    rows, warnings = [], []
    for config in configs:
        size, n_models = data_size(training, headers, config), _n_folds(config)
        seconds = training_seconds(config, size, n_models, machine.rate)
        rows.append(
            ForecastRow(config.variant, seconds, training_memory(config, size, machine).total)
        )
        side_by_side = min(joblib.effective_n_jobs(config.fold_jobs), n_models) * n_parallel
        if problem := memory_problem(config, size, machine, side_by_side):
            warnings.append(f"warning: {problem}")
    frames = _mean_frames(headers) * len(training.paths) * count_persons(headers[0][1], body)
    seconds = sum(row.seconds for row in rows) + frames / PACKED_FRAMES_PER_SECOND
    seconds += sum(60 * (cli.parse_tune(call, None)[0].max_minutes or 0) for call in tune_calls)
    disk = packed_bytes(len(training.paths), headers, body) + sum(map(checkpoint_bytes, configs))
    duration = files.format_duration(seconds)
    title = f"forecast: about {duration} on this machine ({machine.name})"
    title = f"{title}, {disk / 1e9:.1f} GB of disk"
    return "\n".join([title, *_table(rows, machine), *dict.fromkeys(warnings)])


@dataclass(frozen=True)
class ForecastRow:
    """Seconds of a run of this variant, and bytes of each of its models."""

    variant: str
    seconds: float
    memory: float


def _table(rows: Sequence[ForecastRow], machine: Machine) -> list[str]:
    """A line for each variant, the runs of all its seeds together."""
    variants = dict.fromkeys(row.variant for row in rows)
    width = max(map(len, variants))
    free = "" if machine.available is None else f" of {machine.available / 1e9:.1f} GB free"
    lines = []
    for variant in variants:
        same = [row for row in rows if row.variant == variant]
        duration = files.format_duration(sum(row.seconds for row in same))
        memory = max(row.memory for row in same)
        lines.append(f"  {variant:{width}}  {duration:>11}  {memory / 1e9:5.1f} GB{free}")
    return lines


def data_size(
    training: TrainingSet, headers: Sequence[tuple[int, int]], config: TrainConfig
) -> DataSize:
    """The size of the training data. headers: (frames, columns) of some motions."""
    columns, body = headers[0][1], skeleton.skeleton_from_spec(training.skeleton)
    persons = count_persons(columns, body)
    width = columns // persons
    if config.motion.features != "raw":
        width = features.feature_width(persons, columns > body.position_columns, body)
    texts = [caption for captions in training.captions for caption in captions]
    return DataSize(
        motions=len(training.paths),
        frames=_mean_frames(headers),
        persons=persons,
        columns=width,
        captions=len(texts) / len(training.captions),
        words=float(np.mean([len(text.split()) for text in texts])),
    )


def packed_bytes(n_motions: int, headers: Sequence[tuple[int, int]], body: Skeleton) -> float:
    """Size of the packed features of so many motions. headers: (frames, columns) of some."""
    columns = headers[0][1]
    persons = count_persons(columns, body)
    width = features.feature_width(persons, columns > body.position_columns, body)
    bytes_per_value = 2  # float16
    return _mean_frames(headers) * n_motions * persons * width * bytes_per_value


def checkpoint_bytes(config: TrainConfig) -> float:
    """Rough size of a run's checkpoints.

    Per fold five copies of all weights: the weights, their average, AdamW's two moments, and the
    best checkpoint.
    """
    size = 4.0 * layer_weights(config.motion)
    if config.text.is_from_scratch:
        size += 4.0 * config.text.text_vocabulary * config.text.text_width
    elif config.text.unfreeze_text:
        size += PUBLISHED_CLIP_BYTES / 2
    return _n_folds(config) * size * 5


def read_headers(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """(frames, columns) of some of the motions, without broken ones, which are not trained on.

    DataError where all of them are broken.
    """
    shapes = []
    for index in np.unique(np.linspace(0, len(paths) - 1, HEADER_SAMPLE).astype(int)):
        with contextlib.suppress(DataError):
            shapes.append(motion_files.motion_shape(paths[index]))
    if not shapes:
        problem = f"no readable motion among the {HEADER_SAMPLE} that were checked"
        raise DataError(paths[0].parent, problem, "see `python solution/prepare.py`")
    return shapes


def _nearest_existing(folder: Path) -> Path:
    """The folder, or the nearest of its parents that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _mean_frames(headers: Sequence[tuple[int, int]]) -> float:
    return float(np.mean([frames for frames, _ in headers]))


def _n_folds(config: TrainConfig) -> int:
    """Number of models that a run trains."""
    data_dir = config.data.data_dir
    has_lists = folds.choose_split_lists(data_dir, prefer_txt=False, count_given=False)
    one_split = config.prefer_txt_split or has_lists
    return config.folds if config.fold == "all" and not one_split else 1


def _has_cached_weights(name: str, tag: str) -> bool:
    """Whether open_clip finds the weights of a tag on this machine.

    open_clip imports slowly, so empty caches are checked first. ConfigError for an unknown model,
    WeightsError for an unknown tag.
    """
    from huggingface_hub import constants

    clip_cache = Path("~/.cache/clip").expanduser()
    caches = clip_cache, Path(constants.HF_HUB_CACHE)
    if not any(folder.is_dir() and any(folder.iterdir()) for folder in caches):
        return False
    import open_clip

    if name not in open_clip.list_models():
        problem = f"open_clip has no model {name!r}"
        raise ConfigError("--text_tower", problem, "use one of its names, or hf:FOLDER")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        problem = f"{tag!r} is neither a file nor a tag of {name}"
        raise WeightsError("--text_weights", problem, f"its tags: {', '.join(tags)}")
    source = open_clip.get_pretrained_cfg(name, tag)
    repository, url = source.get("hf_hub", "").strip("/"), source.get("url", "")
    if repository and _in_hub_cache(repository):
        return True
    return bool(url) and (clip_cache / url.rpartition("/")[2]).is_file()


def _in_hub_cache(repository: str) -> bool:
    """Whether the hub client's cache holds a whole snapshot of a repository."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot = Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError, OSError):
        return False
    return any(any(snapshot.glob(pattern)) for pattern in ("*.safetensors", "*.bin", "*.pt"))
