"""Published weights: files under the published names load, decide the settings, and train on."""

import pytest
import torch

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
from motret.config.training import MotionConfig, TrainConfig
from motret.data import features
from motret.errors import ConfigError, WeightsError
from motret.models import backbones, pretrained, registry
from motret.models.dual_encoder import DualEncoder
from motret.runs import checkpoints
from motret.training import optim

COLUMNS = features.feature_columns(2)
FEATURES = features.feature_width(2)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def small(backbone: str, path=None, **values) -> MotionConfig:
    heads = {"motiondiffuse": 8, "transformer": 4}[backbone]
    values = {"width": 16, "heads": heads, "layers": 2, "mlp_ratio": 2.0} | values
    return MotionConfig(backbone=backbone, backbone_weights=path and str(path), **values)


def save(path, content):
    torch.save(content, path)
    return path


# ---- files as they are published, names and shapes by hand: W width, H hidden, T = 4 W,
# D input width, L text width

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


def load(config: MotionConfig, inputs: int = 263):
    torch.manual_seed(0)
    backbone = backbones.make_backbone(config, inputs)
    initial = {name: weight.clone() for name, weight in backbone.state_dict().items()}
    return backbone.state_dict(), initial, pretrained.load_backbone_weights(backbone, config)


@pytest.mark.parametrize("inputs", [263, 1704])
def test_a_motiondiffuse_file_of_the_published_shape(tmp_path, inputs):
    file = motiondiffuse(512, 1024, layers=8, flat=True)
    path = save(
        tmp_path / "latest.tar",
        {"encoder": file, "opt_encoder": {"state": {}}, "ep": 49, "total_it": 7},
    )
    state, initial, loaded_weights = load(small("motiondiffuse", path, width=512, layers=8), inputs)
    blocks = [f"temporal_decoder_blocks.{i}." for i in range(8)]
    expected = {b + f"sa_block.{name}" for b in blocks for name in SELF_ATTENTION}
    expected |= {b + f"ffn.{name}" for b in blocks for name in FEED_FORWARD} | set(
        MOTIONDIFFUSE_USED
    )
    assert set(state) == expected and len(expected) == 199
    new_input = {"joint_embed.weight", "joint_embed.bias"} if inputs != 263 else set()
    assert set(loaded_weights.names) == expected - new_input
    for name in expected - {"sequence_embedding"}:
        assert torch.equal(state[name], initial[name] if name in new_input else file[name]), name
    assert torch.equal(state["sequence_embedding"][:196], file["sequence_embedding"])
    assert torch.equal(state["sequence_embedding"][196:], initial["sequence_embedding"][196:])
    counts = "cross-attention 128, text 57, output 2" + (
        ", input projection 2" if new_input else ""
    )
    new = ("joint_embed (263 -> 1704), " if new_input else "") + "sequence_embedding from 196 on"
    count = 199 - len(new_input)
    assert loaded_weights.summary == (
        f"backbone: {count} of 386 tensors of {path} loaded; not used: {counts}; "
        f"new: {new}; special tokens have no position"
    )


