"""Breaks the whole way from data to report, at one write, rename, flush or read at a time.

    python tests/crash.py                    # 20 points
    python tests/crash.py --points 200
    python tests/crash.py --points all

A point is an operation on a file of one step, and what happens there: the system refuses it, the
process is killed before it, or a write gets no further than some bytes, of which the process is
told or dies. Some processes are killed from outside, at a random time. After each the same step
runs again, and must end where an unbroken one does. Exit code 1 where one does not.

A refusal must end in one line, or in nothing where the step can do without the file.
"""

import argparse
import contextlib
import csv
import errno
import importlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "solution"))

import ensemble
import make_folds
import prepare
import report
import rerank
import sample
import train
import tune
import validate

SIZES = {"motions": 16, "queries": 2, "candidates": 10}
SMALL = {
    "width": 16,
    "heads": 2,
    "layers": 1,
    "cross_person_layers": 0,
    "proj_dim": 8,
    "max_frames": 40,
    "text_hidden": 16,
    "batch_size": 6,
    "epochs": 2,
    "amp": "off",
    "text_weights": "none",
    "text_width": 64,
    "text_vocabulary": 1024,
    "text_layers": 1,
    "folds": 2,
}
WRITTEN = ("work", "folds", "runs", "submissions")
FULL_AFTER = 20
"""Bytes that a write still gets on a full disk."""
KINDS = {
    "read": ("refused", "killed"),
    "write": ("refused", "killed", "full", "torn"),
    "rename": ("refused", "killed"),
    "flush": ("refused", "killed"),
    "remove": ("killed",),
    "folder": ("refused", "killed"),
}
"""Operation -> what may happen at it."""
ERRNOS = {"read": errno.EIO, "write": errno.ENOSPC, "rename": errno.EIO, "flush": errno.EIO}
DATE = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")
TIMES = {"seconds", "time", "file", "started", "duration"}
"""Columns and keys that differ from run to run."""
TRIALS = {"trial", "trials"}
"""Keys of best.json that count trials: one that was broken off has its row, and is run again."""
BY_NAME = {"journal.log", "train_log.txt", "trials.csv", "history.png", "parallel.png"}
"""Files that tell of each attempt: they must be there."""


@dataclass(frozen=True)
class Step:
    """A script call of the whole way."""

    name: str
    main: Callable[[Sequence[str]], int]
    args: tuple[str, ...]


@dataclass(frozen=True)
class Fault:
    """What happens at an operation of a step.

    number: of the operation, from 0; kind: refused, killed, full or torn; or outside, a kill after
    `number` milliseconds.
    """

    step: int
    number: int
    kind: str
    operation: str
    path: str

    def __str__(self) -> str:
        return f"{self.operation} {self.path} ({self.kind})"


@dataclass(frozen=True)
class Ended:
    """A step that has ended: its exit code, negative after a signal; what it printed; the
    operations it did, only of a step that ended by itself; its seconds."""

    code: int
    output: str
    operations: list[tuple[str, str]]
    seconds: float


def whole_way(root: Path) -> list[Step]:
    folders = {f"{name}_dir": root / name for name in ("data", "work", "folds")}
    data = [f"--{name}={path}" for name, path in folders.items()]
    jobs, cpu = "--jobs=1", "--device=cpu"
    runs = f"--out_dir={root / 'runs'}"
    model = [f"--{name}={value}" for name, value in SMALL.items()]
    trained = ["holistic", *data, *model, jobs, cpu, runs]
    submissions = f"--submissions_dir={root / 'submissions'}"
    members = ("--members", str(root / "runs" / "a" / "likelihood.npz"))
    file = str(root / "submissions" / "submission.csv")
    return [
        Step("prepare", prepare.main, (*data, jobs)),
        Step("make_folds", make_folds.main, (*data, jobs, "--folds=2")),
        Step("tune", tune.main, (*trained, "--trials=2")),
        Step("train", train.main, (*trained, "--run_name=a", "--resume=same")),
        Step("rerank", rerank.main, (*data, jobs, cpu, runs, "--runs=a", "--epochs=1", "--dim=8")),
        Step("ensemble", ensemble.main, (*data, jobs, cpu, runs, submissions, *members)),
        Step("validate", validate.main, ("submission", file, data[0])),
        Step("report", report.main, (*data, jobs, cpu, runs, submissions)),
    ]


# ---- a step in a process of its own, with a fault


