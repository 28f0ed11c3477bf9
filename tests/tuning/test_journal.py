"""The journal of a search survives crashes, full disks and killed workers."""

import errno
import fcntl
import json
import logging
import os
import resource
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.trial import TrialState

from motret.errors import RunError, WriteError
from motret.tuning import journal
from motret.tuning.journal import Journal, repair_journal
from motret.utils import locks

SPACE = {"lr": optuna.distributions.FloatDistribution(0.5, 3)}
HALF = b'{"op_code":8,"worker_id":"a","user_attr":{"sco'
"""What a full disk leaves of a line."""


def open_study(path: Path) -> optuna.Study:
    storage = JournalStorage(Journal(path))
    return optuna.create_study(study_name="s", storage=storage, load_if_exists=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with one trial that is complete."""
    file = tmp_path / "journal.log"
    study = open_study(file)
    study.tell(study.ask(SPACE), 0.5)
    return file


def states(path: Path) -> list[TrialState]:
    return [trial.state for trial in open_study(path).trials]


def test_a_change_is_a_line_that_ends(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) > 3 and all(line.endswith(b"}\n") for line in lines)
    assert states(path) == [TrialState.COMPLETE]


def test_half_a_line_at_the_end_is_set_aside_before_the_next_change(path: Path) -> None:
    with path.open("ab") as file:
        file.write(HALF)
    with pytest.warns(UserWarning, match=r"set aside in journal\.log\.broken"):
        study = open_study(path)  # it adds a change
    study.tell(study.ask(SPACE), 0.7)
    assert path.with_name("journal.log.broken").read_bytes() == HALF + b"\n"
    assert states(path) == [TrialState.COMPLETE] * 2
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_a_change_that_was_added_to_half_a_line_is_saved(path: Path) -> None:
    before = path.read_bytes()
    with path.open("ab") as file:
        file.write(HALF)
        file.write(b'{"op_code":4,"worker_id":"b","study_id":0,"datetime_start":null}\n')
    with pytest.raises(ValueError):
        open_study(path).get_trials()
    with pytest.warns(UserWarning, match="set aside"):
        repair_journal(path)
    assert path.read_bytes().startswith(before) and b"sco" not in path.read_bytes()
    assert states(path)[0] == TrialState.COMPLETE and len(states(path)) == 2


def test_a_line_of_something_else_is_named(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"years of work\n")
    number = len(path.read_bytes().splitlines())
    with pytest.raises(RunError, match=f"journal.log: line {number} cannot be read .move it away"):
        repair_journal(path)


def test_nothing_is_repaired_where_all_is_whole(path: Path) -> None:
    before = path.read_bytes()
    repair_journal(path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_one_line_and_the_journal_goes_on(path: Path) -> None:
    study, before = open_study(path), path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(WriteError, match=r"journal\.log: would be larger than files may be"):
            study.ask(SPACE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    study.tell(study.ask(SPACE), 0.7)
    assert states(path) == [TrialState.COMPLETE] * 2


def test_the_lock_of_a_killed_worker_of_before_holds_nobody_up(path: Path) -> None:
    path.with_name("journal.log.lock").symlink_to(path)
    study = open_study(path)
    study.tell(study.ask(SPACE), 0.7)
    assert states(path) == [TrialState.COMPLETE] * 2


class CallOnMessage(logging.Handler):
    def __init__(self, call: Callable[[str], object]):
        super().__init__()
        self.call = call

    def emit(self, record: logging.LogRecord) -> None:
        self.call(record.getMessage())


@pytest.fixture
def on_message(request: pytest.FixtureRequest) -> Callable[[Callable[[str], object]], None]:
    """Calls a function with each message of the journal."""

    def add(call: Callable[[str], object]) -> None:
        handler = CallOnMessage(call)
        journal.logger.addHandler(handler)
        request.addfinalizer(lambda: journal.logger.removeHandler(handler))

    return add


def test_what_is_waited_for_is_said(
    path: Path, monkeypatch: pytest.MonkeyPatch, on_message: Callable
) -> None:
    monkeypatch.setattr(journal, "NOTE_SECONDS", 0)
    messages = []
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def let_go(message: str) -> None:
            messages.append(message)
            fcntl.flock(other, fcntl.LOCK_UN)

        on_message(let_go)
        open_study(path).ask(SPACE)
    assert messages == [f"{path}: waiting for another process, which is writing to it"]


@pytest.mark.parametrize("how", ["no module", "no locks on this disk"])
def test_without_locks_of_the_system_a_link_stands_for_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, on_message: Callable, how: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if how == "no module":
        monkeypatch.setattr(locks, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(journal, "NOTE_SECONDS", 0)
    link, messages = path.with_name("journal.log.lock"), []
    link.symlink_to(path)

    def let_go(message: str) -> None:
        messages.append(message)
        link.unlink()

    on_message(let_go)
    study = open_study(path)
    study.tell(study.ask(SPACE), 0.7)
    assert messages == [f"{path}: waiting up to 8 s for the process that made {link}"]
    assert states(path) == [TrialState.COMPLETE] * 2 and not link.is_symlink()
