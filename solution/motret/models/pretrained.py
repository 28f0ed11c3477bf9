"""Published weights for a backbone: a MotionDiffuse or an MDM file, recognised by its keys, and what of it is used."""

import pickle
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motret.config.base import ROOT
from motret.config.training import MotionConfig, TrainConfig
from motret.errors import ConfigError, WeightsError
from motret.models.backbones import Backbone

DESCRIBED_PATH = Path("MotionDiffuse/checkpoints/humanml_trans_dec_512_bert/model000600000.pt")
"""Where the SGAR description puts its backbone's weights. Under that name MDM published a file, so its keys decide what it is."""
WRAPPER_KEYS = ("encoder", "model", "state_dict")
"""Where a file may keep its weights."""


@dataclass(frozen=True)
class CheckpointFormat:
    """A kind of published file.

    sign: what its layers' keys look like; backbone: which takes it; heads: as published, for the tensors do not tell; rename: a key of
    the file to one of the backbone (or to none of its); out, hidden: tensors of a layer whose rows are the width and the hidden width;
    unused: pattern -> what the keys are for that we have no use for, first match; note: what a user should know.
    """

    name: str
    sign: re.Pattern[str]
    backbone: str
    heads: int
    rename: Callable[[str], str]
    out: str
    hidden: str
    unused: Mapping[str, str]
    note: str = ""


MDM_INPUT = "input_process.poseEmbedding."
MDM_LAYER = {
    "self_attn.in_proj_weight": "qkv.weight",
    "self_attn.in_proj_bias": "qkv.bias",
    "self_attn.out_proj": "proj",
    "linear1": "mlp.0",
    "linear2": "mlp.2",
    "norm1": "attention_norm",
}
"""Tensors or modules of a layer -> ours."""
MDM_MLP_NORM = {"Encoder": "norm2", "Decoder": "norm3"}
"""A decoder's second norm belongs to its attention to the text."""


def _map_mdm_key(key: str) -> str:
    if key.startswith(MDM_INPUT):
        return f"project.{key.removeprefix(MDM_INPUT)}"
    if not (found := re.fullmatch(r"seqTrans(Encoder|Decoder)\.layers\.(\d+)\.(.+)", key)):
        return ""
    half, number, rest = found.groups()
    module, _, kind = rest.rpartition(".")
    ours = MDM_LAYER | {MDM_MLP_NORM[half]: "mlp_norm"}
    name = ours.get(rest) or (f"{ours[module]}.{kind}" if module in ours else "")
    return name and f"blocks.{number}.{name}"


FORMATS = (
    CheckpointFormat(
        name="MotionDiffuse",
        sign=re.compile(r"temporal_decoder_blocks\.(\d+)\."),
        backbone="motiondiffuse",
        heads=8,
        rename=str,
        out="sa_block.query.weight",
        hidden="ffn.linear1.weight",
        unused={
            r"temporal_decoder_blocks\.\d+\.ca_block\.": "cross-attention",
            r"clip\.|text": "text",
            r"out\.": "output",
        },
    ),
    CheckpointFormat(
        name="MDM",
        sign=re.compile(r"seqTrans(?:Encoder|Decoder)\.layers\.(\d+)\."),
        backbone="transformer",
        heads=4,
        rename=_map_mdm_key,
        out="self_attn.out_proj.weight",
        hidden="linear1.weight",
        unused={
            r"seqTransDecoder\.layers\.\d+\.(multihead_attn|norm2)\.": "cross-attention",
            r"(embed_timestep\.)?sequence_pos_encoder\.": "sinusoids",
            r"embed_timestep\.": "time",
            r"embed_text\.|clip_model\.": "text",
            r"embed_action\.": "action",
            r"output_process\.": "output",
        },
        note="MDM normalises after each sublayer and this backbone before it: a start, not the same function",
    ),
)


@dataclass(frozen=True)
class LoadedWeights:
    """What became of a file: the backbone's parameters that came from it, and a line that says so."""

    names: tuple[str, ...]
    summary: str


