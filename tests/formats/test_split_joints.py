"""The layout of the SGAR description: read, checked, and used from end to end."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import ensemble
import make_folds
import prepare
import train
import validate
from helpers import SCRATCH, SMALL, data_flags, flags, load, motion, write_data, write_split_joints
from motret.config.base import DataConfig
from motret.data import feature_store
from motret.data.features import FeatureConfig
from motret.errors import DataError
from motret.formats import split_joints
from motret.pipeline import preflight
from motret.pipeline.plan import make_plan
from motret.skeleton import PARTS

IDS = [f"{number:05d}" for number in range(1, 13)]


def stream(root: Path, name: str, part: str) -> Path:
    return root / "split_joints" / name / f"{part}.npy"


# ---- reading


def test_a_motion_is_the_whole_body_of_one_person_without_rotations(tmp_path: Path) -> None:
    data = load(write_split_joints(tmp_path / "data", IDS[:3]))
    assert data.training.ids == tuple(IDS[:3]) and data.training.captions[1] == ("scene 00002",)
    assert (
        data.store.persons == 1
        and not data.store.config.rotations
        and "rotation" not in data.store.columns
    )
    assert data.store.lengths.tolist() == [20, 21, 22] and data.training.skipped == ()


def test_ids_in_three_forms_match(tmp_path: Path) -> None:
    root = write_split_joints(tmp_path / "data", IDS[:3], entries=[1, "00002", "3\n"])
    assert load(root).training.ids == ("00001", "00002", "00003")
    assert load(root, id_width=3).training.ids == ("001", "002", "003")


def test_captions_of_both_files_count_and_the_first_of_an_id(tmp_path: Path) -> None:
    root = write_split_joints(
        tmp_path / "data", IDS[:4], entries=["1", "2", "00001"], held_out=["2", "3", "4"]
    )
    training = load(root).training
    assert training.ids == tuple(IDS[:4]) and training.captions[:2] == (("scene 1",), ("scene 2",))
    assert [Path(skip.file).name for skip in training.skipped] == ["gar_train.json", "gar_val.json"]


def test_the_motions_folder_of_the_competition_wins(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data", ["00001", "00002"])
    (root / "split_joints" / "00009").mkdir(parents=True)
    assert load(root).training.ids == ("00001", "00002")


def test_ids_that_do_not_match_and_a_missing_caption_file_are_named(tmp_path: Path) -> None:
    root = write_split_joints(tmp_path / "data", ["a1", "a2"], entries=["b1", "b2"])
    with pytest.raises(DataError) as caught:
        load(root)
    for side in (
        "empty dataset",
        "split_joints/ ids e.g. [a1, a2]",
        "texts/gar_train.json ids e.g. [b1, b2]",
    ):
        assert side in str(caught.value)
    shutil.rmtree(root / "texts")
    with pytest.raises(DataError, match=r"texts/gar_train\.json: no such file"):
        load(root)


# ---- broken streams


def spoil(file: Path, kind: str) -> None:
    array = np.load(file)
    if kind == "missing":
        file.unlink()
    elif kind == "text":
        file.write_text("no array")
    elif kind == "moved":
        np.save(file, array + 0.01)
    elif kind == "nan":
        array[4, 1, 2] = np.nan
        np.save(file, array)
    else:
        np.save(
            file,
            {"frames": array[:-1], "joints": array[:, :-1], "flat": array.reshape(len(array), -1)}[
                kind
            ],
        )


PROBLEMS = {
    "missing": "no such file",
    "text": "not an .npy file",
    "frames": "20 frames, holistic.npy has 21",
    "joints": "4 joints, expected 5",
    "flat": "an array (21, 15), expected (21, 5, 3)",
    "moved": "its spine3 is not that of holistic.npy at frame 0",
    "nan": "its left_collar is not that of holistic.npy at frame 4",
}


@pytest.mark.parametrize(("kind", "problem"), PROBLEMS.items(), ids=list(PROBLEMS))
def test_a_part_that_does_not_fit_names_itself_and_leaves_its_motion_out(
    tmp_path: Path, kind: str, problem: str
) -> None:
    root = write_split_joints(tmp_path / "data", IDS[:3])
    load(root)  # what was checked once is checked again when a file changes
    spoil(stream(root, "00002", "left_arm"), kind)
    for _ in range(2):
        training = load(root).training
        assert training.ids == ("00001", "00003")
        (skip,) = training.skipped
        assert skip.file == str(stream(root, "00002", "left_arm")) and problem in skip.problem
    with pytest.raises(DataError, match=r"00002/left_arm\.npy: ") as caught:
        load(root, strict=True)
    assert problem in str(caught.value) and "\n" not in str(caught.value)


def test_several_missing_parts_are_one_line(tmp_path: Path) -> None:
    root = write_split_joints(tmp_path / "data", IDS[:2])
    stream(root, "00001", "torso").unlink()
    stream(root, "00001", "right_leg").unlink()
    (skip,) = load(root).training.skipped
    assert skip.file.endswith("right_leg.npy") and skip.problem == "no such file, nor torso.npy"


def test_the_error_of_a_body_of_other_joints_shows_what_is_expected(tmp_path: Path) -> None:
    root = write_split_joints(tmp_path / "data", IDS[:2])
    np.save(stream(root, "00001", "holistic"), np.zeros((20, 24, 3), np.float32))
    (skip,) = load(root).training.skipped
    assert "(20, 24, 3), expected (frames, 22, 3)" in skip.problem
    np.save(stream(root, "00002", "holistic"), np.zeros((21, 24, 3), np.float32))
    problem = "split_joints: bodies of 24 joints, which no known skeleton has"
    with pytest.raises(DataError, match=rf"{problem} .*skeleton\.json.*\"parents\"") as caught:
        load(root)
    assert "\n" not in str(caught.value)


def test_a_body_of_the_competitions_columns_is_none(tmp_path: Path) -> None:
    root = write_split_joints(tmp_path / "data", IDS[:2])
    np.save(stream(root, "00001", "holistic"), motion(20))
    (skip,) = load(root).training.skipped
    assert (
        skip.file.endswith("holistic.npy") and "(20, 384), expected (frames, 22, 3)" in skip.problem
    )


def test_half_precision_is_near_enough(tmp_path: Path) -> None:
    root = write_split_joints(tmp_path / "data", IDS[:2])
    for part in PARTS:
        file = stream(root, "00001", part)
        np.save(file, np.asfortranarray(np.load(file).astype(np.float16)))
    assert load(root, strict=True).training.ids == tuple(IDS[:2])


def test_such_motions_are_not_packed_as_if_they_had_rotations(tmp_path: Path) -> None:
    data = load(write_split_joints(tmp_path / "data", IDS[:2]))
    with pytest.raises(
        DataError, match=r"positions alone, no joint rotations \(give --no_rotations\)"
    ):
        feature_store.build_feature_cache(
            data.training.ids,
            data.training.paths,
            FeatureConfig(),
            DataConfig(work_dir=tmp_path / "work"),
            jobs=1,
        )


# ---- statistics


def test_statistics_are_found_by_stream_and_a_deviation_may_be_zero(
    tmp_path: Path,
) -> None:
    root = write_split_joints(tmp_path / "data", IDS[:2])
    np.save(root / "torso_Mean.npy", np.arange(18.0))
    np.save(root / "torso_Std.npy", np.r_[0.0, np.full(17, 2.0)])
    assert split_joints.check_statistics(root) == (["torso"], [])


@pytest.mark.parametrize(
    ("mean", "deviation", "file", "problem"),
    [
        (np.zeros(17), np.ones(18), "Mean", "an array (17,), expected (18,)"),
        (np.zeros(18), np.ones((6, 3)), "Std", "an array (6, 3), expected (18,)"),
        (np.r_[np.zeros(17), np.nan], np.ones(18), "Mean", "nan at 17"),
        (np.zeros(18), np.r_[np.ones(4), np.inf, np.ones(13)], "Std", "inf at 4"),
        (np.zeros(18), -np.ones(18), "Std", "a deviation below 0 at 0"),
        (np.zeros(18), None, "Std", "no such file, but torso_Mean.npy is there"),
    ],
)
def test_broken_statistics_name_themselves(
    tmp_path: Path, mean: np.ndarray, deviation: np.ndarray | None, file: str, problem: str
) -> None:
    root = write_split_joints(tmp_path / "data", IDS[:2])
    np.save(root / "torso_Mean.npy", mean)
    if deviation is not None:
        np.save(root / "torso_Std.npy", deviation)
    (skip,) = load(root).training.skipped
    assert skip.file == str(root / f"torso_{file}.npy") and problem in skip.problem
    with pytest.raises(DataError, match=rf"torso_{file}\.npy: "):
        load(root, strict=True)


# ---- from end to end


@pytest.mark.parametrize("by_lists", [False, True], ids=["folds", "lists"])
def test_the_layout_trains_and_ends_with_its_local_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], by_lists: bool
) -> None:
    root = write_split_joints(
        tmp_path / "data", IDS, entries=[1, "00002", "3\n", *IDS[3:8]], held_out=[9, 10, 11, 12]
    )
    split = ["--prefer_txt_split"] if by_lists else ["--folds", "2"]
    small = {name: value for name, value in (SMALL | SCRATCH).items() if name != "jobs"}
    runs = ["--out_dir", str(tmp_path / "runs")]
    assert prepare.main(data_flags(root)) == 0
    assert (
        "12 of 1 person(s), 0.0 h; positions alone, no joint rotations" in capsys.readouterr().out
    )
    assert make_folds.main([*data_flags(root), *split]) == 0
    assert (
        train.main(
            ["sgar", *data_flags(root), *split, *flags(**small), *runs, "--run_name", "small"]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "gar_train.json" in out and "gar_val.json: 60 of 60 parts are described" in out
    assert validate.main(["oof", *data_flags(root), *runs]) == 0
    motions, count = (4, "all 1") if by_lists else (12, "all 2")
    assert capsys.readouterr().out.splitlines()[1].split("  ")[:3] == ["small", count, str(motions)]
    assert ensemble.main([*data_flags(root), *runs]) == 1
    error = capsys.readouterr().err
    assert "test: no test folder, so there is nothing to rank" in error and error.count("\n") == 1
    out = tmp_path / "queries"
    assert (
        validate.main(
            [
                "make_batches",
                *data_flags(root),
                "--queries",
                "1",
                "--candidates",
                "4",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    ranked = [
        "--fold",
        "0",
        "--test_dir",
        str(out),
        "--submissions_dir",
        str(tmp_path / "submissions"),
    ]
    assert (
        ensemble.main([*data_flags(root), *runs, *ranked]) == 1
    )  # four candidates make no submission of ten
    assert "4 candidates of 10" in capsys.readouterr().err


def test_the_plan_ends_with_the_scores_where_there_are_no_queries(tmp_path: Path) -> None:
    root = write_split_joints(tmp_path / "data", IDS)
    args = [
        "--data_dir",
        str(root),
        "--preset",
        "fast",
        "--prefer_txt_split",
        "--verbose",
        "--candidate_format",
        "name",
    ]
    plan = make_plan(args)
    assert [step.script for step in plan.steps] == [
        "prepare",
        "make_folds",
        "tune",
        *["train"] * 3,
        "validate",
        "report",
    ]
    assert plan.steps[-2].args[0] == "oof" and "--verbose" in plan.steps[-2].args
    assert "--prefer_txt_split" in plan.steps[1].args and "--folds" not in plan.steps[1].args
    assert any("no test folder" in note for note in plan.notes)
    (root / "test").mkdir()
    assert [step.script for step in make_plan(args).steps][-3:] == [
        "ensemble",
        "validate",
        "report",
    ]


def test_the_forecast_knows_the_layout(tmp_path: Path) -> None:
    root = write_split_joints(tmp_path / "data", IDS)
    plan = make_plan(["--data_dir", str(root), "--preset", "fast"])
    preflight.check_before_run(root, plan.test_dir, plan.folders, plan.args_of("train"))
    assert preflight.forecast(root, plan.args_of("train"), plan.args_of("tune")).startswith(
        "forecast: about"
    )
