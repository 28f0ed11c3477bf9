"""The loss of a batch: named terms and their weighted sum, embeddings of chunks put together, means
over an epoch."""

import numpy as np
import pytest
import torch

import helpers
from motret.data import batching
from motret.runs import checkpoints
from motret.runs.run import Run
from motret.skeleton import PARTS
from motret.training import objective
from motret.training.context import make_context
from motret.training.objective import BatchEmbeddings, BatchLoss, LossMeans, LossTerm

PART_SETTINGS = {"motion_tower": "part", "use_gar": True}


def loss_of(tmp_path, **values) -> BatchLoss:
    """The loss of a batch of 12 motions, of which every part is described."""
    config, data = helpers.config(**values), helpers.training_data()
    parts = [dict.fromkeys(PARTS, f"motion {index} told 0") for index in range(20)]
    context = make_context(
        config, data, helpers.bank(data), parts if config.parts.use_gar else None
    )
    run = Run(tmp_path, config, {}, data.fingerprint, "folds-a", data.store.config, 2)
    model = checkpoints.build_model(config, run, data.store.columns, helpers.NoTower(), 0)
    rngs = batching.EpochRandom.seeded(np.random.default_rng(0), 0, helpers.CPU)
    epoch = batching.iterate_epoch(context.motions, context.table, np.arange(20), 12, rngs)
    return objective.batch_loss(model, next(iter(epoch)), context, config)


@pytest.mark.parametrize(
    ("values", "weights"),
    [
        ({}, {"global": 1}),
        (PART_SETTINGS, {"global": 1, "part": 1}),
        (
            PART_SETTINGS | {"lambda_part": 0.5, "lambda_direction": 0.1, "lambda_mix": 0.25},
            {"global": 1, "part": 0.5, "direction": 0.1, "mix": 0.25},
        ),
    ],
)
def test_the_loss_is_the_weighted_sum_of_the_terms_that_the_settings_ask_for(
    tmp_path, values, weights
):
    loss = loss_of(tmp_path, **values)
    assert {term.name: term.weight for term in loss.terms} == weights
    weighted = sum(weights[term.name] * term.value.item() for term in loss.terms)
    assert loss.total.item() == pytest.approx(weighted)
    assert loss.total.requires_grad and not loss.detach().total.requires_grad


def test_every_term_has_a_name_of_its_own():
    names = [spec.name for spec in objective.LOSS_TERMS]
    assert len(set(names)) == len(names)


def embeddings(size: int, start: int = 0, **values) -> BatchEmbeddings:
    vectors = torch.arange(start, start + 2 * size).reshape(size, 2).float()
    return BatchEmbeddings(caption=vectors, motion=vectors, **values)


def test_embeddings_of_chunks_become_those_of_the_batch_and_donors_move_along():
    first = embeddings(2, donor_idx=torch.tensor([1, 0]))
    second = embeddings(3, start=4, donor_idx=torch.tensor([2, 0, 1]))
    whole = BatchEmbeddings.concat([first, second])
    assert whole.motion.flatten().tolist() == list(range(10))
    assert whole.donor_idx.tolist() == [1, 0, 4, 2, 3]
    assert whole.vectors().keys() == {"caption", "motion"}


def test_a_field_that_a_chunk_lacks_is_left_out_of_the_batch():
    whole = BatchEmbeddings.concat([embeddings(2, mixed=torch.ones(2, 2)), embeddings(1)])
    assert whole.mixed is None and len(whole.motion) == 3


def test_means_over_an_epoch_count_the_steps_that_had_a_term():
    means = LossMeans(helpers.CPU)
    for total, terms in ((3.0, {"global": 1.0, "mix": 4.0}), (1.0, {"global": 2.0})):
        named = tuple(LossTerm(name, torch.tensor(value), 1.0) for name, value in terms.items())
        means.add(BatchLoss(torch.tensor(total), named))
    assert means.mean_total() == 2 and means.mean_terms() == {"global": 1.5, "mix": 4.0}
