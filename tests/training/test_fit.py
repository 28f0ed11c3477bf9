"""The training loop on motions made in memory: schedule, limits, what is kept, and that a killed
fold ends where an unbroken one does."""

import csv
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import helpers
from helpers import (
    KilledError,
    best,
    epoch_stats,
    fit_fold,
    killed_after,
    make_run,
    same_content,
    scored,
)
from motret.data import batching
from motret.errors import ConfigError, RunError
from motret.evaluation import metrics
from motret.runs import checkpoints, history, oof
from motret.training import fit, objective, optim
from motret.training import validate as validate_module
from motret.training.state import FoldState
from motret.training.validate import mean_cosine_distance
from motret.utils import device

FIT, OPTIM = helpers.config().fit, helpers.config().optim


def kept_lines(run, fold=0):
    with (run.fold_dir(fold) / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


# ---- schedule


def test_the_learning_rate_rises_to_the_highest_and_ends_at_zero():
    config = replace(OPTIM, warmup_epochs=2.0)
    rates = [optim.lr_scale(step, 100, 10, config) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 21)
    assert np.diff(rates[:21]) == pytest.approx(np.full(20, 1 / 21))
    assert rates[20] == max(rates) == 1
    assert (np.diff(rates[20:]) < 0).all()
    assert rates[60] == pytest.approx(0.5) and rates[100] == pytest.approx(0)
    assert 0 < rates[99] < 1e-3


def test_warm_up_takes_at_most_half_of_a_short_run():
    config = replace(OPTIM, warmup_epochs=5.0)
    rates = [optim.lr_scale(step, 8, 4, config) for step in range(8)]
    assert int(np.argmax(rates)) == 4 and min(rates) > 0


def test_without_warm_up_the_first_step_is_at_the_highest_rate():
    assert optim.lr_scale(0, 10, 5, replace(OPTIM, warmup_epochs=0.0)) == 1


def test_without_a_time_limit_all_epochs_are_planned():
    assert history.planned_epochs(replace(FIT, epochs=7), [epoch_stats(seconds=1e6)]) == 7


@pytest.mark.parametrize(
    ("seconds", "planned"),
    [
        ([], 40),
        ([6.0], 10),
        ([5.9], 10),
        ([6.1], 9),
        ([4.0, 8.0], 10),
        ([1.0], 40),
        ([59.0], 1),
        ([61.0], 1),
        ([50.0, 20.0], 2),
    ],
)
def test_a_time_limit_of_a_minute_plans_what_still_fits(seconds, planned):
    past = [epoch_stats(epoch, spent) for epoch, spent in enumerate(seconds, start=1)]
    assert history.planned_epochs(replace(FIT, epochs=40, max_minutes=1.0), past) == planned


def test_heads_learn_at_a_rate_of_their_own():
    data, config = helpers.training_data(), helpers.config(lr=1e-3, head_lr_mult=3.0)
    model = checkpoints.build_model(
        config, make_run(Path("nowhere"), config, data), data.store.columns, helpers.NoTower(), 0
    )
    rates = {
        id(weight): group["base_lr"]
        for group in optim.make_optimizer(model, config).param_groups
        for weight in group["params"]
    }
    result = {name: rates[id(weight)] for name, weight in model.named_parameters()}
    heads = {name for name in result if name.startswith(("motion_head.", "text_head."))}
    assert len(heads) >= 8 and {result[name] for name in heads} == {3e-3}
    assert {rate for name, rate in result.items() if name not in heads} == {1e-3}


def test_a_watcher_is_told_of_each_epoch_and_what_it_raises_ends_the_training(tmp_path):
    message = []

    def watch(line):
        message.append(line.epoch)
        if line.epoch == 2:
            raise KeyError("enough")

    config, data = helpers.config(epochs=4), helpers.training_data()
    run = make_run(tmp_path, config, data)
    with pytest.raises(KeyError, match="enough"):
        fit.fit(helpers.fold_context(run, data), watch)
    assert message == [1, 2] and [row["epoch"] for row in kept_lines(run)] == ["1", "2"]


# ---- what a fold leaves behind


def plain_ranks(sim_cm, motion_idx):
    """1-based ranks of the right one: of each caption's motion, and of each motion's best-placed
    caption."""
    order = np.argsort(-sim_cm, axis=1)
    captions = [list(row).index(own) + 1 for row, own in zip(order, motion_idx, strict=True)]
    motions = []
    for motion, column in enumerate(sim_cm.T):
        own = column[motion_idx == motion].max()
        motions.append(
            1
            + sum(
                value > own
                for value, whose in zip(column, motion_idx, strict=True)
                if whose != motion
            )
        )
    return {"t2m": np.array(captions), "m2t": np.array(motions)}


def test_an_unfinished_run_of_before_both_directions_goes_on(tmp_path, monkeypatch):
    with monkeypatch.context() as dying:
        killed_after(dying, "last", 1)
        with pytest.raises(KilledError):
            fit_fold(tmp_path, epochs=3)
    last = tmp_path / "run" / "fold0" / "last.pt"
    kept = checkpoints.load_checkpoint(last, helpers.CPU)
    older = ("epoch", "seconds", "lr", "tau", "train_loss", "val_loss", "score", "error")
    for line in kept["history"]:
        recalls = {f"r{k}": line[f"t2m_r{k}"] for k in (1, 5, 10)}
        rest = {name: line[name] for name in (*older, "spread", "text_spread")} | recalls
        line.clear()
        line.update(rest)
    checkpoints.save_checkpoint(last, kept)
    run, _ = fit_fold(tmp_path, epochs=3)
    lines = kept_lines(run)
    assert len(lines) == 3 and lines[0]["m2t_r1"] == "nan" != lines[2]["m2t_r1"]
    assert all(0 <= float(line["t2m_r1"]) <= 1 for line in lines)


def test_a_fold_learns_and_leaves_its_best_checkpoint_metrics_log_and_embeddings(tmp_path):
    run, score = fit_fold(tmp_path, epochs=4, lr=3e-3)
    part = run.fold_dir(0)
    lines = kept_lines(run)
    assert [row["epoch"] for row in lines] == ["1", "2", "3", "4"]
    assert float(lines[-1]["train_loss"]) < float(lines[0]["train_loss"]) - 0.2
    assert sorted(path.name for path in part.iterdir()) == sorted(
        [
            checkpoints.best_checkpoint(part).name,
            "last.pt",
            "metrics.csv",
            "oof.npz",
            "train_log.txt",
        ]
    )
    out = oof.load_out_of_fold(run, 0)
    kept = lines[best(run)["epoch"] - 1]
    for way, ranks in plain_ranks(out.similarity(), out.motion_idx).items():
        expected = [(ranks <= k).mean() for k in (1, 5, 10)] + [ranks.mean(), np.median(ranks)]
        result = [float(kept[f"{way}_{name}"]) for name in ("r1", "r5", "r10", "meanr", "medr")]
        assert result == pytest.approx(expected)
    assert best(run)["epoch"] == 4 and best(run)["score"] == float(
        lines[-1]["score"]
    ) == pytest.approx(score.mean)
    log = part.joinpath("train_log.txt").read_text()
    assert "epoch 4:" in log and f"kept epoch {best(run)['epoch']}" in log


def test_out_of_fold_embeddings_are_unit_vectors_of_the_held_out_motions(tmp_path):
    run, score = fit_fold(tmp_path, fold=1)
    data, val_idx = helpers.training_data(), helpers.folds().val_idx(1)
    with np.load(run.fold_dir(1) / "oof.npz") as kept:
        assert sorted(kept) == ["data_idx", "ids", "motion", "motion_idx", "text"]
    out = oof.load_out_of_fold(run, 1)
    assert out.data_idx.tolist() == val_idx.tolist()
    assert out.ids.tolist() == [data.training.ids[row] for row in val_idx]
    assert out.motion_idx.tolist() == [
        context for context, row in enumerate(val_idx) for _ in data.training.captions[row]
    ]
    assert out.motion.shape == (10, 8) and out.text.shape == (len(out.motion_idx), 8)
    for vectors in (out.motion, out.text):
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(vectors)), abs=1e-5)
    values = metrics.caption_scores(out.text @ out.motion.T, out.motion_idx)
    assert score.mean == pytest.approx(values.mean()) and score.motions == 10


