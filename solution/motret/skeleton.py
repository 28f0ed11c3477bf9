"""The body: joints, parts, mirror pairs and the columns of a raw motion.

This is the only place that knows the numbers 22, 21, 192 and 384. Joints are in SMPL order (Loper
et al. 2015), as in HumanML3D and InterHuman. Data may bring another skeleton: KIT-ML's 21 joints,
or any that a skeleton.json describes. Inside the program +y is up, and a person at rest faces +z
with the left side towards +x.
"""

import difflib
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


def _other_side(name: str) -> str:
    """The name of a joint of one side as that of the other."""
    return name.replace("left", "R").replace("right", "left").replace("R", "right")


MIRROR = np.array([JOINT[_other_side(name)] for name in JOINTS])
"""(22,) for each joint the same joint of the other side; itself on the middle line."""

OTHER_SIDE = {
    "right_arm": "left_arm",
    "left_arm": "right_arm",
    "right_leg": "left_leg",
    "left_leg": "right_leg",
    "torso": "torso",
}
"""For each part the same part of the other side."""

CONTACT_JOINTS = ("left_wrist", "right_wrist", "head", "pelvis")
"""Joints whose distances to the same joints of the other person are features."""


@dataclass(frozen=True, eq=False)
class Skeleton:
    """The joints of a data set's bodies, by name.

    parents: parent of each joint, -1 for the root; parts: joints in the stream of each part; limbs:
    joints that make up each part, with the joint it is attached to; mirror: (J,) for each joint the
    same joint of the other side.
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
        """Indices of those `CONTACT_JOINTS` that this skeleton has."""
        return tuple(self.joint(name) for name in CONTACT_JOINTS if name in self.joints)

    def joint(self, name: str) -> int:
        """Index of a joint. UnknownJointError where there is none of that name."""
        if name not in self.joints:
            raise UnknownJointError(name, self)
        return self.joints.index(name)

    def root(self, part: str) -> int:
        """The joint by which a part is attached: the one whose parent is outside its limb."""
        limb = self.limbs[part]
        return next(joint for joint in limb if self.parents[joint] not in limb)

    def with_parts(self, parts: Mapping[str, Sequence[int]]) -> "Skeleton":
        """The same skeleton with other joints in the streams of its parts."""
        return replace(self, parts={part: tuple(parts[part]) for part in PARTS})

    def spec(self) -> str:
        """The name of a known skeleton, else all of it as JSON; `skeleton_from_spec` reads it."""
        if any(self is skeleton for skeleton in KNOWN_SKELETONS.values()):
            return self.name
        fields = {
            "name": self.name,
            "joints": self.joints,
            "parents": self.parents,
            "parts": dict(self.parts),
            "limbs": dict(self.limbs),
            "mirror": self.mirror.tolist(),
        }
        return json.dumps(fields, separators=(",", ":"))


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
        "pelvis", "spine1", "spine2", "neck", "head",
        "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
        "left_hip", "left_knee", "left_ankle", "left_midfoot", "left_foot",
        "right_hip", "right_knee", "right_ankle", "right_midfoot", "right_foot",
    ),
    (-1, 0, 1, 2, 3, 3, 5, 6, 3, 8, 9, 0, 11, 12, 13, 14, 0, 16, 17, 18, 19),
    _KIT_PARTS,
    _KIT_PARTS,
    np.array([0, 1, 2, 3, 4, 8, 9, 10, 5, 6, 7, 16, 17, 18, 19, 20, 11, 12, 13, 14, 15]),
)  # fmt: skip
"""KIT-ML (Plappert et al. 2016): root, BP, BT, BLN, BUN, LS, LE, LW, RS, RE, RW, LH, LK, LA, LMrot,
LF, RH, RK, RA, RMrot, RF of the MMM reference model; its lower neck is our neck, its upper neck our
head."""
KNOWN_SKELETONS = {skeleton.name: skeleton for skeleton in (SMPL, KIT)}
REQUIRED_JOINTS = ("pelvis", "head", "left_hip", "right_hip", "left_shoulder", "right_shoulder")
"""Joints that show which way a body faces."""
MAX_JOINTS = 500
"""Joints of a skeleton.json at most."""
SKELETON_JSON_FORM = (
    '{"names": ["pelvis", "left_hip", ...], "parents": [-1, 0, ...], '
    '"parts": {"right_arm": [joint indices], "left_arm": [...], "right_leg": [...], '
    '"left_leg": [...], "torso": [...]}, "left_right": [["left_hip", "right_hip"], ...]}'
)
"""The form of a skeleton.json, for error messages."""


@functools.lru_cache
def skeleton_from_spec(spec: str) -> Skeleton:
    """The skeleton that `Skeleton.spec` wrote."""
    if spec in KNOWN_SKELETONS:
        return KNOWN_SKELETONS[spec]
    fields = json.loads(spec)
    parts, limbs = (
        {part: tuple(joints) for part, joints in fields[name].items()}
        for name in ("parts", "limbs")
    )
    skeleton = Skeleton(
        name=str(fields["name"]),
        joints=tuple(map(str, fields["joints"])),
        parents=tuple(fields["parents"]),
        parts=parts,
        limbs=limbs,
        mirror=np.array(fields["mirror"]),
    )
    _check_indices(skeleton)
    return skeleton


def _check_indices(skeleton: Skeleton) -> None:
    """ValueError where a skeleton names a joint that it does not have."""
    count = len(skeleton.joints)
    if not (count == len(skeleton.parents) == len(skeleton.mirror)) or set(skeleton.parts) != set(
        PARTS
    ):
        raise ValueError("the lists of its joints have different lengths")
    groups = (*skeleton.parts.values(), *skeleton.limbs.values(), skeleton.mirror.tolist())
    if any(joint not in range(count) for joints in groups for joint in joints):
        raise ValueError("it names a joint that it does not have")
    if any(parent not in range(-1, count) for parent in skeleton.parents):
        raise ValueError("it names a parent that it does not have")
    if missing := [name for name in REQUIRED_JOINTS if name not in skeleton.joints]:
        raise ValueError(f"no joint is called {missing[0]}")


def parse_skeleton_json(content: Any) -> Skeleton:
    """The skeleton that the content of a skeleton.json describes; ValueError names the problem."""
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    if missing := [key for key in ("names", "parents", "parts") if key not in content]:
        raise ValueError(f"no {missing[0]} in it")
    names = [str(name) for name in content["names"]]
    if len(names) > MAX_JOINTS:
        raise ValueError(f"{len(names)} joints, at most {MAX_JOINTS} are read")
    if len(set(names)) < len(names):
        raise ValueError("a name is there twice")
    if missing := [name for name in REQUIRED_JOINTS if name not in names]:
        raise ValueError(f"no joint is called {missing[0]}")
    if missing := [part for part in PARTS if not content["parts"].get(part)]:
        raise ValueError(f"no joints of {missing[0]}")
    joint = functools.partial(_joint_index, names)
    parents = [-1 if parent in (-1, None) else joint(parent) for parent in content["parents"]]
    if len(parents) != len(names) or parents.count(-1) != 1 or not _is_tree(parents):
        problem = f"parents must be one for each of the {len(names)} joints, -1 for the root alone"
        raise ValueError(f"{problem}, and must form no circle")
    parts = {part: tuple(map(joint, content["parts"][part])) for part in PARTS}
    pairs = content.get("left_right", _pairs_by_name(names))
    mirror = _mirror_of([(joint(left), joint(right)) for left, right in pairs], len(names))
    return Skeleton("skeleton.json", tuple(names), tuple(parents), parts, parts, mirror)


class UnknownJointError(ValueError):
    """A skeleton has no joint of a name; fix: the joints of similar names, all where none is."""

    def __init__(self, name: str, skeleton: Skeleton):
        similar = difflib.get_close_matches(name, skeleton.joints, n=3)
        choices = f"choose from {', '.join(skeleton.joints)}"
        self.problem = f"{name!r} is no joint of {skeleton.name}"
        self.fix = f"did you mean {' or '.join(similar)}?" if similar else choices
        super().__init__(f"{self.problem} ({self.fix})")


def _joint_index(names: Sequence[str], joint: Any) -> int:
    """Index of a joint that a skeleton.json gives by name or by index."""
    index = names.index(joint) if isinstance(joint, str) and joint in names else joint
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(names):
        raise ValueError(f"{joint!r} is no joint")
    return index


def _pairs_by_name(names: Sequence[str]) -> list[tuple[str, str]]:
    """Joints whose names differ in left and right alone."""
    pairs = [(name, name.replace("left", "right")) for name in names if "left" in name]
    return [(left, right) for left, right in pairs if right in names]


def _mirror_of(pairs: Sequence[tuple[int, int]], count: int) -> np.ndarray:
    """(count,) for each joint its partner or itself; ValueError where one is in two pairs."""
    mirror = np.arange(count)
    for left, right in pairs:
        mirror[[left, right]] = right, left
    if not np.array_equal(mirror[mirror], np.arange(count)):
        raise ValueError("left_right has a joint in two pairs")
    return mirror


def _is_tree(parents: Sequence[int]) -> bool:
    """Whether every joint leads to the root."""
    parent_of = np.array(parents)
    ancestors = parent_of.copy()
    for _ in parents:
        ancestors = np.where(ancestors < 0, -1, parent_of[ancestors])
    return bool((ancestors < 0).all())


def count_persons(columns: int, skeleton: Skeleton = SMPL) -> int:
    """Persons in a raw motion of so many columns; KeyError for a width that no motion has.

    Positions alone (66 columns in SMPL order) are one person, 192 columns one, 384 two.
    """
    if columns == skeleton.position_columns:
        return 1
    return (PERSONS_BY_COLUMNS if skeleton is SMPL else {})[columns]


def split_columns(raw: np.ndarray, skeleton: Skeleton = SMPL) -> tuple[np.ndarray, np.ndarray]:
    """Raw columns (T, 66 | 192 | 384) as positions and rotations.

    Returns positions (T, persons, 22, 3) in metres and local 6D rotations (T, persons, 21, 6). A
    raw motion of 66 columns, and any of another skeleton with J joints, holds positions alone: (T,
    1, J, 3) and no rotations, (T, 1, 0, 6)."""
    frames, persons = len(raw), count_persons(raw.shape[1], skeleton)
    if raw.shape[1] == skeleton.position_columns:
        return raw.reshape(frames, 1, -1, 3), np.empty((frames, 1, 0, 6), raw.dtype)
    body = raw.reshape(frames, persons, -1)
    positions = body[..., :POSITION_COLUMNS].reshape(frames, persons, N_JOINTS, 3)
    rotations = body[..., POSITION_COLUMNS:].reshape(frames, persons, -1, 6)
    return positions, rotations


def join_columns(positions: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """The inverse of `split_columns`.

    positions: (T, persons, 22, 3); rotations: (T, persons, 21, 6). Returns (T, 192 * persons).
    """
    frames, persons = positions.shape[:2]
    body = np.concatenate(
        [positions.reshape(frames, persons, -1), rotations.reshape(frames, persons, -1)], axis=-1
    )
    return body.reshape(frames, -1)


def forward_kinematics(bones: np.ndarray, offsets: np.ndarray, pelvis: np.ndarray) -> np.ndarray:
    """Joint positions (T, 22, 3) in metres: p_joint = p_parent + bones_joint @ offset_joint.

    bones: (T, 22, 3, 3) orientation in the room of the bone that leads to each joint; offsets:
    (22, 3) metres from the parent at rest; pelvis: (T, 3) metres.
    """
    positions = np.empty(bones.shape[:-1])
    positions[:, 0] = pelvis
    for joint, parent in list(enumerate(PARENTS))[1:]:
        positions[:, joint] = positions[:, parent] + bones[:, joint] @ offsets[joint]
    return positions
