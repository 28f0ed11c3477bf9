"""Backbones: layers against twins in NumPy, packed sequences, linear attention in the towers."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import helpers
from motret.config.training import MotionConfig
from motret.data import features
from motret.data.inputs import MotionBatch
from motret.models import backbones, registry

COLUMNS = features.feature_columns(2)
FEATURES = features.feature_width(2)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def small(backbone: str, path=None, **values) -> MotionConfig:
    heads = {"motiondiffuse": 8, "transformer": 4}[backbone]
    chosen = {"width": 16, "heads": heads, "layers": 2, "mlp_ratio": 2.0} | values
    return MotionConfig(backbone=backbone, backbone_weights=path and str(path), **chosen)


# ---- the formulas


def linear_twin(query, key, value, real):
    """Efficient attention of one head in loops. query, key, value: (N, d); real: (N,)."""
    tokens, size = query.shape
    out = np.zeros_like(value)
    for n in range(tokens):
        wants = np.exp(query[n]) / np.exp(query[n]).sum()
        for channel in range(size):
            weights = np.array(
                [math.exp(key[m, channel]) if real[m] else 0.0 for m in range(tokens)]
            )
            out[n] += wants[channel] * sum(
                w / weights.sum() * value[m] for m, w in enumerate(weights)
            )
    return out


@pytest.mark.parametrize("masked", [False, True])
def test_linear_attention_is_its_plain_twin(masked):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 7, 4, dtype=torch.float64)
    real = (
        torch.arange(7) < torch.tensor([7, 4])[:, None]
        if masked
        else torch.ones(2, 7, dtype=torch.bool)
    )
    attended = backbones.linear_attention(
        query, key, value, real[:, None, :, None] if masked else None
    )
    for row in range(2):
        for head in range(3):
            alone_tokens = (part[row, head].numpy() for part in (query, key, value))
            np.testing.assert_allclose(attended[row, head], linear_twin(*alone_tokens, real[row]))


def motiondiffuse_twin(weights, patches, heads):
    """The published layers at step 0 over one sequence (N, features), in NumPy."""

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        spread = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
        return (x - x.mean(axis=-1, keepdims=True)) / spread * weights[f"{name}.weight"] + weights[
            f"{name}.bias"
        ]

    def silu(x):
        return x / (1 + np.exp(-x))

    def styled(x, name):
        scale, shift = np.split(linear(silu(step), f"{name}.emb_layers.1"), 2)
        return linear(silu(norm(x, f"{name}.norm") * (1 + scale) + shift), f"{name}.out_layers.2")

    tokens = linear(patches, "joint_embed") + weights["sequence_embedding"][: len(patches)]
    frequencies = 10000.0 ** (-np.arange(8) / 8)
    step = linear(
        silu(
            linear(
                np.concatenate([np.cos(0 * frequencies), np.sin(0 * frequencies)]), "time_embed.0"
            )
        ),
        "time_embed.2",
    )
    for layer in range(2):
        alone_tokens = f"temporal_decoder_blocks.{layer}"
        normed = norm(tokens, f"{alone_tokens}.sa_block.norm")
        query, key, value = (
            np.split(linear(normed, f"{alone_tokens}.sa_block.{part}"), heads, axis=1)
            for part in ("query", "key", "value")
        )
        attended = [
            linear_twin(*head, np.ones(len(patches)))
            for head in zip(query, key, value, strict=True)
        ]
        tokens = tokens + styled(
            np.concatenate(attended, axis=1), f"{alone_tokens}.sa_block.proj_out"
        )
        hidden = linear(tokens, f"{alone_tokens}.ffn.linear1")
        gelu = hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
        tokens = tokens + styled(
            linear(gelu, f"{alone_tokens}.ffn.linear2"), f"{alone_tokens}.ffn.proj_out"
        )
    return tokens


WHOLE = backbones.PackedSequence.from_mask(torch.ones(1, 6, dtype=torch.bool))


def test_motiondiffuse_is_its_plain_twin_at_step_0():
    backbone = backbones.make_backbone(small("motiondiffuse"), 12).double()
    torch.manual_seed(0)
    for weight in backbone.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    patches = torch.randn(1, 1, 6, 12, dtype=torch.float64)
    with torch.no_grad():
        tokens = backbone.embed(patches, torch.arange(6)[None])[0, 0]
        for layer in backbone.layers():
            tokens = layer(tokens, WHOLE)
    weights = {name: weight.detach().numpy() for name, weight in backbone.named_parameters()}
    np.testing.assert_allclose(
        tokens, motiondiffuse_twin(weights, patches[0, 0].numpy(), heads=8), rtol=1e-8, atol=1e-8
    )


def test_motiondiffuse_from_scratch_starts_as_its_input_and_learns():
    backbone = backbones.make_backbone(small("motiondiffuse"), 12)
    inputs = tokens = backbone.embed(torch.randn(1, 1, 6, 12), torch.arange(6)[None])[0, 0]
    for layer in backbone.layers():
        tokens = layer(tokens, WHOLE)
    assert torch.equal(tokens, inputs)
    tokens.square().sum().backward()
    assert all(
        weight.grad.abs().sum() > 0
        for name, weight in backbone.named_parameters()
        if ".out_layers." in name
    )


# ---- padding


def test_a_grid_gives_back_its_tokens_in_their_places():
    real = torch.arange(40) < torch.tensor([[40], [3], [17], [30]])
    layout, padded = backbones.PackedSequence.from_mask(real), torch.randn(4, 40, 5)
    tokens = layout.pack(padded)
    assert tokens.shape == (
        2 * backbones.PAD_MULTIPLE,
        5,
    )  # of 160 places 90 are real, the next multiple is 128
    assert torch.equal(layout.pad(tokens)[real], padded[real]) and layout.mask is real
    assert (layout.pad(tokens) == 0).all(dim=-1).sum() == 160 - 2 * backbones.PAD_MULTIPLE
    together = layout.reshape(2, 80)
    assert torch.equal(together.pad(tokens)[together.real], padded[real])


def test_a_grid_without_padding_is_left_as_it_is():
    layout, padded = (
        backbones.PackedSequence.from_mask(torch.ones(2, 3, dtype=torch.bool)),
        torch.randn(2, 3, 5),
    )
    assert layout.mask is None and torch.equal(layout.pack(padded), padded.reshape(6, 5))
    assert torch.equal(layout.pad(layout.pack(padded)), padded)


@pytest.mark.parametrize("backbone", ["transformer", "motiondiffuse"])
def test_a_sequence_comes_out_the_same_alone_and_beside_longer_ones(backbone):
    torch.manual_seed(0)
    backbone = backbones.make_backbone(small(backbone), 12).double()
    for weight in backbone.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    lengths = torch.tensor([90, 1, 40, 77])
    padded = torch.randn(4, 90, 16, dtype=torch.float64, requires_grad=True)
    layout = backbones.PackedSequence.from_mask(torch.arange(90) < lengths[:, None])
    tokens = layout.pack(padded)
    for layer in backbone.layers():
        tokens = layer(tokens, layout)
    (grad,) = torch.autograd.grad(layout.pad(tokens)[layout.real].square().sum(), padded)
    assert (grad[~layout.real] == 0).all()
    for row, length in enumerate(lengths):
        alone = padded[row, :length].detach().requires_grad_()
        alone_tokens, motion = (
            alone,
            backbones.PackedSequence.from_mask(torch.ones(1, int(length), dtype=torch.bool)),
        )
        for layer in backbone.layers():
            alone_tokens = layer(alone_tokens, motion)
        torch.testing.assert_close(layout.pad(tokens)[row, :length], alone_tokens)
        torch.testing.assert_close(
            grad[row, :length], torch.autograd.grad(alone_tokens.square().sum(), alone)[0]
        )


# ---- in the towers


def tower(name: str, cross_person_layers: int = 1):
    torch.manual_seed(0)
    config = small("motiondiffuse", motion_tower=name, cross_person_layers=cross_person_layers)
    made_tower = registry.make_motion_tower(config, 2, COLUMNS).eval()
    for weight in made_tower.backbone.parameters():
        torch.nn.init.normal_(weight, std=0.2)  # as they start its layers add nothing
    return made_tower


def outputs(model, batch: MotionBatch) -> list[Tensor]:
    """All that a tower says of motions."""
    with torch.no_grad():
        if not hasattr(model, "forward_parts"):
            return [model(batch)]
        motion, parts = model.forward_parts(batch)
        return [motion, *parts]


@pytest.mark.parametrize("name", ["transformer", "part"])
def test_with_linear_attention_neither_persons_nor_padding_matter(name):
    model, batch = tower(name), helpers.motion_batch([60, 40, 23, 6], features=FEATURES)
    together = outputs(model, batch)
    for one, other in zip(
        outputs(model, MotionBatch(batch.frames.flip(2), batch.lengths)), together, strict=True
    ):
        torch.testing.assert_close(one, other, **CLOSE)
    for row, length in enumerate([60, 40, 23, 6]):
        alone = outputs(model, MotionBatch(batch.frames[[row], :length], batch.lengths[[row]]))
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(one, other[[row]], **CLOSE)


def test_with_linear_attention_the_persons_meet_in_the_joint_layers_alone():
    pair = helpers.motion_batch([24], features=FEATURES)
    alone = [MotionBatch(pair.frames[:, :, [person]], pair.lengths) for person in range(2)]
    for cross_person_layers, same in ((0, True), (1, False)):
        model = tower("transformer", cross_person_layers)
        split_state_dict = torch.stack(
            [outputs(model, alone_tokens)[0][:, :16] for alone_tokens in alone]
        ).mean(0)  # the first half is the mean over tokens
        assert torch.allclose(outputs(model, pair)[0][:, :16], split_state_dict, atol=1e-5) == same
