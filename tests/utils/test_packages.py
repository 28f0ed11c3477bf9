"""The packages that pyproject.toml asks for, and what is said where an environment lacks some."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from motret.utils import packages

ROOT = Path(__file__).parents[2]
BOUNDS = packages.oldest_versions(ROOT / "pyproject.toml")


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


# ---- the files


def test_the_pinned_set_lies_within_the_ranges() -> None:
    pinned = pins("requirements.txt")
    assert pinned.keys() == BOUNDS.keys()
    assert not [name for name in pinned if numbers(pinned[name]) < numbers(BOUNDS[name])]


def test_the_oldest_set_has_exactly_the_lower_bounds() -> None:
    assert pins("tests/oldest.txt") == BOUNDS


def test_the_workflow_begins_with_the_oldest_python() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    versions = re.findall(r'"(3\.\d+)"', workflow)
    assert re.findall(r'requires-python = ">=(.*)"', project) == versions[:1]


# ---- the environment


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a package look installed, as pip records it."""

    def record(name: str, version: str, *needs: str) -> None:
        folder = tmp_path / "site" / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)]
        (folder / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")
        (tmp_path / "site" / f"{name}.py").touch()

    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return record


def problem(folder: Path, *dependencies: str) -> str:
    file = folder / "pyproject.toml"
    file.write_text(f"[project]\ndependencies = {list(dependencies)}\n")
    return packages.environment_problem(file)


def command(line: str) -> list[str]:
    """What the fix in the brackets installs."""
    words = shlex.split(re.findall(r"\((.*?);", line)[0])
    return words[words.index("install") + 1 :]


def test_this_environment_lacks_nothing() -> None:
    assert packages.environment_problem(ROOT / "pyproject.toml") == ""


@pytest.mark.parametrize(
    "version", ["1.26.0", "1.26", "1.26.4", "2.0", "1.26.0+cu124", "1.26.0a0+b", "1.100"]
)
def test_a_version_at_the_bound_or_above_is_enough(version: str, install, tmp_path: Path) -> None:
    install("oldone", version)
    assert problem(tmp_path, "oldone>=1.26.0") == ""


def test_packages_that_are_missing_or_too_old_are_named_with_the_command_that_gets_them(
    install, tmp_path: Path
) -> None:
    install("oldone", "1.9.5")
    install("fine", "3.0")
    line = problem(tmp_path, "oldone>=1.26.0", "fine>=3.0", "no-such-package>=1.2")
    assert line.startswith(f"{sys.executable}: has no no-such-package; ")
    assert "oldone 1.9.5 is older than 1.26.0 (" in line and "fine" not in line
    assert command(line) == ["no-such-package>=1.2", "oldone>=1.26.0"]


def test_a_package_without_a_record_of_pip_counts_as_there(install, tmp_path: Path) -> None:
    (tmp_path / "site" / "handmade.py").touch()
    assert problem(tmp_path, "handmade>=9.0") == ""


def test_a_torchvision_of_another_torch_is_replaced_and_the_torch_stays(
    install, tmp_path: Path
) -> None:
    install("torch", "2.6.0+cu124")
    install("torchvision", "0.29.2", "numpy", "torch==2.15.0")
    line = problem(tmp_path, "torch>=2.4.1", "torchvision>=0.19.1")
    assert "torchvision is made for torch 2.15.0, and torch is 2.6.0+cu124 (" in line
    assert command(line) == ["torchvision", "torch==2.6.0"]


@pytest.mark.parametrize("needs", [["torch==2.6.0"], ["torch"], ["torch (==2.6.0)"], []])
def test_a_pair_that_fits_is_fine(needs: list[str], install, tmp_path: Path) -> None:
    install("torch", "2.6.0+cu124")
    install("torchvision", "0.21.0+cu124", *needs)
    assert problem(tmp_path, "torch>=2.4.1", "torchvision>=0.19.1") == ""


def test_an_environment_that_uv_made_has_no_pip_and_is_repaired_by_uv(
    install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = packages.find_spec
    monkeypatch.setattr(packages, "find_spec", lambda name: (name != "pip" and found(name)) or None)
    line = problem(tmp_path, "no-such-package>=1.2")
    assert f"(uv pip install --python {sys.executable} 'no-such-package>=1.2'; " in line


def test_a_script_ends_with_the_problem_in_one_line(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    package = tmp_path / "solution" / "motret"
    shutil.copytree(ROOT / "solution" / "motret", package, ignore=ignored)
    shutil.copy(ROOT / "solution" / "tune.py", tmp_path / "solution")
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["no-such-package>=1.0"]\n')
    done = subprocess.run(
        [sys.executable, "solution/tune.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and "has no no-such-package (" in done.stderr


def test_no_script_imports_a_package_before_it_is_checked() -> None:
    for script in (ROOT / "solution").glob("*.py"):
        imports = re.findall(r"^(?:from|import) (\w+)", script.read_text(encoding="utf-8"), re.M)
        others = [name for name in imports if name not in sys.stdlib_module_names]
        assert others[0] == "motret", script.name


# ---- arguments that libraries renamed


def test_an_argument_has_the_name_that_the_installed_version_takes() -> None:
    def current(*, max_iter: int) -> None: ...
    def former(*, n_iter: int) -> None: ...

    assert packages.argument_name(current, "max_iter", "n_iter") == "max_iter"
    assert packages.argument_name(former, "max_iter", "n_iter") == "n_iter"
