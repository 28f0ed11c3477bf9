"""What is attached to a notebook is known by what is in a folder, wherever that is."""

import json
from pathlib import Path

import pytest

from motret.errors import DataError
from motret.kaggle.inputs import find_inputs


def data(folder: Path, layout: str = "motions") -> Path:
    for name in (layout, "texts"):
        (folder / name).mkdir(parents=True)
    return folder


def run(folder: Path, folds: str = "f", fold: int | None = 0, started: str = "now") -> Path:
    folder.mkdir(parents=True)
    (folder / "args.json").write_text(json.dumps({"folds": folds, "started": started}))
    if fold is not None:
        (folder / f"fold{fold}").mkdir()
        (folder / f"fold{fold}" / "oof.npz").touch()
    return folder


def folds(folder: Path, content: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "folds.json").write_text(content)
    return folder


@pytest.mark.parametrize("mount", ["x", "competitions/x", "datasets/me/x/data"])
@pytest.mark.parametrize("layout", ["motions", "split_joints"])
def test_the_competition_is_the_folder_with_motions_and_texts(
    tmp_path: Path, mount: str, layout: str
) -> None:
    folder = data(tmp_path / mount, layout)
    (tmp_path / "other" / "motions").mkdir(parents=True)
    data(folder / "test")  # what lies in it is of the competition
    assert find_inputs(tmp_path).competition() == folder


def test_no_competition_lists_what_is_attached(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing is attached"):
        find_inputs(tmp_path).competition()
    (tmp_path / "datasets" / "me").mkdir(parents=True)
    (tmp_path / "datasets" / "me" / "motions.zip").touch()
    with pytest.raises(DataError, match=r"among datasets, datasets/me, datasets/me/motions\.zip"):
        find_inputs(tmp_path).competition()


def test_two_competitions_are_an_error_that_names_both(tmp_path: Path) -> None:
    first, second = data(tmp_path / "a"), data(tmp_path / "b")
    with pytest.raises(DataError, match=f"2 folders with competition data: {first}, {second}"):
        find_inputs(tmp_path).competition()


def test_all_finished_runs_count_once_and_no_others(tmp_path: Path) -> None:
    first = run(tmp_path / "a" / "runs" / "one")
    second = run(tmp_path / "b" / "runs" / "one", started="later")
    full = run(tmp_path / "b" / "runs" / "all", fold=None, started="at last")
    (full / "full").mkdir()
    (full / "full" / "done.json").touch()
    run(tmp_path / "b" / "copy" / "runs" / "one")
    run(tmp_path / "b" / "runs" / "unfinished", fold=None, started="never")
    run(tmp_path / "b" / "runs" / "tune" / "holistic" / "trial0", started="in a trial")
    assert find_inputs(tmp_path).finished_runs() == [first, full, second]


def test_the_folds_are_those_that_the_runs_were_trained_on(tmp_path: Path) -> None:
    run(tmp_path / "runs" / "one", folds="right")
    folds(tmp_path / "a", '{"hash": "wrong"}')
    folds(tmp_path / "b", "broken")
    with pytest.raises(DataError, match="no folds of one"):
        find_inputs(tmp_path).folds_of_runs()
    expected = folds(tmp_path / "c", '{"hash": "right"}')
    assert find_inputs(tmp_path).folds_of_runs() == expected


def test_an_attached_text_tower_is_taken_unless_flags_name_one(tmp_path: Path) -> None:
    folder = tmp_path / "x" / "text_towers"
    folder.mkdir(parents=True)
    entry = {"text_tower": "hf:minilm", "text_weights": "openai", "path": "tower0"}
    (folder / "towers.json").write_text(json.dumps([entry]))
    inputs = find_inputs(tmp_path)
    assert inputs.text_tower_flags("full", "--lr 1") == [f"--text_tower=hf:{folder / 'tower0'}"]
    assert inputs.text_tower_flags("full", "--text_tower ViT-B-16") == []
    assert inputs.text_tower_flags("fast", "") == []  # it trains its own
    clip = {"text_tower": "ViT-B-32", "text_weights": "openai", "path": "tower1/w.pt"}
    (folder / "towers.json").write_text(json.dumps([clip]))
    assert find_inputs(tmp_path).text_tower_flags("full", "") == [
        "--text_tower=ViT-B-32",
        f"--text_weights={folder / 'tower1/w.pt'}",
    ]
    (folder / "towers.json").write_text(json.dumps([entry, clip]))
    assert find_inputs(tmp_path).text_tower_flags("full", "") == []  # which is meant?


def test_a_missing_root_and_a_loop_of_links_are_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        find_inputs(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert find_inputs(tmp_path).competitions == []
