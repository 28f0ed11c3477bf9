"""Text-to-motion retrieval. Importing it checks that all packages it needs are installed."""

import sys
from importlib.util import find_spec
from pathlib import Path

_IMPORTED_AS = {"open-clip-torch": "open_clip", "scikit-learn": "sklearn"}
_REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"


def _missing_packages() -> list[str]:
    lines = (
        _REQUIREMENTS.read_text(encoding="utf-8").splitlines() if _REQUIREMENTS.is_file() else []
    )
    names = [
        line.split("==")[0].strip() for line in lines if line.strip() and not line.startswith("#")
    ]
    return [name for name in names if find_spec(_IMPORTED_AS.get(name, name)) is None]


if _missing := _missing_packages():
    sys.exit(
        f"error: {sys.executable}: has no {', '.join(_missing)} "
        f"({sys.executable} -m pip install -r {_REQUIREMENTS}; "
        "or `bash run_all.sh`, which makes .venv/, and then `source .venv/bin/activate`)"
    )
