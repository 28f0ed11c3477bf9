"""An index is whole whenever it is opened: while it is written, and after a kill."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from motret.errors import WriteError
from motret.search import index_files
from motret.search.index_files import (
    Manifest,
    ModelIdentity,
    check_index,
    encode,
    open_index,
    open_writer,
)
from motret.utils import files, locks

DIM = 8
MODEL = ModelIdentity("waves", ("fold0",), ("c0",), ("text weights 1",))
NEW = Manifest("int8", DIM, MODEL)


def unit_vectors(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def add(folder: Path, count: int, seed: int = 0, new: Manifest = NEW) -> None:
    """Adds motions named `seed-number`."""
    ids = [f"{seed}-{number}" for number in range(count)]
    with open_writer(folder, new) as writer:
        writer.append(ids, [f"{name}.npy" for name in ids], folder, unit_vectors(count, seed))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index of 3 + 5 motions in two shards."""
    add(tmp_path / "index", 3)
    add(tmp_path / "index", 5, seed=1)
    return tmp_path / "index"


@pytest.mark.parametrize(("numbers", "error"), [("int8", 1 / 254), ("float16", 1e-3)])
def test_what_was_added_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: str, error: float
) -> None:
    monkeypatch.setattr(index_files, "SHARD_ROWS", 4)  # the last shard is not full
    add(tmp_path / "index", 10, new=Manifest(numbers, DIM, MODEL))
    index = open_index(tmp_path / "index")
    assert (index.rows, [shard.entry.rows for shard in index.shards]) == (10, [4, 4, 2])
    rows = np.array([9, 0, 5])
    np.testing.assert_allclose(index.vectors(rows), unit_vectors(10)[rows], atol=error)
    ids, paths = index.names(rows)
    assert ids == ["0-9", "0-0", "0-5"] and paths[0] == tmp_path / "index" / "0-9.npy"
    assert check_index(index) == []


def test_names_may_be_of_any_characters(tmp_path: Path) -> None:
    ids = ["a b", "взмах", "\udcff"]
    with open_writer(tmp_path / "index", NEW) as writer:
        writer.append(ids, ids, tmp_path, unit_vectors(3))
        assert writer.missing(["new", *ids]) == [0]
    assert open_index(tmp_path / "index").names(np.arange(3))[0] == ids


@given(
    arrays.arrays(np.float32, (4, DIM), elements=st.floats(-2, 2, width=32)),
    arrays.arrays(np.float32, DIM, elements=st.floats(-2, 2, width=32)),
)
def test_a_product_with_int8_is_within_its_bound(vectors: np.ndarray, query: np.ndarray) -> None:
    stored = encode(vectors, "int8")
    products = (stored["vectors"].astype(np.float64) * stored["scales"][:, None]) @ query
    bound = stored["scales"] / 2 * np.abs(query).sum() + 1e-5
    assert (np.abs(products - vectors.astype(np.float64) @ query) <= bound).all()


def test_a_vector_that_is_not_finite_is_refused(folder: Path) -> None:
    vectors = unit_vectors(1)
    vectors[0, 0] = np.nan
    with open_writer(folder) as writer, pytest.raises(ValueError, match="not finite"):
        writer.append(["x"], ["x.npy"], folder, vectors)
    assert open_index(folder).rows == 8


# ---- while it is written


def test_a_reader_keeps_what_it_opened_while_motions_are_added(folder: Path) -> None:
    before = open_index(folder)
    add(folder, 4, seed=2)
    assert (before.rows, open_index(folder).rows) == (8, 12)
    np.testing.assert_array_equal(
        before.vectors(np.arange(8)), open_index(folder).vectors(np.arange(8))
    )
    assert before.names(np.array([7]))[0] == ["1-4"]


def test_a_second_writer_is_told_at_once(folder: Path) -> None:
    with open_writer(folder), pytest.raises(WriteError, match="another process is writing"):
        add(folder, 1, seed=2)
    add(folder, 1, seed=2)
    assert open_index(folder).rows == 9


