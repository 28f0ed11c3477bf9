"""docs/add_feature_block.md does what it says."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ensemble
import helpers
import sample
import train
import validate
from motret.data import augment, feature_blocks, features
from motret.data.features import FeatureConfig
from motret.errors import ConfigError
from motret.runs.run import open_run
from motret.skeleton import JOINTS, MIRROR

PAGE = (Path(__file__).parents[2] / "docs" / "add_feature_block.md").read_text(encoding="utf-8")
FUNCTIONS, ENTRY, SNIPPET = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
COMMAND, TINY = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
KIND = "canonical+foot_contact"


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the page's block, which is in the table."""
    names = dict(vars(feature_blocks))
    exec(FUNCTIONS, names)
    ((name, block),) = eval("{" + ENTRY + "}", names).items()
    monkeypatch.setitem(feature_blocks.BLOCKS, name, block)
    return name


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Flags of the page's tiny run; its challenge is made, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (sample_program, *sample_flags), (program, *flags) = (
        shlex.split(line)[1:] for line in TINY.splitlines()
    )
    assert (sample_program, program) == ("solution/sample.py", "solution/train.py")
    assert sample.main(sample_flags) == 0
    return [*flags, *FOLDERS, "--jobs=1"]


FOLDERS = ["--work_dir=work", "--out_dir=runs"]
PLACES = ["--data_dir=work/tiny", "--folds_dir=work/tiny-folds", *FOLDERS, "--jobs=1"]


def test_the_commands_of_the_page_train_with_the_block(added: str, tiny: list[str]) -> None:
    program, *flags = shlex.split(COMMAND)[1:]
    assert program == "solution/train.py" and flags == tiny[: len(flags)]
    assert train.main([*tiny, "--mirror=0.5", "--speed=1.2"]) == 0
    run = open_run(Path("runs/tiny_foot_contact"))
    layout = features.feature_layout(run.persons, run.features)
    assert layout[added] == slice(features.feature_width(2), features.feature_width(2) + 2)
    checkpoint = next(run.folder.glob("fold0/best_epoch*.pt"))
    assert len(torch.load(checkpoint, weights_only=True)["model"]["mean"]) == layout.width
    assert validate.main(["oof", *PLACES, "--runs", run.name]) == 0


def test_a_run_of_another_version_is_refused_until_the_version_is_back(
    added: str,
    tiny: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train.main(tiny) == 0
    block = feature_blocks.BLOCKS[added]
    monkeypatch.setitem(feature_blocks.BLOCKS, added, replace(block, version=2))
    ask = [*PLACES, "--submissions_dir=subs", "--query_bank=off", "--views=none"]
    capsys.readouterr()
    assert ensemble.main(ask) == 1
    Path("runs/tiny_foot_contact/fold1/oof.npz").unlink()
    assert train.main([*tiny, "--resume=auto"]) == 1
    line = "error: runs/tiny_foot_contact: its feature version changed since it was trained "
    line += "(1 foot_contact=1, now 1 foot_contact=2) (put version 1 of block foot_contact back"
    assert capsys.readouterr().err.count(line) == 2
    monkeypatch.setitem(feature_blocks.BLOCKS, added, block)
    assert train.main([*tiny, "--resume=auto"]) == 0
    assert ensemble.main(ask) == 0


def test_the_snippet_of_the_page_prints_the_columns_of_a_motion(
    added: str, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    exec(SNIPPET, {})
    first = capsys.readouterr().out.splitlines()[0]
    assert re.fullmatch(r"\[\[[01]\. [01]\.\]", first)


def test_all_that_the_page_says_of_kinematics_and_joints_is_there() -> None:
    table = PAGE.split("| field | meaning |")[1].split("\n\n")[0]
    names = [
        name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])
    ]
    assert names and all(
        name in feature_blocks.Kinematics.__dataclass_fields__
        or hasattr(feature_blocks.Kinematics, name)
        for name in names
    )
    (words,) = re.findall(r"The names are in `JOINTS`.*?\.\n", PAGE, flags=re.DOTALL)
    assert {re.sub("left_|right_", "", name) for name in JOINTS} - {"spine2"} <= set(
        re.findall(r"`(\w+)`", words)
    )


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
