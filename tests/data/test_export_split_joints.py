"""Motions are exported to the layout of the SGAR description, whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest

import prepare
from helpers import data_flags, data_settings, load, motion, write_data, write_gar_json
from motret.formats import split_joints
from motret.formats.split_joints import SMPL_STREAMS
from motret.skeleton import PARTS, split_columns

IDS = [f"{number:05d}" for number in range(1, 13)]


@pytest.mark.parametrize("persons", [1, 2])
def test_an_export_is_read_back_with_the_same_positions_and_features(
    tmp_path: Path, persons: int
) -> None:
    scenes = {name: motion(20 + seed, persons, seed) for seed, name in enumerate(IDS[:4])}
    root = write_data(
        tmp_path / "one" / "data",
        scenes,
        captions={name: (f"scene {name}", "another word") for name in scenes},
    )
    out = tmp_path / "two" / "data"
    assert prepare.main([*data_flags(root), "--export_split_joints", str(out)]) == 0
    exported = load(out, strict=True)
    endings = [""] if persons == 1 else ["_a", "_b"]
    assert set(exported.training.ids) == {
        f"{name}{ending}" for name in scenes for ending in endings
    }
    persons_alone = {}
    for name, raw in scenes.items():
        positions, _ = split_columns(raw)
        for person, ending in enumerate(endings):
            index = exported.training.ids.index(f"{name}{ending}")
            assert np.array_equal(np.load(exported.training.paths[index]), positions[:, person])
            assert exported.training.captions[index] == (f"scene {name}",)
            persons_alone[f"{name}{ending}"] = raw.reshape(len(raw), persons, -1)[:, person]
    separate = load(write_data(tmp_path / "three" / "data", persons_alone), rotations=False)
    for index, name in enumerate(separate.training.ids):
        assert np.array_equal(
            separate.store.motion(index), exported.store.motion(exported.training.ids.index(name))
        )
    if persons == 2:
        groups = exported.training.groups
        assert len(set(groups.values())) == 4 and all(
            groups[f"{name}_a"] == groups[f"{name}_b"] for name in scenes
        )


def test_exported_statistics_are_those_of_the_streams(tmp_path: Path) -> None:
    scenes = {name: motion(20 + seed, 1, seed) for seed, name in enumerate(IDS[:3])}
    for raw in scenes.values():
        raw[:, 9 * 3] = 0.1  # spine3 never moves sideways: in both arms and the torso
    root = write_data(tmp_path / "one" / "data", scenes)
    out = tmp_path / "data"
    assert prepare.main([*data_flags(root), "--export_split_joints", str(out)]) == 0
    every = np.concatenate([split_columns(raw)[0][:, 0] for raw in scenes.values()]).astype(
        np.float64
    )
    for name, joints in SMPL_STREAMS.items():
        coordinates = every[:, joints].reshape(len(every), -1)
        assert np.allclose(np.load(out / f"{name}_Mean.npy"), coordinates.mean(axis=0), atol=1e-6)
        assert np.allclose(np.load(out / f"{name}_Std.npy"), coordinates.std(axis=0), atol=1e-6)
    assert np.load(out / "torso_Std.npy")[3 * PARTS["torso"].index(9)] == 0
    assert split_joints.check_statistics(out) == (list(SMPL_STREAMS), [])


def test_exported_part_texts_come_from_the_file_or_the_motions(tmp_path: Path) -> None:
    root = write_data(
        tmp_path / "data", {name: motion(40, 2, seed) for seed, name in enumerate(IDS[:2])}
    )
    out = tmp_path / "out"
    assert prepare.main([*data_flags(root), "--export_split_joints", str(out)]) == 0
    described = json.loads((out / "texts/gar_train.json").read_text())
    assert [entry["id"] for entry in described] == ["00001_a", "00001_b", "00002_a", "00002_b"]
    assert all(set(entry["part_descriptions"]) == set(PARTS) for entry in described)
    assert not any(
        "each person" in text for entry in described for text in entry["part_descriptions"].values()
    )
    write_gar_json(root / "texts/gar_train.json", [1, 2])
    assert (
        prepare.main([*data_flags(root), "--export_split_joints", str(out)]) == 0
    )  # an older export is replaced
    assert (
        json.loads((out / "texts/gar_train.json").read_text())[3]["part_descriptions"]["torso"]
        == "moves like 2"
    )


def test_an_export_is_whole_or_not_there_and_harms_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_data(tmp_path / "data", IDS[:2])
    flags_here = [*data_flags(root), "--export_split_joints"]
    assert prepare.main(flags_here) == 0  # without a folder: in the work folder
    exported = data_settings(root).work_dir / "split_joints"
    assert load(exported).training.ids == ("00001_a", "00001_b", "00002_a", "00002_b")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert prepare.main([*flags_here, str(tmp_path / "mine")]) == 1
    assert "mine: holds something that this script did not make" in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert (
        prepare.main([*data_flags(exported), "--export_split_joints", str(tmp_path / "again")]) == 1
    )
    assert (
        "is in this layout already" in capsys.readouterr().err and not (tmp_path / "again").exists()
    )
    (root / "texts/gar_train.json").write_text("no JSON")
    assert prepare.main([*flags_here, str(tmp_path / "broken")]) == 1
    assert not (tmp_path / "broken").exists() and not list(tmp_path.glob(".broken*"))
