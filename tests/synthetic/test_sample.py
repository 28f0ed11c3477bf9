"""The generated challenge: what is written, that the bodies move as said, and what a perfect reader of the captions can know."""

import csv
import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

import sample
from motret.config import scripts
from motret.errors import ConfigError, MotretError
from motret.skeleton import JOINT, MIRROR, PARENTS, PARTS, split_columns
from motret.synthetic import captions, challenge, motion
from motret.synthetic.captions import Caption, Content, Mention
from motret.synthetic.motion import Act, Scene

SMALL = ("--motions", "6", "--queries", "2", "--candidates", "3")
FPS = 30


def write(folder: Path, *flags: str) -> Path:
    assert sample.main(["--out", str(folder), *SMALL, *flags]) == 0
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def move(action: str, side: str | None = None, count: int | None = None) -> np.ndarray:
    """Positions (T, 22, 3) of a person who starts at the origin facing +z and does this one thing."""
    act = Act(action, side, "normal", count)
    seconds = np.arange(int(FPS * (motion.duration(act) + 0.2))) / FPS
    return motion.perform(motion.drive_actor((act,), seconds, 0.0, np.random.default_rng(3)), motion.REST_OFFSETS)[0]


def joint(positions: np.ndarray, name: str) -> np.ndarray:
    return positions[:, JOINT[name]]


def some_scenes(number: int) -> list[Scene]:
    rng = np.random.default_rng(5)
    return [motion.draw_scene(rng) for _ in range(number)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("generated") / "sample")


def test_the_layout_is_the_competitions(small: Path) -> None:
    ids = small.joinpath("train.txt").read_text().split()
    assert ids == [f"{i:05d}" for i in range(1, 7)]
    assert sorted(p.stem for p in (small / "motions").iterdir()) == ids == sorted(p.stem for p in (small / "texts").glob("*.txt"))
    assert sorted(p.name for p in (small / "test").iterdir()) == ["1", "2", "gt.csv"]
    for query in ("1", "2"):
        assert sorted(p.name for p in (small / "test" / query).iterdir()) == ["motion_1.npy", "motion_2.npy", "motion_3.npy", "text.txt"]
    with (small / "test" / "gt.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["query_id"] for row in rows] == ["1", "2"] and all(1 <= int(row["candidate"]) <= 3 for row in rows)


def test_every_motion_is_two_persons_of_finite_numbers_and_none_is_there_twice(small: Path) -> None:
    paths = sorted(small.rglob("*.npy"))
    for path in paths:
        raw = np.load(path, allow_pickle=False)
        assert raw.dtype == np.float32 and raw.shape[1] == 384 and 40 <= len(raw) <= 260 and np.isfinite(raw).all()
    assert len({path.read_bytes() for path in paths}) == len(paths) == 12


def test_frames_a_second_change_the_number_of_frames(small: Path, tmp_path: Path) -> None:
    half = write(tmp_path / "half", "--fps", "15")
    for path in (small / "motions").iterdir():
        assert abs(len(np.load(path)) / 2 - len(np.load(half / "motions" / path.name))) <= 1


def test_each_text_is_three_different_captions(small: Path) -> None:
    for path in (small / "texts").glob("*.txt"):
        lines = path.read_text().splitlines()
        assert len(lines) == len(set(lines)) == 3 and all(line.strip() == line and line for line in lines)


def test_part_descriptions_name_the_five_parts_of_every_motion(small: Path) -> None:
    gar = json.loads((small / "texts" / "gar_train.json").read_text())
    assert [entry["id"] for entry in gar] == small.joinpath("train.txt").read_text().split()
    for entry in gar:
        assert entry["caption"] == (small / "texts" / f"{entry['id']}.txt").read_text().splitlines()[0]
        assert set(entry["part_descriptions"]) == set(PARTS)
        for part, text in entry["part_descriptions"].items():
            assert text == "undefined" or part.replace("_", " ") in text


def test_the_result_line_and_the_marker_tell_the_perfect_readers_score(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(small)
    score = json.loads((small / "sample.json").read_text())["perfect_reader"]["score"]
    line = capsys.readouterr().out
    assert "6 motions, 2 queries x 3 candidates" in line and f"scores {score:.3f}" in line and line.count("\n") == 1


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(small: Path, tmp_path: Path) -> None:
    assert contents(write(tmp_path / "again")) == contents(small)
    other = contents(write(tmp_path / "other", "--seed", "1"))
    assert other.keys() == contents(small).keys()
    assert all(other[name] != data for name, data in contents(small).items() if name.endswith(".npy"))


def test_training_scenes_do_not_depend_on_the_number_of_queries(small: Path, tmp_path: Path) -> None:
    fewer = contents(write(tmp_path / "fewer", "--queries", "1"))
    assert all(fewer[name] == data for name, data in contents(small).items() if name.startswith(("motions", "texts")))


def test_a_sample_is_reused_unless_settings_or_force_ask_for_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
def test_a_foreign_folder_is_left_alone(tmp_path: Path, files: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    before = contents(tmp_path)
    assert sample.main(["--out", str(tmp_path), *SMALL, "--force"]) == 1
    assert capsys.readouterr().err.startswith("error: ") and contents(tmp_path) == before


def test_a_generated_sample_with_something_foreign_in_it_is_left_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "sample")
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(MotretError, match=r"mine\.txt"):
        challenge.make_sample(folder, scripts.SceneConfig(motions=1), force=True)
    assert (folder / "motions" / "00006.npy").exists()


def test_a_broken_off_sample_leaves_the_older_one_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "sample")
    before = contents(tmp_path)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(challenge, "write_query", stop)
    assert sample.main(["--out", str(folder), *SMALL, "--force"]) == 130
    assert contents(tmp_path) == before


@pytest.mark.parametrize("config", [{"motions": 0}, {"queries": 0}, {"candidates": 1}, {"seed": -1}, {"fps": float("nan")}])
def test_settings_that_cannot_be_used_are_refused(config: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(config))):
        scripts.SceneConfig(**config)


