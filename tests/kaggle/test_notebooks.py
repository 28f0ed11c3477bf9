"""Both notebooks as Kaggle runs them: read-only input, no network, writing to `working` alone."""

import contextlib
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import helpers
import package
import sample
from motret.formats import submission
from motret.formats.queries import read_queries

jupytext = pytest.importorskip("jupytext", reason="pip install -r tests/requirements.txt")
jupytext_cli = pytest.importorskip("jupytext.cli", reason="pip install -r tests/requirements.txt")
nbclient = pytest.importorskip("nbclient", reason="pip install -r tests/requirements.txt")
nbformat = pytest.importorskip("nbformat", reason="pip install -r tests/requirements.txt")

REPOSITORY = Path(__file__).parents[2]
NOTEBOOKS = REPOSITORY / "solution" / "kaggle"
KINDS = ("train", "infer")
SMALL = (
    "--folds 2 --epochs 1 --width 16 --heads 2 --text_width 16 --proj_dim 16 --layers 1"
    " --cross_person_layers 0 --text_tower my_text:HashedWords --text_vocabulary 1024"
    " --jobs 1 --tuned none --device cpu"
)
"""Small sizes; a text tower of one's own, which comes along with the code and loads fast."""
GUARD = '''
"""Makes a process see what Kaggle shows it: a read-only input and no network."""
import errno, os, sys
ROOT = os.environ["READ_ONLY_ROOT"]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

def guard(event, args):
    if event == "socket.connect":
        address = args[1]
        if isinstance(address, tuple) and not str(address[0]).startswith("127."):
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
    elif event == "socket.getaddrinfo" and args[0] not in (None, "localhost", "127.0.0.1"):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")
    elif event in ("open", "os.mkdir", "os.rename", "os.remove", "os.symlink"):
        writes = event != "open" or (isinstance(args[2], int) and args[2] & WRITES)
        paths = [os.fsdecode(arg) for arg in args[:2] if isinstance(arg, (str, bytes))]
        if writes and any(os.path.abspath(path).startswith(ROOT) for path in paths):
            raise OSError(errno.EROFS, "Read-only file system", paths[0])

sys.addaudithook(guard)
'''


@dataclass(frozen=True)
class Kernel:
    """A place to run notebooks in: an input to attach things to, a working folder, and the rest.

    outside: folders that no notebook may write to.
    """

    root: Path

    @property
    def input(self) -> Path:
        return self.root / "input"

    @property
    def working(self) -> Path:
        return self.root / "working"

    @property
    def outside(self) -> tuple[Path, ...]:
        names = ("input", "home", "temporary", "started_in")
        return tuple(self.root / name for name in names)

    def attach(self, source: Path, name: str) -> Path:
        return Path(shutil.copytree(source, self.input / name))

    def snapshot(self) -> dict[Path, tuple[int, int] | None]:
        """Size and time of all files that no notebook may write; all folders."""
        paths = [path for folder in self.outside for path in folder.rglob("*")]
        files = {path: path.stat() for path in paths if path.is_file()}
        return dict.fromkeys(paths) | {
            path: (stat.st_size, stat.st_mtime_ns) for path, stat in files.items()
        }

    def run(self, kind: str, **settings: object) -> Any:
        """Runs a notebook with other values of its settings; returns it with its outputs.

        It may end with an error, which is then the last output.
        """
        notebook = nbformat.read(NOTEBOOKS / f"{kind}.ipynb", as_version=4)
        values = {"KAGGLE_INPUT": str(self.input), "KAGGLE_WORKING": str(self.working)} | settings
        code = "\n".join(f"{name} = {value!r}" for name, value in values.items())
        (position,) = (
            number
            for number, cell in enumerate(notebook.cells)
            if "parameters" in cell.metadata.get("tags", [])
        )
        assert set(values) <= set(re.findall(r"^[A-Z_]+", notebook.cells[position].source, re.M))
        notebook.cells.insert(position + 1, nbformat.v4.new_code_cell(code))
        client = nbclient.NotebookClient(
            notebook,
            timeout=300,
            kernel_name="python3",
            resources={"metadata": {"path": str(self.root / "started_in")}},
        )
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment().items():
                patch.setenv(name, value)
            with contextlib.suppress(nbclient.exceptions.CellExecutionError):
                client.execute()
        return notebook

    def environment(self) -> dict[str, str]:
        """Environment variables of the notebook's process, which its scripts inherit."""
        folders = {"PYTHONPATH": "site", "READ_ONLY_ROOT": "input", "TMPDIR": "temporary"}
        # files of the notebook server's own, and of a compiler that pip asks for its version
        names = ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "RUSTUP_HOME")
        folders |= {"HOME": "home"} | dict.fromkeys(names, "server")
        return {name: str(self.root / folder) for name, folder in folders.items()} | {
            "OMP_NUM_THREADS": "1"
        }


def outputs(notebook: Any) -> list[Any]:
    return [out for cell in notebook.cells for out in cell.get("outputs", ())]


