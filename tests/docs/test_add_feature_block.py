"""docs/add_feature_block.md does what it says."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

import helpers
import sample
import train
import validate
from motret.data import augment, feature_blocks, features
from motret.data.features import FeatureConfig
from motret.errors import ConfigError
from motret.runs.run import open_run
from motret.skeleton import MIRROR

PAGE = (Path(__file__).parents[2] / "docs" / "add_feature_block.md").read_text(encoding="utf-8")
FUNCTIONS, ENTRY = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
(COMMAND,) = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
KIND = "canonical+foot_contact"


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the page's block, which is in the table."""
    names = dict(vars(feature_blocks))
    exec(FUNCTIONS, names)
    ((name, block),) = eval("{" + ENTRY + "}", names).items()
    monkeypatch.setitem(feature_blocks.BLOCKS, name, block)
    return name


def test_the_command_of_the_page_trains_with_the_block(added: str, tmp_path: Path) -> None:
    program, *flags = shlex.split(COMMAND)[1:]
    assert program == "solution/train.py" and flags[-1] == KIND
    scene = ["--motions", "16", "--queries", "1", "--candidates", "4"]
    assert sample.main(["--out", str(tmp_path / "data_dir"), *scene]) == 0
    folders = ("data_dir", "work_dir", "folds_dir", "out_dir")
    places = [f"--{name}={tmp_path / name}" for name in folders]
    small = ["--text_weights=none", "--text_width=64", "--text_layers=1", "--epochs=1", "--jobs=1"]
    small += ["--width=32", "--heads=2", "--layers=1", "--folds=2", "--mirror=0.5", "--speed=1.2"]
    assert train.main([*flags, *places, *small, "--run_name", "feet"]) == 0
    run = open_run(tmp_path / "out_dir" / "feet")
    layout = features.feature_layout(run.persons, run.features)
    assert layout[added] == slice(features.feature_width(2), features.feature_width(2) + 2)
    checkpoint = next(run.folder.glob("fold0/best_epoch*.pt"))
    assert len(torch.load(checkpoint, weights_only=True)["model"]["mean"]) == layout.width
    assert validate.main(["oof", *places, "--runs", "feet"]) == 0


def test_the_block_is_computed_and_mirrored(added: str) -> None:
    positions, rotations = helpers.body(30), helpers.sixes(30)
    positions[10:20, 0, [10]] = positions[10, 0, [10]]  # the left foot stands still
    positions[10:20, 0, 10, 1] = positions[..., 1].min()
    config = FeatureConfig(kind=KIND, rotations=False)
    columns = features.feature_layout(2, config)
    here = features.make_features(positions, rotations, np.array([0]), config)
    assert here[10:19, 0, columns[added].start].all() and not here[:9, 0, columns[added]].all()
    mirrored = positions[:, :, MIRROR] * np.array([-1, 1, 1], dtype=np.float32)
    there = features.make_features(mirrored, rotations, np.array([0]), config)
    np.testing.assert_allclose(
        augment.make_mirror(columns)(torch.from_numpy(here)).numpy(), there, atol=1e-4
    )


def test_other_features_stay_what_they_are(added: str) -> None:
    assert added not in features.feature_columns(2)
    assert FeatureConfig().key() == {
        "fps": 30.0,
        "up": "+y",
        "rotations": True,
        "kind": "canonical",
    }
    assert FeatureConfig(kind=KIND).key()["versions"] == {added: 1}


@pytest.mark.parametrize(
    "kind", ["canonical+hands", "raw+foot_contact", "feet", f"{KIND}+foot_contact"]
)
def test_a_misspelt_block_is_one_line_with_the_choices(added: str, kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"--features: .*{re.escape(kind)}.*canonical\+{added}"):
        FeatureConfig(kind=kind).key()
