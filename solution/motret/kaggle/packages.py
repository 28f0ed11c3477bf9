"""Packages that Kaggle's image lacks: downloaded as wheels, and installed in a notebook.

Nothing here needs them. pip does both; torch and all else that is installed stays as it is.
"""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from motret.errors import ConfigError
from motret.kaggle.inputs import PACKAGE_FIX
from motret.kaggle.session import Session
from motret.utils import files, network

logger = logging.getLogger(__name__)

LACKING = ("open-clip-torch", "tyro", "optuna")
"""Packages that Kaggle's image lacks, or has only at times."""
ALWAYS_THERE = re.compile(r"torch|torchvision|torchaudio|triton|numpy|nvidia-.*|setuptools|pip")
"""Packages of every image with a GPU; a second copy of them would be large or harmful."""
PACKAGE_INDEX = "https://pypi.org/simple/"
PIP_FLAGS = ("--quiet", "--no-color", "--disable-pip-version-check", "--retries=1")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


def needed_packages(names: Sequence[str]) -> dict[str, str]:
    """Name -> version of these packages and all they need, as they are installed here.

    What an extra or another system would need is left out.
    """
    versions: dict[str, str] = {}
    queue = list(names)
    while queue:
        name = re.sub(r"[-_.]+", "-", queue.pop()).lower()
        if name in versions or ALWAYS_THERE.fullmatch(name):
            continue
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another system or version of Python
        versions[name] = package.version
        for line in package.requires or ():
            requirement, _, marker = line.partition(";")
            if "extra ==" not in marker and (match := NAME.match(requirement)):
                queue.append(match.group())
    return dict(sorted(versions.items()))


def pip_error(output: str) -> str:
    """The error that pip ends with."""
    errors = [line for line in output.splitlines() if line.startswith("ERROR: ")]
    return errors[-1].removeprefix("ERROR: ") if errors else "pip failed"


def download_wheels(folder: Path, python_version: str, extra: Sequence[str] = ()) -> list[str]:
    """Downloads the wheels for a version of Python on Linux; returns their file names.

    extra: further packages. None where the package index cannot be reached, with a message.
    """
    versions = needed_packages((*LACKING, *extra))
    pinned = [f"{name}=={version}" for name, version in versions.items()]
    command = [sys.executable, "-m", "pip", "download", *PIP_FLAGS]
    command += ["--no-deps", "--only-binary=:all:", f"--python-version={python_version}"]
    command += [f"--platform={platform}" for platform in PLATFORMS]
    folder.mkdir(parents=True)
    result = subprocess.run(
        [*command, f"--dest={folder}", *pinned], capture_output=True, text=True, check=False
    )
    if result.returncode:
        logger.info(
            f"no wheels: pip could not download them ({pip_error(result.stderr)}); notebooks "
            "without internet need them: pack again where the package index can be reached"
        )
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        return []
    return sorted(path.name for path in folder.iterdir())


# ---- in a notebook


def required_packages(requirements: Path) -> dict[str, str]:
    """Name -> line of each package in a requirements file."""
    lines = (line.split("#")[0].strip() for line in requirements.read_text("utf-8").splitlines())
    return {line.partition("==")[0].strip(): line for line in lines if line}


def installed_version(name: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def install_missing(
    session: Session, wheels: Sequence[Path], extra: Sequence[str] = ()
) -> list[str]:
    """Installs the packages of requirements.txt that are not here; returns their names.

    Packages that are here stay as they are, torch above all. The new ones go to a folder of the
    session. They come from folders of wheels where there are any, otherwise from the package index.
    extra: further packages. ConfigError where something cannot be installed.
    """
    required = required_packages(session.code / "requirements.txt")
    required |= {name.partition("==")[0]: name for name in extra}
    versions = {name: installed_version(name) for name in required}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        constraints = session.cache_dir / "constraints.txt"
        present = [f"{name}=={version}" for name, version in versions.items() if version]
        files.write_text(constraints, "\n".join(present) + "\n")
        _install(session, missing, required, wheels, constraints)
    return missing


def _install(
    session: Session,
    names: Sequence[str],
    lines: Mapping[str, str],
    wheels: Sequence[Path],
    constraints: Path,
) -> None:
    """Installs packages with pip and adds their folder to the module path."""
    sources = [f"--find-links={folder}" for folder in wheels]
    if not network.responds(os.environ.get("PIP_INDEX_URL", PACKAGE_INDEX)):
        sources.append("--no-index")
        if not wheels:
            problem = "not installed, the internet is off, and no wheels are attached"
            fix = f"{PACKAGE_FIX}, or turn the internet on"
            raise ConfigError(", ".join(names), problem, fix)
    # pip alone would remove from the image what is too old for a new package. So it is only asked
    # what it would install; that is put into a folder that comes before the image's own.
    report = session.cache_dir / "pip_report.json"
    # wheels were packed as a set that fits together; a version is asked of the index alone
    requested = list(names) if wheels else [lines[name] for name in names]
    plan = ["--dry-run", f"--report={report}", f"--constraint={constraints}"]
    _run_pip(names, [*sources, *plan, *requested])
    needed = [item["metadata"] for item in files.read_json(report)["install"]]
    prefix = session.working / "packages"
    flags = [f"--prefix={prefix}", "--no-deps", "--ignore-installed", "--no-warn-script-location"]
    _run_pip(names, [*sources, *flags, *(f"{item['name']}=={item['version']}" for item in needed)])
    folders = [str(path) for path in sorted(prefix.rglob("*-packages"))]
    sys.path.extend(folder for folder in folders if folder not in sys.path)
    paths = [*folders, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


def _run_pip(names: Sequence[str], arguments: Sequence[str]) -> None:
    """Calls `pip install`. ConfigError where it fails; names: of what is installed."""
    command = [sys.executable, "-m", "pip", "install", *PIP_FLAGS, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        problem = f"cannot be installed: {pip_error(result.stderr)}"
        fix = f"{PACKAGE_FIX} for this Python, {sys.version_info[0]}.{sys.version_info[1]}"
        raise ConfigError(", ".join(names), problem, fix)
