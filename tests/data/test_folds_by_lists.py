"""One split by lists of ids, train.txt and val.txt or the GAR files, instead of folds."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import make_folds
import train
from helpers import (
    SCRATCH,
    SMALL,
    data_flags,
    data_settings,
    flags,
    load,
    write_data,
    write_split_joints,
)
from motret.data import folds
from motret.data.dataset import TrainingData
from motret.data.folds import TRAIN_ONLY
from motret.errors import FoldError
from motret.pipeline.plan import make_plan

IDS = [f"{number:05d}" for number in range(1, 13)]


@pytest.fixture
def both_layouts(tmp_path: Path) -> list[Path]:
    return [
        write_data(tmp_path / "a" / "data", IDS),
        write_split_joints(tmp_path / "b" / "data", IDS),
    ]


def write_lists(root: Path, learned: Sequence[str] | None, held_out: Sequence[str]) -> None:
    for name, ids in (("train.txt", learned), ("val.txt", held_out)):
        (root / name).unlink(missing_ok=True)
        if ids is not None:
            (root / name).write_text("".join(f"{name}\n" for name in ids))


def listed_split(data: TrainingData) -> np.ndarray:
    return folds.split_by_lists(
        data, folds.choose_split_lists(data.training.root, prefer_txt=True, count_given=False)
    )


def test_gar_val_is_the_validation_set_unless_a_number_of_folds_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_split_joints(tmp_path / "data", IDS, entries=IDS[:8], held_out=IDS[8:])
    write_lists(root, IDS[:10], IDS[10:])  # which --prefer_txt_split alone takes
    for flag, message in (
        (
            [],
            "gar_val.json is the validation set; --folds K makes K folds instead\n"
            "1 fold of 4 motions, 8 to learn from",
        ),
        (["--folds", "3"], "3 folds of 4, 4, 4 motions in 12 groups"),
        (
            ["--prefer_txt_split"],
            "val.txt is the validation set\n1 fold of 2 motions, 10 to learn from",
        ),
    ):
        assert make_folds.main([*data_flags(root), *flag]) == 0
        assert message in capsys.readouterr().out
    fast = ["--data_dir", str(root), "--preset", "fast"]
    assert (
        "--folds" not in make_plan(fast).steps[1].args
        and "--folds" in make_plan([*fast, "--folds", "3"]).steps[1].args
    )
    plain = write_data(tmp_path / "plain" / "data", IDS)
    (plain / "texts" / "gar_train.json").write_text((root / "texts" / "gar_train.json").read_text())
    (plain / "texts" / "gar_val.json").write_text((root / "texts" / "gar_val.json").read_text())
    assert (
        folds.choose_split_lists(plain, prefer_txt=False, count_given=False) is None
    )  # the competition's layout has folds


def test_training_says_that_gar_val_is_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_split_joints(tmp_path / "data", IDS, entries=IDS[:8], held_out=IDS[8:])
    settings = data_settings(root)
    small = {name: value for name, value in (SMALL | SCRATCH).items() if name != "jobs"} | {
        "epochs": 1
    }
    call = [
        "holistic",
        *data_flags(root),
        *flags(**small),
        "--out_dir",
        str(tmp_path / "runs"),
        "--run_name",
        "one",
    ]
    assert train.main([*call, "--preset", "fast"]) == 0  # whose folds are no flag
    out = capsys.readouterr().out
    assert (
        "1 fold made in" in out
        and "(gar_val.json is held out; --folds K makes folds instead)" in out
        and "(4 motions" in out
    )
    assert json.loads((settings.folds_dir / "folds.json").read_text())["lists"] == [
        "gar_train.json",
        "gar_val.json",
    ]


def test_the_lists_are_one_fold_in_both_layouts(
    both_layouts: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for root in both_layouts:
        write_lists(root, ["1", "2", "00003", *IDS[3:8]], ["9", "00010"])
        assert make_folds.main([*data_flags(root), "--prefer_txt_split"]) == 0
        assert "1 fold of 2 motions, 8 to learn from" in capsys.readouterr().out
        data = load(root)
        split = folds.read_folds(data, data_settings(root).folds_dir)
        assert split.count == 1 and [data.training.ids[index] for index in split.val_idx(0)] == [
            "00009",
            "00010",
        ]
        assert len(split.train_idx(0)) == 8 and set(split.fold) == {0, TRAIN_ONLY}


def test_the_lists_may_name_files(
    both_layouts: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for root in both_layouts:
        write_lists(root, [f"{name}.npy" for name in IDS[:8]], ["00009.txt", "00010.npy"])
        assert make_folds.main([*data_flags(root), "--prefer_txt_split"]) == 0
        assert "1 fold of 2 motions, 8 to learn from" in capsys.readouterr().out


def test_without_train_txt_all_others_are_learned_from(both_layouts: list[Path]) -> None:
    for root in both_layouts:
        write_lists(root, None, ["9"])
        assert listed_split(load(root)).tolist() == [TRAIN_ONLY] * 8 + [0] + [TRAIN_ONLY] * 3


def test_gar_files_are_lists_where_there_is_no_val_txt(tmp_path: Path) -> None:
    data = load(
        write_split_joints(tmp_path / "data", IDS, entries=[1, 2, 3], held_out=["4", "00005"])
    )
    assert data.training.ids == tuple(IDS[:5]) and listed_split(data).tolist() == [
        TRAIN_ONLY
    ] * 3 + [0, 0]


def test_lists_that_cannot_be_a_split_are_an_error(both_layouts: list[Path]) -> None:
    for root in both_layouts:
        for learned, held_out, problem in (
            (IDS[:8], None, r"val\.txt: no such file, nor texts/gar_val\.json"),
            (IDS[:8], ["2", "7", "9"], r"val\.txt: 2 ids are in train\.txt too: 2, 7"),
            (IDS[:8], ["9", "77"], r"val\.txt: 1 of its 2 ids have no motion with a caption: 77"),
            (None, IDS, r"val\.txt: leaves no motion to train on"),
        ):
            write_lists(root, learned, held_out)
            with pytest.raises(FoldError, match=problem):
                listed_split(load(root))


def test_a_listed_motion_with_a_broken_file_is_left_out(both_layouts: list[Path]) -> None:
    plain, split = both_layouts
    np.save(plain / "motions" / "00009.npy", np.full((20, 384), np.nan, np.float32))
    (split / "split_joints" / "00009" / "torso.npy").unlink()
    for root in both_layouts:
        write_lists(root, IDS[:8], ["9", "10"])
        data = load(root)
        assert data.training.ids[8:] == ("00010",) and listed_split(data).tolist() == [
            TRAIN_ONLY
        ] * 8 + [0]
        write_lists(root, IDS[:8], ["9"])
        with pytest.raises(FoldError, match="leaves no motion to hold out"):
            listed_split(load(root))


def test_folds_that_are_not_the_lists_stop_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_split_joints(tmp_path / "data", IDS)
    write_lists(root, None, ["9", "10"])
    assert make_folds.main([*data_flags(root), "--folds", "2"]) == 0
    assert (
        train.main(
            [
                "holistic",
                *data_flags(root),
                "--prefer_txt_split",
                "--out_dir",
                str(tmp_path / "runs"),
            ]
        )
        == 1
    )
    error = capsys.readouterr().err
    assert "folds.csv: not the split of the data's lists (run" in error
    assert "`python solution/make_folds.py --prefer_txt_split`" in error