class Injector:
    """Counts the operations of this process on files below `root`; one of them goes wrong."""

    def __init__(self, root: Path, fault: Fault | None):
        self.root, self.fault = f"{root}{os.sep}", fault
        self.operations: list[tuple[str, str]] = []

    def install(self) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        fsync = os.fsync

        def counted_fsync(descriptor: int) -> None:
            self.count("flush", Path(f"/proc/self/fd/{descriptor}").readlink())
            fsync(descriptor)

        os.fsync = counted_fsync
        sys.addaudithook(self.hear)

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            flags = args[2] if isinstance(args[2], int) else 0
            changes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC)
            self.count("write" if changes else "read", os.fspath(args[0]))
        elif event == "os.rename":
            self.count("rename", os.fspath(args[1]))
        elif event == "os.remove":
            self.count("remove", os.fspath(args[0]))
        elif event == "os.mkdir":
            self.count("folder", os.fspath(args[0]))

    def count(self, operation: str, file: str | bytes | Path) -> None:
        path = os.path.abspath(os.fsdecode(file))  # noqa: PTH100 # follows no links
        if not path.startswith(self.root):
            return
        number = len(self.operations)
        self.operations.append((operation, path.removeprefix(self.root)))
        fault = self.fault
        if fault is None or fault.kind == "outside" or number != fault.number:
            return
        if fault.kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault.kind == "refused":
            number = ERRNOS.get(operation, errno.ENOSPC)
            raise OSError(number, os.strerror(number), path)
        else:
            if fault.kind == "torn":
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            size = Path(path).stat().st_size if Path(path).exists() else 0
            limit = size + FULL_AFTER
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def run_step(step: Step, root: Path, fault: Fault | None = None) -> Ended:
    """Runs a step in a copy of this process, in which everything is imported already."""
    start = time.monotonic()
    read_end, write_end = os.pipe()
    notes = root.with_name(f"{root.name}-operations.json")
    notes.unlink(missing_ok=True)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _be_step(step, Injector(root, fault), write_end, notes)
    os.close(write_end)
    if fault is not None and fault.kind == "outside":
        time.sleep(fault.number / 1000)
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(read_end, "rb") as pipe:
        output = pipe.read().decode(errors="replace")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    operations, modules = json.loads(notes.read_text()) if notes.is_file() else ([], [])
    for name in modules:  # so that later steps, copies of this process, have them already
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    return Ended(code, output, [tuple(each) for each in operations], time.monotonic() - start)


def _be_step(step: Step, injector: Injector, output: int, notes: Path) -> None:
    """Does the step and ends this process."""
    code = 70
    try:
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
        injector.install()
        code = step.main(step.args)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if injector.fault is None:
            notes.write_text(json.dumps([injector.operations, sorted(sys.modules)]))
        sys.stdout.flush()
        os._exit(code)


# ---- what a way leaves


def contents(root: Path) -> dict[str, Any]:
    """File below the written folders -> its content, without times; for half-written files and
    locks an entry of their own."""
    found = {}
    for folder in WRITTEN:
        for path in sorted((root / folder).rglob("*")):
            # what a crash left of a change in the journal is kept for people to see; the scores
            # of a trial that runs again are in a file of another number
            if path.suffix == ".broken" or path.parent.name == "trials":
                continue
            if path.is_file() or path.is_symlink():
                name = DATE.sub("DATE", str(path.relative_to(root)))
                found[name] = _content(path)
    return found


def _content(path: Path) -> Any:
    import numpy as np
    import torch

    if path.name.startswith(".") or path.suffix == ".lock":
        return "left over"
    if path.name in BY_NAME:
        return None
    if path.suffix == ".pt":
        return _without_times(torch.load(path, weights_only=True))
    if path.suffix in (".npy", ".npz"):
        arrays = np.load(path, allow_pickle=False)
        named = {"": arrays} if isinstance(arrays, np.ndarray) else dict(arrays)
        return {name: (str(a.dtype), a.shape, a.tobytes()) for name, a in named.items()}
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [_without_times(row) for row in csv.DictReader(file)]
    if path.suffix == ".json":
        return _without_times(json.loads(path.read_text()))
    return path.read_bytes()


def _without_times(value: Any) -> Any:
    import torch

    if isinstance(value, dict):
        return {
            name: _without_times(each) for name, each in value.items() if name not in TIMES | TRIALS
        }
    if isinstance(value, list | tuple):
        return [_without_times(each) for each in value]
    if isinstance(value, torch.Tensor):
        stream = io.BytesIO()
        stream.write(str(value.dtype).encode())
        return stream.getvalue() + value.numpy().tobytes()
    return value


def differences(expected: dict[str, Any], found: dict[str, Any], varies: set[str]) -> list[str]:
    """What differs, one line each. varies: files that differ between unbroken ways too."""
    lines = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    lines += [f"{name} is left over" for name in sorted(found.keys() - expected.keys())]
    lines += [
        f"{name} differs"
        for name in sorted(expected.keys() & found.keys() - varies)
        if repr(expected[name]) != repr(found[name])
    ]
    return lines


# ---- the whole way, unbroken and broken


