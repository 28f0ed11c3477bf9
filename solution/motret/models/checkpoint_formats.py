"""Published files of weights, MotionDiffuse's and MDM's: read, and recognised by their keys."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from motret.errors import WeightsError
from motret.utils import reading
from motret.utils.tensors import load_tensors

WRAPPER_KEYS = ("encoder", "model", "state_dict")
"""Where a file may keep its weights."""


@dataclass(frozen=True)
class CheckpointFormat:
    """A kind of published file.

    key_pattern: what its layers' keys look like, with the layer's number as a group; backbone:
    which takes it; heads: as published, for the tensors do not show them; map_key: a key of the
    file to one of the backbone ("": to none); width_key, hidden_key: tensors of a layer whose first
    axis is the width and the hidden width; unused: pattern -> what the keys are for that the
    backbone has no use for, first match; note: what a user should know.
    """

    name: str
    key_pattern: re.Pattern[str]
    backbone: str
    heads: int
    map_key: Callable[[str], str]
    width_key: str
    hidden_key: str
    unused: Mapping[str, str]
    note: str = ""

    def unused_keys(self, keys: Iterable[str]) -> tuple[Counter[str], list[str]]:
        """How many of these keys there are for each purpose, and those of unknown purpose."""
        counts: Counter[str] = Counter()
        unknown = []
        for key in keys:
            purpose = next(
                (use for pattern, use in self.unused.items() if re.match(pattern, key)), ""
            )
            if purpose:
                counts[purpose] += 1
            else:
                unknown.append(key)
        return counts, unknown


@dataclass(frozen=True)
class Architecture:
    """The layers that a file has weights of."""

    backbone: str
    width: int
    layers: int
    heads: int
    hidden_dim: int

    @property
    def mlp_ratio(self) -> float:
        """Hidden width as a multiple of the width."""
        return self.hidden_dim / self.width

    def settings(self) -> dict[str, str | int | float]:
        """The settings of a motion tower with these layers, by name."""
        return {
            "backbone": self.backbone,
            "width": self.width,
            "layers": self.layers,
            "heads": self.heads,
            "mlp_ratio": self.mlp_ratio,
        }


MDM_INPUT = "input_process.poseEmbedding."
MDM_MODULES = {
    "self_attn.in_proj_weight": "qkv.weight",
    "self_attn.in_proj_bias": "qkv.bias",
    "self_attn.out_proj": "proj",
    "linear1": "mlp.0",
    "linear2": "mlp.2",
    "norm1": "attention_norm",
}
"""Tensors or modules of a layer of MDM -> of `backbones.Block`."""
MDM_MLP_NORM = {"Encoder": "norm2", "Decoder": "norm3"}
"""A decoder's second norm belongs to its attention to the text."""


def _map_mdm_key(key: str) -> str:
    if key.startswith(MDM_INPUT):
        return f"project.{key.removeprefix(MDM_INPUT)}"
    match = re.fullmatch(r"seqTrans(Encoder|Decoder)\.layers\.(\d+)\.(.+)", key)
    if match is None:
        return ""
    half, layer, tensor = match.groups()
    modules = MDM_MODULES | {MDM_MLP_NORM[half]: "mlp_norm"}
    module, _, kind = tensor.rpartition(".")
    if tensor in modules:
        return f"blocks.{layer}.{modules[tensor]}"
    return f"blocks.{layer}.{modules[module]}.{kind}" if module in modules else ""


FORMATS = (
    CheckpointFormat(
        name="MotionDiffuse",
        key_pattern=re.compile(r"temporal_decoder_blocks\.([0-9]{1,4})\."),
        backbone="motiondiffuse",
        heads=8,
        map_key=str,
        width_key="sa_block.query.weight",
        hidden_key="ffn.linear1.weight",
        unused={
            r"temporal_decoder_blocks\.\d+\.ca_block\.": "cross-attention",
            r"clip\.|text": "text",
            r"out\.": "output",
        },
    ),
    CheckpointFormat(
        name="MDM",
        key_pattern=re.compile(r"seqTrans(?:Encoder|Decoder)\.layers\.([0-9]{1,4})\."),
        backbone="transformer",
        heads=4,
        map_key=_map_mdm_key,
        width_key="self_attn.out_proj.weight",
        hidden_key="linear1.weight",
        unused={
            r"seqTransDecoder\.layers\.\d+\.(multihead_attn|norm2)\.": "cross-attention",
            r"(embed_timestep\.)?sequence_pos_encoder\.": "sinusoids",
            r"embed_timestep\.": "time",
            r"embed_text\.|clip_model\.": "text",
            r"embed_action\.": "action",
            r"output_process\.": "output",
        },
        note=(
            "MDM normalises after each sublayer and this backbone before it: "
            "a start, not the same function"
        ),
    ),
)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, taken out of what wraps them; nothing in the file is run.

    WeightsError where it cannot be read.
    """
    if not reading.is_file(path, WeightsError):
        fix = "give the published file with --backbone_weights, or leave the flag out"
        raise WeightsError(path, "no such file", fix)
    fix = "get it again; it must hold tensors and plain values"
    content = load_tensors(path, fix, problem="cannot be read as weights")
    for name in WRAPPER_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping):
        raise WeightsError(path, "holds no weights by name", "give a MotionDiffuse or an MDM file")
    return {
        str(key).removeprefix("module."): value
        for key, value in content.items()
        if isinstance(value, Tensor)
    }


def recognise_format(path: Path, weights: Mapping[str, Tensor]) -> CheckpointFormat:
    """The format of a file with these keys. WeightsError where it is none of `FORMATS`."""
    for checkpoint_format in FORMATS:
        if any(checkpoint_format.key_pattern.match(key) for key in weights):
            return checkpoint_format
    examples = ", ".join(list(weights)[:3]) or "none"
    problem = f"nothing in it matches a backbone (its keys: {examples})"
    fix = (
        "give a MotionDiffuse file (temporal_decoder_blocks...) "
        "or an MDM file (seqTransDecoder.layers...)"
    )
    raise WeightsError(path, problem, fix)


def architecture_of(
    path: Path, checkpoint_format: CheckpointFormat, weights: Mapping[str, Tensor]
) -> Architecture:
    """The layers of a file: by its tensors, but for the heads, which are as they were published.

    WeightsError where its first layer lacks the tensors that show them.
    """
    numbers, first_layer = [], {}
    for key, tensor in weights.items():
        if match := checkpoint_format.key_pattern.match(key):
            numbers.append(int(match[1]))
            if match[1] == "0":
                first_layer[key[match.end() :]] = tensor
    width_key, hidden_key = checkpoint_format.width_key, checkpoint_format.hidden_key
    if width_key not in first_layer or hidden_key not in first_layer:
        problem = f"its first layer lacks {width_key} or {hidden_key}"
        raise WeightsError(path, problem, "get the whole file")
    shapes = [first_layer[key].shape for key in (width_key, hidden_key)]
    if not all(len(shape) == 2 for shape in shapes) or set(numbers) != set(
        range(len(set(numbers)))
    ):
        problem = f"its layers {width_key} and {hidden_key} have another form, or one is missing"
        raise WeightsError(path, problem, "get the whole file")
    return Architecture(
        backbone=checkpoint_format.backbone,
        width=shapes[0][0],
        layers=max(numbers) + 1,
        heads=checkpoint_format.heads,
        hidden_dim=shapes[1][0],
    )
