"""Preparation and inference against what cannot be left out: reading the files, and importing the libraries."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from motret import children, dataset, files, time_to_score
from motret.benchmarks import Reading
from motret.challenge import TrainingSet
from motret.config import BenchSettings

READ_ALL = "import sys, numpy, torch, transformers, open_clip; [numpy.load(path) for path in open(sys.argv[1]).read().splitlines()]"
CANDIDATES = 32
QUERIES, GROWTH = 30, 10
PREPARATION_GOAL, INFERENCE_GOAL = 6.0, 2.0


def preparation(settings: BenchSettings, scratch: Path) -> list[Reading]:
    """Checking, hashing and packing the training motions, against reading the same files with np.load."""
    paths = dataset.read_training(settings.data.data_dir).paths
    size = sum(path.stat().st_size for path in paths)
    first, again = _read_all(paths), _read_all(paths)
    start = time.perf_counter()
    dataset.load_training(replace(settings.data, work_dir=scratch / "work"), settings.machine.jobs)
    packing = time.perf_counter() - start
    what = f"preparing {len(paths)} motions, against np.load alone"
    rates = f"{size / packing / 1e6:.0f} MB/s, np.load {size / again / 1e6:.0f} MB/s"
    cached = f"{size / 1e9:.2f} GB, in the page cache as far as it fits: read twice before, the first time at {size / first / 1e6:.0f} MB/s"
    ratio = packing / again
    return [Reading(what, f"{ratio:.1f}x ({rates}; {cached})", f"<= {PREPARATION_GOAL:g}x", ratio <= PREPARATION_GOAL)]


def _read_all(paths: Sequence[Path]) -> float:
    """Seconds to read motions."""
    start = time.perf_counter()
    for path in paths:
        np.load(path, allow_pickle=False)
    return time.perf_counter() - start


def inference(settings: BenchSettings, scratch: Path) -> list[Reading]:
    """A test folder to submission.csv by one model in a new process, nothing of it packed before, against importing and reading."""
    one_epoch = replace(settings, fit=replace(settings.fit, epochs=1))  # what a model has learned does not change its speed
    flags = time_to_score.places(settings, scratch)
    children.timed(children.script("train", "holistic", *flags, *time_to_score.flags(one_epoch), "--fold=0"))
    training = dataset.read_training(settings.data.data_dir, id_width=settings.data.id_width)
    many = max(1, min(QUERIES * GROWTH, len(training.ids) // CANDIDATES))
    usual, few = min(QUERIES, many), max(1, many // GROWTH)
    folders = {count: write_queries(training, count, scratch / f"test{count}") for count in {few, usual, many}}
    needed = _imports_and_reading(folders[usual], scratch)
    took = {count: _ranking(settings, scratch, folder) for count, folder in folders.items()}
    ratio = took[usual] / needed
    each = (took[many] - took[few]) / max(1, many - few)
    what = f"test folder of {usual} x {CANDIDATES} to submission.csv, against imports and np.load"
    grown = f"{few} queries {took[few]:.1f} s, {many} queries {took[many]:.1f} s: {each * 1000:.0f} ms for each more"
    met = took[many] <= many / few * took[few]
    return [
        Reading(what, f"{ratio:.1f}x ({took[usual]:.1f} s against {needed:.1f} s)", f"<= {INFERENCE_GOAL:g}x", ratio <= INFERENCE_GOAL),
        Reading(f"the same with {many / few:.0f}x the queries", grown, "linear at most", met),
    ]


def write_queries(training: TrainingSet, count: int, folder: Path) -> Path:
    """A test folder of `count` queries, each with the first caption of one of its candidates; no motion stands in two."""
    for query in range(count):
        own = folder / str(query + 1)
        own.mkdir(parents=True)
        rows = range(query * CANDIDATES, min((query + 1) * CANDIDATES, len(training.ids)))
        (own / "text.txt").write_text(training.captions[rows[0]][0] + "\n", encoding="utf-8")
        for number, row in enumerate(rows, start=1):
            files.link(training.paths[row], own / f"motion_{number}.npy")
    return folder


def _imports_and_reading(folder: Path, scratch: Path) -> float:
    """Seconds of a new process that imports the libraries and reads a test folder's motions; its second time, as they are cached then."""
    listed = scratch / "motions.txt"
    listed.write_text("\n".join(str(path) for path in sorted(folder.glob("*/motion_*.npy"))), encoding="utf-8")
    children.timed(children.code(READ_ALL, str(listed)))
    return children.timed(children.code(READ_ALL, str(listed))).seconds


def _ranking(settings: BenchSettings, scratch: Path, folder: Path) -> float:
    """Seconds of ranking a test folder that is met for the first time."""
    places = [flag for flag in time_to_score.places(settings, scratch) if not flag.startswith("--run_name")]
    where = (f"--test_dir={folder}", f"--out={folder}.csv", f"--submissions_dir={scratch / 'submissions'}")
    return children.timed(children.script("ensemble", "--runs", "timed", *places, *where)).seconds
