"""The data report: its numbers against hand counts, duplicates against a plain twin, and what it
warns of."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import prepare
from helpers import (
    body,
    data_flags,
    data_settings,
    in_the_mirror,
    load,
    motion,
    sixes,
    swapped,
    write_data,
)
from motret.data import dataset, duplicates
from motret.data.captions import normalize, words
from motret.data.data_report import exact_duplicates, make_data_report
from motret.data.feature_store import FeatureStore
from motret.data.features import FeatureConfig
from motret.errors import DataError
from motret.skeleton import join_columns

IDS = ("00001", "00002", "00003", "00004", "00005")


def write_test(root: Path, pools: list[list[np.ndarray]]) -> Path:
    for query, pool in enumerate(pools, start=1):
        folder = root / "test" / str(query)
        folder.mkdir(parents=True)
        (folder / "text.txt").write_text("they meet\n")
        for number, raw in enumerate(pool, start=1):
            np.save(folder / f"motion_{number}.npy", raw)
    return root / "test"


def load_test(root: Path) -> dataset.TestData:
    with pytest.warns(UserWarning, match="candidates"):
        return dataset.load_test(root / "test", FeatureConfig(), data_settings(root), jobs=1)


def lines_about(report, topic: str) -> list[str]:
    return [line for line in report.lines if line.startswith(topic)]


# ---- captions as text


def test_captions_are_the_same_when_they_differ_in_case_marks_and_spaces_alone() -> None:
    same = [
        "Two people don't WAVE, they bow.",
        "two  people don't wave they bow",
        "two people don't wave – they bow!",
        "ｔｗｏ people don't wave they_bow",
    ]
    assert {normalize(caption) for caption in same} == {"two people don't wave they bow"}
    assert words("Sie grüßt 2 Freunde") == ["sie", "grüßt", "2", "freunde"]
    assert normalize("they wave") != normalize("they waved")


# ---- duplicates


def plain_distance(a: np.ndarray, b: np.ndarray, store: FeatureStore) -> float:
    """Root mean square over key frames, persons and points (22 joints and where the other is) of
    the distance between two motions."""
    frames_a, frames_b = (np.rint(np.linspace(0, len(raw) - 1, 8)).astype(int) for raw in (a, b))
    squares = []
    for frame_a, frame_b in zip(frames_a, frames_b, strict=True):
        for person in range(store.persons):
            for name, width in (("position", 66), ("relation", 3)):
                start = store.columns[name].start
                columns = slice(start, start + width)
                squares += (
                    (
                        (a[frame_a, person, columns] - b[frame_b, person, columns]).reshape(-1, 3)
                        ** 2
                    )
                    .sum(axis=1)
                    .tolist()
                )
    return float(np.sqrt(np.mean(squares)))


def plain_near_duplicates(store: FeatureStore, other: FeatureStore) -> dict[tuple[int, int], float]:
    distances = {}
    for index in range(len(store.ids)):
        for other_index in range(len(other.ids)):
            a, b = store.motion(index), other.motion(other_index)
            distance = min(plain_distance(a, b, store), plain_distance(a[:, ::-1], b, store))
            if distance < duplicates.MAX_DISTANCE and max(
                len(a), len(b)
            ) < duplicates.MAX_LENGTH_RATIO * min(len(a), len(b)):
                distances[index, other_index] = distance
    return distances


def relatives() -> dict[str, np.ndarray]:
    """Motions that are more and less near to the first ones."""
    rng = np.random.default_rng(1)

    def noisy(seed: int, metres: float) -> np.ndarray:
        scene = body(60, seed=seed)
        return join_columns(
            scene + rng.normal(0, metres, scene.shape).astype(np.float32), sixes(60, seed=seed)
        )

    motions = {f"{seed}": motion(60, seed=seed) for seed in range(4)}
    motions |= {
        f"1{number}": noisy(0, metres)
        for number, metres in enumerate((0.001, 0.004, 0.006, 0.008, 0.01, 0.012, 0.015, 0.03))
    }
    motions |= {
        "20": swapped(motions["1"]),
        "21": swapped(noisy(1, 0.004)),
        "22": motions["2"][:59],
        "23": motions["2"][:57],
    }
    still = motion(1, seed=9)
    return motions | {
        str(30 + number): np.repeat(still, frames, axis=0)
        for number, frames in enumerate((50, 60, 61, 62, 50))
    }


def test_near_duplicates_are_those_of_the_plain_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = load(write_data(tmp_path / "data", relatives())).store
    expected = {
        pair: distance
        for pair, distance in plain_near_duplicates(store, store).items()
        if pair[0] < pair[1]
    }
    assert len(expected) == 12 and {(16, 17), (17, 18), (16, 20)} & set(expected) == {
        (17, 18),
        (16, 20),
    }  # as long as one another
    for block in (1024, 5):
        monkeypatch.setattr(duplicates, "CHUNK_SIZE", block)
        distances = {(a, b): distance for a, b, distance in duplicates.near_duplicates(store)}
        assert distances == pytest.approx(expected, abs=1e-4)
        across = {(a, b): distance for a, b, distance in duplicates.near_duplicates(store, store)}
        assert across == pytest.approx(plain_near_duplicates(store, store), abs=1e-4)


def test_where_a_scene_stands_does_not_make_it_another(tmp_path: Path) -> None:
    moved = join_columns(body(40) + np.array([3, 0, -2], dtype=np.float32), sixes(40))
    apart = body(40)
    apart[:, 1] += np.array(
        [0.5, 0, 0], dtype=np.float32
    )  # one person moved alone is another scene
    store = load(
        write_data(
            tmp_path / "data", {"1": motion(40), "2": moved, "3": join_columns(apart, sixes(40))}
        )
    ).store
    assert [(a, b) for a, b, _ in duplicates.near_duplicates(store)] == [(0, 1)]


def test_near_duplicates_of_one_person_are_found(tmp_path: Path) -> None:
    alone = {
        "1": motion(30, persons=1),
        "2": motion(30, persons=1, seed=5),
        "3": motion(30, persons=1),
    }
    store = load(write_data(tmp_path / "data", alone)).store
    assert [(a, b) for a, b, _ in duplicates.near_duplicates(store)] == [(0, 2)]


@pytest.mark.parametrize("persons", [1, 2])
def test_mirrored_twins_are_found_within_a_set_and_in_another(tmp_path: Path, persons: int) -> None:
    motions = {str(seed): motion(30, persons, seed) for seed in range(4)}
    turned = {f"M{name}": in_the_mirror(raw) for name, raw in motions.items() if name != "3"}
    turned["M1"] = swapped(turned["M1"]) if persons == 2 else turned["M1"]
    data = load(write_data(tmp_path / "both", motions | turned))
    assert [(a, b) for a, b, _ in duplicates.near_duplicates(data.store, mirrored=True)] == [
        (0, 4),
        (1, 5),
        (2, 6),
    ]
    assert duplicates.near_duplicates(data.store) == []
    plain, mirrored = (
        load(write_data(tmp_path / name, motions_)).store
        for name, motions_ in (("plain", motions), ("other", turned))
    )
    assert [(a, b) for a, b, _ in duplicates.near_duplicates(plain, mirrored, mirrored=True)] == [
        (0, 0),
        (1, 1),
        (2, 2),
    ]
    assert "3 pairs nearly equal in the mirror (0 = M0, 1 = M1, 2 = M2)" in "\n".join(
        make_data_report(data, None).lines
    )


def test_exact_duplicates_are_files_of_the_same_bytes(tmp_path: Path) -> None:
    motions = {
        "1": motion(20),
        "2": motion(20, seed=1),
        "3": motion(20),
        "4": motion(20).astype(np.float64),
        "5": motion(20),
    }
    assert exact_duplicates(load(write_data(tmp_path / "data", motions)).store) == [(0, 2), (0, 4)]


# ---- the report


@pytest.fixture
def counted(tmp_path: Path) -> Path:
    """Data small enough to count by hand: lengths 20, 30, 40, 20 (the first again), and one broken
    file."""
    motions = {
        "1": motion(20),
        "2": motion(30, seed=1),
        "3": motion(40, seed=2),
        "4": motion(20),
        "5": motion(20, seed=3)[:, :100],
    }
    captions = {
        "1": ["They bow.", "two people bow"],
        "2": ["they bow", "they BOW!"],
        "3": ["One kneels, one stands"],
        "4": ["they wave to each other"],
    }
    return write_data(tmp_path / "data", motions, captions)


def test_the_reports_numbers_are_those_counted_by_hand(counted: Path) -> None:
    report = make_data_report(load(counted), None)
    distance = report.facts["near_duplicates"][0][2]
    assert distance < 1e-3
    spine = report.facts.pop("pelvis_to_head")
    assert 0.4 < spine < 0.9
    assert report.facts == {
        "motions": 4,
        "persons": 2,
        "up": "+y",
        "hours": pytest.approx(110 / 30 / 3600),
        "frames": {"shortest": 20, "median": 25, "longest": 40},
        "captions": 6,
        "distinct_captions": 4,
        "captions_of_several_motions": 1,  # "they bow" of 1 and 2, twice of 2
        "words_per_caption": pytest.approx((2 + 3 + 2 + 2 + 4 + 5) / 6),
        "vocabulary": 11,  # they bow two people one kneels stands wave to each other
        "exact_duplicates": [["1", "4"]],
        "near_duplicates": [["1", "4", distance]],
        "mirrored_duplicates": [],
        "left_out": [[str(counted / "motions" / "5.npy"), report.facts["left_out"][0][1]]],
        "groups": None,
    }
    text = "\n".join(report.lines)
    for phrase in (
        "4 of 2 person(s)",
        "20 shortest, 25 median, 40 longest",
        "6, 4 distinct, 1 of several motions",
        "1 pairs equal",
        "1 = 4",
    ):
        assert phrase in text
    assert (
        "left out    1 training files" in text
        and "5.npy: 100 columns" in text
        and "warning" not in text
    )


def test_a_caption_twice_in_one_motion_is_not_of_several_motions(tmp_path: Path) -> None:
    report = make_data_report(
        load(write_data(tmp_path / "data", ["1", "2"], {"1": ["they bow", "They bow."]})), None
    )
    assert report.facts["captions_of_several_motions"] == 0 and report.facts["captions"] == 3


def test_groups_of_the_file_are_counted(tmp_path: Path) -> None:
    report = make_data_report(
        load(write_data(tmp_path / "data", IDS, groups=dict(zip(IDS, "aabbc", strict=True)))), None
    )
    assert report.facts["groups"] == 3 and lines_about(report, "groups") == [
        "groups      3 in groups.csv"
    ]


@pytest.mark.parametrize(
    ("factor", "warned"), [(1, False), (1000, False), (100, False), (5, True), (0.01, True)]
)
def test_positions_of_no_known_unit_are_warned_of(
    tmp_path: Path, factor: float, warned: bool
) -> None:
    motions = {
        name: join_columns(body(20, seed=seed) * np.float32(factor), sixes(20))
        for seed, name in enumerate(IDS)
    }
    warning = lines_about(
        make_data_report(load(write_data(tmp_path / "data", motions)), None), "warning"
    )
    assert bool(warning) == warned and all("metres" in line for line in warning)


def test_a_training_motion_among_the_test_motions_is_a_leak(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data", IDS)
    known = np.load(root / "motions" / "00003.npy")
    write_test(
        root, [[motion(40, seed=50), swapped(known), motion(40, seed=51)], [motion(40, seed=52)]]
    )
    report = make_data_report(load(root), load_test(root))
    ((train, test, distance),) = report.facts["test_near_training"]
    assert (train, test) == ("00003", "1/motion_2") and distance < 1e-3
    assert (report.facts["queries"], report.facts["candidates"]) == (2, [1, 3])
    assert lines_about(report, "test") == [
        "test        2 queries x 1 to 3 candidates, 4 different files"
    ]
    assert lines_about(report, "leaks") == [
        "leaks       1 test motions nearly equal to training motions (00003 = 1/motion_2)"
    ]


def test_without_a_leak_none_is_reported(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data", IDS)
    write_test(root, [[motion(40, seed=50), motion(40, seed=51)]])
    report = make_data_report(load(root), load_test(root))
    assert report.facts["test_near_training"] == [] and lines_about(report, "leaks")[0].startswith(
        "leaks       0 "
    )


def test_a_test_folder_of_other_persons_than_the_training_motions_is_a_fault(
    tmp_path: Path,
) -> None:
    root = write_data(tmp_path / "data", IDS)
    write_test(root, [[motion(40, persons=1)]])
    with pytest.raises(DataError, match="1 person"):
        make_data_report(load(root), load_test(root))


def test_a_long_list_of_files_left_out_is_cut_on_the_screen_and_whole_in_the_facts(
    tmp_path: Path,
) -> None:
    bad = {f"9{number}": np.zeros((20, 7)) for number in range(8)}
    report = make_data_report(load(write_data(tmp_path / "data", {"1": motion(20)} | bad)), None)
    assert (
        len(report.facts["left_out"]) == 8
        and report.lines[-1].strip() == "and 3 more, all in report.json"
    )
    assert sum("7 columns" in line for line in report.lines) == 5


# ---- the script


def test_prepare_reports_packs_once_and_keeps_the_report(
    own_challenge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for _ in range(2):
        assert prepare.main(data_flags(own_challenge)) == 0
        outputs.append(capsys.readouterr().out.splitlines())
    (*report, packed), (*again, reused) = outputs
    assert (
        report == again
        and packed.startswith("features packed in")
        and reused.startswith("features as packed before in")
    )
    assert (
        report[0].startswith("motions     24 of 2 person(s)")
        and "test        3 queries x 12 candidates, 36 different files" in report
    )
    content = json.loads((own_challenge.parent / "work" / "report.json").read_text())
    assert (
        content["motions"] == 24
        and content["data"] == load(own_challenge).fingerprint
        and content["test_near_training"] == []
    )


def test_prepare_packs_anew_what_changed(
    own_challenge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare.main(data_flags(own_challenge)) == 0
    shutil.copy(
        own_challenge / "motions" / "00001.npy", own_challenge / "test" / "1" / "motion_1.npy"
    )
    capsys.readouterr()
    assert prepare.main(data_flags(own_challenge)) == 0
    out = capsys.readouterr().out
    assert "features packed in" in out and "leaks       1 " in out and "00001 = 1/motion_1" in out


def test_prepare_skips_a_bad_training_file_aloud_and_stops_at_it_under_strict(
    own_challenge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = own_challenge / "motions" / "00002.npy"
    bad.write_bytes(bad.read_bytes()[:-1])
    assert prepare.main(data_flags(own_challenge)) == 0
    out = capsys.readouterr().out
    assert (
        "motions     23 " in out
        and "left out    1 training files" in out
        and f"{bad}: cut short" in out
    )
    assert prepare.main([*data_flags(own_challenge), "--strict"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {bad}: cut short")


def test_prepare_stops_at_a_bad_candidate_under_strict_and_tells_of_it_otherwise(
    own_challenge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = own_challenge / "test" / "2" / "motion_5.npy"
    np.save(bad, np.full((30, 384), np.inf))
    assert prepare.main([*data_flags(own_challenge), "--strict"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {bad}: inf at frame 0, column 0")
    assert not (own_challenge.parent / "work" / "report.json").exists()
    assert prepare.main(data_flags(own_challenge)) == 0
    assert f"{bad}: inf at frame 0, column 0 (from 0): ranked last\n" in capsys.readouterr().out
