"""The motion of the generated challenge: scenes, and two bodies that act them out.

Every action is a few joint angles times smooth curves of time, written for the left side and
mirrored for the right. Forward kinematics gives the joints. A body stands on its lower foot: the
pelvis moves so that this foot stays where it is on the floor.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from motret.skeleton import (
    JOINT,
    JOINTS,
    MIRROR,
    N_JOINTS,
    PARENTS,
    forward_kinematics,
    join_columns,
)

FloatArray = NDArray[np.float64]

REST_OFFSETS = np.array([
    (0, 0, 0), (0.09, -0.08, 0), (-0.09, -0.08, 0), (0, 0.11, 0), (0, -0.39, 0), (0, -0.39, 0),
    (0, 0.135, 0), (0, -0.40, 0), (0, -0.40, 0), (0, 0.055, 0), (0, -0.06, 0.13), (0, -0.06, 0.13),
    (0, 0.21, 0), (0.075, 0.12, 0), (-0.075, 0.12, 0), (0, 0.09, 0.04), (0.10, 0.035, 0),
    (-0.10, 0.035, 0), (0, -0.27, 0), (0, -0.27, 0), (0, -0.25, 0), (0, -0.25, 0),
])  # fmt: skip
"""(22, 3) metres from the parent joint, of a body 1.70 m tall that faces +z with hanging arms."""

SIDES = ("left", "right")
SPEEDS = {"slow": 0.7, "normal": 1.0, "fast": 1.4}
RELATIONS = ("facing", "side", "back", "behind", "apart")
SOLE = {"ankle": 0.08, "foot": 0.02}
"""Metres that these joints are above the floor in a standing body."""
MIN_DISTANCE = 0.7
"""Metres between the two pelvises at least."""
MIN_SECONDS, DELAY, PAUSE, TAIL = 1.4, 0.3, 0.15, 0.4
"""Seconds of a scene at least; at most before the acts; between them; at most after them."""


@dataclass(frozen=True)
class Act:
    """One thing a person does; side and count are None where the action has none."""

    action: str
    side: str | None = None
    speed: str = "normal"
    count: int | None = None


@dataclass(frozen=True)
class Scene:
    """The acts of each of the two persons in order, and how the two stand at the start."""

    actors: tuple[tuple[Act, ...], tuple[Act, ...]]
    relation: str


@dataclass(frozen=True, eq=False)
class Drive:
    """What an act adds to a standing body.

    angles: (T, 22, 3) radians of the joints; lift: (T,) metres above the floor; yaw: (T,) radians
    of turning about the vertical.
    """

    angles: FloatArray
    lift: FloatArray | float = 0.0
    yaw: FloatArray | float = 0.0


DriveFunction = Callable[[FloatArray, int], Drive]
"""The drive of an action at the times u (T,) in [0, 1], made of a number of beats."""
Curve = Callable[[FloatArray, int], FloatArray]
"""A curve (T,) at the times u (T,), made of a number of beats."""


@dataclass(frozen=True)
class Action:
    """How an action is done: `beats` repetitions of `seconds` each.

    sided: it is done with one side; counted: it is done a number of times that captions may
    mention.
    """

    drive: DriveFunction
    seconds: float
    beats: int = 1
    sided: bool = False
    counted: bool = False


def mirror_angles(angles: FloatArray) -> FloatArray:
    """Joint angles (..., 22, 3) in the mirror, left and right swapped."""
    return angles[..., MIRROR, :] * (1.0, -1.0, -1.0)


def pose(**degrees: tuple[float, float, float]) -> FloatArray:
    """(22, 3) radians from degrees by joint; `both_knee` sets the left knee, the right mirrored."""
    angles = np.zeros((N_JOINTS, 3))
    for name, value in degrees.items():
        angles[JOINT[name.replace("both_", "left_")]] = np.radians(value)
        if name.startswith("both_"):
            angles[JOINT[name.replace("both_", "right_")]] = np.radians(value) * (1.0, -1.0, -1.0)
    return angles


STILL = pose()


def ease(u: FloatArray) -> FloatArray:
    """Rises smoothly from 0 at 0 to 1 at 1."""
    u = np.clip(u, 0.0, 1.0)
    return u * u * (3.0 - 2.0 * u)


def plateau(u: FloatArray, ramp: float = 0.25) -> FloatArray:
    """Rises from 0 to 1 within `ramp`, stays there, and falls back to 0 at the end."""
    return ease(u / ramp) * ease((1.0 - u) / ramp)


def hump(u: FloatArray, begin: float = 0.0, end: float = 1.0) -> FloatArray:
    """One smooth rise to 1 and fall to 0 between begin and end."""
    return np.sin(np.pi * np.clip((u - begin) / (end - begin), 0.0, 1.0)) ** 2


def humps(u: FloatArray, beats: int) -> FloatArray:
    """`beats` humps one after the other."""
    return np.sin(np.pi * beats * u) ** 2


def oscillate(u: FloatArray, beats: int) -> FloatArray:
    """`beats` full swings between -1 and 1."""
    return np.sin(2 * np.pi * beats * u) * plateau(u, 0.15)


def modulate(curve: FloatArray, angles: FloatArray) -> FloatArray:
    """(T, 22, 3): a pose's angles (22, 3) times a curve (T,)."""
    return curve[:, None, None] * angles


