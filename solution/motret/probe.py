"""The attention pictures of one motion: epoch<NNN>_probe_attn_cls.png, and one for each part token."""

from pathlib import Path

import numpy as np
import torch

from motret import attention, challenge, features, plots, skeleton
from motret.batches import Motions
from motret.dataset import TrainingData
from motret.model import DualEncoder
from motret.store import Store

CANDIDATES = 25


def choose(packed: Store, rows: np.ndarray) -> int:
    """The motion that is looked at: of those nearest to the median length, the one whose persons stay closest to each other."""
    lengths = packed.lengths[rows]
    middle = rows[np.argsort(np.abs(lengths - np.median(lengths)), kind="stable")[:CANDIDATES]]
    if "relation" not in packed.columns:
        return int(middle[0])
    start = packed.columns["relation"].start  # where the other person is, in metres
    return int(min(middle, key=lambda row: float(np.linalg.norm(packed.motion(row)[:, 0, start : start + 3], axis=-1).max())))


def draw(
    folder: Path, epoch: int, name: str, model: DualEncoder, motions: Motions, data: TrainingData, rows: np.ndarray, layer: int = -1
) -> list[Path]:
    """Draws what the special tokens attend to in one of the motions `rows`; returns the files, none where the tower is not ours.

    name: of the model. The motion is computed on without autocast and without dropped tokens.
    """
    tokens = attention.token_names(model.motion_tower)
    if not tokens:
        return []
    row = choose(data.store, rows)
    found = attention.attention_map(model, motions.gather(torch.tensor([row], device=motions.device)), layer)
    settings = data.store.settings
    raw = challenge.read_motion(data.training.paths[row])
    positions = features.upright(skeleton.split_columns(raw, settings.body)[0], settings)
    edges = attention.token_edges(len(positions), motions.settings, settings.fps)
    caption, drawn = data.training.captions[row][0], []
    for token in tokens:
        path = folder / f"epoch{epoch:03d}_probe_attn_{'cls' if token == 'cls' else f'part_{token}'}.png"
        what = "[CLS]" if token == "cls" else f"the {token.replace('_', ' ')} token"
        title = f"What {what} attends to: {name}, epoch {epoch}"
        weights, joints = found.over_time(token), settings.body.limbs.get(token, ())
        plots.attention(path, title, caption, weights, edges, positions, settings.fps, found.layer, joints, settings.body)
        drawn.append(path)
    return drawn
