"""The body: joints, parts, mirror pairs and the columns of a raw motion. The only place that knows 22, 21, 192 and 384.

Joints stand in SMPL's order (Loper et al. 2015), as HumanML3D and InterHuman use it, but for data that come with another skeleton: KIT-ML's
21 joints, or any that a table tells. Inside the program "up" is +y and a person at rest faces +z with the left side towards +x.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

JOINTS = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee",
    "spine2", "left_ankle", "right_ankle", "spine3", "left_foot", "right_foot",
    "neck", "left_collar", "right_collar", "head", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist",
)  # fmt: skip
JOINT = {name: index for index, name in enumerate(JOINTS)}
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)

PARTS = {
    "right_arm": (9, 14, 17, 19, 21),
    "left_arm": (9, 13, 16, 18, 20),
    "right_leg": (0, 2, 5, 8, 11),
    "left_leg": (0, 1, 4, 7, 10),
    "torso": (0, 3, 6, 9, 12, 15),
}

N_JOINTS = len(JOINTS)  # 22
N_ROTATIONS = N_JOINTS - 1  # one local rotation per joint but the pelvis
POSITION_COLUMNS = N_JOINTS * 3  # 66
ROTATION_COLUMNS = N_ROTATIONS * 6  # 126
PERSON_COLUMNS = POSITION_COLUMNS + ROTATION_COLUMNS  # 192
PERSONS_BY_COLUMNS = {PERSON_COLUMNS: 1, 2 * PERSON_COLUMNS: 2}

MIRROR = np.array([JOINT[name.replace("left", "R").replace("right", "left").replace("R", "right")] for name in JOINTS])
"""(22,) for each joint the one on the other side of the body (itself on the middle line)."""


OTHER_SIDE = {"right_arm": "left_arm", "left_arm": "right_arm", "right_leg": "left_leg", "left_leg": "right_leg", "torso": "torso"}
"""For each part the one on the other side of the body."""


@dataclass(frozen=True, eq=False)
class Skeleton:
    """The joints of a data set's bodies, by name.

    parents: of each joint, -1 of the root; parts: the joints of the stream of each part; limbs: the joints that make up each part, with
    the one that it hangs on; mirror: (J,) for each joint the one on the other side.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    parts: Mapping[str, tuple[int, ...]]
    limbs: Mapping[str, tuple[int, ...]]
    mirror: np.ndarray

    @property
    def position_columns(self) -> int:
        return 3 * len(self.joints)

    @property
    def contact_joints(self) -> tuple[int, ...]:
        """Joints whose distances to the same joints of another person are features."""
        return tuple(self.joint(name) for name in CONTACT_JOINTS if name in self.joints)

    def joint(self, name: str) -> int:
        return self.joints.index(name)

    def root(self, part: str) -> int:
        """The joint that a part hangs on: the one of its limb whose parent is not in it."""
        return next(joint for joint in self.limbs[part] if self.parents[joint] not in self.limbs[part])

    def with_parts(self, parts: Mapping[str, Sequence[int]]) -> "Skeleton":
        """The same with other joints in the streams of the parts."""
        return replace(self, parts={part: tuple(parts[part]) for part in PARTS})

    def spec(self) -> str:
        """What `of` makes it of again: a name, or all of it as JSON."""
        if any(self is known for known in KNOWN_SKELETONS.values()):
            return self.name
        fields = {"name": self.name, "joints": self.joints, "parents": self.parents, "parts": dict(self.parts), "limbs": dict(self.limbs)}
        return json.dumps(fields | {"mirror": self.mirror.tolist()}, separators=(",", ":"))


CONTACT_JOINTS = ("left_wrist", "right_wrist", "head", "pelvis")
SMPL = Skeleton("smpl22", JOINTS, PARENTS, PARTS, PARTS, MIRROR)
_KIT_PARTS = {
    "right_arm": (3, 8, 9, 10),
    "left_arm": (3, 5, 6, 7),
    "right_leg": (0, 16, 17, 18, 19, 20),
    "left_leg": (0, 11, 12, 13, 14, 15),
    "torso": (0, 1, 2, 3, 4),
}
KIT = Skeleton(
    "kit21",
    (
        "pelvis", "spine1", "spine2", "neck", "head", "left_shoulder", "left_elbow", "left_wrist",
        "right_shoulder", "right_elbow", "right_wrist", "left_hip", "left_knee", "left_ankle", "left_midfoot", "left_foot",
        "right_hip", "right_knee", "right_ankle", "right_midfoot", "right_foot",
    ),
    (-1, 0, 1, 2, 3, 3, 5, 6, 3, 8, 9, 0, 11, 12, 13, 14, 0, 16, 17, 18, 19),
    _KIT_PARTS,
    _KIT_PARTS,
    np.array([0, 1, 2, 3, 4, 8, 9, 10, 5, 6, 7, 16, 17, 18, 19, 20, 11, 12, 13, 14, 15]),
)  # fmt: skip
"""KIT-ML (Plappert et al. 2016): root, BP, BT, BLN, BUN, LS, LE, LW, RS, RE, RW, LH, LK, LA, LMrot, LF, RH, RK, RA, RMrot, RF of the MMM
reference model; its lower neck is the neck here, its upper neck the head."""
KNOWN_SKELETONS = {known.name: known for known in (SMPL, KIT)}
REQUIRED_JOINTS = ("pelvis", "head", "left_hip", "right_hip", "left_shoulder", "right_shoulder")
"""Joints without which nobody can tell which way a body faces."""
SKELETON_JSON_FORM = (
    '{"names": ["pelvis", "left_hip", ...], "parents": [-1, 0, ...], "parts": {"right_arm": [numbers of joints], "left_arm": [...],'
    ' "right_leg": [...], "left_leg": [...], "torso": [...]}, "left_right": [["left_hip", "right_hip"], ...]}'
)
"""What a skeleton.json looks like."""


