"""A text tower is adapted to captions: those of one motion come closer than they were."""

import json
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import adapt
import helpers
from motret.config.base import MachineConfig
from motret.config.scripts import AdaptConfig
from motret.errors import ConfigError, DataError
from motret.models.hf_tower import make_hf_tower
from motret.training import text_adaptation

WAVES = ["one person waves", "the other person waves", "first person waves", "person waves one"]
BOWS = ["both bow", "the other and one bow", "first one and the other bow", "bow both"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return helpers.saved_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def config(bert, tmp_path):
    machine = MachineConfig(device="cpu")
    return AdaptConfig(text_tower=f"hf:{bert}", out=tmp_path / "tower", steps=3, machine=machine)


def captions_json(path, motions=20):
    """Motions of two kinds, in random words of each kind."""
    rng = np.random.default_rng(0)
    kinds = (WAVES, BOWS)
    content = {str(i): list(rng.choice(kinds[i % 2], 2, replace=False)) for i in range(motions)}
    path.write_text(json.dumps(content))
    return path


def reference_loss(embeddings, first, second, tau):
    """In float64, sentence by sentence."""
    own, other = embeddings.double().numpy().reshape(2, len(first), -1)
    total = 0.0
    for rows, columns, texts, other_texts in (
        (own, other, first, second),
        (other, own, second, first),
    ):
        for i, row in enumerate(rows):
            kept = [
                j
                for j in range(len(columns))
                if j == i or not {texts[i], other_texts[i]} & {texts[j], other_texts[j]}
            ]
            logits = columns[kept] @ row / tau
            total += np.log(np.exp(logits).sum()) - logits[kept.index(i)]
    return total / (2 * len(first))


def test_the_loss_is_the_contrast_of_sentences_in_both_directions():
    torch.manual_seed(0)
    embeddings = F.normalize(torch.randn(8, 5), dim=-1)
    first, second = ["a", "b", "c", "d"], ["e", "f", "g", "h"]
    loss = text_adaptation.sentence_loss(embeddings, first, second, 0.05)
    assert float(loss) == pytest.approx(reference_loss(embeddings, first, second, 0.05), rel=1e-5)


def test_motions_with_a_caption_in_common_are_no_negatives():
    torch.manual_seed(0)
    embeddings = F.normalize(torch.randn(6, 5), dim=-1)
    first, second = ["they hug", "a", "b"], ["c", "They hug!", "d"]
    loss = text_adaptation.sentence_loss(embeddings, first, second, 0.05)
    same = ["they hug", "a", "b"], ["c", "they hug", "d"]
    assert float(loss) == pytest.approx(reference_loss(embeddings, *same, 0.05), rel=1e-5)


def test_a_batch_has_two_captions_of_each_of_different_motions(config):
    sets = [(f"{name} waves", f"{name} bows") for name in "abcdefgh"]
    rng = np.random.default_rng(0)
    first, second = text_adaptation.sample_positives(sets, config, rng)
    assert sorted(text[0] for text in first) == list("abcdefgh")
    assert [text[0] for text in first] == [text[0] for text in second]
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_joined_captions_tell_the_same_scene_twice(config):
    sets = [(f"a man does {name}", f"he does {name}") for name in "pqrstuvw"]
    rng = np.random.default_rng(0)
    whole = replace(config, join=1.0)
    first, second = text_adaptation.sample_positives(sets, whole, rng)
    deeds = [
        ({word for word in text.replace(",", "").replace(".", "").split() if len(word) == 1})
        for text in (*first, *second)
    ]
    assert max(len(deed - {"a"}) for deed in deeds) == 2
    shared = zip(deeds[: len(first)], deeds[len(first) :], strict=True)
    assert all(len((one | other) - {"a"}) <= 2 for one, other in shared)


def test_sentences_of_one_motion_come_closer(config, tmp_path):
    sets = [(f"{text} {other}", f"{other} {text}") for text in WAVES for other in BOWS]
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    tower = make_hf_tower(config.text_tower.removeprefix("hf:"))

    def mean_loss():
        first, second = zip(*sets, strict=True)
        with torch.no_grad():
            embeddings = text_adaptation.embed_sentences(tower.eval(), [*first, *second])
        return float(text_adaptation.sentence_loss(embeddings, first, second, config.tau))

    before = mean_loss()
    text_adaptation.train_tower(tower, sets, replace(config, steps=30, lr=1e-3), rng)
    assert mean_loss() < before - 0.1


def test_the_script_writes_an_encoder_that_train_can_load(config, tmp_path, capsys):
    captions = captions_json(tmp_path / "captions.json")
    out = tmp_path / "tower"
    args = ["--text_tower", config.text_tower, "--captions", str(captions), "--out", str(out)]
    assert adapt.main([*args, "--steps", "3", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert f"--text_tower hf:{out}" in printed.out
    assert "R@1" in printed.out + printed.err
    adapted, start = make_hf_tower(str(out)), make_hf_tower(config.text_tower.removeprefix("hf:"))
    assert adapted.vocabulary() == start.vocabulary()
    weights = zip(adapted.parameters(), start.parameters(), strict=True)
    assert any(not torch.equal(new, old) for new, old in weights)
    facts = json.loads((out / text_adaptation.MARKER).read_text())
    assert facts["steps"] == 3 and facts["motions"] == 18 and facts["after"]["motions"] == 2


def test_the_same_seed_gives_the_same_encoder(config, tmp_path):
    sets = [(f"{text} {other}", f"{other} {text}") for text in WAVES for other in BOWS]
    weights = []
    for name in ("a", "b"):
        text_adaptation.adapt_text_tower(replace(config, out=tmp_path / name), sets)
        weights.append(make_hf_tower(str(tmp_path / name)).state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_full_disk_is_one_line_and_leaves_the_former_encoder(config, tmp_path, capsys):
    """The libraries that write it hide the error of the system in errors of their own."""
    captions = captions_json(tmp_path / "captions.json")
    args = ["--text_tower", config.text_tower, "--captions", str(captions), "--device", "cpu"]
    args += ["--out", str(config.out), "--steps", "1"]
    assert adapt.main(args) == 0
    before = {path: path.read_bytes() for path in config.out.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (len(before[config.out / "model.safetensors"]), 1000):
        capsys.readouterr()
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, limits[1]))
        try:
            assert adapt.main([*args, "--lr", "1e-2"]) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        error = capsys.readouterr().err
        assert error.startswith(f"error: {config.out}") and "would be larger than files" in error
        assert {path: path.read_bytes() for path in config.out.iterdir()} == before
        assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_folder_of_something_else_is_not_replaced(config, tmp_path):
    config.out.mkdir()
    (config.out / "thesis.txt").write_text("years of work")
    sets = [(text, other) for text in WAVES for other in BOWS]
    with pytest.raises(DataError, match="did not make"):
        text_adaptation.adapt_text_tower(config, sets)
    assert (config.out / "thesis.txt").read_text() == "years of work"


def test_a_tower_of_another_kind_and_too_few_captions_are_errors(config):
    with pytest.raises(ConfigError, match="no Hugging Face encoder"):
        text_adaptation.adapt_text_tower(replace(config, text_tower="ViT-B-32"), [("a", "b")] * 40)
    with pytest.raises(ConfigError, match="--captions: only 5 motions"):
        text_adaptation.adapt_text_tower(config, [("a", "b")] * 5)
