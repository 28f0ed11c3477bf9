"""Embeddings by a model or a frozen text tower: unit vectors, in batches that fit into memory."""

import hashlib
import io
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from motret.data import batching
from motret.data.batching import MotionTensors
from motret.data.inputs import CaptionBank
from motret.data.parts import part_texts
from motret.errors import DataError
from motret.models.dual_encoder import DualEncoder
from motret.models.text_tower import TextTower
from motret.skeleton import PARTS
from motret.utils import files, progress, reading
from motret.utils.device import autocast, inference_dtype

logger = logging.getLogger(__name__)

CAPTION_BATCH_SIZE = 1024
"""Captions that a model encodes at a time."""
EMBED_BATCH_SIZE = 128
"""Captions that a frozen tower encodes at a time."""


@torch.inference_mode()
def embed_motions(
    model: DualEncoder,
    motions: MotionTensors,
    motion_idx: np.ndarray,
    precision: AbstractContextManager[object],
) -> np.ndarray:
    """(M, d) unit vectors of the motions at `motion_idx`, computed in batches of similar length."""
    model.eval()
    indices = torch.from_numpy(motion_idx)
    order = motions.lengths[indices].argsort(stable=True)
    with precision:
        batches = [
            model.encode_motions(motions.gather(indices[batch]))
            for batch in order.split(batching.EVAL_BATCH_SIZE)
        ]
    sorted_embeddings = torch.cat(batches)
    embeddings = np.empty(sorted_embeddings.shape, dtype=np.float32)
    embeddings[order.numpy()] = sorted_embeddings.cpu().numpy()
    return embeddings


@torch.inference_mode()
def embed_captions(
    model: DualEncoder,
    bank: CaptionBank,
    indices: Tensor,
    precision: AbstractContextManager[object],
) -> np.ndarray:
    """(C, d) unit vectors of the captions of a bank at `indices` (C,), which are on the CPU."""
    model.eval()
    with precision:
        batches = [
            model.encode_captions(bank, batch) for batch in indices.split(CAPTION_BATCH_SIZE)
        ]
        return torch.cat(batches).cpu().numpy()


@torch.inference_mode()
def embed_motion_parts(
    model: DualEncoder,
    motions: MotionTensors,
    motion_idx: np.ndarray,
    precision: AbstractContextManager[object],
) -> np.ndarray:
    """(M, 5, d) unit vectors of the parts of motions, the mean over the tower's part views."""
    model.eval()
    indices = torch.from_numpy(motion_idx)
    embeddings = []
    with precision:
        for batch in indices.split(batching.EVAL_BATCH_SIZE):
            _, part_views = model.encode_motions_and_parts(motions.gather(batch))
            embeddings.append(nn.functional.normalize(torch.stack(part_views).mean(dim=0), dim=-1))
    return torch.cat(embeddings).cpu().numpy()


def embed_caption_parts(
    model: DualEncoder,
    bank: CaptionBank,
    captions: Sequence[str],
    precision: AbstractContextManager[object],
) -> tuple[np.ndarray, np.ndarray]:
    """(C, 5, d) unit vectors of what captions say of each part, and (C, 5) whether they do.

    The bank holds the part texts of these captions; a part that is not named has zeros.
    """
    part_texts_of = [list(part_texts.parts_of_caption(text).values()) for text in captions]
    named = np.array([[text is not None for text in texts] for texts in part_texts_of])
    mentions = [text for texts in part_texts_of for text in texts if text is not None]
    vectors = np.zeros((len(captions), len(PARTS), model.embed_dim), dtype=np.float32)
    if mentions:
        distinct = sorted(set(mentions))
        position = {text: index for index, text in enumerate(distinct)}
        embeddings = embed_captions(model, bank, bank.indices(distinct), precision)
        vectors[named] = embeddings[[position[text] for text in mentions]]
    return vectors, named


def make_caption_bank(
    captions: Sequence[str], tower: TextTower, frozen: bool, cache: Path, device: torch.device
) -> CaptionBank:
    """The bank of these captions: their tokens, or the vectors of a frozen tower.

    The vectors are cached in the folder `cache`, by tower, weights and captions.
    """
    distinct = sorted(set(captions))
    index = {caption: position for position, caption in enumerate(distinct)}
    ids, lengths = tower.tokenize(distinct)
    if not frozen:
        return CaptionBank(index, ids=ids, lengths=lengths)
    in_bfloat16 = inference_dtype("auto", device) is torch.bfloat16
    key = _cache_key(tower, distinct, ids, lengths, in_bfloat16)
    path = cache / f"{key}.npy"
    if (vectors := _cached_vectors(path, (len(distinct), tower.dim))) is None:
        vectors = embed_frozen(tower, ids, lengths, device)
        files.atomic_write(path, lambda tmp_path: np.save(tmp_path, vectors))
    return CaptionBank(index, vectors=torch.from_numpy(vectors))


def _cached_vectors(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The vectors in a file; None where there is none, or with a message, where it is broken."""
    if not reading.exists(path):
        return None
    try:
        with reading.boundary(path, "holds no such vectors", "remove it"):
            vectors: np.ndarray = np.load(io.BytesIO(reading.read_bytes(path)), allow_pickle=False)
            if vectors.shape != shape or vectors.dtype != np.float32:
                raise ValueError(f"it has {vectors.dtype} {vectors.shape}, expected {shape}")
            return vectors
    except DataError as error:
        logger.warning(f"warning: {path}: {error.problem}: the captions are embedded again")
        return None


@torch.inference_mode()
def embed_frozen(
    tower: TextTower, ids: Tensor, lengths: Tensor, device: torch.device
) -> np.ndarray:
    """(C, dim) float32 vectors of tokenised captions.

    Captions of similar length are computed together, so that little is padding.
    """
    tower = tower.to(device).eval()
    vectors = torch.empty(len(ids), tower.dim)
    batches = lengths.argsort(stable=True).split(EMBED_BATCH_SIZE)
    bar = progress.progress_bar(
        batches, desc="embedding captions", unit="batch", hidden=len(ids) < 2000
    )
    with autocast(device, inference_dtype("auto", device)):
        for batch in bar:
            batch_ids = ids[batch, : int(lengths[batch].max())].to(device)
            vectors[batch] = tower(batch_ids, lengths[batch].to(device)).float().cpu()
    return vectors.numpy()


def _cache_key(
    tower: TextTower, captions: Sequence[str], ids: Tensor, lengths: Tensor, bfloat16: bool
) -> str:
    """Changes with everything that changes the vectors of a frozen tower.

    That is any of its weights, its kinds of modules (activations too), any caption or token, and
    whether bfloat16 is computed in.
    """
    content = hashlib.blake2b(digest_size=16)
    state = tower.state_dict()
    for value in (*state.values(), ids, lengths):
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        content.update(raw.numpy().data)
    shapes = [(name, list(value.shape), str(value.dtype)) for name, value in state.items()]
    kinds = sorted({type(module).__name__ for module in tower.modules()})
    digest = content.hexdigest()
    return files.content_hash(type(tower).__name__, kinds, shapes, digest, captions, bfloat16)
