"""The package's messages are shown as plain lines on standard output."""

import logging
from collections.abc import Iterator

import pytest

from motret.utils import logs


@pytest.fixture(autouse=True)
def logger() -> Iterator[logging.Logger]:
    """The package's logger, put back as it was."""
    package = logging.getLogger("motret")
    before = (list(package.handlers), package.level, package.propagate)
    package.handlers.clear()
    yield package
    package.handlers[:], package.level, package.propagate = before


def test_a_message_is_one_plain_line_however_often_logs_are_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.show_logs()
    logs.show_logs()
    logging.getLogger("motret.training.fit").info("epoch %d", 3)
    logging.getLogger("motret.training.fit").debug("not shown")
    logging.getLogger("other").info("not shown")
    captured = capsys.readouterr()
    assert captured.out == "epoch 3\n" and captured.err == ""
