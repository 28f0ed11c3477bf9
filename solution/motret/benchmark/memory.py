"""Memory: what preparing and training hold at two sizes of a data set, and what scoring a large gallery holds."""

from pathlib import Path

import numpy as np

from motret import skeleton
from motret.benchmark import harness, time_to_score
from motret.benchmark.harness import Measurement
from motret.config import base
from motret.config.scripts import BenchConfig
from motret.config.training import MotionConfig, TrainConfig
from motret.data.features import FeatureConfig
from motret.data.features import feature_width as features_width
from motret.runs import oof
from motret.runs.oof import OutOfFold
from motret.runs.run import Run, create_run_dir
from motret.synthetic.motion import REST_OFFSETS

SIZES = (4_000, 40_000)
FRAMES = 48
"""Of each generated motion: they take 130 KB each, raw and packed, so the 40,000 fit on a disk, and a copy of one tells in memory."""
GALLERY, CAPTIONS, DIM = 6_000, 18_000, MotionConfig().proj_dim
SCORE = """
import sys, time
from pathlib import Path
import numpy as np
from motret.data.folds import Folds
from motret.evaluation import local_score
from motret.runs.run import open_run

run, gallery = open_run(Path(sys.argv[1])), int(sys.argv[2])
folds = Folds(np.zeros(gallery, dtype=int), np.arange(gallery).astype(str), run.folds, 1)
start = time.perf_counter()
local_score.out_of_fold_score([run], folds)
print(time.perf_counter() - start)
"""
"""Scores a run of one fold, with what `validate.py oof` calls, and prints the seconds it took."""
SECONDS_GOAL, BYTES_GOAL = 2.0, 1e9


def measure_memory(config: BenchConfig, scratch: Path) -> list[Measurement]:
    """Peak memory of preparing and of training one epoch, at two numbers of generated motions, and what each motion adds."""
    sizes = (16, 48) if config.quick else SIZES
    packed = FRAMES * 2 * features_width(2) * np.dtype(np.float16).itemsize
    peaks = {step: [] for step in ("prepare", "train")}
    for size in sizes:
        folder = scratch / str(size)
        write_random_motions(folder / "data", size)
        data = [f"--data_dir={folder / 'data'}", f"--work_dir={folder / 'work'}", f"--jobs={config.machine.jobs}"]
        peaks["prepare"].append(harness.run_watched(harness.script_command("prepare", *data))[0])
        places = [f"--folds_dir={folder / 'folds'}", f"--out_dir={folder / 'runs'}", f"--device={config.machine.device}"]
        train = ("train", "holistic", *data, *places, *time_to_score.as_flags(config), "--fold=full", "--epochs=1")
        peaks["train"].append(harness.run_watched(harness.script_command(*train))[0])
    readings = []
    for step, (small, large) in peaks.items():
        growth = (large.own - small.own) / (sizes[1] - sizes[0])
        held = f"{small.own / 1e6:.0f} and {large.own / 1e6:.0f} MB"
        mapped = f"{small.mapped / 1e6:.0f} and {large.mapped / 1e6:.0f} MB of mapped files"
        value = f"{held}, beside {mapped}; a motion adds {growth / 1e3:.1f} KB"
        goal = f"less than half of the {packed / 1e3:.0f} KB that a motion packs to: no second copy"
        readings.append(Measurement(f"memory of {step}.py at {sizes[0]:,} and {sizes[1]:,} motions", value, goal, growth < packed / 2))
    return readings


def write_random_motions(root: Path, count: int) -> None:
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


def measure_validation(config: BenchConfig, scratch: Path) -> list[Measurement]:
    """The local score and recalls of a run of random embeddings, as `validate.py oof` takes them, in a process of its own."""
    gallery, captions = (40, 120) if config.quick else (GALLERY, CAPTIONS)
    run = write_random_run(scratch / "run", gallery, captions)
    held, told = harness.run_watched(harness.code_command(SCORE, str(run.folder), str(gallery)))
    seconds = float(told)
    what = f"local score of {gallery:,} motions x {captions:,} captions, recalls with it"
    met = seconds < SECONDS_GOAL and held.own < BYTES_GOAL
    return [Measurement(what, f"{seconds:.2f} s, {held.own / 1e6:.0f} MB", f"< {SECONDS_GOAL:g} s, < {BYTES_GOAL / 1e9:g} GB", met)]


def write_random_run(folder: Path, gallery: int, captions: int) -> Run:
    """A run with one finished fold, whose model said something at random of so many motions and captions."""
    run = Run(folder, base.build_config(TrainConfig, {}), {}, "generated", "generated", FeatureConfig(), 2)
    create_run_dir(run)
    rng = np.random.default_rng(0)
    motion, text = (rng.normal(size=(count, DIM)).astype(np.float32) for count in (gallery, captions))
    rows, motion_idx = np.arange(gallery), np.sort(np.arange(captions) % gallery)
    oof.save_out_of_fold(run.fold_dir(0) / "oof.npz", OutOfFold(rows.astype(str), rows, motion, text, motion_idx))
    return run