def test_without_locks_no_writer_undoes_what_another_added(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    with open_writer(folder) as slow:
        add(folder, 2, seed=2)
        with pytest.raises(WriteError, match="another process has added"):
            slow.append(["x"], ["x.npy"], folder, unit_vectors(1))
    assert open_index(folder).rows == 10


@pytest.mark.parametrize("operation", ["new_dir", "write_json", "flush_to_disk"])
def test_a_write_that_fails_leaves_the_index_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise WriteError(folder, "the disk is full", "make room")

    with monkeypatch.context() as patch:
        patch.setattr(files, operation, refuse)
        with pytest.raises(WriteError):
            add(folder, 2, seed=2)
    index = open_index(folder)
    assert index.rows == 8
    left = check_index(index)
    assert len(left) == (operation == "write_json")  # a shard that no list names
    add(folder, 2, seed=2)
    assert open_index(folder).rows == 10 and check_index(open_index(folder)) == []


WRITER = """
import sys
sys.path[:0] = {path}
import numpy as np
from pathlib import Path
from motret.search import index_files
from test_index_files import add
index_files.SHARD_ROWS = 2
for seed in range(100):
    add(Path({folder!r}), 4, seed)
    print(seed, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 2, 5])
def test_a_killed_writer_leaves_whole_shards(tmp_path: Path, lines: int) -> None:
    """The process dies after so many additions, wherever it then is in the next one."""
    folder, path = tmp_path / "index", [*sys.path, str(Path(__file__).parent)]
    code = WRITER.format(path=path, folder=str(folder))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        index = open_index(folder)  # read while it is written
        check_index(index)
        os.kill(process.pid, signal.SIGKILL)
    index = open_index(folder)
    check_index(index)
    assert index.rows >= 4 * lines and index.rows % 2 == 0
    add(folder, 3, seed=1000)
    assert check_index(open_index(folder)) == []
    temporary = list((folder / "shards").glob(f"*{files.TMP_MARK}*"))
    files._looked_through.clear()  # as in a process that begins
    add(folder, 3, seed=1001)
    assert len(list((folder / "shards").glob(f"*{files.TMP_MARK}*"))) <= len(temporary)


# ---- faults, each in one line


def truncate(shard: Path) -> Path:
    path = shard / "vectors.npy"
    path.write_bytes(path.read_bytes()[:-1])
    return path


def remove_scales(shard: Path) -> Path:
    path = shard / "scales.npy"
    path.unlink()
    return path


def write_other_rows(shard: Path) -> Path:
    path = shard / "vectors.npy"
    np.save(path, np.zeros((2, DIM), np.int8))
    return path


def write_other_numbers(shard: Path) -> Path:
    path = shard / "vectors.npy"
    np.save(path, np.zeros((5, DIM), np.float64))
    return path


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (truncate, "bytes of"),
        (remove_scales, "is missing"),
        (write_other_rows, "where 5 rows are listed"),
        (write_other_numbers, "its vectors are float64"),
    ],
)
def test_a_broken_shard_is_named(
    folder: Path, spoil: Callable[[Path], Path], words: str, expect_error: Callable
) -> None:
    path = spoil(open_index(folder).shards[1].folder)
    expect_error(lambda: open_index(folder), path, words, "build the index again")


def test_the_check_finds_a_changed_byte(folder: Path, expect_error: Callable) -> None:
    shard = open_index(folder).shards[0].folder
    content = bytearray((shard / "vectors.npy").read_bytes())
    content[-1] ^= 1
    (shard / "vectors.npy").write_bytes(content)
    expect_error(lambda: check_index(open_index(folder)), shard, "not what was written")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", 9),
        ("numbers", "float8"),
        ("dim", 0),
        ("model", None),
        ("shards", [{"name": "../x", "rows": 1, "folder": ".", "digest": ""}]),
        ("shards", [{"name": "x", "rows": -1, "folder": ".", "digest": ""}]),
        ("shards", 3),
        ("approximate", {"file": "a.faiss", "rows": 9, "digest": ""}),
    ],
)
def test_a_list_of_another_form_is_refused(
    folder: Path, name: str, value: object, expect_error: Callable
) -> None:
    path = folder / "index.json"
    content = json.loads(path.read_text(encoding="utf-8")) | {name: value}
    path.write_text(json.dumps(content), encoding="utf-8")
    expect_error(lambda: open_index(folder), path, "is no list of an index")


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path, expect_error: Callable) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    expect_error(lambda: add(tmp_path, 1), tmp_path, "holds something else")
    expect_error(lambda: open_index(tmp_path), tmp_path, "is no index")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (ModelIdentity("bows", ("fold0",), ("c0",), ("text weights 1",)), "not bows (fold0)"),
        (ModelIdentity("waves", ("full",), ("c0",), ("text weights 1",)), "not waves (full)"),
        (ModelIdentity("waves", ("fold0",), ("c1",), ("text weights 1",)), "trained again"),
        (ModelIdentity("waves", ("fold0",), ("c0",), ("text weights 2",)), "another text tower"),
    ],
)
def test_vectors_of_another_model_are_not_added(
    folder: Path, model: ModelIdentity, words: str, expect_error: Callable
) -> None:
    expect_error(lambda: add(folder, 1, 2, Manifest("int8", DIM, model)), folder, words)
    assert open_index(folder).rows == 8


def test_other_numbers_are_not_added(folder: Path, expect_error: Callable) -> None:
    new = Manifest("float16", DIM, MODEL)
    expect_error(lambda: add(folder, 1, 2, new), folder, "an index of int8, not float16")
