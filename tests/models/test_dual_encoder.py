"""The dual encoder: unit vectors, standardised features, the temperature, captions encoded once."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import helpers
from motret.data.inputs import CaptionBank, MotionBatch
from motret.models.dual_encoder import MAX_DEVIATIONS, MAX_LOGIT_SCALE, DualEncoder

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
COLUMNS = {"position": slice(0, 7), "velocity": slice(7, 10)}


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
    scaled = MotionBatch(raw.frames * deviation + mean, raw.lengths)
    torch.testing.assert_close(standard.encode_motions(scaled), plain.encode_motions(raw), **CLOSE)
    glitch, edge = raw.frames.clone(), raw.frames.clone()
    glitch[0, 3, 0, 2], edge[0, 3, 0, 2] = 1e6, MAX_DEVIATIONS
    torch.testing.assert_close(
        *[plain.encode_motions(MotionBatch(frames, raw.lengths)) for frames in (glitch, edge)]
    )


@pytest.mark.parametrize(("features", "changed"), [("canonical+extra", True), ("raw", False)])
def test_all_features_but_raw_ones_are_standardised(features, changed):
    raw, model = helpers.motion_batch([30]), encoder(features=features, mirror=0.0)
    model.set_statistics(torch.full((10,), 0.5), torch.full((10,), 2.0))
    standardised = model._standardised(raw).frames
    assert torch.equal(standardised, (raw.frames - 0.5) / 2) == changed
    assert torch.equal(standardised, raw.frames) != changed


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
    indices = torch.tensor([1, 0, 1, 1])
    embeddings = model.encode_captions(bank, indices)
    assert [call.tolist() for call in model.text_tower.calls] == [
        [[3]],
        [[5, 1]],
    ]  # each once, cut to the longest beside it
    one_by_one = torch.cat([model.encode_captions(bank, row[None]) for row in indices])
    torch.testing.assert_close(embeddings, one_by_one)
    assert not np.allclose(embeddings[0].detach(), embeddings[1].detach())
