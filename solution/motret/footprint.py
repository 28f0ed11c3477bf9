"""Memory: what preparing and training hold at two sizes of a data set, and what scoring a large gallery holds."""

from pathlib import Path

import numpy as np

from motret import children, config, runs, skeleton, time_to_score
from motret.acting import REST_OFFSETS
from motret.benchmarks import Reading
from motret.config import BenchSettings, MotionSettings, TrainSettings
from motret.features import FeatureSettings
from motret.features import width as features_width
from motret.runs import OutOfFold, Run

SIZES = (4_000, 40_000)
FRAMES = 48
"""Of each generated motion: they take 130 KB each, raw and packed, so the 40,000 fit on a disk, and a copy of one tells in memory."""
GALLERY, CAPTIONS, DIM = 6_000, 18_000, MotionSettings().proj_dim
SCORE = """
import sys, time
from pathlib import Path
import numpy as np
from motret import rank, runs
from motret.folds import Folds

run, gallery = runs.open_run(Path(sys.argv[1])), int(sys.argv[2])
folds = Folds(np.zeros(gallery, dtype=int), np.arange(gallery).astype(str), run.folds, 1)
start = time.perf_counter()
rank.out_of_fold_score([run], folds)
print(time.perf_counter() - start)
"""
"""Scores a run of one fold, with what `validate.py oof` calls, and prints the seconds it took."""
SECONDS_GOAL, BYTES_GOAL = 2.0, 1e9


def memory(settings: BenchSettings, scratch: Path) -> list[Reading]:
    """Peak memory of preparing and of training one epoch, at two numbers of generated motions, and what each motion adds."""
    sizes = (16, 48) if settings.quick else SIZES
    packed = FRAMES * 2 * features_width(2) * np.dtype(np.float16).itemsize
    peaks = {step: [] for step in ("prepare", "train")}
    for size in sizes:
        folder = scratch / str(size)
        write_motions(folder / "data", size)
        data = [f"--data_dir={folder / 'data'}", f"--work_dir={folder / 'work'}", f"--jobs={settings.machine.jobs}"]
        peaks["prepare"].append(children.watched(children.script("prepare", *data))[0])
        places = [f"--folds_dir={folder / 'folds'}", f"--out_dir={folder / 'runs'}", f"--device={settings.machine.device}"]
        train = ("train", "holistic", *data, *places, *time_to_score.flags(settings), "--fold=full", "--epochs=1")
        peaks["train"].append(children.watched(children.script(*train))[0])
    readings = []
    for step, (small, large) in peaks.items():
        growth = (large.own - small.own) / (sizes[1] - sizes[0])
        held = f"{small.own / 1e6:.0f} and {large.own / 1e6:.0f} MB"
        mapped = f"{small.mapped / 1e6:.0f} and {large.mapped / 1e6:.0f} MB of mapped files"
        value = f"{held}, beside {mapped}; a motion adds {growth / 1e3:.1f} KB"
        goal = f"less than half of the {packed / 1e3:.0f} KB that a motion packs to: no second copy"
        readings.append(Reading(f"memory of {step}.py at {sizes[0]:,} and {sizes[1]:,} motions", value, goal, growth < packed / 2))
    return readings


def write_motions(root: Path, count: int) -> None:
    """A data folder of `count` short generated motions of two persons, no two alike, with a caption each."""
    rng = np.random.default_rng(0)
    (root / "motions").mkdir(parents=True)
    (root / "texts").mkdir()
    pose = np.zeros((skeleton.N_JOINTS, 3))
    for joint, parent in enumerate(skeleton.PARENTS):
        pose[joint] = REST_OFFSETS[joint] + (pose[parent] if parent >= 0 else 0)
    for row in range(count):
        still = pose + np.array([0, 1, 0]) + rng.normal(0, 0.1, (2, skeleton.N_JOINTS, 3))
        moving = still + np.linspace(0, 1, FRAMES)[:, None, None, None] * rng.normal(0, 0.3, (2, 1, 3))
        rotations = np.broadcast_to(rng.uniform(-1, 1, (2, skeleton.N_ROTATIONS, 6)), (FRAMES, 2, skeleton.N_ROTATIONS, 6))
        raw = skeleton.join_columns(moving.astype(np.float32), rotations.astype(np.float32))
        np.save(root / "motions" / f"{row:05d}.npy", raw)
        (root / "texts" / f"{row:05d}.txt").write_text(f"scene {row}\n", encoding="utf-8")
    (root / "train.txt").write_text("".join(f"{row:05d}\n" for row in range(count)), encoding="utf-8")


def validation(settings: BenchSettings, scratch: Path) -> list[Reading]:
    """The local score and recalls of a run of random embeddings, as `validate.py oof` takes them, in a process of its own."""
    gallery, captions = (40, 120) if settings.quick else (GALLERY, CAPTIONS)
    run = write_run(scratch / "run", gallery, captions)
    held, told = children.watched(children.code(SCORE, str(run.folder), str(gallery)))
    seconds = float(told)
    what = f"local score of {gallery:,} motions x {captions:,} captions, recalls with it"
    met = seconds < SECONDS_GOAL and held.own < BYTES_GOAL
    return [Reading(what, f"{seconds:.2f} s, {held.own / 1e6:.0f} MB", f"< {SECONDS_GOAL:g} s, < {BYTES_GOAL / 1e9:g} GB", met)]


def write_run(folder: Path, gallery: int, captions: int) -> Run:
    """A run with one finished fold, whose model said something at random of so many motions and captions."""
    run = Run(folder, config.build(TrainSettings, {}), {}, "generated", "generated", FeatureSettings(), 2)
    runs.begin(run)
    rng = np.random.default_rng(0)
    motion, text = (rng.normal(size=(count, DIM)).astype(np.float32) for count in (gallery, captions))
    rows, owner = np.arange(gallery), np.sort(np.arange(captions) % gallery)
    runs.save_out_of_fold(run.part(0) / "oof.npz", OutOfFold(rows.astype(str), rows, motion, text, owner))
    return run