def hold_pose(ready: FloatArray, beat: FloatArray = STILL, curve: Curve = humps) -> DriveFunction:
    """An action that takes up the pose `ready` and adds the pose `beat` to it by the curve."""
    return lambda u, beats: Drive(modulate(plateau(u), ready) + modulate(curve(u, beats), beat))


def alternating(step: FloatArray) -> DriveFunction:
    """An action that does the pose `step` with the left side and then the right, once per beat."""

    def drive(u: FloatArray, beats: int) -> Drive:
        wave = np.sin(2 * np.pi * beats * u)
        return Drive(
            modulate(np.maximum(wave, 0) ** 2, step)
            + modulate(np.maximum(-wave, 0) ** 2, mirror_angles(step))
        )

    return drive


def walk(u: FloatArray, beats: int, direction: int = 1) -> Drive:
    """Two steps per beat; backwards (direction -1) is the same in reverse."""
    phase, amount = direction * 2 * np.pi * beats * u, plateau(u, 0.12)
    angles = np.zeros((len(u), N_JOINTS, 3))
    sine, cosine = np.sin(phase), np.cos(phase)
    for side, forward, swing in (("left", sine, cosine), ("right", -sine, -cosine)):
        knee = np.radians(62) * np.maximum(swing, 0) ** 1.5 * amount
        # half the knee's bend: the lifted foot stays in the line of the leg
        hip = -np.radians(22) * forward * amount - knee / 2
        angles[:, JOINT[f"{side}_hip"], 0], angles[:, JOINT[f"{side}_knee"], 0] = hip, knee
        angles[:, JOINT[f"{side}_ankle"], 0] = -(hip + knee)
        angles[:, JOINT[f"{side}_shoulder"], 0] = np.radians(24) * forward * amount
    return Drive(angles)


def sidestep(u: FloatArray, beats: int) -> Drive:
    """To the left: the legs open with the left foot lifted, and close with the right."""
    wave = np.sin(2 * np.pi * beats * u)
    lifted = pose(left_hip=(-28, 0, 0), left_knee=(56, 0, 0), left_ankle=(-28, 0, 0))
    steps = modulate(np.maximum(wave, 0) ** 2, lifted) + modulate(
        np.maximum(-wave, 0) ** 2, mirror_angles(lifted)
    )
    return Drive(
        steps + modulate(humps(u, beats), pose(both_hip=(0, 0, 15), both_ankle=(0, 0, -15)))
    )


def turn(u: FloatArray, beats: int) -> Drive:
    """Half a turn to the left, with steps in place."""
    steps = alternating(pose(left_hip=(-22, 0, 0), left_knee=(44, 0, 0), left_ankle=(-22, 0, 0)))(
        u, beats
    )
    return Drive(steps.angles, yaw=np.pi * ease(u))


