"""The generated challenge: two bodies act out random scenes, captions describe them.

All is written in the competition's layout. The scenes are known, and so is the score of a perfect
reader: one who understands every word of a caption and all of a motion, and can only guess among
the candidates that the caption does not tell apart.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from motret.config.scripts import SceneConfig
from motret.errors import MotretError
from motret.evaluation import metrics
from motret.synthetic.captions import Caption, describe_parts, draw_captions, is_consistent
from motret.synthetic.motion import Scene, act_out, draw_scene
from motret.utils import files, reading

VERSION = 1
"""Of the generator: raised when the same settings give other files."""
MARKER = "sample.json"
CONTENTS = {"motions", "texts", "test", "train.txt", MARKER}
TRAIN_STREAM, TEST_STREAM, READER_STREAM = range(3)
"""Streams of random numbers: training scenes must not depend on the number of queries."""
READER_DRAWS = 64
"""Random pools per caption for the perfect reader's score."""


@dataclass(frozen=True)
class CaptionedScene:
    """A scene and its captions."""

    scene: Scene
    captions: tuple[Caption, ...]


@dataclass(frozen=True)
class OracleScore:
    """The competition score of a perfect reader."""

    score: float
    """On random pools of the training scenes."""
    error: float
    """Standard error of `score`."""
    test: float
    """On the test queries as they are written."""
    chance: float
    """Of a random ranking."""


@dataclass(frozen=True)
class SampleResult:
    """A sample on disk; reused: it was there already."""

    folder: Path
    config: SceneConfig
    oracle: OracleScore
    reused: bool

    def summary(self) -> str:
        """One line for a terminal."""
        config, oracle = self.config, self.oracle
        reused = " (was there already)" if self.reused else ""
        return (
            f"sample in {self.folder}{reused}: {config.motions} motions, {config.queries} queries "
            f"x {config.candidates} candidates; a perfect reader of the captions scores "
            f"{oracle.score:.3f} +- {oracle.error:.3f} ({oracle.chance:.3f} by chance)"
        )


def make_sample(folder: Path, config: SceneConfig, force: bool = False) -> SampleResult:
    """Writes a sample, whole or not at all; one with the same settings is reused unless `force`."""
    marker = read_marker(folder)
    version = {"version": VERSION, "settings": asdict(config)}
    if marker and not force and {key: marker[key] for key in version} == version:
        return SampleResult(folder, config, marker["perfect_reader"], reused=True)
    with files.atomic_dir(folder, MARKER) as tmp_dir:
        oracle = write_sample(tmp_dir, config)
    return SampleResult(folder, config, oracle, reused=False)


