"""The motion tower and the dual encoder: what changes an embedding, and what must not."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import helpers
from motret.config.training import MotionConfig
from motret.data.inputs import CaptionBank, MotionBatch
from motret.errors import ConfigError
from motret.models import registry
from motret.models.backbones import softmax_attention
from motret.models.dual_encoder import MAX_DEVIATIONS, MAX_LOGIT_SCALE, DualEncoder

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
COLUMNS = {"position": slice(0, 7), "velocity": slice(7, 10)}


def tower(persons=2, **values):
    torch.manual_seed(0)
    small = {"width": 16, "heads": 2, "layers": 3, "cross_person_layers": 1} | values
    return registry.make_motion_tower(MotionConfig(**small), persons, COLUMNS).eval()


def cut(batch, rows, frames):
    return MotionBatch(batch.frames[rows, :frames], batch.lengths[rows])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_on_a_cpu_is_the_usual_one(masked):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 7, 5, dtype=torch.float64)
    mask = torch.arange(7).expand(2, 1, 1, 7) < torch.tensor([7, 3])[:, None, None, None] if masked else None
    usual = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(softmax_attention(query, key, value, mask), usual)


def test_swapping_the_persons_changes_no_embedding():
    batch = helpers.motion_batch([40, 25, 13])
    swapped = MotionBatch(batch.frames.flip(2), batch.lengths)
    model = tower()
    torch.testing.assert_close(model(swapped), model(batch), **CLOSE)
    other = MotionBatch(torch.stack([batch.frames[:, :, 0], batch.frames[:, :, 0]], dim=2), batch.lengths)
    assert not torch.allclose(model(other), model(batch), atol=1e-2)  # who the other is does matter


def test_the_persons_meet_in_the_joint_layers_alone():
    """Without them each person's tokens are its own: two that stand together are encoded as if each stood alone."""
    pair = helpers.motion_batch([24], persons=2)
    alone = [MotionBatch(pair.frames[:, :, [person]], pair.lengths) for person in range(2)]
    for joint, same in ((0, True), (1, False)):
        model = tower(cross_person_layers=joint)
        split_state_dict = torch.stack([model(own)[:, :16] for own in alone]).mean(0)  # the first half is the mean over tokens
        assert torch.allclose(model(pair)[:, :16], split_state_dict, atol=1e-5) == same


def test_a_longer_neighbour_changes_no_embedding():
    batch = helpers.motion_batch([60, 40, 23, 6])
    model, together = tower(), tower()(batch)
    for row, length in enumerate([60, 40, 23, 6]):
        torch.testing.assert_close(model(cut(batch, [row], length)), together[[row]], **CLOSE)


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
    alone = model(cut(batch, [1], length))
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


