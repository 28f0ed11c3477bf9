"""The attention weights that a layer of a motion tower used for one motion.

Hooks capture the queries and keys while the layer runs, and the weights are computed from them
again: the layers themselves keep none.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from motret.config.training import MotionConfig
from motret.data.inputs import MotionBatch
from motret.errors import ConfigError
from motret.models.backbones import Block, LinearBlock, PackedSequence
from motret.models.dual_encoder import DualEncoder
from motret.models.motion_tower import MotionTransformer
from motret.skeleton import PARTS


@dataclass(frozen=True)
class AttentionMap:
    """Attention of each person's S special tokens.

    names: of the special tokens, [CLS] first; weights: (persons, S, persons, S + N) from a special
    token of a person to all tokens of each person, special tokens first. They are means over the
    heads; the weights of one token sum to 1. layer: in words.
    """

    names: tuple[str, ...]
    weights: np.ndarray
    layer: str

    def over_time(self, name: str) -> np.ndarray:
        """(persons, persons, N) weights of one special token to the motion tokens."""
        return self.weights[:, self.names.index(name), :, len(self.names) :]


def special_tokens(tower: nn.Module) -> tuple[str, ...]:
    """Names of a tower's special tokens; none for an external tower, whose layers are unknown."""
    if not isinstance(tower, MotionTransformer):
        return ()
    return ("cls", *PARTS) if hasattr(tower, "part_tokens") else ("cls",)


@torch.inference_mode()
def attention_map(model: DualEncoder, motion: MotionBatch, layer: int = -1) -> AttentionMap:
    """The attention in one layer while the model embeds a batch of one motion, no token dropped.

    ConfigError where there is no such layer.
    """
    tower = model.motion_tower
    assert isinstance(tower, MotionTransformer)
    blocks = [
        module for module in tower.backbone.modules() if isinstance(module, Block | LinearBlock)
    ]
    if not -len(blocks) <= layer < len(blocks):
        problem = f"there is no layer {layer}: the model has {len(blocks)}"
        raise ConfigError("--attn_layer", problem, "count from 0, or -1 for the last")
    model.eval()
    projections: list[Tensor] = []
    packings: list[PackedSequence] = []
    block = blocks[layer]
    compute_weights, modules = _attention_of_block(block)
    with ExitStack() as hooks:
        hooks.enter_context(
            block.register_forward_pre_hook(lambda _, inputs: packings.append(inputs[1]))
        )
        for module in modules:
            hooks.enter_context(_capture_outputs(module, projections))
        model.encode_motions(replace(motion, generator=None))
    padded = [packings[0].pad(projection) for projection in projections]
    weights = compute_weights(padded).mean(dim=1).double().cpu().numpy()
    names = special_tokens(tower)
    by_person = _by_person(weights, motion.frames.shape[2])[:, : len(names)]
    layer_name = f"layer {layer % len(blocks) + 1} of {len(blocks)}, mean over heads"
    return AttentionMap(names, by_person, layer_name)


def _by_person(weights: np.ndarray, persons: int) -> np.ndarray:
    """(persons, n, persons, n) from (persons, n, n) of separate persons or (1, m, m) of joint ones.

    m = persons * n. Separate persons do not attend to each other.
    """
    n_tokens = weights.shape[-1]
    if len(weights) == persons:
        separate = np.zeros((persons, n_tokens, persons, n_tokens))
        for person in range(persons):
            separate[person, :, person] = weights[person]
        return separate
    return weights.reshape(persons, n_tokens // persons, persons, n_tokens // persons)


def token_edges(n_frames: int, config: MotionConfig, fps: float) -> np.ndarray:
    """(N + 1,) seconds at which the tokens of a motion of `n_frames` frames begin and end.

    Frames beyond the last full patch belong to no token.
    """
    used = min(n_frames, config.max_frames)
    edges = np.arange(max(1, used // config.patch) + 1.0) * config.patch
    if config.long_motions == "subsample":
        edges *= (n_frames - 1) / max(1, used - 1) if used < n_frames else 1
    else:
        edges += (n_frames - used) // 2
    return np.asarray(np.minimum(edges, n_frames) / fps)


def softmax_weights(query: Tensor, key: Tensor) -> Tensor:
    """(B, heads, N, N) weights of softmax attention, from (B, heads, N, d)."""
    logits: Tensor = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    return logits.softmax(dim=-1)


def linear_weights(query: Tensor, key: Tensor) -> Tensor:
    """(B, heads, N, N) implicit weights of linear attention, from (B, heads, N, d).

    They are softmax(q over d) softmax(k over N)^T. Their product with the values is the output of
    `backbones.linear_attention`, and each row sums to 1.
    """
    return query.softmax(dim=-1) @ key.softmax(dim=-2).transpose(-1, -2)


def _attention_of_block(
    block: Block | LinearBlock,
) -> tuple[Callable[[Sequence[Tensor]], Tensor], list[nn.Module]]:
    """A function that gives a block's weights from the outputs of some modules, and the modules."""
    if isinstance(block, Block):
        heads = block.heads

        def from_qkv(outputs: Sequence[Tensor]) -> Tensor:
            (qkv,) = outputs
            split = qkv.float().unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
            query, key, _ = split
            return softmax_weights(query, key)

        return from_qkv, [block.qkv]
    attention = block.sa_block

    def from_query_and_key(outputs: Sequence[Tensor]) -> Tensor:
        query, key = (
            output.float().unflatten(-1, (attention.heads, -1)).transpose(1, 2)
            for output in outputs
        )
        return linear_weights(query, key)

    return from_query_and_key, [attention.query, attention.key]


def _capture_outputs(module: nn.Module, outputs: list[Tensor]) -> torch.utils.hooks.RemovableHandle:
    """Appends what a module returns to `outputs`, until the handle's block ends."""
    return module.register_forward_hook(lambda *call: outputs.append(call[2].detach()))
