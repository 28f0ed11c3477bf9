"""Text towers: padding changes no vector, and weights that cannot be loaded are errors."""

import json
import os
import socket

import pytest
import torch

from helpers import CAPTIONS, CLOSE, open_clip_tower, saved_bert
from motret.config import base
from motret.config.training import TextConfig
from motret.errors import WeightsError
from motret.models import registry, text_tower
from motret.models.clip_tower import ClipTower
from motret.models.hf_tower import HfTower

CPU = torch.device("cpu")


def config(**values):
    return base.build_config(TextConfig, values)


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    return saved_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def bert(bert_folder):
    return registry.make_text_tower(config(text_tower=f"hf:{bert_folder}"))


@pytest.fixture
def no_network(monkeypatch):
    from huggingface_hub import constants

    def refuse(*_args, **_kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_OFFLINE", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "")  # so that what the code sets is undone afterwards
    return constants


# ---- open_clip


def test_tokens_cut_at_the_longest_give_what_open_clip_gives_for_all_77():
    clip, tokenizer = open_clip_tower()
    torch.nn.init.normal_(clip.positional_embedding, std=0.5)
    tower = ClipTower(clip, tokenizer)
    ids, lengths = tower.tokenize(CAPTIONS)
    assert ids.shape == (4, 77) and tower.dim == 24
    assert lengths[0] == 4 and int(lengths.max()) < 20  # start, one, waves, end
    with torch.inference_mode():
        torch.testing.assert_close(
            tower(ids[:, : int(lengths.max())], lengths), clip(tokenizer(CAPTIONS)), **CLOSE
        )


def test_a_tower_that_sees_the_whole_text_at_once_is_given_all_tokens():
    clip, tokenizer = open_clip_tower(no_causal_mask=True)
    tower = ClipTower(clip, tokenizer)
    ids, lengths = tower.tokenize(CAPTIONS)
    assert lengths.tolist() == [77] * 4
    with torch.inference_mode():
        torch.testing.assert_close(tower(ids, lengths), clip(ids), **CLOSE)


def test_a_tower_from_scratch_reads_the_mean_and_padding_changes_nothing():
    tower = registry.make_text_tower(
        config(text_weights="none", text_width=64, text_layers=1)
    ).eval()
    assert tower.mean and tower.dim == 64
    ids, lengths = tower.tokenize(CAPTIONS)
    with torch.inference_mode():
        padded = tower(ids, lengths)
        alone = torch.cat(
            [tower(ids[[row], : int(length)], lengths[[row]]) for row, length in enumerate(lengths)]
        )
        longer = tower(ids[:1, :9], torch.tensor([9]))
    torch.testing.assert_close(alone, padded, **CLOSE)
    torch.testing.assert_close(padded[0], padded[3])
    assert not torch.allclose(longer, padded[:1], atol=1e-2)


def test_a_local_open_clip_checkpoint_is_read(tmp_path, monkeypatch):
    import open_clip
    from open_clip import factory

    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
    vision = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1}
    about = {
        "embed_dim": 16,
        "vision_cfg": vision,
        "text_cfg": {"width": 64, "heads": 2, "layers": 1, "vocab_size": 49408},
    }
    tmp_path.joinpath("tiny-clip.json").write_text(json.dumps(about))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    torch.manual_seed(3)
    whole = open_clip.create_model("tiny-clip").eval()
    torch.save(whole.state_dict(), tmp_path / "helpers.pt")
    torch.manual_seed(4)
    tower = registry.make_text_tower(
        config(text_tower="tiny-clip", text_weights=str(tmp_path / "helpers.pt"))
    ).eval()
    ids, lengths = tower.tokenize(CAPTIONS)
    with torch.inference_mode():
        torch.testing.assert_close(
            tower(ids[:, : int(lengths.max())], lengths), whole.encode_text(ids), **CLOSE
        )

    every, visual, mine = (
        sum(weight.numel() for weight in half.parameters()) for half in (whole, whole.visual, tower)
    )
    assert (
        mine == every - visual - 1
    )  # the visual half has not come along, nor the scale of the logits

    for content in (b"", b"this is no checkpoint", b"garbage"):
        tmp_path.joinpath("broken.pt").write_bytes(content)
        with pytest.raises(WeightsError, match=r"broken.pt: the weights cannot be loaded \(\w"):
            registry.make_text_tower(
                config(text_tower="tiny-clip", text_weights=str(tmp_path / "broken.pt"))
            )
    torch.save({"something": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="the weights cannot be loaded"):
        registry.make_text_tower(
            config(text_tower="tiny-clip", text_weights=str(tmp_path / "other.pt"))
        )


# ---- Hugging Face


def test_a_local_encoder_gives_the_mean_over_its_real_tokens(bert):
    assert isinstance(bert, HfTower) and bert.dim == 32
    encoded = bert.tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    ids, lengths = bert.tokenize(CAPTIONS)
    assert torch.equal(ids, encoded["input_ids"]) and lengths.tolist() == [4, 17, 4, 4]
    with torch.inference_mode():
        vectors = bert.eval()(ids, lengths)
        hidden = bert.encoder(**encoded).last_hidden_state
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(
            vectors[row], sum(hidden[row, place] for place in range(length)) / length, **CLOSE
        )


def test_padding_changes_nothing_of_a_hugging_face_encoder(bert):
    ids, lengths = bert.eval().tokenize(CAPTIONS)
    with torch.inference_mode():
        together = bert(ids, lengths)
        for row, length in enumerate(lengths.tolist()):
            torch.testing.assert_close(
                bert(ids[[row], :length], lengths[[row]]), together[[row]], **CLOSE
            )


def test_a_text_longer_than_the_encoder_takes_is_cut(bert):
    ids, lengths = bert.tokenize(["one waves " * 40])
    assert ids.shape == (1, 24) and lengths.tolist() == [24]
    assert bert(ids, lengths).isfinite().all()


# ---- both


@pytest.mark.parametrize("which", ["clip", "hf"])
def test_attention_is_torchs_own_fused_function(monkeypatch, bert, which):
    calls = []
    real = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *a, **kw: calls.append(1) or real(*a, **kw),
    )
    tower = bert if which == "hf" else ClipTower(*open_clip_tower())
    tower.train()(*tower.tokenize(CAPTIONS)).sum().backward()
    assert len(calls) == 2  # layers