def test_forward_kinematics_bends_the_knee_backwards_and_leaves_the_rest() -> None:
    straight = np.tile(np.eye(3), (1, 22, 1, 1))
    bent = straight.copy()
    bent[0, JOINT["left_knee"]] = motion.rotation_matrices(np.radians([90.0, 0.0, 0.0]))
    pelvis = np.array([[1.0, 2.0, 3.0]])
    rest, knee = (motion.pose_joints(rotations, motion.REST_OFFSETS, pelvis)[0] for rotations in (straight, bent))
    np.testing.assert_allclose(knee[JOINT["left_ankle"]], rest[JOINT["left_knee"]] + (0, 0, -0.4), atol=1e-12)
    moved = np.abs(knee - rest).max(axis=-1) > 1e-12
    assert set(np.flatnonzero(moved)) == {JOINT["left_ankle"], JOINT["left_foot"]}
    np.testing.assert_allclose(rest[JOINT["left_wrist"]], pelvis[0] + (0.175, -0.065, 0), atol=1e-12)


def test_stored_rotations_give_the_stored_positions(small: Path) -> None:
    """The pelvis's rotation is read off the hips and the first spine joint; the bones are those of the first frame."""
    for path in sorted((small / "motions").iterdir()):
        positions, six = (stored.astype(np.float64) for stored in split_columns(np.load(path)))
        first, second = six[..., :3], six[..., 3:]
        local = np.stack([first, second, np.cross(first, second)], axis=-1)
        for person in range(2):
            p = positions[:, person]
            across, up = p[:, 1] - p[:, 2], p[:, 3] - p[:, 0]
            across, up = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (across, up))
            pelvis = np.stack([across, up, np.cross(across, up)], axis=-1)
            world, bones, rebuilt = [pelvis], [np.zeros(3)], [p[:, 0]]
            for j in range(1, 22):
                parent = PARENTS[j]
                bones.append(world[parent][0].T @ (p[0, j] - p[0, parent]))
                rebuilt.append(rebuilt[parent] + world[parent] @ bones[j])
                world.append(world[parent] @ local[:, person, j - 1])
            np.testing.assert_allclose(np.stack(rebuilt, axis=1), p, atol=1e-4)
            all_local = np.concatenate([pelvis[:, None], local[:, person]], axis=1)
            np.testing.assert_allclose(motion.pose_joints(all_local, np.array(bones), p[:, 0]), p, atol=1e-4)


