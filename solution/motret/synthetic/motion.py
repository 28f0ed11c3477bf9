"""The motion of the generated challenge: a scene's specification, and two bodies that act it out by forward kinematics.

Every action is a few joint angles times smooth curves of time, written for the left side and mirrored for the right. A body
is held up by its lower foot: the pelvis goes where that foot, staying in its place on the floor, puts it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from motret.skeleton import JOINT, JOINTS, MIRROR, N_JOINTS, PARENTS, forward_kinematics, join_columns

REST_OFFSETS = np.array([
    (0, 0, 0), (0.09, -0.08, 0), (-0.09, -0.08, 0), (0, 0.11, 0), (0, -0.39, 0), (0, -0.39, 0), (0, 0.135, 0), (0, -0.40, 0), (0, -0.40, 0),
    (0, 0.055, 0), (0, -0.06, 0.13), (0, -0.06, 0.13), (0, 0.21, 0), (0.075, 0.12, 0), (-0.075, 0.12, 0), (0, 0.09, 0.04), (0.10, 0.035, 0),
    (-0.10, 0.035, 0), (0, -0.27, 0), (0, -0.27, 0), (0, -0.25, 0), (0, -0.25, 0),
])  # fmt: skip
"""(22, 3) metres from the parent joint, of a body 1.70 m tall that faces +z with its arms hanging."""

SIDES = ("left", "right")
SPEEDS = {"slow": 0.7, "normal": 1.0, "fast": 1.4}
RELATIONS = ("facing", "side", "back", "behind", "apart")
SOLE = {"ankle": 0.08, "foot": 0.02}  # metres these joints are above the floor in a standing body
NEAREST = 0.7  # metres that two pelvises keep between them
SHORTEST, DELAY, PAUSE, TAIL = 1.4, 0.3, 0.15, 0.4  # seconds: of a scene at least; before, between and after the acts


@dataclass(frozen=True)
class Act:
    """One thing a person does; side and count are None where the action has none."""

    action: str
    side: str | None = None
    speed: str = "normal"
    count: int | None = None


@dataclass(frozen=True)
class Scene:
    """What happens: for each of the two persons the acts one after the other, and how the two stand at the start."""

    actors: tuple[tuple[Act, ...], tuple[Act, ...]]
    relation: str


@dataclass(frozen=True, eq=False)
class Drive:
    """What an act adds to a standing body: joint angles (T, 22, 3), height in the air (T,) and turning about the vertical (T,)."""

    angles: np.ndarray
    lift: np.ndarray | float = 0.0
    yaw: np.ndarray | float = 0.0


@dataclass(frozen=True)
class Action:
    """How an action goes: its drive at the times u (T,) in [0, 1], made of `beats` repetitions of `seconds` each."""

    drive: Callable[[np.ndarray, int], Drive]
    seconds: float
    beats: int = 1
    sided: bool = False
    counted: bool = False


def mirrored(angles: np.ndarray) -> np.ndarray:
    """Joint angles (..., 22, 3) as a mirror shows them, left for right."""
    return angles[..., MIRROR, :] * (1.0, -1.0, -1.0)


def pose(**degrees: tuple[float, float, float]) -> np.ndarray:
    """(22, 3) radians from degrees by joint name; `both_knee` sets the left knee and, mirrored, the right one."""
    angles = np.zeros((N_JOINTS, 3))
    for name, value in degrees.items():
        angles[JOINT[name.replace("both_", "left_")]] = np.radians(value)
        if name.startswith("both_"):
            angles[JOINT[name.replace("both_", "right_")]] = np.radians(value) * (1.0, -1.0, -1.0)
    return angles


STILL = pose()


def ease(u: np.ndarray) -> np.ndarray:
    """0 before 0, 1 after 1, smooth between."""
    u = np.clip(u, 0.0, 1.0)
    return u * u * (3.0 - 2.0 * u)


def plateau(u: np.ndarray, ramp: float = 0.25) -> np.ndarray:
    """Rises from 0 to 1 within `ramp`, stays, and falls back to 0 at the end."""
    return ease(u / ramp) * ease((1.0 - u) / ramp)


def hump(u: np.ndarray, begin: float = 0.0, end: float = 1.0) -> np.ndarray:
    """One smooth rise to 1 and fall back to 0 between begin and end."""
    return np.sin(np.pi * np.clip((u - begin) / (end - begin), 0.0, 1.0)) ** 2


def bumps(u: np.ndarray, beats: int) -> np.ndarray:
    """`beats` humps one after the other."""
    return np.sin(np.pi * beats * u) ** 2


def swings(u: np.ndarray, beats: int) -> np.ndarray:
    """`beats` full swings between -1 and 1."""
    return np.sin(2 * np.pi * beats * u) * plateau(u, 0.15)


def by(curve: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(T, 22, 3): the angles (22, 3) times the curve (T,)."""
    return curve[:, None, None] * angles