@functools.lru_cache
def skeleton_from_spec(spec: str) -> Skeleton:
    """The skeleton that `Skeleton.spec` names or tells."""
    if spec in KNOWN_SKELETONS:
        return KNOWN_SKELETONS[spec]
    about = json.loads(spec)
    parts, limbs = ({part: tuple(own) for part, own in about[name].items()} for name in ("parts", "limbs"))
    return Skeleton(about["name"], tuple(about["joints"]), tuple(about["parents"]), parts, limbs, np.array(about["mirror"]))


def parse_skeleton_json(about: Any) -> Skeleton:
    """The skeleton of a skeleton.json; ValueError with what is wrong with it."""
    if not isinstance(about, dict) or (missing := [key for key in ("names", "parents", "parts") if key not in about]):
        raise ValueError(f"no {missing[0]} in it" if isinstance(about, dict) else "no object")
    names = [str(name) for name in about["names"]]
    count = len(names)

    def joint(written: Any) -> int:
        number = names.index(written) if isinstance(written, str) and written in names else written
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < count:
            raise ValueError(f"{written!r} is no joint")
        return number

    if len(set(names)) < count or (lacks := [name for name in REQUIRED_JOINTS if name not in names]):
        raise ValueError("a name stands twice" if len(set(names)) < count else f"no joint is called {lacks[0]}")
    parents = [-1 if own in (-1, None) else joint(own) for own in about["parents"]]
    if len(parents) != count or parents.count(-1) != 1 or not _is_tree(parents):
        raise ValueError(f"parents are one for each of the {count} joints, -1 for the root alone, and no circle")
    if lacks := [part for part in PARTS if not about["parts"].get(part)]:
        raise ValueError(f"no joints of {lacks[0]}")
    parts = {part: tuple(joint(own) for own in about["parts"][part]) for part in PARTS}
    mirror = np.arange(count)
    sides = [(name, name.replace("left", "right")) for name in names if "left" in name and name.replace("left", "right") in names]
    for left, right in about.get("left_right", sides):
        mirror[[joint(left), joint(right)]] = joint(right), joint(left)
    if not np.array_equal(mirror[mirror], np.arange(count)):
        raise ValueError("left_right has a joint in two pairs")
    return Skeleton("skeleton.json", tuple(names), tuple(parents), parts, parts, mirror)


def _is_tree(parents: Sequence[int]) -> bool:
    above = np.array(parents)
    reached = above.copy()
    for _ in parents:
        reached = np.where(reached < 0, -1, above[reached])
    return bool((reached < 0).all())


def count_persons(columns: int, skeleton: Skeleton = SMPL) -> int:
    """Persons in a raw motion, by its width: one where it holds positions of the skeleton's joints alone (66 columns), and in 192; two in
    384. KeyError for any other width."""
    return 1 if columns == skeleton.position_columns else (PERSONS_BY_COLUMNS if skeleton is SMPL else {})[columns]


def split_columns(raw: np.ndarray, skeleton: Skeleton = SMPL) -> tuple[np.ndarray, np.ndarray]:
    """Raw columns (T, 66 | 192 | 384) as positions (T, persons, 22, 3) in metres and local 6D rotations (T, persons, 21, 6).

    66 columns are positions alone, as are those of any other skeleton of J joints, (T, 1, J, 3): there are no rotations then, (T, 1, 0, 6).
    """
    persons = count_persons(raw.shape[1], skeleton)
    if raw.shape[1] == skeleton.position_columns:
        return raw.reshape(len(raw), 1, -1, 3), np.empty((len(raw), 1, 0, 6), raw.dtype)
    body = raw.reshape(len(raw), persons, -1)
    positions = body[..., :POSITION_COLUMNS].reshape(len(raw), persons, N_JOINTS, 3)
    return positions, body[..., POSITION_COLUMNS:].reshape(len(raw), persons, (body.shape[2] - POSITION_COLUMNS) // 6, 6)


def join_columns(positions: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """The inverse of `split_columns`: (T, persons, 22, 3) and (T, persons, 21, 6) as raw columns (T, 192 * persons)."""
    frames, persons = positions.shape[:2]
    body = np.concatenate([positions.reshape(frames, persons, -1), rotations.reshape(frames, persons, -1)], axis=-1)
    return body.reshape(frames, -1)
