"""What a run was made with: the command, the commit, versions of libraries, the machine."""

import platform
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from motret.config import base

LIBRARIES = ("torch", "open-clip-torch", "transformers", "numpy")


def describe_environment() -> dict[str, Any]:
    """Command, time, commit, versions and machine, as args.json records them."""
    has_gpu = torch.cuda.is_available()
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        "git": git_commit(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES},
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "gpu": torch.cuda.get_device_name() if has_gpu else None,
        },
    }


def git_commit() -> str | None:
    """The commit of the code, marked where files differ from it; None outside a git checkout."""
    command = ["git", "-C", str(base.ROOT), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        result = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