def test_rotation_matrices_are_rotations_about_z_after_x_after_y() -> None:
    angles = np.random.default_rng(0).uniform(-3, 3, (5, 3))
    only = [np.where(np.arange(3) == axis, angles, 0.0) for axis in range(3)]
    about_x, about_y, about_z = (motion.rotation_matrices(one) for one in only)
    np.testing.assert_allclose(motion.rotation_matrices(angles), about_z @ about_x @ about_y, atol=1e-12)
    np.testing.assert_allclose(about_y @ np.swapaxes(about_y, -1, -2), np.tile(np.eye(3), (5, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(motion.rotation_matrices(np.array([0, np.pi / 2, 0])) @ (0, 0, 1), (1, 0, 0), atol=1e-12)


@pytest.mark.parametrize(("side", "other"), list(permutations(motion.SIDES)))
def test_what_one_side_does_the_other_leaves(side: str, other: str) -> None:
    raised, kicked = move("raise", side), move("kick", side, 1)
    assert joint(raised, f"{side}_wrist")[:, 1].max() > 1.7 and joint(raised, f"{other}_wrist")[:, 1].max() < 1.1
    assert joint(kicked, f"{side}_ankle")[:, 2].max() > 0.5 and np.abs(joint(kicked, f"{other}_ankle")[:, 2]).max() < 0.1
    towards = 1 if side == "left" else -1  # the left is +x of a person who faces +z
    assert towards * joint(move("sidestep", side), "pelvis")[-1, 0] > 0.5
    assert towards * joint(move("lean", side), "head")[:, 0].sum() > 0
    hips = joint(move("turn", side), "left_hip") - joint(move("turn", side), "right_hip")
    assert hips[0, 0] > 0 > hips[-1, 0] and towards * hips[len(hips) // 2, 2] < 0  # a left hip goes back in a turn to the left


def test_the_body_moves_as_the_action_says() -> None:
    assert joint(move("walk_forward"), "pelvis")[-1, 2] > 1 and joint(move("walk_backward"), "pelvis")[-1, 2] < -1
    assert (
        np.abs(
            joint(move("march"), "pelvis")[
                -1,
                (0, 2),
            ]
        ).max()
        < 0.1
    )
    assert joint(move("squat", count=1), "pelvis")[:, 1].min() < 0.75 < 0.9 < joint(move("bow"), "pelvis")[:, 1].min()
    assert joint(move("bow"), "head")[:, 1].min() < 1.3
    jump = move("jump", count=2)
    airborne = np.minimum(joint(jump, "left_foot"), joint(jump, "right_foot"))[:, 1] > 0.15
    assert np.count_nonzero(np.diff(airborne.astype(int)) == 1) == 2
    clap = move("clap")
    assert np.linalg.norm(joint(clap, "left_wrist") - joint(clap, "right_wrist"), axis=-1).min() < 0.15
    on_head = move("head")[33]
    assert np.linalg.norm(on_head[JOINT["left_wrist"]] - on_head[JOINT["head"]]) < 0.2


@pytest.mark.parametrize("action", motion.MOVES)
def test_feet_are_on_the_floor_and_no_joint_is_under_it(action: str) -> None:
    how = motion.ACTIONS[action]
    lowest = move(action, "left" if how.sided else None, 1 if how.counted else None)[..., 1].min(axis=1)
    assert lowest.min() > 0 and (lowest < 0.1).mean() > (0.5 if action == "jump" else 0.999)


@pytest.mark.parametrize("action", ["kick", "squat", "bow", "clap", "knee"])
def test_who_stays_in_place_has_a_foot_that_does_not_slide(action: str) -> None:
    foot = joint(move(action, "left" if motion.ACTIONS[action].sided else None, 1), "right_foot")[:, (0, 2)]
    assert np.ptp(foot, axis=0).max() < 0.1


def test_mirroring_swaps_the_sides_and_twice_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    angles = rng.normal(size=(4, 22, 3))
    assert np.array_equal(motion.mirrored(motion.mirrored(angles)), angles)
    pelvis = np.zeros((4, 3))
    shown = motion.pose_joints(motion.rotation_matrices(motion.mirrored(angles)), motion.REST_OFFSETS, pelvis)
    body = motion.pose_joints(motion.rotation_matrices(angles), motion.REST_OFFSETS, pelvis)
    np.testing.assert_allclose(shown, body[:, MIRROR] * (-1, 1, 1), atol=1e-12)


@pytest.mark.parametrize("relation", motion.RELATIONS)
def test_the_two_stand_as_the_relation_says_and_never_in_one_another(relation: str) -> None:
    scene = Scene(((Act("walk_forward"),), (Act("walk_backward"),)), relation)
    positions, _ = split_columns(motion.act_out(scene, FPS, np.random.default_rng(1)))
    pelvis = positions[:, :, 0][..., (0, 2)]
    between = pelvis[:, 1] - pelvis[:, 0]
    assert np.linalg.norm(between, axis=-1).min() > motion.NEAREST - 0.01
    across = (positions[0, :, 1] - positions[0, :, 2])[:, (0, 2)]
    ahead = np.stack([-across[:, 1], across[:, 0]], axis=-1)  # each one's front: a quarter turn from its left
    ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
    to_other = np.array([between[0], -between[0]]) / np.linalg.norm(between[0])
    sees = (ahead * to_other).sum(axis=-1)  # cosine between where one looks and where the other is
    expected = {"facing": (1, 1), "back": (-1, -1), "side": (0, 0), "behind": (-1, 1)}.get(relation)
    if expected:
        np.testing.assert_allclose(sorted(sees), expected, atol=0.1)
    else:
        assert np.linalg.norm(between[0]) > 4


def test_either_person_is_stored_first() -> None:
    scene = Scene(((Act("raise", "left"),), (Act("stand"),)), "side")
    heights = [
        split_columns(motion.act_out(scene, FPS, np.random.default_rng(i)))[0][:, :, JOINT["left_wrist"], 1].max(0) for i in range(12)
    ]
    assert {int(height.argmax()) for height in heights} == {0, 1}


def test_every_caption_is_true_of_its_scene_and_states_the_side_it_names() -> None:
    rng = np.random.default_rng(0)
    for scene in some_scenes(150):
        for caption in captions.draw_captions(scene, rng):
            assert captions.consistent(caption.content, scene)
            told = [mention for person in caption.content.persons for mention in person]
            assert {side for side in motion.SIDES if f" {side}" in caption.text} == {m.side for m in told if m.side}
            assert ("slowly" in caption.text) == any(m.speed == "slow" for m in told)
            assert "{" not in caption.text


def test_every_action_has_words_and_every_mention_names_its_action() -> None:
    assert captions.PHRASES.keys() == captions.PART_WORDS.keys() == motion.ACTIONS.keys()
    phrases = [phrase for options in captions.PHRASES.values() for phrase in options]
    assert len(phrases) == len(set(phrases))
    for name, how in motion.ACTIONS.items():
        assert [("{side}" in phrase) for phrase in captions.PHRASES[name]][:2] == [False, how.sided]


def test_of_several_people_the_verb_loses_its_ending() -> None:
    assert [captions.plural(words) for words in ("waves a hand", "punches", "does a squat", "raises a knee", "circles both arms")] == [
        "wave a hand", "punch", "do a squat", "raise a knee", "circle both arms",
    ]  # fmt: skip


def test_part_descriptions_say_which_side_and_leave_the_rest_undefined() -> None:
    wave, stand = (Act("wave", "right"),), (Act("stand"),)
    assert captions.describe_parts(Scene((wave, stand), "side")) == {
        "right_arm": "the right arm of one person waves with the hand up",
        **dict.fromkeys(("left_arm", "right_leg", "left_leg", "torso"), "undefined"),
    }
    parts = captions.describe_parts(Scene(((Act("kick", "left", count=1), Act("bow")), wave), "side"))
    assert parts["left_leg"] == "the left leg of one person kicks forward"
    assert parts["right_leg"] == "the right leg of one person carries the body"
    assert captions.describe_parts(Scene((wave, wave), "side"))["right_arm"] == "the right arm of both people waves with the hand up"


@pytest.mark.parametrize(
    ("content", "true"),
    [
        (Content(()), True),
        (Content(((Mention("punch"),),)), True),
        (Content(((Mention("punch", side="left"),),)), False),
        (Content(((Mention("punch", "right", "fast", 2),),)), True),
        (Content(((Mention("punch", count=3),),)), False),
        (Content(((Mention("punch", speed="slow"),),)), False),
        (Content(((Mention("punch"), Mention("bow")),)), True),
        (Content(((Mention("bow"), Mention("punch")),)), False),
        (Content(((Mention("bow"),), (Mention("squat"),))), True),
        (Content(((Mention("squat"),), (Mention("bow"),))), True),
        (Content(((Mention("bow"),), (Mention("punch"),))), False),
        (Content(((Mention("punch"),),), both=True), False),
        (Content(((Mention("squat"),),), relation="facing"), True),
        (Content(((Mention("squat"),),), relation="back"), False),
    ],
)
def test_consistency_is_truth_of_what_is_stated(content: Content, true: bool) -> None:
    scene = Scene(((Act("punch", "right", "fast", 2), Act("bow")), (Act("squat", count=1),)), "facing")
    assert captions.consistent(content, scene) is true


def test_what_is_said_of_both_holds_for_both() -> None:
    both = Content(((Mention("bow"),),), both=True)
    assert captions.consistent(both, Scene(((Act("bow"),), (Act("squat", count=1), Act("bow"))), "side"))


def unlike_scenes() -> list[Scene]:
    """40 scenes that differ in their first person's acts."""
    pairs = list(permutations(("wave", "bow", "squat", "jump", "clap", "kick", "turn"), 2))[:40]
    return [Scene(((Act(a), Act(b)), (Act("stand"),)), "side") for a, b in pairs]


def test_a_perfect_reader_of_captions_that_tell_all_scores_one_and_of_empty_ones_chance() -> None:
    scenes = unlike_scenes()
    full = [Caption("", Content((tuple(Mention(act.action) for act in scene.actors[0]),))) for scene in scenes]
    empty = Caption("", Content(()))
    rng = np.random.default_rng(0)
    assert challenge.perfect_scores(
        [challenge.CaptionedScene(s, (c,)) for s, c in zip(scenes, full, strict=True)], 32, rng
    ) == pytest.approx(1)
    assert challenge.perfect_scores([challenge.CaptionedScene(s, (empty,)) for s in scenes], 32, rng) == pytest.approx(0.1067, abs=1e-4)
    assert challenge.perfect_test_score([(c, scenes[:32]) for c in full[:32]]) == 1
    assert challenge.perfect_test_score([(empty, scenes[:32])]) == pytest.approx(0.1067, abs=1e-4)


def test_random_pools_agree_with_pools_drawn_one_by_one() -> None:
    scenes, rng = some_scenes(60), np.random.default_rng(0)
    told = [challenge.CaptionedScene(scene, captions.draw_captions(scene, rng)) for scene in scenes]
    by_hand = []
    for right in range(60):
        for caption in told[right].captions:
            for _ in range(20):
                others = rng.permutation(np.delete(np.arange(60), right))[:31]
                by_hand.append((caption, [scenes[right], *(scenes[i] for i in others)]))
    assert challenge.perfect_scores(told, 32, rng).mean() == pytest.approx(challenge.perfect_test_score(by_hand), abs=0.01)


def test_captions_leave_a_perfect_reader_something_to_guess() -> None:
    rng = np.random.default_rng(0)
    told = [challenge.CaptionedScene(scene, captions.draw_captions(scene, rng)) for scene in some_scenes(200)]
    assert 0.8 < challenge.perfect_scores(told, 32, rng).mean() < 0.92
