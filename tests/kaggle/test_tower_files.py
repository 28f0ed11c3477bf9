"""The files of pretrained text towers, by folder, file, hub name and open_clip tag."""

import json
from pathlib import Path

import pytest

from motret.config.training import TextConfig
from motret.errors import WeightsError
from motret.kaggle import tower_files
from motret.models import clip_weights


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_encoder_is_copied_without_weights_in_other_forms(tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", "vocab.txt", ".lock"):
        (encoder / name).touch()
    text = TextConfig(text_tower=f"hf:{encoder}")
    assert tower_files.copy_tower(text, tmp_path / "copy") == tmp_path / "copy"
    assert names(tmp_path / "copy") == ["config.json", "model.safetensors", "vocab.txt"]


def test_a_file_of_weights_comes_with_the_configuration_beside_it(tmp_path: Path) -> None:
    (tmp_path / "clip.safetensors").touch()
    text = TextConfig(text_weights=str(tmp_path / "clip.safetensors"))
    copy = tower_files.copy_tower(text, tmp_path / "plain")
    assert copy == tmp_path / "plain" / "clip.safetensors" and names(copy.parent) == [copy.name]
    (tmp_path / "open_clip_config.json").touch()
    copy = tower_files.copy_tower(text, tmp_path / "configured")
    assert names(copy.parent) == ["clip.safetensors", "open_clip_config.json"]


@pytest.mark.parametrize(("tag", "quick"), [("openai", True), ("laion2b_s34b_b79k", False)])
def test_the_weights_of_a_tag_keep_their_activation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str, quick: bool
) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "open_clip_model.safetensors").touch()
    monkeypatch.setattr(tower_files, "_hub_snapshot", lambda what, repository: snapshot)
    copy = tower_files.copy_tower(TextConfig(text_weights=tag), tmp_path / "copy")
    config = json.loads((copy.parent / "open_clip_config.json").read_text())
    assert config["model_cfg"]["quick_gelu"] == quick
    # and so the file is read as the tag is
    assert clip_weights.choose_activation(TextConfig(text_weights=str(copy))).quick == quick


def test_a_class_of_ones_own_brings_the_file_that_it_names(tmp_path: Path) -> None:
    own = TextConfig(text_tower="my_text:Tower", text_weights="large")
    assert tower_files.copy_tower(own, tmp_path / "nothing") is None
    (tmp_path / "weights").mkdir()
    own = TextConfig(text_tower="my_text:Tower", text_weights=str(tmp_path / "weights"))
    assert tower_files.copy_tower(own, tmp_path / "copy") == tmp_path / "copy"


@pytest.mark.parametrize("name", ["hf:nobody/nothing", "ViT-B-32"])
def test_what_is_not_on_this_machine_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(tower_files.network, "hub_reachable", lambda: False)
    with pytest.raises(WeightsError, match="its files are not on this machine"):
        tower_files.copy_tower(TextConfig(text_tower=name), tmp_path / "copy")