@pytest.mark.parametrize("drop", [0.3, 0.5, 0.9])
def test_dropping_keeps_the_same_distinct_patches_of_both_persons_in_their_places(drop):
    lengths = [60, 30, 7, 3]
    batch = helpers.motion_batch(lengths)
    batch.frames[:, :, 1] = batch.frames[:, :, 0] + 1
    model = tower(token_drop=drop)
    patches, places, mask = model.patches(MotionBatch(batch.frames, batch.lengths, generator()))
    torch.testing.assert_close(patches[:, 1], patches[:, 0] + 1)
    every = model.patches(batch)[0]
    for row, length in enumerate(lengths):
        own = places[row][mask[row]].tolist()
        whole = max(1, length // 6)
        assert len(set(own)) == len(own) == math.ceil((1 - drop) * whole - 1e-6)
        assert max(own) < whole
        torch.testing.assert_close(patches[row][:, mask[row]], every[row][:, own])


def test_tokens_that_are_kept_keep_their_positions():
    model, batch = tower(), helpers.motion_batch([60])
    dropped = MotionBatch(batch.frames, batch.lengths, generator())
    places = model.patches(dropped)[1][0].tolist()
    model(MotionBatch(batch.frames, batch.lengths, generator())).square().sum().backward()
    assert model.backbone.positions.grad.abs().sum(1).nonzero()[:, 0].tolist() == sorted(places) != list(range(5))


def test_dropping_repeats_by_seed():
    model, batch = tower(), helpers.motion_batch([60, 55, 20])
    places = [model.patches(MotionBatch(batch.frames, batch.lengths, generator(seed)))[1] for seed in (0, 0, 1)]
    assert torch.equal(places[0], places[1])
    assert not torch.equal(places[0], places[2])


@pytest.mark.parametrize("name", ["perceiver", "motret.models.nowhere:Tower", "motret.models.motion_tower:Nothing", ":"])
def test_a_tower_that_is_not_there_is_a_fault_of_its_flag(name):
    with pytest.raises(ConfigError, match="--motion_tower"):
        registry.make_motion_tower(MotionConfig(motion_tower=name), 2, COLUMNS)


# ---- the dual encoder


def encoder(**values):
    torch.manual_seed(1)
    return DualEncoder(helpers.config(**values), 2, COLUMNS, text_dim=12).eval()


def test_motions_and_captions_become_unit_vectors():
    model = encoder()
    bank = CaptionBank({}, vectors=torch.randn(5, 12))
    motions, captions = (
        model.encode_motions(helpers.motion_batch([30, 12])),
        model.encode_captions(bank, torch.tensor([4, 0, 4])),
    )
    assert motions.shape == (2, 8) and captions.shape == (3, 8)
    torch.testing.assert_close(motions.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(captions.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(captions[0], captions[2])


def test_features_are_standardised_and_glitches_cut():
    raw = helpers.motion_batch([30])
    mean, deviation = torch.arange(10.0), torch.linspace(1, 3, 10)
    plain, standard = encoder(), encoder()
    standard.set_statistics(mean, deviation)
    moved = MotionBatch(raw.frames * deviation + mean, raw.lengths)
    torch.testing.assert_close(standard.encode_motions(moved), plain.encode_motions(raw), **CLOSE)
    glitch, edge = raw.frames.clone(), raw.frames.clone()
    glitch[0, 3, 0, 2], edge[0, 3, 0, 2] = 1e6, MAX_DEVIATIONS
    torch.testing.assert_close(*[plain.encode_motions(MotionBatch(frames, raw.lengths)) for frames in (glitch, edge)])


def test_a_feature_that_never_changes_keeps_its_size():
    model = encoder()
    model.set_statistics(torch.zeros(10), torch.tensor([0.0, 1e-6, *[2.0] * 8]))
    assert model.scale.tolist() == [1, 1, *[0.5] * 8]


@pytest.mark.parametrize(("tau", "scale"), [(0.07, 1 / 0.07), (0.5, 2.0), (0.001, MAX_LOGIT_SCALE)])
def test_the_scale_is_one_over_tau_and_never_above_100(tau, scale):
    assert encoder(tau=tau).logit_scale().item() == pytest.approx(scale, rel=1e-5)


def test_the_temperature_is_learned_unless_told_otherwise():
    assert encoder().log_scale.requires_grad
    assert not encoder(learn_tau=False).log_scale.requires_grad


def test_a_caption_met_twice_is_encoded_once_with_others_of_its_length():
    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = []

        def forward(self, ids, lengths):
            self.calls.append(ids.clone())
            return F.one_hot(ids[:, 0], 12).float() * lengths[:, None]

    model = encoder()
    model.text_tower = Counting()
    ids = torch.tensor([[3, 0, 0, 0], [5, 1, 0, 0], [7, 1, 1, 1]])
    bank = CaptionBank({}, ids=ids, lengths=torch.tensor([1, 2, 4]))
    rows = torch.tensor([1, 0, 1, 1])
    found = model.encode_captions(bank, rows)
    assert [call.tolist() for call in model.text_tower.calls] == [
        [[3]],
        [[5, 1]],
    ]  # each once, cut to the longest beside it
    each = torch.cat([model.encode_captions(bank, row[None]) for row in rows])
    torch.testing.assert_close(found, each)
    assert not np.allclose(found[0].detach(), found[1].detach())
