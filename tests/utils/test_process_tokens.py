"""Which process a file or a record belongs to, and whether it has ended."""

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from motret.utils import process_tokens
from motret.utils.process_tokens import has_ended, process_token

NOWHERE = 2**22 + 1
"""A number that no process has."""


def test_this_process_has_not_ended() -> None:
    assert not has_ended(process_token()) and process_token() == process_token()


def test_the_same_number_given_to_another_process_is_another_process() -> None:
    host, pid, start = process_token().split("-")
    assert has_ended(f"{host}-{pid}-{int(start) + 1}")


def test_a_process_that_is_gone_has_ended() -> None:
    code = "from motret.utils.process_tokens import process_token; print(process_token())"
    env = {"PYTHONPATH": str(process_tokens.Path(process_tokens.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert has_ended(done.stdout.strip())
    host, _, start = process_token().split("-")
    assert has_ended(f"{host}-{NOWHERE}-{start}")


@pytest.mark.parametrize("token", ["", "1234", "a-b-c", f"00000000-{NOWHERE}-5"])
def test_of_another_host_and_of_nonsense_nobody_knows(token: str) -> None:
    assert not has_ended(token)


def test_containers_and_machines_of_one_name_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their process numbers mean nothing here: what they write is no leftover of a dead process."""
    host, _, start = process_token().split("-")
    for changed in ("pid:[1]", "pid:[2]"):
        monkeypatch.setattr(process_tokens.os, "readlink", lambda _path, name=changed: name)
        process_tokens._host.cache_clear()
        elsewhere = process_tokens._host()
        assert elsewhere != host
        assert has_ended(f"{elsewhere}-{NOWHERE}-{start}")
        assert not has_ended(f"{host}-{NOWHERE}-{start}")
    monkeypatch.undo()
    process_tokens._host.cache_clear()
    assert process_tokens._host() == host


def test_this_host_began_before_this_process() -> None:
    assert process_tokens.host_start() < datetime.now()
    if Path("/proc/uptime").is_file():
        assert process_tokens.host_start() > datetime(2000, 1, 1)
