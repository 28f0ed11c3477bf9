"""A notebook's session: caches in its folder, scripts with their lines and their errors."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from motret.errors import RunError
from motret.kaggle.packages import required_packages
from motret.kaggle.session import CACHES, Session


@pytest.fixture
def session(tmp_path: Path) -> Session:
    (tmp_path / "code" / "solution").mkdir(parents=True)
    return Session(tmp_path / "code", tmp_path / "working")


def write_script(session: Session, code: str) -> None:
    (session.code / "solution" / "hello.py").write_text(code)


def test_libraries_write_their_caches_below_the_working_folder(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*CACHES, "PYTHONDONTWRITEBYTECODE"):
        monkeypatch.setenv(name, "/before")  # restored after the test
    session.set_up()
    for name in CACHES:
        folder = Path(os.environ[name])
        assert folder.is_dir() and folder.is_relative_to(session.working / "cache")


def test_a_script_shows_its_call_and_its_lines(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    write_script(session, "import sys; print(*sys.argv[1:]); print('wrong', file=sys.stderr)")
    session.run_script("hello.py", "--name", Path("two words"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "$ python solution/hello.py --name 'two words'"
    assert sorted(lines[2:]) == ["--name two words", "wrong"]


def test_a_script_that_fails_is_an_error_of_one_line(session: Session) -> None:
    write_script(session, "import sys; sys.exit(3)")
    with pytest.raises(RunError, match=r"hello\.py: ended with exit code 3") as caught:
        session.run_script("hello.py")
    # what IPython shows of it
    assert caught.value._render_traceback_() == [f"error: {caught.value}"]


def test_folders_of_the_scripts_are_below_the_working_folder(session: Session) -> None:
    assert session.folder_flags("out_dir") == [f"--out_dir={session.working / 'runs'}"]
    assert len(session.folder_flags()) == 4


def test_what_a_notebook_imports_needs_no_package_but_numpy() -> None:
    """The others may be missing until the notebook has installed them."""
    solution = Path(__file__).parents[2] / "solution"
    required = required_packages(solution.parent / "requirements.txt")
    missing = [name for name in required if name != "numpy"]
    notebook = (solution / "kaggle" / "train_notebook.py").read_text(encoding="utf-8")
    imports = re.findall(r"^(?:sys\.modules\[.*|from motret.*)$", notebook, re.M)
    assert len(imports) == 5
    code = "\n".join(
        [
            "import sys, types",
            "from pathlib import Path",
            f"missing, code = {missing}, Path({str(solution.parent)!r})",
            "missing += ['open_clip', 'sklearn', 'safetensors', 'huggingface_hub']",
            "sys.modules |= dict.fromkeys(missing)",  # importing one of these is an ImportError
            *imports,
        ]
    )
    subprocess.run([sys.executable, "-c", code], check=True)
