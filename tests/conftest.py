"""Fixtures of all tests: a small generated challenge, the package's log on standard output."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from motret.config.scripts import SceneConfig
from motret.errors import DataError
from motret.synthetic.challenge import make_sample
from motret.utils.logs import show_logs

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # tests run on the CPU, on a machine with GPUs too

hypothesis.settings.register_profile(
    "same_every_time", derandomize=True, deadline=None, database=None
)
hypothesis.settings.load_profile("same_every_time")

SMALL_CHALLENGE = SceneConfig(motions=24, queries=3, candidates=12)


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated challenge of 24 motions, 3 queries x 12 candidates; no test may write to it."""
    folder = tmp_path_factory.mktemp("generated") / "data"
    make_sample(folder, SMALL_CHALLENGE)
    return folder


@pytest.fixture
def own_challenge(generated: Path, tmp_path: Path) -> Path:
    """A copy of the generated challenge that the test may spoil."""
    return Path(shutil.copytree(generated, tmp_path / "data"))


@pytest.fixture
def expect_error() -> Callable[..., DataError]:
    """A check that a call raises a DataError in one line: path, problem, and the fix in brackets.

    The line must hold the words that follow the path; the error is returned.
    """

    def check(call: Callable[[], object], path: object, *words: str) -> DataError:
        with pytest.raises(DataError) as caught:
            call()
        line = str(caught.value)
        assert "\n" not in line and line.startswith(f"{path}: ") and re.search(r" \(.+\)$", line)
        assert [word for word in words if word not in line] == []
        return caught.value

    return check


@pytest.fixture(autouse=True)
def shown_logs() -> None:
    """What the package logs is on standard output, as scripts show it."""
    show_logs()