def circles(u: FloatArray, beats: int) -> Drive:
    """Both arms go round, forward and up first."""
    angles = modulate(plateau(u), pose(both_shoulder=(0, 0, 12), both_elbow=(8, 0, 0)))
    turned = 2 * np.pi * beats * (u - np.sin(2 * np.pi * u) / (2 * np.pi))
    angles[:, [JOINT["left_shoulder"], JOINT["right_shoulder"]], 0] -= turned[:, None]
    return Drive(angles)


def jump(u: FloatArray, beats: int) -> Drive:
    """Crouch, flight with the arms up, landing."""
    phase = (u * beats) % 1.0
    crouch = hump(phase, 0, 0.4) + 0.6 * hump(phase, 0.7, 1)
    flight = np.clip((phase - 0.32) / 0.43, 0, 1)
    body = modulate(crouch, CROUCH + pose(both_shoulder=(35, 0, 0)))
    arms = modulate(hump(phase, 0.1, 0.95), pose(both_shoulder=(-95, 0, 0)))
    feet = modulate(hump(flight), pose(both_ankle=(30, 0, 0)))
    return Drive(body + arms + feet, lift=0.28 * 4 * flight * (1 - flight))


CROUCH = pose(
    both_hip=(-52, 0, 5),
    both_knee=(96, 0, 0),
    both_ankle=(-44, 0, 0),
    spine1=(12, 0, 0),
    spine2=(12, 0, 0),
)
GUARD = pose(both_shoulder=(-25, -20, 10), both_elbow=(-105, 0, 0))
JAB = pose(
    left_shoulder=(-62, 15, 0), left_elbow=(100, 0, 0), spine1=(0, -14, 0), spine2=(0, -14, 0)
)
HAND_UP = pose(left_shoulder=(0, 80, 100), left_elbow=(-70, 0, 0))
OPEN_HANDS = pose(both_shoulder=(-60, 15, 22), both_elbow=(-38, 0, 0))
ON_HEAD = pose(both_shoulder=(-30, 65, 120), both_elbow=(-138, 0, 0))
ON_HIPS = pose(both_shoulder=(22, -75, 42), both_elbow=(-88, 0, 0))
ARMS_UP = pose(both_shoulder=(0, 0, 162), spine2=(-8, 0, 0), head=(-15, 0, 0))
KICK = pose(left_hip=(-84, 0, 0), left_knee=(8, 0, 0), spine1=(-8, 0, 0), both_shoulder=(0, 0, 12))
KNEE_UP = pose(left_hip=(-92, 0, 0), left_knee=(98, 0, 0), both_shoulder=(0, 0, 8))
MARCH_STEP = pose(
    left_hip=(-70, 0, 0), left_knee=(85, 0, 0), right_shoulder=(-48, 0, 0), left_shoulder=(30, 0, 0)
)
BOW = pose(
    spine1=(26, 0, 0),
    spine2=(26, 0, 0),
    spine3=(20, 0, 0),
    neck=(12, 0, 0),
    both_shoulder=(-20, 0, 0),
)
LEAN = pose(spine1=(0, 0, -17), spine2=(0, 0, -15), spine3=(0, 0, -10), neck=(0, 0, -6))
LOOSE_ARMS = pose(both_shoulder=(0, 0, 24), both_elbow=(-40, 0, 0))
TWIST = pose(spine1=(0, 24, 0), spine2=(0, 20, 0), spine3=(0, 12, 0))