def printed(notebook: Any) -> str:
    return "".join(out.text for out in outputs(notebook) if out.output_type == "stream")


def error_lines(notebook: Any) -> list[str]:
    """What the notebook shows of the error that it ended with."""
    last = outputs(notebook)[-1]
    assert last.output_type == "error", printed(notebook)[-2000:]
    return list(last.traceback)


@pytest.fixture(scope="module")
def make_kernel(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Kernel]:
    """Makes places to run notebooks in."""

    def make() -> Kernel:
        kernel = Kernel(tmp_path_factory.mktemp("kaggle"))
        for folder in (*kernel.outside, kernel.working, kernel.root / "site"):
            folder.mkdir()
        (kernel.root / "site" / "sitecustomize.py").write_text(GUARD)
        return kernel

    return make


@pytest.fixture(scope="module")
def challenge_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("challenge") / "data"
    sizes = ["--motions", "24", "--queries", "3", "--candidates", "12"]
    assert sample.main(["--out", str(folder), *sizes]) == 0
    return folder


@pytest.fixture(scope="module")
def files_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of a package without runs, with the wheel of a small package."""
    out = tmp_path_factory.mktemp("package") / "kaggle"
    names = ["--user", "me", "--competition", "motions"]
    assert package.main(["--runs", "none", "--no-wheels", "--out", str(out), *names]) == 0
    dataset = out / "dataset"
    helpers.write_wheel(dataset / "wheels", "small_helper", "1.0")
    page = (REPOSITORY / "docs" / "add_text_tower.md").read_text(encoding="utf-8")
    (tower,) = re.findall(r"```python\n(.*?class HashedWords.*?)```", page, flags=re.DOTALL)
    (dataset / "code" / "solution" / "my_text.py").write_text(tower)
    return dataset


def check_submission(folder: Path, challenge_dir: Path) -> None:
    queries = read_queries(challenge_dir / "test")
    answers = submission.read_submission(folder / "submission.csv", queries)
    assert len(answers) == len(queries) == 3


# ---- the files


@pytest.mark.parametrize("kind", KINDS)
def test_a_notebook_is_what_its_source_makes_and_holds_no_output(kind: str) -> None:
    notebook = nbformat.read(NOTEBOOKS / f"{kind}.ipynb", as_version=4)
    source = jupytext.read(NOTEBOOKS / f"{kind}_notebook.py")

    def content(of: Any) -> list[tuple[str, str, Sequence[str]]]:
        return [(cell.cell_type, cell.source, cell.metadata.get("tags", ())) for cell in of.cells]

    assert content(notebook) == content(source)
    assert notebook.metadata.kernelspec == source.metadata.kernelspec
    assert not outputs(notebook)
    assert all(cell.get("execution_count") is None for cell in notebook.cells)


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_of_the_page_makes_the_notebook_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
    (command,) = re.findall(rf"^jupytext (.* solution/kaggle/{kind}_notebook\.py)$", page, re.M)
    shutil.copytree(NOTEBOOKS, tmp_path / "solution" / "kaggle")
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "solution" / "kaggle" / f"{kind}.ipynb"
    jupytext_cli.jupytext(shlex.split(command))
    assert json.loads(made.read_text()) == json.loads((NOTEBOOKS / made.name).read_text())


# ---- both, one after the other


def test_one_notebook_trains_and_the_other_ranks_and_nothing_else_is_written(
    make_kernel: Callable[[], Kernel], challenge_dir: Path, files_dir: Path
) -> None:
    """One test, as workers share no fixtures: the first on the mounts of today, the second on the
    older ones with the output of the first."""
    first = make_kernel()
    first.attach(challenge_dir, "competitions/motions")
    first.attach(files_dir, "datasets/me/motret-files")
    before = first.snapshot()
    settings = {"PRESET": "fast", "VARIANTS": ["holistic"], "EXTRA_PACKAGES": ["small-helper"]}
    notebook = first.run("train", FLAGS=SMALL, **settings)
    assert first.snapshot() == before
    check_training(notebook, first.working, challenge_dir)
    check_pictures(notebook)

    second = make_kernel()
    second.attach(challenge_dir, "motions")
    second.attach(first.working, "motret-train")
    before = second.snapshot()
    allowed = "--allow_towers my_text:HashedWords"  # what a file names is not imported by itself
    notebook = second.run("infer", FLAGS=f"--jobs 1 --device cpu --views mirror {allowed}")
    assert second.snapshot() == before
    check_ranking(notebook, second.working, challenge_dir)
    answers = [(kernel.working / "submission.csv").read_text() for kernel in (first, second)]
    assert answers[0] == answers[1]


def check_training(notebook: Any, working: Path, challenge_dir: Path) -> None:
    """It ends with a submission and all that the second notebook needs, and without caches."""
    assert outputs(notebook)[-1].output_type == "stream", error_lines(notebook)
    assert re.search(r"^done in \d.*$", printed(notebook), re.M)
    check_submission(working, challenge_dir)
    dataset = working / "package" / "dataset"
    (run,) = (dataset / "runs").iterdir()
    assert (dataset / "folds" / "folds.json").is_file()
    assert (dataset / "code" / "solution" / "ensemble.py").is_file()
    for fold in ("fold0", "fold1"):
        names = sorted(path.name for path in (run / fold).iterdir())
        assert names == ["best_epoch1.pt", "metrics.csv", "oof.npz", "oof_mirror.npz"]
    assert not (working / "work").exists() and not (working / "cache").exists()
    # the package that was missing came from the attached wheels
    assert "installed: small-helper" in printed(notebook)
    assert list((working / "packages").rglob("small_helper.py"))


def check_pictures(notebook: Any) -> None:
    """It shows the curves and two error browsers, of the submission and of the run."""
    shown = [out.data for out in outputs(notebook) if out.output_type == "display_data"]
    pictures = [data["image/png"] for data in shown if "image/png" in data]
    frames = [data["text/html"] for data in shown if "text/html" in data]
    assert len(pictures) == 1 and len(frames) == 2
    assert all("<iframe srcdoc=" in frame and "Recall@k" in frame for frame in frames)


def check_ranking(notebook: Any, working: Path, challenge_dir: Path) -> None:
    """It ranks with all folds, checks the form, says its time, and trains nothing."""
    lines = printed(notebook)
    assert outputs(notebook)[-1].output_type == "stream", error_lines(notebook)
    check_submission(working, challenge_dir)
    assert f"{working / 'submission.csv'}: form is right, 3 queries" in lines
    assert re.search(r"^done in \d.*: .*submission\.csv$", lines, re.M)
    assert "2 folds" in lines and not re.search(r"train\.py|epoch \d", lines)
    # the output holds the runs twice, in runs/ and in the package: they count once
    (runs,) = re.findall(r"^runs\n((?:/.*\n)+)", lines, re.M)
    assert len(runs.splitlines()) == 1
    assert not (working / "runs").exists()


# ---- errors: one line, no traceback


def test_without_the_code_a_notebook_says_what_to_attach(make_kernel: Callable[[], Kernel]) -> None:
    kernel = make_kernel()
    for kind in KINDS:
        (line,) = error_lines(kernel.run(kind))
        assert line.startswith(f"error: {kernel.input}: no copy of the code is attached")
        assert line.endswith(")") and "package.py" in line


def test_without_the_code_attached_the_repository_is_cloned(
    make_kernel: Callable[[], Kernel], files_dir: Path, tmp_path: Path
) -> None:
    repository = Path(shutil.copytree(files_dir / "code", tmp_path / "repository"))
    as_somebody = ["git", "-C", repository, "-c", "user.name=me", "-c", "user.email=me@here"]
    subprocess.run(["git", "init", "-q", repository], check=True)
    subprocess.run([*as_somebody, "add", "."], check=True)
    subprocess.run([*as_somebody, "commit", "-qm", "all"], check=True)
    kernel = make_kernel()
    (line,) = error_lines(kernel.run("train", REPOSITORY=repository.as_uri()))
    assert "no competition data" in line  # so the code is there
    assert (kernel.working / "code" / "solution" / "train.py").is_file()


@pytest.fixture(scope="module")
def with_code(make_kernel: Callable[[], Kernel], files_dir: Path) -> Kernel:
    """A kernel that has the code and nothing else."""
    kernel = make_kernel()
    kernel.attach(files_dir, "datasets/me/motret-files")
    shutil.rmtree(kernel.input / "datasets/me/motret-files/wheels")
    return kernel


def test_no_competition_and_two_are_one_line_each(with_code: Kernel, challenge_dir: Path) -> None:
    (line,) = error_lines(with_code.run("train"))
    assert line.startswith(f"error: {with_code.input}: no competition data") and "datasets" in line
    first = with_code.attach(challenge_dir, "competitions/first")
    second = with_code.attach(challenge_dir, "competitions/second")
    (line,) = error_lines(with_code.run("infer"))
    assert f"2 folders with competition data: {first}, {second}" in line and "DATA_DIR" in line
    shutil.rmtree(with_code.input / "competitions")


def test_without_runs_without_wheels_and_with_a_wrong_flag(
    with_code: Kernel, challenge_dir: Path
) -> None:
    with_code.attach(challenge_dir, "competitions/motions")
    (line,) = error_lines(with_code.run("infer"))
    assert "no finished run" in line and "the output of the training notebook" in line
    (line,) = error_lines(with_code.run("train", EXTRA_PACKAGES=["no-such-package"]))
    assert line.startswith("error: no-such-package: not installed, the internet is off")
    done = with_code.run("train", PRESET="fast", FLAGS="--epoch 3")
    assert "error: --epoch: no script knows this flag (did you mean --epochs" in printed(done)
    assert error_lines(done) == [
        "error: solution/run_all.py: ended with exit code 1 (see its last lines above)"
    ]
