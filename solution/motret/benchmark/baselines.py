"""Preparation and inference against what cannot be left out: reading the files, and importing the libraries."""

import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from motret.benchmark import harness, time_to_score
from motret.benchmark.harness import Measurement
from motret.config.scripts import BenchConfig
from motret.data import dataset
from motret.formats.challenge import TrainingSet
from motret.utils import files

READ_ALL = "import sys, numpy, torch, transformers, open_clip; [numpy.load(path) for path in open(sys.argv[1]).read().splitlines()]"
CANDIDATES = 32
QUERIES, QUICK_QUERIES = (3, 30, 300), (1, 2, 3)
"""Few, as many as the competition has, and many."""
REPEATS = 3
STEEPER = 1.3
"""Growth is linear where a query of many takes at most so many times as long as one of few."""
PREPARATION_GOAL, INFERENCE_GOAL = 6.0, 2.0


def measure_preparation(config: BenchConfig, scratch: Path) -> list[Measurement]:
    """Checking, hashing and packing the training motions, against reading the same files with np.load; the medians of some turns."""
    paths = dataset.read_training(config.data.data_dir).paths
    size = sum(path.stat().st_size for path in paths)
    first, turns = _read_all(paths), 1 if config.quick else REPEATS
    took = [(_read_all(paths), _packing(config, scratch)) for _ in range(turns)]
    reading, packing = (statistics.median(seconds) for seconds in zip(*took, strict=True))
    what = f"preparing {len(paths)} motions, against np.load alone"
    rates = f"{size / packing / 1e6:.0f} MB/s, np.load {size / reading / 1e6:.0f} MB/s"
    cached = f"{size / 1e9:.2f} GB, in the page cache as far as it fits: read once before, at {size / first / 1e6:.0f} MB/s"
    ratio = packing / reading
    return [Measurement(what, f"{ratio:.1f}x ({rates}; {cached})", f"<= {PREPARATION_GOAL:g}x", ratio <= PREPARATION_GOAL)]


def _packing(config: BenchConfig, scratch: Path) -> float:
    """Seconds to prepare the training motions in an empty work folder."""
    start = time.perf_counter()
    dataset.load_training(replace(config.data, work_dir=scratch / "work"), config.machine.jobs)
    seconds = time.perf_counter() - start
    shutil.rmtree(scratch / "work")
    return seconds


def _read_all(paths: Sequence[Path]) -> float:
    """Seconds to read motions."""
    start = time.perf_counter()
    for path in paths:
        np.load(path, allow_pickle=False)
    return time.perf_counter() - start


@dataclass(frozen=True)
class Growth:
    """Seconds for each further query, first from few to the usual number and then on to many; noise: how far the first may be off."""

    first: float
    second: float
    noise: float

    @classmethod
    def of(cls, took: Mapping[int, Sequence[float]]) -> "Growth":
        """From the seconds of repeated rankings of three numbers of queries, of which the fastest count.

        Starting takes a little longer at some times than at others. The fastest of a few repeats is about as far from what it would be
        in the best case as the next one is from it; over the few queries between the first two numbers this is not small.
        """
        few, usual, many = sorted(took)
        fastest = {count: sorted(seconds) for count, seconds in took.items()}
        late = sum(fastest[count][1] - fastest[count][0] for count in (few, usual) if len(fastest[count]) > 1)
        first = (fastest[usual][0] - fastest[few][0]) / (usual - few)
        return cls(first, (fastest[many][0] - fastest[usual][0]) / (many - usual), late / (usual - few))

    @property
    def linear(self) -> bool:
        """Whether many queries take hardly more time each than few do."""
        return self.second <= STEEPER * self.first + self.noise