ACTIONS = {
    "wave": Action(
        hold_pose(HAND_UP, pose(left_elbow=(-32, 0, 0)), oscillate), 0.55, 4, sided=True
    ),
    "raise": Action(
        hold_pose(pose(left_shoulder=(-172, 0, 0), left_elbow=(8, 0, 0))), 2.0, sided=True
    ),
    "point": Action(
        hold_pose(pose(left_shoulder=(-86, 0, 0), left_elbow=(8, 0, 0))), 2.0, sided=True
    ),
    "punch": Action(hold_pose(GUARD, JAB), 0.8, sided=True, counted=True),
    "clap": Action(hold_pose(OPEN_HANDS, pose(both_shoulder=(0, -52, -26))), 0.36, 6),
    "circles": Action(circles, 0.8, 3),
    "head": Action(hold_pose(ON_HEAD), 2.2),
    "hips": Action(hold_pose(ON_HIPS), 2.2),
    "stretch": Action(hold_pose(ARMS_UP), 2.2),
    "kick": Action(hold_pose(STILL, KICK), 0.8, sided=True, counted=True),
    "knee": Action(hold_pose(STILL, KNEE_UP), 0.8, sided=True, counted=True),
    "squat": Action(hold_pose(STILL, CROUCH + pose(both_shoulder=(-65, 0, 0))), 0.8, counted=True),
    "jump": Action(jump, 0.8, counted=True),
    "march": Action(alternating(MARCH_STEP), 0.8, 3),
    "bow": Action(hold_pose(BOW), 2.0),
    "lean": Action(hold_pose(LEAN), 2.0, sided=True),
    "twist": Action(hold_pose(LOOSE_ARMS, TWIST, oscillate), 0.8, 3),
    "walk_forward": Action(walk, 1.1, 2),
    "walk_backward": Action(partial(walk, direction=-1), 1.1, 2),
    "sidestep": Action(sidestep, 0.7, 3, sided=True),
    "turn": Action(turn, 0.9, 2, sided=True),
    "stand": Action(hold_pose(STILL), 0.0),
}
MOVES = tuple(name for name in ACTIONS if name != "stand")


def draw_act(action: str, rng: np.random.Generator) -> Act:
    """An act of an action, with random speed, and random side and count where it has them."""
    spec = ACTIONS[action]
    side = str(rng.choice(SIDES)) if spec.sided else None
    speed = str(rng.choice(list(SPEEDS), p=(0.25, 0.5, 0.25)))
    return Act(action, side, speed, int(rng.integers(1, 4)) if spec.counted else None)


def draw_scene(rng: np.random.Generator) -> Scene:
    """A random scene: both do the same, or one acts and the other stands, or each acts differently.

    Some persons do two things.
    """
    kind = rng.choice(("same", "one", "each"), p=(0.3, 0.3, 0.4))
    acts = [draw_act(str(name), rng) for name in rng.choice(MOVES, 4, replace=False)]
    first, second = (tuple(pair[: 2 if rng.random() < 0.3 else 1]) for pair in (acts[:2], acts[2:]))
    second = {"same": first, "one": (Act("stand"),), "each": second}[str(kind)]
    return Scene((first, second), str(rng.choice(RELATIONS)))


def duration(act: Act) -> float:
    """Seconds that an act takes."""
    spec = ACTIONS[act.action]
    return spec.seconds * (act.count or spec.beats) / SPEEDS[act.speed]


def rotation_matrices(angles: FloatArray) -> FloatArray:
    """Matrices (..., 3, 3) of angles (..., 3) in radians about x, y, z: Rz @ Rx @ Ry.

    So y twists an arm or a leg about itself.
    """
    (sx, sy, sz), (cx, cy, cz) = (
        np.moveaxis(np.sin(angles), -1, 0),
        np.moveaxis(np.cos(angles), -1, 0),
    )
    rows = (
        (cz * cy - sz * sx * sy, -sz * cx, cz * sy + sz * sx * cy),
        (sz * cy + cz * sx * sy, cz * cx, sz * sy - cz * sx * cy),
        (-cx * sy, sx, cx * cy),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def pose_joints(rotations: FloatArray, offsets: FloatArray, pelvis: FloatArray) -> FloatArray:
    """Joint positions (T, 22, 3) in metres of a body posed by its local rotations.

    rotations: (T, 22, 3, 3), the pelvis's in the room, each other joint's relative to its parent;
    offsets: (22, 3) metres from the parent at rest; pelvis: (T, 3) metres.
    With G the rotations in the room, G_j = G_parent R_j and p_j = p_parent + G_parent offset_j.
    """
    world, bones = rotations.copy(), rotations.copy()
    for joint, parent in list(enumerate(PARENTS))[1:]:
        bones[:, joint] = world[:, parent]
        world[:, joint] = world[:, parent] @ rotations[:, joint]
    return forward_kinematics(bones, offsets, pelvis)


def draw_body(rng: np.random.Generator) -> FloatArray:
    """(22, 3) rest offsets of a person: random size (about 5 %) and bones (3 %, sides alike)."""
    bones = rng.normal(1.0, 0.03, N_JOINTS)
    size = float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.12))
    scale: FloatArray = size * np.clip((bones + bones[MIRROR]) / 2, 0.92, 1.08)
    return REST_OFFSETS * scale[:, None]


