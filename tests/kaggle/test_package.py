"""A package holds what ranking needs, and its runs find their text tower under its new path."""

import shutil
import subprocess
from pathlib import Path

import pytest

import ensemble
import helpers
import package
from motret.config import base
from motret.config.scripts import PackageConfig
from motret.errors import RunError, WeightsError
from motret.kaggle import package as packing
from motret.kaggle.inputs import find_inputs
from motret.runs.run import open_run
from motret.runs.text_towers import text_config
from motret.utils import files

pytestmark = pytest.mark.filterwarnings("ignore:.*candidates.*:UserWarning")

FOLDS = f"{helpers.challenge()}-folds"


@pytest.fixture(scope="module")
def bert_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return helpers.saved_bert(tmp_path_factory.mktemp("bert") / "bert")


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory, bert_dir: Path) -> Path:
    """A run with a text tower from a folder, one with a tower from scratch, one of one fold."""
    folder = tmp_path_factory.mktemp("runs")
    tower = {"text_tower": f"hf:{bert_dir}", "text_weights": "openai"}
    assert helpers.run_training(folder, "bert", epochs=1, **tower) == 0
    assert helpers.run_training(folder, "scratch", epochs=1) == 0
    assert helpers.run_training(folder, "unfinished", epochs=1, fold=0) == 0
    return folder


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, runs_dir: Path) -> Path:
    out = tmp_path_factory.mktemp("packed") / "kaggle"
    names = ["--user", "me", "--competition", "motions"]
    assert package.main([*pack_flags(runs_dir, out), *names]) == 0
    return out


def pack_flags(runs_dir: Path, out: Path) -> list[str]:
    return [f"--out_dir={runs_dir}", f"--folds_dir={FOLDS}", f"--out={out}", "--no-wheels"]


def settings(runs_dir: Path, **values: object) -> PackageConfig:
    folders = {"out_dir": runs_dir, "folds_dir": Path(FOLDS)}
    return base.build_config(PackageConfig, folders | {"wheels": False} | values)


def rank(packed: Path, out: Path) -> int:
    """The exit code of ensemble.py with the runs and folds of a package."""
    data = [flag for flag in helpers.places() if not flag.startswith("--folds_dir")]
    folders = [f"--out_dir={packed / 'dataset/runs'}", f"--folds_dir={packed / 'dataset/folds'}"]
    return ensemble.main([*data, *folders, f"--submissions_dir={out}", "--views=none"])


def test_finished_runs_are_packed_without_what_training_alone_needs(packed: Path) -> None:
    runs = packed / "dataset" / "runs"
    assert sorted(path.name for path in runs.iterdir()) == ["bert", "scratch"]
    assert sorted(
        path.relative_to(runs / "bert").as_posix() for path in runs.glob("bert/**/*")
    ) == [
        "args.json",
        "fold0",
        "fold0/best_epoch1.pt",
        "fold0/metrics.csv",
        "fold0/oof.npz",
        "fold1",
        "fold1/best_epoch1.pt",
        "fold1/metrics.csv",
        "fold1/oof.npz",
    ]
    folds = packed / "dataset" / "folds"
    assert sorted(path.name for path in folds.iterdir()) == ["folds.csv", "folds.json"]


def test_the_notebooks_are_ready_to_push(packed: Path) -> None:
    for kind in ("train", "infer"):
        metadata = files.read_json(packed / kind / "kernel-metadata.json")
        assert metadata["id"] == f"me/motret-{kind}"
        notebook = packed / kind / metadata["code_file"]
        assert (
            notebook.read_bytes() == (base.ROOT / "solution/kaggle" / f"{kind}.ipynb").read_bytes()
        )
    assert (packed / "dataset" / "dataset-metadata.json").is_file()