def test_out_of_fold_embeddings_are_those_of_the_kept_checkpoint(tmp_path):
    run, _ = fit_fold(tmp_path)
    data = helpers.training_data()
    model = checkpoints.build_model(run.config, run, data.store.columns, helpers.NoTower(), seed=99)
    model.load_state_dict(best(run)["model"])
    out = oof.load_out_of_fold(run, 0)
    context = helpers.workplace(run.config, data)
    for piece, row in enumerate(out.data_idx):  # one by one: neither order nor neighbours matter
        alone = model.eval().encode_motions(context.motions.gather(torch.tensor([row])))
        np.testing.assert_allclose(out.motion[[piece]], alone.detach().numpy(), atol=1e-5)


def test_held_out_motions_are_not_learned_from(tmp_path):
    """Other features and captions of the held-out motions: the same weights."""
    data, other = helpers.training_data(), helpers.training_data()
    for row in helpers.folds().val_idx(0):
        other.store.features[
            other.store.offsets[row] : other.store.offsets[row] + other.store.lengths[row]
        ] *= -1
    config = helpers.config(eval_interval=2)
    weights = []
    for name, used in (("a", data), ("b", other)):
        run = make_run(tmp_path / name, config, used)
        context = helpers.workplace(config, used)
        if name == "b":
            for row in helpers.folds().val_idx(0):
                context.bank.vectors[context.table.captions_of(torch.tensor([row]))[0]] *= -1
        fit.fit(helpers.fold_context(run, used, context=context))
        weights.append(
            checkpoints.load_checkpoint(run.fold_dir(0) / "last.pt", helpers.CPU)["model"]
        )
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_model_of_all_motions_leaves_done_and_no_embeddings(tmp_path):
    run, score = fit_fold(tmp_path, fold=None, epochs=3)
    assert score is None and run.has_full_model() and run.finished_folds() == []
    assert not (run.folder / "full" / "oof.npz").exists()
    assert best(run, None)["epoch"] == 3
    assert all(row["score"] == "nan" for row in kept_lines(run, None))