def draw_sway(seconds: FloatArray, rng: np.random.Generator) -> FloatArray:
    """(T, 22, 3) radians of a living body at rest, at the times `seconds` (T,).

    The arms hang loosely, all joints move slightly and slowly, those of the legs hardly at all.
    """
    shape = (N_JOINTS, 3)
    lower_body = ("pelvis", "hip", "knee", "ankle", "foot")
    is_lower = np.array([any(word in name for word in lower_body) for name in JOINTS])
    amount = np.radians(np.where(is_lower, 0.3, 1.3))[:, None] * rng.uniform(0.3, 1.0, shape)
    frequency, phase = rng.uniform(0.15, 0.5, shape), rng.uniform(0, 2 * np.pi, shape)
    waves = np.sin(2 * np.pi * frequency * seconds[:, None, None] + phase)
    arm, elbow = rng.uniform(5, 11), rng.uniform(-18, -6)
    stance = pose(
        both_hip=(0, 0, 3),
        both_ankle=(0, 0, -3),
        both_shoulder=(0, 0, arm),
        both_elbow=(elbow, 0, 0),
    )
    return amount * waves + stance


def drive_actor(
    acts: tuple[Act, ...], seconds: FloatArray, start: float, rng: np.random.Generator
) -> Drive:
    """All that a person does in a scene, from the second `start` on, at the times `seconds` (T,).

    Each act is a little larger or smaller at random.
    """
    angles, lift, yaw = draw_sway(seconds, rng), np.zeros(len(seconds)), np.zeros(len(seconds))
    for act in acts:
        spec, length = ACTIONS[act.action], duration(act)
        u = np.clip((seconds - start) / max(length, 1e-6), 0.0, 1.0)
        drive = spec.drive(u, act.count or spec.beats)
        # arms that circle must complete the circle
        gain = 1.0 if act.action == "circles" else rng.uniform(0.9, 1.1)
        is_right = act.side == "right"
        angles = angles + gain * (mirror_angles(drive.angles) if is_right else drive.angles)
        lift = lift + gain * drive.lift
        yaw = yaw + gain * (-1.0 if is_right else 1.0) * drive.yaw
        start += length + PAUSE
    return Drive(angles, lift, yaw)


def pelvis_path(at_origin: FloatArray, lift: FloatArray, size: float) -> FloatArray:
    """(T, 3) path of the pelvis that keeps the lower foot where it is on the floor.

    at_origin: (T, 22, 3) positions with the pelvis at the origin; lift: (T,) metres of the lower
    foot above the floor; size: of the body, 1 at 1.70 m.
    """
    ankles, feet = (
        at_origin[:, [JOINT[f"left_{name}"], JOINT[f"right_{name}"]]] for name in ("ankle", "foot")
    )
    soles = np.minimum(ankles[..., 1] - SOLE["ankle"] * size, feet[..., 1] - SOLE["foot"] * size)
    lowest = soles.min(axis=1)
    weight = np.exp(-(soles - lowest[:, None]) / 0.008)
    weight /= weight.sum(axis=1, keepdims=True)
    foot_xz = (ankles + feet)[..., (0, 2)] / 2
    steps = ((weight[1:] + weight[:-1])[..., None] / 2 * np.diff(foot_xz, axis=0)).sum(axis=1)
    path = -np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    return np.stack([path[:, 0], lift - lowest, path[:, 1]], axis=1)


