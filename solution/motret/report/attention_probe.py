"""The attention figures of one motion: epoch<NNN>_probe_attn_cls.png, and one per part token."""

from pathlib import Path

import numpy as np
import torch

from motret import skeleton
from motret.data import features
from motret.data.batching import MotionTensors
from motret.data.dataset import TrainingData
from motret.data.feature_store import FeatureStore
from motret.formats import motion_files
from motret.models.dual_encoder import DualEncoder
from motret.report import attention, attention_plots
from motret.report.attention_plots import PosedMotion, TokenAttention

N_CANDIDATES = 25


def choose_probe(store: FeatureStore, motion_idx: np.ndarray) -> int:
    """The motion to draw: of medium length, with persons who stay close to each other.

    Of the motions nearest to the median length it is the one whose persons get least far apart.
    """
    lengths = store.lengths[motion_idx]
    by_length = np.argsort(np.abs(lengths - np.median(lengths)), kind="stable")
    medium = motion_idx[by_length[:N_CANDIDATES]]
    if "relation" not in store.columns:
        return int(medium[0])
    columns = store.columns.field("relation", "offset")  # of the other person, in metres

    def max_distance(index: int) -> float:
        return float(np.linalg.norm(store.motion(index)[:, 0, columns], axis=-1).max())

    return int(min(medium, key=max_distance))


def draw_probe(
    folder: Path,
    epoch: int,
    title: str,
    model: DualEncoder,
    motions: MotionTensors,
    data: TrainingData,
    motion_idx: np.ndarray,
    layer: int = -1,
) -> list[Path]:
    """Draws the attention of the special tokens in one of the motions `motion_idx`.

    The motion is embedded without autocast and without dropped tokens. title: of the model.
    Returns the files; none for an external tower.
    """
    tokens = attention.special_tokens(model.motion_tower)
    if not tokens:
        return []
    index = choose_probe(data.store, motion_idx)
    batch = motions.gather(torch.tensor([index]))
    attention_map = attention.attention_map(model, batch, layer)
    config = data.store.config
    columns = motion_files.read_motion(data.training.paths[index])
    positions = features.upright(skeleton.split_columns(columns, config.body)[0], config)
    edges = attention.token_edges(len(positions), motions.config, config.fps)
    paths = []
    for token in tokens:
        name, words = ("cls", "[CLS]") if token == "cls" else (f"part_{token}", _words(token))
        path = folder / f"epoch{epoch:03d}_probe_attn_{name}.png"
        joints = config.body.limbs.get(token, ())
        attention_plots.plot_attention(
            path,
            f"Attention of {words}: {title}, epoch {epoch}",
            data.training.captions[index][0],
            TokenAttention(attention_map.over_time(token), edges, attention_map.layer),
            PosedMotion(positions, config.fps, config.body, joints),
        )
        paths.append(path)
    return paths


def _words(part: str) -> str:
    return f"the {part.replace('_', ' ')} token"