def test_folds_and_the_full_model_start_differently_and_by_seed(tmp_path):
    data = helpers.training_data()
    run = make_run(tmp_path, helpers.config(), data)
    first, again, other = (
        checkpoints.build_model(
            run.config, run, data.store.columns, helpers.NoTower(), seed
        ).state_dict()
        for seed in (1000, 1000, 1001)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(
        first["motion_tower.backbone.project.weight"], other["motion_tower.backbone.project.weight"]
    )


def test_batches_and_dropped_tokens_differ_between_epochs_and_repeat_by_seed(tmp_path, monkeypatch):
    real, drawn = batching.iterate_epoch, []

    def recorded(*args):
        made = list(real(*args))
        drawn.append(([batch.caption_idx.tolist() for batch in made], args[4].noise.initial_seed()))
        return iter(made)

    monkeypatch.setattr(batching, "iterate_epoch", recorded)
    for name, values in {"a": {}, "b": {}, "c": {"seed": 1}, "d": {"fold": 1}}.items():
        fit_fold(tmp_path / name, batch_size=3, **values)
    (first, second), again, other_seed, other_fold = drawn[:2], drawn[2:4], drawn[4:6], drawn[6:]
    assert again == [first, second]
    seen = [first, second, *other_seed, *other_fold]
    assert len({str(order) for order, _ in seen}) == len({noise for _, noise in seen}) == 6


def test_a_pretrained_tower_that_trains_is_copied_for_each_fold(tmp_path):
    """A fold that went on with the tower of the fold before would have seen the captions it holds
    out."""
    tower = torch.nn.Linear(3, helpers.TEXT_DIM)
    tower.dim = helpers.TEXT_DIM
    data = helpers.training_data()
    run = make_run(tmp_path, helpers.config(text_tower="hf:somewhere", unfreeze_text=True), data)
    models = [
        checkpoints.build_model(run.config, run, data.store.columns, tower, seed) for seed in (0, 1)
    ]
    assert models[0].text_tower is not models[1].text_tower
    before = tower.weight.clone()
    with torch.no_grad():
        models[0].text_tower.weight.add_(1)
    assert torch.equal(models[1].text_tower.weight, before) and torch.equal(tower.weight, before)


def test_a_checkpoint_is_kept_every_so_many_epochs_where_asked(tmp_path):
    run, _ = fit_fold(tmp_path, epochs=5, save_every=2)
    assert sorted(path.name for path in run.fold_dir(0).glob("ckpt_*")) == [
        "ckpt_epoch2.pt",
        "ckpt_epoch4.pt",
    ]


@pytest.mark.parametrize("fold", [0, None])
def test_validation_is_due_each_interval_and_at_the_end(tmp_path, fold):
    run, _ = fit_fold(tmp_path, fold=fold, epochs=5, eval_interval=3)
    scored = [row["epoch"] for row in kept_lines(run, fold) if row["score"] != "nan"]
    assert scored == ([] if fold is None else ["3", "5"])
    assert (
        len(checkpoints.load_checkpoint(run.fold_dir(fold) / "last.pt", helpers.CPU)["history"])
        == 5
    )


@pytest.mark.parametrize("fold", [0, None])
def test_a_time_limit_ends_with_a_validated_model_whatever_the_interval(tmp_path, fold):
    run, score = fit_fold(tmp_path, fold=fold, epochs=40, eval_interval=10, max_minutes=1e-9)
    assert len(kept_lines(run, fold)) == 1
    assert (score is None) == (fold is None)
    assert best(run, fold)["epoch"] == 1


# ---- stopping


def test_training_stops_early_after_so_many_validations_without_a_better_one(tmp_path, monkeypatch):
    scored(monkeypatch, [0.2, 0.5, 0.4, 0.5, 0.45, 0.9, 0.9, 0.9])
    run, _ = fit_fold(tmp_path, epochs=8, early_stop_patience=3)
    assert [float(row["score"]) for row in kept_lines(run)] == [0.2, 0.5, 0.4, 0.5, 0.45]
    assert best(run)["epoch"] == 2  # the first of equals


def test_without_patience_training_goes_on(tmp_path, monkeypatch):
    scored(monkeypatch, [0.9, *[0.1] * 5])
    run, _ = fit_fold(tmp_path, epochs=6)
    assert len(kept_lines(run)) == 6 and best(run)["epoch"] == 6


def test_the_checkpoint_may_be_chosen_by_r1(tmp_path, monkeypatch):
    values = iter([(0.9, 0.1), (0.5, 0.3), (0.1, 0.2)])

    def validate(*args):
        score, r1 = next(values)
        return replace(args[-1], score=score, t2m_r1=r1)

    monkeypatch.setattr(validate_module, "validate", validate)
    run, _ = fit_fold(tmp_path, epochs=3, select="r1")
    assert best(run)["epoch"] == 2


def test_a_loss_that_is_no_number_stops_and_says_what_to_do(tmp_path, monkeypatch):
    real, steps = objective.contrastive_loss, []

    def broken(*args):
        steps.append(1)
        return real(*args) * (
            math.nan if len(steps) == 4 else 1.0
        )  # once is enough: the sum of the epoch stays NaN

    monkeypatch.setattr(validate_module, "validate", lambda *args: args[-1])
    monkeypatch.setattr(objective, "contrastive_loss", broken)
    with pytest.raises(RunError, match=r"fold0: the loss is nan in epoch 2 \(lower --lr"):
        fit_fold(tmp_path, epochs=9, batch_size=3)
    assert not (tmp_path / "run" / "fold0" / "oof.npz").exists()


def test_a_fold_with_nothing_to_learn_from_is_a_fault(tmp_path):
    data = helpers.training_data(captions=(("a",), ("b",), ("c",)))
    config = helpers.config()
    run = make_run(tmp_path, config, data)
    uneven = replace(helpers.folds(3), fold=np.array([0, 0, 1]))
    with pytest.raises(RunError, match="fold 0 leaves 1 motions to learn from"):
        fit.fit(helpers.fold_context(run, data, split=uneven))


# ---- killed and resumed


@pytest.mark.parametrize(
    ("name", "count", "values"),
    [("last", 1, {}), ("last", 3, {}), ("best", 1, {}), ("last", 1, {"eval_interval": 2})],
)
def test_a_killed_and_resumed_fold_ends_bit_for_bit_where_an_unbroken_one_does(
    tmp_path, monkeypatch, name, count, values
):
    values = {"epochs": 5, "lr": 3e-3, "batch_size": 3, "early_stop_patience": 4} | values
    whole, score = fit_fold(tmp_path / "whole", **values)
    with monkeypatch.context() as patched:
        killed_after(patched, name, count)
        with pytest.raises(KilledError):
            fit_fold(tmp_path / "killed", **values)
    assert not (tmp_path / "killed" / "run" / "fold0" / "oof.npz").exists()
    torch.manual_seed(12345)  # the process that goes on has drawn other numbers before
    resumed, again = fit_fold(tmp_path / "killed", **values)
    assert again == score
    assert same_content(best(resumed), best(whole))
    last_whole, last = (
        checkpoints.load_checkpoint(run.fold_dir(0) / "last.pt", helpers.CPU)
        for run in (whole, resumed)
    )
    assert same_content(last["model"], last_whole["model"]) and same_content(
        last["optimizer"], last_whole["optimizer"]
    )
    kept = [[{**row, "seconds": ""} for row in kept_lines(run)] for run in (whole, resumed)]
    assert kept[0] == kept[1] and len(kept[0]) == 5
    outs = [oof.load_out_of_fold(run, 0) for run in (whole, resumed)]
    for field in ("ids", "data_idx", "motion", "text", "motion_idx"):
        np.testing.assert_array_equal(*(getattr(out, field) for out in outs))
    assert len(list(resumed.fold_dir(0).glob("best_epoch*.pt"))) == 1


def test_a_checkpoint_with_the_keys_of_earlier_versions_resumes_to_the_same_weights(
    tmp_path, monkeypatch
):
    values = {"epochs": 3, "ema": 0.9}
    unbroken, _ = fit_fold(tmp_path / "unbroken", **values)
    with monkeypatch.context() as patched:
        killed_after(patched, "last", 1)
        with pytest.raises(KilledError):
            fit_fold(tmp_path / "killed", **values)
    last = tmp_path / "killed" / "run" / "fold0" / "last.pt"
    checkpoint = checkpoints.load_checkpoint(last, helpers.CPU)
    checkpoint["optimiser"] = checkpoint.pop("optimizer")
    for group in checkpoint["optimiser"]["param_groups"]:
        group["highest"] = group.pop("base_lr")
    for stats in checkpoint["history"]:
        del stats["loss_terms"]
    checkpoints.save_checkpoint(last, checkpoint)
    resumed, _ = fit_fold(tmp_path / "killed", **values)
    assert same_content(best(resumed), best(unbroken))
    first, *others = kept_lines(resumed)
    assert first["loss_global"] == "nan" and all(
        row["loss_global"] == row["train_loss"] for row in others
    )


# ---- parts of a step


def test_no_decay_on_vectors_and_a_lower_rate_for_pretrained_text(tmp_path):
    data = helpers.training_data()
    config = helpers.config(
        text_tower="hf:somewhere", unfreeze_text=True, lr=1e-3, weight_decay=0.1, text_lr_mult=0.25
    )
    tower = torch.nn.Linear(3, helpers.TEXT_DIM)
    tower.dim = helpers.TEXT_DIM
    model = checkpoints.build_model(
        config, make_run(tmp_path, config, data), data.store.columns, tower, 0
    )
    optimizer = optim.make_optimizer(model, config)
    of = {id(weight): group for group in optimizer.param_groups for weight in group["params"]}
    for name, weight in model.named_parameters():
        group = of[id(weight)]
        assert group["weight_decay"] == (0.1 if weight.ndim > 1 else 0)
        assert group["base_lr"] == (2.5e-4 if name.startswith("text_tower.") else 1e-3)


def test_the_gradient_is_cut_to_its_largest_norm(tmp_path):
    data = helpers.training_data()
    norms = {}
    for limit in (0.0, 1e-3):
        config = helpers.config(grad_clip=limit)
        context = helpers.workplace(config, data)
        run = make_run(tmp_path, config, data)
        model = checkpoints.build_model(config, run, data.store.columns, helpers.NoTower(), 0)
        draws = batching.EpochRandom.seeded(np.random.default_rng(0), 0, helpers.CPU)
        batch = next(
            iter(batching.iterate_epoch(context.motions, context.table, np.arange(20), 6, draws))
        )
        state = FoldState(model, optim.make_optimizer(model, config), context.make_scaler())
        fit.train_step(state, batch, context, config, 1.0)
        norms[limit] = float(
            torch.stack(
                [weight.grad.norm() for weight in model.parameters() if weight.grad is not None]
            ).norm()
        )
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-3) and norms[0.0] > 0.01


