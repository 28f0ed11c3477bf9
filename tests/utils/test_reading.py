"""Every file is opened, measured, decoded and parsed in one place; what goes wrong is one line."""

import errno
import io
import os
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest

from motret.errors import DataError, MachineError, RunError
from motret.utils import files, reading


def test_what_is_there_but_unusable_is_never_taken_for_missing(
    expect_error, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "to_file").symlink_to("file")
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "nowhere").symlink_to("gone")
    os.mkfifo(tmp_path / "pipe")
    assert reading.is_file(tmp_path / "file") and reading.is_file(tmp_path / "to_file")
    assert reading.is_folder(tmp_path) and not reading.is_file(tmp_path)
    for missing in ("gone", "gone/deeper", "file/deeper"):
        assert reading.kind_of(tmp_path / missing) == "missing"
    for name, problem in (
        ("itself", "cannot be read: Too many levels of symbolic links"),
        ("nowhere", "cannot be read: No such file"),
        ("pipe", "is a named pipe, not a file"),
    ):
        assert reading.exists(tmp_path / name)
        expect_error(lambda name=name: reading.is_file(tmp_path / name), tmp_path / name, problem)
    long = tmp_path / ("x" * 300)
    expect_error(lambda: reading.is_file(long), long, "File name too long")


@pytest.fixture
def forbid(monkeypatch: pytest.MonkeyPatch):
    """Makes the system refuse a path as it refuses it to a user without permission."""

    def forbid(path: Path) -> None:
        def refusing(original):
            def call(target, *args, **kwargs):
                if isinstance(target, str | os.PathLike) and Path(target) == path:
                    raise PermissionError(13, "Permission denied", str(path))
                return original(target, *args, **kwargs)

            return call

        for name in ("open", "stat", "lstat", "scandir", "listdir"):
            monkeypatch.setattr(os, name, refusing(getattr(os, name)))

    return forbid


def test_a_folder_without_permission_is_one_line(expect_error, tmp_path: Path, forbid) -> None:
    (tmp_path / "texts").mkdir()
    forbid(tmp_path / "texts")
    path = tmp_path / "texts"
    expect_error(lambda: reading.list_folder(path), path, "cannot be read: Permission denied")
    expect_error(lambda: reading.is_folder(path), path, "cannot be read: Permission denied")
    expect_error(lambda: reading.read_bytes(path), path, "cannot be read: Permission denied")


