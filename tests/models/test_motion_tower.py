"""The motion tower and the dual encoder: what changes an embedding, and what must not."""

import math

import pytest
import torch
import torch.nn.functional as F

import helpers
from motret.config.training import MotionConfig
from motret.data.inputs import MotionBatch
from motret.errors import ConfigError
from motret.models import registry
from motret.models.backbones import softmax_attention

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
COLUMNS = {"position": slice(0, 7), "velocity": slice(7, 10)}


def tower(persons=2, **values):
    torch.manual_seed(0)
    small = {"width": 16, "heads": 2, "layers": 3, "cross_person_layers": 1} | values
    return registry.make_motion_tower(MotionConfig(**small), persons, COLUMNS).eval()


def crop(batch, rows, frames):
    return MotionBatch(batch.frames[rows, :frames], batch.lengths[rows])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_on_a_cpu_is_the_usual_one(masked):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 7, 5, dtype=torch.float64)
    mask = (
        torch.arange(7).expand(2, 1, 1, 7) < torch.tensor([7, 3])[:, None, None, None]
        if masked
        else None
    )
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(softmax_attention(query, key, value, mask), expected)


def test_swapping_the_persons_changes_no_embedding():
    batch = helpers.motion_batch([40, 25, 13])
    swapped = MotionBatch(batch.frames.flip(2), batch.lengths)
    model = tower()
    torch.testing.assert_close(model(swapped), model(batch), **CLOSE)
    twins = MotionBatch(
        torch.stack([batch.frames[:, :, 0], batch.frames[:, :, 0]], dim=2), batch.lengths
    )
    assert not torch.allclose(model(twins), model(batch), atol=1e-2)  # who the other is does matter


def test_the_persons_meet_in_the_cross_person_layers_alone():
    """Without them two that stand together are encoded as if each stood alone."""
    pair = helpers.motion_batch([24], persons=2)
    alone = [MotionBatch(pair.frames[:, :, [person]], pair.lengths) for person in range(2)]
    for cross_person_layers, same in ((0, True), (1, False)):
        model = tower(cross_person_layers=cross_person_layers)
        expected = torch.stack([model(patch_idx)[:, :16] for patch_idx in alone]).mean(
            0
        )  # the first half is the mean over tokens
        assert torch.allclose(model(pair)[:, :16], expected, atol=1e-5) == same


def test_a_longer_neighbour_changes_no_embedding():
    batch = helpers.motion_batch([60, 40, 23, 6])
    model, together = tower(), tower()(batch)
    for index, length in enumerate([60, 40, 23, 6]):
        torch.testing.assert_close(model(crop(batch, [index], length)), together[[index]], **CLOSE)


def test_what_lies_beyond_a_motions_last_whole_patch_is_not_seen():
    batch = helpers.motion_batch([36, 20])
    noisy = MotionBatch(batch.frames.clone(), batch.lengths)
    noisy.frames[1, 18:] = 1e3
    model = tower()
    torch.testing.assert_close(model(noisy), model(batch), **CLOSE)
    noisy.frames[1, 17] = 1e3
    assert not torch.allclose(model(noisy)[1], model(batch)[1], atol=1e-2)


@pytest.mark.parametrize("length", [1, 3, 5])
def test_a_motion_shorter_than_a_patch_works_alone_and_beside_others(length):
    batch = helpers.motion_batch([30, length])
    model = tower()
    alone = model(crop(batch, [1], length))
    torch.testing.assert_close(alone, model(batch)[[1]], **CLOSE)
    assert alone.isfinite().all()


@pytest.mark.parametrize("persons", [1, 2])
def test_the_embedding_has_the_size_that_the_tower_names(persons):
    model = tower(persons)
    assert model(helpers.motion_batch([20, 31, 8], persons)).shape == (3, model.dim)


def test_tokens_are_dropped_only_where_a_generator_is_given():
    model = tower(token_drop=0.5).train()
    batch = helpers.motion_batch([60, 48])
    full, dropped = (
        model.patches(batch),
        model.patches(MotionBatch(batch.frames, batch.lengths, generator())),
    )
    assert full[0].shape[2] == 10 and full[2].sum(1).tolist() == [10, 8]
    assert dropped[0].shape[2] == 5 and dropped[2].sum(1).tolist() == [5, 4]
    torch.testing.assert_close(model(batch), model.eval()(batch))


@pytest.mark.parametrize("token_drop", [0.3, 0.5, 0.9])
def test_dropping_keeps_the_same_distinct_patches_of_both_persons_in_their_places(token_drop):
    lengths = [60, 30, 7, 3]
    batch = helpers.motion_batch(lengths)
    batch.frames[:, :, 1] = batch.frames[:, :, 0] + 1
    model = tower(token_drop=token_drop)
    patches, positions, mask = model.patches(MotionBatch(batch.frames, batch.lengths, generator()))
    torch.testing.assert_close(patches[:, 1], patches[:, 0] + 1)
    all_patches = model.patches(batch)[0]
    for index, length in enumerate(lengths):
        patch_idx = positions[index][mask[index]].tolist()
        n_patches = max(1, length // 6)
        assert (
            len(set(patch_idx)) == len(patch_idx) == math.ceil((1 - token_drop) * n_patches - 1e-6)
        )
        assert max(patch_idx) < n_patches
        torch.testing.assert_close(patches[index][:, mask[index]], all_patches[index][:, patch_idx])


def test_tokens_that_are_kept_keep_their_positions():
    model, batch = tower(), helpers.motion_batch([60])
    dropped = MotionBatch(batch.frames, batch.lengths, generator())
    positions = model.patches(dropped)[1][0].tolist()
    model(MotionBatch(batch.frames, batch.lengths, generator())).square().sum().backward()
    assert (
        model.backbone.positions.grad.abs().sum(1).nonzero()[:, 0].tolist()
        == sorted(positions)
        != list(range(5))
    )


def test_dropping_repeats_by_seed():
    model, batch = tower(), helpers.motion_batch([60, 55, 20])
    positions = [
        model.patches(MotionBatch(batch.frames, batch.lengths, generator(seed)))[1]
        for seed in (0, 0, 1)
    ]
    assert torch.equal(positions[0], positions[1])
    assert not torch.equal(positions[0], positions[2])


@pytest.mark.parametrize(
    "name", ["perceiver", "motret.models.nowhere:Tower", "motret.models.motion_tower:Nothing", ":"]
)
def test_a_missing_tower_is_an_error_of_its_flag(name):
    with pytest.raises(ConfigError, match="--motion_tower"):
        registry.make_motion_tower(MotionConfig(motion_tower=name), 2, COLUMNS)