@pytest.mark.parametrize(("threshold", "left_out"), [(0.9, 2), (0.5, 6), (1.5, 2)])
def test_captions_that_say_the_same_are_no_negatives(monkeypatch, threshold, left_out):
    """Captions of four motions: a | b, a again | c | d, of which b and c, and c and d, are somewhat
    alike by the frozen tower's cosines."""
    given = {}
    monkeypatch.setattr(
        objective.losses, "multi_positive_info_nce", lambda *args: given.update(excluded=args[4])
    )
    data = helpers.training_data(captions=(("a",), ("b", "a"), ("c",), ("d",)))
    config = helpers.config(negative_threshold=threshold)
    context = helpers.workplace(config, data)
    angle = {"a": 0.0, "b": 1.4, "c": 1.4 + 0.9, "d": 3.1}
    vectors = torch.tensor(
        [[math.cos(angle[text]), math.sin(angle[text])] for text in context.bank.index]
    )
    context = replace(context, centred_captions=vectors, caption_sides=torch.tensor([[0, -1]] * 4))
    rows, motion_idx = context.table.captions_of(torch.arange(4))
    objective.contrastive_loss(
        torch.zeros(4, 8), torch.zeros(5, 8), torch.tensor(1.0), rows, motion_idx, context, config
    )
    cosines = (vectors @ vectors.T)[rows][:, rows]
    expected = torch.zeros(5, 4, dtype=torch.bool)
    for caption in range(5):
        for other in range(5):
            same_text = rows[caption] == rows[other]
            close = threshold <= 1 and cosines[caption, other] >= threshold
            expected[caption, motion_idx[other]] |= same_text or close
    assert torch.equal(given["excluded"], expected)
    assert (expected & (motion_idx[:, None] != torch.arange(4))).sum() == left_out


