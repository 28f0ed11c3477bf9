"""Commands as processes of their own: their lines, errors and memory."""

from pathlib import Path

import pytest

from motret.benchmark import subprocesses
from motret.benchmark.subprocesses import SubprocessError


def test_a_command_is_timed_with_its_lines():
    done = subprocesses.run_timed(subprocesses.code_command("print('one'); print('two')"))
    assert [line for _, line in done.lines] == ["one", "two"]
    assert 0 < done.lines[0][0] <= done.lines[1][0] <= done.seconds


def test_a_command_that_fails_raises_an_error_with_its_last_line():
    with pytest.raises(SubprocessError, match="broken for a reason"):
        subprocesses.run_timed(subprocesses.code_command("raise SystemExit('broken for a reason')"))


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_the_memory_of_a_command_includes_its_child_processes():
    allocate = (
        "import sys, time; block = bytearray(b'x') * 60_000_000; print('done'); time.sleep(0.3)"
    )
    in_child = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {allocate!r}], check=True)"
    )
    for command in (allocate, in_child):
        memory, output = subprocesses.run_watched(subprocesses.code_command(command))
        assert 60e6 < memory.private < 200e6
        assert output == "done\n"