@pytest.mark.parametrize("inputs", [263, 1704])
@pytest.mark.parametrize("half", ["Encoder", "Decoder"])
def test_an_mdm_file_of_the_published_shape(tmp_path, half, inputs):
    file = mdm(half, 512, 1024, layers=8, flat=True)
    path = save(tmp_path / "model000600000.pt", file)
    state, initial, loaded_weights = load(small("transformer", path, width=512, layers=8), inputs)
    names = OURS_OF_MDM | {
        f"{'norm2' if half == 'Encoder' else 'norm3'}.{kind}": f"mlp_norm.{kind}"
        for kind in ("weight", "bias")
    }
    source = {
        f"blocks.{i}.{name}": f"seqTrans{half}.layers.{i}.{theirs}"
        for i in range(8)
        for theirs, name in names.items()
    }
    if inputs == 263:
        source |= {
            f"project.{kind}": f"input_process.poseEmbedding.{kind}" for kind in ("weight", "bias")
        }
    assert set(loaded_weights.names) == set(source)
    assert set(state) == set(source) | {"positions", "project.weight", "project.bias"}
    for name in state:
        assert torch.equal(state[name], file[source[name]] if name in source else initial[name]), (
            name
        )
    counts = {"sinusoids 2", "time 4", "text 2", "output 2"}
    counts |= {"cross-attention 48"} if half == "Decoder" else set()
    counts |= {"input projection 2"} if inputs != 263 else set()
    assert (
        set(loaded_weights.summary.split("; ")[1].removeprefix("not used: ").split(", ")) == counts
    )
    assert loaded_weights.summary.startswith(
        f"backbone: {96 + 2 * (inputs == 263)} of {len(file)} tensors of {path} loaded; "
    )
    new = "" if inputs == 263 else "project (263 -> 1704), "
    end = f"; new: {new}positions; special tokens have no position; MDM"
    assert end in loaded_weights.summary


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
    path = save(
        tmp_path / "file.pt", wrap({prefix + name: tensor for name, tensor in file.items()})
    )
    state, _, loaded_weights = load(small("motiondiffuse", path))
    assert (
        all(
            torch.equal(state[name], file[name])
            for name in loaded_weights.names
            if name != "sequence_embedding"
        )
        and len(loaded_weights.names) == 55
    )


def test_a_key_that_nobody_knows_is_named(tmp_path):
    path = save(
        tmp_path / "file.pt",
        motiondiffuse()
        | {"extra.head": torch.zeros(2), "temporal_decoder_blocks.0.gate": torch.ones(1)},
    )
    assert (
        ", extra.head, temporal_decoder_blocks.0.gate; new"
        in load(small("motiondiffuse", path))[2].summary
    )


@pytest.mark.parametrize(("rows", "new"), [(196, "sequence_embedding from 196 on; "), (700, None)])
def test_positions_carry_over_as_far_as_they_go(tmp_path, rows, new):
    file = motiondiffuse()
    file["sequence_embedding"] = torch.randn(rows, 16)
    state, initial, loaded_weights = load(small("motiondiffuse", save(tmp_path / "file.pt", file)))
    expected = initial["sequence_embedding"].clone()
    expected[: min(rows, 512)] = file["sequence_embedding"][:512]
    assert torch.equal(state["sequence_embedding"], expected)
    assert (
        (f"new: {new}" in loaded_weights.summary) if new else ("new:" not in loaded_weights.summary)
    )


@pytest.mark.parametrize("backbone", ["transformer", "motiondiffuse"])
def test_what_is_loaded_changes_the_embedding_and_each_loaded_tensor_matters(tmp_path, backbone):
    path = save(
        tmp_path / "file.pt",
        motiondiffuse(inputs=6 * 10) if backbone == "motiondiffuse" else mdm(inputs=6 * 10),
    )
    config, columns = small(backbone, path), {"position": slice(0, 10)}
    torch.manual_seed(0)
    tower = registry.make_motion_tower(config, 2, columns).eval()
    batch = helpers.motion_batch([40, 25])
    with torch.no_grad():
        initial = tower(batch)
        names = pretrained.load_backbone_weights(tower.backbone, config).names
        whole = tower(batch)
        assert not torch.allclose(whole, initial, atol=1e-2)
        for name, weight in tower.backbone.named_parameters():
            assert name in names or name == "positions"
            weights = weight.clone()
            weight.add_(torch.randn_like(weight))
            moves = not torch.allclose(tower(batch), whole, atol=1e-4)
            assert moves != name.endswith(".key.bias"), (
                name
            )  # a constant within a column leaves a softmax over it as it was
            weight.copy_(weights)


