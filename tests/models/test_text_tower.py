"""Text towers: the same vectors however captions are padded, made once, and a clear word where weights cannot be had."""

import json
import os
import socket

import numpy as np
import pytest
import torch

from helpers import CAPTIONS, CLOSE, WORDS, open_clip_tower, saved_bert
from motret.config import base
from motret.config.training import TextConfig
from motret.errors import WeightsError
from motret.models import embed, registry, text_tower
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

    def refuse(*args, **kwargs):
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
        torch.testing.assert_close(tower(ids[:, : int(lengths.max())], lengths), clip(tokenizer(CAPTIONS)), **CLOSE)


def test_a_tower_that_sees_the_whole_text_at_once_is_given_all_tokens():
    clip, tokenizer = open_clip_tower(no_causal_mask=True)
    tower = ClipTower(clip, tokenizer)
    ids, lengths = tower.tokenize(CAPTIONS)
    assert lengths.tolist() == [77] * 4
    with torch.inference_mode():
        torch.testing.assert_close(tower(ids, lengths), clip(ids), **CLOSE)


def test_a_tower_from_scratch_reads_the_mean_and_padding_changes_nothing():
    tower = registry.make_text_tower(config(text_weights="none", text_width=64, text_layers=1)).eval()
    assert tower.mean and tower.dim == 64
    ids, lengths = tower.tokenize(CAPTIONS)
    with torch.inference_mode():
        padded = tower(ids, lengths)
        alone = torch.cat([tower(ids[[row], : int(length)], lengths[[row]]) for row, length in enumerate(lengths)])
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
    tower = registry.make_text_tower(config(text_tower="tiny-clip", text_weights=str(tmp_path / "helpers.pt"))).eval()
    ids, lengths = tower.tokenize(CAPTIONS)
    with torch.inference_mode():
        torch.testing.assert_close(tower(ids[:, : int(lengths.max())], lengths), whole.encode_text(ids), **CLOSE)

    every, visual, mine = (sum(weight.numel() for weight in half.parameters()) for half in (whole, whole.visual, tower))
    assert mine == every - visual - 1  # the visual half has not come along, nor the scale of the logits

    for content in (b"", b"this is no checkpoint", b"garbage"):
        tmp_path.joinpath("broken.pt").write_bytes(content)
        with pytest.raises(WeightsError, match=r"tiny-clip .*broken.pt: the weights cannot be loaded: \w"):
            registry.make_text_tower(config(text_tower="tiny-clip", text_weights=str(tmp_path / "broken.pt")))
    torch.save({"something": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="the weights cannot be loaded"):
        registry.make_text_tower(config(text_tower="tiny-clip", text_weights=str(tmp_path / "other.pt")))


# ---- Hugging Face


def test_a_local_encoder_gives_the_mean_over_its_real_tokens(bert):
    assert isinstance(bert, HfTower) and bert.dim == 32
    made = bert.tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    ids, lengths = bert.tokenize(CAPTIONS)
    assert torch.equal(ids, made["input_ids"]) and lengths.tolist() == [4, 17, 4, 4]
    with torch.inference_mode():
        found = bert.eval()(ids, lengths)
        hidden = bert.encoder(**made).last_hidden_state
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(found[row], sum(hidden[row, place] for place in range(length)) / length, **CLOSE)


def test_padding_changes_nothing_of_a_hugging_face_encoder(bert):
    ids, lengths = bert.eval().tokenize(CAPTIONS)
    with torch.inference_mode():
        together = bert(ids, lengths)
        for row, length in enumerate(lengths.tolist()):
            torch.testing.assert_close(bert(ids[[row], :length], lengths[[row]]), together[[row]], **CLOSE)


def test_a_text_longer_than_the_encoder_takes_is_cut(bert):
    ids, lengths = bert.tokenize(["one waves " * 40])
    assert ids.shape == (1, 24) and lengths.tolist() == [24]
    assert bert(ids, lengths).isfinite().all()


# ---- both


@pytest.mark.parametrize("which", ["clip", "hf"])
def test_attention_is_torchs_own_fused_function(monkeypatch, bert, which):
    seen = []
    real = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *a, **kw: seen.append(1) or real(*a, **kw),
    )
    tower = bert if which == "hf" else ClipTower(*open_clip_tower())
    tower.train()(*tower.tokenize(CAPTIONS)).sum().backward()
    assert len(seen) == 2  # layers


