"""Throughput: FLOP counted by hand, and clocks that tests set."""

import itertools

import numpy as np
import torch

import helpers
from motret.benchmark import throughput
from motret.data import batching
from motret.training import objective


def ticking(step=1.0):
    """A clock that advances by `step` seconds at each call."""
    return itertools.count(0, step).__next__


def test_the_flop_of_a_layer_are_those_counted_by_hand():
    layer, inputs = torch.nn.Linear(30, 50), torch.randn(7, 30)
    assert throughput.count_flop(lambda: layer(inputs)) == 2 * 7 * 30 * 50
    training = throughput.count_flop(lambda: layer(inputs).sum().backward())
    assert training == 2 * 2 * 7 * 30 * 50  # the weights have a gradient, the inputs none


def test_utilization_is_the_share_of_the_rate_that_is_reached():
    assert throughput.utilization(flop=100, seconds=2.0, peak=200.0) == 0.25


def test_padding_is_not_counted(monkeypatch):
    monkeypatch.setattr(throughput, "MIN_TOKENS", 2)
    monkeypatch.setattr(throughput, "MAX_TOKENS", 9)
    config = helpers.config(token_drop=0.0, batch_size=12)
    context, model = throughput.synthetic_setup(config, 12)
    random = batching.EpochRandom.seeded(np.random.default_rng(0), 0, torch.device("cpu"))
    batch = next(batching.iterate_epoch(context.motions, context.table, np.arange(12), 12, random))
    single = [context.motions.gather(index[None]) for index in batch.train_idx]

    def motion_flop(buckets):
        return throughput.count_flop(
            lambda: [model.encode_motions(bucket).sum().backward() for bucket in buckets]
        )

    text_flop = throughput.count_flop(
        lambda: model.encode_captions(context.bank, batch.caption_idx).sum().backward()
    )
    embeddings = [
        torch.randn(count, model.embed_dim, requires_grad=True)
        for count in (12, len(batch.caption_idx))
    ]
    scale = model.logit_scale()
    loss_flop = throughput.count_flop(
        lambda: objective.contrastive_loss(
            *embeddings, scale, batch.caption_idx, batch.motion_idx, context, config
        ).backward()
    )
    real_flop = throughput.real_flop(model, batch, context, config)
    assert all(weight.grad is None for weight in model.parameters())
    assert real_flop == motion_flop(single) + text_flop + loss_flop
    assert motion_flop(batch.buckets) > motion_flop(single)


def test_an_epoch_costs_its_flop_and_the_time_of_its_fastest_repeat(monkeypatch):
    monkeypatch.setattr(throughput, "MIN_TOKENS", 2)
    monkeypatch.setattr(throughput, "MAX_TOKENS", 5)
    times = iter([0.0, 5.0, 10.0, 12.0, 20.0, 29.0])
    flop, seconds = throughput.epoch_cost(helpers.config(batch_size=4), times.__next__)
    assert seconds == 2.0
    assert flop == throughput.epoch_cost(helpers.config(batch_size=4), ticking())[0] > 0
