"""Data of other skeletons and units: KIT-ML's 21 joints in millimetres, as the SGAR toy writes
them, and tables in skeleton.json."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ensemble
import prepare
import report
import train
import validate
from helpers import SCRATCH, SMALL, body, data_flags, data_settings, flags, load
from motret import skeleton
from motret.data import augment, feature_store, features
from motret.data.features import FeatureConfig
from motret.data.parts import describer
from motret.errors import DataError
from motret.formats import gar, split_joints
from motret.runs.run import open_run
from motret.skeleton import KIT, PARTS, SMPL

OF_SMPL = (0, 3, 6, 12, 15, 16, 18, 20, 17, 19, 21, 1, 4, 7, 10, 10, 2, 5, 8, 11, 11)
"""For each joint of KIT-ML the one of SMPL that stands nearest."""
TOY = {
    "left_leg": [12, 13, 14, 15],
    "right_leg": [17, 18, 19, 20],
    "left_arm": [11, 5, 6, 7],
    "right_arm": [16, 8, 9, 10],
    "torso": [0, 1, 2, 3, 4, 12, 17],
}
"""The joints of the toy's part files, as its meta.json names them."""
IDS = [f"{number:05d}" for number in range(1, 9)] + [f"M{number:05d}" for number in range(1, 5)]


def kit(frames: int, seed: int) -> np.ndarray:
    """Positions (T, 21, 3) in millimetres of a body that moves, y up."""
    positions = body(frames, persons=1, seed=seed)[:, 0, OF_SMPL] * 1000
    for middle, ankle, foot in ((14, 13, 15), (19, 18, 20)):
        positions[:, middle] = (positions[:, ankle] + positions[:, foot]) / 2
    return positions


def write_toy(
    root: Path,
    bodies: Mapping[str, np.ndarray],
    parts: Mapping[str, Sequence[int]] = TOY,
    meta: Mapping[str, object] | None = None,
) -> Path:
    """A data folder as the toy writes it: streams and meta.json per motion, GAR texts for all."""
    for name, positions in bodies.items():
        folder = root / "split_joints" / name
        folder.mkdir(parents=True)
        np.save(folder / "holistic.npy", positions)
        for part, joints in parts.items():
            np.save(folder / f"{part}.npy", positions[:, joints])
        if meta is not None:
            about = {
                "id": name,
                "source": f"new_joints/{name}.npy",
                "shape": list(positions.shape),
                "PART_JOINTS": parts,
            }
            (folder / "meta.json").write_text(json.dumps(about | dict(meta)))
    entries = [
        {
            "id": name,
            "caption": f"scene {name}",
            "part_descriptions": dict.fromkeys(PARTS, f"moves like {name}"),
        }
        for name in bodies
    ]
    (root / "texts").mkdir()
    (root / "texts" / "gar_train.json").write_text(json.dumps(entries))
    return root


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    bodies = {name: kit(20 + seed, seed) for seed, name in enumerate(IDS)}
    return write_toy(tmp_path / "data", bodies, meta={"fps": 12.5})


# ---- from end to end