def held(ready: np.ndarray, beat: np.ndarray = STILL, curve: Callable = bumps) -> Callable[[np.ndarray, int], Drive]:
    """An action that takes up the pose `ready` and adds `beat` to it by the curve."""
    return lambda u, beats: Drive(by(plateau(u), ready) + by(curve(u, beats), beat))


def alternating(step: np.ndarray) -> Callable[[np.ndarray, int], Drive]:
    """An action that does the pose `step` with the left side and then with the right, once per beat each."""

    def drive(u: np.ndarray, beats: int) -> Drive:
        wave = np.sin(2 * np.pi * beats * u)
        return Drive(by(np.maximum(wave, 0) ** 2, step) + by(np.maximum(-wave, 0) ** 2, mirrored(step)))

    return drive


def walk(u: np.ndarray, beats: int, direction: int = 1) -> Drive:
    """Two steps a beat; backwards (direction -1) is the same played from its end."""
    phase, amount = direction * 2 * np.pi * beats * u, plateau(u, 0.12)
    angles = np.zeros((len(u), N_JOINTS, 3))
    for side, forward, swing in (("left", np.sin(phase), np.cos(phase)), ("right", -np.sin(phase), -np.cos(phase))):
        knee = np.radians(62) * np.maximum(swing, 0) ** 1.5 * amount
        hip = -np.radians(22) * forward * amount - knee / 2  # half the knee's bend: the lifted foot stays in the line of the leg
        angles[:, JOINT[f"{side}_hip"], 0], angles[:, JOINT[f"{side}_knee"], 0] = hip, knee
        angles[:, JOINT[f"{side}_ankle"], 0] = -(hip + knee)
        angles[:, JOINT[f"{side}_shoulder"], 0] = np.radians(24) * forward * amount
    return Drive(angles)


def sidestep(u: np.ndarray, beats: int) -> Drive:
    """To the left: the legs open with the left foot in the air, and close with the right one in the air."""
    wave = np.sin(2 * np.pi * beats * u)
    lifted = pose(left_hip=(-28, 0, 0), left_knee=(56, 0, 0), left_ankle=(-28, 0, 0))
    steps = by(np.maximum(wave, 0) ** 2, lifted) + by(np.maximum(-wave, 0) ** 2, mirrored(lifted))
    return Drive(steps + by(bumps(u, beats), pose(both_hip=(0, 0, 15), both_ankle=(0, 0, -15))))


def turn(u: np.ndarray, beats: int) -> Drive:
    """Half a turn to the left, stepping in place."""
    steps = alternating(pose(left_hip=(-22, 0, 0), left_knee=(44, 0, 0), left_ankle=(-22, 0, 0)))(u, beats)
    return Drive(steps.angles, yaw=np.pi * ease(u))


def circles(u: np.ndarray, beats: int) -> Drive:
    """Both arms go round, forward and up first."""
    angles = by(plateau(u), pose(both_shoulder=(0, 0, 12), both_elbow=(8, 0, 0)))
    angles[:, [JOINT["left_shoulder"], JOINT["right_shoulder"]], 0] -= (2 * np.pi * beats * (u - np.sin(2 * np.pi * u) / (2 * np.pi)))[
        :, None
    ]
    return Drive(angles)


def jump(u: np.ndarray, beats: int) -> Drive:
    """Crouch, flight with the arms up, landing."""
    phase = (u * beats) % 1.0
    crouch, flight = hump(phase, 0, 0.4) + 0.6 * hump(phase, 0.7, 1), np.clip((phase - 0.32) / 0.43, 0, 1)
    angles = by(crouch, CROUCH + pose(both_shoulder=(35, 0, 0))) + by(hump(phase, 0.1, 0.95), pose(both_shoulder=(-95, 0, 0)))
    return Drive(angles + by(hump(flight), pose(both_ankle=(30, 0, 0))), lift=0.28 * 4 * flight * (1 - flight))