def test_an_mdm_layer_does_what_torchs_own_would_with_its_norms_first(tmp_path):
    torch.manual_seed(1)
    layer = torch.nn.TransformerEncoderLayer(
        16, 4, 32, 0.0, "gelu", norm_first=True, batch_first=True
    )
    theirs = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    file = {f"seqTransEncoder.{name}": weight for name, weight in theirs.state_dict().items()}
    backbone = backbones.make_backbone(small("transformer", save(tmp_path / "file.pt", file)), 263)
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
    ("content", "config", "message"),
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
            "holds MotionDiffuse weights, and --backbone is transformer (add --backbone motiond",
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
            {
                name: tensor
                for name, tensor in motiondiffuse().items()
                if not name.endswith("1.ffn.linear2.bias")
            },
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
def test_a_file_that_cannot_be_used_is_a_fault_that_says_why(tmp_path, content, config, message):
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    backbone = backbones.make_backbone(config, 263)
    with pytest.raises(WeightsError) as error:
        pretrained.load_backbone_weights(
            backbone, MotionConfig(**vars(config) | {"backbone_weights": str(path)})
        )
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)


def test_a_ratio_that_is_not_whole_is_told_so_that_it_fits(tmp_path):
    path = save(tmp_path / "file.pt", mdm(hidden=37))
    with pytest.raises(WeightsError) as error:
        load(small("transformer", path))
    ratio = float(str(error.value).split("--mlp_ratio ")[1].rstrip(")"))
    assert len(load(small("transformer", path, mlp_ratio=ratio))[2].names) == 26


# ---- training with loaded weights


def encoder(path=None, **values) -> tuple[DualEncoder, TrainConfig]:
    backbone = {"backbone": "transformer", "heads": 4, "mlp_ratio": 2.0, "lr": 1e-3}
    weights = {"backbone_weights": path and str(path)}
    config = helpers.config(**backbone | weights | values)
    torch.manual_seed(0)
    return DualEncoder(config, 2, COLUMNS, helpers.TEXT_DIM), config


@pytest.mark.parametrize("kind", ["transformer", "part"])
@pytest.mark.parametrize("is_loaded", [True, False])
def test_a_frozen_backbone_has_no_gradient_and_all_else_does(tmp_path, is_loaded, kind):
    path = save(tmp_path / "file.pt", motiondiffuse()) if is_loaded else None
    gar = kind == "part"
    model, config = encoder(path, backbone="motiondiffuse", heads=8, motion_tower=kind, use_gar=gar)
    loaded = (
        pretrained.load_backbone_weights(model.motion_tower.backbone, config.motion).names
        if is_loaded
        else ()
    )
    backbones.freeze(model.motion_tower.backbone, loaded)
    batch = helpers.motion_batch([20, 31], features=FEATURES)
    whole, parts = (
        model.encode_motions_and_parts(batch) if gar else (model.encode_motions(batch), [])
    )
    sum((out * torch.randn_like(out)).sum() for out in [whole, *parts]).backward()
    inside = "motion_tower.backbone."
    for name, weight in model.named_parameters():
        frozen = name.startswith(inside) and not name.startswith(f"{inside}joint_embed.")
        assert weight.requires_grad != frozen, name
        if name.startswith(("motion_", "part_")):
            assert (weight.grad is not None) != frozen, name
    slots = {
        id(weight)
        for group in optim.make_optimizer(model, config, loaded).param_groups
        for weight in group["params"]
    }
    assert slots == {id(weight) for weight in model.parameters() if weight.requires_grad}


def test_what_the_file_does_not_hold_still_learns_in_a_frozen_backbone(tmp_path):
    model, config = encoder(save(tmp_path / "file.pt", mdm()))
    backbone = model.motion_tower.backbone
    backbones.freeze(backbone, pretrained.load_backbone_weights(backbone, config.motion).names)
    assert {name for name, weight in backbone.named_parameters() if weight.requires_grad} == {
        "positions",
        "project.weight",
        "project.bias",
    }


