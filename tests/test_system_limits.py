"""Full disks, read-only folders, permissions and file systems as they are, through every script.

Each script runs in a process of its own with mounts of its own, which vanish with it. Where the
system allows no mounts (containers without rights, macOS), these tests are skipped.
"""

import ctypes
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import crash
import validate

NEW_MOUNTS, NEW_USER = 0x20000, 0x10000000
READ_ONLY, REMOUNT, BIND, PRIVATE, RECURSIVE = 1, 32, 4096, 1 << 18, 16384
"""Flags of unshare(2) and mount(2)."""
BLOCK = 4096
C = ctypes.CDLL(None, use_errno=True)


def require(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)


def own_mounts() -> None:
    """Whatever this process mounts from now on, no other one sees."""
    user, group = os.getuid(), os.getgid()
    if C.unshare(NEW_MOUNTS) != 0:
        require(C.unshare(NEW_USER | NEW_MOUNTS), "unshare")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    require(C.mount(None, b"/", None, RECURSIVE | PRIVATE, None), "mount")


def mount_small_disk(folder: Path, room: int) -> Path:
    """Puts a disk with so many bytes of room in the place of a folder, with what is in it; returns
    a file that may be removed when the disk is to have room again."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as keep:
        shutil.copytree(folder, keep, dirs_exist_ok=True)
        options = b"size=64m,mode=755"
        require(C.mount(b"none", os.fsencode(folder), b"tmpfs", 0, options), "mount")
        shutil.copytree(keep, folder, dirs_exist_ok=True)
    filling = folder / ".filling"
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    with filling.open("wb") as file:
        file.write(bytes(free - room // BLOCK * BLOCK))
    return filling


def mount_read_only(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = os.fsencode(folder)
    require(C.mount(name, name, None, BIND | RECURSIVE, None), "mount")
    require(C.mount(None, name, None, REMOUNT | BIND | READ_ONLY, None), "mount")


def become_powerless() -> None:
    """Permissions hold for this process as for anybody, and be it root's."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    require(C.capset(header, (ctypes.c_uint32 * 6)()), "capset")


@dataclass(frozen=True)
class Outcome:
    """Exit code of a script and what it printed."""

    code: int
    output: str

    @property
    def error(self) -> str:
        """The one line of its error."""
        assert self.code == 1 and "Traceback" not in self.output, self.output
        (line,) = (each for each in self.output.splitlines() if each.startswith("error: "))
        return line


Call = tuple[Callable[[Sequence[str]], int], Sequence[str]]


def run_apart(work: Callable[[Callable[..., Outcome]], list[Outcome]]) -> list[Outcome]:
    """Runs `work` in a copy of this process; it gets a function that runs a script."""
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        try:
            content = [(each.code, each.output) for each in work(_run_script)]
        except BaseException:
            content = [(70, traceback.format_exc())]
        with os.fdopen(write_end, "w") as pipe:
            json.dump(content, pipe)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        content = json.loads(pipe.read())
    os.waitpid(pid, 0)
    return [Outcome(*each) for each in content]