# ---- the bank


class Counted(torch.nn.Module):
    """A tower that counts the captions it is asked for; its vector is the length, weighed."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([weight, -weight]))
        self.dim, self.seen, self.tokenized = 2, 0, 0

    def tokenize(self, captions):
        self.tokenized += len(captions)
        return torch.zeros(len(captions), 30, dtype=torch.long), torch.tensor([len(caption) for caption in captions])

    def forward(self, ids, lengths):
        self.seen += len(ids)
        assert ids.shape[1] == 30 or ids.shape[1] == int(lengths.max())
        return lengths[:, None] * self.weight


def test_frozen_vectors_are_made_once_and_kept(tmp_path):
    tower = Counted()
    captions = ["bbb", "a", "bbb", "cc"]
    banks = [embed.make_caption_bank(captions, tower, True, tmp_path, CPU) for _ in range(2)]
    assert tower.seen == 3 and tower.tokenized == 2 * 3  # the tokens are part of the key
    for bank in banks:
        assert bank.ids is None and len(bank.index) == 3
        assert bank.vectors[bank.indices(captions)].tolist() == [[3, -3], [1, -1], [3, -3], [2, -2]]
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


def test_other_weights_or_captions_are_not_answered_from_the_cache(tmp_path):
    class Swapped(Counted):
        """Sums of its weights are those of Counted."""

        def __init__(self):
            super().__init__()
            self.weight.data = self.weight.data.flip(0)

    Swapped.__name__ = "Counted"
    first = embed.make_caption_bank(["a"], Counted(), True, tmp_path, CPU)
    for tower, captions in ((Counted(2.0), ["a"]), (Counted(), ["bb"]), (Swapped(), ["a"])):
        bank = embed.make_caption_bank(captions, tower, True, tmp_path, CPU)
        assert tower.seen == 1
        assert not torch.equal(bank.vectors, first.vectors)


def test_other_tokens_of_the_same_captions_are_not_answered_from_the_cache(tmp_path, bert, bert_folder):
    before = embed.make_caption_bank(CAPTIONS, bert, True, tmp_path, CPU)
    other = registry.make_text_tower(config(text_tower=f"hf:{bert_folder}"))
    other.tokenizer = bert.tokenizer.__class__(vocab={word: at for at, word in enumerate(WORDS[:5] + WORDS[:4:-1])})
    assert not torch.equal(other.tokenize(CAPTIONS)[0], bert.tokenize(CAPTIONS)[0])
    assert not torch.allclose(embed.make_caption_bank(CAPTIONS, other, True, tmp_path, CPU).vectors, before.vectors)


def test_a_tower_that_trains_gets_tokens_instead(tmp_path):
    tower = Counted()
    bank = embed.make_caption_bank(["bbb", "a"], tower, False, tmp_path, CPU)
    assert tower.seen == 0 and not list(tmp_path.iterdir())
    assert bank.vectors is None and bank.ids.shape == (2, 30)
    assert bank.lengths[bank.indices(["bbb", "a"])].tolist() == [3, 1]


def test_embedding_keeps_the_order_of_the_captions_whatever_batches_they_went_in(monkeypatch, bert):
    monkeypatch.setattr(embed, "computes_in_bfloat16", lambda device: False)
    whole = embed.embed_frozen(bert, *bert.tokenize(CAPTIONS), CPU)
    monkeypatch.setattr(embed, "EMBED_BATCH_SIZE", 2)
    np.testing.assert_allclose(embed.embed_frozen(bert, *bert.tokenize(CAPTIONS), CPU), whole, **CLOSE)
    ids, lengths = bert.tokenize(CAPTIONS)
    with torch.inference_mode():
        np.testing.assert_allclose(whole, bert(ids, lengths).numpy(), **CLOSE)


def test_hardware_with_bfloat16_gives_nearly_the_same_vectors_under_a_key_of_their_own(monkeypatch, tmp_path, bert):
    found = {}
    for halved in (False, True):
        monkeypatch.setattr(embed, "computes_in_bfloat16", lambda device, halved=halved: halved)
        found[halved] = embed.make_caption_bank(CAPTIONS, bert, True, tmp_path, CPU).vectors
    assert len(list(tmp_path.iterdir())) == 2
    assert not torch.equal(found[True], found[False])
    assert torch.nn.functional.cosine_similarity(found[True], found[False]).min() > 0.999


# ---- weights that cannot be had


@pytest.mark.parametrize("tower", ["hf:nobody/has-this-encoder", "hf:/nowhere/encoder", "hf:two words"])
def test_without_network_a_hub_encoder_is_a_fault_that_names_the_flag(no_network, tower):
    with pytest.raises(WeightsError) as fault:
        registry.make_text_tower(config(text_tower=tower))
    assert fault.value.path == tower
    assert "--text_tower hf:FOLDER" in fault.value.fix and "\n" not in str(fault.value)


@pytest.mark.parametrize(
    "values",
    [
        {"text_tower": "hf:nobody/has-this-encoder"},
        {"text_tower": "ViT-B-32", "text_weights": "openai"},
    ],
)
def test_a_proxy_that_does_not_answer_is_no_network_and_nothing_is_tried_again(no_network, monkeypatch, tmp_path, values):
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
    with pytest.raises(WeightsError) as fault:
        registry.make_text_tower(config(**values))
    assert "--text_weights none" in fault.value.fix and not waits


def test_without_network_open_clip_weights_are_a_fault_that_names_the_flag(no_network, monkeypatch):
    """create_model is the library's; what it raises where nothing is cached is what it raises here."""
    import open_clip
    from huggingface_hub.errors import LocalEntryNotFoundError

    def nothing_cached(*args, **kwargs):
        assert os.environ["HF_HUB_OFFLINE"] == "1" and no_network.HF_HUB_OFFLINE is True
        raise LocalEntryNotFoundError("outgoing traffic has been disabled\nand more lines")

    monkeypatch.setattr(open_clip, "create_model", nothing_cached)
    with pytest.raises(WeightsError) as fault:
        registry.make_text_tower(config(text_tower="ViT-B-32", text_weights="laion2b_s34b_b79k"))
    assert "ViT-B-32 laion2b_s34b_b79k" in fault.value.path and "traffic" in fault.value.problem
    assert "--text_weights" in fault.value.fix and "\n" not in str(fault.value)