class Way:
    """The whole way on small data: the state before and after each step, and its operations."""

    def __init__(self, folder: Path):
        self.root = folder / "way"
        self.states = folder / "states"
        self.steps = whole_way(self.root)
        sizes = [word for name, value in SIZES.items() for word in (f"--{name}", str(value))]
        self.operations: list[list[tuple[str, str]]] = []
        self.seconds: list[float] = []
        self.expected: list[dict[str, Any]] = []
        self.varies: set[str] = set()
        made = Step("sample", sample.main, ("--out", str(self.root / "data"), *sizes))
        _require(run_step(made, self.root), made)

    def walk(self, times: int = 2) -> None:
        """Goes the whole way, unbroken, and keeps each state of the first time; what differs the
        second time varies."""
        for attempt in range(times):
            for folder in WRITTEN:
                shutil.rmtree(self.root / folder, ignore_errors=True)
            for number, step in enumerate(self.steps):
                if attempt == 0:
                    self._save(number)
                ended = run_step(step, self.root)
                _require(ended, step)
                found = contents(self.root)
                if attempt == 0:
                    self.operations.append(ended.operations)
                    self.seconds.append(ended.seconds)
                    self.expected.append(found)
                else:
                    before = self.expected[number]
                    self.varies |= {
                        name for name in found if repr(found[name]) != repr(before.get(name))
                    }

    def points(self) -> Iterator[Fault]:
        """Everything that may go wrong, in order."""
        for step, operations in enumerate(self.operations):
            for number, (operation, path) in enumerate(operations):
                for kind in KINDS[operation]:
                    yield Fault(step, number, kind, operation, path)

    def break_at(self, fault: Fault) -> list[str]:
        """Lets a step break, runs it again, and says what is wrong afterwards."""
        self.restore(fault.step)
        step = self.steps[fault.step]
        broken = run_step(step, self.root, fault)
        problems = []
        if broken.code >= 0:  # not killed
            errors = [line for line in broken.output.splitlines() if line.startswith("error: ")]
            if "Traceback" in broken.output or broken.code not in (0, 1):
                print(broken.output, file=sys.stderr)
                problems.append(f"exit code {broken.code} with {_last_line(broken.output)}")
            elif broken.code == 1 and len(errors) != 1:
                problems.append(f"{len(errors)} lines with an error: {_last_line(broken.output)}")
        again = run_step(step, self.root)
        if again.code or "Traceback" in again.output:
            problems.append(f"the same step again: {again.code}, {_last_line(again.output)}")
        found = contents(self.root)
        return problems + differences(self.expected[fault.step], found, self.varies)

    def _save(self, number: int) -> None:
        for folder in WRITTEN:
            if (self.root / folder).is_dir():
                shutil.copytree(self.root / folder, self.states / str(number) / folder)

    def restore(self, number: int) -> None:
        for folder in WRITTEN:
            shutil.rmtree(self.root / folder, ignore_errors=True)
            if (self.states / str(number) / folder).is_dir():
                shutil.copytree(self.states / str(number) / folder, self.root / folder)


def _require(ended: Ended, step: Step) -> None:
    if ended.code or "Traceback" in ended.output:
        sys.exit(f"the unbroken way ends at {step.name}: {ended.output}")


def _last_line(output: str) -> str:
    return next((line for line in reversed(output.splitlines()) if line.strip()), "nothing printed")


def choose_points(way: Way, count: int | None, seed: int) -> list[Fault]:
    """Points of every step, operation and kind, as evenly as the count allows; None: all. A tenth
    are kills from outside."""
    rng = random.Random(seed)
    points = list(way.points())
    if count is not None:
        rng.shuffle(points)
        turns: Counter[tuple[int, str, str]] = Counter()
        for index, fault in enumerate(points):
            key = (fault.step, fault.operation, fault.kind)
            turns[key] += 1
            points[index] = (turns[key], index, fault)
        points = [fault for *_, fault in sorted(points, key=lambda entry: entry[:2])]
        points = points[: count - count // 10]
    n_outside = (len(points) if count is None else count) // 10
    outside = []
    for index in range(n_outside):
        step = index % len(way.steps)
        milliseconds = int(1000 * rng.random() * way.seconds[step])
        outside.append(Fault(step, milliseconds, "outside", "kill", way.steps[step].name))
    return [*points, *outside]


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", default="20", help="how many points, or all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="name every point")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    for name in ("MPLBACKEND", "OMP_NUM_THREADS"):
        os.environ[name] = {"MPLBACKEND": "agg"}.get(name, "1")
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="motret-crash-") as folder:
        way = Way(Path(folder).resolve())
        way.walk()
        available = sum(1 for _ in way.points())
        count = None if args.points == "all" else int(args.points)
        faults = choose_points(way, count, args.seed)
        bad = 0
        for fault in faults:
            problems = way.break_at(fault)
            bad += bool(problems)
            if problems or args.verbose:
                name = way.steps[fault.step].name
                print(f"{name}: {fault}: {'; '.join(problems[:5]) or 'ok'}", flush=True)
    kinds = Counter(fault.kind for fault in faults)
    told = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    print(
        f"{len(faults)} faults at {available} points of {len(way.steps)} steps ({told}): "
        f"{len(faults) - bad} ended where an unbroken way does, {bad} did not; "
        f"{time.monotonic() - start:.0f} s"
    )
    print(f"compared: {len(way.expected[-1])} files, {len(way.varies)} of them by name alone")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