def test_packed_runs_rank_without_the_folder_their_text_tower_came_from(
    packed: Path, bert_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aside = bert_dir.rename(bert_dir.with_name("aside"))
    try:
        assert rank(packed, tmp_path) == 0
    finally:
        aside.rename(bert_dir)
    shown = capsys.readouterr().out
    assert "text tower of bert: the one packed beside its folder" in shown
    assert "queries ranked by" in shown


def test_a_text_tower_that_is_another_one_is_refused(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(packed, tmp_path / "copy"))
    helpers.saved_bert(copy / "dataset/text_towers/tower0", seed=1)
    assert rank(copy, tmp_path / "out") == 1
    assert "its text weights changed since it was trained" in capsys.readouterr().err


def test_a_text_tower_that_changed_is_found_out_before_anything_is_uploaded(
    runs_dir: Path, bert_dir: Path, tmp_path: Path
) -> None:
    aside = bert_dir.rename(bert_dir.with_name("aside"))
    try:
        helpers.saved_bert(bert_dir, seed=1)
        with pytest.raises(RunError, match="its text weights changed since it was trained"):
            packing.write_package(settings(runs_dir, out=tmp_path / "out"))
    finally:
        shutil.rmtree(bert_dir)
        aside.rename(bert_dir)
    assert not list(tmp_path.iterdir())


def test_a_package_can_be_packed_again(packed: Path, bert_dir: Path, tmp_path: Path) -> None:
    """As in the training notebook, whose tower lies in the package that it was given."""
    aside = bert_dir.rename(bert_dir.with_name("aside"))
    try:
        packing.write_package(settings(packed / "dataset/runs", out=tmp_path / "again"))
    finally:
        aside.rename(bert_dir)
    run = open_run(tmp_path / "again/dataset/runs/bert")
    assert text_config(run).text_tower == f"hf:{tmp_path / 'again/dataset/text_towers/tower0'}"


def test_a_text_tower_that_is_gone_is_an_error_and_leaves_no_package(
    runs_dir: Path, bert_dir: Path, tmp_path: Path
) -> None:
    aside = bert_dir.rename(bert_dir.with_name("aside"))
    try:
        with pytest.raises(WeightsError, match="its files are not on this machine"):
            packing.write_package(settings(runs_dir, out=tmp_path / "out"))
    finally:
        aside.rename(bert_dir)
    assert not list(tmp_path.iterdir())


def test_runs_of_other_folds_or_without_a_finished_fold_are_refused_by_name(
    runs_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="other data or folds"):
        packing.choose_runs(settings(runs_dir, runs=("scratch",), folds_dir=tmp_path))
    (run,) = packing.choose_runs(settings(runs_dir, runs=("unfinished",)))
    assert run.finished_folds() == [0]  # named, one fold is enough
    copy = Path(shutil.copytree(runs_dir / "scratch", tmp_path / "scratch"))
    with pytest.raises(RunError, match="two of the runs have this name"):
        packing.choose_runs(settings(runs_dir, runs=("scratch", str(copy))))
    for path in copy.glob("fold*/oof.npz"):
        path.unlink()
    with pytest.raises(RunError, match="has no finished fold"):
        packing.choose_runs(settings(runs_dir, runs=(str(copy),)))


def test_without_runs_the_package_is_for_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert package.main(pack_flags(tmp_path / "none", tmp_path / "out")) == 0
    shown = capsys.readouterr().out
    assert "no finished run in" in shown and "--user NAME and --competition SLUG" in shown
    dataset = tmp_path / "out" / "dataset"
    assert sorted(path.name for path in dataset.iterdir()) == ["code"]
    assert packing.choose_runs(settings(tmp_path, runs=("none",))) == []


def test_a_text_tower_to_train_with_is_packed_by_its_flag(bert_dir: Path, tmp_path: Path) -> None:
    tower = f"hf:{bert_dir}"
    packing.write_package(
        settings(tmp_path, runs=("none",), text_tower=tower, out=tmp_path / "out")
    )
    inputs = find_inputs(tmp_path / "out")
    packed_tower = tmp_path / "out/dataset/text_towers/tower0"
    assert inputs.text_tower_flags("full", "") == [f"--text_tower=hf:{packed_tower}"]


def test_a_folder_with_something_else_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()
    assert package.main(pack_flags(tmp_path, tmp_path / "out")) == 1
    assert "holds something that this script did not make" in capsys.readouterr().err


@pytest.mark.parametrize("checkout", [True, False])
def test_the_code_is_what_git_knows_or_else_all_but_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkout: bool
) -> None:
    root = tmp_path / "repository"
    for name in ("solution/train.py", "solution/my_tower.py", "run_all.sh", "docs/page.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "solution" / "__pycache__").mkdir()
    (root / "solution" / "__pycache__" / "train.pyc").touch()
    if checkout:
        (root / ".gitignore").write_text("__pycache__\n")
        (root / "solution" / "removed.py").touch()
        subprocess.run(["git", "init", "-q", root], check=True)
        subprocess.run(["git", "-C", root, "add", "solution/removed.py", "run_all.sh"], check=True)
        (root / "solution" / "removed.py").unlink()
    monkeypatch.setattr(base, "ROOT", root)
    assert packing.copy_code(tmp_path / "code") == 3
    copied = [path for path in (tmp_path / "code").rglob("*") if path.is_file()]
    names = sorted(path.relative_to(tmp_path / "code").as_posix() for path in copied)
    assert names == ["run_all.sh", "solution/my_tower.py", "solution/train.py"]
