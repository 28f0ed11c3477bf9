"""What holds while a script imports, before `config.cli.command` takes over."""

import os
import sys
from pathlib import Path
from types import TracebackType

from motret.utils import stopping
from motret.utils.system_errors import describe_system_error


def prepare_script(folder: Path) -> None:
    """Makes a signal end a script without a word, and a lack of memory one line.

    Does nothing where the process is none of the scripts in `folder`, such as a notebook.
    """
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if file is None or Path(file).resolve().parent != folder:
        return
    stopping.exit_at_once_on_signals()
    sys.excepthook = _show_error


def _show_error(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Shows an error that nothing caught: in one line where the system refused something."""
    described = None if "--debug" in sys.argv else describe_system_error(error)
    if described is None:
        sys.__excepthook__(kind, error, traceback)
        return
    sys.stderr.write(f"error: {described}\n")
    sys.stderr.flush()
    os._exit(1)
