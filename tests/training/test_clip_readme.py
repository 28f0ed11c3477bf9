"""The challenge README's recipe: raw columns, one caption at a time, a cosine, its files."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import ensemble
import helpers
import train
from motret import skeleton
from motret.config import base, presets, training
from motret.config.training import MotionConfig
from motret.data import batching, features
from motret.data.features import FeatureConfig
from motret.models.frame_tower import FrameTransformer
from motret.runs import checkpoints, oof
from motret.runs.run import Run, open_run
from motret.training import optim
from motret.training.objective import batch_loss
from motret.tuning import trial

SMALL = {
    "width": 16,
    "heads": 2,
    "layers": 2,
    "max_frames": 60,
    "epochs": 2,
    "batch_size": 6,
    "text_width": 64,
    "text_layers": 1,
}
TOWER = base.build_config(MotionConfig, {"width": 16, "heads": 2, "layers": 2, "max_frames": 24})
COLUMNS = {"raw": slice(0, 5)}


def run_readme(out_dir, name, **values):
    return train.main(
        [
            "clip_readme",
            *helpers.places(),
            *helpers.flags(
                out_dir=out_dir, run_name=name, folds=2, text_weights="none", **SMALL | values
            ),
        ]
    )


# ---- features


@pytest.mark.parametrize("rotations", [True, False])
def test_raw_features_are_standardised_over_each_motion(rotations):
    motions = [helpers.motion(frames, seed=frames) for frames in (9, 14)]
    motions[1][:, 7] = 3.25  # a column that never changes
    positions, sixes = skeleton.split_columns(np.concatenate(motions))
    config = FeatureConfig(kind="raw", rotations=rotations)
    standardised = features.make_features(positions, sixes, np.array([0, 9]), config)
    assert standardised.dtype == np.float32 and features.feature_layout(2, config) == {
        "raw": slice(0, standardised.shape[-1])
    }
    for raw, block in zip(motions, (standardised[:9], standardised[9:]), strict=True):
        raw = raw.astype(np.float64)
        twin = ((raw - raw.mean(0)) / (raw.std(0) + 1e-6)).reshape(len(raw), 2, 192)
        np.testing.assert_allclose(block, twin[..., : 192 if rotations else 66], atol=1e-5)


# ---- the rest of the recipe


def test_a_long_motion_may_be_cut_to_its_beginning():
    data = helpers.training_data(lengths=np.full(20, 30))
    gallery = batching.MotionTensors(data.store, replace(TOWER, long_motions="start"), helpers.CPU)
    cut = gallery.gather(torch.tensor([3]))
    np.testing.assert_array_equal(cut.frames[0].numpy(), data.store.motion(3)[:24])


def test_one_caption_of_each_motion_is_drawn_anew_and_each_gets_its_turn():
    data = helpers.training_data()
    table = helpers.workplace(helpers.config(captions="random"), data).table
    rows, noise = torch.tensor([2, 0, 5, 4]), torch.Generator().manual_seed(0)
    samples = []
    for _ in range(60):
        captions, motion_idx = table.sample_positives(rows, noise)
        assert motion_idx.tolist() == [0, 1, 2, 3]
        samples.append(captions)
    for context, row in enumerate(rows):
        assert {int(captions[context]) for captions in samples} == set(
            table.captions_of(row[None])[0].tolist()
        )
    again = table.sample_positives(rows, torch.Generator().manual_seed(0))[0]
    assert torch.equal(again, samples[0])
    everything = helpers.workplace(helpers.config(), data).table
    assert all(
        torch.equal(*pair)
        for pair in zip(
            everything.sample_positives(rows, noise), everything.captions_of(rows), strict=True
        )
    )


def test_the_rate_follows_a_cosine_by_epochs():
    config = helpers.config(schedule="epoch", warmup_epochs=0).optim
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
    for epoch in range(30):
        for step in (0, 6):
            assert optim.lr_scale(7 * epoch + step, 30 * 7, 7, config) == pytest.approx(
                theirs.get_last_lr()[0]
            )
        optimizer.step()
        theirs.step()
    rising = replace(config, warmup_epochs=2)
    assert [optim.lr_scale(step, 70, 7, rising) for step in (0, 6, 7, 13, 14)] == pytest.approx(
        [1 / 3, 1 / 3, 2 / 3, 2 / 3, 1]
    )


def test_its_loss_is_the_symmetric_cross_entropy_of_one_caption_each_at_a_fixed_temperature():
    """Two motions share their caption: to the README they are negatives all the same."""
    data = helpers.training_data(
        captions=(("a", "b"), ("a",), ("c",), ("d", "e", "f")), lengths=[20, 22, 30, 25]
    )
    readme_values = {
        name: presets.VARIANTS["clip_readme"][name]
        for name in ("negative_threshold", "captions", "learn_tau", "projection")
    }
    config = helpers.config(**readme_values, token_drop=0.0, batch_size=4)
    context = helpers.workplace(config, data)
    run = Run(None, config, {}, "", "", data.store.config, 2)
    model = checkpoints.build_model(config, run, data.store.columns, helpers.NoTower(), 0).eval()
    assert not any(
        weight.requires_grad for name, weight in model.named_parameters() if name == "log_scale"
    )
    noise = torch.Generator().manual_seed(1)
    batch = next(
        iter(
            batching.iterate_epoch(
                context.motions,
                context.table,
                np.arange(4),
                4,
                batching.EpochRandom(np.random.default_rng(0), noise, noise),
            )
        )
    )
    with torch.inference_mode():
        loss = batch_loss(model, batch, context, config).total.item()
        motion = (
            torch.cat([model.encode_motions(bucket) for bucket in batch.buckets]).double().numpy()
        )
        caption = model.encode_captions(context.bank, batch.caption_idx).double().numpy()
    logits = caption @ motion.T / 0.07
    to_motion = [-math.log(np.exp(row[k]) / np.exp(row).sum()) for k, row in enumerate(logits)]
    to_caption = [-math.log(np.exp(row[k]) / np.exp(row).sum()) for k, row in enumerate(logits.T)]
    assert loss == pytest.approx(np.mean(to_motion + to_caption), rel=1e-4)


def test_the_recipe_runs_leaves_its_files_and_ranks_beside_a_run_of_other_features(tmp_path):
    runs_dir = tmp_path / "runs"
    assert run_readme(runs_dir, "readme") == 0
    assert helpers.run_training(runs_dir, "holistic", epochs=1) == 0
    fold_dir = runs_dir / "readme" / "fold0"
    motion, text = (
        checkpoints.load_checkpoint(fold_dir / name, helpers.CPU)
        for name in ("motion_encoder.pt", "clip_model_finetuned.pt")
    )
    checkpoint = checkpoints.load_checkpoint(checkpoints.best_checkpoint(fold_dir), helpers.CPU)
    assert checkpoint["epoch"] == 2  # the last, not the best
    assert motion["project.weight"].shape == (16, 2 * 192) and motion["positions"].shape == (60, 16)
    assert torch.equal(
        motion["blocks.1.linear1.weight"],
        checkpoint["model"]["motion_tower.blocks.1.linear1.weight"],
    )
    assert {
        "token_embedding.weight",
        "positional_embedding",
        "transformer.resblocks.0.ln_1.weight",
        "ln_final.weight",
    } <= text.keys()
    assert text.keys() - {"text_head.weight", "text_head.bias"} == {
        name.removeprefix("text_tower.text.")
        for name in checkpoint["model"]
        if name.startswith("text_tower.")
    }
    places = [
        *helpers.places(),
        f"--out_dir={runs_dir}",
        f"--submissions_dir={tmp_path / 'submissions'}",
    ]
    assert ensemble.main(places) == 0
    with (tmp_path / "submissions" / "submission.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 3


def test_folds_side_by_side_and_trials_see_raw_columns_too(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, values in (
            ("serial", {}),
            ("side", {"fold_jobs": 2, "joblib_backend": "multiprocessing"}),
        ):
            assert run_readme(tmp_path, name, epochs=1, **values) == 0
    finally:
        torch.set_num_threads(threads)
    serial, side = (open_run(tmp_path / name) for name in ("serial", "side"))
    for fold in (0, 1):
        first, second = (oof.load_out_of_fold(run, fold) for run in (serial, side))
        np.testing.assert_array_equal(first.motion, second.motion)
        np.testing.assert_array_equal(first.text, second.text)
    assert trial.load_shared_data(serial.config)[0].store.config.kind == "raw"


def test_the_table_has_the_values_of_the_readme():
    config = base.build_config(training.TrainConfig, presets.VARIANTS["clip_readme"])
    model = FrameTransformer(
        config.motion, 2, features.feature_layout(2, FeatureConfig(kind="raw"))
    )
    assert (
        tuple(model.project.weight.shape) == (512, 384)
        and model.positions.shape == (512, 512)
        and len(model.blocks) == 4
    )
    block = model.blocks[0]
    assert (
        block.self_attn.num_heads == 8
        and block.linear1.out_features == 2048
        and block.dropout.p == 0.1
        and not block.norm_first
    )
    fit = config.fit
    assert (
        fit.epochs,
        fit.batch_size,
        config.optim.lr,
        config.text.text_lr_mult,
        config.loss.tau,
    ) == (30, 64, 1e-4, 0.1, 0.07)
