"""Which moments of a motion the special tokens attend to: the true attention weights of a layer that ran.

The queries and keys are caught on their way through the layer, and the weights computed from them once more; training does not know.
"""
# MERGED: """The attention pictures of one motion: epoch<NNN>_probe_attn_cls.png, and one for each part token."""
#

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from motret import skeleton
from motret.config.training import MotionConfig
from motret.data import features
from motret.data.batching import MotionTensors
from motret.data.dataset import TrainingData
from motret.data.feature_store import FeatureStore
from motret.data.inputs import MotionBatch
from motret.errors import ConfigError
from motret.formats import motion_files
from motret.models.backbones import Block, LinearBlock, PackedSequence
from motret.models.dual_encoder import DualEncoder
from motret.models.motion_tower import MotionTransformer
from motret.report import plots
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
    """The attention in one layer while the model embeds one motion, no token dropped. ConfigError where there is no such layer."""
    tower = model.motion_tower
    blocks = [block for block in tower.backbone.modules() if isinstance(block, Block | LinearBlock)]
    if not -len(blocks) <= layer < len(blocks):
        raise ConfigError("--attn_layer", f"there is no layer {layer}: the model has {len(blocks)}", "count from 0, or -1 for the last")
    model.eval()
    caught: list[Tensor] = []
    grids: list[PackedSequence] = []
    weigh, sources = _weights_of_block(blocks[layer])
    with ExitStack() as hooks:
        hooks.enter_context(blocks[layer].register_forward_pre_hook(lambda block, given: grids.append(given[1])))
        for source in sources:
            hooks.enter_context(_capture_outputs(source, caught))
        model.encode_motions(MotionBatch(motion.frames, motion.lengths))
    weights = weigh(*map(grids[0].pad, caught)).mean(dim=1).double().cpu().numpy()
    names, persons = token_names(tower), motion.frames.shape[2]
    if len(weights) == persons:  # each person alone: nothing is attended to at the other
        weights = np.stack([np.stack([own if me == other else 0 * own for other in range(persons)], 1) for me, own in enumerate(weights)])
    else:
        count = weights.shape[-1] // persons
        weights = weights.reshape(persons, count, persons, count)
    return AttentionMap(names, weights[:, : len(names)], f"layer {layer % len(blocks) + 1} of {len(blocks)}, mean over heads")


def token_edges(frames: int, config: MotionConfig, fps: float) -> np.ndarray:
    """(N + 1,) seconds between which the tokens of a motion of so many frames lie; frames beyond the last full patch have none."""
    kept = min(frames, config.max_frames)
    edges = np.arange(max(1, kept // config.patch) + 1.0) * config.patch
    if config.long_motions == "subsample":
        edges *= (frames - 1) / max(1, kept - 1) if kept < frames else 1
    else:
        edges += (frames - kept) // 2
    return np.minimum(edges, frames) / fps


def softmax_weights(query: Tensor, key: Tensor) -> Tensor:
    """(B, heads, N, N) weights of softmax attention, from (B, heads, N, d)."""
    return (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1)


def linear_weights(query: Tensor, key: Tensor) -> Tensor:
    """(B, heads, N, N) weights that linear attention gives to tokens without writing them down: softmax(q over d) softmax(k over N)^T.

    Their products with the values are what `backbones.linear_attention` returns, and each row sums to 1.
    """
    return query.softmax(dim=-1) @ key.softmax(dim=-2).transpose(-1, -2)


def _weights_of_block(block: Block | LinearBlock) -> tuple[Callable[..., Tensor], list[nn.Module]]:
    """A block's weights as a function of what some of its modules give."""
    if isinstance(block, Block):

        def from_joined(joined: Tensor) -> Tensor:
            query, key, _ = joined.float().unflatten(-1, (3, block.heads, -1)).permute(2, 0, 3, 1, 4)
            return softmax_weights(query, key)

        return from_joined, [block.qkv]
    inner = block.sa_block

    def from_two(query: Tensor, key: Tensor) -> Tensor:
        heads = (value.float().unflatten(-1, (inner.heads, -1)).transpose(1, 2) for value in (query, key))
        return linear_weights(*heads)

    return from_two, [inner.query, inner.key]


def _capture_outputs(source: nn.Module, caught: list[Tensor]) -> torch.utils.hooks.RemovableHandle:
    """A context in which what `source` gives is put into `caught`."""
    return source.register_forward_hook(lambda module, given, found: caught.append(found.detach()))


PROBE_CANDIDATES = 25


def choose_probe(packed: FeatureStore, rows: np.ndarray) -> int:
    """The motion that is looked at: of those nearest to the median length, the one whose persons stay closest to each other."""
    lengths = packed.lengths[rows]
    middle = rows[np.argsort(np.abs(lengths - np.median(lengths)), kind="stable")[:PROBE_CANDIDATES]]
    if "relation" not in packed.columns:
        return int(middle[0])
    offset = packed.columns.field("relation", "offset")  # of the other person, in metres
    return int(min(middle, key=lambda row: float(np.linalg.norm(packed.motion(row)[:, 0, offset], axis=-1).max())))


def draw_probe(
    folder: Path, epoch: int, name: str, model: DualEncoder, motions: MotionTensors, data: TrainingData, rows: np.ndarray, layer: int = -1
) -> list[Path]:
    """Draws what the special tokens attend to in one of the motions `rows`; returns the files, none where the tower is not ours.

    name: of the model. The motion is computed on without autocast and without dropped tokens.
    """
    tokens = token_names(model.motion_tower)
    if not tokens:
        return []
    row = choose_probe(data.store, rows)
    found = attention_map(model, motions.gather(torch.tensor([row], device=motions.device)), layer)
    config = data.store.config
    raw = motion_files.read_motion(data.training.paths[row])
    positions = features.upright(skeleton.split_columns(raw, config.body)[0], config)
    edges = token_edges(len(positions), motions.config, config.fps)
    caption, drawn = data.training.captions[row][0], []
    for token in tokens:
        path = folder / f"epoch{epoch:03d}_probe_attn_{'cls' if token == 'cls' else f'part_{token}'}.png"
        what = "[CLS]" if token == "cls" else f"the {token.replace('_', ' ')} token"
        title = f"What {what} attends to: {name}, epoch {epoch}"
        weights, joints = found.over_time(token), config.body.limbs.get(token, ())
        plots.plot_attention(path, title, caption, weights, edges, positions, config.fps, found.layer, joints, config.body)
        drawn.append(path)
    return drawn