CROUCH = pose(both_hip=(-52, 0, 5), both_knee=(96, 0, 0), both_ankle=(-44, 0, 0), spine1=(12, 0, 0), spine2=(12, 0, 0))
GUARD = pose(both_shoulder=(-25, -20, 10), both_elbow=(-105, 0, 0))
JAB = pose(left_shoulder=(-62, 15, 0), left_elbow=(100, 0, 0), spine1=(0, -14, 0), spine2=(0, -14, 0))
HAND_UP = pose(left_shoulder=(0, 80, 100), left_elbow=(-70, 0, 0))
OPEN_HANDS = pose(both_shoulder=(-60, 15, 22), both_elbow=(-38, 0, 0))
ON_HEAD = pose(both_shoulder=(-30, 65, 120), both_elbow=(-138, 0, 0))
ON_HIPS = pose(both_shoulder=(22, -75, 42), both_elbow=(-88, 0, 0))
ARMS_UP = pose(both_shoulder=(0, 0, 162), spine2=(-8, 0, 0), head=(-15, 0, 0))
KICK = pose(left_hip=(-84, 0, 0), left_knee=(8, 0, 0), spine1=(-8, 0, 0), both_shoulder=(0, 0, 12))
KNEE_UP = pose(left_hip=(-92, 0, 0), left_knee=(98, 0, 0), both_shoulder=(0, 0, 8))
MARCH_STEP = pose(left_hip=(-70, 0, 0), left_knee=(85, 0, 0), right_shoulder=(-48, 0, 0), left_shoulder=(30, 0, 0))
BOW = pose(spine1=(26, 0, 0), spine2=(26, 0, 0), spine3=(20, 0, 0), neck=(12, 0, 0), both_shoulder=(-20, 0, 0))
LEAN = pose(spine1=(0, 0, -17), spine2=(0, 0, -15), spine3=(0, 0, -10), neck=(0, 0, -6))
LOOSE_ARMS = pose(both_shoulder=(0, 0, 24), both_elbow=(-40, 0, 0))
TWIST = pose(spine1=(0, 24, 0), spine2=(0, 20, 0), spine3=(0, 12, 0))

ACTIONS = {
    "wave": Action(held(HAND_UP, pose(left_elbow=(-32, 0, 0)), swings), 0.55, 4, sided=True),
    "raise": Action(held(pose(left_shoulder=(-172, 0, 0), left_elbow=(8, 0, 0))), 2.0, sided=True),
    "point": Action(held(pose(left_shoulder=(-86, 0, 0), left_elbow=(8, 0, 0))), 2.0, sided=True),
    "punch": Action(held(GUARD, JAB), 0.8, sided=True, counted=True),
    "clap": Action(held(OPEN_HANDS, pose(both_shoulder=(0, -52, -26))), 0.36, 6),
    "circles": Action(circles, 0.8, 3),
    "head": Action(held(ON_HEAD), 2.2),
    "hips": Action(held(ON_HIPS), 2.2),
    "stretch": Action(held(ARMS_UP), 2.2),
    "kick": Action(held(STILL, KICK), 0.8, sided=True, counted=True),
    "knee": Action(held(STILL, KNEE_UP), 0.8, sided=True, counted=True),
    "squat": Action(held(STILL, CROUCH + pose(both_shoulder=(-65, 0, 0))), 0.8, counted=True),
    "jump": Action(jump, 0.8, counted=True),
    "march": Action(alternating(MARCH_STEP), 0.8, 3),
    "bow": Action(held(BOW), 2.0),
    "lean": Action(held(LEAN), 2.0, sided=True),
    "twist": Action(held(LOOSE_ARMS, TWIST, swings), 0.8, 3),
    "walk_forward": Action(walk, 1.1, 2),
    "walk_backward": Action(partial(walk, direction=-1), 1.1, 2),
    "sidestep": Action(sidestep, 0.7, 3, sided=True),
    "turn": Action(turn, 0.9, 2, sided=True),
    "stand": Action(held(STILL), 0.0),
}
MOVES = tuple(name for name in ACTIONS if name != "stand")


def draw_act(action: str, rng: np.random.Generator) -> Act:
    """An act of this action with side, speed and count drawn where it has them."""
    how = ACTIONS[action]
    side = str(rng.choice(SIDES)) if how.sided else None
    speed = str(rng.choice(list(SPEEDS), p=(0.25, 0.5, 0.25)))
    return Act(action, side, speed, int(rng.integers(1, 4)) if how.counted else None)


def draw_scene(rng: np.random.Generator) -> Scene:
    """A random scene: both do the same, or one acts and the other stands, or each does something else; some do two things."""
    kind = rng.choice(("same", "one", "each"), p=(0.3, 0.3, 0.4))
    moves = [draw_act(str(name), rng) for name in rng.choice(MOVES, 4, replace=False)]
    first, second = (tuple(pair[: 2 if rng.random() < 0.3 else 1]) for pair in (moves[:2], moves[2:]))
    other = {"same": first, "one": (Act("stand"),), "each": second}[str(kind)]
    return Scene((first, other), str(rng.choice(RELATIONS)))


