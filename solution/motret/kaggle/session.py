"""A notebook's session: the code it works with, where files are written, scripts it runs."""

import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from motret.errors import RunError
from motret.utils import stopping
from motret.utils.files import format_duration

CACHES = {
    "HF_HOME": "huggingface",
    "TORCH_HOME": "torch",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "CUDA_CACHE_PATH": "cuda",
    "MPLCONFIGDIR": "matplotlib",
    "XDG_CACHE_HOME": "cache",
    "PIP_CACHE_DIR": "pip",
    "JOBLIB_TEMP_FOLDER": "joblib",
    "TMPDIR": "temporary",
}
"""Environment variable -> folder of the session's caches that it names."""
FOLDERS = {
    "work_dir": "work",
    "folds_dir": "folds",
    "out_dir": "runs",
    "submissions_dir": "submissions",
}
"""Flag of a script -> folder of the session that it names."""


@dataclass(frozen=True)
class Session:
    """A notebook at work with a copy of this repository.

    code: the repository; working: the folder that takes everything that is written; start: when the
    session began, by `time.perf_counter`.
    """

    code: Path
    working: Path
    start: float = field(default_factory=time.perf_counter)

    @property
    def cache_dir(self) -> Path:
        """Caches and temporary files; not needed after the session."""
        return self.working / "cache"

    def set_up(self) -> None:
        """Makes the libraries of all scripts write their caches into the working folder.

        Bytecode is not written: it would go beside the code.
        """
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        for name, folder in CACHES.items():
            path = self.cache_dir / folder
            path.mkdir(parents=True, exist_ok=True)
            os.environ[name] = str(path)

    def folder_flags(self, *names: str) -> list[str]:
        """The flags that name folders of the scripts; by default all that scripts write to."""
        return [f"--{name}={self.working / FOLDERS[name]}" for name in names or FOLDERS]

    def run_script(self, script: str, *args: object) -> None:
        """Runs a script of the repository and shows its lines as they come.

        RunError where it fails; the script itself says why.
        """
        command = [sys.executable, str(self.code / "solution" / script), *map(str, args)]
        _write(f"$ python solution/{script} {shlex.join(command[2:])}\n\n")
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        with stopping.running_child(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            errors="replace",
        ) as process:
            for line in process.stdout or ():
                _write(line)
            process.wait()
        if process.returncode:
            problem = f"ended with exit code {process.returncode}"
            raise RunError(f"solution/{script}", problem, "see its last lines above")

    def elapsed(self) -> str:
        """The time since the session began."""
        return format_duration(time.perf_counter() - self.start)


def _write(text: str) -> None:
    """Writes to the cell; what comes within a moment is one output of the notebook."""
    sys.stdout.write(text)
