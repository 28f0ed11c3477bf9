"""CLIP under the activation of its weights: by tag, file or flag; archives read, not run."""

import hashlib
import json
import zipfile

import pytest
import torch

import helpers
import train
from helpers import CAPTIONS, CLOSE, CPU, saved_bert
from motret.config import base, cli
from motret.config.training import TextConfig
from motret.errors import ConfigError, WeightsError
from motret.models import clip_weights, embed, registry
from motret.runs import run
from motret.training.train import apply_weights_settings

VISION = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1}
CLIP = {
    "embed_dim": 16,
    "vision_cfg": VISION,
    "text_cfg": {"width": 64, "heads": 1, "layers": 2, "vocab_size": 49408},
}


def config(**values):
    return base.build_config(TextConfig, {"text_tower": "tiny-clip"} | values)


@pytest.fixture
def clip(tmp_path, monkeypatch):
    """Two tiny models of open_clip: `tiny-clip`, with GELU, and `tiny-clip-quickgelu`."""
    import open_clip
    from open_clip import factory

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
    for name, config_values in (
        ("tiny-clip", CLIP),
        ("tiny-clip-quickgelu", CLIP | {"quick_gelu": True}),
    ):
        tmp_path.joinpath(f"{name}.json").write_text(json.dumps(config_values))
        open_clip.add_model_config(tmp_path / f"{name}.json")
    return open_clip


def make_clip(clip, quick, **values):
    torch.manual_seed(0)
    return clip.create_model("tiny-clip-quickgelu" if quick else "tiny-clip", **values).eval()


def save_clip(clip, path, quick=True):
    """Path of a state dict of a model with QuickGELU (or GELU), and its caption vectors."""
    clip_model = make_clip(clip, quick)
    torch.save(clip_model.state_dict(), path)
    return str(path), clip_vectors(clip_model)


def clip_vectors(clip_model):
    import open_clip

    with torch.inference_mode():
        return clip_model.encode_text(open_clip.get_tokenizer("ViT-B-32")(CAPTIONS))


def encode(**values):
    tower = registry.make_text_tower(config(**values)).eval()
    with torch.inference_mode():
        return tower(*tower.tokenize(CAPTIONS)), tower.note


@pytest.fixture
def tags(clip, tmp_path, monkeypatch):
    """Caption vectors by tag of tiny-clip: `openai` (QuickGELU), `laion` (GELU), as downloaded."""
    from open_clip import factory, pretrained

    expected, tags_of_model = {}, {}
    for tag, quick in (("openai", True), ("laion", False)):
        path, expected[tag] = save_clip(clip, tmp_path / f"{tag}.pt", quick)
        tags_of_model[tag] = {"file": path, "quick_gelu": True} if quick else {"file": path}
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny-clip", tags_of_model)
    monkeypatch.setattr(
        factory, "download_pretrained", lambda config_values, **_: config_values["file"]
    )
    return expected


@pytest.mark.parametrize(("tag", "name"), [("openai", "QuickGELU"), ("laion", "GELU")])
def test_a_tag_is_built_with_the_activation_it_was_trained_with(tags, tag, name):
    vectors, note = encode(text_weights=tag)
    torch.testing.assert_close(vectors, tags[tag], **CLOSE)
    assert note == f"text tower tiny-clip {tag}: {name} (as the tag {tag} was trained)"
    vectors_by_name, note = encode(text_weights=tag, text_activation="model")
    assert torch.allclose(vectors_by_name, tags[tag], atol=1e-4) == (tag == "laion")
    assert ("although the weights need QuickGELU" in note) == (tag == "openai")


def test_the_tags_of_the_presets_are_known_to_open_clip_with_their_activation():
    for tag, quick in (("openai", True), ("laion2b_s34b_b79k", False)):
        assert (
            clip_weights.choose_activation(
                base.build_config(TextConfig, {"text_weights": tag})
            ).quick
            == quick
        )


