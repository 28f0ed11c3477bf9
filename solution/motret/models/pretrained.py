"""Published weights for a backbone: what they decide of the settings, and what of them is used."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motret.config.base import ROOT
from motret.config.training import MotionConfig, TrainConfig
from motret.errors import ConfigError, WeightsError
from motret.models.backbones import Backbone
from motret.models.checkpoint_formats import (
    Architecture,
    CheckpointFormat,
    architecture_of,
    read_weights,
    recognise_format,
)

DESCRIBED_PATH = Path("MotionDiffuse/checkpoints/humanml_trans_dec_512_bert/model000600000.pt")
"""Where the SGAR description puts its backbone's weights. Under that name MDM published a file, so
its keys decide what it is."""


@dataclass(frozen=True)
class LoadedWeights:
    """The backbone's parameters that came from a file, and a line that says what became of it."""

    names: tuple[str, ...]
    summary: str


def load_backbone_weights(backbone: Backbone, config: MotionConfig) -> LoadedWeights:
    """Loads the weights of --backbone_weights into a backbone.

    An input projection of another width stays as it is; positions carry over as far as both go.
    WeightsError where the file cannot be read, is of no known format, or of another backbone or
    shape.
    """
    path = Path(config.backbone_weights or "none")
    weights = read_weights(path)
    file_format = recognise_format(path, weights)
    _check_fit(path, file_format, architecture_of(path, file_format, weights), config)
    current = backbone.state_dict()
    names = {key: file_format.map_key(key) for key in weights}
    loaded = {name: weights[key] for key, name in names.items() if name in current}
    unused, unknown = file_format.unused_keys(key for key in weights if names[key] not in current)
    new = _adapt_input(backbone, current, loaded, unused)
    new += _adapt_positions(backbone, current, loaded)
    _check_shapes(path, backbone, current, loaded)
    backbone.load_state_dict(current | loaded)
    message = [f"backbone: {len(loaded)} of {len(weights)} tensors of {path} loaded"]
    if unused or unknown:
        counts = [f"{purpose} {count}" for purpose, count in unused.items()]
        message.append(f"not used: {', '.join([*counts, *unknown])}")
    if new:
        message.append(f"new: {', '.join(new)}")
    message.append("special tokens have no position")
    if file_format.note:
        message.append(file_format.note)
    return LoadedWeights(tuple(loaded), "; ".join(message))


def apply_weights_file(
    config: TrainConfig, sources: Mapping[str, str]
) -> tuple[TrainConfig, dict[str, str], str | None]:
    """The settings with what a published file decides, their sources, and a message.

    --backbone motiondiffuse without --backbone_weights takes the file at the SGAR description's
    path, where it is. Backbone, width, layers, heads and mlp_ratio come from the file. The message
    is None where there is nothing to say. WeightsError where the file cannot be used, or a flag
    contradicts it.
    """
    motion, file = config.motion, config.motion.backbone_weights
    if file == "none" or (file is None and motion.backbone != "motiondiffuse"):
        return config, dict(sources), None
    path = Path(file) if file else _described_checkpoint()
    if path is None:
        no_file = (
            f"no backbone weights: {DESCRIBED_PATH} is neither here nor in the repository, "
            "so the layers start from scratch"
        )
        return config, dict(sources), no_file
    if not path.is_file():
        # a run that goes on has them in its checkpoint; any other run reports it when it loads them
        return config, dict(sources), None
    weights = read_weights(path)
    file_format = recognise_format(path, weights)
    architecture = architecture_of(path, file_format, weights)
    values: dict[str, Any] = {
        name: value
        for name, value in architecture.settings().items()
        if sources.get(name) != "flag"
    }
    try:
        motion = replace(motion, backbone_weights=str(path), **values)
    except ConfigError as error:
        problem = f"does not go with {error.path}: {error.problem}"
        raise WeightsError(path, problem, "leave that flag out") from error
    _check_fit(path, file_format, architecture, motion)
    changed = {
        name: f"file {path}"
        for name in ("backbone_weights", *values)
        if getattr(motion, name) != getattr(config.motion, name)
    }
    message: str | None = None
    if changed:
        layers = f"{motion.layers} layers of width {motion.width}"
        message = f"backbone weights: {path}, {file_format.name} with {layers}"
    return replace(config, motion=motion), dict(sources) | changed, message


def _described_checkpoint() -> Path | None:
    """The checkpoint at the SGAR description's path, in the current folder or the repository."""
    paths = (folder / DESCRIBED_PATH for folder in (Path(), ROOT))
    return next((path for path in paths if path.is_file()), None)


def _check_fit(
    path: Path, file_format: CheckpointFormat, architecture: Architecture, config: MotionConfig
) -> None:
    """WeightsError where a file's layers are not those of the settings."""
    if config.backbone != file_format.backbone:
        problem = f"holds {file_format.name} weights, and --backbone is {config.backbone}"
        fix = (
            f"add --backbone {file_format.backbone}, or give another file, "
            "or --backbone_weights none"
        )
        raise WeightsError(path, problem, fix)
    backbone, heads = architecture.backbone, architecture.heads
    width, layers, hidden = architecture.width, architecture.layers, architecture.hidden_dim
    expected = Architecture(backbone, config.width, config.layers, config.heads, config.hidden_dim)
    if architecture != expected:
        ratio = f"{hidden / width:.6g}" if hidden % width else f"{hidden / width:.1f}"
        problem = f"has {layers} layers of width {width} and {hidden}, made for {heads} heads"
        fix = f"set --width {width} --layers {layers} --heads {heads} --mlp_ratio {ratio}"
        raise WeightsError(path, problem, fix)


def _check_shapes(
    path: Path, backbone: Backbone, current: Mapping[str, Tensor], loaded: Mapping[str, Tensor]
) -> None:
    """WeightsError where the file lacks a parameter of the layers, or one has another shape."""
    optional = (backbone.POSITIONS, f"{backbone.INPUT}.weight", f"{backbone.INPUT}.bias")
    for name, parameter in current.items():
        if name not in loaded and name not in optional:
            raise WeightsError(path, f"lacks what would be {name}", "get the whole file")
        if name in loaded and loaded[name].shape != parameter.shape:
            shape, expected = tuple(loaded[name].shape), tuple(parameter.shape)
            problem = f"{name} is {shape}, where {expected} is needed"
            raise WeightsError(path, problem, "take a file as it was published")


def _adapt_input(
    backbone: Backbone,
    current: Mapping[str, Tensor],
    loaded: dict[str, Tensor],
    unused: Counter[str],
) -> list[str]:
    """Takes an input projection of another width out of `loaded`; describes what is new."""
    weight = f"{backbone.INPUT}.weight"
    features = current[weight].shape[1]
    file_features = loaded[weight].shape[1] if weight in loaded else "none"
    if features == file_features:
        return []
    for name in (weight, f"{backbone.INPUT}.bias"):
        unused["input projection"] += loaded.pop(name, None) is not None
    return [f"{backbone.INPUT} ({file_features} -> {features})"]


def _adapt_positions(
    backbone: Backbone, current: Mapping[str, Tensor], loaded: dict[str, Tensor]
) -> list[str]:
    """Makes the positions in `loaded` as many as the backbone has; describes what is new."""
    name = backbone.POSITIONS
    if name not in loaded:
        return [name]
    ours, published = current[name], loaded[name]
    common = min(len(ours), len(published))
    if ours.shape[1:] == published.shape[1:]:
        loaded[name] = torch.cat([published[:common].to(ours), ours[common:]])
    return [f"{name} from {common} on"] if common < len(ours) else []