def load_backbone_weights(backbone: Backbone, config: MotionConfig) -> LoadedWeights:
    """Puts the weights of --backbone_weights into a backbone.

    An input projection of another width stays as it is; positions carry over as far as both go. WeightsError where the file cannot be
    read, is of no known kind, or of another backbone or shape.
    """
    path = Path(config.backbone_weights)
    weights = read_weights(path)
    kind = recognise_format(path, weights)
    _check_fit(path, kind, weights, config)
    ours = backbone.state_dict()
    names = {key: kind.rename(key) for key in weights}
    found = {name: weights[key] for key, name in names.items() if name in ours}
    unused, unknown = _purposes(kind, [key for key, name in names.items() if name not in ours])
    new = _adapt_input(backbone, ours, found, unused) + _adapt_positions(backbone, ours, found)
    optional = (backbone.POSITIONS, *(f"{backbone.INPUT}.{part}" for part in ("weight", "bias")))
    for name, own in ours.items():
        if name not in found and name not in optional:
            raise WeightsError(path, f"lacks what would be {name}", "get the whole file")
        if name in found and found[name].shape != own.shape:
            problem = f"{name} is {tuple(found[name].shape)}, where {tuple(own.shape)} is needed"
            raise WeightsError(path, problem, "take a file as it was published")
    backbone.load_state_dict(ours | found)
    told = [f"backbone: {len(found)} of {len(weights)} tensors of {path} loaded"]
    if unused or unknown:
        told.append("not used: " + ", ".join([*(f"{purpose} {count}" for purpose, count in unused.items()), *unknown]))
    told += [f"new: {', '.join(new)}"] * bool(new) + ["special tokens have no position"] + [kind.note] * bool(kind.note)
    return LoadedWeights(tuple(found), "; ".join(told))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, taken out of what holds them; nothing in it is run. WeightsError where it cannot be read."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as missing:
        raise WeightsError(
            path,
            "no such file",
            "give the published file with --backbone_weights, or leave the flag out",
        ) from missing
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        LookupError,
        pickle.UnpicklingError,
    ) as broken:
        reason = str(broken).strip().splitlines()[0] if str(broken).strip() else type(broken).__name__
        raise WeightsError(
            path,
            f"cannot be read as weights ({reason})",
            "get it again; it must hold tensors and plain values",
        ) from broken
    for name in WRAPPER_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping):
        raise WeightsError(path, "holds no weights by name", "give a MotionDiffuse or an MDM file")
    return {str(key).removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}


def recognise_format(path: Path, weights: Mapping[str, Tensor]) -> CheckpointFormat:
    """The kind of a file with these keys. WeightsError where it is none we know."""
    for kind in FORMATS:
        if any(kind.sign.match(key) for key in weights):
            return kind
    problem = f"nothing in it matches a backbone (its keys: {', '.join(list(weights)[:3]) or 'none'})"
    raise WeightsError(
        path,
        problem,
        "give a MotionDiffuse file (temporal_decoder_blocks...) or an MDM file (seqTransDecoder.layers...)",
    )


