"""Preparation and inference, each compared with its lower bound: reading the files, importing."""

import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from motret.benchmark import subprocesses, time_to_score
from motret.benchmark.harness import Measurement
from motret.config.scripts import BenchConfig
from motret.data import dataset
from motret.formats.challenge import TrainingSet
from motret.utils import files

IMPORT_AND_READ = (
    "import sys, numpy, torch, transformers, open_clip; "
    "[numpy.load(path) for path in open(sys.argv[1]).read().splitlines()]"
)
CANDIDATES = 32
QUERIES, QUICK_QUERIES = (3, 30, 300), (1, 2, 3)
"""Few, as many as the competition has, and many."""
REPEATS = 3
MAX_SLOPE_RATIO = 1.3
"""Growth is linear where each of many queries takes at most this many times as long as each of few.
"""
PREPARATION_GOAL, INFERENCE_GOAL = 6.0, 2.0


def measure_preparation(config: BenchConfig, scratch: Path) -> list[Measurement]:
    """Checking, hashing and packing the training motions, compared with `np.load` of their files.

    Both times are medians over some repeats.
    """
    paths = dataset.read_training(config.data.data_dir).paths
    n_bytes = sum(path.stat().st_size for path in paths)
    first_read, repeats = _read_seconds(paths), 1 if config.quick else REPEATS
    seconds = [(_read_seconds(paths), _pack_seconds(config, scratch)) for _ in range(repeats)]
    reading, packing = (statistics.median(times) for times in zip(*seconds, strict=True))
    ratio = packing / reading
    rates = f"{n_bytes / packing / 1e6:.0f} MB/s, np.load {n_bytes / reading / 1e6:.0f} MB/s"
    cached = (
        f"{n_bytes / 1e9:.2f} GB, in the page cache as far as it fits: "
        f"first read at {n_bytes / first_read / 1e6:.0f} MB/s"
    )
    return [
        Measurement(
            f"preparing {len(paths)} motions, compared with np.load alone",
            f"{ratio:.1f}x ({rates}; {cached})",
            f"<= {PREPARATION_GOAL:g}x",
            ratio <= PREPARATION_GOAL,
        )
    ]


def _pack_seconds(config: BenchConfig, scratch: Path) -> float:
    """Seconds to prepare the training motions in an empty work folder."""
    start = time.perf_counter()
    dataset.load_training(replace(config.data, work_dir=scratch / "work"), config.machine.jobs)
    seconds = time.perf_counter() - start
    shutil.rmtree(scratch / "work")
    return seconds


def _read_seconds(paths: Sequence[Path]) -> float:
    """Seconds to read the motions with `np.load`."""
    start = time.perf_counter()
    for path in paths:
        np.load(path, allow_pickle=False)
    return time.perf_counter() - start


@dataclass(frozen=True)
class Growth:
    """Seconds that each further query takes.

    up_to_usual: from few queries to the usual number; beyond: from there to many; noise: how far
    `up_to_usual` may be off.
    """

    up_to_usual: float
    beyond: float
    noise: float

    @classmethod
    def of(cls, seconds: Mapping[int, Sequence[float]]) -> "Growth":
        """From the seconds of repeated rankings of three numbers of queries; the fastest count.

        The start of a process varies. The fastest of a few repeats is about as far from the best
        case as the second fastest is from it, which is not small over the few queries between the
        first two numbers: that is the noise.
        """
        few, usual, many = sorted(seconds)
        ordered = {count: sorted(times) for count, times in seconds.items()}
        fastest = {count: times[0] for count, times in ordered.items()}
        repeated = [ordered[count] for count in (few, usual) if len(ordered[count]) > 1]
        gap = sum(times[1] - times[0] for times in repeated)
        return cls(
            up_to_usual=(fastest[usual] - fastest[few]) / (usual - few),
            beyond=(fastest[many] - fastest[usual]) / (many - usual),
            noise=gap / (usual - few),
        )

    @property
    def linear(self) -> bool:
        """Whether each of many queries takes hardly longer than each of few."""
        return self.beyond <= MAX_SLOPE_RATIO * self.up_to_usual + self.noise


