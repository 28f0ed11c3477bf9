"""Files and folders are written whole or not at all, and read without unpickling."""

import errno
import json
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from motret.errors import DataError, WriteError
from motret.runs import checkpoints
from motret.utils import files
from motret.utils.process_tokens import process_token


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    files.write_text(path, "first\r\n")
    assert path.read_bytes() == b"first\r\n"

    def fail(tmp_path: Path) -> None:
        tmp_path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match=r"a.txt: no space is left on its disk: [\d.]+ MB "):
        files.atomic_write(path, fail)
    assert path.read_bytes() == b"first\r\n" and list(path.parent.iterdir()) == [path]


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 100 bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS = {
    "a.txt": lambda path: files.write_text(path, "x" * 1000),
    "a.json": lambda path: files.write_json(path, ["x"] * 1000),
    "a.csv": lambda path: files.write_csv(path, [{"id": "x" * 1000}]),
    "a.npz": lambda path: files.write_npz(path, {"values": np.zeros(1000)}),
    "a.pt": lambda path: checkpoints.save_checkpoint(path, {"w": torch.zeros(1000)}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_the_disk_has_no_room_for_is_one_line_and_leaves_nothing(
    tmp_path: Path, small_files: None, name: str
) -> None:
    path = tmp_path / name
    path.write_text("as before")
    with pytest.raises(WriteError, match=f"{name}: would be larger than files may be here"):
        WRITERS[name](path)
    assert path.read_text() == "as before" and list(tmp_path.iterdir()) == [path]


def test_a_folder_without_room_leaves_the_former_one(tmp_path: Path, small_files: None) -> None:
    out = tmp_path / "out"
    with files.atomic_dir(out, "made.json") as folder:
        (folder / "made.json").write_text("first")
    expected = f"{out}/deep/a.txt: would be larger than"
    with pytest.raises(WriteError, match=expected), files.atomic_dir(out, "made.json") as folder:
        files.write_text(folder / "deep" / "a.txt", "x" * 1000)
    with (
        pytest.raises(WriteError, match=r"out: would be larger"),
        files.atomic_dir(out, "made.json") as folder,
    ):
        (folder / "a.txt").write_text("x" * 1000)
    assert (out / "made.json").read_text() == "first" and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_may_not_be_written_is_one_line(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    calls = [
        lambda: files.write_text(tmp_path / "a" / "b.txt", ""),
        lambda: files.make_dir(tmp_path / "a"),
        lambda: files.atomic_dir(tmp_path / "a", "m").__enter__(),
        lambda: files.new_dir(tmp_path, "a", tmp_path / "a").__enter__(),
    ]
    for call in calls:
        with pytest.raises(WriteError, match=r"cannot be written \(.+make its folder writable"):
            call()


def test_an_error_of_what_is_read_keeps_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.atomic_dir(tmp_path / "out", "m"):
        (tmp_path / "gone").read_bytes()


def test_an_error_of_the_writer_itself_is_not_one_of_the_disk(tmp_path: Path) -> None:
    def fail(_stream: object) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        files.write_stream(tmp_path / "a.pt", fail)
    assert not list(tmp_path.iterdir())


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    host, pid, start = process_token().split("-")
    dead, alive = f"{host}-{pid}-{int(start) + 1}", f"{host}-{pid}-{start}"
    elsewhere = f"{'0' * 8}-{pid}-{start}"
    kept = {f".a.png.tmp-{alive}.png", f".a.png.tmp-{elsewhere}.png", ".a.tmp-notes", ".hidden"}
    for name in (f".a.png.tmp-{dead}.png", *kept):
        (tmp_path / name).touch()
    yesterday = time.time() - files.FOREIGN_SECONDS - 60
    (tmp_path / f".old.tmp-{elsewhere}.x7").mkdir()
    os.utime(tmp_path / f".old.tmp-{elsewhere}.x7", (yesterday, yesterday))
    (tmp_path / f".slow.tmp-{elsewhere}.x7").mkdir()  # whose file is still written to
    (tmp_path / f".slow.tmp-{elsewhere}.x7" / "file").touch()
    os.utime(tmp_path / f".slow.tmp-{elsewhere}.x7", (yesterday, yesterday))
    (tmp_path / f".b.tmp-{alive}").touch()
    os.utime(tmp_path / f".b.tmp-{alive}", (yesterday, yesterday))
    kept |= {f".slow.tmp-{elsewhere}.x7", f".b.tmp-{alive}"}
    (tmp_path / f".out.tmp-{dead}.x7").mkdir()
    (tmp_path / f".out.tmp-{dead}.x7" / "file").touch()
    files.write_text(tmp_path / "b.txt", "")
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "b.txt"}


def test_json_is_read_back_and_half_a_file_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert files.read_json(path) is None
    files.write_json(path, {"folder": Path("x"), "values": [1, 2]})
    assert files.read_json(path) == {"folder": "x", "values": [1, 2]}
    path.write_text(json.dumps({"a": 1})[:-1])
    assert files.read_json(path) is None


def test_csv_cells_are_quoted_where_they_need_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    files.write_csv(path, [{"id": "x,y", "score": 0.5}, {"id": "z", "score": 1}])
    assert path.read_bytes() == b'id,score\n"x,y",0.5\nz,1\n'
    files.write_csv(path, [], columns=("id", "score"))
    assert path.read_bytes() == b"id,score\n"


def test_a_folder_is_replaced_whole_and_only_where_it_has_the_marker(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for text in ("first", "second"):
        with files.atomic_dir(out, "made.json") as folder:
            (folder / "made.json").write_text(text)
        assert (out / "made.json").read_text() == text
    with pytest.raises(KeyboardInterrupt), files.atomic_dir(out, "made.json") as folder:
        (folder / "made.json").write_text("half")
        raise KeyboardInterrupt
    assert (out / "made.json").read_text() == "second" and list(tmp_path.iterdir()) == [out]
    (out / "made.json").unlink()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="out: "), files.atomic_dir(out, "made.json"):
        pass
    assert (out / "thesis.txt").read_text() == "years of work"


def test_a_signature_changes_with_the_content_and_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a")
    before = files.file_signature(path)
    assert files.file_signature(path) == before
    path.write_text("ab")
    assert files.file_signature(path) != before
    with pytest.raises(DataError, match=r"gone: cannot be read: No such file"):
        files.file_signature(tmp_path / "gone")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "1 min 30 s"), (450, "7 min 30 s"), (12_600, "3.5 h")],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert files.format_duration(seconds) == text