def test_a_folder_with_broken_weights_is_a_fault(tmp_path):
    folder = saved_bert(tmp_path)
    folder.joinpath("model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="no such encoder can be loaded"):
        registry.make_text_tower(config(text_tower=f"hf:{folder}"))
    folder.joinpath("model.safetensors").unlink()
    with pytest.raises(WeightsError, match="no such encoder can be loaded"):
        registry.make_text_tower(config(text_tower=f"hf:{folder}"))


def test_weights_that_are_missing_are_a_fault_and_not_drawn_at_random(tmp_path):
    from safetensors.torch import load_file, save_file

    file = saved_bert(tmp_path) / "model.safetensors"
    whole = load_file(file)
    save_file(
        {key: value for key, value in whole.items() if "pooler" not in key},
        file,
        metadata={"format": "pt"},
    )
    assert registry.make_text_tower(config(text_tower=f"hf:{tmp_path}")).dim == 32  # nobody reads the pooler
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
    ("values", "said"),
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
def test_names_that_nobody_knows_are_faults_of_their_flag(no_network, values, said):
    with pytest.raises(WeightsError, match=said):
        registry.make_text_tower(config(**values))


def test_only_an_open_clip_tower_without_weights_is_from_scratch():
    assert text_tower.trains_from_scratch(config(text_weights="none"))
    assert not text_tower.trains_from_scratch(config(text_weights="openai"))
    assert not text_tower.trains_from_scratch(config(text_weights="none", text_tower="hf:somewhere"))
