"""A motion is read from any whole .npy file of numbers, and a broken one is named."""

import io
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motret.errors import DataError
from motret.formats.motion_files import motion_shape, parse_motion, read_motion


def motion(frames=20, columns=384):
    return np.linspace(-1, 1, frames * columns, dtype=np.float32).reshape(frames, columns)


def npy_bytes(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize("columns", [192, 384])
@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", "<f2", "<i4", "u1"])
def test_a_motion_of_any_number_type_becomes_float32(tmp_path, columns, dtype):
    raw = (motion(16, columns) * 100).astype("<i4").clip(0, 100).astype(dtype)
    np.save(tmp_path / "a.npy", raw)
    values = read_motion(tmp_path / "a.npy", min_frames=16)
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    assert values.flags.writeable
    np.testing.assert_array_equal(values, raw.astype(np.float32))
    assert motion_shape(tmp_path / "a.npy") == (16, columns)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_npy_version_and_order_is_read(version):
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy remarks on its newer versions
        np.lib.format.write_array(stream, np.asfortranarray(motion()), version=version)
    np.testing.assert_array_equal(parse_motion(stream.getvalue(), Path("a.npy")), motion())


BAD_MOTIONS = {
    "empty": (b"", "empty file"),
    "text": (b"0.1 0.2 0.3", "not an .npy file"),
    "npz": (b"PK\x03\x04" + b"\0" * 60, "not an .npy file"),
    "pickle": (pickle.dumps([1.0]), "not an .npy file"),
    "header cut": (npy_bytes(motion())[:40], "header is broken or cut short"),
    "unknown version": (
        b"\x93NUMPY\x09\x00" + npy_bytes(motion())[8:],
        "header is broken or cut short",
    ),
    "data cut": (
        npy_bytes(motion())[:-1],
        f"cut short: {128 + 20 * 384 * 4 - 1} bytes of {128 + 20 * 384 * 4}",
    ),
    "huge claim": (
        npy_bytes(motion())[:128].replace(b"(20, 384), }", b"(9999999999999, 384), }"),
        "cut short",
    ),
    "1-D": (npy_bytes(np.zeros(384, np.float32)), "1-D array (384,)"),
    "3-D": (npy_bytes(np.zeros((20, 22, 3), np.float32)), "3-D array (20, 22, 3)"),
    "columns": (
        npy_bytes(np.zeros((20, 262), np.float32)),
        "262 columns, expected 192 (persons: 1) or 384 (persons: 2)",
    ),
    "no frames": (npy_bytes(np.zeros((0, 384), np.float32)), "no frames"),
    "object": (
        npy_bytes(np.full((20, 384), None), allow_pickle=True),
        "object array, which is never unpickled",
    ),
    "strings": (npy_bytes(np.full((20, 384), "a")), "values of type <U1"),
    "complex": (npy_bytes(np.zeros((20, 384), np.complex64)), "values of type complex64"),
    "records": (npy_bytes(np.zeros((20, 384), [("x", "<f4")])), "values of type"),
}


@pytest.mark.parametrize("name", BAD_MOTIONS)
def test_a_broken_motion_is_named_by_data_and_by_header(expect_error, tmp_path, name):
    data, problem = BAD_MOTIONS[name]
    path = tmp_path / "00007.npy"
    path.write_bytes(data)
    for read in (read_motion, motion_shape):
        expect_error(lambda read=read: read(path), path, problem, "leave it out")


@pytest.mark.parametrize(
    ("value", "text"),
    [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (1e30, "1e+30 is no coordinate")],
)
def test_the_first_value_that_is_no_number_is_named(expect_error, value, text):
    raw = motion().astype(np.float64)
    raw[3, 7] = value
    raw[3, 9] = raw[11, 0] = np.nan
    expect_error(
        lambda: parse_motion(npy_bytes(raw), Path("a.npy")),
        "a.npy",
        text,
        "frame 3, column 7",
        "leave it out",
    )


def test_a_motion_that_is_too_short_is_an_error(expect_error):
    data = npy_bytes(motion(5))
    assert len(parse_motion(data, Path("a.npy"), min_frames=5)) == 5
    expect_error(
        lambda: parse_motion(data, Path("a.npy"), min_frames=6),
        "a.npy",
        "5 frames, at least 6",
        "a shorter patch",
    )


def test_an_object_array_is_not_unpickled(expect_error, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    expect_error(
        lambda: parse_motion(
            npy_bytes(np.full((20, 384), Trap()), allow_pickle=True), Path("a.npy")
        ),
        "a.npy",
        "object array",
    )
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("read", [read_motion, motion_shape])
def test_a_missing_motion_is_named(expect_error, tmp_path, read):
    path, problem = tmp_path / "gone", "cannot be read: No such file"
    expect_error(lambda: read(path), path, problem, "check that it is there")


@given(st.integers(0, 200), st.binary(min_size=1, max_size=4))
def test_any_damage_gives_a_motion_or_an_error(offset, damage):
    data = npy_bytes(motion(2, 192))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy remarks on headers of old Python
        try:
            values = parse_motion(
                data[:offset] + damage + data[offset + len(damage) :], Path("a.npy")
            )
        except DataError as error:
            assert str(error).startswith("a.npy: ")
        else:
            assert values.shape[1] in (192, 384)
            assert np.isfinite(values).all()