# ---- weights that cannot be had


@pytest.mark.parametrize(
    "tower", ["hf:nobody/has-this-encoder", "hf:/nowhere/encoder", "hf:two words"]
)
@pytest.mark.usefixtures("no_network")
def test_without_network_a_hub_encoder_is_an_error_that_names_the_flag(tower):
    with pytest.raises(WeightsError) as error:
        registry.make_text_tower(config(text_tower=tower))
    assert error.value.path == tower
    assert "--text_tower hf:FOLDER" in error.value.fix and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        {"text_tower": "hf:nobody/has-this-encoder"},
        {"text_tower": "ViT-B-32", "text_weights": "openai"},
    ],
)
@pytest.mark.usefixtures("no_network")
def test_a_proxy_that_does_not_answer_is_no_network_and_nothing_is_tried_again(
    monkeypatch, tmp_path, values
):
    import time

    monkeypatch.undo()  # of the fixture: the connection is refused by this machine itself
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(WeightsError) as error:
        registry.make_text_tower(config(**values))
    assert "--text_weights none" in error.value.fix and not waits


def test_without_network_open_clip_weights_are_an_error_that_names_the_flag(
    no_network, monkeypatch
):
    """create_model raises here what it raises where nothing is cached."""
    import open_clip
    from huggingface_hub.errors import LocalEntryNotFoundError

    def nothing_cached(*_args, **_kwargs):
        assert os.environ["HF_HUB_OFFLINE"] == "1" and no_network.HF_HUB_OFFLINE is True
        raise LocalEntryNotFoundError("outgoing traffic has been disabled\nand more lines")

    monkeypatch.setattr(open_clip, "create_model", nothing_cached)
    with pytest.raises(WeightsError) as error:
        registry.make_text_tower(config(text_tower="ViT-B-32", text_weights="laion2b_s34b_b79k"))
    assert "ViT-B-32 laion2b_s34b_b79k" in error.value.path and "traffic" in error.value.problem
    assert "--text_weights" in error.value.fix and "\n" not in str(error.value)


def test_a_folder_with_broken_weights_is_an_error(tmp_path):
    folder = saved_bert(tmp_path)
    folder.joinpath("model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="no such encoder can be loaded"):
        registry.make_text_tower(config(text_tower=f"hf:{folder}"))
    folder.joinpath("model.safetensors").unlink()
    with pytest.raises(WeightsError, match="no such encoder can be loaded"):
        registry.make_text_tower(config(text_tower=f"hf:{folder}"))


def test_weights_that_are_missing_are_an_error_and_not_drawn_at_random(tmp_path):
    from safetensors.torch import load_file, save_file

    file = saved_bert(tmp_path) / "model.safetensors"
    whole = load_file(file)
    save_file(
        {key: value for key, value in whole.items() if "pooler" not in key},
        file,
        metadata={"format": "pt"},
    )
    assert (
        registry.make_text_tower(config(text_tower=f"hf:{tmp_path}")).dim == 32
    )  # nobody reads the pooler
    save_file(
        {key: value for key, value in whole.items() if "layer.1" not in key},
        file,
        metadata={"format": "pt"},
    )
    with pytest.raises(WeightsError, match=r"its weights lack encoder\.layer\.1\."):
        registry.make_text_tower(config(text_tower=f"hf:{tmp_path}"))


def test_pickled_weights_are_not_opened(tmp_path):
    """Only safetensors are: a pickle may run code."""
    folder = saved_bert(tmp_path)
    torch.save(
        registry.make_text_tower(config(text_tower=f"hf:{folder}")).encoder.state_dict(),
        folder / "pytorch_model.bin",
    )
    folder.joinpath("model.safetensors").unlink()
    with pytest.raises(WeightsError):
        registry.make_text_tower(config(text_tower=f"hf:{folder}"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text_tower": "ViT-Z-99"}, r"--text_tower: open_clip has no model 'ViT-Z-99' .*ViT-B-32"),
        (
            {"text_tower": "ViT-Z-99", "text_weights": "none"},
            "--text_tower: open_clip has no model",
        ),
        (
            {"text_weights": "laion9b"},
            r"--text_weights: 'laion9b' is neither a file nor a tag of ViT-B-32 .*openai",
        ),
        (
            {"text_weights": "nowhere/weights.pt"},
            r"--text_weights: 'nowhere/weights.pt' is neither a file nor a tag",
        ),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_names_that_nobody_knows_are_errors_of_their_flag(values, message):
    with pytest.raises(WeightsError, match=message):
        registry.make_text_tower(config(**values))


def test_only_an_open_clip_tower_without_weights_is_from_scratch():
    assert text_tower.trains_from_scratch(config(text_weights="none"))
    assert not text_tower.trains_from_scratch(config(text_weights="openai"))
    assert not text_tower.trains_from_scratch(
        config(text_weights="none", text_tower="hf:somewhere")
    )
