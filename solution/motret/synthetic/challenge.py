"""The generated challenge: two bodies act out drawn scenes, captions tell of them, and all is written as the competition has it.

The scenes are known, so the score of a perfect reader is too: one who understands every word of a caption and sees all of a
motion, and can only guess among the candidates that what is said does not tell apart.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from motret.config.scripts import SceneConfig
from motret.errors import MotretError
from motret.evaluation import metrics
from motret.synthetic.captions import Caption, consistent, describe_parts, draw_captions
from motret.synthetic.motion import Scene, act_out, draw_scene
from motret.utils import files

VERSION = 1
"""Of the generator: raised when the same settings give other files."""
MARKER = "sample.json"
CONTENTS = {"motions", "texts", "test", "train.txt", MARKER}
TRAIN, TEST, READER = range(3)  # streams of random numbers, so that the training scenes do not depend on the number of queries


@dataclass(frozen=True)
class CaptionedScene:
    """A scene and its captions."""

    scene: Scene
    captions: tuple[Caption, ...]


@dataclass(frozen=True)
class OracleScore:
    """The competition score of a perfect reader: on random draws, its standard error, on the test queries as written, and by chance."""

    score: float
    error: float
    test: float
    chance: float


@dataclass(frozen=True)
class SampleResult:
    """A sample on disk; reused: it was there already."""

    folder: Path
    config: SceneConfig
    reading: OracleScore
    reused: bool

    def line(self) -> str:
        """The one line that a script prints."""
        s, r = self.config, self.reading
        return (
            f"sample in {self.folder}{' (was there already)' if self.reused else ''}: {s.motions} motions, {s.queries} queries x "
            f"{s.candidates} candidates; a perfect reader of the captions scores {r.score:.3f} +- {r.error:.3f} ({r.chance:.3f} by chance)"
        )


def generator(config: SceneConfig, stream: int, index: int = 0) -> np.random.Generator:
    """The random numbers of one scene, or of the reader."""
    return np.random.default_rng([config.seed, stream, index])


def perfect_scores(told: Sequence[CaptionedScene], pool: int, rng: np.random.Generator, draws: int = 64) -> np.ndarray:
    """(scenes,) the perfect reader's score for each scene, mean over its captions and `draws` random pools of these scenes."""
    others = len(told) - 1
    tied_sc = np.array([[sum(consistent(c.content, other.scene) for other in told) - 1 for c in one.captions] for one in told])  # x caption
    drawn = rng.hypergeometric(tied_sc, others - tied_sc, min(pool - 1, others), size=(draws, *tied_sc.shape))
    return metrics.tied_score(drawn).mean(axis=(0, 2))


def perfect_test_score(queries: Sequence[tuple[Caption, Sequence[Scene]]]) -> float:
    """The perfect reader's score on queries: a caption each and its candidates, the right one among them."""
    tied = [sum(consistent(caption.content, scene) for scene in scenes) - 1 for caption, scenes in queries]
    return float(metrics.tied_score(np.array(tied)).mean())


def write_scene(path: Path, config: SceneConfig, rng: np.random.Generator) -> CaptionedScene:
    """Draws a scene, writes its motion to `path` and returns it with its captions."""
    scene = draw_scene(rng)
    told = CaptionedScene(scene, draw_captions(scene, rng))
    np.save(path, act_out(scene, config.fps, rng))
    return told


def write_train(folder: Path, config: SceneConfig) -> list[CaptionedScene]:
    """Writes motions, captions, part descriptions and the list of ids; returns what was written, in the order of the ids."""
    for name in ("motions", "texts"):
        (folder / name).mkdir()
    ids = [f"{index:05d}" for index in range(1, config.motions + 1)]
    told = [write_scene(folder / "motions" / f"{i}.npy", config, generator(config, TRAIN, int(i))) for i in ids]
    for name, one in zip(ids, told, strict=True):
        (folder / "texts" / f"{name}.txt").write_text("".join(f"{caption.text}\n" for caption in one.captions), encoding="utf-8")
    gar = [
        {"id": name, "caption": one.captions[0].text, "part_descriptions": describe_parts(one.scene)}
        for name, one in zip(ids, told, strict=True)
    ]
    (folder / "texts" / "gar_train.json").write_text(json.dumps(gar, indent=1) + "\n", encoding="utf-8")
    (folder / "train.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")
    return told


def write_query(folder: Path, config: SceneConfig, query: int) -> tuple[Caption, list[Scene], int]:
    """Writes one test query with scenes of its own; returns its caption, its candidates' scenes and the right one's number from 1."""
    folder.mkdir(parents=True)
    first = query * config.candidates
    told = [write_scene(folder / f"motion_{k}.npy", config, generator(config, TEST, first + k)) for k in range(1, config.candidates + 1)]
    rng = generator(config, TEST, first)  # the motions' own begin at first + 1 and end at the next query's
    right = int(rng.integers(config.candidates))
    captions = told[right].captions
    caption = captions[int(rng.integers(len(captions)))]
    (folder / "text.txt").write_text(f"{caption.text}\n", encoding="utf-8")
    return caption, [one.scene for one in told], right + 1


def write_all(folder: Path, config: SceneConfig) -> OracleScore:
    """Writes a whole sample into an empty folder."""
    told = write_train(folder, config)
    queries = [write_query(folder / "test" / str(query), config, query) for query in range(1, config.queries + 1)]
    truth = [{"query_id": query, "candidate": right} for query, (_, _, right) in enumerate(queries, 1)]
    files.write_csv(folder / "test" / "gt.csv", truth)
    scores = perfect_scores(told, config.candidates, generator(config, READER))
    reading = OracleScore(
        score=float(scores.mean()),
        error=float(scores.std() / np.sqrt(len(scores))),
        test=perfect_test_score([(caption, scenes) for caption, scenes, _ in queries]),
        chance=metrics.chance_score(config.candidates),
    )
    marker = {"made_by": "sample.py", "version": VERSION, "settings": asdict(config), "perfect_reader": asdict(reading)}
    (folder / MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
    return reading


def read_marker(folder: Path) -> dict | None:
    """What the sample in this folder was made from; None where nothing is, a MotretError where the folder is not a generated sample."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    fix = "give another folder with --out, or move this one away"
    if not (folder / MARKER).is_file():
        raise MotretError(folder, "is in the way and not a generated sample", fix)
    foreign = sorted({path.name for path in folder.iterdir()} - CONTENTS)
    if foreign:
        raise MotretError(folder, f"holds {foreign[0]} beside a generated sample", fix)
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        known = {"made_by": marker["made_by"], "version": marker["version"], "settings": marker["settings"]}
        return known | {"perfect_reader": OracleScore(**marker["perfect_reader"])}
    except (ValueError, KeyError, TypeError) as fault:
        raise MotretError(folder / MARKER, "cannot be read as a generated sample's", fix) from fault


def make_sample(folder: Path, config: SceneConfig, force: bool = False) -> SampleResult:
    """Writes a sample, whole or not at all; one with the same settings is left as it is, unless by force."""
    marker = read_marker(folder)
    wanted = {"version": VERSION, "settings": asdict(config)}
    if marker and not force and {key: marker[key] for key in wanted} == wanted:
        return SampleResult(folder, config, marker["perfect_reader"], reused=True)
    with files.atomic_dir(folder, MARKER) as building:
        reading = write_all(building, config)
    return SampleResult(folder, config, reading, reused=False)
