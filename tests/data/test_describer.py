"""The describer says what moved, how far, how often and which way, and nothing that depends on who
is stored first."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import prepare
from motret import skeleton
from motret.data.parts import describer
from motret.data.parts.signals import count_swings
from motret.formats import challenge, motion_files
from motret.formats.gar import PartDescriptions, read_gar
from motret.synthetic.motion import (
    ACTIONS,
    PAUSE,
    REST_OFFSETS,
    Act,
    Drive,
    act_out,
    draw_scene,
    drive_actor,
    duration,
    ease,
    humps,
    modulate,
    perform,
    plateau,
    pose,
    rotation_matrices,
    turn_and_move,
)

FPS = 30
SIDES = {"left": "right", "right": "left"}


def described(positions: np.ndarray, fps: float) -> PartDescriptions:
    """What is said of one motion (T, persons, 22, 3)."""
    return describer.describe_parts(positions, np.array([0]), fps)[0]


def move(*acts: Act, seconds: float = 0.0) -> np.ndarray:
    """Positions (T, 22, 3) of a person who starts at the origin facing +z and does these acts."""
    whole = max(seconds, 1.5, sum(duration(act) + PAUSE for act in acts) + 0.5)
    drive = drive_actor(acts, np.arange(int(FPS * whole)) / FPS, 0.1, np.random.default_rng(3))
    return perform(drive, REST_OFFSETS)[0]


def told(
    action: str, side: str | None = None, count: int | None = None, speed: str = "normal"
) -> PartDescriptions:
    return described(move(Act(action, side, speed, count))[:, None], FPS)


def posed(
    curve: Callable[[np.ndarray], np.ndarray], **degrees: tuple[float, float, float]
) -> np.ndarray:
    """Positions (T, 22, 3) of a person who takes up a pose by the curve, in two seconds."""
    u = np.linspace(0, 1, 2 * FPS)
    return perform(Drive(modulate(curve(u), pose(**degrees))), REST_OFFSETS)[0]


def pair(first: Act, second: Act) -> np.ndarray:
    """Two persons (T, 2, 22, 3), the second two metres before the first and facing it."""
    seconds = max(duration(act) for act in (first, second)) + 0.7
    return np.stack(
        [
            move(first, seconds=seconds),
            turn_and_move(move(second, seconds=seconds), np.pi, 0.0, 2.0),
        ],
        axis=1,
    )


def mirrored(positions: np.ndarray) -> np.ndarray:
    return positions[..., skeleton.MIRROR, :] * (-1.0, 1.0, 1.0)


def other_way(parts: PartDescriptions) -> PartDescriptions:
    """Part texts as a mirror tells them."""

    def swap(text: str) -> str:
        return re.sub(
            r"(?<![a-z])(left|right)(?![a-z])", lambda match: SIDES[match[0]], text
        )  # not the end of upright

    return {swap(part): text and swap(text) for part, text in parts.items()}


def scenes(number: int) -> list[np.ndarray]:
    """Drawn scenes (T, 2, 22, 3)."""
    rng = np.random.default_rng(8)
    return [skeleton.split_columns(act_out(draw_scene(rng), FPS, rng))[0] for _ in range(number)]


def laid_end_to_end(motions: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate(motions), np.cumsum([0] + [len(motion) for motion in motions[:-1]])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("action", "count", "limb", "words"),
    [
        ("wave", None, "arm", "is raised above the head and waves from side to side four times"),
        ("raise", None, "arm", "raised above the head and lowered again"),
        ("point", None, "arm", "raised to shoulder height to the front and lowered again"),
        ("punch", 3, "arm", "punches forward three times"),
        ("kick", 2, "leg", "kicks forward twice"),
        ("knee", 3, "leg", "lifts the knee three times"),
    ],
)
def test_a_limb_is_named_and_its_other_side_stays(
    action: str, count: int | None, limb: str, words: str, side: str
) -> None:
    parts = told(action, side, count)
    assert words in parts[f"{side}_{limb}"]
    assert words not in parts[f"{SIDES[side]}_{limb}"]
    if action != "punch":  # the other hand is in guard
        assert re.search("stays|shifts", parts[f"{SIDES[side]}_{limb}"])


@pytest.mark.parametrize(("count", "words"), [(1, "once"), (2, "twice"), (3, "three times")])
def test_kicks_jumps_and_knees_are_counted(count: int, words: str) -> None:
    assert told("kick", "left", count)["left_leg"] == f"the left leg kicks forward {words}"
    assert told("knee", "right", count)["right_leg"] == f"the right leg lifts the knee {words}"
    assert told("jump", None, count)["torso"].startswith(f"the body jumps {words}")
    assert told("jump", None, count)["left_leg"] == f"the left leg pushes off and lands {words}"


@pytest.mark.parametrize(("speed", "beats"), [("slow", 4), ("normal", 4), ("fast", 4)])
def test_waves_are_counted_at_any_speed(speed: str, beats: int) -> None:
    assert ACTIONS["wave"].beats == beats
    assert told("wave", "right", speed=speed)["right_arm"].endswith("four times")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_squat_goes_down_and_comes_up(count: int) -> None:
    parts = told("squat", None, count)
    times = {1: "", 2: " twice", 3: " three times"}[count]
    assert f"crouches and rises{times}" in parts["torso"]
    assert parts["left_leg"] == f"the left leg bends deeply and straightens{times}"


def test_up_and_down_are_told_apart() -> None:
    raised = move(Act("raise", "left"))
    top = int(raised[:, skeleton.JOINT["left_wrist"], 1].argmax())
    assert described(raised[: top + 1, None], FPS)["left_arm"].endswith("raised above the head")
    assert described(raised[top:, None], FPS)["left_arm"].endswith("lowered from above the head")
    assert described(np.repeat(raised[top : top + 1, None], FPS, axis=0), FPS)["left_arm"].endswith(
        "is held above the head"
    )


@pytest.mark.parametrize("side", SIDES)
def test_front_and_side_are_told_apart(side: str) -> None:
    out = 88.0 if side == "left" else -88.0
    aside = described(posed(plateau, **{f"{side}_shoulder": (0, 0, out)})[:, None], FPS)
    assert (
        aside[f"{side}_arm"]
        == f"the {side} arm is raised to shoulder height to the side and lowered again"
    )
    ahead = described(posed(plateau, **{f"{side}_shoulder": (-88, 0, 0)})[:, None], FPS)
    assert (
        ahead[f"{side}_arm"]
        == f"the {side} arm is raised to shoulder height to the front and lowered again"
    )


def test_only_hands_that_meet_before_the_chest_clap() -> None:
    low = posed(lambda u: humps(u, 4), both_shoulder=(-8, 0, -18), both_elbow=(-12, 0, 0))
    for motion, claps in ((low, False), (move(Act("clap")), True)):
        gap = np.linalg.norm(
            motion[:, skeleton.JOINT["left_wrist"]] - motion[:, skeleton.JOINT["right_wrist"]],
            axis=-1,
        )
        assert gap.min() < 0.1
        assert ("claps" in described(motion[:, None], FPS)["left_arm"]) == claps


def test_a_hand_that_never_reaches_out_does_not_punch() -> None:
    u = np.linspace(0, 1, 2 * FPS)
    guard = modulate(plateau(u), pose(left_shoulder=(-60, -20, 0), left_elbow=(-115, 0, 0)))
    for opened, punches in ((54, False), (110, True)):
        angles = guard + modulate(humps(u, 5) * plateau(u), pose(left_elbow=(opened, 0, 0)))
        motion = perform(Drive(angles), REST_OFFSETS)[0]
        assert ("punches" in described(motion[:, None], FPS)["left_arm"]) == punches


def test_one_who_falls_goes_down_to_the_floor() -> None:
    still = move(Act("stand"), seconds=2.0)
    angle = np.zeros((len(still), 3))
    angle[:, 0] = np.radians(85) * ease(np.linspace(0, 1, len(still)))
    fall = np.einsum("tij,tkj->tki", rotation_matrices(angle), still)
    assert "goes down to the floor" in described(fall[:, None], FPS)["torso"]


def test_one_who_stands_is_still() -> None:
    assert told("stand") == {
        "right_arm": "the right arm stays still at the side",
        "left_arm": "the left arm stays still at the side",
        "right_leg": "the right leg stays planted",
        "left_leg": "the left leg stays planted",
        "torso": "the body stays still",
    }


@pytest.mark.parametrize("side", SIDES)
def test_turns_leans_and_sidesteps_have_a_direction(side: str) -> None:
    assert told("turn", side)["torso"] == f"the body turns half around to the {side}"
    assert told("turn", side)["left_leg"].startswith("the left leg steps around")
    assert told("lean", side)["torso"] == f"the body leans to the {side}"
    assert told("sidestep", side)["torso"].startswith(f"the body walks to the {side}")
    assert told("sidestep", side)["right_leg"] == f"the right leg steps to the {side} three times"


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_a_walk_has_a_direction_whichever_way_the_room_lies(way: str) -> None:
    walk = move(Act(f"walk_{way}"))
    for yaw in (0.0, 1.0, 2.5, -2.0):
        parts = described(turn_and_move(walk, yaw, 3.0, -1.0)[:, None], FPS)
        assert parts["torso"].startswith(f"the body walks {way}")
        assert f"steps {way}" in parts["left_leg"]
        assert f"steps {way}" in parts["right_leg"]
        assert parts["right_arm"] == "the right arm swings forward and back"


@pytest.mark.parametrize(
    ("action", "part", "words"),
    [
        ("clap", "left_arm", "claps"),
        ("circles", "right_arm", "circles backward three times"),
        ("head", "left_arm", "hand at the head"),
        ("hips", "right_arm", "hand at the hip"),
        ("march", "left_leg", "lifts the knee three times"),
        ("bow", "torso", "bends forward and straightens up"),
        ("twist", "torso", "twists to both sides three times"),
    ],
)
def test_what_both_sides_or_the_torso_do_is_named(action: str, part: str, words: str) -> None:
    assert words in told(action)[part]


def test_slow_and_quick_are_told_apart() -> None:
    assert "slowly" in told("point", "left", speed="slow")["left_arm"]
    assert "quickly" in told("raise", "left", speed="fast")["left_arm"]
    assert "slowly" in told("walk_forward", speed="slow")["torso"]


def test_one_text_covers_both_persons() -> None:
    parts = described(pair(Act("kick", "left", count=2), Act("stand")), FPS)
    assert (
        parts["left_leg"] == "one person's left leg kicks forward twice, the other's stays planted"
    )
    both = described(pair(Act("stand"), Act("stand")), FPS)
    assert both["torso"] == "each person's body stays still"


def test_the_order_of_the_stored_persons_changes_nothing() -> None:
    for motion in (*scenes(8), pair(Act("turn", "left"), Act("turn", "right"))):
        assert described(motion, FPS) == described(motion[:, ::-1], FPS)


def test_a_mirror_changes_left_for_right_and_nothing_else() -> None:
    for motion in scenes(12):
        for person in (0, 1):
            alone = motion[:, person : person + 1]
            assert described(mirrored(alone), FPS) == other_way(described(alone, FPS))
    leftwards = move(Act("turn", "left"), Act("squat", count=1), seconds=5.0)
    rightwards = move(Act("turn", "right"), Act("bow"), seconds=5.0)
    both = np.stack([leftwards, rightwards + np.array([0.0, 0.0, 3.0])], axis=1)
    assert re.search("right.*bends.*left.*crouches", described(both, FPS)["torso"])
    assert described(mirrored(both), FPS) == other_way(described(both, FPS))


def test_a_motion_is_told_the_same_alone_and_among_others() -> None:
    motions = scenes(describer.CHUNK + 3)
    together = describer.describe_parts(*laid_end_to_end(motions), FPS)
    assert together == describer.describe_parts(*laid_end_to_end(motions), FPS)
    for index in (0, 1, 50, len(motions) - 1):
        assert together[index] == described(motions[index], FPS)
        padded = np.concatenate([motions[index], np.repeat(motions[index][-1:], FPS, axis=0)])
        assert together[index] == described(padded, FPS)
    assert len({parts["right_arm"] for parts in together}) > 20


def test_the_kind_of_numbers_and_where_the_floor_lies_change_nothing() -> None:
    motion = pair(Act("jump", count=2), Act("raise", "right"))
    parts = described(motion, FPS)
    assert "jumps twice" in parts["torso"]
    assert described(motion.astype(np.float32), FPS) == parts
    assert described(motion + np.array([5.0, -0.9, 2.0]), FPS) == parts


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("persons", [1, 2])
def test_nothing_is_said_of_a_moment(frames: int, persons: int) -> None:
    motion = np.repeat(move(Act("raise", "left"))[30 : 30 + frames, None], persons, axis=1)
    assert described(motion, FPS) == dict.fromkeys(skeleton.PARTS)
    long = pair(Act("raise", "left"), Act("stand"))[:, :persons]
    assert describer.describe_parts(*laid_end_to_end([motion, long]), FPS) == [
        dict.fromkeys(skeleton.PARTS),
        described(long, FPS),
    ]


def test_nothing_is_said_of_what_is_not_there() -> None:
    motion = pair(Act("kick", "left", count=1), Act("stand"))
    no_hand = motion.copy()
    no_hand[:, :, skeleton.JOINT["right_wrist"]] = no_hand[:, :, skeleton.JOINT["right_elbow"]]
    assert described(no_hand, FPS) == described(motion, FPS) | {"right_arm": None}
    assert described(np.zeros_like(motion), FPS) == dict.fromkeys(skeleton.PARTS)
    broken = motion.copy()
    broken[7, 1, 4, 2] = np.nan
    assert described(broken, FPS)["left_leg"] == "one person's left leg kicks forward once"


def test_no_motions_have_no_texts() -> None:
    assert describer.describe_parts(np.zeros((0, 2, 22, 3)), np.zeros(0, dtype=int), FPS) == []


def swings_of(values: list[float], amplitude: float) -> tuple[int, int]:
    """A twin of `count_swings` in plain Python: goes from turning point to turning point."""
    rises = falls = going = 0
    low = high = values[0]
    for value in values[1:]:
        if going >= 0 and high - value >= amplitude:
            falls, going, low = falls + 1, -1, value
        elif going <= 0 and value - low >= amplitude:
            rises, going, high = rises + 1, 1, value
        low, high = min(low, value), max(high, value)
    return rises, falls


def test_swings_are_counted_as_by_hand() -> None:
    assert swings_of([0, 1, 0.5, 1.2, 0, 1], 1.0) == (2, 1)
    values = np.random.default_rng(1).normal(size=(3, 80, 2, 4)).cumsum(axis=1)
    amplitude = np.array([0.5, 1.0, 3.0, np.inf])
    rises, falls = count_swings(values, amplitude)
    for index in np.ndindex(3, 2, 4):
        series = values[index[0], :, index[1], index[2]].tolist()
        assert (rises[index], falls[index]) == swings_of(series, amplitude[index[2]])
    assert rises[..., 0].min() > 0


def test_prepare_writes_the_parts_of_every_training_motion_to_read_and_edit(
    own_challenge: Path,
) -> None:
    flags = [
        f"--data_dir={own_challenge}",
        f"--work_dir={own_challenge.parent / 'work_dir'}",
        "--jobs=1",
    ]
    assert prepare.main([*flags, "--describe_parts"]) == 0
    written = read_gar(own_challenge.parent / "work_dir" / "gar_described.json")
    training = challenge.read_training(own_challenge)
    assert tuple(written.parts) == training.ids
    for name, path in zip(training.ids, training.paths, strict=True):
        assert written.parts[name] == described(
            skeleton.split_columns(motion_files.read_motion(path))[0], 30.0
        )


def test_what_a_person_edited_is_kept_and_told_where_training_looks_for_it(
    own_challenge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work, use = own_challenge.parent / "work_dir", own_challenge / "texts" / "gar_train.json"
    file, command = (
        work / "gar_described.json",
        [f"--data_dir={own_challenge}", f"--work_dir={work}", "--jobs=1", "--describe_parts"],
    )
    assert prepare.main(command) == 0
    assert (
        f"motions in {file}: to train on them, edited or not, copy it to {use}\n"
        in capsys.readouterr().out
    )
    ours = file.read_bytes()
    assert prepare.main(command) == 0 and file.read_bytes() == ours  # nobody touched it
    entries = json.loads(ours)
    entries[0]["part_descriptions"]["torso"] = "the body sways like a reed"
    file.write_text(json.dumps(entries))
    edited = file.read_bytes()
    capsys.readouterr()
    assert prepare.main(command) == 1 and file.read_bytes() == edited
    line = capsys.readouterr().err.splitlines()[-1]
    assert (
        line.startswith(f"error: {file}: was changed since this script wrote it")
        and f"(copy it to {use} to train on it, or move it away" in line
    )
    file.unlink()
    assert prepare.main(command) == 0 and file.read_bytes() == ours
