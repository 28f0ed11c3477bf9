"""Checkpoints: written whole, read without running code, and under former parameter names too."""

import pickle
from pathlib import Path

import pytest
import torch

import helpers
import train
from motret.errors import RunError, WeightsError
from motret.runs import checkpoints
from motret.runs.run import open_run

FORMER = {"qkv": "to_qkv", "proj": "from_heads", "cls_token": "summary"}
"""Today's names of a motion tower's modules and parameters -> those of earlier checkpoints."""


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def load(path: Path) -> dict:
    return checkpoints.load_checkpoint(path, helpers.CPU)


def test_a_checkpoint_comes_back_whole(tmp_path):
    content = {
        "model": {"weight": torch.randn(3)},
        "best": -float("inf"),
        "history": [{"epoch": 1}],
    }
    checkpoints.save_checkpoint(tmp_path / "last.pt", content)
    back = load(tmp_path / "last.pt")
    assert torch.equal(back["model"]["weight"], content["model"]["weight"])
    assert back["best"] == content["best"] and back["history"] == content["history"]
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_write_that_fails_leaves_the_older_checkpoint(tmp_path):
    checkpoints.save_checkpoint(tmp_path / "last.pt", {"epoch": 1})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        checkpoints.save_checkpoint(tmp_path / "last.pt", {"epoch": lambda: 2})
    assert load(tmp_path / "last.pt") == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize(
    "content", [b"", b"this is no checkpoint", b"garbage", b"PK\x03\x04 half a zip"]
)
def test_a_file_that_is_no_checkpoint_is_an_error(tmp_path, content):
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"last\.pt: is no readable checkpoint"):
        load(tmp_path / "last.pt")


def test_a_truncated_checkpoint_is_an_error(tmp_path):
    checkpoints.save_checkpoint(tmp_path / "last.pt", {"weight": torch.randn(1000)})
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError):
        load(tmp_path / "last.pt")


def test_a_missing_checkpoint_is_an_error(tmp_path):
    with pytest.raises(WeightsError, match="no such checkpoint"):
        load(tmp_path / "last.pt")
    with pytest.raises(RunError, match="has no best_epoch"):
        checkpoints.best_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_loading_a_checkpoint_runs_no_code(tmp_path, write):
    write({"model": Harmful(tmp_path / "harm")}, tmp_path / "last.pt")
    with pytest.raises(WeightsError):
        load(tmp_path / "last.pt")
    assert not (tmp_path / "harm").exists()


# ---- former names


def with_former_names(path: Path) -> None:
    """Writes a checkpoint as it was when parameters and groups of the optimizer had other names."""

    def rename(name: str) -> str:
        if "motion_tower." not in name:
            return name
        return ".".join(FORMER.get(module, module) for module in name.split("."))

    content = torch.load(path, weights_only=True)
    for state in ("model", "ema"):
        if state in content:
            content[state] = {rename(name): value for name, value in content[state].items()}
    if "optimizer" in content:
        content["optimiser"] = content.pop("optimizer")
        for group in content["optimiser"]["param_groups"]:
            group["highest"] = group.pop("base_lr")
    torch.save(content, path)


def assert_same(first: Path, second: Path) -> None:
    before, after = (torch.load(path, weights_only=True)["model"] for path in (first, second))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("variant", ["holistic", "sgar"])
def test_a_run_with_former_names_goes_on_as_if_nothing_had_been_renamed(tmp_path, variant):
    def run(name: str, **values: object) -> int:
        values |= {"fold": 0, "ema": 0.9, "lr": 1e-3}
        values |= {"part_encoders": True} if variant == "sgar" else {}
        return train.main([variant, *helpers.train_flags(tmp_path, name, **values)[1:]])

    for name in ("today", "former"):
        assert run(name, epochs=1) == 0
    for path in (tmp_path / "former" / "fold0").glob("*.pt"):
        with_former_names(path)
    former = torch.load(tmp_path / "former" / "fold0" / "last.pt", weights_only=True)
    assert any("to_qkv" in name for name in former["model"])
    assert "module.motion_tower.summary" in former["ema"]
    for name in ("today", "former"):
        assert run(name, epochs=2, resume="auto") == 0
    for file in ("best_epoch2.pt", "last.pt"):
        assert_same(tmp_path / "today" / "fold0" / file, tmp_path / "former" / "fold0" / file)


def test_weights_with_former_names_load_bit_for_bit_in_every_kind_of_file(tmp_path):
    assert helpers.run_training(tmp_path, "run", fold=0, epochs=1, save_towers=True) == 0
    fold_dir = open_run(tmp_path / "run").fold_dir(0)
    best = checkpoints.best_checkpoint(fold_dir)
    expected, tower = load(best)["model"], load(fold_dir / "motion_encoder.pt")
    with_former_names(best)
    former = {
        ".".join(FORMER.get(module, module) for module in name.split(".")): value
        for name, value in tower.items()
    }
    assert "summary" in former and former.keys() != tower.keys()
    checkpoints.save_checkpoint(fold_dir / "former.pt", former)
    for before, after in ((expected, load(best)["model"]), (tower, load(fold_dir / "former.pt"))):
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_names_of_loaded_backbone_weights_follow(tmp_path):
    content = {"loaded": ["positions", "blocks.0.to_qkv.weight", "blocks.1.from_heads.bias"]}
    checkpoints.save_checkpoint(tmp_path / "last.pt", content)
    assert load(tmp_path / "last.pt")["loaded"] == [
        "positions",
        "blocks.0.qkv.weight",
        "blocks.1.proj.bias",
    ]


def test_a_tower_of_ones_own_keeps_its_names(tmp_path):
    content = {
        "model": {"motion_tower.summary": torch.ones(2), "text_tower.summary": torch.ones(1)}
    }
    checkpoints.save_checkpoint(tmp_path / "last.pt", content)
    assert load(tmp_path / "last.pt")["model"].keys() == content["model"].keys()
