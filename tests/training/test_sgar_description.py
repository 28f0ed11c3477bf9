"""The variant that is the SGAR description's recipe, its checkpoint found where it says, and the
dropout that towers take."""

import json
from dataclasses import replace

import pytest
import torch

import helpers
import train
from helpers import mdm, motiondiffuse, saved_bert
from motret.config import base, cli
from motret.config.training import MotionConfig
from motret.data import features
from motret.errors import ConfigError, WeightsError
from motret.models import pretrained
from motret.models.backbones import MotionDiffuse, Transformer
from motret.models.frame_tower import FrameTransformer
from motret.models.motion_tower import MotionTransformer
from motret.models.part_tower import PartTransformer
from motret.pipeline import preflight
from motret.runs import checkpoints
from motret.runs.run import Run, create_run_dir, open_run

SMALL = {
    "width": 16,
    "heads": 2,
    "layers": 2,
    "proj_dim": 8,
    "max_frames": 24,
    "epochs": 1,
    "batch_size": 8,
    "text_hidden": 16,
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return f"hf:{saved_bert(tmp_path_factory.mktemp('bert'))}"


def described(out_dir, name, encoder, *extra, **values):
    flags = helpers.flags(
        out_dir=out_dir, run_name=name, folds=2, fold=0, text_tower=encoder, **SMALL | values
    )
    return train.main(["sgar_description", *helpers.places(), *flags, *extra])


def put(folder, content):
    """Puts a file where the description has its checkpoint."""
    path = folder / pretrained.DESCRIBED_PATH
    path.parent.mkdir(parents=True)
    torch.save(content, path)
    return path


# ---- the recipe


def test_its_settings_are_those_of_the_description():
    """Its table of arguments, its command with all features, and what it says of the encoders."""
    table = {
        "use_gar": True,
        "lambda_part": 1.0,
        "batch_size": 64,
        "lr": 1e-4,
        "backbone_lr_mult": 0.1,
        "tau": 0.07,
        "tau_prime": 0.05,
    }
    table |= {
        "proj_dim": 512,
        "max_frames": 196,
        "save_attention": False,
        "run_qualitative": False,
        "amp": "off",
        "freeze_backbone": False,
    }
    command = {
        "epochs": 1000,
        "eval_interval": 10,
        "weight_decay": 1e-4,
        "warmup_epochs": 5,
        "grad_clip": 1.0,
        "grad_accum": 1,
    }
    command |= {"attn_interval": 10, "qualitative_interval": 50}
    encoders = {
        "width": 512,
        "part_encoders": True,
        "backbone": "motiondiffuse",
        "unfreeze_text": False,
        "text_tower": "ViT-B-32",
    }
    encoders |= {
        "text_weights": "openai",
        "learn_tau": False,
        "part_reduce": "sum",
        "pool": "cls",
        "select": "r1",
        "patch": 1,
    }
    ours = {
        "mirror": 0,
        "speed": 1,
        "crop": 0,
        "frame_mask": 0,
        "noise": 0,
        "caption_mix": 0,
        "ema": 0,
        "token_drop": 0,
    }
    ours |= {
        "part_token_drop": 0,
        "negative_threshold": 0,
        "label_smoothing": 0,
        "lambda_mix": 0,
        "lambda_direction": 0,
    }
    config, sources = cli.parse_train(["sgar_description"], None)
    found = base.flatten(config)
    wanted = table | command | encoders | ours
    assert {name: found[name] for name in wanted} == wanted
    assert sources["part_encoders"] == "variant sgar_description"
    longer, _ = cli.parse_train(
        ["sgar_description", "--use_gar", "--epochs", "30", "--amp", "--prefer_txt_split"], None
    )
    assert (
        longer.variant == "sgar_description" and longer.fit.epochs == 30 and longer.fit.amp == "on"
    )


def test_it_trains_with_part_encoders_and_says_that_there_is_no_checkpoint(
    encoder, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert described(tmp_path, "run", encoder) == 0
    printed = capsys.readouterr().out
    assert (
        f"no backbone weights: {pretrained.DESCRIBED_PATH} is neither here nor in the repository"
        in printed
        and "run: score" in printed
    )
    kept = checkpoints.load_checkpoint(
        checkpoints.best_checkpoint(tmp_path / "run" / "fold0"), helpers.CPU
    )["model"]
    inside = {name.split(".")[1] for name in kept if name.startswith("motion_tower.")}
    assert {"adapters", "part_tokens", "cls_token", "backbone"} <= inside
    assert "motion_tower.backbone.temporal_decoder_blocks.1.sa_block.query.weight" in kept
    assert kept["motion_head.0.weight"].shape[1] == 16  # [CLS] alone


@pytest.mark.parametrize("kind", [MotionTransformer, PartTransformer])
def test_cls_alone_is_the_motion(kind):
    torch.manual_seed(0)
    chosen = base.build_config(
        MotionConfig,
        {"width": 16, "heads": 2, "layers": 2, "patch": 4, "max_frames": 60, "pool": "cls"},
    )
    tower = kind(chosen, 2, features.feature_columns(2)).eval()
    batch = helpers.motion_batch([30, 12], features=features.feature_width(2))
    special = (
        tower.cls_token
        if kind is MotionTransformer
        else torch.cat([tower.cls_token, tower.part_tokens])
    )
    with torch.inference_mode():
        tokens, _ = tower.attend(*tower.patches(batch), special)
        assert tower.dim == 16
        torch.testing.assert_close(tower(batch), (tokens[:, 0, 0] + tokens[:, 1, 0]) / 2)


# ---- the checkpoint


def settled(*flags):
    return pretrained.apply_weights_file(*cli.parse_train([*flags], None))


@pytest.mark.parametrize(
    "flags", [["sgar_description"], ["holistic", "--backbone", "motiondiffuse"]]
)
def test_the_file_at_the_descriptions_place_is_found_and_gives_its_widths(
    tmp_path, monkeypatch, flags
):
    monkeypatch.chdir(tmp_path)
    path = put(tmp_path, motiondiffuse(layers=3))
    config, sources, line = settled(*flags)
    motion = config.motion
    assert (motion.width, motion.layers, motion.heads, motion.mlp_ratio, motion.backbone) == (
        16,
        3,
        8,
        2.0,
        "motiondiffuse",
    )
    assert (
        motion.backbone_weights == str(pretrained.DESCRIBED_PATH)
        and sources["width"] == f"file {pretrained.DESCRIBED_PATH}"
    )
    assert (
        line
        == f"backbone weights: {pretrained.DESCRIBED_PATH}, MotionDiffuse with 3 layers of width 16"
    )
    assert settled(*flags, "--backbone_weights", "none")[0].motion.width != 16
    path.unlink()
    monkeypatch.setattr(pretrained, "ROOT", tmp_path / "repository")
    put(tmp_path / "repository", motiondiffuse(layers=2))
    assert settled(*flags)[0].motion.layers == 2


def test_the_file_of_that_name_may_be_an_mdm_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, mdm())
    config, _, line = settled("sgar_description")
    assert (
        config.motion.backbone == "transformer"
        and config.motion.heads == 4
        and "MDM with 2 layers" in line
    )
    with pytest.raises(
        WeightsError,
        match=r"holds MDM weights, and --backbone is motiondiffuse .*--backbone_weights none",
    ):
        settled("sgar_description", "--backbone", "motiondiffuse")


def test_without_the_flags_a_given_file_decides_and_flags_that_contradict_it_are_a_fault(tmp_path):
    path = tmp_path / "file.pt"
    torch.save(motiondiffuse(), path)
    config, _, line = settled("holistic", "--preset", "fast", "--backbone_weights", str(path))
    assert (
        config.motion.backbone == "motiondiffuse"
        and config.motion.width == 16
        and "MotionDiffuse" in line
    )
    for flag, value in (("width", "32"), ("layers", "3"), ("mlp_ratio", "4"), ("heads", "4")):
        with pytest.raises(
            WeightsError,
            match=r"has 2 layers of width 16 and 32, made for 8 heads \(set --width 16",
        ):
            settled("holistic", "--backbone_weights", str(path), f"--{flag}", value)
    with pytest.raises(WeightsError, match="does not go with --heads: 32 heads do not divide"):
        settled("holistic", "--backbone_weights", str(path), "--heads", "32")


def test_other_runs_look_for_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, motiondiffuse())
    for flags in (["holistic"], ["sgar"], ["sgar_description", "--backbone_weights", "none"]):
        asked = cli.parse_train(flags, None)
        assert pretrained.apply_weights_file(*asked) == (*asked, None)


