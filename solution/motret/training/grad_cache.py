"""Gradients of a batch that is larger than memory (GradCache, Gao et al. 2021), or that several
processes share.

A contrastive loss needs every embedding of its batch at once, so gradients of small batches cannot
be summed. All chunks of a batch are embedded without a graph, the loss gives the gradients of the
embeddings, and each chunk is embedded once more to carry them on to the weights. The second pass
draws the same random numbers as the first. A single chunk keeps its graph instead.

Processes that share a batch gather their embeddings, and each computes the loss of all of them. It
carries the gradients of its own embeddings on to the weights; the sum over the processes is the
gradient that one process has.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from motret.config.training import TrainConfig
from motret.data.batching import Batch
from motret.data.inputs import Shard
from motret.models.dual_encoder import DualEncoder
from motret.training import objective
from motret.training.context import TrainContext
from motret.training.distributed import Ranks
from motret.training.objective import BatchEmbeddings, BatchLoss
from motret.utils.device import to_device


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
    if config.fit.grad_accum == 1 and context.ranks.world_size == 1:
        loss = objective.batch_loss(model, batch, context, config)
        scaler.scale(loss.total).backward()
        return loss.detach()
    chunks, rng_states, embeddings = batch.split(config.fit.grad_accum), [], []
    with torch.set_grad_enabled(len(chunks) == 1):
        for chunk in chunks:
            rng_states.append(_rng_states(chunk))
            embeddings.append(objective.embed_batch(model, chunk, context, config))
    local = BatchEmbeddings.concat(embeddings, [len(chunk.train_idx) for chunk in chunks])
    cached = gather_embeddings(local, batch, context.ranks)
    for vectors in cached.vectors().values():
        vectors.requires_grad_()
    logit_scale = _counted_once(model.logit_scale(), context.ranks)
    loss = objective.total_loss(cached, logit_scale, batch, context, config)
    scaler.scale(loss.total).backward()
    embedding_grads = _split_grads(_own_grads(cached, batch), embeddings)
    for number, (chunk, states) in enumerate(zip(chunks, rng_states, strict=True)):
        if len(chunks) > 1:
            _restore_rng_states(chunk, states)
            embeddings[number] = objective.embed_batch(model, chunk, context, config)
        of_chunk = embeddings[number].vectors()
        names = [name for name in embedding_grads if of_chunk[name].requires_grad]
        grads = [embedding_grads[name][number] for name in names]
        torch.autograd.backward([of_chunk[name] for name in names], grads)
    context.ranks.sum_gradients(model.parameters())
    return loss.detach()


def gather_embeddings(local: BatchEmbeddings, batch: Batch, ranks: Ranks) -> BatchEmbeddings:
    """The embeddings of a batch without a graph, from those of each process's share of it."""
    if batch.shard is None:
        return local.replace_each(lambda _, values: values.detach())
    shards = [Shard(rank, ranks.world_size) for rank in range(ranks.world_size)]
    motions = [batch.rows_of(shard) for shard in shards]
    captions = [batch.captions_of(shard) for shard in shards]
    return local.replace_each(
        lambda name, values: ranks.gather(values, captions if name == "caption" else motions)
    )


def _counted_once(logit_scale: Tensor, ranks: Ranks) -> Tensor:
    """The temperature, whose gradient is whole in every process: in all but the first it is 0."""
    return logit_scale if ranks.is_first else logit_scale.detach() + 0 * logit_scale


def _own_grads(cached: BatchEmbeddings, batch: Batch) -> dict[str, Tensor]:
    """Gradient of each field for what this process has embedded; fields that the loss does not
    depend on are left out."""
    grads = {name: vectors.grad for name, vectors in cached.vectors().items()}
    present = {name: grad for name, grad in grads.items() if grad is not None}
    if batch.shard is None:
        return present
    motions, captions = batch.rows_of(batch.shard), batch.captions_of(batch.shard)
    return {
        name: grad[to_device(captions if name == "caption" else motions, grad.device)]
        for name, grad in present.items()
    }


def _split_grads(
    grads: dict[str, Tensor], chunks: Sequence[BatchEmbeddings]
) -> dict[str, tuple[Tensor, ...]]:
    """Gradient of each field, split over the chunks."""
    sizes = [{name: len(vectors) for name, vectors in chunk.vectors().items()} for chunk in chunks]
    return {name: grad.split([size[name] for size in sizes]) for name, grad in grads.items()}


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
