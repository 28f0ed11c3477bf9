"""Claims on pieces of work: one process at a time, whatever happens to it."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from motret.utils import claims
from motret.utils.process_tokens import process_token

SOLUTION = Path(claims.__file__).parents[2]
ELSEWHERE = {"token": "00000000-7-5", "host": "node7", "pid": 7, "since": "2026-01-01 00:00:00"}


def never() -> None:
    raise AssertionError("nobody has taken it over")


def foreign_claim(folder: Path, seconds: float) -> Path:
    """A claim of another host, last touched so many seconds ago."""
    path = folder / "work.json"
    path.write_text(json.dumps(ELSEWHERE))
    touched = time.time() - seconds
    os.utime(path, (touched, touched))
    return path


def test_only_one_has_a_claim_and_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / "claims" / "work.json"
    with claims.claimed(path, never) as first, claims.claimed(path, never) as second:
        assert first and not second
        assert f"process {os.getpid()}" in claims.describe_owner(path)
    assert not list(path.parent.iterdir())
    with claims.claimed(path, never) as again:
        assert again


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    """Six processes for three stale claims, at the same time: each gets one new owner."""
    code = (
        "import sys; from pathlib import Path; from motret.utils import claims\n"
        "import contextlib\n"
        "with contextlib.ExitStack() as stack:\n"
        "    got = [stack.enter_context(claims.claimed(Path(p), print)) for p in sys.argv[1:]]\n"
        "    print(*map(int, got), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    paths = [str(tmp_path / f"{number}.json") for number in range(3)]
    for path in paths:
        foreign_claim(tmp_path, claims.STALE_SECONDS + 60).rename(path)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SOLUTION)},
        )
        for _ in range(6)
    ]
    lines = [each.stdout.readline() for each in workers if each.stdout]
    got = [[int(word) for word in line.split()] for line in lines]
    for each in workers:
        each.communicate("")
    assert [sum(column) for column in zip(*got, strict=True)] == [1, 1, 1]


def test_a_claim_of_a_killed_process_of_this_host_is_taken_over_at_once(tmp_path: Path) -> None:
    path = tmp_path / "work.json"
    host, pid, start = process_token().split("-")
    path.write_text(json.dumps(ELSEWHERE | {"token": f"{host}-{pid}-{int(start) + 1}"}))
    with claims.claimed(path, never) as is_claimed:
        assert is_claimed


def test_a_claim_of_another_host_is_taken_over_after_five_minutes_of_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = foreign_claim(tmp_path, claims.STALE_SECONDS - 30)
    with claims.claimed(path, never) as is_claimed:
        assert not is_claimed
    assert json.loads(path.read_text()) == ELSEWHERE
    path = foreign_claim(tmp_path, claims.STALE_SECONDS + 30)
    with claims.claimed(path, never) as is_claimed:
        assert is_claimed
        assert json.loads(path.read_text())["token"] == process_token()
    assert "work: taken over from node7, process 7" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "[]", '{"token": '])
def test_a_claim_that_was_not_written_whole_is_judged_by_its_age(
    tmp_path: Path, content: str
) -> None:
    for seconds, expected in ((10, False), (claims.STALE_SECONDS + 60, True)):
        path = foreign_claim(tmp_path, seconds)
        path.write_text(content)
        os.utime(path, (time.time() - seconds,) * 2)
        with claims.claimed(path, never) as is_claimed:
            assert is_claimed == expected


def test_an_owner_keeps_its_claim_young_and_learns_that_it_has_lost_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.01)
    path, beat, lost = tmp_path / "work.json", threading.Event(), threading.Event()
    touch = os.utime

    def utime(*args: object) -> None:
        touch(*args)
        beat.set()

    monkeypatch.setattr(claims.os, "utime", utime)
    with claims.claimed(path, lost.set) as is_claimed:
        assert is_claimed and beat.wait(30) and not lost.is_set()
        path.write_text(json.dumps(ELSEWHERE))
        assert lost.wait(30)
    assert json.loads(path.read_text()) == ELSEWHERE  # the new owner's stays


def test_a_faster_process_keeps_what_it_has_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = foreign_claim(tmp_path, claims.STALE_SECONDS + 60)
    faster = ELSEWHERE | {"token": "11111111-8-6"}
    rename = Path.rename

    def renamed(self: Path, target: Path) -> Path:
        self.write_text(json.dumps(faster))  # just before
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)
    with claims.claimed(path, never) as is_claimed:
        assert not is_claimed
    assert json.loads(path.read_text()) == faster
    assert [each.name for each in tmp_path.iterdir()] == ["work.json"]


def test_blocks_of_one_path_run_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "TURN_SECONDS", 0.001)
    path, inside, most = tmp_path / "turn", [0], [0]

    def enter() -> None:
        with claims.in_turn(path):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            inside[0] -= 1

    threads = [threading.Thread(target=enter) for _ in range(5)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert most == [1]
