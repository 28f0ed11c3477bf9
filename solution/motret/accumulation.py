"""Gradients of large batches in little memory: the embeddings of all parts of a batch are cached, the graph of one part is kept.

A contrastive loss needs every embedding of its batch at once, so gradients of small batches cannot be summed. Embeddings are made
without a graph, the loss gives their gradients, and each part is embedded once more to carry them on to the weights (Gao et al. 2021,
GradCache). The second pass draws what the first drew.
"""

from dataclasses import replace

import torch
from torch import Tensor

from motret import objective
from motret.batches import Batch
from motret.config import TrainSettings
from motret.model import DualEncoder
from motret.workplace import Workplace


def backward(model: DualEncoder, batch: Batch, place: Workplace, settings: TrainSettings) -> Tensor:
    """Adds the gradient of a batch's loss to the weights and returns the loss, detached; the graph of 1 / --grad_accum of it at a time."""
    if settings.fit.grad_accum == 1:
        loss = objective.loss_of(model, batch, place, settings)
        loss.backward()
        return loss.detach()
    parts, draws, told = batch.split(settings.fit.grad_accum), [], []
    with torch.no_grad():
        for part in parts:
            draws.append(_draws(part))
            told.append(objective.embed(model, part, place, settings))
    joined = objective.Embedded.join(told)
    cached = {name: vectors.requires_grad_() for name, vectors in joined.vectors.items()}
    loss = objective.combine(replace(joined, vectors=cached), model.logit_scale(), batch, place, settings)
    loss.backward()
    sizes = {name: [len(one.vectors[name]) for one in told] for name in cached}
    slopes = {name: vectors.grad.split(sizes[name]) for name, vectors in cached.items() if vectors.grad is not None}
    for number, (part, drawn) in enumerate(zip(parts, draws, strict=True)):
        _draw_again(part, drawn)
        again = objective.embed(model, part, place, settings).vectors
        torch.autograd.backward([again[name] for name in slopes], [slope[number] for slope in slopes.values()])
    return loss.detach()


def _draws(batch: Batch) -> list[Tensor]:
    """Where the random generators stand that the embeddings of a batch draw from."""
    own = batch.pieces[0].generator
    states = [torch.get_rng_state(), *([] if own is None else [own.get_state()])]
    return states + ([torch.cuda.get_rng_state(batch.rows.device)] if batch.rows.is_cuda else [])


def _draw_again(batch: Batch, states: list[Tensor]) -> None:
    """Puts the generators back to where `_draws` found them."""
    own, left = batch.pieces[0].generator, list(states)
    torch.set_rng_state(left.pop(0))
    if own is not None:
        own.set_state(left.pop(0))
    if batch.rows.is_cuda:
        torch.cuda.set_rng_state(left.pop(0), batch.rows.device)
