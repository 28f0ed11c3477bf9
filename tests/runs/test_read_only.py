"""Runs in a read-only folder, as /kaggle/input: reports and views go to the work folder."""

from pathlib import Path

import pytest

import ensemble
import helpers
import report
import search
from motret.utils import files

pytestmark = pytest.mark.filterwarnings("ignore:.*candidates.*:UserWarning")


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run folders in which nothing can be made; chmod does not stop root."""
    folder = tmp_path / "input" / "runs"
    assert helpers.run_training(folder, "one", epochs=1) == 0
    real = files.is_writable
    monkeypatch.setattr(
        files,
        "is_writable",
        lambda output_dir: not output_dir.is_relative_to(folder) and real(output_dir),
    )
    return folder


def tree(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


def test_what_is_made_of_a_read_only_run_goes_to_the_work_folder(
    read_only, tmp_path, capsys
) -> None:
    before, work = tree(read_only), tmp_path / "work"
    flags_of_folders = [flag for flag in helpers.places() if not flag.startswith("--work_dir")]
    flags = [*flags_of_folders, f"--work_dir={work}", f"--out_dir={read_only}"]
    subs = f"--submissions_dir={tmp_path / 'subs'}"
    capsys.readouterr()
    assert ensemble.main([*flags, subs, "--query_bank=off", "--views=mirror"]) == 0
    (output_dir,) = (work / "runs").iterdir()
    assert (
        output_dir.name.startswith("one-") and (output_dir / "fold0" / "oof_mirror.npz").is_file()
    )
    assert (
        f"{read_only / 'one'} cannot be written: what is made of it goes to {output_dir}"
        in capsys.readouterr().out
    )
    written = (output_dir / "fold0" / "oof_mirror.npz").stat().st_mtime_ns
    assert ensemble.main([*flags, subs, "--query_bank=off", "--views=mirror"]) == 0
    assert (output_dir / "fold0" / "oof_mirror.npz").stat().st_mtime_ns == written  # found again
    assert search.main(["two people walk", *flags]) == 0
    assert f"page {output_dir / 'report' / 'search.html'}" in capsys.readouterr().out
    assert report.main([*flags, subs, "--run", "one", "--fold=0"]) == 0
    assert (
        f"one: report in {output_dir / 'report'}" in capsys.readouterr().out
        and (output_dir / "report" / "index.html").is_file()
    )
    assert tree(read_only) == before


def test_whether_a_folder_can_be_written_is_found_out_by_making_a_file(
    tmp_path, monkeypatch
) -> None:
    assert files.is_writable(tmp_path) and files.is_writable(tmp_path / "not" / "there")
    assert not list(tmp_path.iterdir())

    def refuse(*_args, **_values):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    assert not files.is_writable(tmp_path)