def _run_script(main: Callable[[Sequence[str]], int], args: Sequence[str]) -> Outcome:
    """Runs a script in a copy of this process."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            for descriptor in (1, 2):
                os.dup2(write_end, descriptor)
            os.close(read_end), os.close(write_end)
            sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
            code = main(args)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        output = pipe.read().decode(errors="replace")
    return Outcome(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output)


def mounts_are_allowed() -> bool:
    def attempt(_run: object) -> list[Outcome]:
        own_mounts()
        require(C.mount(b"none", b"/tmp", b"tmpfs", 0, b"size=64k"), "mount")
        return [Outcome(0, "")]

    return hasattr(C, "unshare") and run_apart(attempt)[0].code == 0


needs_mounts = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not mounts_are_allowed(),
    reason="the system allows no mounts: full and read-only disks are not tried",
)


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[crash.Way]:
    """The whole way from data to report, with what each step finds."""
    before = {name: os.environ.get(name) for name in ("MPLBACKEND", "OMP_NUM_THREADS")}
    os.environ.update(MPLBACKEND="agg", OMP_NUM_THREADS="1")
    whole = crash.Way(tmp_path_factory.mktemp("way").resolve())
    whole.walk(times=1)
    yield whole
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def call_of(way: crash.Way, name: str) -> Call:
    """A step whose files are as it finds them."""
    number = [step.name for step in way.steps].index(name)
    way.restore(number)
    return way.steps[number].main, way.steps[number].args


FOLDERS = {
    "prepare": "work",
    "make_folds": "folds",
    "tune": "runs",
    "train": "runs",
    "rerank": "runs",
    "ensemble": "submissions",
    "report": "runs",
}
"""Step -> the folder that it writes to."""


@needs_mounts
@pytest.mark.parametrize("room", [0, 16_000])
@pytest.mark.parametrize("name", FOLDERS)
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    way: crash.Way, name: str, room: int
) -> None:
    call, folder = call_of(way, name), way.root / FOLDERS[name]

    def work(run: Callable[..., Outcome]) -> list[Outcome]:
        own_mounts()
        filling = mount_small_disk(folder, room)
        full = run(*call)
        filling.unlink()
        again = run(*call)
        left = [path.name for path in folder.rglob(".*")]
        return [full, again, Outcome(0, " ".join(left))]

    full, again, left = run_apart(work)
    if full.code or name not in ("make_folds", "ensemble"):  # small files fit
        assert f"error: {folder}" in full.error and "no space is left on its disk" in full.error
    assert again.code == 0 and "Traceback" not in again.output, again.output
    assert left.output == ""


@needs_mounts
@pytest.mark.parametrize("name", FOLDERS)
def test_a_read_only_folder_is_one_line(way: crash.Way, name: str) -> None:
    call, folder = call_of(way, name), way.root / FOLDERS[name]

    def work(run: Callable[..., Outcome]) -> list[Outcome]:
        own_mounts()
        mount_read_only(folder)
        return [run(*call)]

    (outcome,) = run_apart(work)
    if name in ("rerank", "report"):  # what they make of a read-only run goes to the work folder
        assert outcome.code == 0 and "cannot be written" in outcome.output, outcome.output
    else:
        assert f"error: {folder}" in outcome.error and "Read-only file system" in outcome.error


@needs_mounts
def test_queries_of_validation_in_a_read_only_data_folder_are_one_line(way: crash.Way) -> None:
    call_of(way, "ensemble")
    folders = [f"--{name}_dir={way.root / name}" for name in ("data", "work", "folds")]
    args = ("make_batches", *folders, "--queries=1", "--candidates=4", "--fold=0")

    def work(run: Callable[..., Outcome]) -> list[Outcome]:
        own_mounts()
        mount_read_only(way.root / "data")
        return [run(validate.main, args), run(validate.main, (*args, f"--out={way.root / 'val'}"))]

    refused, elsewhere = run_apart(work)
    assert f"error: {way.root / 'data' / 'val'}: cannot be written" in refused.error
    assert elsewhere.code == 0, elsewhere.output


@needs_mounts
@pytest.mark.parametrize("name", ["motions", "texts", "test", "test/1", "train.txt", "."])
def test_what_may_not_be_read_is_one_line(way: crash.Way, name: str) -> None:
    call, path = call_of(way, "prepare"), way.root / "data" / name

    def work(run: Callable[..., Outcome]) -> list[Outcome]:
        become_powerless()
        return [run(*call)]

    mode = path.stat().st_mode
    path.chmod(0)
    try:
        (outcome,) = run_apart(work)
    finally:
        path.chmod(mode)
    assert f"error: {path}" in outcome.error and "Permission denied" in outcome.error


@needs_mounts
def test_a_text_that_may_not_be_read_is_left_out_and_named(way: crash.Way) -> None:
    call = call_of(way, "prepare")
    path = min((way.root / "data" / "texts").iterdir())

    def work(run: Callable[..., Outcome]) -> list[Outcome]:
        become_powerless()
        return [run(*call)]

    path.chmod(0)
    try:
        (outcome,) = run_apart(work)
    finally:
        path.chmod(0o644)
    assert outcome.code == 0 and f"{path}: cannot be read: Permission denied" in outcome.output


def test_a_process_that_is_killed_is_told(way: crash.Way) -> None:
    """What the tests above rely on: exit codes are those of the script."""

    def die(_args: Sequence[str]) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    (outcome,) = run_apart(lambda run: [run(die, ())])
    assert outcome.code == -signal.SIGKILL