def test_features_of_a_quick_gelu_model_saved_and_loaded_come_back_equal(clip, tmp_path):
    path, expected = save_clip(clip, tmp_path / "weights.pt")
    for values in ({"text_activation": "quick_gelu"}, {"text_tower": "tiny-clip-quickgelu"}):
        torch.testing.assert_close(encode(text_weights=path, **values)[0], expected, **CLOSE)
    other, note = encode(text_weights=path)
    assert not torch.allclose(
        other, expected, atol=1e-4
    )  # nothing says where the file is from: as its name says, aloud
    assert "GELU (as the name tiny-clip says" in note and "add --text_activation quick_gelu" in note
    assert "by --text_activation" in encode(text_weights=path, text_activation="gelu")[1]


def test_a_configuration_beside_the_file_tells(clip, tmp_path):
    path, expected = save_clip(clip, tmp_path / "open_clip_model.pt")
    config_path = tmp_path / "open_clip_config.json"
    config_path.write_text(json.dumps({"model_cfg": CLIP | {"quick_gelu": True}}))
    vectors, note = encode(text_weights=path)
    torch.testing.assert_close(vectors, expected, **CLOSE)
    assert "QuickGELU (by open_clip_config.json beside the file)" in note
    config_path.write_text("{")
    with pytest.raises(WeightsError, match=r"open_clip_config.json: not JSON .*--text_activation"):
        encode(text_weights=path)


def test_a_published_checksum_tells(clip, tmp_path, monkeypatch):
    from open_clip import pretrained

    path, expected = save_clip(clip, tmp_path / "weights.pt")
    checksum = hashlib.sha256(tmp_path.joinpath("weights.pt").read_bytes()).hexdigest()
    for url in (
        f"https://somewhere/clip/models/{checksum}/Tiny.pt",
        f"https://somewhere/tiny-quickgelu-{checksum[:8]}.pt",
    ):
        clip_weights._published_checksums.cache_clear()
        monkeypatch.setitem(
            pretrained._PRETRAINED, "tiny-clip", {"openai": {"url": url, "quick_gelu": True}}
        )
        vectors, note = encode(text_weights=path)
        torch.testing.assert_close(vectors, expected, **CLOSE)
        assert "QuickGELU (the checksum is that of tiny-clip openai)" in note
    clip_weights._published_checksums.cache_clear()


def test_every_file_of_openai_has_a_checksum_that_means_quick_gelu():
    checksums = {
        (model, tag): (digits, quick)
        for model, tag, digits, quick in clip_weights._published_checksums()
    }
    digits, quick = checksums["ViT-B-32", "openai"]
    assert digits.startswith("40d365715913c9da") and len(digits) == 64 and quick
    assert checksums["ViT-B-32", "laion2b_e16"] == ("af8dbd0c", False)


# ---- OpenAI's archive


class AsPublished(torch.nn.Module):
    """A CLIP with its text weights at the top, as OpenAI has them, some in half precision."""

    def __init__(self, clip_model):
        super().__init__()
        tower = clip_model.text
        self.visual = torch.nn.Linear(3, 3)
        self.transformer, self.token_embedding, self.ln_final = (
            tower.transformer,
            tower.token_embedding,
            tower.ln_final,
        )
        self.positional_embedding, self.text_projection = (
            tower.positional_embedding,
            tower.text_projection,
        )
        self.register_buffer("context_length", torch.tensor(77))

    def forward(self, ids):
        return (
            self.ln_final(self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]])
            @ self.text_projection
        )


@pytest.fixture
def archive(clip, tmp_path):
    """An archive in OpenAI's form, and its caption vectors."""
    clip_model = make_clip(clip, quick=True, force_custom_text=True)
    for weight in clip_model.text.transformer.parameters():
        weight.data = weight.data.half().float()
    expected = clip_vectors(clip_model)
    published = AsPublished(clip_model)
    traced = torch.jit.trace(published, torch.zeros(1, 5, dtype=torch.long))
    traced.transformer.half()
    traced.save(tmp_path / "ViT-B-32.pt")
    return tmp_path / "ViT-B-32.pt", expected


