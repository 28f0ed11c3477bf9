"""Batches larger than memory: the same loss and gradients as at once."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import helpers
from motret.config.training import TrainConfig
from motret.data import batching
from motret.data.features import FeatureConfig
from motret.formats.gar import PartDescriptions
from motret.models import embed, registry
from motret.runs import checkpoints
from motret.runs.run import Run
from motret.skeleton import PARTS
from motret.training import grad_cache, objective
from motret.training.context import make_context

SGAR = {
    "motion_tower": "part",
    "use_gar": True,
    "part_encoders": True,
    "lambda_mix": 0.5,
    "lambda_direction": 0.1,
}


def part_texts(count: int) -> list[PartDescriptions]:
    """The arms of every motion and the torso of every second are described."""
    texts = [
        {part: f"motion {row} told 0" if "arm" in part or row % 2 else None for part in PARTS}
        for row in range(count)
    ]
    assert any(None in own.values() for own in texts)
    return texts


def gradients(
    tmp_path, chosen: TrainConfig, accumulated: int, backward: Callable = grad_cache.backward
) -> tuple[float, dict[str, torch.Tensor], torch.Tensor]:
    """Loss, gradients and what the generator says next, of one step of 12 motions in 6 pieces."""
    data = helpers.training_data()
    parts = part_texts(20) if chosen.parts.use_gar else None
    context = make_context(chosen, data, helpers.bank(data), parts)
    run = Run(tmp_path, chosen, {}, data.fingerprint, "folds-a", FeatureConfig(), 2)
    model = checkpoints.build_model(chosen, run, data.store.columns, helpers.NoTower(), 0).train()
    noise = torch.Generator().manual_seed(3)
    batch = next(
        iter(
            batching.iterate_epoch(
                context.motions,
                context.table,
                np.arange(20),
                12,
                batching.EpochRandom(np.random.default_rng(1), noise, noise),
                buckets=6,
            )
        )
    )
    model.motion_tower.norm = nn.Sequential(
        model.motion_tower.norm, nn.Dropout(0.3)
    )  # a layer that draws from torch's own generator
    torch.manual_seed(7)
    config = replace(chosen, fit=replace(chosen.fit, grad_accum=accumulated))
    loss = backward(model, batch, context, config, context.make_scaler())
    grads = {
        name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None
    }
    return float(loss.total), grads, torch.cat([torch.rand(3, generator=noise), torch.rand(3)])


@pytest.mark.parametrize("variant", [{}, SGAR], ids=["holistic", "sgar"])
@pytest.mark.parametrize("accumulated", [2, 3])
def test_an_accumulated_step_is_the_step_of_the_whole_batch(tmp_path, variant, accumulated):
    chosen = helpers.config(**variant)
    loss, whole_grads, after = gradients(tmp_path, chosen, 1)
    again, summed, after_sum = gradients(tmp_path, chosen, accumulated)
    assert again == pytest.approx(loss, abs=1e-6)
    assert whole_grads.keys() == summed.keys() and "log_scale" in whole_grads
    for name, gradient in whole_grads.items():
        torch.testing.assert_close(summed[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
    assert max(float(gradient.abs().max()) for gradient in whole_grads.values()) > 1e-3
    assert torch.equal(after, after_sum)  # and the next step draws the same


def each_alone(model, batch, context, config, scaler) -> objective.BatchLoss:
    """The step of a batch whose parts know nothing of each other: the mean of their losses."""
    parts = batch.split(config.fit.grad_accum)
    loss = torch.stack(
        [objective.batch_loss(model, part, context, config).total for part in parts]
    ).mean()
    scaler.scale(loss).backward()
    return objective.BatchLoss(loss.detach(), ())


def test_small_batches_alone_have_other_gradients(tmp_path):
    """What the cache of embeddings is for: negatives of the other batches count."""
    chosen = helpers.config()
    _, whole_grads, _ = gradients(tmp_path, chosen, 1)
    for backward, far in ((each_alone, True), (grad_cache.backward, False)):
        _, grads, _ = gradients(tmp_path, chosen, 2, backward)
        assert grads.keys() == whole_grads.keys()
        apart = {
            name: float((grads[name] - slope).norm() / slope.norm())
            for name, slope in whole_grads.items()
            if slope.norm() > 1e-3
        }
        assert len(apart) > 10
        assert min(apart.values()) > 0.05 if far else max(apart.values()) < 1e-3, apart


def test_a_batch_is_split_with_its_captions():
    data, chosen = helpers.training_data(), helpers.config()
    context = helpers.workplace(chosen, data)
    noise = torch.Generator().manual_seed(3)
    batch = next(
        iter(
            batching.iterate_epoch(
                context.motions,
                context.table,
                np.arange(20),
                12,
                batching.EpochRandom(np.random.default_rng(1), noise, noise),
                buckets=4,
            )
        )
    )
    halves = batch.split(2)
    assert [len(half.train_idx) for half in halves] == [6, 6] and [
        len(half.buckets) for half in halves
    ] == [2, 2]
    assert torch.equal(torch.cat([half.train_idx for half in halves]), batch.train_idx)
    assert torch.equal(torch.cat([half.caption_idx for half in halves]), batch.caption_idx)
    assert torch.equal(
        torch.cat([halves[0].motion_idx, halves[1].motion_idx + 6]), batch.motion_idx
    )
    assert [len(part.train_idx) for part in batch.split(9)] == [
        3,
        3,
        3,
        3,
    ]  # no more parts than pieces


def test_training_with_accumulation_takes_fewer_larger_steps(tmp_path):
    assert (
        helpers.run_training(tmp_path, "large", fold=0, batch_size=2, grad_accum=3, epochs=1) == 0
    )
    assert helpers.run_training(tmp_path, "small", fold=0, batch_size=6, epochs=1) == 0
    scores = [
        (tmp_path / name / "fold0" / "metrics.csv").read_text().splitlines()[1].split(",")[2]
        for name in ("large", "small")
    ]
    assert scores[0] == scores[1]  # the learning rate after as many steps


def test_accumulating_less_than_one_batch_is_refused(tmp_path, capsys):
    assert helpers.run_training(tmp_path, "none", grad_accum=0) == 1
    assert "--grad_accum: is 0" in capsys.readouterr().err


def test_a_text_tower_that_trains_learns_alike(tmp_path):
    chosen = helpers.config(text_weights="none", text_width=64, text_layers=1, token_drop=0.0)
    tower = registry.make_text_tower(chosen.text)
    data = helpers.training_data()
    captions = [caption for own in data.training.captions for caption in own]
    context = make_context(
        chosen, data, embed.make_caption_bank(captions, tower, False, tmp_path, helpers.CPU)
    )
    run = Run(tmp_path, chosen, {}, data.fingerprint, "folds-a", FeatureConfig(), 2)
    grads = []
    for accumulated in (1, 3):
        model = checkpoints.build_model(chosen, run, data.store.columns, tower, 0).train()
        noise = torch.Generator()
        batch = next(
            iter(
                batching.iterate_epoch(
                    context.motions,
                    context.table,
                    np.arange(20),
                    12,
                    batching.EpochRandom(np.random.default_rng(1), noise, noise),
                    6,
                )
            )
        )
        grad_cache.backward(
            model,
            batch,
            context,
            replace(chosen, fit=replace(chosen.fit, grad_accum=accumulated)),
            context.make_scaler(),
        )
        grads.append(
            {
                name: weight.grad
                for name, weight in model.text_tower.named_parameters()
                if weight.grad is not None
            }
        )
    assert grads[0].keys() == grads[1].keys() and grads[0]
    for name, gradient in grads[0].items():
        torch.testing.assert_close(grads[1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)
