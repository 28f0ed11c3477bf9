"""Which moments of a motion the special tokens attend to: the true attention weights of a layer that ran.

The queries and keys are caught on their way through the layer, and the weights computed from them once more; training does not know.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from motret.backbones import Block, Grid, LinearBlock
from motret.config import MotionSettings
from motret.faults import SettingFault
from motret.model import DualEncoder
from motret.motion import MotionBatch, MotionTransformer
from motret.skeleton import PARTS


@dataclass(frozen=True)
class AttentionMap:
    """What each person's special tokens attend to.

    names: of the S special tokens, [CLS] first; weights: (persons, S, persons, S + N) from a special token of a person to all tokens
    of each person, specials first, the mean over heads; the weights of one token sum to 1. layer: which it is, in words.
    """

    names: tuple[str, ...]
    weights: np.ndarray
    layer: str

    def over_time(self, name: str) -> np.ndarray:
        """(persons, persons, N) weights of one special token of each person on the motion tokens of each person."""
        return self.weights[:, self.names.index(name), :, len(self.names) :]


def token_names(tower: nn.Module) -> tuple[str, ...]:
    """The special tokens of a tower; none where it is not one of ours, so nothing is known of its attention."""
    if not isinstance(tower, MotionTransformer):
        return ()
    return ("cls", *PARTS) if hasattr(tower, "part_tokens") else ("cls",)


@torch.inference_mode()
def attention_map(model: DualEncoder, motion: MotionBatch, layer: int = -1) -> AttentionMap:
    """The attention in one layer while the model embeds one motion, no token dropped. SettingFault where there is no such layer."""
    tower = model.motion_tower
    blocks = [block for block in tower.backbone.modules() if isinstance(block, Block | LinearBlock)]
    if not -len(blocks) <= layer < len(blocks):
        raise SettingFault("--attn_layer", f"there is no layer {layer}: the model has {len(blocks)}", "count from 0, or -1 for the last")
    model.eval()
    caught: list[Tensor] = []
    grids: list[Grid] = []
    weigh, sources = _tap(blocks[layer])
    with ExitStack() as hooks:
        hooks.enter_context(blocks[layer].register_forward_pre_hook(lambda block, given: grids.append(given[1])))
        for source in sources:
            hooks.enter_context(_hooked(source, caught))
        model.encode_motions(MotionBatch(motion.frames, motion.lengths))
    weights = weigh(*map(grids[0].spread, caught)).mean(dim=1).double().cpu().numpy()
    names, persons = token_names(tower), motion.frames.shape[2]
    if len(weights) == persons:  # each person alone: nothing is attended to at the other
        weights = np.stack([np.stack([own if me == other else 0 * own for other in range(persons)], 1) for me, own in enumerate(weights)])
    else:
        count = weights.shape[-1] // persons
        weights = weights.reshape(persons, count, persons, count)
    return AttentionMap(names, weights[:, : len(names)], f"layer {layer % len(blocks) + 1} of {len(blocks)}, mean over heads")


def token_edges(frames: int, settings: MotionSettings, fps: float) -> np.ndarray:
    """(N + 1,) seconds between which the tokens of a motion of so many frames lie; frames beyond the last full patch have none."""
    kept = min(frames, settings.max_frames)
    edges = np.arange(max(1, kept // settings.patch) + 1.0) * settings.patch
    if settings.long_motions == "subsample":
        edges *= (frames - 1) / max(1, kept - 1) if kept < frames else 1
    else:
        edges += (frames - kept) // 2
    return np.minimum(edges, frames) / fps


def softmax_weights(query: Tensor, key: Tensor) -> Tensor:
    """(B, heads, N, N) weights of softmax attention, from (B, heads, N, d)."""
    return (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1)


def linear_weights(query: Tensor, key: Tensor) -> Tensor:
    """(B, heads, N, N) weights that linear attention gives to tokens without writing them down: softmax(q over d) softmax(k over N)^T.

    Their products with the values are what `backbones.attend_linearly` returns, and each row sums to 1.
    """
    return query.softmax(dim=-1) @ key.softmax(dim=-2).transpose(-1, -2)


def _tap(block: Block | LinearBlock) -> tuple[Callable[..., Tensor], list[nn.Module]]:
    """A block's weights as a function of what some of its modules give."""
    if isinstance(block, Block):

        def from_joined(joined: Tensor) -> Tensor:
            query, key, _ = joined.float().unflatten(-1, (3, block.heads, -1)).permute(2, 0, 3, 1, 4)
            return softmax_weights(query, key)

        return from_joined, [block.to_qkv]
    inner = block.sa_block

    def from_two(query: Tensor, key: Tensor) -> Tensor:
        heads = (value.float().unflatten(-1, (inner.heads, -1)).transpose(1, 2) for value in (query, key))
        return linear_weights(*heads)

    return from_two, [inner.query, inner.key]


def _hooked(source: nn.Module, caught: list[Tensor]) -> torch.utils.hooks.RemovableHandle:
    """A context in which what `source` gives is put into `caught`."""
    return source.register_forward_hook(lambda module, given, found: caught.append(found.detach()))
