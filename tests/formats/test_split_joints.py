"""The layout of the SGAR description: read, written, its faults, and its own split instead of folds."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import ensemble
import make_folds
import prepare
import train
import validate
from helpers import SCRATCH, SMALL, body, data_flags, data_settings, flags, load, motion, write_data
from motret.config.base import DataConfig
from motret.data import feature_store, folds
from motret.data.dataset import TrainingData
from motret.data.features import FeatureConfig
from motret.data.folds import TRAIN_ONLY
from motret.errors import DataError, FoldError
from motret.formats import split_joints
from motret.formats.split_joints import SMPL_STREAMS
from motret.pipeline import preflight
from motret.pipeline.plan import make_plan
from motret.skeleton import PARTS, split_columns


def write_layout(root: Path, ids: Sequence[str], entries: Sequence[object] | None = None, held_out: Sequence[object] = ()) -> Path:
    """A data folder of this layout, a body of 20 frames and more for each id; entries: ids as gar_train.json writes them."""
    for seed, name in enumerate(ids):
        positions = body(20 + seed, persons=1, seed=seed)[:, 0]
        (root / "split_joints" / name).mkdir(parents=True)
        for stream, joints in SMPL_STREAMS.items():
            np.save(root / "split_joints" / name / f"{stream}.npy", positions[:, joints])
    write_gar(root / "texts/gar_train.json", ids if entries is None else entries)
    if held_out:
        write_gar(root / "texts/gar_val.json", held_out)
    return root


def write_gar(file: Path, ids: Sequence[object]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"id": name, "caption": f"scene {name}", "part_descriptions": dict.fromkeys(PARTS, f"moves like {name}")} for name in ids]
    file.write_text(json.dumps(rows))


def stream(root: Path, name: str, part: str) -> Path:
    return root / "split_joints" / name / f"{part}.npy"


IDS = [f"{number:05d}" for number in range(1, 13)]


# ---- reading


def test_a_motion_is_the_whole_body_of_one_person_without_rotations(tmp_path: Path) -> None:
    data = load(write_layout(tmp_path / "data", IDS[:3]))
    assert data.training.ids == tuple(IDS[:3]) and data.training.captions[1] == ("scene 00002",)
    assert data.store.persons == 1 and not data.store.config.rotations and "rotation" not in data.store.columns
    assert data.store.lengths.tolist() == [20, 21, 22] and data.training.skipped == ()


def test_ids_in_three_forms_meet(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data", IDS[:3], entries=[1, "00002", "3\n"])
    assert load(root).training.ids == ("00001", "00002", "00003")
    assert load(root, id_width=3).training.ids == ("001", "002", "003")


def test_captions_of_both_files_count_and_the_first_of_an_id(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data", IDS[:4], entries=["1", "2", "00001"], held_out=["2", "3", "4"])
    training = load(root).training
    assert training.ids == tuple(IDS[:4]) and training.captions[:2] == (("scene 1",), ("scene 2",))
    assert [Path(skip.file).name for skip in training.skipped] == ["gar_train.json", "gar_val.json"]


def test_the_motions_folder_of_the_competition_wins(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data", ["00001", "00002"])
    (root / "split_joints" / "00009").mkdir(parents=True)
    assert load(root).training.ids == ("00001", "00002")


def test_no_caption_file_and_no_id_that_meets_are_said_with_examples(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data", ["a1", "a2"], entries=["b1", "b2"])
    with pytest.raises(DataError) as caught:
        load(root)
    for side in ("empty dataset", "split_joints/ ids e.g. [a1, a2]", "texts/gar_train.json ids e.g. [b1, b2]"):
        assert side in str(caught.value)
    shutil.rmtree(root / "texts")
    with pytest.raises(DataError, match=r"texts/gar_train\.json: no such file"):
        load(root)


# ---- faults of streams


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
        np.save(file, {"frames": array[:-1], "joints": array[:, :-1], "flat": array.reshape(len(array), -1)}[kind])


FAULTS = {
    "missing": "no such file",
    "text": "not an .npy file",
    "frames": "20 frames, holistic.npy has 21",
    "joints": "4 joints, expected 5",
    "flat": "an array (21, 15), expected (21, 5, 3)",
    "moved": "its spine3 is not that of holistic.npy at frame 0",
    "nan": "its left_collar is not that of holistic.npy at frame 4",
}


@pytest.mark.parametrize(("kind", "problem"), FAULTS.items(), ids=list(FAULTS))
def test_a_part_that_does_not_fit_names_itself_and_leaves_its_motion_out(tmp_path: Path, kind: str, problem: str) -> None:
    root = write_layout(tmp_path / "data", IDS[:3])
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
    root = write_layout(tmp_path / "data", IDS[:2])
    stream(root, "00001", "torso").unlink()
    stream(root, "00001", "right_leg").unlink()
    (skip,) = load(root).training.skipped
    assert skip.file.endswith("right_leg.npy") and skip.problem == "no such file, nor torso.npy"


def test_a_body_of_other_joints_is_told_what_is_expected(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data", IDS[:2])
    np.save(stream(root, "00001", "holistic"), np.zeros((20, 24, 3), np.float32))
    (skip,) = load(root).training.skipped
    assert "(20, 24, 3), expected (frames, 22, 3)" in skip.problem
    np.save(stream(root, "00002", "holistic"), np.zeros((21, 24, 3), np.float32))
    with pytest.raises(
        DataError, match=r"split_joints: bodies of 24 joints, which no known skeleton has .*skeleton\.json.*\"parents\""
    ) as caught:
        load(root)
    assert "\n" not in str(caught.value)


def test_a_body_of_the_competitions_columns_is_none(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data", IDS[:2])
    np.save(stream(root, "00001", "holistic"), motion(20))
    (skip,) = load(root).training.skipped
    assert skip.file.endswith("holistic.npy") and "(20, 384), expected (frames, 22, 3)" in skip.problem


def test_half_precision_is_near_enough(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data", IDS[:2])
    for part in PARTS:
        file = stream(root, "00001", part)
        np.save(file, np.asfortranarray(np.load(file).astype(np.float16)))
    assert load(root, strict=True).training.ids == tuple(IDS[:2])


def test_such_motions_are_not_packed_as_if_they_had_rotations(tmp_path: Path) -> None:
    data = load(write_layout(tmp_path / "data", IDS[:2]))
    with pytest.raises(DataError, match=r"positions alone, no joint rotations \(give --no_rotations\)"):
        feature_store.build_feature_cache(data.training.ids, data.training.paths, FeatureConfig(), DataConfig(work_dir=tmp_path / "work"), jobs=1)


# ---- statistics


def test_statistics_are_found_stream_by_stream_and_a_deviation_of_zero_is_none_the_worse(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data", IDS[:2])
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
def test_broken_statistics_name_themselves(tmp_path: Path, mean: np.ndarray, deviation: np.ndarray | None, file: str, problem: str) -> None:
    root = write_layout(tmp_path / "data", IDS[:2])
    np.save(root / "torso_Mean.npy", mean)
    if deviation is not None:
        np.save(root / "torso_Std.npy", deviation)
    (skip,) = load(root).training.skipped
    assert skip.file == str(root / f"torso_{file}.npy") and problem in skip.problem
    with pytest.raises(DataError, match=rf"torso_{file}\.npy: "):
        load(root, strict=True)


# ---- writing


@pytest.mark.parametrize("persons", [1, 2])
def test_export_then_read_gives_the_same_positions_and_features(tmp_path: Path, persons: int) -> None:
    scenes = {name: motion(20 + seed, persons, seed) for seed, name in enumerate(IDS[:4])}
    root = write_data(tmp_path / "one" / "data", scenes, captions={name: (f"scene {name}", "another word") for name in scenes})
    out = tmp_path / "two" / "data"
    assert prepare.main([*data_flags(root), "--export_split_joints", str(out)]) == 0
    read = load(out, strict=True)
    endings = [""] if persons == 1 else ["_a", "_b"]
    assert set(read.training.ids) == {f"{name}{ending}" for name in scenes for ending in endings}
    alone = {}
    for name, raw in scenes.items():
        positions, _ = split_columns(raw)
        for person, ending in enumerate(endings):
            row = read.training.ids.index(f"{name}{ending}")
            assert np.array_equal(np.load(read.training.paths[row]), positions[:, person])
            assert read.training.captions[row] == (f"scene {name}",)
            alone[f"{name}{ending}"] = raw.reshape(len(raw), persons, -1)[:, person]
    own = load(write_data(tmp_path / "three" / "data", alone), rotations=False)
    for row, name in enumerate(own.training.ids):
        assert np.array_equal(own.store.motion(row), read.store.motion(read.training.ids.index(name)))
    if persons == 2:
        groups = read.training.groups
        assert len(set(groups.values())) == 4 and all(groups[f"{name}_a"] == groups[f"{name}_b"] for name in scenes)


def test_exported_statistics_are_those_of_the_streams(tmp_path: Path) -> None:
    scenes = {name: motion(20 + seed, 1, seed) for seed, name in enumerate(IDS[:3])}
    for raw in scenes.values():
        raw[:, 9 * 3] = 0.1  # spine3 never moves sideways: in both arms and the torso
    root = write_data(tmp_path / "one" / "data", scenes)
    out = tmp_path / "data"
    assert prepare.main([*data_flags(root), "--export_split_joints", str(out)]) == 0
    every = np.concatenate([split_columns(raw)[0][:, 0] for raw in scenes.values()]).astype(np.float64)
    for name, joints in SMPL_STREAMS.items():
        coordinates = every[:, joints].reshape(len(every), -1)
        assert np.allclose(np.load(out / f"{name}_Mean.npy"), coordinates.mean(axis=0), atol=1e-6)
        assert np.allclose(np.load(out / f"{name}_Std.npy"), coordinates.std(axis=0), atol=1e-6)
    assert np.load(out / "torso_Std.npy")[3 * PARTS["torso"].index(9)] == 0
    assert split_joints.check_statistics(out) == (list(SMPL_STREAMS), [])


def test_exported_part_texts_come_from_the_file_or_the_motions(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data", {name: motion(40, 2, seed) for seed, name in enumerate(IDS[:2])})
    out = tmp_path / "out"
    assert prepare.main([*data_flags(root), "--export_split_joints", str(out)]) == 0
    described = json.loads((out / "texts/gar_train.json").read_text())
    assert [entry["id"] for entry in described] == ["00001_a", "00001_b", "00002_a", "00002_b"]
    assert all(set(entry["part_descriptions"]) == set(PARTS) for entry in described)
    assert not any("each person" in text for entry in described for text in entry["part_descriptions"].values())
    write_gar(root / "texts/gar_train.json", [1, 2])
    assert prepare.main([*data_flags(root), "--export_split_joints", str(out)]) == 0  # an older export is replaced
    assert json.loads((out / "texts/gar_train.json").read_text())[3]["part_descriptions"]["torso"] == "moves like 2"


def test_an_export_is_whole_or_not_there_and_harms_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_data(tmp_path / "data", IDS[:2])
    flags_here = [*data_flags(root), "--export_split_joints"]
    assert prepare.main(flags_here) == 0  # without a folder: in the work folder
    made = data_settings(root).work_dir / "split_joints"
    assert load(made).training.ids == ("00001_a", "00001_b", "00002_a", "00002_b")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert prepare.main([*flags_here, str(tmp_path / "mine")]) == 1
    assert "mine: holds something that this script did not make" in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert prepare.main([*data_flags(made), "--export_split_joints", str(tmp_path / "again")]) == 1
    assert "is in this layout already" in capsys.readouterr().err and not (tmp_path / "again").exists()
    (root / "texts/gar_train.json").write_text("no JSON")
    assert prepare.main([*flags_here, str(tmp_path / "broken")]) == 1
    assert not (tmp_path / "broken").exists() and not list(tmp_path.glob(".broken*"))


# ---- one split by lists


@pytest.fixture
def both_layouts(tmp_path: Path) -> list[Path]:
    return [write_data(tmp_path / "a" / "data", IDS), write_layout(tmp_path / "b" / "data", IDS)]


def write_lists(root: Path, learned: Sequence[str] | None, held_out: Sequence[str]) -> None:
    for name, ids in (("train.txt", learned), ("val.txt", held_out)):
        (root / name).unlink(missing_ok=True)
        if ids is not None:
            (root / name).write_text("".join(f"{own}\n" for own in ids))


def listed_split(data: TrainingData) -> np.ndarray:
    return folds.split_by_lists(data, folds.choose_split_lists(data.training.root, prefer_txt=True, count_given=False))


def test_gar_val_is_the_validation_set_unless_a_number_of_folds_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_layout(tmp_path / "data", IDS, entries=IDS[:8], held_out=IDS[8:])
    write_lists(root, IDS[:10], IDS[10:])  # which --prefer_txt_split alone takes
    for flag, said in (
        ([], "gar_val.json is the validation set; --folds K makes K folds instead\n1 fold of 4 motions, 8 to learn from"),
        (["--folds", "3"], "3 folds of 4, 4, 4 motions in 12 groups"),
        (["--prefer_txt_split"], "val.txt is the validation set\n1 fold of 2 motions, 10 to learn from"),
    ):
        assert make_folds.main([*data_flags(root), *flag]) == 0
        assert said in capsys.readouterr().out
    fast = ["--data_dir", str(root), "--preset", "fast"]
    assert "--folds" not in make_plan(fast).steps[1].args and "--folds" in make_plan([*fast, "--folds", "3"]).steps[1].args
    plain = write_data(tmp_path / "plain" / "data", IDS)
    (plain / "texts" / "gar_train.json").write_text((root / "texts" / "gar_train.json").read_text())
    (plain / "texts" / "gar_val.json").write_text((root / "texts" / "gar_val.json").read_text())
    assert folds.choose_split_lists(plain, prefer_txt=False, count_given=False) is None  # the competition's layout has folds


def test_training_says_that_gar_val_is_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_layout(tmp_path / "data", IDS, entries=IDS[:8], held_out=IDS[8:])
    made = data_settings(root)
    small = {name: value for name, value in (SMALL | SCRATCH).items() if name != "jobs"} | {"epochs": 1}
    call = ["holistic", *data_flags(root), *flags(**small), "--out_dir", str(tmp_path / "runs"), "--run_name", "one"]
    assert train.main([*call, "--preset", "fast"]) == 0  # whose folds are no flag
    out = capsys.readouterr().out
    assert "1 fold made in" in out and "(gar_val.json is held out; --folds K makes folds instead)" in out and "(4 motions" in out
    assert json.loads((made.folds_dir / "folds.json").read_text())["lists"] == ["gar_train.json", "gar_val.json"]


def test_the_lists_are_one_fold_in_both_layouts(both_layouts: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    for root in both_layouts:
        write_lists(root, ["1", "2", "00003", *IDS[3:8]], ["9", "00010"])
        assert make_folds.main([*data_flags(root), "--prefer_txt_split"]) == 0
        assert "1 fold of 2 motions, 8 to learn from" in capsys.readouterr().out
        data = load(root)
        found = folds.read_folds(data, data_settings(root).folds_dir)
        assert found.count == 1 and [data.training.ids[row] for row in found.val_idx(0)] == ["00009", "00010"]
        assert len(found.train_idx(0)) == 8 and set(found.fold) == {0, TRAIN_ONLY}


def test_the_lists_may_name_files(both_layouts: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    for root in both_layouts:
        write_lists(root, [f"{name}.npy" for name in IDS[:8]], ["00009.txt", "00010.npy"])
        assert make_folds.main([*data_flags(root), "--prefer_txt_split"]) == 0
        assert "1 fold of 2 motions, 8 to learn from" in capsys.readouterr().out


def test_without_train_txt_all_others_are_learned_from(both_layouts: list[Path]) -> None:
    for root in both_layouts:
        write_lists(root, None, ["9"])
        assert listed_split(load(root)).tolist() == [TRAIN_ONLY] * 8 + [0] + [TRAIN_ONLY] * 3


def test_gar_files_are_lists_where_there_is_no_val_txt(tmp_path: Path) -> None:
    data = load(write_layout(tmp_path / "data", IDS, entries=[1, 2, 3], held_out=["4", "00005"]))
    assert data.training.ids == tuple(IDS[:5]) and listed_split(data).tolist() == [TRAIN_ONLY] * 3 + [0, 0]


def test_lists_that_cannot_be_a_split_are_said(both_layouts: list[Path]) -> None:
    for root in both_layouts:
        for learned, held_out, said in (
            (IDS[:8], None, r"val\.txt: no such file, nor texts/gar_val\.json"),
            (IDS[:8], ["2", "7", "9"], r"val\.txt: 2 ids are in train\.txt too: 2, 7"),
            (IDS[:8], ["9", "77"], r"val\.txt: 1 of its 2 ids have no motion with a caption: 77"),
            (None, IDS, r"val\.txt: leaves no motion to train on"),
        ):
            write_lists(root, learned, held_out)
            with pytest.raises(FoldError, match=said):
                listed_split(load(root))


def test_a_listed_motion_with_a_faulty_file_is_left_out(both_layouts: list[Path]) -> None:
    one, other = both_layouts
    np.save(one / "motions" / "00009.npy", np.full((20, 384), np.nan, np.float32))
    stream(other, "00009", "torso").unlink()
    for root in both_layouts:
        write_lists(root, IDS[:8], ["9", "10"])
        data = load(root)
        assert data.training.ids[8:] == ("00010",) and listed_split(data).tolist() == [TRAIN_ONLY] * 8 + [0]
        write_lists(root, IDS[:8], ["9"])
        with pytest.raises(FoldError, match="leaves no motion to hold out"):
            listed_split(load(root))


def test_folds_that_are_not_the_lists_stop_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_layout(tmp_path / "data", IDS)
    write_lists(root, None, ["9", "10"])
    assert make_folds.main([*data_flags(root), "--folds", "2"]) == 0
    assert train.main(["holistic", *data_flags(root), "--prefer_txt_split", "--out_dir", str(tmp_path / "runs")]) == 1
    assert "folds.csv: not the split of the data's lists (run `python solution/make_folds.py --prefer_txt_split`" in capsys.readouterr().err


# ---- from end to end


@pytest.mark.parametrize("by_lists", [False, True], ids=["folds", "lists"])
def test_the_layout_trains_and_ends_with_its_local_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str], by_lists: bool) -> None:
    root = write_layout(tmp_path / "data", IDS, entries=[1, "00002", "3\n", *IDS[3:8]], held_out=[9, 10, 11, 12])
    split = ["--prefer_txt_split"] if by_lists else ["--folds", "2"]
    small = {name: value for name, value in (SMALL | SCRATCH).items() if name != "jobs"}
    runs = ["--out_dir", str(tmp_path / "runs")]
    assert prepare.main(data_flags(root)) == 0
    assert "12 of 1 person(s), 0.0 h; positions alone, no joint rotations" in capsys.readouterr().out
    assert make_folds.main([*data_flags(root), *split]) == 0
    assert train.main(["sgar", *data_flags(root), *split, *flags(**small), *runs, "--run_name", "small"]) == 0
    told = capsys.readouterr().out
    assert "gar_train.json" in told and "gar_val.json: 60 of 60 parts are described" in told
    assert validate.main(["oof", *data_flags(root), *runs]) == 0
    motions, count = (4, "all 1") if by_lists else (12, "all 2")
    assert capsys.readouterr().out.splitlines()[1].split("  ")[:3] == ["small", count, str(motions)]
    assert ensemble.main([*data_flags(root), *runs]) == 1
    error = capsys.readouterr().err
    assert "test: no test folder, so there is nothing to rank" in error and error.count("\n") == 1
    out = tmp_path / "queries"
    assert validate.main(["make_batches", *data_flags(root), "--queries", "1", "--candidates", "4", "--out", str(out)]) == 0
    ranked = ["--fold", "0", "--test_dir", str(out), "--submissions_dir", str(tmp_path / "submissions")]
    assert ensemble.main([*data_flags(root), *runs, *ranked]) == 1  # four candidates make no submission of ten
    assert "4 candidates of 10" in capsys.readouterr().err


def test_the_plan_ends_with_the_scores_where_there_are_no_queries(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data", IDS)
    asked = ["--data_dir", str(root), "--preset", "fast", "--prefer_txt_split", "--verbose", "--candidate_format", "name"]
    plan = make_plan(asked)
    assert [step.script for step in plan.steps] == ["prepare", "make_folds", "tune", *["train"] * 3, "validate", "report"]
    assert plan.steps[-2].args[0] == "oof" and "--verbose" in plan.steps[-2].args
    assert "--prefer_txt_split" in plan.steps[1].args and "--folds" not in plan.steps[1].args
    assert any("no test folder" in note for note in plan.notes)
    (root / "test").mkdir()
    assert [step.script for step in make_plan(asked).steps][-3:] == ["ensemble", "validate", "report"]


def test_the_forecast_knows_the_layout(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data", IDS)
    plan = make_plan(["--data_dir", str(root), "--preset", "fast"])
    preflight.check_before_run(root, plan.test_dir, plan.folders, plan.args_of("train"))
    assert preflight.forecast(root, plan.args_of("train"), plan.args_of("tune")).startswith("forecast: about")
