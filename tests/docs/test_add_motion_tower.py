"""docs/add_motion_tower.md does what it says."""

import re
from pathlib import Path

import pytest
import torch

import helpers
import sample
import train
from motret.config import presets

PAGE = Path(__file__).parents[2] / "docs" / "add_motion_tower.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_file_and_the_line_of_the_page_train_a_model(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    file, line = blocks()
    (tmp_path / "my_tower.py").write_text(file, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    ((name, values),) = eval("{" + line + "}").items()
    monkeypatch.setitem(presets.VARIANTS, name, values)
    sizes = ["--motions", "16", "--queries", "1", "--candidates", "4"]
    assert sample.main(["--out", str(tmp_path / "data"), *sizes]) == 0
    folders = [f"--{name}_dir={tmp_path / name}" for name in ("data", "work", "folds", "out")]
    small = ["--text_weights=none", "--text_width=64", "--text_layers=1", "--epochs=1", "--jobs=1"]
    assert train.main([name, *folders, *small, "--folds=2", "--fold=0", "--run_name", "bag"]) == 0
    assert "bag: score" in capsys.readouterr().out
    (checkpoint,) = (tmp_path / "out" / "bag" / "fold0").glob("best_epoch*.pt")
    weights = torch.load(checkpoint, weights_only=True)["model"]
    tower = {name for name in weights if name.startswith("motion_tower.")}
    layers = [f"motion_tower.frame.{layer}" for layer in (0, 2)]
    assert tower == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


TOWER = """
from torch import nn

class Narrow(nn.Module):
    def __init__(self, settings, persons, columns):
        super().__init__()
        {width}

    def forward(self, batch):
        return {result}

class Helper:
    pass
"""
MEAN = "batch.frames.mean(dim=(1, 2))[:, :6]"


@pytest.mark.parametrize(
    ("name", "width", "result", "message"),
    [
        ("Narrow", "pass", MEAN, "has no width: its dim is None (set self.dim in __init__"),
        (
            "Narrow",
            "self.dim = '6'",
            MEAN,
            "has no width: its dim is '6' (set self.dim in __init__",
        ),
        (
            "Narrow",
            "self.dim = 7",
            MEAN,
            "returns (2, 6) for 2 motions, and its dim is 7 "
            "(set self.dim to 6, or return vectors of 7)",
        ),
        (
            "Narrow",
            "self.dim = 6",
            "batch.frames",
            "and its dim is 6 (return a tensor (motions, dim))",
        ),
        ("Narrow", "self.dim = 6", f"({MEAN}, None)", "returns a tuple, and its dim is 6"),
        ("Narow", "self.dim = 6", MEAN, "no Narow in "),
        ("Helper", "self.dim = 6", MEAN, "Helper is no nn.Module (its towers: Narrow)"),
    ],
)
def test_a_tower_that_does_not_fit_is_one_line_and_leaves_no_run(
    tmp_path, monkeypatch, capsys, name, width, result, message
):
    module = tmp_path.name
    (tmp_path / f"{module}.py").write_text(TOWER.format(width=width, result=result))
    monkeypatch.syspath_prepend(tmp_path)
    assert helpers.run_training(tmp_path, "run", motion_tower=f"{module}:{name}") == 1
    error = capsys.readouterr().err.splitlines()[-1]  # after the bar of packing
    assert error.startswith("error: --motion_tower: ") and message in error
    assert not (tmp_path / "run").exists()
    if name == "Narow":
        assert "its towers: Narrow" in error


@pytest.mark.parametrize(
    ("tower", "message"),
    [
        (
            "perceiver",
            "no tower is called 'perceiver' (take one of transformer, part, frame, or module:Class",
        ),
        ("my_tower:", "is not of the form module:Class"),
        ("no_such_file:Tower", "No module named 'no_such_file' (give a file of solution/"),
    ],
)
def test_a_misspelt_module_is_one_line(tmp_path, capsys, tower, message):
    assert helpers.run_training(tmp_path, "run", motion_tower=tower) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
