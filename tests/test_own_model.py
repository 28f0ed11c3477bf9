"""docs/own_model.md does what it says."""

import re
from pathlib import Path

import pytest
import torch

import sample
import train
from motret import config

PAGE = Path(__file__).parents[1] / "docs" / "own_model.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_file_and_the_line_of_the_page_train_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    file, line = blocks()
    (tmp_path / "my_tower.py").write_text(file, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(config, "VARIANTS", config.VARIANTS | eval("{" + line + "}"))
    assert sample.main(["--out", str(tmp_path / "data"), "--motions", "16", "--queries", "1", "--candidates", "4"]) == 0
    places = [f"--{name}={tmp_path / name}" for name in ("data_dir", "work_dir", "folds_dir", "out_dir")]
    places[0] = f"--data_dir={tmp_path / 'data'}"
    small = ["--text_weights=none", "--text_width=64", "--text_layers=1", "--epochs=1", "--folds=2", "--fold=0", "--jobs=1"]
    assert train.main(["bag", *places, *small, "--run_name", "bag"]) == 0
    assert "bag: score" in capsys.readouterr().out
    kept = torch.load(next((tmp_path / "out_dir/bag/fold0").glob("best_epoch*.pt")), weights_only=True)["model"]
    assert {name for name in kept if name.startswith("motion_tower.")} == {
        f"motion_tower.frame.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")
    }