def test_spread_is_one_minus_the_mean_cosine_of_pairs():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(7, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = [vectors[a] @ vectors[b] for a in range(7) for b in range(7) if a != b]
    assert mean_cosine_distance(vectors) == pytest.approx(1 - np.mean(pairs))
    assert mean_cosine_distance(np.repeat(vectors[:1], 5, axis=0)) == pytest.approx(0)
    assert math.isnan(mean_cosine_distance(vectors[:1]))


def test_asking_for_a_gpu_that_is_not_there_is_a_fault(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="--device"):
        device.choose_device("cuda")
    assert device.choose_device("auto") == device.choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_half_precision_trains_too_and_stays_near_float32(tmp_path, amp):
    run, score = fit_fold(tmp_path, amp=amp)
    out = oof.load_out_of_fold(run, 0)
    assert 0 <= score.mean <= 1 and out.motion.dtype == np.float32
    plain = oof.load_out_of_fold(fit_fold(tmp_path / "plain")[0], 0)
    assert not np.array_equal(out.motion, plain.motion)
    assert np.abs((out.motion * plain.motion).sum(axis=1) - 1).max() < 0.05


def test_a_training_in_float16_is_resumed_with_the_scale_of_its_loss(tmp_path, monkeypatch):
    fit_fold(tmp_path / "whole", amp="fp16", epochs=4)
    with monkeypatch.context() as dying, pytest.raises(KilledError):
        killed_after(dying, "last", 2)
        fit_fold(tmp_path / "parts", amp="fp16", epochs=4)
    fit_fold(tmp_path / "parts", amp="fp16", epochs=4)
    checkpoints_of = [
        torch.load(tmp_path / name / "run" / "fold0" / "last.pt", weights_only=True)
        for name in ("whole", "parts")
    ]
    assert checkpoints_of[0]["scaler"] == checkpoints_of[1]["scaler"]
    assert checkpoints_of[0]["scaler"]["scale"] > 1
    for name, weight in checkpoints_of[0]["model"].items():
        assert torch.equal(weight, checkpoints_of[1]["model"][name]), name


def test_steps_that_overflow_in_float16_are_skipped_and_counted(tmp_path, monkeypatch):
    too_large = partial(torch.amp.GradScaler, init_scale=2.0**40, backoff_factor=2.0**-30)
    monkeypatch.setattr(torch.amp, "GradScaler", too_large)
    run, _ = fit_fold(tmp_path, amp="fp16", epochs=2)
    first, second = history.read_metrics(run.fold_dir(0) / "metrics.csv")
    assert first.skipped_steps == 1 and second.skipped_steps == 0
    assert math.isfinite(first.train_loss)
    log = (run.fold_dir(0) / "train_log.txt").read_text(encoding="utf-8")
    assert log.count("1 steps skipped (float16 overflow)") == 1


def test_a_skipped_step_leaves_the_weights_as_they_were(tmp_path):
    data, config = helpers.training_data(), helpers.config(amp="fp16", batch_size=10)
    context, run = helpers.workplace(config, data), make_run(tmp_path, config, data)
    model = checkpoints.build_model(config, run, data.store.columns, helpers.NoTower(), 0)
    optimizer = optim.make_optimizer(model, config)
    for scale, is_skipped in ((2.0**60, True), (2.0**10, False)):
        state = FoldState(model, optimizer, torch.amp.GradScaler("cpu", init_scale=scale))
        before = [weight.clone() for weight in model.parameters()]
        random = batching.EpochRandom.seeded(np.random.default_rng(0), 0, helpers.CPU)
        (batch, *_) = batching.iterate_epoch(
            context.motions, context.table, np.arange(20), 10, random
        )
        assert bool(fit.train_step(state, batch, context, config, 1.0)[1]) is is_skipped
        same = [torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True)]
        assert all(same) if is_skipped else not any(same)


def test_a_validation_that_fails_ends_the_training_before_its_first_epoch(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise ValueError("no embeddings")

    monkeypatch.setattr(validate_module, "embed_captions", broken)
    with pytest.raises(ValueError, match="no embeddings"):
        fit_fold(tmp_path)
    assert not (tmp_path / "run" / "fold0" / "metrics.csv").exists()
    assert not list((tmp_path / "run" / "fold0").glob("*.pt"))
