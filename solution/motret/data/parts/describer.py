"""The describer: part texts derived from the motion itself, short English statements on what each of the five parts does.

`signals` turns a motion into sums (how high a hand gets, how often a knee bends) and `phrases` turns sums into words; here
motions are looked at many at a time, and the words for their persons are put together. Mirrored motion gives mirrored text, and
the order of the stored persons changes nothing.
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
from motret.data.parts.signals import Bodies, distance
from motret.errors import DataError
from motret.formats import motion_files
from motret.formats.challenge import TrainingSet
from motret.formats.gar import PartDescriptions
from motret.skeleton import PARTS, REQUIRED_JOINTS, SMPL, Skeleton
from motret.utils import files, progress
from motret.utils.parallel import worker_pool

DESCRIBER_VERSION = 1  # raise it with any change of rules that no table tells: texts that are kept are told anew
ROLES = ("neck", *(f"{side}_{name}" for side in ("left", "right") for name in ("elbow", "wrist", "knee", "ankle")), *REQUIRED_JOINTS)
"""Joints that motions are described by."""
CHUNK, FRAMES = 96, 40_000  # motions of similar length, and frames in all, that are looked at together


def describe_parts(positions: np.ndarray, starts: np.ndarray, fps: float, body: Skeleton = SMPL) -> list[PartDescriptions]:
    """For each motion what each part does, both persons in one text, None where nothing certain can be said.

    positions: (F, persons, 22, 3) metres, y up, motions laid end to end; starts: (M,) first frame of each; fps: frames a second.
    The same motion gives the same text whatever stands beside it. Nothing is said of motions shorter than `phrases.LIMITS.shortest`, nor
    of parts that are not there: numbers that are not finite, bones without length.
    """
    lengths = np.diff(np.append(starts, len(positions)))
    found: list[PartDescriptions] = [dict.fromkeys(PARTS) for _ in lengths]
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] >= max(2, phrases.LIMITS.shortest * fps)]
    for rows in _chunks(order, lengths):
        for row, parts in zip(rows.tolist(), _describe_block(_block(positions, starts[rows], lengths[rows], fps), fps, body), strict=True):
            found[row] = parts
    return found


def describe_training(training: TrainingSet, config: FeatureConfig, jobs: int = -1) -> Iterator[tuple[str, str, PartDescriptions]]:
    """(id, first caption, part texts) of every training motion, as `gar.write_gar` takes them; read and described side by side."""
    if lacks := [name for name in ROLES if name not in config.body.joints]:
        problem = f"parts cannot be described from the motions: no joint is called {', '.join(lacks)}"
        raise DataError(training.root, problem, "give part texts in texts/gar_train.json, or name the joints so in skeleton.json")
    pieces = [training.paths[start : start + CHUNK] for start in range(0, len(training.paths), CHUNK)]
    parallel = worker_pool(jobs, len(pieces))
    described = parallel(joblib.delayed(_describe_files)(piece, config) for piece in pieces)
    parts = (part for done in progress.progress_bar(described, total=len(pieces), desc="describing parts", unit="piece") for part in done)
    yield from ((name, captions[0], part) for name, captions, part in zip(training.ids, training.captions, parts, strict=True))


def describer_version(fps: float) -> str:
    """Changes with whatever the words for a motion depend on besides the motion."""
    return files.content_hash(DESCRIBER_VERSION, float(fps), asdict(phrases.LIMITS), phrases.SWING)


def _describe_files(paths: Sequence[Path], config: FeatureConfig) -> list[PartDescriptions]:
    motions = [skeleton.split_columns(motion_files.read_motion(path), config.body)[0] for path in paths]
    lengths = np.array([len(motion) for motion in motions])
    positions = features.upright(np.concatenate(motions), config)
    return describe_parts(positions, np.cumsum(lengths) - lengths, config.fps, config.body)


def _chunks(order: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """The rows `order`, from short to long motions, in pieces that fit the memory."""
    first = 0
    while first < len(order):
        longest = lengths[order[min(first + CHUNK, len(order)) - 1]]
        yield order[first : (first := first + max(1, min(CHUNK, FRAMES // longest)))]


def _block(positions: np.ndarray, starts: np.ndarray, lengths: np.ndarray, fps: float) -> np.ndarray:
    """Some motions side by side, (M, T, persons, 22, 3) float64; each stays in its last frame for at least a second more."""
    frames = np.minimum(np.arange(lengths.max() + round(fps)), lengths[:, None] - 1)
    return positions[starts[:, None] + frames].astype(np.float64)


def _describe_block(room: np.ndarray, fps: float, body: Skeleton) -> list[PartDescriptions]:
    """The part texts of motions side by side (M, T, persons, 22, 3)."""
    limits, swing = phrases.LIMITS, phrases.SWING
    finite = np.isfinite(room).all(axis=(1, 3, 4))[:, None, :, None, None]
    bodies = signals.smooth_bodies(
        np.where(finite, room, 0.0), fps, limits.half_window, body
    )  # a person of zeros has no bones: nothing is said
    trunks = signals.summarise(signals.torso_signals(bodies), swing)
    said = {}
    for part in PARTS:
        side, _, limb = part.partition("_")
        if limb == "arm":
            levels = {"high": limits.gesture_height, "middle": limits.chest_height, "tight": limits.touch_elbow}
            sums = signals.summarise(signals.arm_signals(bodies, side, **levels), swing)
        else:
            sums = signals.summarise(signals.leg_signals(bodies, side), swing) if limb else trunks
        rule = {"arm": phrases.arm, "leg": phrases.leg}.get(limb, phrases.torso)
        there = _is_visible(bodies, side, limb)
        said[part] = [
            _join_persons(part, [rule(own, trunk) if known else None for own, trunk, known in zip(*motion, strict=True)])
            for motion in zip(sums, trunks, there.tolist(), strict=True)
        ]
    return [{part: texts[motion] for part, texts in said.items()} for motion in range(len(room))]


def _is_visible(bodies: Bodies, side: str, limb: str) -> np.ndarray:
    """(M, persons) whether the bones of a part are never without length."""
    chain = {"arm": ("shoulder", "elbow", "wrist"), "leg": ("hip", "knee", "ankle")}.get(limb, ())
    joints = [bodies.skeleton.joint(name) for name in ([f"{side}_{own}" for own in chain] or ["pelvis", "neck"])]
    bones = distance(bodies.room[..., joints[1:], :], bodies.room[..., joints[:-1], :])
    return (bones > phrases.LIMITS.bone).all(axis=(1, 3))


def _join_persons(part: str, said: list[str | None]) -> str | None:
    """One text for all persons; whoever does something comes first, and neither left nor right decides unless nothing else does."""
    name = "body" if part == "torso" else part.replace("_", " ")
    known = [text for text in said if text]
    if not known:
        return None
    if len(said) == 1:
        return f"the {name} {known[0]}"
    if len(known) == 2 and known[0] == known[1]:
        return f"each person's {name} {known[0]}"
    known.sort(key=lambda text: (text.startswith("stays"), re.sub(r"\b(left|right)\b", "side", text), text))
    return ", ".join(f"{who} {text}" for who, text in zip((f"one person's {name}", "the other's"), known, strict=False))
