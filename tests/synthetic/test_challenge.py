"""The generated challenge: the files, and the score of a perfect reader of its captions."""

import csv
import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

import sample
from motret.config import scripts
from motret.errors import ConfigError, MotretError
from motret.skeleton import PARTS
from motret.synthetic import captions, challenge, motion
from motret.synthetic.captions import Caption, Content, Mention
from motret.synthetic.motion import Act, Scene

SMALL = ("--motions", "6", "--queries", "2", "--candidates", "3")


def write(folder: Path, *flags: str) -> Path:
    assert sample.main(["--out", str(folder), *SMALL, *flags]) == 0
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def draw_scenes(count: int) -> list[Scene]:
    rng = np.random.default_rng(5)
    return [motion.draw_scene(rng) for _ in range(count)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("generated") / "sample")


def test_the_layout_is_the_competitions(small: Path) -> None:
    ids = small.joinpath("train.txt").read_text().split()
    assert ids == [f"{i:05d}" for i in range(1, 7)]
    assert (
        sorted(p.stem for p in (small / "motions").iterdir())
        == ids
        == sorted(p.stem for p in (small / "texts").glob("*.txt"))
    )
    assert sorted(p.name for p in (small / "test").iterdir()) == ["1", "2", "gt.csv"]
    for query in ("1", "2"):
        assert sorted(p.name for p in (small / "test" / query).iterdir()) == [
            "motion_1.npy",
            "motion_2.npy",
            "motion_3.npy",
            "text.txt",
        ]
    with (small / "test" / "gt.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["query_id"] for row in rows] == ["1", "2"] and all(
        1 <= int(row["candidate"]) <= 3 for row in rows
    )


def test_every_motion_is_two_persons_of_finite_numbers_and_none_is_there_twice(small: Path) -> None:
    paths = sorted(small.rglob("*.npy"))
    for path in paths:
        raw = np.load(path, allow_pickle=False)
        assert (
            raw.dtype == np.float32
            and raw.shape[1] == 384
            and 40 <= len(raw) <= 260
            and np.isfinite(raw).all()
        )
    assert len({path.read_bytes() for path in paths}) == len(paths) == 12


def test_frames_per_second_change_the_number_of_frames(small: Path, tmp_path: Path) -> None:
    half = write(tmp_path / "half", "--fps", "15")
    for path in (small / "motions").iterdir():
        assert abs(len(np.load(path)) / 2 - len(np.load(half / "motions" / path.name))) <= 1


def test_each_text_is_three_different_captions(small: Path) -> None:
    for path in (small / "texts").glob("*.txt"):
        lines = path.read_text().splitlines()
        assert len(lines) == len(set(lines)) == 3 and all(
            line.strip() == line and line for line in lines
        )


def test_part_descriptions_name_the_five_parts_of_every_motion(small: Path) -> None:
    gar = json.loads((small / "texts" / "gar_train.json").read_text())
    assert [entry["id"] for entry in gar] == small.joinpath("train.txt").read_text().split()
    for entry in gar:
        assert (
            entry["caption"] == (small / "texts" / f"{entry['id']}.txt").read_text().splitlines()[0]
        )
        assert set(entry["part_descriptions"]) == set(PARTS)
        for part, text in entry["part_descriptions"].items():
            assert text == "undefined" or part.replace("_", " ") in text


def test_the_summary_and_the_marker_have_the_perfect_readers_score(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(small)
    score = json.loads((small / "sample.json").read_text())["perfect_reader"]["score"]
    line = capsys.readouterr().out
    assert (
        "6 motions, 2 queries x 3 candidates" in line
        and f"scores {score:.3f}" in line
        and line.count("\n") == 1
    )


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    small: Path, tmp_path: Path
) -> None:
    assert contents(write(tmp_path / "again")) == contents(small)
    other = contents(write(tmp_path / "other", "--seed", "1"))
    assert other.keys() == contents(small).keys()
    assert all(
        other[name] != data for name, data in contents(small).items() if name.endswith(".npy")
    )