def measure_inference(config: BenchConfig, scratch: Path) -> list[Measurement]:
    """A test folder to submission.csv by one model in a new process, nothing of it packed before, against importing and reading."""
    one_epoch = replace(config, fit=replace(config.fit, epochs=1))  # what a model has learned does not change its speed
    flags = time_to_score.data_flags(config, scratch)
    harness.run_timed(harness.script_command("train", "holistic", *flags, *time_to_score.as_flags(one_epoch), "--fold=0"))
    training = dataset.read_training(config.data.data_dir, id_width=config.data.id_width)
    few, usual, many = QUICK_QUERIES if config.quick else QUERIES
    turns = 1 if config.quick else REPEATS
    repeats = {few: turns, usual: turns, many: 1}  # over many queries the noise of a start is nothing
    folders = {
        count: [write_queries(training, count, scratch / f"test{count}_{turn}", turn * count) for turn in range(times)]
        for count, times in repeats.items()
    }
    needed = _imports_and_reading(folders[usual][0], scratch)
    took = {count: [_ranking(config, scratch, folder) for folder in own] for count, own in folders.items()}
    fastest, growth = {count: min(seconds) for count, seconds in took.items()}, Growth.of(took)
    ratio = fastest[usual] / needed
    what = f"test folder of {usual} x {CANDIDATES} to submission.csv, against imports and np.load"
    copied = max(0, many * min(CANDIDATES, len(training.ids)) - len(training.ids))
    shared = f"; of {len(training.ids):,} motions, so {copied:,} candidates of the {many} are copies" if copied else ""
    grown = ", ".join(f"{count} queries {seconds:.1f} s" for count, seconds in fastest.items())
    slopes = f"{growth.first * 1000:.0f} ms for each more up to {usual}, {growth.second * 1000:.0f} ms from there on"
    limit = f"linear: at most {STEEPER:g}x as much for each, + {growth.noise * 1000:.0f} ms for how much starts differ"
    return [
        Measurement(
            what, f"{ratio:.1f}x ({fastest[usual]:.1f} s against {needed:.1f} s)", f"<= {INFERENCE_GOAL:g}x", ratio <= INFERENCE_GOAL
        ),
        Measurement(f"the same with {many / usual:.0f}x the queries", f"{grown}: {slopes}{shared}", limit, growth.linear),
    ]


def write_queries(training: TrainingSet, count: int, folder: Path, skip: int = 0) -> Path:
    """A test folder of `count` queries, each with the first caption of one of its candidates, after so many others that are skipped.

    The training motions are gone through in order, and once more from the beginning where they are too few: no motion is linked twice,
    for that would spare work; then it is copied.
    """
    size, total = min(CANDIDATES, len(training.ids)), len(training.ids)
    linked = set()
    for query in range(count):
        own = folder / str(query + 1)
        own.mkdir(parents=True)
        first = (skip + query) * size
        rows = [row % total for row in range(first, first + size)]
        told = rows[first // total % size]  # another one each time round, so that captions are new
        (own / "text.txt").write_text(training.captions[told][0] + "\n", encoding="utf-8")
        for number, row in enumerate(rows, start=1):
            place = shutil.copyfile if row in linked else files.link_or_copy
            place(training.paths[row], own / f"motion_{number}.npy")
            linked.add(row)
    return folder


def _imports_and_reading(folder: Path, scratch: Path) -> float:
    """Seconds of a new process that imports the libraries and reads a test folder's motions, the fastest of some after they are cached."""
    listed = scratch / "motions.txt"
    listed.write_text("\n".join(str(path) for path in sorted(folder.glob("*/motion_*.npy"))), encoding="utf-8")
    harness.run_timed(harness.code_command(READ_ALL, str(listed)))
    return min(harness.run_timed(harness.code_command(READ_ALL, str(listed))).seconds for _ in range(REPEATS))


def _ranking(config: BenchConfig, scratch: Path, folder: Path) -> float:
    """Seconds of ranking a test folder that is met for the first time."""
    places = [flag for flag in time_to_score.data_flags(config, scratch) if not flag.startswith("--run_name")]
    where = (f"--test_dir={folder}", f"--out={folder}.csv", f"--submissions_dir={scratch / 'submissions'}")
    return harness.run_timed(harness.script_command("ensemble", "--runs", "timed", *places, *where)).seconds
