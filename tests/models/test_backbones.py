"""Backbones and published weights: files under the published names load as they should, and linear attention is what it says."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import ensemble
import helpers
import train
from helpers import (
    FEED_FORWARD,
    MOTIONDIFFUSE_USED,
    SELF_ATTENTION,
    mdm,
    motiondiffuse,
)
from motret.config.training import MotionConfig
from motret.data import features
from motret.data.inputs import MotionBatch
from motret.errors import ConfigError, WeightsError
from motret.models import backbones, pretrained, registry
from motret.models.dual_encoder import DualEncoder
from motret.runs import checkpoints
from motret.training import optim

COLUMNS = features.feature_columns(2)
FEATURES = features.feature_width(2)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}

# ---- files as they are published, names and shapes by hand: W width, H hidden, T = 4 W, D input width, L text width

OURS_OF_MDM = {
    "self_attn.in_proj_weight": "qkv.weight",
    "self_attn.in_proj_bias": "qkv.bias",
    "self_attn.out_proj.weight": "proj.weight",
    "self_attn.out_proj.bias": "proj.bias",
    "linear1.weight": "mlp.0.weight",
    "linear1.bias": "mlp.0.bias",
    "linear2.weight": "mlp.2.weight",
    "linear2.bias": "mlp.2.bias",
    "norm1.weight": "attention_norm.weight",
    "norm1.bias": "attention_norm.bias",
}


def small(backbone: str, path=None, **values) -> MotionConfig:
    heads = {"motiondiffuse": 8, "transformer": 4}[backbone]
    chosen = {"width": 16, "heads": heads, "layers": 2, "mlp_ratio": 2.0} | values
    return MotionConfig(backbone=backbone, backbone_weights=path and str(path), **chosen)


def saved(path, content):
    torch.save(content, path)
    return path


def load(config: MotionConfig, inputs: int = 263):
    torch.manual_seed(0)
    backbone = backbones.make_backbone(config, inputs)
    fresh = {name: weight.clone() for name, weight in backbone.state_dict().items()}
    return backbone.state_dict(), fresh, pretrained.load_backbone_weights(backbone, config)


@pytest.mark.parametrize("inputs", [263, 1704])
def test_a_motiondiffuse_file_of_the_published_shape(tmp_path, inputs):
    file = motiondiffuse(512, 1024, layers=8, flat=True)
    path = saved(
        tmp_path / "latest.tar",
        {"encoder": file, "opt_encoder": {"state": {}}, "ep": 49, "total_it": 7},
    )
    now, fresh, told = load(small("motiondiffuse", path, width=512, layers=8), inputs)
    blocks = [f"temporal_decoder_blocks.{i}." for i in range(8)]
    wanted = {b + f"sa_block.{name}" for b in blocks for name in SELF_ATTENTION}
    wanted |= {b + f"ffn.{name}" for b in blocks for name in FEED_FORWARD} | set(MOTIONDIFFUSE_USED)
    assert set(now) == wanted and len(wanted) == 199
    again = {"joint_embed.weight", "joint_embed.bias"} if inputs != 263 else set()
    assert set(told.names) == wanted - again
    for name in wanted - {"sequence_embedding"}:
        assert torch.equal(now[name], fresh[name] if name in again else file[name]), name
    assert torch.equal(now["sequence_embedding"][:196], file["sequence_embedding"])
    assert torch.equal(now["sequence_embedding"][196:], fresh["sequence_embedding"][196:])
    counted = "cross-attention 128, text 57, output 2" + (", input projection 2" if again else "")
    new = ("joint_embed (263 -> 1704), " if again else "") + "sequence_embedding from 196 on"
    count = 199 - len(again)
    assert told.summary == (
        f"backbone: {count} of 386 tensors of {path} loaded; not used: {counted}; new: {new}; special tokens have no position"
    )


@pytest.mark.parametrize("inputs", [263, 1704])
@pytest.mark.parametrize("half", ["Encoder", "Decoder"])
def test_an_mdm_file_of_the_published_shape(tmp_path, half, inputs):
    file = mdm(half, 512, 1024, layers=8, flat=True)
    path = saved(tmp_path / "model000600000.pt", file)
    now, fresh, told = load(small("transformer", path, width=512, layers=8), inputs)
    ours = OURS_OF_MDM | {f"{'norm2' if half == 'Encoder' else 'norm3'}.{kind}": f"mlp_norm.{kind}" for kind in ("weight", "bias")}
    source = {f"blocks.{i}.{name}": f"seqTrans{half}.layers.{i}.{theirs}" for i in range(8) for theirs, name in ours.items()}
    if inputs == 263:
        source |= {f"project.{kind}": f"input_process.poseEmbedding.{kind}" for kind in ("weight", "bias")}
    assert set(told.names) == set(source)
    assert set(now) == set(source) | {"positions", "project.weight", "project.bias"}
    for name in now:
        assert torch.equal(now[name], file[source[name]] if name in source else fresh[name]), name
    counted = {"sinusoids 2", "time 4", "text 2", "output 2"}
    counted |= {"cross-attention 48"} if half == "Decoder" else set()
    counted |= {"input projection 2"} if inputs != 263 else set()
    assert set(told.summary.split("; ")[1].removeprefix("not used: ").split(", ")) == counted
    assert told.summary.startswith(f"backbone: {96 + 2 * (inputs == 263)} of {len(file)} tensors of {path} loaded; ")
    assert f"; new: {'' if inputs == 263 else 'project (263 -> 1704), '}positions; special tokens have no position; MDM" in told.summary


@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        lambda w: {"model": w},
        lambda w: {"state_dict": w, "epoch": 3},
        lambda w: {"encoder": w},
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_may_hold_its_weights_in_several_ways(tmp_path, wrap, prefix):
    file = motiondiffuse()
    path = saved(tmp_path / "file.pt", wrap({prefix + name: tensor for name, tensor in file.items()}))
    now, _, told = load(small("motiondiffuse", path))
    assert all(torch.equal(now[name], file[name]) for name in told.names if name != "sequence_embedding") and len(told.names) == 55


def test_a_key_that_nobody_knows_is_named(tmp_path):
    path = saved(
        tmp_path / "file.pt",
        motiondiffuse() | {"extra.head": torch.zeros(2), "temporal_decoder_blocks.0.gate": torch.ones(1)},
    )
    assert ", extra.head, temporal_decoder_blocks.0.gate; new" in load(small("motiondiffuse", path))[2].summary


@pytest.mark.parametrize(("rows", "new"), [(196, "sequence_embedding from 196 on; "), (700, None)])
def test_positions_carry_over_as_far_as_they_go(tmp_path, rows, new):
    file = motiondiffuse()
    file["sequence_embedding"] = torch.randn(rows, 16)
    now, fresh, told = load(small("motiondiffuse", saved(tmp_path / "file.pt", file)))
    expected = fresh["sequence_embedding"].clone()
    expected[: min(rows, 512)] = file["sequence_embedding"][:512]
    assert torch.equal(now["sequence_embedding"], expected)
    assert (f"new: {new}" in told.summary) if new else ("new:" not in told.summary)


@pytest.mark.parametrize("backbone", ["transformer", "motiondiffuse"])
def test_what_is_loaded_changes_the_embedding_and_each_loaded_tensor_matters(tmp_path, backbone):
    path = saved(
        tmp_path / "file.pt",
        motiondiffuse(inputs=6 * 10) if backbone == "motiondiffuse" else mdm(inputs=6 * 10),
    )
    config, columns = small(backbone, path), {"position": slice(0, 10)}
    torch.manual_seed(0)
    tower = registry.make_motion_tower(config, 2, columns).eval()
    batch = helpers.motion_batch([40, 25])
    with torch.no_grad():
        fresh = tower(batch)
        names = pretrained.load_backbone_weights(tower.backbone, config).names
        whole = tower(batch)
        assert not torch.allclose(whole, fresh, atol=1e-2)
        for name, weight in tower.backbone.named_parameters():
            assert name in names or name == "positions"
            kept = weight.clone()
            weight.add_(torch.randn_like(weight))
            moves = not torch.allclose(tower(batch), whole, atol=1e-4)
            assert moves != name.endswith(".key.bias"), name  # a constant within a column leaves a softmax over it as it was
            weight.copy_(kept)


def test_an_mdm_layer_does_what_torchs_own_would_with_its_norms_first(tmp_path):
    torch.manual_seed(1)
    layer = torch.nn.TransformerEncoderLayer(16, 4, 32, 0.0, "gelu", norm_first=True, batch_first=True)
    theirs = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    file = {f"seqTransEncoder.{name}": weight for name, weight in theirs.state_dict().items()}
    backbone = backbones.make_backbone(small("transformer", saved(tmp_path / "file.pt", file)), 263)
    pretrained.load_backbone_weights(backbone, small("transformer", tmp_path / "file.pt"))
    first = torch.randn(2, 5, 16)
    real = torch.arange(5) < torch.tensor([[5], [3]])
    grid = backbones.PackedSequence.from_mask(real)
    tokens = grid.pack(first)
    for layer in backbone.layers():
        tokens = layer(tokens, grid)
    expected = theirs.train()(first, src_key_padding_mask=~real)
    torch.testing.assert_close(grid.pad(tokens)[real], expected[real], **CLOSE)


# ---- faults


@pytest.mark.parametrize(
    ("content", "config", "said"),
    [
        (None, small("motiondiffuse"), "no such file (give the published file"),
        (b"no weights", small("motiondiffuse"), "cannot be read as weights"),
        ({"encoder": object}, small("motiondiffuse"), "cannot be read as weights"),
        ([1, 2], small("motiondiffuse"), "holds no weights by name"),
        ({}, small("motiondiffuse"), "nothing in it matches a backbone (its keys: none)"),
        (
            {"model": {"layer.weight": torch.ones(1)}},
            small("transformer"),
            "nothing in it matches a backbone (its keys: layer.weight)",
        ),
        (
            motiondiffuse(),
            small("transformer"),
            "holds MotionDiffuse weights, and --backbone is transformer (add --backbone motiondiffuse",
        ),
        (
            mdm(),
            small("motiondiffuse"),
            "holds MDM weights, and --backbone is motiondiffuse (add --backbone transformer",
        ),
        (
            mdm(),
            small("transformer", heads=2),
            "(set --width 16 --layers 2 --heads 4 --mlp_ratio 2.0)",
        ),
        (
            mdm(),
            small("transformer", width=32),
            "has 2 layers of width 16 and 32, made for 4 heads (set --width 16",
        ),
        (
            mdm("Encoder"),
            small("transformer", layers=3),
            "(set --width 16 --layers 2 --heads 4 --mlp_ratio 2.0)",
        ),
        (
            motiondiffuse(),
            small("motiondiffuse", mlp_ratio=4.0),
            "(set --width 16 --layers 2 --heads 8 --mlp_ratio 2.0)",
        ),
        (
            mdm(width=512, hidden=1024, layers=8, flat=True),
            small("transformer"),
            "(set --width 512 --layers 8 --heads 4 --mlp_ratio 2.0)",
        ),
        (
            motiondiffuse() | {"time_embed.0.bias": torch.ones(3)},
            small("motiondiffuse"),
            "time_embed.0.bias is (3,), where (64,) is needed",
        ),
        (
            {name: tensor for name, tensor in motiondiffuse().items() if not name.endswith("1.ffn.linear2.bias")},
            small("motiondiffuse"),
            "lacks what would be temporal_decoder_blocks.1.ffn.linear2.bias",
        ),
        (
            {"temporal_decoder_blocks.0.x": torch.ones(1)},
            small("motiondiffuse"),
            "its first layer lacks sa_block.query.weight",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_a_fault_that_says_why(tmp_path, content, config, said):
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    backbone = backbones.make_backbone(config, 263)
    with pytest.raises(WeightsError) as fault:
        pretrained.load_backbone_weights(backbone, MotionConfig(**vars(config) | {"backbone_weights": str(path)}))
    assert str(fault.value).startswith(f"{path}: ") and said in str(fault.value)


def test_a_ratio_that_is_not_whole_is_told_so_that_it_fits(tmp_path):
    path = saved(tmp_path / "file.pt", mdm(hidden=37))
    with pytest.raises(WeightsError) as fault:
        load(small("transformer", path))
    ratio = float(str(fault.value).split("--mlp_ratio ")[1].rstrip(")"))
    assert len(load(small("transformer", path, mlp_ratio=ratio))[2].names) == 26


# ---- the formulas


def linear_twin(query, key, value, real):
    """Efficient attention of one head in loops. query, key, value: (N, d); real: (N,)."""
    tokens, size = query.shape
    out = np.zeros_like(value)
    for n in range(tokens):
        wants = np.exp(query[n]) / np.exp(query[n]).sum()
        for channel in range(size):
            weights = np.array([math.exp(key[m, channel]) if real[m] else 0.0 for m in range(tokens)])
            out[n] += wants[channel] * sum(w / weights.sum() * value[m] for m, w in enumerate(weights))
    return out


@pytest.mark.parametrize("masked", [False, True])
def test_linear_attention_is_its_plain_twin(masked):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 7, 4, dtype=torch.float64)
    real = torch.arange(7) < torch.tensor([7, 4])[:, None] if masked else torch.ones(2, 7, dtype=torch.bool)
    found = backbones.linear_attention(query, key, value, real[:, None, :, None] if masked else None)
    for row in range(2):
        for head in range(3):
            own = (part[row, head].numpy() for part in (query, key, value))
            np.testing.assert_allclose(found[row, head], linear_twin(*own, real[row]))


def motiondiffuse_twin(weights, patches, heads):
    """The published layers at step 0 over one sequence (N, features), in NumPy."""

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        spread = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
        return (x - x.mean(axis=-1, keepdims=True)) / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def silu(x):
        return x / (1 + np.exp(-x))

    def styled(x, name):
        scale, shift = np.split(linear(silu(step), f"{name}.emb_layers.1"), 2)
        return linear(silu(norm(x, f"{name}.norm") * (1 + scale) + shift), f"{name}.out_layers.2")

    tokens = linear(patches, "joint_embed") + weights["sequence_embedding"][: len(patches)]
    frequencies = 10000.0 ** (-np.arange(8) / 8)
    step = linear(
        silu(linear(np.concatenate([np.cos(0 * frequencies), np.sin(0 * frequencies)]), "time_embed.0")),
        "time_embed.2",
    )
    for layer in range(2):
        own = f"temporal_decoder_blocks.{layer}"
        normed = norm(tokens, f"{own}.sa_block.norm")
        query, key, value = (np.split(linear(normed, f"{own}.sa_block.{part}"), heads, axis=1) for part in ("query", "key", "value"))
        seen = [linear_twin(*head, np.ones(len(patches))) for head in zip(query, key, value, strict=True)]
        tokens = tokens + styled(np.concatenate(seen, axis=1), f"{own}.sa_block.proj_out")
        hidden = linear(tokens, f"{own}.ffn.linear1")
        gelu = hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
        tokens = tokens + styled(linear(gelu, f"{own}.ffn.linear2"), f"{own}.ffn.proj_out")
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
    np.testing.assert_allclose(tokens, motiondiffuse_twin(weights, patches[0, 0].numpy(), heads=8), rtol=1e-8, atol=1e-8)


def test_motiondiffuse_from_scratch_starts_as_its_input_and_learns():
    backbone = backbones.make_backbone(small("motiondiffuse"), 12)
    first = tokens = backbone.embed(torch.randn(1, 1, 6, 12), torch.arange(6)[None])[0, 0]
    for layer in backbone.layers():
        tokens = layer(tokens, WHOLE)
    assert torch.equal(tokens, first)
    tokens.square().sum().backward()
    assert all(weight.grad.abs().sum() > 0 for name, weight in backbone.named_parameters() if ".out_layers." in name)


# ---- padding


def test_a_grid_gives_back_its_tokens_in_their_places():
    real = torch.arange(40) < torch.tensor([[40], [3], [17], [30]])
    grid, padded = backbones.PackedSequence.from_mask(real), torch.randn(4, 40, 5)
    tokens = grid.pack(padded)
    assert tokens.shape == (
        2 * backbones.PAD_MULTIPLE,
        5,
    )  # of 160 places 90 are real, the next multiple is 128
    assert torch.equal(grid.pad(tokens)[real], padded[real]) and grid.mask is real
    assert (grid.pad(tokens) == 0).all(dim=-1).sum() == 160 - 2 * backbones.PAD_MULTIPLE
    together = grid.reshape(2, 80)
    assert torch.equal(together.pad(tokens)[together.real], padded[real])


def test_a_grid_without_padding_is_left_as_it_is():
    grid, padded = (
        backbones.PackedSequence.from_mask(torch.ones(2, 3, dtype=torch.bool)),
        torch.randn(2, 3, 5),
    )
    assert grid.mask is None and torch.equal(grid.pack(padded), padded.reshape(6, 5))
    assert torch.equal(grid.pad(grid.pack(padded)), padded)


@pytest.mark.parametrize("backbone", ["transformer", "motiondiffuse"])
def test_a_sequence_comes_out_the_same_alone_and_beside_longer_ones(backbone):
    torch.manual_seed(0)
    made = backbones.make_backbone(small(backbone), 12).double()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    lengths = torch.tensor([90, 1, 40, 77])
    padded = torch.randn(4, 90, 16, dtype=torch.float64, requires_grad=True)
    grid = backbones.PackedSequence.from_mask(torch.arange(90) < lengths[:, None])
    tokens = grid.pack(padded)
    for layer in made.layers():
        tokens = layer(tokens, grid)
    (slope,) = torch.autograd.grad(grid.pad(tokens)[grid.real].square().sum(), padded)
    assert (slope[~grid.real] == 0).all()
    for row, length in enumerate(lengths):
        alone = padded[row, :length].detach().requires_grad_()
        own, whole = (
            alone,
            backbones.PackedSequence.from_mask(torch.ones(1, int(length), dtype=torch.bool)),
        )
        for layer in made.layers():
            own = layer(own, whole)
        torch.testing.assert_close(grid.pad(tokens)[row, :length], own)
        torch.testing.assert_close(slope[row, :length], torch.autograd.grad(own.square().sum(), alone)[0])


# ---- in the towers


def tower(kind: str, joint: int = 1):
    torch.manual_seed(0)
    config = small("motiondiffuse", motion_tower=kind, cross_person_layers=joint)
    made_tower = registry.make_motion_tower(config, 2, COLUMNS).eval()
    for weight in made_tower.backbone.parameters():
        torch.nn.init.normal_(weight, std=0.2)  # as they start its layers add nothing
    return made_tower


def told(model, batch: MotionBatch) -> list[Tensor]:
    """All that a tower says of motions."""
    with torch.no_grad():
        if not hasattr(model, "forward_parts"):
            return [model(batch)]
        whole, parts = model.forward_parts(batch)
        return [whole, *parts]


@pytest.mark.parametrize("kind", ["transformer", "part"])
def test_with_linear_attention_neither_persons_nor_padding_matter(kind):
    model, batch = tower(kind), helpers.motion_batch([60, 40, 23, 6], features=FEATURES)
    together = told(model, batch)
    for one, other in zip(told(model, MotionBatch(batch.frames.flip(2), batch.lengths)), together, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)
    for row, length in enumerate([60, 40, 23, 6]):
        alone = told(model, MotionBatch(batch.frames[[row], :length], batch.lengths[[row]]))
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(one, other[[row]], **CLOSE)


def test_with_linear_attention_the_persons_meet_in_the_joint_layers_alone():
    pair = helpers.motion_batch([24], features=FEATURES)
    alone = [MotionBatch(pair.frames[:, :, [person]], pair.lengths) for person in range(2)]
    for joint, same in ((0, True), (1, False)):
        model = tower("transformer", joint)
        split_state_dict = torch.stack([told(model, own)[0][:, :16] for own in alone]).mean(0)  # the first half is the mean over tokens
        assert torch.allclose(told(model, pair)[0][:, :16], split_state_dict, atol=1e-5) == same


# ---- training with loaded weights


def encoder(path=None, **values) -> tuple[DualEncoder, object]:
    chosen = {
        "backbone": "transformer",
        "heads": 4,
        "mlp_ratio": 2.0,
        "backbone_weights": path and str(path),
        "lr": 1e-3,
    }
    config = helpers.config(**chosen | values)
    torch.manual_seed(0)
    return DualEncoder(config, 2, COLUMNS, helpers.TEXT_DIM), config


@pytest.mark.parametrize("kind", ["transformer", "part"])
@pytest.mark.parametrize("given", [True, False])
def test_a_frozen_backbone_has_no_gradient_and_all_else_does(tmp_path, given, kind):
    path = saved(tmp_path / "file.pt", motiondiffuse()) if given else None
    gar = "parts" in kind
    model, config = encoder(path, backbone="motiondiffuse", heads=8, motion_tower=kind, use_gar=gar)
    loaded = pretrained.load_backbone_weights(model.motion_tower.backbone, config.motion).names if given else ()
    backbones.freeze(model.motion_tower.backbone, loaded)
    batch = helpers.motion_batch([20, 31], features=FEATURES)
    whole, parts = model.encode_motions_and_parts(batch) if gar else (model.encode_motions(batch), [])
    sum((out * torch.randn_like(out)).sum() for out in [whole, *parts]).backward()
    inside = "motion_tower.backbone."
    for name, weight in model.named_parameters():
        frozen = name.startswith(inside) and not name.startswith(f"{inside}joint_embed.")
        assert weight.requires_grad != frozen, name
        if name.startswith(("motion_", "part_")):
            assert (weight.grad is not None) != frozen, name
    slots = {id(weight) for group in optim.make_optimizer(model, config, loaded).param_groups for weight in group["params"]}
    assert slots == {id(weight) for weight in model.parameters() if weight.requires_grad}


def test_what_the_file_does_not_hold_still_learns_in_a_frozen_backbone(tmp_path):
    model, config = encoder(saved(tmp_path / "file.pt", mdm()))
    backbone = model.motion_tower.backbone
    backbones.freeze(backbone, pretrained.load_backbone_weights(backbone, config.motion).names)
    assert {name for name, weight in backbone.named_parameters() if weight.requires_grad} == {
        "positions",
        "project.weight",
        "project.bias",
    }


def test_loaded_weights_alone_learn_at_the_lower_rate(tmp_path):
    model, config = encoder(saved(tmp_path / "file.pt", mdm()), backbone_lr_mult=0.25)
    loaded = pretrained.load_backbone_weights(model.motion_tower.backbone, config.motion).names
    for names in (loaded, ()):
        rates = {id(w): g["base_lr"] for g in optim.make_optimizer(model, config, names).param_groups for w in g["params"]}
        for name, weight in model.named_parameters():
            slow = name.startswith("motion_tower.backbone.blocks.") and names
            assert rates[id(weight)] == pytest.approx(2.5e-4 if slow else 1e-3), name


def flags(path, name, *extra, **values):
    return [*helpers.train_flags(path, name, width=16, **values), *extra]


def test_motiondiffuse_trains_from_scratch_by_the_command_line(tmp_path, capsys):
    assert train.main(flags(tmp_path, "md", backbone="motiondiffuse", fold=0)) == 0
    assert "md: score" in capsys.readouterr().out
    kept = checkpoints.load_checkpoint(next((tmp_path / "md" / "fold0").glob("best_epoch*.pt")), helpers.CPU)["model"]
    output = kept["motion_tower.backbone.temporal_decoder_blocks.1.sa_block.proj_out.out_layers.2.weight"]
    assert output.abs().sum() > 0  # it starts at zero


@pytest.mark.parametrize("extra", [[], ["--freeze_backbone"]])
def test_a_run_goes_on_and_ranks_without_the_file(tmp_path, monkeypatch, capsys, extra):
    path = saved(tmp_path / "mdm.pt", mdm())
    common = {"heads": 4, "mlp_ratio": 2.0, "backbone_weights": path, "fold": 0}
    assert train.main(flags(tmp_path, "whole", *extra, **common)) == 0
    assert (line := f"backbone: 24 of {len(mdm())} tensors of {path} loaded; ") in capsys.readouterr().out
    assert line in (tmp_path / "whole" / "fold0" / "train_log.txt").read_text()
    real = checkpoints.save_checkpoint

    def killed(where, content):
        real(where, content)
        if where.name == "last.pt":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save_checkpoint", killed)
        assert train.main(flags(tmp_path, "killed", *extra, **common)) == 130
    path.unlink()
    assert train.main(flags(tmp_path, "killed", "--resume=auto", *extra, **common)) == 0
    last = [checkpoints.load_checkpoint(tmp_path / name / "fold0" / "last.pt", helpers.CPU) for name in ("whole", "killed")]
    torch.testing.assert_close(last[0]["model"], last[1]["model"], rtol=0, atol=0)
    torch.testing.assert_close(last[0]["optimizer"], last[1]["optimizer"], rtol=0, atol=0)
    layer = "motion_tower.backbone.blocks.0.mlp.0.weight"
    assert torch.equal(last[0]["model"][layer], mdm()["seqTransDecoder.layers.0.linear1.weight"]) == bool(extra)
    assert len({group["base_lr"] for group in last[0]["optimizer"]["param_groups"]}) == (1 if extra else 2)
    out = tmp_path / "submissions"
    assert (
        ensemble.main(
            [
                *helpers.places(),
                f"--out_dir={tmp_path}",
                "--runs",
                "killed",
                f"--submissions_dir={out}",
            ]
        )
        == 0
    )
    assert (out / "submission.csv").is_file()
    capsys.readouterr()
    assert train.main(flags(tmp_path, "new", *extra, **common)) == 1
    assert f"error: {path}: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--backbone_weights=some.pt", "--freeze_backbone"])
def test_a_tower_without_a_backbone_refuses_its_flags(tmp_path, capsys, flag):
    assert train.main(flags(tmp_path, "own", flag, motion_tower="helpers:MeanOfFrames", fold=0)) == 1
    assert f"error: {flag.split('=')[0]}: helpers:MeanOfFrames has no backbone" in capsys.readouterr().err


@pytest.mark.parametrize("ratio", [0, -1, float("nan"), float("inf")])
def test_layers_need_a_hidden_width(ratio):
    with pytest.raises(ConfigError, match="--mlp_ratio"):
        MotionConfig(mlp_ratio=ratio)
