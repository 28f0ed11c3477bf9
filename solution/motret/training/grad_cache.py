"""Gradients of large batches in little memory: the embeddings of all parts of a batch are cached, the graph of one part is kept.

A contrastive loss needs every embedding of its batch at once, so gradients of small batches cannot be summed. Embeddings are made
without a graph, the loss gives their gradients, and each part is embedded once more to carry them on to the weights (Gao et al. 2021,
GradCache). The second pass draws what the first drew.
"""

from dataclasses import replace

import torch
from torch import Tensor

from motret.config.training import TrainConfig
from motret.data.batching import Batch
from motret.models.dual_encoder import DualEncoder
from motret.training import objective
from motret.training.context import TrainContext


def backward(model: DualEncoder, batch: Batch, place: TrainContext, config: TrainConfig) -> Tensor:
    """Adds the gradient of a batch's loss to the weights and returns the loss, detached; the graph of 1 / --grad_accum of it at a time."""
    if config.fit.grad_accum == 1:
        loss = objective.batch_loss(model, batch, place, config)
        loss.backward()
        return loss.detach()
    parts, draws, told = batch.split(config.fit.grad_accum), [], []
    with torch.no_grad():
        for part in parts:
            draws.append(_rng_states(part))
            told.append(objective.embed_batch(model, part, place, config))
    joined = objective.BatchEmbeddings.join(told)
    cached = {name: vectors.requires_grad_() for name, vectors in joined.vectors.items()}
    loss = objective.total_loss(replace(joined, vectors=cached), model.logit_scale(), batch, place, config)
    loss.backward()
    sizes = {name: [len(one.vectors[name]) for one in told] for name in cached}
    slopes = {name: vectors.grad.split(sizes[name]) for name, vectors in cached.items() if vectors.grad is not None}
    for number, (part, drawn) in enumerate(zip(parts, draws, strict=True)):
        _restore_rng_states(part, drawn)
        again = objective.embed_batch(model, part, place, config).vectors
        torch.autograd.backward([again[name] for name in slopes], [slope[number] for slope in slopes.values()])
    return loss.detach()


def _rng_states(batch: Batch) -> list[Tensor]:
    """Where the random generators stand that the embeddings of a batch draw from."""
    own = batch.buckets[0].generator
    states = [torch.get_rng_state(), *([] if own is None else [own.get_state()])]
    return states + ([torch.cuda.get_rng_state(batch.train_idx.device)] if batch.train_idx.is_cuda else [])


def _restore_rng_states(batch: Batch, states: list[Tensor]) -> None:
    """Puts the generators back to where `_draws` found them."""
    own, left = batch.buckets[0].generator, list(states)
    torch.set_rng_state(left.pop(0))
    if own is not None:
        own.set_state(left.pop(0))
    if batch.train_idx.is_cuda:
        torch.cuda.set_rng_state(left.pop(0), batch.train_idx.device)
