"""Packages: which are needed, and how a notebook installs those that are missing."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import helpers
from motret.errors import ConfigError
from motret.kaggle import packages
from motret.kaggle.session import Session

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands in for pip, which would install small 3.0; holds the words of each call."""
    calls: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        for word in command:
            if word.startswith("--report="):
                item = {"metadata": {"name": "small", "version": "3.0"}}
                Path(word.partition("=")[2]).write_text(json.dumps({"install": [item]}))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.subprocess, "run", run)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "/before")
    return calls


@pytest.fixture
def session(tmp_path: Path) -> Session:
    (tmp_path / "code").mkdir()
    lines = ["# a comment", "numpy==0.1  # an older one", "torch==99.0", "absent-package==2.0"]
    (tmp_path / "code" / "requirements.txt").write_text("\n".join(lines) + "\n")
    return Session(tmp_path / "code", tmp_path / "working")


def reachable(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    monkeypatch.setattr(packages.network, "responds", lambda address: answer)


def test_what_is_downloaded_is_complete_and_leaves_torch_out() -> None:
    versions = packages.needed_packages(packages.LACKING)
    needed = {"open-clip-torch", "tyro", "optuna", "ftfy", "timm", "sqlalchemy", "typeguard"}
    assert needed <= versions.keys()
    assert not {"torch", "torchvision", "numpy", "triton"} & versions.keys()
    assert not [name for name in versions if name.startswith("nvidia")]


def test_only_what_is_missing_is_installed_and_the_rest_is_held(
    session: Session, pip: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reachable(monkeypatch, True)
    assert packages.install_missing(session, []) == ["absent-package"]
    (*plan, last), (*flags, installed) = pip
    assert last == "absent-package==2.0" and "--dry-run" in plan and "--no-index" not in plan
    constraints = (session.cache_dir / "constraints.txt").read_text().split()
    assert [line.split("==")[0] for line in constraints] == ["numpy", "torch"]
    assert "numpy==0.1" not in constraints  # the version that is here
    assert installed == "small==3.0"
    prefix = f"--prefix={session.working / 'packages'}"
    assert {prefix, "--no-deps", "--ignore-installed"} <= set(flags)


def test_nothing_missing_calls_nothing(session: Session, pip: list[list[str]]) -> None:
    (session.code / "requirements.txt").write_text("numpy==0.1\n")
    assert packages.install_missing(session, []) == [] and pip == []


def test_without_internet_packages_come_from_wheels(
    session: Session, pip: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reachable(monkeypatch, False)
    packages.install_missing(session, [tmp_path / "wheels"], ["own-package"])
    assert pip[0][-2:] == ["absent-package", "own-package"]
    for call in pip:
        assert {"--no-index", f"--find-links={tmp_path / 'wheels'}"} <= set(call)


def test_what_was_installed_is_there_for_scripts(
    session: Session, pip: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reachable(monkeypatch, True)
    folder = session.working / "packages" / "lib" / "python3" / "site-packages"
    folder.mkdir(parents=True)
    packages.install_missing(session, [])
    assert os.environ["PYTHONPATH"] == f"{folder}{os.pathsep}/before"
    assert sys.path[-1] == str(folder)


def test_a_package_that_is_too_old_for_a_new_one_stays_where_it_is(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip itself would uninstall it."""
    reachable(monkeypatch, False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    image, wheels = tmp_path / "image", tmp_path / "wheels"
    helpers.write_wheel(image, "old_helper", "1.0")
    with zipfile.ZipFile(image / "old_helper-1.0-py3-none-any.whl") as wheel:
        wheel.extractall(image)
    monkeypatch.setenv("PYTHONPATH", str(image))
    helpers.write_wheel(wheels, "old_helper", "2.0")
    helpers.write_wheel(wheels, "absent_package", "2.0", requires="old-helper>=2")
    assert packages.install_missing(session, [wheels]) == ["absent-package"]
    show = "import importlib.metadata as m; print(m.version('old-helper'))"
    shown = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert shown.stdout == "2.0\n"
    assert (image / "old_helper.py").is_file()


def test_no_wheels_and_no_internet_is_one_line(
    session: Session, pip: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reachable(monkeypatch, False)
    with pytest.raises(ConfigError, match="absent-package: not installed, the internet is off"):
        packages.install_missing(session, [])
    assert pip == []


def test_wheels_without_the_package_are_one_line(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reachable(monkeypatch, False)
    (tmp_path / "wheels").mkdir()
    with pytest.raises(ConfigError, match="cannot be installed: No matching distribution found"):
        packages.install_missing(session, [tmp_path / "wheels"])


def test_a_package_index_that_does_not_answer_is_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packages, "LACKING", ("tyro",))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert packages.download_wheels(tmp_path / "wheels", "3.12") == []
    assert "no wheels: pip could not download them (No matching" in capsys.readouterr().out
    assert not (tmp_path / "wheels").exists()


def test_required_packages_are_those_of_the_file() -> None:
    required = packages.required_packages(ROOT / "requirements.txt")
    assert {"torch", "tyro", "optuna", "open-clip-torch"} <= required.keys()
    assert set(packages.LACKING) <= required.keys()
