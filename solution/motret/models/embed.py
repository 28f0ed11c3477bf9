"""What a model says of motions, captions and their parts: unit vectors, in pieces that fit into memory."""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from motret.data import batching
from motret.data.batching import MotionTensors
from motret.data.inputs import CaptionBank
from motret.data.parts import part_texts
from motret.models.dual_encoder import DualEncoder
from motret.models.text_tower import TextTower
from motret.skeleton import PARTS
from motret.utils import files, progress
from motret.utils.device import autocast, computes_in_bfloat16


@torch.inference_mode()
def embed_motions(
    model: DualEncoder,
    motions: MotionTensors,
    rows: np.ndarray,
    precision: contextlib.AbstractContextManager,
) -> np.ndarray:
    """(M, d) unit vectors of motions, computed in batches of like length."""
    model.eval()
    wanted = torch.from_numpy(rows).to(motions.device)
    order = motions.lengths[wanted].argsort(stable=True)
    with precision:
        parts = [model.encode_motions(motions.gather(wanted[piece])) for piece in order.split(batching.EVAL_BATCH_SIZE)]
    encoded = torch.cat(parts)
    out = torch.empty_like(encoded)
    out[order] = encoded
    return out.cpu().numpy()


@torch.inference_mode()
def embed_captions(
    model: DualEncoder,
    bank: CaptionBank,
    rows: Tensor,
    precision: contextlib.AbstractContextManager,
) -> np.ndarray:
    """(C, d) unit vectors of captions of a bank."""
    model.eval()
    with precision:
        return torch.cat([model.encode_captions(bank, part) for part in rows.split(1024)]).cpu().numpy()


@torch.inference_mode()
def embed_motion_parts(
    model: DualEncoder,
    motions: MotionTensors,
    rows: np.ndarray,
    precision: contextlib.AbstractContextManager,
) -> np.ndarray:
    """(M, 5, d) unit vectors of the parts of motions, the mean over the tower's ways to tell them."""
    model.eval()
    found = []
    with precision:
        for piece in torch.from_numpy(rows).to(motions.device).split(batching.EVAL_BATCH_SIZE):
            _, parts = model.encode_motions_and_parts(motions.gather(piece))
            found.append(nn.functional.normalize(torch.stack(parts).mean(dim=0), dim=-1))
    return torch.cat(found).cpu().numpy()


def embed_caption_parts(
    model: DualEncoder,
    bank: CaptionBank,
    captions: Sequence[str],
    precision: contextlib.AbstractContextManager,
) -> tuple[np.ndarray, np.ndarray]:
    """(C, 5, d) unit vectors of what captions say of each part, and whether they do (C, 5). The bank holds these texts."""
    said = [list(part_texts.parts_of_caption(caption).values()) for caption in captions]
    named = np.array([[text is not None for text in own] for own in said])
    distinct = sorted({text for own in said for text in own if text is not None})
    place = {text: number for number, text in enumerate(distinct)}
    vectors = np.zeros((len(captions), len(PARTS), model.embed_dim), dtype=np.float32)
    if distinct:
        told = embed_captions(model, bank, bank.indices(distinct).to(model.mean.device), precision)
        vectors[named] = told[[place[text] for own in said for text in own if text is not None]]
    return vectors, named


EMBED_BATCH_SIZE = 128


def make_caption_bank(captions: Sequence[str], tower: TextTower, frozen: bool, cache: Path, device: torch.device) -> CaptionBank:
    """The bank of these captions; what a frozen tower says of them is kept in `cache`, by tower, weights and captions."""
    distinct = sorted(set(captions))
    index = {caption: row for row, caption in enumerate(distinct)}
    ids, lengths = tower.tokenize(distinct)
    if not frozen:
        return CaptionBank(index, ids=ids, lengths=lengths)
    file = cache / f"{_cache_key(tower, distinct, ids, lengths, computes_in_bfloat16(device))}.npy"
    if not file.is_file():
        vectors = embed_frozen(tower, ids, lengths, device)
        files.atomic_write(file, lambda beside: np.save(beside, vectors))
    return CaptionBank(index, vectors=torch.from_numpy(np.load(file, allow_pickle=False)))


@torch.inference_mode()
def embed_frozen(tower: TextTower, ids: Tensor, lengths: Tensor, device: torch.device) -> np.ndarray:
    """What a tower says of captions, as it tokenised them: (C, dim) float32. Those of one length go together, so that little is padding."""
    tower = tower.to(device).eval()
    out = torch.empty(len(ids), tower.dim)
    order = lengths.argsort(stable=True)
    with autocast(device, computes_in_bfloat16(device)):
        for rows in progress.progress_bar(
            order.split(EMBED_BATCH_SIZE),
            desc="embedding captions",
            unit="batch",
            hidden=len(order) < 2000,
        ):
            longest = int(lengths[rows].max())
            out[rows] = tower(ids[rows, :longest].to(device), lengths[rows].to(device)).float().cpu()
    return out.numpy()


def _cache_key(tower: TextTower, captions: Sequence[str], ids: Tensor, lengths: Tensor, halved: bool) -> str:
    """Changes with any weight of the tower, its kinds of modules (activations too), any token of the captions, any caption, and with
    whether bfloat16 is computed in."""
    content = hashlib.blake2b(digest_size=16)
    for value in (*tower.state_dict().values(), ids, lengths):
        content.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    shapes = [(name, list(value.shape), str(value.dtype)) for name, value in tower.state_dict().items()]
    kinds = sorted({type(module).__name__ for module in tower.modules()})
    return files.content_hash(type(tower).__name__, kinds, shapes, content.hexdigest(), captions, halved)
