"""Folds: what belongs together stays together, folds are alike, and folds of other data are
refused."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import make_folds
import train
from helpers import data_flags, in_the_mirror, load, motion, swapped, write_data
from motret.data import folds
from motret.data.folds import Folds
from motret.errors import FoldError

FROZEN = (
    "211220321033121030023303133021320102010122112203210331210300",
    "033110300121210222330033121101322203332100331103001212102223",
)
IDS = tuple(f"{number:02d}" for number in range(1, 13))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", IDS)


def joined(root: Path) -> set[frozenset[str]]:
    """The groups of more than one motion."""
    data = load(root)
    label = folds.group_motions(data)
    groups = [
        frozenset(np.array(data.training.ids)[label == name].tolist()) for name in np.unique(label)
    ]
    return {group for group in groups if len(group) > 1}


# ---- what belongs together


def test_motions_with_the_same_set_of_captions_share_a_group(tmp_path: Path) -> None:
    captions = {
        "01": ["They wave.", "two people wave"],
        "02": ["Two  people WAVE!", "they wave", "they wave..."],  # the same set, written otherwise
        "03": ["they wave"],  # a part of it is not the same
        "04": ["they wave", "two people wave", "and bow"],
    }
    assert joined(write_data(tmp_path / "data", IDS, captions)) == {frozenset(("01", "02"))}


@pytest.mark.parametrize(("motions", "together"), [(5, True), (6, False)])
def test_a_caption_of_more_than_five_motions_joins_nothing(
    tmp_path: Path, motions: int, together: bool
) -> None:
    captions = {name: ["they stand"] for name in IDS[:motions]}
    assert joined(write_data(tmp_path / "data", IDS, captions)) == (
        {frozenset(IDS[:motions])} if together else set()
    )


def test_one_common_caption_in_a_set_keeps_it_from_joining(tmp_path: Path) -> None:
    captions = {name: ["they stand", f"number {name}"] for name in IDS[:6]} | {
        name: ["they stand", "they bow"] for name in IDS[6:8]
    }
    assert joined(write_data(tmp_path / "data", IDS, captions)) == set()


def test_a_caption_twice_in_one_motion_does_not_make_it_common(tmp_path: Path) -> None:
    captions = {name: ["they stand", "They stand.", "they stand!"] for name in IDS[:2]}
    assert joined(write_data(tmp_path / "data", IDS, captions)) == {frozenset(IDS[:2])}


def test_nearly_the_same_motions_share_a_group_whichever_person_stands_first(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    motions = {name: motion(30, seed=seed) for seed, name in enumerate(IDS)}
    motions["02"] = motions["01"] + rng.normal(0, 0.003, (30, 384)).astype(np.float32)
    motions["04"] = swapped(motions["03"])
    motions["06"] = motions["05"] + rng.normal(0, 0.1, (30, 384)).astype(
        np.float32
    )  # 10 cm are another motion
    assert joined(write_data(tmp_path / "data", motions)) == {
        frozenset(("01", "02")),
        frozenset(("03", "04")),
    }


def test_mirrored_twins_with_swapped_captions_share_a_fold(tmp_path: Path) -> None:
    """As HumanML3D has them: of each motion a twin in the mirror, M000123 of 000123, left for right
    in its captions."""
    patterns = ("person {} lifts the left hand", "someone turns right, number {}")
    ids = [f"{number:06d}" for number in range(40)]
    motions = {name: motion(24 + number % 7, 1, number) for number, name in enumerate(ids)}
    captions = {name: [line.format(name) for line in patterns] for name in ids}
    captions |= {
        f"M{name}": [f"person {name} lifts the right hand", f"someone turns left, number {name}"]
        for name in ids
    }
    data = load(
        write_data(
            tmp_path / "data",
            motions | {f"M{name}": in_the_mirror(motions[name]) for name in ids},
            captions,
        )
    )
    split = folds.make_folds(data, 5, 0, tmp_path / "folds")
    fold = dict(zip(data.training.ids, split.fold.tolist(), strict=True))
    assert [fold[name] for name in ids] == [fold[f"M{name}"] for name in ids] and set(
        fold.values()
    ) == set(range(5))


def test_either_the_mirrored_motion_or_the_mirrored_captions_join(tmp_path: Path) -> None:
    motions = {name: motion(30, seed=seed) for seed, name in enumerate(IDS)}
    motions["02"] = in_the_mirror(motions["01"])
    captions = {
        "03": ["turns left", "steps aside"],
        "04": ["steps aside", "Turns right!"],
        "05": ["waves right"],
    }
    captions |= {
        name: ["waves left"] for name in IDS[6:]
    }  # of six motions: it joins nothing, nor does its mirror
    assert joined(write_data(tmp_path / "data", motions, captions)) == {
        frozenset(("01", "02")),
        frozenset(("03", "04")),
    }


def test_links_of_both_kinds_make_chains(tmp_path: Path) -> None:
    motions = {name: motion(30, seed=seed) for seed, name in enumerate(IDS)}
    motions["12"] = motions["01"]
    captions = {"12": ["they bow"], "05": ["they bow"], "06": ["they kneel"], "07": ["they kneel"]}
    assert joined(write_data(tmp_path / "data", motions, captions)) == {
        frozenset(("01", "05", "12")),
        frozenset(("06", "07")),
    }


def test_groups_csv_wins_over_captions_and_motions(tmp_path: Path) -> None:
    motions = {name: motion(30, seed=seed) for seed, name in enumerate(IDS)} | {
        "02": motion(30, seed=0)
    }
    groups = {name: f"of {name}" for name in IDS} | {"11": "pair", "12": "pair"}
    captions = {name: ["they bow"] for name in IDS[2:5]}
    assert joined(write_data(tmp_path / "data", motions, captions, groups)) == {
        frozenset(("11", "12"))
    }


# ---- the split


@settings(max_examples=60)
@given(st.data(), st.integers(2, 5), st.integers(0, 3))
def test_groups_are_never_split_and_no_fold_is_empty(
    draw: st.DataObject, count: int, seed: int
) -> None:
    size = draw.draw(st.integers(count, 40))
    group = np.array(
        draw.draw(st.lists(st.sampled_from("abcdefghijkl"), min_size=size, max_size=size))
    )
    group[:count] = list("abcde")[:count]  # as many groups as folds at least
    lengths = np.array(draw.draw(st.lists(st.integers(6, 300), min_size=size, max_size=size)))
    fold = folds.assign_folds(group, lengths, count, seed)
    assert set(fold.tolist()) == set(range(count))
    for name in np.unique(group):
        assert len(set(fold[group == name].tolist())) == 1


def test_folds_are_alike_in_length() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.permutation(np.arange(20, 320))
    fold = folds.assign_folds(np.arange(300).astype(str), lengths, 5, 0)
    for low in range(20, 320, 30):  # ten bins of thirty motions
        shares = np.bincount(fold[(lengths >= low) & (lengths < low + 30)], minlength=5)
        assert shares.min() >= 5 and shares.max() <= 7


def test_the_split_is_the_same_with_every_version_of_every_library() -> None:
    """Written down once: a change of these folds is a change of `folds.ALGORITHM`."""
    number = np.arange(60)
    group, lengths = np.array([f"g{index}" for index in number * 7 % 41]), 20 + number * 37 % 101
    assert folds.ALGORITHM == "greedy-1"
    assert "".join(map(str, folds.assign_folds(group, lengths, 4, 0))) == FROZEN[0]
    assert "".join(map(str, folds.assign_folds(group, lengths, 4, 1))) == FROZEN[1]


@pytest.mark.parametrize("lengths", [[20] * 12, [*range(20, 32)], [20] * 11 + [300]])
@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_a_few_motions_are_split_without_a_murmur(lengths: list[int], count: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fold = folds.assign_folds(np.array(IDS), np.array(lengths), count, 0)
    sizes = np.bincount(fold, minlength=count)
    assert sizes.min() >= 12 // count and sizes.sum() == 12


@pytest.mark.parametrize(("count", "problem"), [(1, "hold nothing out"), (4, "of 3 groups")])
def test_a_number_of_folds_that_cannot_be_is_refused(count: int, problem: str) -> None:
    with pytest.raises(FoldError, match=problem):
        folds.assign_folds(np.array(list("aabbcc")), np.arange(10, 16), count, 0)


def test_the_same_seed_gives_the_same_folds_and_another_seed_others(
    generated: Path, tmp_path: Path
) -> None:
    data = load(generated, work_dir=tmp_path / "work", folds_dir=tmp_path / "folds")
    splits = [
        folds.make_folds(data, 3, seed, tmp_path / str(index))
        for index, seed in enumerate((7, 7, 8))
    ]
    assert splits[0].hash == splits[1].hash != splits[2].hash
    np.testing.assert_array_equal(splits[0].fold, splits[1].fold)
    assert (splits[0].fold != splits[2].fold).any()
    first, second = ((tmp_path / index / "folds.csv").read_bytes() for index in "01")
    assert first == second


def test_what_a_fold_learns_from_and_holds_out_is_all_there_is() -> None:
    split = Folds(np.array([0, 1, 2, 1]), np.array(list("abcd")), "", 3)
    assert split.val_idx(1).tolist() == [1, 3] and split.train_idx(1).tolist() == [0, 2]


# ---- folds.csv and its sidecar


def test_folds_are_read_back_as_they_were_made(root: Path) -> None:
    data = load(root)
    split, there = folds.read_or_make_folds(data, root / "folds", 3, 0)
    opened, there_again = folds.read_or_make_folds(
        data, root / "folds", 5, 9
    )  # what is there counts, not what is asked for
    assert (there, there_again) == (False, True) and (opened.hash, opened.count) == (
        split.hash,
        split.count,
    ) == (
        folds.folds_hash(root / "folds"),
        3,
    )
    np.testing.assert_array_equal(opened.fold, split.fold)
    np.testing.assert_array_equal(opened.group, split.group)
    table = pd.read_csv(root / "folds" / "folds.csv", dtype=str)
    assert table.columns.tolist() == ["id", "fold", "group"] and tuple(table["id"]) == IDS
    about = json.loads((root / "folds" / "folds.json").read_text())
    assert about == {
        "hash": split.hash,
        "data": data.fingerprint,
        "folds": 3,
        "seed": 0,
        "algorithm": folds.ALGORITHM,
    }
    assert (split.seed, opened.seed) == (0, 0)


def test_folds_made_before_algorithms_had_names_are_read(root: Path) -> None:
    data = load(root)
    split = folds.make_folds(data, 3, 5, root / "folds")
    sidecar = root / "folds" / "folds.json"
    about = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({key: about[key] for key in ("hash", "data", "folds", "seed")}))
    np.testing.assert_array_equal(folds.read_folds(data, root / "folds").fold, split.fold)


def test_the_order_of_lines_in_folds_csv_does_not_matter(root: Path) -> None:
    data = load(root)
    split = folds.make_folds(data, 3, 0, root / "folds")
    listed = root / "folds" / "folds.csv"
    header, *lines = listed.read_text().splitlines()
    listed.write_text("\n".join([header, *reversed(lines)]) + "\n")
    np.testing.assert_array_equal(folds.read_folds(data, root / "folds").fold, split.fold)


@pytest.mark.parametrize("names", [("1", "2", "03"), ("NA", "None", "null")])
def test_ids_and_groups_are_read_as_they_are_written(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    data = load(write_data(tmp_path / "data", names, groups=dict(zip(names, names, strict=True))))
    split = folds.make_folds(data, 3, 0, tmp_path / "folds")
    opened = folds.read_folds(data, tmp_path / "folds")
    assert sorted(opened.group) == sorted(names)
    np.testing.assert_array_equal(opened.fold, split.fold)


def test_folds_of_other_data_are_refused_and_the_command_is_named(
    root: Path, tmp_path: Path
) -> None:
    folds.make_folds(load(root), 3, 0, tmp_path / "folds")
    changed = load(write_data(tmp_path / "other" / "data", IDS, {"01": ["something else"]}))
    for ask in (
        lambda: folds.read_folds(changed, tmp_path / "folds"),
        lambda: folds.read_or_make_folds(changed, tmp_path / "folds", 3, 0),
    ):
        with pytest.raises(FoldError, match="other data") as caught:
            ask()
        assert "python solution/make_folds.py" in caught.value.fix and caught.value.path == str(
            tmp_path / "folds" / "folds.csv"
        )


CHANGES = {
    "another fold": lambda first, rest: [f"{IDS[0]},{(int(first.split(',')[1]) + 1) % 3},0", *rest],
    "a line less": lambda _, rest: rest,
    "a line twice": lambda first, rest: [first, first, *rest],
    "a fold that is no number": lambda _, rest: [f"{IDS[0]},x,0", *rest],
    "an empty fold": lambda _, rest: [f"{IDS[0]},,0", *rest],
    "nothing": lambda *_: [],
}


@pytest.mark.parametrize("change", CHANGES)
def test_folds_that_were_changed_by_hand_are_refused(root: Path, change: str) -> None:
    data = load(root)
    folds.make_folds(data, 3, 0, root / "folds")
    listed = root / "folds" / "folds.csv"
    header, first, *rest = listed.read_text().splitlines()
    listed.write_text("".join(f"{line}\n" for line in [header, *CHANGES[change](first, rest)]))
    with pytest.raises(FoldError) as caught:
        folds.read_folds(data, root / "folds")
    assert "make_folds.py" in caught.value.fix


@pytest.mark.parametrize("text", ["", "no,header\n"])
def test_a_folds_csv_without_its_columns_is_a_fault(root: Path, text: str) -> None:
    data = load(root)
    folds.make_folds(data, 3, 0, root / "folds")
    (root / "folds" / "folds.csv").write_text(text)
    with pytest.raises(FoldError, match="no usable folds"):
        folds.read_folds(data, root / "folds")


def test_folds_that_cannot_be_read_are_of_no_data(tmp_path: Path) -> None:
    for content in ("", "{", "{}", "[]"):
        (tmp_path / "folds.json").write_text(content)
        assert folds.folds_hash(tmp_path) is None
    assert folds.folds_hash(tmp_path / "gone") is None


@pytest.mark.parametrize(
    "sidecar", [None, "", "{", "[]", "{}", '{"data": "x", "hash": "y", "folds": null}']
)
def test_a_broken_sidecar_is_a_fault(root: Path, sidecar: str | None) -> None:
    data = load(root)
    folds.make_folds(data, 3, 0, root / "folds")
    path = root / "folds" / "folds.json"
    path.unlink() if sidecar is None else path.write_text(sidecar)
    with pytest.raises(FoldError, match="no usable folds"):
        folds.read_or_make_folds(data, root / "folds", 3, 0)


def test_another_seed_draws_other_folds_only_by_its_own_flag(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = []
    for flags in ([], ["--seed", "3"], ["--fold_seed", "3"]):
        assert make_folds.main([*data_flags(root), "--folds", "3", *flags]) == 0
        splits.append(folds.read_folds(load(root), root.parent / "folds").fold.tolist())
    assert splits[0] == splits[1] != splits[2]
    call = [
        "holistic",
        *data_flags(root),
        "--out_dir",
        str(root.parent / "runs"),
        "--fold_seed",
        "4",
    ]
    assert train.main(call) == 1
    error = capsys.readouterr().err
    command = "`python solution/make_folds.py --folds 3 --fold_seed 4`"
    assert f"folds of --fold_seed 3 (leave the flag out, or run {command})" in error


def test_the_script_makes_folds_and_says_when_they_replace_others(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for flags in (["--folds", "3"], ["--folds", "3"], ["--folds", "4"]):
        assert make_folds.main([*data_flags(root), *flags]) == 0
        outputs.append(capsys.readouterr().out)
    assert "3 folds of 4, 4, 4 motions in 12 groups" in outputs[0]
    assert "replace" not in outputs[0] + outputs[1] and "they replace other folds" in outputs[2]
    assert folds.read_folds(load(root), root.parent / "folds").count == 4


def test_more_folds_than_groups_are_one_line_and_leave_the_old_folds(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_folds.main([*data_flags(root), "--folds", "3"]) == 0
    before = (root.parent / "folds" / "folds.csv").read_bytes()
    capsys.readouterr()
    assert make_folds.main([*data_flags(root), "--folds", "13"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: --folds: 13 folds of 12 groups")
    assert (root.parent / "folds" / "folds.csv").read_bytes() == before
