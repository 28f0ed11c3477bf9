"""What the package reports while it works: log records, shown by the scripts as plain lines.

Modules call `logging.getLogger(__name__).info(...)`. Scripts and worker processes call `show_logs`
once. Without it, as in a notebook that imports the package, nothing is shown unless the notebook
configures logging itself.
"""

import io
import logging
import sys
import warnings

from motret.errors import printable


class _CurrentStdout(logging.Handler):
    """Writes each message as a line to the standard output of the moment, which tests replace."""

    def emit(self, record: logging.LogRecord) -> None:
        print(printable(self.format(record), keep_layout=True), file=sys.stdout, flush=True)


def show_every_character() -> None:
    """Makes standard output and error write what their encoding lacks as `\\u2028`.

    A caption in any language must not stop a run whose terminal is not UTF-8.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show_logs() -> None:
    """Shows the package's messages of level INFO and above on standard output; idempotent."""
    logger = logging.getLogger("motret")
    if not any(isinstance(handler, _CurrentStdout) for handler in logger.handlers):
        logger.addHandler(_CurrentStdout())
        logger.setLevel(logging.INFO)
        logger.propagate = False


def show_errors_alone() -> None:
    """Shows errors only, where another process reports the same work."""
    show_logs()
    logging.getLogger("motret").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
