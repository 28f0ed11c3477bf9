"""Text-to-motion retrieval. Importing it checks that the packages it needs are there.

Imported by one of the scripts, it also sees to it that a signal or a lack of memory during the
imports that follow ends the script in a line at most.
"""

import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 # said in one line, where an import would fail oddly
    sys.exit(
        f"error: {sys.executable}: is Python {sys.version.split()[0]}, 3.11 or newer is needed "
        "(install one, or set PYTHON=/path/to/python for `bash run_all.sh`)"
    )

from motret.utils import script_start
from motret.utils.packages import environment_problem

script_start.prepare_script(Path(__file__).resolve().parents[1])

_PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
if _PYPROJECT.is_file() and (_problem := environment_problem(_PYPROJECT)):
    sys.exit(f"error: {_problem}")