def duration(act: Act) -> float:
    """Seconds that an act takes."""
    how = ACTIONS[act.action]
    return how.seconds * (act.count or how.beats) / SPEEDS[act.speed]


def rotation_matrices(angles: np.ndarray) -> np.ndarray:
    """Angles (..., 3) in radians about x, y, z as matrices (..., 3, 3): Rz @ Rx @ Ry, so y twists an arm or a leg about itself."""
    (sx, sy, sz), (cx, cy, cz) = np.moveaxis(np.sin(angles), -1, 0), np.moveaxis(np.cos(angles), -1, 0)
    rows = (
        (cz * cy - sz * sx * sy, -sz * cx, cz * sy + sz * sx * cy),
        (sz * cy + cz * sx * sy, cz * cx, sz * sy - cz * sx * cy),
        (-cx * sy, sx, cx * cy),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def pose_joints(rotations: np.ndarray, offsets: np.ndarray, pelvis: np.ndarray) -> np.ndarray:
    """Joint positions (T, 22, 3) in metres of a body posed by its local rotations.

    rotations: (T, 22, 3, 3), the pelvis's in the room, each other joint's relative to its parent; offsets: (22, 3) metres
    from the parent at rest; pelvis: (T, 3) metres. G_j = G_parent R_j and p_j = p_parent + G_parent offset_j.
    """
    world, bones = rotations.copy(), rotations.copy()
    for joint, parent in list(enumerate(PARENTS))[1:]:
        bones[:, joint] = world[:, parent]
        world[:, joint] = world[:, parent] @ rotations[:, joint]
    return forward_kinematics(bones, offsets, pelvis)


def draw_body(rng: np.random.Generator) -> np.ndarray:
    """(22, 3) rest offsets of a person: the size varies by some 5 %, each bone by some 3 %, both sides alike."""
    bones = rng.normal(1.0, 0.03, N_JOINTS)
    return REST_OFFSETS * (np.clip(rng.normal(1.0, 0.05), 0.88, 1.12) * np.clip((bones + bones[MIRROR]) / 2, 0.92, 1.08))[:, None]


def sway(seconds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T, 22, 3) radians of a living body at rest: arms hanging loosely, and small slow movements; the legs keep almost still."""
    shape = (N_JOINTS, 3)
    legs = np.array([any(word in name for word in ("pelvis", "hip", "knee", "ankle", "foot")) for name in JOINTS])
    amount = np.radians(np.where(legs, 0.3, 1.3))[:, None] * rng.uniform(0.3, 1.0, shape)
    waves = np.sin(2 * np.pi * rng.uniform(0.15, 0.5, shape) * seconds[:, None, None] + rng.uniform(0, 2 * np.pi, shape))
    arm, elbow = rng.uniform(5, 11), rng.uniform(-18, -6)
    return amount * waves + pose(both_hip=(0, 0, 3), both_ankle=(0, 0, -3), both_shoulder=(0, 0, arm), both_elbow=(elbow, 0, 0))


def drive_actor(acts: tuple[Act, ...], seconds: np.ndarray, start: float, rng: np.random.Generator) -> Drive:
    """All a person does in a scene, from `start` seconds on, at the times `seconds` (T,); no two times quite alike."""
    angles, lift, yaw = sway(seconds, rng), np.zeros(len(seconds)), np.zeros(len(seconds))
    for act in acts:
        how, takes = ACTIONS[act.action], duration(act)
        drive = how.drive(np.clip((seconds - start) / max(takes, 1e-6), 0.0, 1.0), act.count or how.beats)
        gain = 1.0 if act.action == "circles" else rng.uniform(0.9, 1.1)  # arms that circle must come round whole
        sign = -1.0 if act.side == "right" else 1.0
        angles = angles + gain * (mirrored(drive.angles) if act.side == "right" else drive.angles)
        lift, yaw = lift + gain * drive.lift, yaw + gain * sign * drive.yaw
        start += takes + PAUSE
    return Drive(angles, lift, yaw)


def pelvis_path(at_origin: np.ndarray, lift: np.ndarray, size: float) -> np.ndarray:
    """(T, 3) where the pelvis goes: the lower foot stays on its place on the floor, `lift` (T,) metres above it.

    at_origin: (T, 22, 3) positions with the pelvis at the origin; size: of the body, 1 at 1.70 m.
    """
    ankles, feet = at_origin[:, [JOINT["left_ankle"], JOINT["right_ankle"]]], at_origin[:, [JOINT["left_foot"], JOINT["right_foot"]]]
    soles = np.minimum(ankles[..., 1] - SOLE["ankle"] * size, feet[..., 1] - SOLE["foot"] * size)
    lowest = soles.min(axis=1)
    weight = np.exp(-(soles - lowest[:, None]) / 0.008)
    weight /= weight.sum(axis=1, keepdims=True)
    places = (ankles + feet)[..., (0, 2)] / 2
    moved = ((weight[1:] + weight[:-1])[..., None] / 2 * np.diff(places, axis=0)).sum(axis=1)
    path = -np.concatenate([np.zeros((1, 2)), np.cumsum(moved, axis=0)])
    return np.stack([path[:, 0], lift - lowest, path[:, 1]], axis=1)


def perform(drive: Drive, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions (T, 22, 3) of a person who starts at the origin facing +z, and the local rotations (T, 22, 3, 3), pelvis first."""
    local = rotation_matrices(drive.angles)
    turned = np.zeros((len(local), 3))
    turned[:, 1] = drive.yaw
    local[:, 0] = rotation_matrices(turned) @ local[:, 0]
    at_origin = pose_joints(local, offsets, np.zeros((len(local), 3)))
    size = offsets[JOINT["left_ankle"], 1] / REST_OFFSETS[JOINT["left_ankle"], 1]
    return at_origin + pelvis_path(at_origin, np.asarray(drive.lift), size)[:, None], local


def placed(positions: np.ndarray, yaw: float, x: float, z: float) -> np.ndarray:
    """Positions (T, 22, 3) turned by `yaw` radians about the vertical axis and moved to (x, z)."""
    return positions @ rotation_matrices(np.array([0.0, yaw, 0.0])).T + (x, 0.0, z)


def arrange(first: np.ndarray, second: np.ndarray, relation: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The two persons (T, 22, 3) in one room, standing as `person_relation` says at the start and never nearer than `NEAREST`."""
    near, hand = rng.uniform(0.0, 0.6), rng.choice((-1.0, 1.0))
    yaw, (x, z) = {
        "facing": (np.pi, (0.0, 1.3 + near)),
        "side": (0.0, (hand * (0.8 + near), 0.0)),
        "back": (np.pi, (0.0, -0.7 - near / 2)),
        "behind": (0.0, (0.0, hand * (1.0 + near))),
        "apart": (rng.uniform(-np.pi, np.pi), (0.0, 4.5 + 3 * near)),
    }[relation]
    if relation == "apart":
        first = placed(first, rng.uniform(-np.pi, np.pi), 0.0, 0.0)
    distance = np.hypot(x, z)
    away = np.array([x, z]) / distance
    apart = placed(second, yaw, 0.0, 0.0)[:, 0, (0, 2)] - first[:, 0, (0, 2)]
    along, across = apart @ away, np.abs(apart @ (away[1], -away[0]))
    distance = max(distance, (np.sqrt(np.maximum(NEAREST**2 - across**2, 0.0)) - along).max())
    return first, placed(second, yaw, *(distance * away))


def act_out(scene: Scene, fps: float, rng: np.random.Generator) -> np.ndarray:
    """The raw motion (T, 384) float32 of a scene: bodies, starts, small movements, the place and the order of the persons are drawn."""
    starts = rng.uniform(0.0, DELAY, 2)
    ends = [start + sum(duration(act) + PAUSE for act in acts) for start, acts in zip(starts, scene.actors, strict=True)]
    frames = int(np.ceil(fps * max(SHORTEST, max(ends) + rng.uniform(0.0, TAIL))))
    drives = [drive_actor(acts, np.arange(frames) / fps, start, rng) for acts, start in zip(scene.actors, starts, strict=True)]
    (first, first_local), (second, second_local) = (perform(drive, draw_body(rng)) for drive in drives)
    both = np.stack(arrange(first, second, scene.relation, rng), axis=1)
    room = placed(both.reshape(frames, -1, 3), rng.uniform(-np.pi, np.pi), *rng.uniform(-2.0, 2.0, 2)).reshape(both.shape)
    rotations = np.stack([first_local, second_local], axis=1)[:, :, 1:]
    six = np.concatenate([rotations[..., 0], rotations[..., 1]], axis=-1)  # the first two columns of each matrix
    order = rng.permutation(2)
    return join_columns(room[:, order], six[:, order]).astype(np.float32)