def test_training_scenes_do_not_depend_on_the_number_of_queries(
    small: Path, tmp_path: Path
) -> None:
    fewer = contents(write(tmp_path / "fewer", "--queries", "1"))
    assert all(
        fewer[name] == data
        for name, data in contents(small).items()
        if name.startswith(("motions", "texts"))
    )


def test_a_sample_is_reused_unless_settings_or_force_ask_for_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "sample")
    text = folder / "texts" / "00001.txt"
    text.write_text("touched")
    write(folder)
    assert "was there already" in capsys.readouterr().out and text.read_text() == "touched"
    write(folder, "--force")
    assert "was there already" not in capsys.readouterr().out and text.read_text() != "touched"
    write(folder, "--motions", "7")
    assert (folder / "motions" / "00007.npy").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


@pytest.mark.parametrize("files", [("mine.txt",), ("sample.json",), ("sample.json", "mine.txt")])
def test_another_folder_is_left_alone(
    tmp_path: Path, files: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    before = contents(tmp_path)
    assert sample.main(["--out", str(tmp_path), *SMALL, "--force"]) == 1
    assert capsys.readouterr().err.startswith("error: ") and contents(tmp_path) == before


def test_a_generated_sample_with_another_file_in_it_is_left_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "sample")
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(MotretError, match=r"mine\.txt"):
        challenge.make_sample(folder, scripts.SceneConfig(motions=1), force=True)
    assert (folder / "motions" / "00006.npy").exists()


def test_an_interrupted_sample_leaves_the_older_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "sample")
    before = contents(tmp_path)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(challenge, "write_query", stop)
    assert sample.main(["--out", str(folder), *SMALL, "--force"]) == 130
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "config",
    [{"motions": 0}, {"queries": 0}, {"candidates": 1}, {"seed": -1}, {"fps": float("nan")}],
)
def test_settings_that_cannot_be_used_are_refused(config: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(config))):
        scripts.SceneConfig(**config)


def unlike_scenes() -> list[Scene]:
    """40 scenes that differ in their first person's acts."""
    pairs = list(permutations(("wave", "bow", "squat", "jump", "clap", "kick", "turn"), 2))[:40]
    return [Scene(((Act(a), Act(b)), (Act("stand"),)), "side") for a, b in pairs]


def test_a_perfect_reader_of_captions_that_state_all_scores_one_and_of_empty_ones_chance() -> None:
    scenes = unlike_scenes()
    full = [
        Caption("", Content((tuple(Mention(act.action) for act in scene.actors[0]),)))
        for scene in scenes
    ]
    empty = Caption("", Content(()))
    rng = np.random.default_rng(0)
    assert challenge.perfect_scores(
        [challenge.CaptionedScene(s, (c,)) for s, c in zip(scenes, full, strict=True)], 32, rng
    ) == pytest.approx(1)
    assert challenge.perfect_scores(
        [challenge.CaptionedScene(s, (empty,)) for s in scenes], 32, rng
    ) == pytest.approx(0.1067, abs=1e-4)
    assert challenge.perfect_test_score([(c, scenes[:32]) for c in full[:32]]) == 1
    assert challenge.perfect_test_score([(empty, scenes[:32])]) == pytest.approx(0.1067, abs=1e-4)


def test_random_pools_agree_with_pools_drawn_one_by_one() -> None:
    scenes, rng = draw_scenes(60), np.random.default_rng(0)
    captioned = [
        challenge.CaptionedScene(scene, captions.draw_captions(scene, rng)) for scene in scenes
    ]
    drawn = []
    for right in range(60):
        for caption in captioned[right].captions:
            for _ in range(20):
                others = rng.permutation(np.delete(np.arange(60), right))[:31]
                drawn.append((caption, [scenes[right], *(scenes[i] for i in others)]))
    assert challenge.perfect_scores(captioned, 32, rng).mean() == pytest.approx(
        challenge.perfect_test_score(drawn), abs=0.01
    )


def test_captions_leave_something_for_a_perfect_reader_to_guess() -> None:
    rng = np.random.default_rng(0)
    captioned = [
        challenge.CaptionedScene(scene, captions.draw_captions(scene, rng))
        for scene in draw_scenes(200)
    ]
    assert 0.8 < challenge.perfect_scores(captioned, 32, rng).mean() < 0.92
