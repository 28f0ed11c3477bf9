"""What the package reports while it works: log records, shown by the scripts as plain lines.

Modules call `logging.getLogger(__name__).info(...)`. Scripts and worker processes call `show_logs`
once. Without it, as in a notebook that imports the package, nothing is shown unless the notebook
configures logging itself.
"""

import logging
import sys


class _CurrentStdout(logging.Handler):
    """Writes each message as a line to the standard output of the moment, which tests replace."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stdout, flush=True)


def show_logs() -> None:
    """Shows the package's messages of level INFO and above on standard output; idempotent."""
    logger = logging.getLogger("motret")
    if not any(isinstance(handler, _CurrentStdout) for handler in logger.handlers):
        logger.addHandler(_CurrentStdout())
        logger.setLevel(logging.INFO)
        logger.propagate = False
