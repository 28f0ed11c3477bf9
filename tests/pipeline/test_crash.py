"""The whole way, broken at some of its operations on files: `tests/crash.py` tries them all."""

import os
import re
import subprocess
import sys
from pathlib import Path

CRASH = Path(__file__).parents[1] / "crash.py"


def test_wherever_the_way_is_broken_the_same_command_goes_on_to_the_same_end() -> None:
    done = subprocess.run(
        [sys.executable, str(CRASH), "--points", "20"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    totals = re.search(r"^20 faults at (\d+) points of 8 steps", done.stdout, re.M)
    assert totals is not None and int(totals[1]) > 1000
    assert "20 ended where an unbroken way does, 0 did not" in done.stdout