def test_the_toys_data_train_the_part_model_and_end_in_an_out_of_fold_score(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs_dir = ["--out_dir", str(toy.parent / "runs")]
    assert prepare.main([*data_flags(toy), "--describe_parts"]) == 0
    output = capsys.readouterr().out
    assert (
        "12 of 1 person(s)" in output
        and "12.5 frames a second" in output
        and "left out    0 training files" in output
    )
    assert (
        "21 joints (kit21), in millimetres by their size" in output
        and "left_arm 4, " in output
        and "torso 7" in output
    )
    described = gar.read_gar(toy.parent / "work" / "gar_described.json").parts
    assert len(described) == len(IDS)
    small = {name: value for name, value in (SMALL | SCRATCH).items() if name != "jobs"} | {
        "mirror": 0.5,
        "lambda_mix": 0.5,
        "epochs": 1,
    }
    call = [
        *data_flags(toy),
        *flags(**small),
        *runs_dir,
        "--folds",
        "2",
        "--run_name",
        "toy",
        "--save_attention",
        "--part_encoders",
    ]
    assert train.main(["sgar", *call]) == 0
    output = capsys.readouterr().out
    assert (
        "60 of 60 parts are described" in output
        and "bodies: 21 joints (kit21), in millimetres by their size" in output
    )
    assert len(list((toy.parent / "runs" / "toy" / "fold0").glob("*_probe_attn_*.png"))) >= 6
    assert validate.main(["oof", *data_flags(toy), *runs_dir]) == 0
    assert re.search(r"\ntoy +all 2 +12 +0\.\d{4} \+- ", capsys.readouterr().out)
    run = open_run(toy.parent / "runs" / "toy")
    assert (
        run.features.body.parts["left_arm"] == (11, 5, 6, 7)
        and run.features.metres == 0.001
        and run.features.fps == 12.5
    )
    assert report.main([*data_flags(toy), *runs_dir, "--run", "toy"]) == 0
    queries = toy.parent / "queries"
    drawn = [
        "make_batches",
        *data_flags(toy),
        "--queries",
        "1",
        "--candidates",
        "6",
        "--fold",
        "0",
        "--out",
        str(queries),
    ]
    assert validate.main(drawn) == 0
    ranked = [
        "--fold",
        "0",
        "--test_dir",
        str(queries),
        "--top_k",
        "6",
        "--submissions_dir",
        str(toy.parent / "submissions"),
    ]
    assert ensemble.main([*data_flags(toy), *runs_dir, *ranked]) == 0


@pytest.mark.filterwarnings("ignore:.*candidates.*:UserWarning")
def test_a_test_of_kit_bodies_is_ranked_to_a_submission(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (toy / "test" / "1").mkdir(parents=True)
    (toy / "test" / "1" / "text.txt").write_text("scene 00001\n")
    for number in range(1, 13):
        np.save(toy / "test" / "1" / f"motion_{number}.npy", kit(20 + number, 30 + number))
    np.save(toy / "test" / "1" / "motion_5.npy", body(20, persons=1)[:, 0])  # another skeleton
    small = {name: value for name, value in (SMALL | SCRATCH).items() if name != "jobs"} | {
        "epochs": 1
    }
    runs_dir = ["--out_dir", str(toy.parent / "runs")]
    assert (
        train.main(
            [
                "sgar",
                *data_flags(toy),
                *flags(**small),
                *runs_dir,
                "--folds",
                "2",
                "--run_name",
                "toy",
            ]
        )
        == 0
    )
    assert (
        ensemble.main(
            [*data_flags(toy), *runs_dir, "--submissions_dir", str(toy.parent / "submissions")]
        )
        == 0
    )
    assert (
        "motion_5.npy: 66 columns where most motions have 63: ranked last"
        in capsys.readouterr().out
    )
    (line,) = (toy.parent / "submissions" / "submission.csv").read_text().splitlines()[1:]
    assert line.startswith("1,") and line.count(",") == 10 and "5" not in line.split(",")[1:]


# ---- what is read


def test_the_features_of_kit_joints_in_millimetres_are_those_of_the_same_joints_in_metres(
    toy: Path,
) -> None:
    data = load(toy)
    config = data.store.config
    assert (config.skeleton, config.metres, config.reflected, config.fps) == (
        skeleton.skeleton_from_spec(config.skeleton).spec(),
        1e-3,
        False,
        12.5,
    )
    positions = np.load(toy / "split_joints" / IDS[0] / "holistic.npy")
    index = data.training.ids.index(IDS[0])
    frames = data.store.motion(index)
    assert frames.shape == (20, 1, 2 * 63 + 5)
    same = body(20, persons=1, seed=0)
    np.testing.assert_allclose(
        frames[..., data.store.columns["position"]].reshape(20, 21, 3)[:, [0, 4, 7, 13]],
        features.make_features(
            same, np.empty((20, 1, 0, 6)), np.array([0]), FeatureConfig(rotations=False)
        )[..., :66].reshape(20, 22, 3)[:, [0, 15, 20, 7]],
        atol=0.01,
    )
    np.testing.assert_allclose(np.load(data.training.paths[index]), positions)


def test_bodies_stored_in_the_mirror_are_turned_back(tmp_path: Path) -> None:
    bodies = {name: kit(24, seed) for seed, name in enumerate(IDS[:4])}
    plain = load(write_toy(tmp_path / "a" / "data", bodies))
    turned = load(
        write_toy(
            tmp_path / "b" / "data",
            {name: positions * (-1, 1, 1) for name, positions in bodies.items()},
        )
    )
    assert (plain.store.config.reflected, turned.store.config.reflected) == (False, True)
    np.testing.assert_array_equal(plain.store.motion(1), turned.store.motion(1))


@pytest.mark.parametrize("parts", [TOY, KIT.parts], ids=["toy", "own"])
def test_part_files_without_meta_are_told_by_their_coordinates(
    tmp_path: Path, parts: Mapping[str, Sequence[int]]
) -> None:
    data = load(
        write_toy(
            tmp_path / "data", {name: kit(20, seed) for seed, name in enumerate(IDS[:3])}, parts
        ),
        strict=True,
    )
    assert {part: list(positions) for part, positions in data.store.config.body.parts.items()} == {
        part: list(parts[part]) for part in PARTS
    }
    assert data.store.config.skeleton == (
        "kit21" if parts is KIT.parts else data.store.config.body.spec()
    )


def test_a_part_file_that_is_none_of_its_body_is_left_out(toy: Path) -> None:
    np.save(toy / "split_joints" / IDS[2] / "torso.npy", np.zeros((22, 7, 3), np.float32))
    (skip,) = load(toy).training.skipped
    assert (
        skip.file.endswith("torso.npy") and "is not that of holistic.npy at frame 0" in skip.problem
    )


def test_data_of_22_joints_in_metres_keep_their_keys(tmp_path: Path) -> None:
    assert FeatureConfig().key() == {
        "fps": 30.0,
        "up": "+y",
        "rotations": True,
        "kind": "canonical",
    }
    positions = {name: body(20, persons=1, seed=seed)[:, 0] for seed, name in enumerate(IDS[:3])}
    data = load(write_toy(tmp_path / "data", positions, SMPL.parts))
    assert data.store.config == FeatureConfig(rotations=False)


def test_the_mirror_of_kit_features_is_that_of_the_mirrored_body() -> None:
    config = FeatureConfig(rotations=False, skeleton="kit21")
    positions = kit(20, 3)[:, None] / 1000

    def featured(positions: np.ndarray) -> np.ndarray:
        return features.make_features(
            positions.astype(np.float32), np.empty((20, 1, 0, 6), np.float32), np.array([0]), config
        )

    mirror = augment.make_mirror(features.feature_layout(1, config))
    frames = featured(positions)
    turned = featured(positions[:, :, KIT.mirror] * (-1, 1, 1))
    np.testing.assert_allclose(
        frames[..., mirror.order.numpy()] * mirror.sign.numpy(), turned, atol=2e-5
    )


def test_descriptions_of_a_kit_body_are_in_the_mirror_those_of_the_mirrored_one() -> None:
    from motret.data.parts import part_texts

    positions, starts = kit(60, 5)[:, None] / 1000, np.array([0])
    (plain,) = describer.describe_parts(positions, starts, 30.0, KIT)
    (turned,) = describer.describe_parts(
        positions[:, :, KIT.mirror] * (-1, 1, 1), starts, 30.0, KIT
    )
    assert any(plain.values()) and part_texts.mirror_parts(plain) == turned


# ---- skeleton.json

FOUR = {
    "names": [
        "pelvis",
        "head",
        "left_shoulder",
        "right_shoulder",
        "left_hip",
        "right_hip",
        "left_wrist",
        "right_wrist",
    ],
    "parents": [
        -1,
        "pelvis",
        "head",
        "head",
        "pelvis",
        "pelvis",
        "left_shoulder",
        "right_shoulder",
    ],
    "parts": {
        "right_arm": [1, 3, 7],
        "left_arm": [1, 2, 6],
        "right_leg": [0, 5],
        "left_leg": [0, 4],
        "torso": [0, 1],
    },
    "left_right": [["left_shoulder", "right_shoulder"], ["left_hip", "right_hip"], [6, 7]],
}
OF_EIGHT = (0, 15, 16, 17, 1, 2, 20, 21)


def eight(root: Path, form: object) -> Path:
    bodies = {
        name: body(20 + seed, persons=1, seed=seed)[:, 0, OF_EIGHT]
        for seed, name in enumerate(IDS[:6])
    }
    write_toy(root, bodies, FOUR["parts"])
    (root / "skeleton.json").write_text(form if isinstance(form, str) else json.dumps(form))
    return root


@pytest.mark.parametrize("given", [True, False], ids=["pairs given", "pairs by names"])
def test_any_number_of_joints_is_read_by_a_table(
    tmp_path: Path, given: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    form = FOUR if given else {key: value for key, value in FOUR.items() if key != "left_right"}
    root = eight(tmp_path / "data", form)
    data = load(root, strict=True)
    body_ = data.store.config.body
    assert (
        body_.name == "skeleton.json"
        and body_.mirror.tolist() == [0, 1, 3, 2, 5, 4, 7, 6]
        and body_.parents[2] == 1
    )
    assert data.store.features.shape[-1] == 2 * 24 + 5
    again = feature_store.open_feature_store(data.store.folder).config.body
    assert (again.joints, again.parents, dict(again.parts)) == (
        body_.joints,
        body_.parents,
        dict(body_.parts),
    )
    small = {name: value for name, value in (SMALL | SCRATCH).items() if name != "jobs"} | {
        "mirror": 0.5,
        "epochs": 1,
    }
    call = [
        *data_flags(root),
        *flags(**small),
        "--out_dir",
        str(tmp_path / "runs"),
        "--folds",
        "2",
        "--run_name",
        "eight",
    ]
    assert train.main(["sgar", *call]) == 0
    capsys.readouterr()
    assert train.main(["sgar", *call[:-1], "again", "--part_text", "motion"]) == 1
    error = capsys.readouterr().err
    assert (
        "parts cannot be described from the motions: no joint is called neck" in error
        and "gar_train.json" in error
    )


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ("{", "is no skeleton"),
        ([1], "not a JSON object"),
        ({key: value for key, value in FOUR.items() if key != "parents"}, "no parents in it"),
        (FOUR | {"parents": [-1, 0]}, "one for each of the 8 joints"),
        (FOUR | {"parents": [-1, 2, 1, 1, 0, 0, 2, 3]}, "form no circle"),
        (FOUR | {"names": ["hips", *FOUR["names"][1:]]}, "no joint is called pelvis"),
        (FOUR | {"parts": FOUR["parts"] | {"torso": []}}, "no joints of torso"),
        (FOUR | {"parts": FOUR["parts"] | {"torso": [99]}}, "99 is no joint"),
        (FOUR | {"left_right": [[2, 3], [3, 4]]}, "in two pairs"),
    ],
)
def test_a_table_that_is_none_is_shown_its_form(tmp_path: Path, form: object, problem: str) -> None:
    root = eight(tmp_path / "data", form)
    with pytest.raises(DataError) as caught:
        split_joints.read_training(root)
    assert (
        problem in caught.value.problem
        and '"left_right"' in caught.value.fix
        and caught.value.path == str(root / "skeleton.json")
    )


def test_a_fps_of_meta_that_is_no_number_is_none(tmp_path: Path) -> None:
    root = write_toy(
        tmp_path / "data",
        {name: kit(20, seed) for seed, name in enumerate(IDS[:2])},
        meta={"fps": "fast"},
    )
    assert load(root, fps=12.5).store.config.fps == 12.5
    assert replace(load(root).store.config, fps=12.5) == load(root, fps=12.5).store.config
    assert data_settings(root).fps == 30.0