def read_marker(folder: Path) -> dict[str, Any] | None:
    """How the sample in a folder was made; None where there is no folder, or an empty one.

    MotretError where the folder is not a generated sample.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    fix = "give another folder with --out, or move this one away"
    if not (folder / MARKER).is_file():
        raise MotretError(folder, "is in the way and not a generated sample", fix)
    if other := sorted({path.name for path in folder.iterdir()} - CONTENTS):
        raise MotretError(folder, f"holds {other[0]} beside a generated sample", fix)
    marker = reading.read_json_object(folder / MARKER, fix)
    with reading.boundary(folder / MARKER, "is not the marker of a generated sample", fix):
        oracle = OracleScore(**marker["perfect_reader"])
        return {key: marker[key] for key in ("made_by", "version", "settings")} | {
            "perfect_reader": oracle
        }


# ---- writing


def write_sample(folder: Path, config: SceneConfig) -> OracleScore:
    """Writes a whole sample into an empty folder."""
    training = write_train(folder, config)
    queries = [
        write_query(folder / "test" / str(query), config, query)
        for query in range(1, config.queries + 1)
    ]
    truth = [
        {"query_id": query, "candidate": right} for query, (_, _, right) in enumerate(queries, 1)
    ]
    files.write_csv(folder / "test" / "gt.csv", truth)
    rng = scene_rng(config, READER_STREAM)
    scores = perfect_scores(training, config.candidates, rng)
    oracle = OracleScore(
        score=float(scores.mean()),
        error=float(scores.std() / np.sqrt(len(scores))),
        test=perfect_test_score([(caption, scenes) for caption, scenes, _ in queries]),
        chance=metrics.chance_score(config.candidates),
    )
    marker = {"made_by": "sample.py", "version": VERSION}
    marker |= {"settings": asdict(config), "perfect_reader": asdict(oracle)}
    files.write_json(folder / MARKER, marker)
    return oracle


def write_train(folder: Path, config: SceneConfig) -> list[CaptionedScene]:
    """Writes motions, captions, part descriptions and train.txt; returns the scenes in order."""
    for name in ("motions", "texts"):
        (folder / name).mkdir()
    ids = [f"{number:05d}" for number in range(1, config.motions + 1)]
    scenes = []
    for number, name in enumerate(ids, 1):
        rng = scene_rng(config, TRAIN_STREAM, number)
        scenes.append(write_scene(folder / "motions" / f"{name}.npy", config, rng))
    for name, scene in zip(ids, scenes, strict=True):
        lines = "".join(f"{caption.text}\n" for caption in scene.captions)
        (folder / "texts" / f"{name}.txt").write_text(lines, encoding="utf-8", newline="")
    entries = [
        {
            "id": name,
            "caption": scene.captions[0].text,
            "part_descriptions": describe_parts(scene.scene),
        }
        for name, scene in zip(ids, scenes, strict=True)
    ]
    files.write_json(folder / "texts" / "gar_train.json", entries)
    files.write_text(folder / "train.txt", "".join(f"{name}\n" for name in ids))
    return scenes


def write_query(folder: Path, config: SceneConfig, query: int) -> tuple[Caption, list[Scene], int]:
    """Writes one test query of new scenes.

    Returns its caption, the scenes of its candidates, and the number of the right one, from 1.
    """
    folder.mkdir(parents=True)
    first = query * config.candidates  # scenes first + 1 .. first + candidates are this query's
    scenes = []
    for number in range(1, config.candidates + 1):
        rng = scene_rng(config, TEST_STREAM, first + number)
        scenes.append(write_scene(folder / f"motion_{number}.npy", config, rng))
    # this stream is also that of the last scene of the query before
    rng = scene_rng(config, TEST_STREAM, first)
    right = int(rng.integers(config.candidates))
    captions = scenes[right].captions
    caption = captions[int(rng.integers(len(captions)))]
    files.write_text(folder / "text.txt", f"{caption.text}\n")
    return caption, [scene.scene for scene in scenes], right + 1


def write_scene(path: Path, config: SceneConfig, rng: np.random.Generator) -> CaptionedScene:
    """Draws a scene and its captions, and writes its motion to `path`."""
    scene = draw_scene(rng)
    captioned = CaptionedScene(scene, draw_captions(scene, rng))
    np.save(path, act_out(scene, config.fps, rng))
    return captioned


def scene_rng(config: SceneConfig, stream: int, number: int = 0) -> np.random.Generator:
    """The random numbers of one scene of a stream."""
    return np.random.default_rng([config.seed, stream, number])


# ---- the perfect reader


def perfect_scores(
    scenes: Sequence[CaptionedScene],
    pool: int,
    rng: np.random.Generator,
    draws: int = READER_DRAWS,
) -> np.ndarray:
    """(scenes,) the perfect reader's score for each scene.

    It is the mean over the captions of a scene, and over `draws` random pools of these scenes.
    """
    others = len(scenes) - 1
    tied_sc = np.array(
        [  # scene x caption: other scenes that the caption may be about
            [
                sum(is_consistent(caption.content, other.scene) for other in scenes) - 1
                for caption in scene.captions
            ]
            for scene in scenes
        ]
    )
    size = (draws, *tied_sc.shape)
    tied_in_pool = rng.hypergeometric(tied_sc, others - tied_sc, min(pool - 1, others), size=size)
    scores: np.ndarray = metrics.tied_score(tied_in_pool).mean(axis=(0, 2))
    return scores


def perfect_test_score(queries: Sequence[tuple[Caption, Sequence[Scene]]]) -> float:
    """The perfect reader's score on queries: captions, and the scenes of their candidates."""
    tied = [
        sum(is_consistent(caption.content, scene) for scene in scenes) - 1
        for caption, scenes in queries
    ]
    return float(metrics.tied_score(np.array(tied)).mean())