def test_a_found_file_is_loaded_by_the_command_line_and_the_run_remembers_it(
    encoder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, motiondiffuse())
    flags = helpers.flags(out_dir="runs", run_name="run", folds=2, fold=0, text_tower=encoder)
    flags += helpers.flags(
        **{name: value for name, value in SMALL.items() if name not in ("width", "heads", "layers")}
    )
    assert train.main(["sgar_description", *helpers.places(), *flags]) == 0
    printed = capsys.readouterr().out
    assert (
        f"backbone weights: {pretrained.DESCRIBED_PATH}, MotionDiffuse with 2 layers of width 16"
        in printed
    )
    assert f"tensors of {pretrained.DESCRIBED_PATH} loaded" in printed
    about = json.loads((tmp_path / "runs" / "run" / "args.json").read_text())
    assert (
        about["settings"]["width"] == 16
        and about["sources"]["layers"] == f"file {pretrained.DESCRIBED_PATH}"
    )
    assert train.main(["sgar_description", *helpers.places(), *flags, "--resume", "auto"]) == 0
    assert (
        train.main(
            [
                "sgar_description",
                *helpers.places(),
                *flags[:-1],
                "--width",
                "32",
                "--run_name",
                "other",
            ]
        )
        == 1
    )
    assert "set --width 16" in capsys.readouterr().err