def test_loaded_weights_alone_learn_at_the_lower_rate(tmp_path):
    model, config = encoder(save(tmp_path / "file.pt", mdm()), backbone_lr_mult=0.25)
    loaded = pretrained.load_backbone_weights(model.motion_tower.backbone, config.motion).names
    for names in (loaded, ()):
        rates = {
            id(w): g["base_lr"]
            for g in optim.make_optimizer(model, config, names).param_groups
            for w in g["params"]
        }
        for name, weight in model.named_parameters():
            slow = name.startswith("motion_tower.backbone.blocks.") and names
            assert rates[id(weight)] == pytest.approx(2.5e-4 if slow else 1e-3), name


def flags(path, name, *extra_flags, **values):
    return [*helpers.train_flags(path, name, width=16, **values), *extra_flags]


def test_motiondiffuse_trains_from_scratch_by_the_command_line(tmp_path, capsys):
    assert train.main(flags(tmp_path, "md", backbone="motiondiffuse", fold=0)) == 0
    assert "md: score" in capsys.readouterr().out
    weights = checkpoints.load_checkpoint(
        next((tmp_path / "md" / "fold0").glob("best_epoch*.pt")), helpers.CPU
    )["model"]
    output = weights[
        "motion_tower.backbone.temporal_decoder_blocks.1.sa_block.proj_out.out_layers.2.weight"
    ]
    assert output.abs().sum() > 0  # it starts at zero


@pytest.mark.parametrize("extra_flags", [[], ["--freeze_backbone"]])
def test_a_run_goes_on_and_ranks_without_the_file(tmp_path, monkeypatch, capsys, extra_flags):
    path = save(tmp_path / "mdm.pt", mdm())
    common = {"heads": 4, "mlp_ratio": 2.0, "backbone_weights": path, "fold": 0}
    assert train.main(flags(tmp_path, "whole", *extra_flags, **common)) == 0
    assert (
        line := f"backbone: 24 of {len(mdm())} tensors of {path} loaded; "
    ) in capsys.readouterr().out
    assert line in (tmp_path / "whole" / "fold0" / "train_log.txt").read_text()
    real = checkpoints.save_checkpoint

    def killed(where, content):
        real(where, content)
        if where.name == "last.pt":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save_checkpoint", killed)
        assert train.main(flags(tmp_path, "killed", *extra_flags, **common)) == 130
    path.unlink()
    assert train.main(flags(tmp_path, "killed", "--resume=auto", *extra_flags, **common)) == 0
    last = [
        checkpoints.load_checkpoint(tmp_path / name / "fold0" / "last.pt", helpers.CPU)
        for name in ("whole", "killed")
    ]
    torch.testing.assert_close(last[0]["model"], last[1]["model"], rtol=0, atol=0)
    torch.testing.assert_close(last[0]["optimizer"], last[1]["optimizer"], rtol=0, atol=0)
    layer = "motion_tower.backbone.blocks.0.mlp.0.weight"
    assert torch.equal(
        last[0]["model"][layer], mdm()["seqTransDecoder.layers.0.linear1.weight"]
    ) == bool(extra_flags)
    assert len({group["base_lr"] for group in last[0]["optimizer"]["param_groups"]}) == (
        1 if extra_flags else 2
    )
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
    assert train.main(flags(tmp_path, "new", *extra_flags, **common)) == 1
    assert f"error: {path}: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--backbone_weights=some.pt", "--freeze_backbone"])
def test_a_tower_without_a_backbone_refuses_its_flags(tmp_path, capsys, flag):
    assert (
        train.main(flags(tmp_path, "own", flag, motion_tower="helpers:MeanOfFrames", fold=0)) == 1
    )
    assert (
        f"error: {flag.split('=')[0]}: helpers:MeanOfFrames has no backbone"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("ratio", [0, -1, float("nan"), float("inf")])
def test_layers_need_a_hidden_width(ratio):
    with pytest.raises(ConfigError, match="--mlp_ratio"):
        MotionConfig(mlp_ratio=ratio)
