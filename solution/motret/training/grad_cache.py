"""Gradients of large batches in little memory (GradCache, Gao et al. 2021).

A contrastive loss needs every embedding of its batch at once, so gradients of small batches cannot
be summed. All chunks of a batch are embedded without a graph, the loss gives the gradients of the
embeddings, and each chunk is embedded once more to carry them on to the weights. The second pass
draws the same random numbers as the first.
"""

import torch
from torch import Tensor

from motret.config.training import TrainConfig
from motret.data.batching import Batch
from motret.models.dual_encoder import DualEncoder
from motret.training import objective
from motret.training.context import TrainContext
from motret.training.objective import BatchEmbeddings, BatchLoss


def backward(
    model: DualEncoder,
    batch: Batch,
    context: TrainContext,
    config: TrainConfig,
    scaler: torch.amp.GradScaler,
) -> BatchLoss:
    """Adds the gradient of a batch's loss to the weights; returns the loss, detached.

    The graph of 1 / --grad_accum of the batch is in memory at a time. scaler: the gradient is that
    of the loss times its scale.
    """
    if config.fit.grad_accum == 1:
        loss = objective.batch_loss(model, batch, context, config)
        scaler.scale(loss.total).backward()
        return loss.detach()
    chunks, rng_states, embeddings = batch.split(config.fit.grad_accum), [], []
    with torch.no_grad():
        for chunk in chunks:
            rng_states.append(_rng_states(chunk))
            embeddings.append(objective.embed_batch(model, chunk, context, config))
    cached = BatchEmbeddings.concat(embeddings)
    for vectors in cached.vectors().values():
        vectors.requires_grad_()
    loss = objective.total_loss(cached, model.logit_scale(), batch, context, config)
    scaler.scale(loss.total).backward()
    embedding_grads = _split_grads(cached, embeddings)
    for number, (chunk, states) in enumerate(zip(chunks, rng_states, strict=True)):
        _restore_rng_states(chunk, states)
        recomputed = objective.embed_batch(model, chunk, context, config).vectors()
        grads = [chunk_grads[number] for chunk_grads in embedding_grads.values()]
        torch.autograd.backward([recomputed[name] for name in embedding_grads], grads)
    return loss.detach()


def _split_grads(
    cached: BatchEmbeddings, chunks: list[BatchEmbeddings]
) -> dict[str, tuple[Tensor, ...]]:
    """Gradient of each field, split over the chunks; fields that the loss does not depend on are
    left out."""
    sizes = [{name: len(vectors) for name, vectors in chunk.vectors().items()} for chunk in chunks]
    grads = {name: vectors.grad for name, vectors in cached.vectors().items()}
    return {
        name: grad.split([size[name] for size in sizes])
        for name, grad in grads.items()
        if grad is not None
    }


def _rng_states(batch: Batch) -> list[Tensor]:
    """States of the random generators that the embeddings of a batch draw from."""
    generator, device = batch.buckets[0].generator, batch.buckets[0].frames.device
    states = [torch.get_rng_state(), *([] if generator is None else [generator.get_state()])]
    return states + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])


def _restore_rng_states(batch: Batch, states: list[Tensor]) -> None:
    """Puts the generators back to what `_rng_states` returned."""
    generator, device = batch.buckets[0].generator, batch.buckets[0].frames.device
    remaining = list(states)
    torch.set_rng_state(remaining.pop(0))
    if generator is not None:
        generator.set_state(remaining.pop(0))
    if device.type == "cuda":
        torch.cuda.set_rng_state(remaining.pop(0), device)