def test_from_scratch_is_no_missing_file_to_the_checks_before_a_run(tmp_path):
    calls = [
        ["sgar_description", "--text_weights", "none", "--backbone_weights", value]
        for value in ("none", "nowhere.pt")
    ]
    preflight.check_before_run(tmp_path / "later", None, {}, calls[:1])
    with pytest.raises(WeightsError, match=r"nowhere\.pt: no such file"):
        preflight.check_before_run(tmp_path / "later", None, {}, calls[1:])


# ---- dropout


@pytest.mark.parametrize("share", [0.0, 0.4])
@pytest.mark.parametrize("kind", ["transformer", "motiondiffuse"])
def test_a_backbone_drops_while_it_trains_and_not_afterwards(kind, share):
    torch.manual_seed(0)
    chosen = base.build_config(
        MotionConfig,
        {
            "width": 16,
            "heads": 2,
            "layers": 2,
            "dropout": share,
            "token_drop": 0.0,
            "backbone": kind,
        },
    )
    tower = MotionTransformer(chosen, 2, {"position": slice(0, 10)})
    assert isinstance(tower.backbone, Transformer | MotionDiffuse)
    for weight in tower.parameters():  # what MotionDiffuse adds is zero at first
        torch.nn.init.normal_(weight, std=0.2)
    batch = helpers.motion_batch([30, 12])
    with torch.no_grad():
        torch.testing.assert_close(tower.eval()(batch), tower(batch), rtol=0, atol=0)
        still = torch.equal(tower.train()(batch), tower(batch))
    assert still == (share == 0)


def test_the_frame_transformer_drops_as_it_did_unless_it_is_told_otherwise(tmp_path):
    shares = {}
    for flags in ([], ["--dropout", "0.3"]):
        config, _ = cli.parse_train(["clip_readme", *flags], None)
        small = replace(config.motion, width=16, heads=2, layers=1, max_frames=20)
        tower = FrameTransformer(small, 2, {"raw": slice(0, 5)})
        shares[len(flags)] = {
            module.p for module in tower.modules() if isinstance(module, torch.nn.Dropout)
        }
    assert shares == {0: {0.1}, 2: {0.3}}
    with pytest.raises(ConfigError, match="--dropout"):
        cli.parse_train(["clip_readme", "--dropout", "1"], None)


def test_a_run_of_before_the_flag_keeps_its_dropout(tmp_path):
    run = Run(
        tmp_path / "run",
        cli.parse_train(["clip_readme"], None)[0],
        {},
        "data",
        "folds",
        helpers.store([8]).config,
        2,
    )
    create_run_dir(run)
    about = json.loads((run.folder / "args.json").read_text())
    del about["settings"]["dropout"], about["settings"]["pool"]
    (run.folder / "args.json").write_text(json.dumps(about))
    assert open_run(run.folder).config.motion == run.config.motion