def measure_inference(config: BenchConfig, scratch: Path) -> list[Measurement]:
    """A test folder to submission.csv by one model, compared with importing and reading.

    Each ranking is a new process with empty caches.
    """
    # one epoch: how well a model is trained does not change its speed
    one_epoch = replace(config, fit=replace(config.fit, epochs=1))
    flags = [*time_to_score.data_flags(config, scratch), *time_to_score.changed_flags(one_epoch)]
    train = subprocesses.script_command("train", "holistic", *flags, "--fold=0")
    subprocesses.run_timed(train)
    training = dataset.read_training(config.data.data_dir, id_width=config.data.id_width)
    few, usual, many = QUICK_QUERIES if config.quick else QUERIES
    repeats = 1 if config.quick else REPEATS
    repeats_of = {few: repeats, usual: repeats, many: 1}  # noise matters little over many queries
    folders = {
        count: [
            write_queries(training, count, scratch / f"test{count}_{repeat}", repeat * count)
            for repeat in range(n_repeats)
        ]
        for count, n_repeats in repeats_of.items()
    }
    lower_bound = _import_and_read_seconds(folders[usual][0], scratch)
    seconds = {
        count: [_ranking_seconds(config, scratch, folder) for folder in test_dirs]
        for count, test_dirs in folders.items()
    }
    fastest = {count: min(times) for count, times in seconds.items()}
    ratio = fastest[usual] / lower_bound
    what = (
        f"test folder of {usual} x {CANDIDATES} to submission.csv, "
        "compared with imports and np.load"
    )
    value = f"{ratio:.1f}x ({fastest[usual]:.1f} s, lower bound {lower_bound:.1f} s)"
    return [
        Measurement(what, value, f"<= {INFERENCE_GOAL:g}x", ratio <= INFERENCE_GOAL),
        _growth_measurement(fastest, Growth.of(seconds), len(training.ids)),
    ]


def _growth_measurement(
    fastest: Mapping[int, float], growth: Growth, n_motions: int
) -> Measurement:
    """Whether time grows linearly. fastest: seconds by number of queries."""
    _, usual, many = sorted(fastest)
    times = ", ".join(f"{count} queries {seconds:.1f} s" for count, seconds in fastest.items())
    growth_text = (
        f"{growth.up_to_usual * 1000:.0f} ms for each further query up to {usual}, "
        f"{growth.beyond * 1000:.0f} ms beyond"
    )
    copied = max(0, many * min(CANDIDATES, n_motions) - n_motions)
    note = (
        f"; there are {n_motions:,} motions, so {copied:,} candidates of the {many} are copies"
        if copied
        else ""
    )
    goal = (
        f"linear: each at most {MAX_SLOPE_RATIO:g}x as long, "
        f"+ {growth.noise * 1000:.0f} ms of start-up noise"
    )
    what = f"the same with {many / usual:.0f}x the queries"
    return Measurement(what, f"{times}: {growth_text}{note}", goal, growth.linear)


def write_queries(training: TrainingSet, count: int, folder: Path, skip: int = 0) -> Path:
    """Writes a test folder of `count` queries, the first `skip` left out; returns it.

    Each has the first caption of one of its candidates. Candidates are the training motions in
    order, from the start again where they are too few: a motion that comes again is copied, since
    a second link would be the same file and save work.
    """
    size, total = min(CANDIDATES, len(training.ids)), len(training.ids)
    linked = set()
    for query in range(count):
        query_dir = folder / str(query + 1)
        query_dir.mkdir(parents=True)
        first = (skip + query) * size
        motions = [index % total for index in range(first, first + size)]
        described = motions[first // total % size]  # another each time round: new captions
        text = training.captions[described][0] + "\n"
        (query_dir / "text.txt").write_text(text, encoding="utf-8")
        for number, motion in enumerate(motions, start=1):
            put = shutil.copyfile if motion in linked else files.link_or_copy
            put(training.paths[motion], query_dir / f"motion_{number}.npy")
            linked.add(motion)
    return folder


def _import_and_read_seconds(folder: Path, scratch: Path) -> float:
    """Seconds of a new process that imports the libraries and reads a test folder's motions.

    The fastest of some repeats, after everything is cached.
    """
    listing = scratch / "motions.txt"
    paths = sorted(folder.glob("*/motion_*.npy"))
    listing.write_text("\n".join(str(path) for path in paths), encoding="utf-8")
    command = subprocesses.code_command(IMPORT_AND_READ, str(listing))
    subprocesses.run_timed(command)
    return min(subprocesses.run_timed(command).seconds for _ in range(REPEATS))


def _ranking_seconds(config: BenchConfig, scratch: Path, folder: Path) -> float:
    """Seconds of ranking a test folder for the first time."""
    flags = [
        *(
            flag
            for flag in time_to_score.data_flags(config, scratch)
            if not flag.startswith("--run_name")
        ),
        f"--test_dir={folder}",
        f"--out={folder}.csv",
        f"--submissions_dir={scratch / 'submissions'}",
    ]
    command = subprocesses.script_command("ensemble", "--runs", "timed", *flags)
    return subprocesses.run_timed(command).seconds
