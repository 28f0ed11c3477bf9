"""Fine-tuning a text tower: rates by layer, freezing, averaged and interpolated weights, layers
computed again, collapse."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import helpers
import train
from helpers import (
    KilledError,
    epoch_stats,
    killed_after,
    open_clip_tower,
    same_content,
    saved_bert,
    scored,
)
from motret.config import base
from motret.config.training import TextConfig
from motret.data import batching, features
from motret.data.folds import Folds
from motret.errors import ConfigError, RunError
from motret.evaluation import metrics
from motret.models import clip_tower, embed, layers, registry
from motret.runs import checkpoints, oof
from motret.runs.oof import OutOfFold
from motret.runs.run import Run, open_run
from motret.training import fit, objective, optim, validate, wise_ft


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return f"hf:{saved_bert(tmp_path_factory.mktemp('bert'))}"


@pytest.fixture
def bert(encoder):
    return registry.make_text_tower(base.build_config(TextConfig, {"text_tower": encoder}))


def run_clip(out_dir, name, encoder=None, variant="clip", **values):
    """`train.py clip`, or another variant, with small sizes, on an encoder or from scratch."""
    tower = {"text_tower": encoder} if encoder else helpers.SCRATCH
    small = {
        key: value
        for key, value in (helpers.SMALL | tower | {"fold": 0} | values).items()
        if key not in ("device", "jobs")
    }
    return train.main(
        [
            variant,
            *helpers.places(),
            *helpers.flags(out_dir=out_dir, run_name=name, folds=2, **small),
        ]
    )


def checkpoint(folder, name="best_epoch*.pt"):
    (path,) = folder.glob(f"fold0/{name}")
    return checkpoints.load_checkpoint(path, helpers.CPU)


def text_weights(checkpoint):
    return {
        name.removeprefix("text_tower."): value
        for name, value in checkpoint["model"].items()
        if name.startswith("text_tower.")
    }


# ---- rates by layer


def test_layers_are_counted_from_the_top_and_embeddings_are_lowest(bert):
    result = layers.layer_ids(clip_tower.ClipTower(*open_clip_tower(layers=3)))
    assert {
        name: result[f"text.{name}"] for name in ("positional_embedding", "token_embedding.weight")
    } == {
        "positional_embedding": 3,
        "token_embedding.weight": 3,
    }
    assert [
        result[f"text.transformer.resblocks.{number}.mlp.c_fc.weight"] for number in range(3)
    ] == [2, 1, 0]
    assert result["text.text_projection"] is result["text.ln_final.weight"] is None
    result = layers.layer_ids(bert)
    assert [
        result[f"encoder.encoder.layer.{number}.output.dense.weight"] for number in range(2)
    ] == [1, 0]
    assert (
        result["encoder.embeddings.LayerNorm.bias"]
        == result["encoder.embeddings.word_embeddings.weight"]
        == 2
    )
    assert result["encoder.pooler.dense.weight"] is None


def test_the_optimizer_takes_a_smaller_rate_from_layer_to_layer_downwards(bert):
    data = helpers.training_data()
    config = helpers.config(
        text_tower="hf:somewhere", unfreeze_text=True, lr=1e-2, text_lr_mult=0.5, layer_decay=0.1
    )
    run = Run(None, config, {}, "", "", data.store.config, 2)
    model = checkpoints.build_model(config, run, data.store.columns, bert, 0)
    highest = {
        id(weight): group["base_lr"]
        for group in optim.make_optimizer(model, config).param_groups
        for weight in group["params"]
    }
    rates = {name: highest[id(weight)] for name, weight in model.named_parameters()}
    context = "text_tower.encoder"
    assert (
        rates[f"{context}.encoder.layer.1.output.dense.bias"]
        == pytest.approx(5e-3)
        == rates[f"{context}.pooler.dense.weight"]
    )
    assert rates[f"{context}.encoder.layer.0.output.dense.weight"] == pytest.approx(5e-4)
    assert rates[f"{context}.embeddings.position_embeddings.weight"] == pytest.approx(5e-5)
    assert rates["text_head.1.weight"] == rates["motion_tower.norm.weight"] == 1e-2


@pytest.mark.parametrize(
    ("unfrozen", "learn"),
    [("all", {"encoder.layer", "embeddings", "pooler"}), ("layers", {"encoder.layer"})],
)
def test_a_tower_learns_with_all_its_weights_or_with_its_layers_alone(bert, unfrozen, learn):
    config = helpers.config(
        text_tower="hf:somewhere", unfreeze_text=True, unfrozen=unfrozen, freeze_text_epochs=2
    )
    data = helpers.training_data()
    model = checkpoints.build_model(
        config, Run(None, config, {}, "", "", data.store.config, 2), data.store.columns, bert, 0
    ).train()
    places = ("encoder.layer", "embeddings", "pooler")

    def learning():
        weights = model.text_tower.encoder.named_parameters()
        return {
            context
            for name, weight in weights
            for context in places
            if name.startswith(context) and weight.requires_grad
        }

    optim.freeze_for_epoch(model, config.text, 1)
    assert learning() == set() and not model.text_tower.training and model.motion_tower.training
    model.train()
    optim.freeze_for_epoch(model, config.text, 2)
    assert learning() == learn and model.text_tower.training


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"layer_decay": 0.0}, "--layer_decay: is 0"),
        ({"layer_decay": 1.5}, "--layer_decay: is 1.5"),
        ({"wise_alpha": 2.0}, "--wise_alpha: is 2"),
        ({"ema": 1.0}, "--ema: is 1"),
        ({"freeze_text_epochs": -1}, "--freeze_text_epochs: is -1"),
        ({"features": "raw", "use_gar": True}, "--features: raw columns have no parts"),
    ],
)
def test_values_that_mean_nothing_are_faults_of_their_flag(values, said):
    with pytest.raises(ConfigError, match=said):
        helpers.config(**values)


# ---- the whole way by the command line


def test_clip_trains_from_scratch(tmp_path):
    assert run_clip(tmp_path, "scratch", lr=3e-3, ema=0.5, save_every=1) == 0
    content = json.loads((tmp_path / "scratch" / "args.json").read_text())
    assert (
        content["sources"]["layer_decay"] == "variant clip"
        and content["settings"]["unfreeze_text"] is True
    )
    assert content["settings"]["freeze_text_epochs"] == 1
    assert (tmp_path / "scratch" / "fold0" / "oof.npz").is_file()
    run = open_run(tmp_path / "scratch")
    tower = registry.make_text_tower(run.config.text)
    fresh = checkpoints.build_model(
        run.config, run, features.feature_layout(run.persons, run.features), tower, seed=0
    ).state_dict()
    learned = checkpoint(tmp_path / "scratch", "ckpt_epoch1.pt")["model"]
    weight = "text_tower.text.transformer.resblocks.0.mlp.c_fc.weight"
    assert learned.keys() == fresh.keys() and not torch.equal(
        learned[weight], fresh[weight]
    )  # random weights are not held back


def test_a_frozen_epoch_leaves_the_tower_as_published_and_a_killed_run_goes_on_to_the_same_weights(
    encoder, bert, tmp_path, monkeypatch
):
    values = {
        "encoder": encoder,
        "epochs": 3,
        "save_every": 1,
        "freeze_text_epochs": 1,
        "ema": 0.5,
        "layer_decay": 0.5,
        "lr": 1e-2,
    }
    assert run_clip(tmp_path, "whole", **values) == 0
    published = bert.state_dict()
    first, second = (
        text_weights(checkpoint(tmp_path / "whole", f"ckpt_epoch{number}.pt")) for number in (1, 2)
    )
    assert same_content(first, published)
    moved = [name for name in second if not torch.equal(second[name], published[name])]
    assert any("layer.1" in name for name in moved) and any("embeddings" in name for name in moved)

    for count in (1, 2):
        with monkeypatch.context() as patched:
            killed_after(patched, "last", count)
            with pytest.raises(KilledError):
                run_clip(tmp_path, f"killed{count}", **values)
        assert run_clip(tmp_path, f"killed{count}", resume="auto", **values) == 0
        for name in ("last.pt", "best_epoch*.pt"):
            one, other = (checkpoint(tmp_path / run, name) for run in ("whole", f"killed{count}"))
            one.pop("history", None), other.pop("history", None)  # its seconds differ
            assert same_content(one, other), name


def test_what_is_kept_and_embedded_is_the_average(tmp_path):
    assert run_clip(tmp_path, "run", ema=0.9, select="last") == 0
    last, kept = checkpoint(tmp_path / "run", "last.pt"), checkpoint(tmp_path / "run")
    averaged = {
        name.removeprefix("module."): value
        for name, value in last["ema"].items()
        if name.startswith("module.")
    }
    assert same_content(kept["model"], averaged)
    assert not torch.equal(last["model"]["motion_head.0.weight"], averaged["motion_head.0.weight"])


@pytest.mark.parametrize("variant", ["clip", "holistic"])
def test_a_pretrained_tower_that_learned_is_left_in_a_file_beside_the_motion_encoder(
    encoder, tmp_path, variant
):
    assert (
        run_clip(
            tmp_path, "run", encoder, variant=variant, unfreeze_text=True, freeze_text_epochs=0
        )
        == 0
    )
    kept = checkpoint(tmp_path / "run")["model"]
    motion, words = (
        checkpoint(tmp_path / "run", name)
        for name in ("motion_encoder.pt", "clip_model_finetuned.pt")
    )
    inside = {
        name.removeprefix("text_tower.encoder."): value
        for name, value in kept.items()
        if name.startswith("text_tower.")
    }
    assert same_content(
        {name: value for name, value in words.items() if not name.startswith("text_head.")}, inside
    )
    assert same_content(motion["norm.weight"], kept["motion_tower.norm.weight"]) and len(
        motion
    ) + len(words) == len(kept)


def test_a_tower_that_did_not_learn_is_left_in_no_file(encoder, tmp_path):
    assert run_clip(tmp_path, "plain", encoder, variant="holistic") == 0
    assert run_clip(tmp_path, "asked", encoder, variant="holistic", save_towers=True) == 0
    named = {
        run: {path.name for path in (tmp_path / run / "fold0").glob("*.pt")}
        for run in ("plain", "asked")
    }
    assert "clip_model_finetuned.pt" not in named["plain"] | named["asked"]
    assert "motion_encoder.pt" in named["asked"] - named["plain"]


# ---- averages


def test_the_average_follows_each_step_with_its_warm_up():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    follower = optim.start_ema(model, optimizer, 0.3)
    twin = None
    for step in range(8):
        optimizer.zero_grad()
        model(torch.full((4, 3), float(step))).square().sum().backward()
        optimizer.step()
        now = model.weight.detach().numpy().copy()
        decay = min(0.3, (1 + step) / (10 + step))
        twin = now if twin is None else decay * twin + (1 - decay) * now
    np.testing.assert_allclose(follower.module.weight.detach().numpy(), twin, rtol=1e-5)
    assert not np.allclose(twin, now, rtol=1e-3)


# ---- interpolation


def test_a_share_of_the_tuned_tower_lies_between(bert):
    published = {name: value.clone() for name, value in bert.state_dict().items()}
    tuned = {name: value + 1 for name, value in published.items()}
    for share in (0.0, 0.25, 1.0):
        wise_ft.interpolate_weights(bert, published, tuned, share)
        for name, value in bert.state_dict().items():
            torch.testing.assert_close(value, (1 - share) * published[name] + share * tuned[name])
            if share in (0.0, 1.0):
                assert torch.equal(value, (published, tuned)[int(share)][name])


def unit(rng, *shape):
    vectors = rng.normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize("seed", range(6))
def test_no_caption_is_embedded_with_a_share_that_it_helped_to_choose(seed):
    rng = np.random.default_rng(seed)
    motion_idx, group = np.repeat(np.arange(40), 2), np.arange(40) // 4
    out = OutOfFold(np.arange(40), np.arange(40), unit(rng, 40, 5), unit(rng, 80, 5), motion_idx)
    outs = {
        share: replace(out, text=unit(rng, 80, 5), text_parts=unit(rng, 80, 5, 5))
        for share in wise_ft.ALPHAS
    }
    choice, made = wise_ft.choose_alpha(outs, group)
    half = wise_ft.split_groups_in_half(group)
    assert sorted(np.bincount(half)) == [20, 20] and all(
        len(set(half[group == label])) == 1 for label in set(group)
    )
    score = {
        share: metrics.caption_scores(own.text @ out.motion.T, motion_idx)
        for share, own in outs.items()
    }
    assert score[choice.alpha].mean() == max(values.mean() for values in score.values())
    for caption in range(80):
        others = half != half[motion_idx[caption]]
        best = max(wise_ft.ALPHAS, key=lambda share: score[share][others].mean())
        assert np.array_equal(made.text[caption], outs[best].text[caption])
        assert np.array_equal(made.text_parts[caption], outs[best].text_parts[caption])


def test_equal_shares_leave_the_tower_as_fine_tuned():
    rng = np.random.default_rng(0)
    out = OutOfFold(np.arange(8), np.arange(8), unit(rng, 8, 5), unit(rng, 8, 5), np.arange(8))
    choice, _ = wise_ft.choose_alpha(dict.fromkeys(wise_ft.ALPHAS, out), np.arange(8))
    assert choice.alpha == 1 and choice.halves == (1, 1)


def test_a_run_ends_with_the_share_it_was_told(encoder, bert, tmp_path, monkeypatch):
    values = {"encoder": encoder, "wise_alpha": 0.25, "lr": 3e-3, "freeze_text_epochs": 0, "ema": 0}
    with monkeypatch.context() as patched:  # killed between the interpolated checkpoint and the end
        patched.setattr(oof, "save_out_of_fold", lambda *args: (_ for _ in ()).throw(KilledError))
        with pytest.raises(KilledError):
            run_clip(tmp_path, "run", **values)
    assert run_clip(tmp_path, "run", resume="auto", **values) == 0
    kept, published = checkpoint(tmp_path / "run"), bert.state_dict()
    words = "encoder.embeddings.word_embeddings.weight"
    assert not torch.equal(kept["tuned"][words], published[words])
    for name, value in text_weights(kept).items():
        torch.testing.assert_close(value, torch.lerp(published[name], kept["tuned"][name], 0.25))
    assert (
        "alpha 0.25 of the fine-tuned weights"
        in (tmp_path / "run" / "fold0" / "train_log.txt").read_text()
    )


def test_a_run_chooses_its_share_out_of_fold_and_the_model_of_all_motions_takes_the_mean(
    encoder, tmp_path, capsys
):
    values = {
        "encoder": encoder,
        "wise_alpha": "auto",
        "epochs": 1,
        "lr": 1e-2,
        "freeze_text_epochs": 0,
    }
    assert run_clip(tmp_path, "run", **values, fold="full") == 1
    assert "--wise_alpha auto: no finished fold has chosen an alpha" in capsys.readouterr().err
    assert run_clip(tmp_path, "run", **values, fold="all", resume="auto") == 0
    choices = [
        json.loads((tmp_path / "run" / f"fold{fold}" / "wise.json").read_text()) for fold in (0, 1)
    ]
    for content in choices:
        assert (
            content["scores"][f"{content['alpha']:g}"] == max(content["scores"].values())
            and len(content["halves"]) == 2
        )
    assert run_clip(tmp_path, "run", **values, fold="full", resume="auto") == 0
    content = json.loads((tmp_path / "run" / "full" / "wise.json").read_text())
    assert content["alpha"] == pytest.approx(np.mean([choice["alpha"] for choice in choices]))


def test_one_group_cannot_choose_its_share(tmp_path):
    config = helpers.config(text_tower="hf:x", unfreeze_text=True, wise_alpha="auto")
    run = Run(tmp_path, config, {}, "", "", helpers.training_data().store.config, 2)
    alone = Folds(np.array([0, 0, 1]), np.array(["a", "a", "b"]), "", 2)
    with pytest.raises(RunError, match="held-out motions are one group"):
        wise_ft.candidate_alphas(run, 0, alone)


# ---- layers computed again


def loss_and_gradients(again, tower=None, **values):
    data = helpers.training_data()
    config = helpers.config(grad_checkpoint=again, **values)
    context = helpers.workplace(config, data)
    if tower is not None:
        captions = [caption for own in data.training.captions for caption in own]
        context = replace(
            context, bank=embed.make_caption_bank(captions, tower, False, None, helpers.CPU)
        )
    run = Run(None, config, {}, "", "", data.store.config, 2)
    model = checkpoints.build_model(
        config, run, data.store.columns, tower or helpers.NoTower(), 0
    ).train()
    calls = {"motion_tower": 0, "text_tower": 0}
    for half in calls:
        if hasattr(result := getattr(model, half), "named_modules"):
            first = layers.find_block_list(result)[1][0]
            inner = next(module for module in first.modules() if isinstance(module, nn.LayerNorm))
            inner.register_forward_hook(lambda *_, half=half: calls.update({half: calls[half] + 1}))
    draws = batching.EpochRandom.seeded(np.random.default_rng(0), 0, helpers.CPU)
    batch = next(
        iter(batching.iterate_epoch(context.motions, context.table, np.arange(20), 6, draws))
    )
    torch.manual_seed(5)
    loss = objective.batch_loss(model, batch, context, config).total
    loss.backward()
    return (
        loss.item(),
        {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None},
        calls,
    )


@pytest.mark.parametrize(
    ("which", "values"),
    [
        ("bert", {"text_tower": "hf:x", "unfreeze_text": True}),
        ("clip", {"text_tower": "ViT-B-32", "unfreeze_text": True}),
        (None, {"backbone": "motiondiffuse"}),
        (None, {"motion_tower": "frame", "mask": False}),
    ],
)
def test_layers_computed_again_give_the_same_loss_and_gradients(bert, which, values):
    tower = {"bert": bert, "clip": clip_tower.ClipTower(*open_clip_tower()), None: None}[which]
    loss, gradients, calls = loss_and_gradients(False, copy.deepcopy(tower), **values)
    again, repeated, twice = loss_and_gradients(True, copy.deepcopy(tower), **values)
    assert again == loss and repeated.keys() == gradients.keys() and len(gradients) > 20
    for name, gradient in gradients.items():
        torch.testing.assert_close(repeated[name], gradient, rtol=1e-5, atol=1e-7, msg=name)
    assert all(twice[half] > calls[half] for half in calls if calls[half])


def test_a_tower_without_layers_cannot_compute_them_again():
    with pytest.raises(ConfigError, match="--grad_checkpoint: mine has no list of layers"):
        layers.enable_grad_checkpointing(nn.Sequential(nn.Linear(2, 2)), "mine")


# ---- collapse


@pytest.mark.parametrize(("field", "what"), [("spread", "motions"), ("text_spread", "captions")])
def test_embeddings_that_have_become_all_alike_stop_the_run_and_it_says_what_to_change(
    tmp_path, field, what
):
    config = helpers.config(text_tower="hf:x", unfreeze_text=True)
    sane = {"spread": 0.5, "text_spread": 0.5}
    validate.check_collapse(epoch_stats(2, **sane), tmp_path, config)
    validate.check_collapse(epoch_stats(2, **sane | {field: 0.011}), tmp_path, config)
    validate.check_collapse(
        epoch_stats(1, **sane | {field: 0.009}), tmp_path, config
    )  # in the warm-up
    with pytest.raises(
        RunError,
        match=rf"embeddings of {what} have collapsed in epoch 2: .* 0\.991 "
        r"\(lower --text_lr_mult or --lr, raise",
    ):
        validate.check_collapse(epoch_stats(2, **sane | {field: 0.009}), tmp_path, config)
    validate.check_collapse(
        epoch_stats(2, **sane | {field: 0.009}),
        tmp_path,
        config,
        epoch_stats(1, **sane | {field: 0.004}),
    )  # it spreads
    with pytest.raises(RunError, match=f"embeddings of {what} have collapsed"):
        validate.check_collapse(
            epoch_stats(3, **sane | {field: 0.009}),
            tmp_path,
            config,
            epoch_stats(2, **sane | {field: 0.009}),
        )
    with pytest.raises(RunError, match=r"\(lower --lr, or raise"):
        validate.check_collapse(epoch_stats(2, **sane | {field: 0.009}), tmp_path, helpers.config())


def test_a_collapsed_run_leaves_no_result(tmp_path, capsys, monkeypatch):
    real = validate.validate
    monkeypatch.setattr(validate, "validate", lambda *args: replace(real(*args), text_spread=0.001))
    assert run_clip(tmp_path, "run") == 1
    assert "fold0: the embeddings of captions have collapsed in epoch 2" in capsys.readouterr().err
    assert not (tmp_path / "run" / "fold0" / "oof.npz").exists()


# ---- false negatives


@pytest.mark.parametrize(("threshold", "from_scratch"), [(0.9, False), (1.5, False), (0.9, True)])
def test_what_captions_say_alike_is_told_by_the_tower_as_published(
    encoder, bert, tmp_path, monkeypatch, threshold, from_scratch
):
    places = []
    monkeypatch.setattr(
        fit,
        "fit",
        lambda fold_context, *_: places.append((fold_context.context, fold_context.data)),
    )
    assert (
        run_clip(tmp_path, "run", None if from_scratch else encoder, negative_threshold=threshold)
        == 0
    )
    ((context, data),) = places
    if from_scratch or threshold > 1:
        assert context.centred_captions is None
        return
    assert context.bank.vectors is None and context.bank.ids is not None
    distinct = sorted({caption for own in data.training.captions for caption in own})
    said = torch.from_numpy(embed.embed_frozen(bert, *bert.tokenize(distinct), helpers.CPU))
    unit = said / said.norm(dim=1, keepdim=True)
    centred = unit - unit.mean(dim=0)  # of all training captions, each once
    torch.testing.assert_close(
        context.centred_captions[context.bank.indices(distinct)],
        centred / centred.norm(dim=1, keepdim=True),
        rtol=1e-3,
        atol=1e-3,
    )


def test_the_checkpoint_may_be_the_last(tmp_path, monkeypatch):
    from helpers import best, fit_fold

    scored(monkeypatch, [0.5, 0.9, 0.4])
    run, _ = fit_fold(tmp_path, epochs=3, select="last")
    assert best(run)["epoch"] == 3