def test_openais_archive_is_recognised_and_read(archive, clip, tmp_path):
    path, expected = archive
    vectors, note = encode(text_weights=str(path))
    torch.testing.assert_close(vectors, expected, **CLOSE)
    assert note == f"text tower tiny-clip {path}: QuickGELU (OpenAI's archive form)"
    assert clip_weights.is_archive(path) and not clip_weights.is_archive(
        tmp_path / "tiny-clip.json"
    )
    assert not clip_weights.is_archive(tmp_path / save_clip(clip, tmp_path / "dict.pt")[0])
    state = torch.jit.load(path).state_dict()
    mine = clip_weights.read_archive(path)
    assert all(
        torch.equal(mine[name], value) and mine[name].dtype == value.dtype
        for name, value in state.items()
    )


def test_an_archive_of_another_model_or_a_damaged_one_is_an_error(archive):
    path, _ = archive
    with pytest.raises(WeightsError, match=r"ViT-B-32 .*: the weights cannot be loaded"):
        encode(text_tower="ViT-B-32", text_weights=str(path))
    with (
        zipfile.ZipFile(path) as clip_model,
        zipfile.ZipFile(path.with_name("evil.pt"), "w") as evil,
    ):
        for name in clip_model.namelist():
            pickled = (
                b"cposix\nsystem\n(S'true'\ntR."
                if name.endswith("/data.pkl")
                else clip_model.read(name)
            )
            evil.writestr(name, pickled)
    with pytest.raises(
        WeightsError, match=r"the archive is damaged \(posix\.system has no place in it"
    ):
        encode(text_weights=str(path.with_name("evil.pt")))


# ---- the flag


def test_a_flag_against_what_the_weights_are_known_to_need_is_an_error(tags, archive):
    for values, clip_vectors in (
        (
            {"text_weights": "openai", "text_activation": "gelu"},
            r"tiny-clip openai: needs QuickGELU \(as the tag openai was trained\)",
        ),
        ({"text_weights": "laion", "text_activation": "quick_gelu"}, "needs GELU"),
        ({"text_weights": str(archive[0]), "text_activation": "gelu"}, "OpenAI's archive form"),
    ):
        with pytest.raises(WeightsError, match=clip_vectors):
            encode(**values)
    torch.testing.assert_close(
        encode(text_weights="openai", text_activation="quick_gelu")[0], tags["openai"], **CLOSE
    )


def test_the_flag_is_for_open_clip_towers():
    with pytest.raises(ConfigError, match="--text_activation: is quick_gelu"):
        encode(text_activation="quick_gelu", text_tower="hf:somewhere")


def test_an_activation_that_a_preset_gives_its_tower_from_scratch_is_not_for_pretrained_ones():
    for flags, expected in (
        (["--text_tower", "hf:somewhere"], "auto"),
        (["--text_weights", "laion2b_s34b_b79k"], "auto"),
        ([], "quick_gelu"),
        (["--text_tower", "hf:somewhere", "--text_activation", "gelu"], "gelu"),
    ):
        config, _ = apply_weights_settings(
            *cli.parse_train(["clip", "--preset", "fast", *flags], None)
        )
        assert config.text.text_activation == expected


def test_a_tower_from_scratch_takes_the_activation_of_the_flag():
    vectors = {}
    for activation in ("auto", "quick_gelu"):
        torch.manual_seed(0)
        values = {
            "text_tower": "ViT-B-32",
            "text_weights": "none",
            "text_width": 64,
            "text_layers": 1,
        }
        vectors[activation] = encode(text_activation=activation, **values)[0]
    assert not torch.allclose(vectors["auto"], vectors["quick_gelu"], atol=1e-4)


def test_cached_vectors_are_kept_by_activation(clip, tmp_path):
    path, _ = save_clip(clip, tmp_path / "weights.pt")
    vectors = {}
    for activation in ("gelu", "quick_gelu"):
        tower = registry.make_text_tower(config(text_weights=path, text_activation=activation))
        vectors[activation] = embed.make_caption_bank(
            CAPTIONS, tower, True, tmp_path / "cache", CPU
        ).vectors
    assert (
        not torch.equal(vectors["gelu"], vectors["quick_gelu"])
        and len(list((tmp_path / "cache").iterdir())) == 2
    )


