"""Attention maps: the weights that the layers used, compared with a NumPy reference."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import helpers
from motret.data import features
from motret.data.inputs import MotionBatch
from motret.errors import ConfigError
from motret.models import backbones
from motret.models.dual_encoder import DualEncoder
from motret.report import attention
from motret.report.attention import AttentionMap, attention_map, token_edges
from motret.skeleton import PARTS

PARTED = {"motion_tower": "part", "use_gar": True}
COLUMNS = features.feature_columns(2)


def model_of(seed: int = 0, **values) -> DualEncoder:
    torch.manual_seed(seed)
    model = DualEncoder(helpers.config(layers=3, **values), 2, COLUMNS, helpers.TEXT_DIM)
    for (
        weight
    ) in model.parameters():  # MotionDiffuse starts with zeros, and tokens too similar to compare
        weight.data += 0.1 * torch.randn_like(weight)
    return model


def motion(frames: int = 44, persons: int = 2) -> MotionBatch:
    return helpers.motion_batch([frames], persons, features.feature_width(2), seed=1)


def layer_inputs(model: DualEncoder, layer: int) -> np.ndarray:
    """The tokens that go into a layer, (B, N, width)."""
    inputs = []
    blocks = [
        block
        for block in model.modules()
        if isinstance(block, backbones.Block | backbones.LinearBlock)
    ]
    with (
        blocks[layer].register_forward_pre_hook(
            lambda _, args: inputs.append(args[1].pad(args[0]))
        ),
        torch.inference_mode(),
    ):
        model.eval().encode_motions(motion())
    return inputs[0].double().numpy()


def normed(tokens: np.ndarray, norm: torch.nn.LayerNorm) -> np.ndarray:
    centred = tokens - tokens.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + norm.eps)
    return scaled * norm.weight.detach().double().numpy() + norm.bias.detach().double().numpy()


def applied(tokens: np.ndarray, linear: torch.nn.Linear) -> np.ndarray:
    return (
        tokens @ linear.weight.detach().double().numpy().T + linear.bias.detach().double().numpy()
    )


def softmax(values: np.ndarray, axis: int) -> np.ndarray:
    powers = np.exp(values - values.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def reference(model: DualEncoder, layer: int) -> np.ndarray:
    """(B, N, N) mean over the two heads of 8 channels, from the inputs of the layer."""
    tokens, backbone = layer_inputs(model, layer), model.motion_tower.backbone
    if isinstance(backbone, backbones.Transformer):
        block = backbone.blocks[layer]
        query, key, _ = np.split(
            applied(normed(tokens, block.attention_norm), block.qkv), 3, axis=-1
        )
        heads = [
            softmax(query[..., head] @ key[..., head].swapaxes(-1, -2) / np.sqrt(8), -1)
            for head in (slice(8), slice(8, 16))
        ]
    else:
        block = backbone.temporal_decoder_blocks[layer].sa_block
        query, key = (
            applied(normed(tokens, block.norm), projection)
            for projection in (block.query, block.key)
        )
        heads = [
            softmax(query[..., head], -1) @ softmax(key[..., head], 1).swapaxes(-1, -2)
            for head in (slice(8), slice(8, 16))
        ]
    return np.mean(heads, axis=0)


@pytest.mark.parametrize("backbone", ["transformer", "motiondiffuse"])
@pytest.mark.parametrize("values", [{}, PARTED])
def test_the_map_equals_the_numpy_reference_and_its_rows_sum_to_one(
    backbone: str, values: dict
) -> None:
    model = model_of(backbone=backbone, **values)
    specials, count = 6 if values else 1, 44 // 6 + (6 if values else 1)
    result = attention_map(model, motion())
    assert (
        result.names == (("cls", *PARTS) if values else ("cls",))
        and result.layer == "layer 3 of 3, mean over heads"
    )
    assert result.weights.shape == (2, specials, 2, count)
    expected = reference(model, -1).reshape(2, count, 2, count)[
        :, :specials
    ]  # the last layer lets both persons meet
    np.testing.assert_allclose(result.weights, expected, atol=1e-5)
    np.testing.assert_allclose(result.weights.sum(axis=(2, 3)), 1, atol=1e-5)
    assert result.weights.std() > 1e-3 and (result.weights[0, 0, 1] > 0).all()


@pytest.mark.parametrize("backbone", ["transformer", "motiondiffuse"])
def test_in_a_layer_of_separate_persons_each_attends_to_itself(backbone: str) -> None:
    model = model_of(backbone=backbone)
    result = attention_map(model, motion(), layer=0)
    expected = reference(model, 0)[:, :1]
    for person in (0, 1):
        np.testing.assert_allclose(result.weights[person, :, person], expected[person], atol=1e-5)
        assert (result.weights[person, :, 1 - person] == 0).all()
    assert not np.allclose(result.weights, attention_map(model, motion(), layer=1).weights)


def test_the_weights_times_the_values_are_the_output_of_the_layer() -> None:
    query, key, value = torch.randn(3, 2, 4, 9, 5, generator=torch.Generator().manual_seed(0))
    weights = attention.linear_weights(query, key)
    torch.testing.assert_close(weights @ value, backbones.linear_attention(query, key, value, None))
    torch.testing.assert_close(
        attention.softmax_weights(query, key) @ value,
        backbones.softmax_attention(query, key, value, None),
    )


def test_over_time_leaves_the_special_tokens_out() -> None:
    weights = np.arange(2 * 2 * 2 * 5).reshape(2, 2, 2, 5)
    result = AttentionMap(("cls", "torso"), weights, "")
    np.testing.assert_array_equal(result.over_time("torso"), weights[:, 1, :, 2:])


def test_swapped_persons_swap_the_map() -> None:
    model, batch = model_of(**PARTED), motion()
    swapped = replace(batch, frames=batch.frames.flip(2))
    weights = attention_map(model, batch).weights
    expected = weights[::-1, :, ::-1]
    np.testing.assert_allclose(attention_map(model, swapped).weights, expected, atol=1e-6)


def test_a_motion_of_one_person_has_a_map() -> None:
    result = attention_map(model_of(), motion(persons=1))
    assert result.weights.shape == (1, 1, 1, 8) and result.weights.sum() == pytest.approx(1)


def test_a_map_drops_no_token_and_leaves_the_model_unchanged() -> None:
    model, batch = model_of(), motion()
    before = model.encode_motions(batch)
    dropping = replace(batch, generator=torch.Generator().manual_seed(0))
    state = dropping.generator.get_state()
    np.testing.assert_array_equal(
        attention_map(model, dropping).weights, attention_map(model, batch).weights
    )
    assert torch.equal(dropping.generator.get_state(), state)
    assert torch.equal(model.encode_motions(batch), before)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("layer", [3, -4])
def test_a_layer_that_does_not_exist_is_an_error(layer: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"--attn_layer: there is no layer {layer}: the model has 3"
    ):
        attention_map(model_of(), motion(), layer)


def test_an_external_tower_has_no_special_tokens() -> None:
    assert attention.special_tokens(torch.nn.Linear(2, 2)) == ()


SETTINGS = helpers.config(patch=6, max_frames=60).motion


@pytest.mark.parametrize(
    ("frames", "config", "expected"),
    [
        (20, SETTINGS, np.array([0, 6, 12, 18])),  # the last two frames fill no patch
        (4, SETTINGS, np.array([0, 4])),  # one patch, filled up
        (60, SETTINGS, np.arange(11) * 6),
        (119, SETTINGS, np.append(np.arange(10) * 12, 119)),  # every second frame
        (80, replace(SETTINGS, long_motions="crop"), 10 + np.arange(11) * 6),  # the middle
    ],
)
def test_tokens_begin_and_end_with_their_frames(frames: int, config, expected: np.ndarray) -> None:
    np.testing.assert_allclose(token_edges(frames, config, 30.0) * 30, expected)
