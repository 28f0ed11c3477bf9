"""What a model says of motions, captions and their parts: unit vectors, in pieces that fit into memory."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from motret import batches, part_texts
from motret.batches import Motions
from motret.dataset import TrainingData
from motret.model import DualEncoder
from motret.runs import OutOfFold
from motret.skeleton import PARTS
from motret.text import CaptionBank
from motret.workplace import Workplace


@torch.inference_mode()
def embed_motions(model: DualEncoder, motions: Motions, rows: np.ndarray, precision: contextlib.AbstractContextManager) -> np.ndarray:
    """(M, d) unit vectors of motions, computed in batches of like length."""
    model.eval()
    wanted = torch.from_numpy(rows).to(motions.device)
    order = motions.lengths[wanted].argsort(stable=True)
    with precision:
        parts = [model.encode_motions(motions.gather(wanted[piece])) for piece in order.split(batches.EVALUATION_BATCH)]
    encoded = torch.cat(parts)
    out = torch.empty_like(encoded)
    out[order] = encoded
    return out.cpu().numpy()


@torch.inference_mode()
def embed_captions(model: DualEncoder, bank: CaptionBank, rows: Tensor, precision: contextlib.AbstractContextManager) -> np.ndarray:
    """(C, d) unit vectors of captions of a bank."""
    model.eval()
    with precision:
        return torch.cat([model.encode_captions(bank, part) for part in rows.split(1024)]).cpu().numpy()


@torch.inference_mode()
def embed_motion_parts(model: DualEncoder, motions: Motions, rows: np.ndarray, precision: contextlib.AbstractContextManager) -> np.ndarray:
    """(M, 5, d) unit vectors of the parts of motions, the mean over the tower's ways to tell them."""
    model.eval()
    found = []
    with precision:
        for piece in torch.from_numpy(rows).to(motions.device).split(batches.EVALUATION_BATCH):
            _, parts = model.encode_motions_and_parts(motions.gather(piece))
            found.append(nn.functional.normalize(torch.stack(parts).mean(dim=0), dim=-1))
    return torch.cat(found).cpu().numpy()


def embed_caption_parts(
    model: DualEncoder, bank: CaptionBank, captions: Sequence[str], precision: contextlib.AbstractContextManager
) -> tuple[np.ndarray, np.ndarray]:
    """(C, 5, d) unit vectors of what captions say of each part, and whether they do (C, 5). The bank holds these texts."""
    said = [list(part_texts.of_caption(caption).values()) for caption in captions]
    named = np.array([[text is not None for text in own] for own in said])
    distinct = sorted({text for own in said for text in own if text is not None})
    place = {text: number for number, text in enumerate(distinct)}
    vectors = np.zeros((len(captions), len(PARTS), model.size), dtype=np.float32)
    if distinct:
        told = embed_captions(model, bank, bank.rows(distinct).to(model.mean.device), precision)
        vectors[named] = told[[place[text] for own in said for text in own if text is not None]]
    return vectors, named


def out_of_fold(model: DualEncoder, place: Workplace, data: TrainingData, held: np.ndarray, with_parts: bool = False) -> OutOfFold:
    """Embeddings of held-out motions and their captions, and of their parts where they are asked for."""
    captions, owner = place.table.of(torch.from_numpy(held).to(place.device))
    motion = embed_motions(model, place.motions, held, place.autocast())
    text = embed_captions(model, place.bank, captions, place.autocast())
    out = OutOfFold(np.array(data.training.ids)[held], held, motion, text, owner.cpu().numpy())
    if not with_parts:
        return out
    written = [caption for row in held for caption in data.training.captions[row]]
    text_parts, named = embed_caption_parts(model, place.bank, written, place.autocast())
    motion_parts = embed_motion_parts(model, place.motions, held, place.autocast())
    return replace(out, motion_parts=motion_parts, text_parts=text_parts, named=named)