def test_only_regular_files_are_opened(expect_error, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
    for name in ("pipe", "folder", "socket"):
        path = tmp_path / name
        expect_error(lambda path=path: reading.read_bytes(path), path)
    zero = tmp_path / "zero"
    zero.symlink_to("/dev/zero")
    expect_error(lambda: reading.read_text(zero), zero, "is a device, not a file")


def test_a_file_is_measured_before_it_is_read(expect_error, tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    with path.open("wb") as stream:
        stream.truncate(10**12)  # takes no space on the disk
    expect_error(lambda: reading.read_text(path), path, "has 1,000,000.0 MB", "at most 64.0 MB")
    assert reading.read_bytes(Path(__file__)) == Path(__file__).read_bytes()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff", "not UTF-8 at byte 0"),
        (b"ab\0c", "a NUL at byte 2"),
        ("{}".encode("utf-16-le"), "a NUL at byte 1"),
        (b"{", "not JSON (Expecting property name"),
        (b"[" * 100_000, "not JSON (nested too deeply)"),
        (b"9" * 10_000, "not JSON (Exceeds the limit"),
        (b"[1]", "holds no JSON object"),
    ],
)
def test_broken_json_is_one_line(expect_error, tmp_path, content: bytes, problem: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    expect_error(lambda: reading.read_json_object(path, "restore it"), path, problem)
    assert files.read_json(path) is None or content == b"[1]"


def test_the_error_has_the_class_that_the_caller_asks_for(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"gone\.json: cannot be read: No such file"):
        reading.read_json(tmp_path / "gone.json", error=RunError)


def test_whatever_goes_wrong_inside_the_boundary_names_the_file() -> None:
    for cause, reason in (
        (KeyError("x"), "KeyError 'x'"),
        (ValueError("two\nlines of it"), "two"),
        (MemoryError(), "asks for more memory than there is"),
        (RecursionError(), "nested too deeply"),
        (OSError(22, "Invalid argument"), "is broken (Invalid argument)"),
        (ValueError("many " * 1000), "many many"),
    ):
        with pytest.raises(DataError) as caught, reading.boundary("a.bin", "is broken", "mend it"):
            raise cause
        line = str(caught.value)
        assert line.startswith("a.bin: is broken (") and reason in line and "\n" not in line
        assert line.endswith("(mend it)") and len(line) < 300
    with pytest.raises(RunError, match="kept"), reading.boundary("a", "b", "c"):
        raise RunError("d", "kept", "as it is")


# ---- arrays


def npz_bytes(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def npy_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def zip_bytes(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def test_arrays_are_read_back_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    arrays = {"ids": np.array(["a", "b"]), "values": np.arange(6, dtype=np.float32).reshape(2, 3)}
    files.write_npz(path, arrays)
    loaded = reading.read_npz(path, "")
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype
    assert list(tmp_path.iterdir()) == [path]


ZEROS = npz_bytes(values=np.zeros(1000))
HEADER = npy_bytes(np.zeros(3))[:128]
BROKEN = {
    "empty": b"",
    "text": b"no archive",
    "cut short": ZEROS[:-30],
    "damaged": ZEROS[:60] + b"\xff" * 20 + ZEROS[80:],
    "a single array": npy_bytes(np.zeros(3)),
    "objects": npz_bytes(values=np.array([{}, None], dtype=object)),
    "no archive behind its first bytes": b"PK\x03\x04" + b"\0" * 60,
    "a member that is no array": zip_bytes(values=b"#!/bin/sh"),
    "a header of another size": zip_bytes(values=npy_bytes(np.zeros(9))[:-8]),
    "a header of 4 GB": zip_bytes(values=b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 100),
    "a negative shape": zip_bytes(values=HEADER.replace(b"(3,), }", b"(-3,),}")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_npz_file_is_one_line(expect_error, tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(BROKEN[name])
    expect_error(lambda: reading.read_npz(path, "write it again"), path, "write it again")


def test_a_zip_bomb_is_refused_by_its_headers(expect_error, tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    path.write_bytes(npz_bytes(values=np.zeros(5_000_000, np.uint8)))
    assert path.stat().st_size < 10_000

    def read_limited() -> object:
        return reading.read_npz(path, "", max_bytes=1_000_000)

    expect_error(read_limited, path, "has 5.0 MB", "at most 1.0 MB")
    assert len(reading.read_npz(path, "")["values"]) == 5_000_000


# ---- links and names


def test_a_link_out_of_the_folder_is_named(expect_error, tmp_path: Path) -> None:
    home, outside = tmp_path / "data", tmp_path / "secret.txt"
    (home / "texts").mkdir(parents=True)
    outside.write_text("a secret")
    (home / "texts/1.txt").write_text("a person bows")
    (home / "texts/2.txt").symlink_to(home / "texts/1.txt")
    (home / "texts/3.txt").symlink_to(outside)
    (home / "texts/4.txt").symlink_to("3.txt")  # by way of another link
    for name in ("1", "2"):
        reading.check_inside(home / f"texts/{name}.txt", home)
    for name in ("3", "4"):
        path = home / f"texts/{name}.txt"
        expect_error(
            lambda path=path: reading.check_inside(path, home), path, str(outside), "--follow_links"
        )


def test_a_folder_that_is_a_link_is_a_home_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/1.txt").write_text("a person bows")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/texts").symlink_to(tmp_path / "disk")
    reading.check_inside(tmp_path / "data/texts/1.txt", tmp_path / "data")


def test_paths_in_files_stay_in_their_folder() -> None:
    for path in ("a", "a/b.pt", "..a/b"):
        assert reading.is_inner_path(path)
    for path in ("/etc/passwd", "../a", "a/../../b", "C:\\a", "\\\\host\\a", "a\\..\\..\\b"):
        assert not reading.is_inner_path(path)


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE])
def test_a_disk_that_fails_is_no_broken_file(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left out where it is broken is not left out where it cannot be read just now."""
    path = tmp_path / "a.txt"
    path.write_text("a")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "stat", refuse)
    for read in (reading.read_text, reading.is_file):
        with pytest.raises(MachineError, match=r"a.txt: cannot be read: .+ \(this is no fault of"):
            read(path)
    with pytest.raises(MachineError), reading.boundary(path, "is broken", "mend it"):
        refuse()
