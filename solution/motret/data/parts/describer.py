"""The describer: part texts derived from the motion itself, short English statements on what each
of the five parts does.

`signals` turns motions into statistics (how high a hand gets, how often a knee bends) and `phrases`
turns statistics into words; here many motions are computed at a time, and the words for their
persons are joined. Mirrored motion gives mirrored text, and the order of the stored persons changes
nothing.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import joblib
import numpy as np

from motret import skeleton
from motret.data import features
from motret.data.features import FeatureConfig
from motret.data.parts import phrases, signals
from motret.data.parts.signals import Bodies, SignalStatsByName, distance
from motret.errors import DataError
from motret.formats import motion_files
from motret.formats.challenge import TrainingSet
from motret.formats.gar import PartDescriptions
from motret.skeleton import PARTS, REQUIRED_JOINTS, SMPL, Skeleton
from motret.utils import files, progress
from motret.utils.parallel import worker_pool

DESCRIBER_VERSION = (
    1  # raise it with any change of rules that no table shows: stored texts are then derived anew
)
ROLES = (
    "neck",
    *(
        f"{side}_{name}"
        for side in ("left", "right")
        for name in ("elbow", "wrist", "knee", "ankle")
    ),
    *REQUIRED_JOINTS,
)
"""Joints that motions are described by."""
CHUNK, FRAMES = 96, 40_000
"""Motions of similar length, and frames in all, that are computed together."""
BONES = {
    "arm": ("shoulder", "elbow", "wrist"),
    "leg": ("hip", "knee", "ankle"),
}
"""Joints of a limb whose bones must be there."""
RULES = {
    "arm": phrases.describe_arm,
    "leg": phrases.describe_leg,
    "torso": phrases.describe_torso,
}


def describe_parts(
    positions: np.ndarray, starts: np.ndarray, fps: float, body: Skeleton = SMPL
) -> list[PartDescriptions]:
    """For each motion what each part does, both persons in one text, None where nothing certain can
    be said.

    positions: (F, persons, J, 3) metres, y up, motions laid end to end; starts: (M,) first frame of
    each; fps: frames per second. The same motion gives the same text whatever other motions there
    are. There is no text for motions shorter than `phrases.LIMITS.shortest`, nor for parts that are
    not there: numbers that are not finite, bones without length.
    """
    lengths = np.diff(np.append(starts, len(positions)))
    descriptions: list[PartDescriptions] = [dict.fromkeys(PARTS) for _ in lengths]
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] >= max(2, phrases.LIMITS.shortest * fps)]
    for motion_idx in _chunks(order, lengths):
        block = _stack_motions(positions, starts[motion_idx], lengths[motion_idx], fps)
        texts = _describe_block(block, fps, body)
        for index, parts in zip(motion_idx.tolist(), texts, strict=True):
            descriptions[index] = parts
    return descriptions


def describe_training(
    training: TrainingSet, config: FeatureConfig, jobs: int = -1
) -> Iterator[tuple[str, str, PartDescriptions]]:
    """(id, first caption, part texts) of every training motion, as `gar.write_gar` takes them; in
    parallel."""
    if missing := [name for name in ROLES if name not in config.body.joints]:
        names = ", ".join(missing)
        raise DataError(
            training.root,
            f"parts cannot be described from the motions: no joint is called {names}",
            "give part texts in texts/gar_train.json, or name the joints so in skeleton.json",
        )
    chunks = [
        training.paths[start : start + CHUNK] for start in range(0, len(training.paths), CHUNK)
    ]
    parallel = worker_pool(jobs, len(chunks))
    described = parallel(joblib.delayed(_describe_files)(chunk, config) for chunk in chunks)
    bar = progress.progress_bar(described, total=len(chunks), desc="describing parts", unit="chunk")
    parts = (motion_parts for chunk in bar for motion_parts in chunk)
    for name, captions, motion_parts in zip(training.ids, training.captions, parts, strict=True):
        yield name, captions[0], motion_parts


def describer_version(fps: float) -> str:
    """Changes with all that the words for a motion depend on besides the motion."""
    limits = asdict(phrases.LIMITS)
    return files.content_hash(DESCRIBER_VERSION, float(fps), limits, phrases.MIN_AMPLITUDE)


def _describe_files(paths: Sequence[Path], config: FeatureConfig) -> list[PartDescriptions]:
    motions = [
        skeleton.split_columns(motion_files.read_motion(path), config.body)[0] for path in paths
    ]
    lengths = np.array([len(motion) for motion in motions])
    positions = features.upright(np.concatenate(motions), config)
    return describe_parts(positions, np.cumsum(lengths) - lengths, config.fps, config.body)


def _chunks(order: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Motion indices, from short to long motions, in chunks that fit the memory."""
    first = 0
    while first < len(order):
        longest = lengths[order[min(first + CHUNK, len(order)) - 1]]
        size = max(1, min(CHUNK, FRAMES // longest))
        yield order[first : first + size]
        first += size


def _stack_motions(
    positions: np.ndarray, starts: np.ndarray, lengths: np.ndarray, fps: float
) -> np.ndarray:
    """Motions side by side (M, T, persons, J, 3) float64; each stays in its last frame for at least
    a second more."""
    frames = np.minimum(np.arange(lengths.max() + round(fps)), lengths[:, None] - 1)
    return positions[starts[:, None] + frames].astype(np.float64)


def _describe_block(room: np.ndarray, fps: float, body: Skeleton) -> list[PartDescriptions]:
    """The part texts of motions side by side (M, T, persons, J, 3)."""
    finite = np.isfinite(room).all(axis=(1, 3, 4))[:, None, :, None, None]
    room = np.where(finite, room, 0.0)  # a person of zeros has no bones: there is no text
    bodies = signals.smooth_bodies(room, fps, phrases.LIMITS.half_window, body)
    torso_stats = signals.summarise(signals.torso_signals(bodies), phrases.MIN_AMPLITUDE)
    texts: dict[str, list[str | None]] = {}
    for part in PARTS:
        side, _, limb = part.partition("_")
        stats = _limb_stats(bodies, side, limb) if limb else torso_stats
        rule = RULES[limb or "torso"]
        visible = _is_visible(bodies, side, limb).tolist()
        texts[part] = [
            _join_persons(
                part,
                [
                    rule(part_stats, torso) if is_visible else None
                    for part_stats, torso, is_visible in zip(*persons, strict=True)
                ],
            )
            for persons in zip(stats, torso_stats, visible, strict=True)
        ]
    return [{part: texts[part][index] for part in PARTS} for index in range(len(room))]


def _limb_stats(bodies: Bodies, side: str, limb: str) -> list[list[SignalStatsByName]]:
    """Statistics of an arm or a leg: of each motion, of each person."""
    if limb == "leg":
        return signals.summarise(signals.leg_signals(bodies, side), phrases.MIN_AMPLITUDE)
    limits = phrases.LIMITS
    arm = signals.arm_signals(
        bodies,
        side,
        high=limits.gesture_height,
        middle=limits.chest_height,
        tight=limits.touch_elbow,
    )
    return signals.summarise(arm, phrases.MIN_AMPLITUDE)


def _is_visible(bodies: Bodies, side: str, limb: str) -> np.ndarray:
    """(M, persons) whether the bones of a part always have a length."""
    names = [f"{side}_{name}" for name in BONES[limb]] if limb else ["pelvis", "neck"]
    joints = [bodies.skeleton.joint(name) for name in names]
    bones = distance(bodies.room[..., joints[1:], :], bodies.room[..., joints[:-1], :])
    return np.all(bones > phrases.LIMITS.bone, axis=(1, 3))


def _join_persons(part: str, texts: list[str | None]) -> str | None:
    """One text for all persons; whoever does something comes first, and left and right decide only
    where nothing else does."""
    name = "body" if part == "torso" else part.replace("_", " ")
    statements = [text for text in texts if text]
    if not statements:
        return None
    if len(texts) == 1:
        return f"the {name} {statements[0]}"
    if len(statements) == 2 and statements[0] == statements[1]:
        return f"each person's {name} {statements[0]}"
    statements.sort(
        key=lambda text: (text.startswith("stays"), re.sub(r"\b(left|right)\b", "side", text), text)
    )
    subjects = (f"one person's {name}", "the other's")
    return ", ".join(f"{who} {text}" for who, text in zip(subjects, statements, strict=False))