def _architecture_of(path: Path, kind: CheckpointFormat, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings that fit a file: backbone, width, layers and mlp_ratio by its tensors, heads as they were published."""
    numbers = [int(match[1]) for match in map(kind.sign.match, weights) if match]
    first = {key[match.end() :]: tensor for key, tensor in weights.items() if (match := kind.sign.match(key)) and match[1] == "0"}
    if kind.out not in first or kind.hidden not in first:
        raise WeightsError(path, f"its first layer lacks {kind.out} or {kind.hidden}", "get the whole file")
    width, hidden = first[kind.out].shape[0], first[kind.hidden].shape[0]
    return {
        "backbone": kind.backbone,
        "width": width,
        "layers": max(numbers) + 1,
        "heads": kind.heads,
        "mlp_ratio": hidden / width,
    }


def _check_fit(path: Path, kind: CheckpointFormat, weights: Mapping[str, Tensor], config: MotionConfig) -> None:
    if config.backbone != kind.backbone:
        problem = f"holds {kind.name} weights, and --backbone is {config.backbone}"
        raise WeightsError(
            path,
            problem,
            f"add --backbone {kind.backbone}, or give another file, or --backbone_weights none",
        )
    shape = _architecture_of(path, kind, weights)
    width, layers, hidden = (
        shape["width"],
        shape["layers"],
        round(shape["width"] * shape["mlp_ratio"]),
    )
    if (width, layers, kind.heads, hidden) != (
        config.width,
        config.layers,
        config.heads,
        config.hidden_dim,
    ):
        ratio = f"{hidden / width:.6g}" if hidden % width else f"{hidden / width:.1f}"
        problem = f"has {layers} layers of width {width} and {hidden}, made for {kind.heads} heads"
        raise WeightsError(
            path,
            problem,
            f"set --width {width} --layers {layers} --heads {kind.heads} --mlp_ratio {ratio}",
        )


def apply_weights_file(config: TrainConfig, sources: Mapping[str, str]) -> tuple[TrainConfig, dict[str, str], str | None]:
    """The settings with what a published file decides, their sources, and a line about it (None where there is nothing to say).

    --backbone motiondiffuse without --backbone_weights takes the file at the SGAR description's place, where it is. Backbone, width,
    layers, heads and mlp_ratio come from the file. WeightsError where it cannot be used, or a flag contradicts it.
    """
    motion, given = config.motion, config.motion.backbone_weights
    if given == "none" or (given is None and motion.backbone != "motiondiffuse"):
        return config, dict(sources), None
    path = Path(given) if given else _described_checkpoint()
    if path is None:
        line = f"no backbone weights: {DESCRIBED_PATH} is neither here nor in the repository, so the layers start from scratch"
        return config, dict(sources), line
    if not path.is_file():  # a run that goes on has them in its checkpoint; any other says that they are missing when it loads them
        return config, dict(sources), None
    weights = read_weights(path)
    kind = recognise_format(path, weights)
    shape = {name: value for name, value in _architecture_of(path, kind, weights).items() if sources.get(name) != "flag"}
    try:
        motion = replace(motion, backbone_weights=str(path), **shape)
    except ConfigError as contradiction:
        raise WeightsError(
            path,
            f"does not go with {contradiction.path}: {contradiction.problem}",
            "leave that flag out",
        ) from contradiction
    _check_fit(path, kind, weights, motion)
    changed = {name: f"file {path}" for name in ("backbone_weights", *shape) if getattr(motion, name) != getattr(config.motion, name)}
    line = f"backbone weights: {path}, {kind.name} with {motion.layers} layers of width {motion.width}" if changed else None
    return replace(config, motion=motion), dict(sources) | changed, line


def _described_checkpoint() -> Path | None:
    """The checkpoint at the SGAR description's place, in the current folder or the repository."""
    return next(
        (folder / DESCRIBED_PATH for folder in (Path(), ROOT) if (folder / DESCRIBED_PATH).is_file()),
        None,
    )


def _adapt_input(backbone: Backbone, ours: Mapping[str, Tensor], found: dict[str, Tensor], unused: Counter[str]) -> list[str]:
    """Takes an input projection that does not fit out of what was found; returns what is new in words."""
    weight = f"{backbone.INPUT}.weight"
    own, there = ours[weight].shape[1], found[weight].shape[1] if weight in found else "none"
    if own == there:
        return []
    for name in (weight, f"{backbone.INPUT}.bias"):
        unused["input projection"] += found.pop(name, None) is not None
    return [f"{backbone.INPUT} ({there} -> {own})"]


def _adapt_positions(backbone: Backbone, ours: Mapping[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    """Makes the positions that were found as many as the backbone has; returns what is new in words."""
    name = backbone.POSITIONS
    if name not in found:
        return [name]
    own, there = ours[name], found[name]
    common = min(len(own), len(there))
    if own.shape[1:] == there.shape[1:]:
        found[name] = torch.cat([there[:common].to(own), own[common:]])
    return [f"{name} from {common} on"] if common < len(own) else []


def _purposes(kind: CheckpointFormat, keys: list[str]) -> tuple[Counter[str], list[str]]:
    """How many unused keys there are for each purpose, and the keys whose purpose nobody knows."""
    purposes = [next((told for pattern, told in kind.unused.items() if re.match(pattern, key)), None) for key in keys]
    unknown = [key for key, purpose in zip(keys, purposes, strict=True) if purpose is None]
    return Counter(purpose for purpose in purposes if purpose is not None), unknown