def perform(drive: Drive, offsets: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Positions (T, 22, 3) and local rotations (T, 22, 3, 3), pelvis first, of a person.

    The person starts at the origin, facing +z. offsets: (22, 3) of the body at rest.
    """
    local = rotation_matrices(drive.angles)
    heading = np.zeros((len(local), 3))
    heading[:, 1] = drive.yaw
    local[:, 0] = rotation_matrices(heading) @ local[:, 0]
    at_origin = pose_joints(local, offsets, np.zeros((len(local), 3)))
    ankle = JOINT["left_ankle"]
    size = offsets[ankle, 1] / REST_OFFSETS[ankle, 1]
    return at_origin + pelvis_path(at_origin, np.asarray(drive.lift), size)[:, None], local


def turn_and_move(positions: FloatArray, yaw: float, x: float, z: float) -> FloatArray:
    """Positions (T, 22, 3) turned by `yaw` radians about the vertical and moved by (x, z)."""
    return positions @ rotation_matrices(np.array([0.0, yaw, 0.0])).T + (x, 0.0, z)


def arrange_persons(
    first: FloatArray, second: FloatArray, relation: str, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """The two persons (T, 22, 3) in one room, in their relation at the start.

    They never come nearer than `MIN_DISTANCE`.
    """
    extra, sign = rng.uniform(0.0, 0.6), rng.choice((-1.0, 1.0))
    yaw, (x, z) = {
        "facing": (np.pi, (0.0, 1.3 + extra)),
        "side": (0.0, (sign * (0.8 + extra), 0.0)),
        "back": (np.pi, (0.0, -0.7 - extra / 2)),
        "behind": (0.0, (0.0, sign * (1.0 + extra))),
        "apart": (rng.uniform(-np.pi, np.pi), (0.0, 4.5 + 3 * extra)),
    }[relation]
    if relation == "apart":
        first = turn_and_move(first, rng.uniform(-np.pi, np.pi), 0.0, 0.0)
    distance = np.hypot(x, z)
    direction = np.array([x, z]) / distance
    gap = turn_and_move(second, yaw, 0.0, 0.0)[:, 0, (0, 2)] - first[:, 0, (0, 2)]
    along, across = gap @ direction, np.abs(gap @ (direction[1], -direction[0]))
    required = np.sqrt(np.maximum(MIN_DISTANCE**2 - across**2, 0.0)) - along
    distance = max(distance, required.max())
    return first, turn_and_move(second, yaw, *(distance * direction))


def act_out(scene: Scene, fps: float, rng: np.random.Generator) -> np.ndarray:
    """The raw motion (T, 384) float32 of a scene.

    Bodies, start times, small movements, position in the room and order of the persons are random.
    """
    starts = rng.uniform(0.0, DELAY, 2)
    timed = list(zip(starts, scene.actors, strict=True))
    ends = [start + sum(duration(act) + PAUSE for act in acts) for start, acts in timed]
    frames = int(np.ceil(fps * max(MIN_SECONDS, max(ends) + rng.uniform(0.0, TAIL))))
    drives = [drive_actor(acts, np.arange(frames) / fps, start, rng) for start, acts in timed]
    (first, first_local), (second, second_local) = (
        perform(drive, draw_body(rng)) for drive in drives
    )
    both = np.stack(arrange_persons(first, second, scene.relation, rng), axis=1)
    yaw, (x, z) = rng.uniform(-np.pi, np.pi), rng.uniform(-2.0, 2.0, 2)
    room = turn_and_move(both.reshape(frames, -1, 3), yaw, x, z).reshape(both.shape)
    rotations = np.stack([first_local, second_local], axis=1)[:, :, 1:]
    # the first two columns of each matrix
    six = np.concatenate([rotations[..., 0], rotations[..., 1]], axis=-1)
    order = rng.permutation(2)
    return join_columns(room[:, order], six[:, order]).astype(np.float32)
