"""Peak memory: of preparing and training at two sizes of a data set, of scoring a large gallery."""

from pathlib import Path

import numpy as np

from motret import skeleton
from motret.benchmark import subprocesses, time_to_score
from motret.benchmark.harness import Measurement
from motret.benchmark.subprocesses import PeakMemory
from motret.config import base
from motret.config.scripts import BenchConfig
from motret.config.training import MotionConfig, TrainConfig
from motret.data.features import FeatureConfig, feature_width
from motret.runs import oof
from motret.runs.oof import OutOfFold
from motret.runs.run import Run, create_run_dir
from motret.synthetic.motion import REST_OFFSETS

SIZES, QUICK_SIZES = (4_000, 40_000), (16, 48)
FRAMES = 48
"""Of each generated motion: a motion takes 130 KB, raw and packed. The 40,000 fit on a disk, and a
second copy of them shows in memory."""
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
"""Scores a run of one fold with the function that `validate.py oof` calls; prints the seconds."""
SECONDS_GOAL, BYTES_GOAL = 2.0, 1e9


def measure_memory(config: BenchConfig, scratch: Path) -> list[Measurement]:
    """Peak memory of preparing and of training one epoch, and how much each motion adds.

    Measured at two numbers of generated motions.
    """
    sizes = QUICK_SIZES if config.quick else SIZES
    peaks: dict[str, list[PeakMemory]] = {"prepare": [], "train": []}
    for size in sizes:
        folder = scratch / str(size)
        write_random_motions(folder / "data", size)
        for step, command in _commands(config, folder).items():
            peaks[step].append(subprocesses.run_watched(command)[0])
    return [_growth_measurement(step, sizes, *pair) for step, pair in peaks.items()]


def _commands(config: BenchConfig, folder: Path) -> dict[str, list[str]]:
    """The commands whose memory is measured, by step."""
    data = [
        f"--data_dir={folder / 'data'}",
        f"--work_dir={folder / 'work'}",
        f"--jobs={config.machine.jobs}",
    ]
    train = [
        f"--folds_dir={folder / 'folds'}",
        f"--out_dir={folder / 'runs'}",
        f"--device={config.machine.device}",
        *time_to_score.changed_flags(config),
        "--fold=full",
        "--epochs=1",
    ]
    return {
        "prepare": subprocesses.script_command("prepare", *data),
        "train": subprocesses.script_command("train", "holistic", *data, *train),
    }


def _growth_measurement(
    step: str, sizes: tuple[int, int], small: PeakMemory, large: PeakMemory
) -> Measurement:
    """Growth of the private memory from the small data set to the large one."""
    packed = FRAMES * 2 * feature_width(2) * np.dtype(np.float16).itemsize
    growth = (large.private - small.private) / (sizes[1] - sizes[0])
    private = f"{small.private / 1e6:.0f} and {large.private / 1e6:.0f} MB"
    mapped = f"{small.mapped / 1e6:.0f} and {large.mapped / 1e6:.0f} MB of mapped files"
    return Measurement(
        f"memory of {step}.py at {sizes[0]:,} and {sizes[1]:,} motions",
        f"{private}, and {mapped}; a motion adds {growth / 1e3:.1f} KB",
        f"less than half of the {packed / 1e3:.0f} KB of a packed motion: no second copy",
        growth < packed / 2,
    )


def write_random_motions(data_dir: Path, count: int) -> None:
    """Writes a data folder of `count` short random motions of two persons, a caption each.

    No two motions are equal.
    """
    rng = np.random.default_rng(0)
    (data_dir / "motions").mkdir(parents=True)
    (data_dir / "texts").mkdir()
    rest_pose = np.zeros((skeleton.N_JOINTS, 3))
    for joint, parent in enumerate(skeleton.PARENTS):
        rest_pose[joint] = REST_OFFSETS[joint] + (rest_pose[parent] if parent >= 0 else 0)
    ids = [f"{index:05d}" for index in range(count)]
    for index, motion_id in enumerate(ids):
        start = rest_pose + np.array([0, 1, 0])
        start = start + rng.normal(0, 0.1, (2, skeleton.N_JOINTS, 3))
        walk = np.linspace(0, 1, FRAMES)[:, None, None, None] * rng.normal(0, 0.3, (2, 1, 3))
        pose_rotations = rng.uniform(-1, 1, (2, skeleton.N_ROTATIONS, 6))
        rotations = np.broadcast_to(pose_rotations, (FRAMES, *pose_rotations.shape))
        positions = (start + walk).astype(np.float32)
        columns = skeleton.join_columns(positions, rotations.astype(np.float32))
        np.save(data_dir / "motions" / f"{motion_id}.npy", columns)
        text_path = data_dir / "texts" / f"{motion_id}.txt"
        text_path.write_text(f"scene {index}\n", encoding="utf-8")
    split = "".join(f"{motion_id}\n" for motion_id in ids)
    (data_dir / "train.txt").write_text(split, encoding="utf-8")


def measure_validation(config: BenchConfig, scratch: Path) -> list[Measurement]:
    """Time and memory of the local score of random embeddings, in a process of its own."""
    gallery, captions = (40, 120) if config.quick else (GALLERY, CAPTIONS)
    run = write_random_run(scratch / "run", gallery, captions)
    command = subprocesses.code_command(SCORE, str(run.folder), str(gallery))
    peak, output = subprocesses.run_watched(command)
    seconds = float(output)
    return [
        Measurement(
            f"local score of {gallery:,} motions x {captions:,} captions, with recalls",
            f"{seconds:.2f} s, {peak.private / 1e6:.0f} MB",
            f"< {SECONDS_GOAL:g} s, < {BYTES_GOAL / 1e9:g} GB",
            seconds < SECONDS_GOAL and peak.private < BYTES_GOAL,
        )
    ]


def write_random_run(folder: Path, gallery: int, captions: int) -> Run:
    """Writes a run with one finished fold of random embeddings of `gallery` motions."""
    config = base.build_config(TrainConfig, {})
    run = Run(folder, config, {}, "generated", "generated", FeatureConfig(), 2)
    create_run_dir(run)
    rng = np.random.default_rng(0)
    motion, text = (
        rng.normal(size=(count, DIM)).astype(np.float32) for count in (gallery, captions)
    )
    indices, motion_idx = np.arange(gallery), np.sort(np.arange(captions) % gallery)
    out = OutOfFold(indices.astype(str), indices, motion, text, motion_idx)
    oof.save_out_of_fold(run.fold_dir(0) / "oof.npz", out)
    return run