# ---- by the command line


def test_training_says_which_activation_was_taken_and_an_older_run_keeps_its_own(
    tags, tmp_path, capsys
):
    assert (
        helpers.run_training(
            tmp_path, "new", text_tower="tiny-clip", text_weights="openai", epochs=1
        )
        == 0
    )
    assert (
        "text tower tiny-clip openai: QuickGELU (as the tag openai was trained)"
        in capsys.readouterr().out
    )
    args = tmp_path / "new" / "args.json"
    config_values = json.loads(args.read_text())
    assert run.open_run(args.parent).config.text.text_activation == "auto"
    del config_values["settings"]["text_activation"]
    args.write_text(json.dumps(config_values))
    assert run.open_run(args.parent).config.text.text_activation == "model"
    contradiction = helpers.train_flags(
        tmp_path, "bad", text_tower="tiny-clip", text_weights="openai", text_activation="gelu"
    )
    assert train.main(contradiction) == 1
    assert "error: tiny-clip openai: needs QuickGELU" in capsys.readouterr().err


# ---- encoders as they are stored


def test_an_encoder_stored_in_half_precision_is_computed_and_trained_in_float32(tmp_path):
    from safetensors.torch import load_file, save_file

    file = saved_bert(tmp_path / "half") / "model.safetensors"
    save_file(
        {name: value.half() for name, value in load_file(file).items()},
        file,
        metadata={"format": "pt"},
    )
    config_values = json.loads(file.with_name("config.json").read_text())
    file.with_name("config.json").write_text(json.dumps(config_values | {"dtype": "float16"}))
    tower = registry.make_text_tower(config(text_tower=f"hf:{file.parent}"))
    assert {weight.dtype for weight in tower.parameters()} == {torch.float32}
    values = {
        "text_tower": f"hf:{file.parent}",
        "unfreeze_text": True,
        "epochs": 1,
        "lr": 1e-3,
        "fold": 0,
    }
    flags = {
        key: value
        for key, value in (helpers.SMALL | values).items()
        if key not in ("device", "jobs")
    }
    assert (
        train.main(
            [
                "holistic",
                *helpers.places(),
                *helpers.flags(out_dir=tmp_path, run_name="half", folds=2, **flags),
            ]
        )
        == 0
    )


def deberta(folder):
    import transformers

    saved_bert(folder)
    torch.manual_seed(0)
    config_values = transformers.DebertaV2Config(
        vocab_size=20,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=40,
        max_position_embeddings=24,
        relative_attention=True,
        position_buckets=8,
        pos_att_type=["p2c", "c2p"],
        type_vocab_size=0,
    )
    transformers.DebertaV2Model(config_values).save_pretrained(folder)
    return folder


def mpnet(folder):
    import transformers

    saved_bert(folder)
    torch.manual_seed(0)
    config_values = transformers.MPNetConfig(
        vocab_size=20,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=40,
        max_position_embeddings=24,
    )
    transformers.MPNetModel(config_values).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("make", [deberta, mpnet])
def test_an_encoder_without_torchs_own_attention_takes_its_eager_one_aloud(tmp_path, make):
    tower = registry.make_text_tower(config(text_tower=f"hf:{make(tmp_path)}")).eval()
    assert "eager attention" in tower.note
    ids, lengths = tower.tokenize(CAPTIONS)
    with torch.inference_mode():
        together = tower(ids, lengths)
        for row, length in enumerate(lengths.tolist()):
            torch.testing.assert_close(
                tower(ids[[row], :length], lengths[[row]]), together[[row]], **CLOSE
            )
    tower.train()(ids, lengths).sum().backward()


def test_an_encoder_with_torchs_own_attention_needs_no_word(tmp_path):
    assert registry.make_text_tower(config(text_tower=f"hf:{saved_bert(tmp_path)}")).note == ""
