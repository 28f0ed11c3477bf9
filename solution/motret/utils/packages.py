"""The packages that pyproject.toml asks for: are they there, new enough, and do they fit together?

The check reads what pip recorded about them: to import them takes seconds.
"""

import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterable
from importlib import metadata
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

IMPORTED_AS = {"open-clip-torch": "open_clip", "scikit-learn": "sklearn"}


def environment_problem(pyproject: Path) -> str:
    """What the environment lacks, in one line: interpreter, problem, and a command that helps.

    Empty where nothing is lacking. pyproject: the file with the oldest version of each package.
    """
    bounds = oldest_versions(pyproject)
    versions = {name: _installed_version(name) for name in bounds if _is_installed(name)}
    missing = [name for name in bounds if name not in versions]
    old = [name for name, version in versions.items() if _is_older(version, bounds[name])]
    if missing or old:
        problems = [f"has no {', '.join(missing)}"] if missing else []
        problems += [f"{name} {versions[name]} is older than {bounds[name]}" for name in old]
        requirements = {name: f"{name}>={bounds[name]}" for name in missing + old}
    elif needed := _torch_of_torchvision(versions):
        problems = [f"torchvision is made for torch {needed}, and torch is {versions['torch']}"]
        requirements = {"torchvision": "torchvision"}
    else:
        return ""
    if "torchvision" in requirements and "torch" not in requirements and versions.get("torch"):
        requirements["torch"] = f"torch=={_number(versions['torch'])}"  # what is there stays
    return (
        f"{sys.executable}: {'; '.join(problems)} ({_install_command(requirements.values())}; "
        "or `bash run_all.sh`, which makes .venv/, and then `source .venv/bin/activate`)"
    )


def oldest_versions(pyproject: Path) -> dict[str, str]:
    """Package -> the oldest version that the file allows, which is written `name>=version`."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return dict(line.split(">=") for line in project["dependencies"])


def argument_name(function: Callable[..., Any], name: str, former: str) -> str:
    """The name of an argument in the installed version of a library, which has renamed it."""
    return name if name in signature(function).parameters else former


def _is_installed(name: str) -> bool:
    return find_spec(IMPORTED_AS.get(name, name)) is not None


def _installed_version(name: str) -> str:
    """The version that pip recorded; empty where a package came without a record."""
    try:
        return metadata.version(name) or ""
    except metadata.PackageNotFoundError:
        return ""


def _number(version: str) -> str:
    """The release of a version: 2.6.0 of 2.6.0+cu124 and of 2.6.0a0+git."""
    match = re.match(r"\d+(\.\d+)*", version)
    return match[0] if match else ""


def _release(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", _number(version))))


def _is_older(version: str, bound: str) -> bool:
    """Whether a version is known and older; 2.6 is as old as 2.6.0."""
    length = bound.count(".") + 1
    return bool(version) and (*_release(version), *(0,) * length)[:length] < _release(bound)


def _torch_of_torchvision(versions: dict[str, str]) -> str:
    """The release of torch that the installed torchvision needs, where another one is installed."""
    lines = metadata.requires("torchvision") if versions.get("torchvision") else []
    needed = re.search(r"^torch *\(?== *([\d.]+)", "\n".join(lines or []), re.M)
    torch = versions.get("torch", "")
    return needed[1] if needed and torch and _release(needed[1]) != _release(torch) else ""


def _install_command(requirements: Iterable[str]) -> str:
    """The command that installs into this interpreter, also where it has no pip (made by uv)."""
    pip = [sys.executable, "-m", "pip", "install"]
    uv = ["uv", "pip", "install", "--python", sys.executable]
    return shlex.join([*(pip if find_spec("pip") else uv), *requirements])
