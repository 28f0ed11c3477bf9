"""The body: joints, parts, mirror pairs and the columns of a raw motion. The only place that knows 22, 21, 192 and 384.

Joints stand in SMPL's order (Loper et al. 2015), as HumanML3D and InterHuman use it. Inside the program "up" is +y and a
person at rest faces +z with the left side towards +x.
"""

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


def persons_of(columns: int) -> int:
    """Persons in a raw motion, by its width: one in 192 columns and in 66 (positions alone), two in 384."""
    return 1 if columns == POSITION_COLUMNS else PERSONS_BY_COLUMNS[columns]


def split_columns(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Raw columns (T, 66 | 192 | 384) as positions (T, persons, 22, 3) in metres and local 6D rotations (T, persons, 21, 6).

    66 columns are positions alone: there are no rotations then, (T, 1, 0, 6).
    """
    persons = persons_of(raw.shape[1])
    body = raw.reshape(len(raw), persons, -1)
    positions = body[..., :POSITION_COLUMNS].reshape(len(raw), persons, N_JOINTS, 3)
    return positions, body[..., POSITION_COLUMNS:].reshape(len(raw), persons, (body.shape[2] - POSITION_COLUMNS) // 6, 6)


def join_columns(positions: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """The inverse of `split_columns`: (T, persons, 22, 3) and (T, persons, 21, 6) as raw columns (T, 192 * persons)."""
    frames, persons = positions.shape[:2]
    body = np.concatenate([positions.reshape(frames, persons, -1), rotations.reshape(frames, persons, -1)], axis=-1)
    return body.reshape(frames, -1)
