"""The frame tower: against torch's own encoder, with and without a mask."""

from dataclasses import replace

import pytest
import torch

import helpers
from motret.config import base
from motret.config.training import MotionConfig
from motret.data.inputs import MotionBatch
from motret.errors import ConfigError
from motret.models.frame_tower import FrameTransformer
from motret.models.motion_tower import MotionTransformer

TOWER = base.build_config(MotionConfig, {"width": 16, "heads": 2, "layers": 2, "max_frames": 24})
COLUMNS = {"raw": slice(0, 5)}


def towers():
    torch.manual_seed(0)
    tower = FrameTransformer(replace(TOWER, mask=False), 2, COLUMNS).eval()
    masked = FrameTransformer(TOWER, 2, COLUMNS).eval()
    masked.load_state_dict(tower.state_dict())
    return tower, masked


def readme_twin(tower, motion):
    """One motion (T, 10), padded with zeros to 24 frames, through torch's own encoder; the mean."""
    encoder = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(16, 2, 64, batch_first=True), 2, enable_nested_tensor=False
    )
    encoder.layers.load_state_dict(tower.blocks.state_dict())
    padded = torch.cat([motion, torch.zeros(24 - len(motion), 10)])[None]
    return tower.norm(encoder.eval()(tower.project(padded) + tower.positions).mean(dim=1))[0]


def test_without_a_mask_zeros_up_to_the_longest_are_part_of_the_mean_as_in_the_readme():
    tower, masked = towers()
    batch = helpers.motion_batch([9, 20, 24], features=5)
    with torch.inference_mode():
        vectors, masked_vectors = tower(batch), masked(batch)
        for index, length in enumerate([9, 20, 24]):
            torch.testing.assert_close(
                vectors[index],
                readme_twin(tower, batch.frames[index, :length].flatten(1)),
                rtol=1e-4,
                atol=1e-5,
            )
    assert not torch.allclose(vectors[0], masked_vectors[0], atol=1e-2)
    torch.testing.assert_close(
        vectors[2], masked_vectors[2], rtol=1e-4, atol=1e-5
    )  # nothing to mask


def test_with_a_mask_padding_changes_nothing():
    _, masked = towers()
    batch = helpers.motion_batch([9, 20], features=5)
    with torch.inference_mode():
        alone = masked(MotionBatch(batch.frames[:1, :9], torch.tensor([9])))
        torch.testing.assert_close(masked(batch)[:1], alone, rtol=1e-4, atol=1e-5)


def test_a_tower_that_always_masks_says_so():
    with pytest.raises(ConfigError, match="--no_mask: this tower always masks"):
        MotionTransformer(replace(TOWER, mask=False), 2, COLUMNS)
