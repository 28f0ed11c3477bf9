"""Packed features: whole or absent, made once for each content, and what bad files do to them."""

import io
import os
import shutil
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch

from helpers import data_settings, load, motion, write_data
from motret import skeleton
from motret.config.base import DataConfig
from motret.data import dataset, feature_store, features
from motret.data.feature_store import FeatureStore
from motret.data.features import FeatureConfig
from motret.errors import DataError
from motret.formats import motion_files
from motret.utils import files
from motret.utils.process_tokens import process_token

IDS = ("00001", "00002", "00003", "00004", "00005")
SETTINGS = FeatureConfig()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", IDS)


def paths_of(root: Path) -> list[Path]:
    return sorted((root / "motions").iterdir())


def pack(
    root: Path, config: FeatureConfig = SETTINGS, jobs: int = 1, **how
) -> tuple[FeatureStore, bool]:
    paths = paths_of(root)
    data = DataConfig(work_dir=root.parent / "work", **{"min_frames": 1, "strict": True} | how)
    ids = [path.stem for path in paths]
    return feature_store.build_feature_cache(ids, paths, config, data, jobs=jobs)


def stores(root: Path) -> set[str]:
    """What in the work folder can be taken for a store."""
    return {marker.parent.name for marker in (root.parent / "work").rglob("store.json")}


def leftovers(root: Path) -> list[str]:
    return [path.name for path in (root.parent / "work").iterdir() if path.name.startswith(".")]


def no_reading(*_, **__):
    raise AssertionError("a file was read")


# ---- what is packed


def test_every_motion_has_its_own_features(root: Path) -> None:
    packed, _ = pack(root)
    assert packed.ids == IDS and packed.persons == 2 and packed.features.dtype == np.float16
    for index, path in enumerate(paths_of(root)):
        raw = np.load(path)
        expected = features.make_features(*skeleton.split_columns(raw), np.array([0]), SETTINGS)
        np.testing.assert_allclose(packed.motion(index), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("chunk", [1, 2])
def test_the_pieces_that_workers_take_do_not_show(
    root: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = pack(root)
    before = np.array(whole.features), whole.folder
    shutil.rmtree(root.parent / "work")
    monkeypatch.setattr(feature_store, "CHUNK", chunk)
    with joblib.parallel_config(backend="threading"):
        pieces, reused = pack(root, jobs=2)
    assert not reused and pieces.folder == before[1] and pieces.ids == IDS
    np.testing.assert_array_equal(pieces.features, before[0])


def test_one_person_files_are_packed_as_one_person(tmp_path: Path) -> None:
    data = write_data(
        tmp_path / "data", {name: motion(20, persons=1, seed=seed) for seed, name in enumerate(IDS)}
    )
    packed, _ = pack(data)
    assert (
        packed.persons == 1
        and packed.features.shape[-1] == features.feature_width(1)
        and "relation" not in packed.columns
    )


def test_numbers_beyond_half_precision_stay_finite(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", {"1": motion(20) * 1e6})
    assert np.isfinite(np.array(pack(data)[0].features)).all()


@pytest.mark.parametrize("up", ["+z", "-x"])
def test_the_up_axis_of_a_data_folder_is_found_in_spite_of_broken_files(
    tmp_path: Path, up: str
) -> None:
    motions = {}
    for seed, name in enumerate(IDS):
        positions, rotations = skeleton.split_columns(motion(20, seed=seed))
        positions = (
            positions[..., [2, 0, 1]]
            if up == "+z"
            else positions[..., [1, 0, 2]] * np.array([-1, 1, 1], dtype=np.float32)
        )
        motions[name] = skeleton.join_columns(positions, rotations)
    data = load(write_data(tmp_path / "data", motions | {"00000": np.full((20, 384), np.nan)}))
    assert data.store.config.up == up
    upright = load(
        write_data(
            tmp_path / "upright" / "data",
            {name: motion(20, seed=seed) for seed, name in enumerate(IDS)},
        )
    )
    np.testing.assert_allclose(data.store.motion(2), upright.store.motion(2), atol=0.02)


# ---- made once


def test_a_packed_store_opens_again_without_a_file_being_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, reused = pack(root)
    assert not reused
    for name in ("parse_motion", "read_motion", "motion_shape"):
        monkeypatch.setattr(motion_files, name, no_reading)
    monkeypatch.setattr(Path, "read_bytes", no_reading)
    again, reused = pack(root)
    assert reused and again.folder == first.folder and again.config == first.config
    assert (again.ids, again.digests, again.skipped) == (first.ids, first.digests, first.skipped)
    for name in ("offsets", "lengths", "features"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))


def test_changed_content_gets_a_new_key_even_at_the_same_size(root: Path) -> None:
    before, _ = pack(root)
    old = before.motion(2).copy()
    np.save(paths_of(root)[2], motion(int(before.lengths[2]), seed=77))
    after, reused = pack(root)
    assert not reused and after.folder != before.folder
    assert not np.array_equal(after.motion(2), old) and np.array_equal(
        feature_store.open_feature_store(before.folder).motion(2), old
    )


def test_the_same_content_written_anew_keeps_its_key(root: Path) -> None:
    before, _ = pack(root)
    path = paths_of(root)[2]
    path.write_bytes(path.read_bytes())
    os.utime(path, (1, 1))
    after, reused = pack(root)
    assert not reused and after.folder == before.folder and stores(root) == {before.folder.name}
    assert pack(root)[1]


def test_the_same_data_elsewhere_has_the_same_key(root: Path) -> None:
    before, _ = pack(root)
    moved = root.rename(root.with_name("moved"))
    assert pack(moved)[0].folder == before.folder


@pytest.mark.parametrize("changes", [{"fps": 25.0}, {"rotations": False}, {"up": "+z"}])
def test_other_feature_settings_have_another_key(root: Path, changes: dict) -> None:
    before, _ = pack(root)
    after, _ = pack(root, FeatureConfig(**changes))
    assert (
        after.folder != before.folder
        and after.config
        == FeatureConfig(**changes)
        == feature_store.open_feature_store(after.folder).config
    )


def test_other_ids_have_another_key(root: Path) -> None:
    before, _ = pack(root)
    paths_of(root)[0].rename(root / "motions" / "00009.npy")
    assert pack(root)[0].folder != before.folder


def test_another_version_of_the_features_has_another_key(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = pack(root)
    monkeypatch.setattr(feature_store, "FEATURE_VERSION", features.FEATURE_VERSION + 1)
    after, reused = pack(root)
    assert not reused and after.folder != before.folder


# ---- broken off


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["make_features", "files.write_json", "np.savez"])
def test_a_pack_that_breaks_off_leaves_nothing_that_looks_like_a_store(
    root: Path, place: str, fault: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_, **__):
        raise fault("broken off")

    with monkeypatch.context() as broken:
        broken.setattr(f"motret.data.feature_store.{place}", breaks)
        with pytest.raises(fault):
            pack(root)
    assert not stores(root) and not leftovers(root)
    packed, reused = pack(root)
    assert not reused and packed.ids == IDS


def test_half_a_store_under_the_right_name_is_made_whole(root: Path) -> None:
    packed, _ = pack(root)
    before = np.array(packed.features)
    (packed.folder / "store.json").unlink()
    again, reused = pack(root)
    assert not reused and again.folder == packed.folder
    np.testing.assert_array_equal(again.features, before)


def test_a_store_that_was_deleted_is_made_again(root: Path) -> None:
    packed, _ = pack(root)
    shutil.rmtree(packed.folder)
    again, reused = pack(root)
    assert not reused and again.folder == packed.folder and again.ids == IDS


def test_what_dead_processes_left_is_swept_and_what_live_ones_build_is_not(root: Path) -> None:
    host, pid, start = process_token().split("-")
    dead, alive = f"{host}-{pid}-{int(start) + 1}", f"{host}-{pid}-{start}"
    elsewhere = f"{'0' * 8}-{pid}-{start}"
    for token in (dead, alive, elsewhere):
        (root.parent / "work" / f".packing.tmp-{token}.x").mkdir(parents=True)
    pack(root)
    assert sorted(leftovers(root)) == sorted(
        f".packing.tmp-{token}.x" for token in (alive, elsewhere)
    )


def test_a_file_is_written_whole_or_the_old_one_stays(tmp_path: Path) -> None:
    target = tmp_path / "made" / "file.txt"
    files.atomic_write(target, lambda path: path.write_text("old"))

    def breaks(path: Path) -> None:
        path.write_text("ne")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.atomic_write(target, breaks)
    assert target.read_text() == "old" and list(target.parent.iterdir()) == [target]


# ---- bad files


def spoil(path: Path, how: str) -> None:
    raw = np.load(path)
    if how == "NaN":
        raw[3, 5] = np.nan
        np.save(path, raw)
    elif how == "columns":
        np.save(path, raw[:, :383])
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "object":
        np.save(path, np.array([{"no": "motion"}]), allow_pickle=True)
    elif how == "short":
        np.save(path, raw[:3])
    elif how == "one person":
        np.save(path, raw[:, :192])


SPOILT = {
    "NaN": "nan at frame 3, column 5",
    "columns": "383 columns",
    "truncated": "cut short",
    "object": "object array",
    "short": "3 frames, at least 6",
    "one person": "192 columns where most motions have 384",
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_bad_training_file_is_left_out_and_listed(root: Path, how: str) -> None:
    whole = load(root)
    usable = {index: whole.store.motion(index).copy() for index in (0, 2, 3, 4)}
    spoil(paths_of(root)[1], how)
    for data in (load(root), load(root)):  # packed, and as packed before
        assert data.training.ids == data.store.ids == tuple(IDS[index] for index in usable)
        assert [path.stem for path in data.training.paths] == list(data.training.ids)
        assert data.training.captions == tuple((f"scene {name}",) for name in data.training.ids)
        (skip,) = data.training.skipped
        assert skip.file == str(paths_of(root)[1]) and SPOILT[how] in skip.problem
        for index, features_before in enumerate(usable.values()):
            np.testing.assert_array_equal(data.store.motion(index), features_before)
    assert data.cache_hit and data.fingerprint != whole.fingerprint


def test_a_file_that_another_writes_to_meanwhile_is_left_out(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing, real = paths_of(root)[1], motion_files.motion_shape

    def shape(path: Path) -> tuple[int, int]:
        frames, columns = real(path)
        return frames + (path == changing), columns

    monkeypatch.setattr(motion_files, "motion_shape", shape)
    packed, _ = pack(root, strict=False)
    (skip,) = packed.skipped
    assert skip.file == str(changing) and "changed while it was read" in skip.problem
    assert packed.ids == (IDS[0], *IDS[2:])
    raw = np.load(paths_of(root)[2])
    expected = features.make_features(*skeleton.split_columns(raw), np.array([0]), SETTINGS)
    np.testing.assert_allclose(packed.motion(1), expected, rtol=1e-3, atol=1e-4)


def test_packing_leaves_torch_its_threads(root: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        pack(root)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("how", SPOILT)
def test_a_bad_training_file_is_fatal_under_strict_and_nothing_is_left(
    root: Path, how: str
) -> None:
    spoil(paths_of(root)[1], how)
    with pytest.raises(DataError) as caught:
        load(root, strict=True)
    assert caught.value.path == str(paths_of(root)[1]) and SPOILT[how] in caught.value.problem
    assert not stores(root) and not leftovers(root)


def test_strict_is_not_softened_by_what_was_packed_without_it(root: Path) -> None:
    spoil(paths_of(root)[1], "NaN")
    load(root)
    with pytest.raises(DataError):
        load(root, strict=True)


def test_many_bad_files_are_all_listed_whoever_reads_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_store, "CHUNK", 1)
    for index, how in ((0, "truncated"), (1, "NaN"), (3, "short")):
        spoil(paths_of(root)[index], how)
    data = load(root)
    assert data.training.ids == ("00003", "00005")
    assert {Path(skip.file).stem for skip in data.training.skipped} == {"00001", "00002", "00004"}


@pytest.mark.parametrize("how", ["NaN", "truncated"])
def test_no_usable_motion_at_all_is_fatal_and_names_the_first_fault(root: Path, how: str) -> None:
    for path in paths_of(root):
        spoil(path, how)
    with pytest.raises(DataError, match="no usable motion") as caught:
        load(root)
    assert "00001.npy" in caught.value.fix and SPOILT[how] in caught.value.fix


# ---- data folders


def test_the_fingerprint_follows_motions_captions_and_groups_and_nothing_else(
    tmp_path: Path,
) -> None:
    def fingerprint(folder: str, **changes) -> str:
        root = write_data(
            tmp_path / folder / "data",
            **{"motions": {name: motion(20, seed=int(name)) for name in IDS}, **changes},
        )
        os.utime(paths_of(root)[0], (len(folder), 5))
        return load(root).fingerprint

    plain = fingerprint("plain")
    assert fingerprint("copy") == plain
    groups = dict.fromkeys(IDS, "g")
    others = [
        fingerprint(
            "motion", motions={name: motion(20, seed=int(name) + (name == IDS[3])) for name in IDS}
        ),
        fingerprint("caption", captions={IDS[0]: ["other"]}),
        fingerprint("fewer", motions={name: motion(20, seed=int(name)) for name in IDS[:4]}),
        fingerprint("groups", groups=groups),
        fingerprint("regrouped", groups=groups | {IDS[0]: "h"}),
    ]
    assert len({plain, *others}) == 1 + len(others)


def write_queries(folder: Path, sources: dict[str, list[Path]], link: bool) -> Path:
    for query, paths in sources.items():
        (folder / query).mkdir(parents=True)
        (folder / query / "text.txt").write_text("they meet\n")
        for number, path in enumerate(paths, start=1):
            (os.link if link else shutil.copy)(path, folder / query / f"motion_{number}.npy")
    return folder


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("link", [True, False])
def test_hard_links_share_a_row_and_copies_do_not(root: Path, link: bool) -> None:
    a, b, c = paths_of(root)[:3]
    folder = write_queries(root / "test", {"1": [a, b], "2": [c, a, b]}, link)
    test = dataset.load_test(folder, SETTINGS, data_settings(root), jobs=1)
    assert [indices.tolist() for indices in test.candidate_idx] == (
        [[0, 1], [2, 0, 1]] if link else [[0, 1], [2, 3, 4]]
    )
    training = pack(root)[0]
    for indices, sources in zip(test.candidate_idx, ([0, 1], [2, 0, 1]), strict=True):
        for index, source in zip(indices, sources, strict=True):
            np.testing.assert_array_equal(test.store.motion(index), training.motion(source))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("how", SPOILT)
def test_a_bad_candidate_is_fatal_under_strict(root: Path, how: str) -> None:
    folder = write_queries(root / "test", {"1": paths_of(root)}, link=False)
    spoil(folder / "1" / "motion_2.npy", how)
    with pytest.raises(DataError) as caught:
        dataset.load_test(folder, SETTINGS, data_settings(root, strict=True), jobs=1)
    assert (
        caught.value.path == str(folder / "1" / "motion_2.npy")
        and SPOILT[how] in caught.value.problem
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("how", SPOILT)
def test_a_bad_candidate_is_repaired_or_has_no_row(
    root: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_queries(root / "test", {"1": paths_of(root)}, link=False)
    whole = dataset.load_test(folder, SETTINGS, data_settings(root), jobs=1)
    assert "candidate motions" not in capsys.readouterr().out
    bad = folder / "1" / "motion_2.npy"
    spoil(bad, how)
    for _ in range(2):  # packed, and as packed before
        test = dataset.load_test(folder, SETTINGS, data_settings(root), jobs=1)
        lines = [line for line in capsys.readouterr().out.splitlines() if line]
        assert (
            lines[0].startswith(f"{bad}: ")
            and SPOILT[how].partition(",")[0] in lines[0]
            and "--strict stops" in lines[1]
            and len(lines) == 2
        )
        if how in ("NaN", "short"):
            assert (
                test.candidate_idx[0].tolist() == [0, 1, 2, 3, 4]
                and "1 candidate motions were repaired, 0 cannot" in lines[1]
            )
        else:
            assert test.candidate_idx[0].tolist() == [0, -1, 1, 2, 3] and lines[0].endswith(
                ": ranked last"
            )
        for index, position in zip(test.candidate_idx[0], range(5), strict=True):
            if position != 1:
                np.testing.assert_array_equal(
                    test.store.motion(index), whole.store.motion(position)
                )


def test_values_are_filled_in_over_time_and_short_motions_held() -> None:
    raw = np.tile(np.arange(8, dtype=np.float32)[:, None], (1, 192))
    raw[[0, 3, 4, 7], 5], raw[2, 9] = (np.nan, np.inf, -np.inf, np.nan), np.nan
    stream = io.BytesIO()
    np.save(stream, raw)
    repairs: list[str] = []
    motion_ = motion_files.parse_motion(stream.getvalue(), Path("a.npy"), 10, repairs)
    assert (
        motion_[:8, 5].tolist() == [1, 1, 2, 3, 4, 5, 6, 6]
        and motion_[:8, 9].tolist() == list(range(8))
        and motion_.shape == (10, 192)
    )
    assert (motion_[8:] == motion_[7]).all()
    assert repairs == [
        "nan at frame 0, column 5 (from 0), 5 frames interpolated from their neighbours",
        "8 frames, the last one repeated up to 10",
    ]
    raw[:, 5] = np.nan
    np.save(stream := io.BytesIO(), raw)
    with pytest.raises(DataError, match="nan at frame 0"):
        motion_files.parse_motion(stream.getvalue(), Path("a.npy"), 1, [])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_candidate_that_is_a_link_to_nothing_has_no_row(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_queries(root / "test", {"1": paths_of(root)}, link=False)
    lost = folder / "1" / "motion_2.npy"
    lost.unlink()
    lost.symlink_to(root / "gone.npy")
    with pytest.raises(DataError, match="cannot be read") as caught:
        dataset.load_test(folder, SETTINGS, data_settings(root, strict=True), jobs=1)
    assert caught.value.path == str(lost)
    assert dataset.load_test(folder, SETTINGS, data_settings(root), jobs=1).candidate_idx[
        0
    ].tolist() == [0, -1, 1, 2, 3]
    assert f"{lost}: cannot be read" in capsys.readouterr().out


DAMAGED_STORES = {
    "features.npy gone": lambda folder, key: (folder / "features.npy").unlink(),
    "features.npy short": lambda folder, key: cut_short(folder / "features.npy"),
    "index.npz short": lambda folder, key: cut_short(folder / "index.npz"),
    "store.json short": lambda folder, key: cut_short(folder / "store.json"),
    "store.json of another kind": lambda folder, key: (folder / "store.json").write_text("[]"),
    "rubbish in seen": lambda folder, key: key.write_bytes(b"\xff\0"),
    "a path in seen": lambda folder, key: key.write_text("../../elsewhere"),
}


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", DAMAGED_STORES)
def test_a_spoilt_store_is_packed_again_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    data = write_data(tmp_path / "data", IDS)
    store, _ = pack(data)
    whole = np.array(store.features)
    (key,) = (store.folder.parent / "seen").iterdir()
    DAMAGED_STORES[name](store.folder, key)
    again, cache_hit = pack(data)
    np.testing.assert_array_equal(np.array(again.features), whole)
    message = capsys.readouterr().out
    assert not cache_hit and "packed again" in message and str(store.folder.parent) in message
    assert pack(data)[1]


# ---- a packing that is killed goes on


class KilledError(BaseException):
    """Stands for a signal."""


def packed_bytes(store: FeatureStore) -> bytes:
    return (store.folder / "features.npy").read_bytes()


@pytest.fixture
def small_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "CHUNK", 1)
    monkeypatch.setattr(feature_store, "RECORDED", 2)


def kill_at(monkeypatch: pytest.MonkeyPatch, root: Path, name: str) -> None:
    """Packs until the motion of this name is read."""
    pack_chunk = feature_store._pack_chunk

    def pack_or_die(target: Path, sources: list, *rest: object) -> list:
        if any(source.name == name for source in sources):
            raise KilledError
        return pack_chunk(target, sources, *rest)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(feature_store, "_pack_chunk", pack_or_die)
        pack(root, strict=False)


def read_names(monkeypatch: pytest.MonkeyPatch, root: Path) -> tuple[FeatureStore, list[str]]:
    """The store of a call, and the motions that it packed."""
    pack_chunk, names = feature_store._pack_chunk, []

    def pack_and_list(target: Path, sources: list, *rest: object) -> list:
        names.extend(source.name for source in sources)
        return pack_chunk(target, sources, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(feature_store, "_pack_chunk", pack_and_list)
        store, was_there = pack(root, strict=False)
    assert not was_there
    return store, names


def test_a_killed_packing_goes_on_and_ends_as_an_unbroken_one(
    root: Path, monkeypatch: pytest.MonkeyPatch, small_records: None
) -> None:
    raw = np.load(paths_of(root)[1])
    raw[3] = np.nan
    np.save(paths_of(root)[1], raw)  # what was left out is recorded too
    whole, _ = pack(root, strict=False)
    key, expected = whole.folder.name, packed_bytes(whole)
    shutil.rmtree(root.parent / "work")
    kill_at(monkeypatch, root, "00005")
    assert not stores(root)
    store, names = read_names(monkeypatch, root)
    assert names == ["00005"]
    assert store.folder.name == key and packed_bytes(store) == expected
    problems = [file.problem for file in store.skipped]
    assert problems == [file.problem for file in whole.skipped] and len(problems) == 1
    assert not list((root.parent / "work").glob("packing-*"))


def write_copy(root: Path, parent: Path) -> Path:
    return Path(shutil.copytree(root, parent / root.name))


def test_a_killed_packing_of_files_that_changed_begins_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, small_records: None
) -> None:
    kill_at(monkeypatch, root, "00005")
    np.save(paths_of(root)[0], motion(30, seed=99))
    store, names = read_names(monkeypatch, root)
    assert names == list(IDS)
    assert not list((root.parent / "work").glob("packing-*"))
    assert store.lengths[0] == 30


def test_features_that_were_lost_are_packed_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, small_records: None
) -> None:
    kill_at(monkeypatch, root, "00005")
    (packing,) = (root.parent / "work").glob("packing-*")
    (packing / "store" / "features.npy").unlink()
    assert read_names(monkeypatch, root)[1] == list(IDS)


def test_who_packs_the_same_meanwhile_has_a_folder_of_its_own(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, during = feature_store._build_store, []

    def build_twice(*args: object) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(feature_store, "_build_store", build)
            during.append(pack(root)[0])
        return build(*args)

    monkeypatch.setattr(feature_store, "_build_store", build_twice)
    store, _ = pack(root)
    assert store.folder == during[0].folder and packed_bytes(store) == packed_bytes(during[0])
    assert len(stores(root)) == 1 and not list((root.parent / "work").glob("*packing*"))


def test_processes_pack_what_threads_pack(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_records: None
) -> None:
    whole, _ = pack(write_copy(root, tmp_path / "copy"))
    monkeypatch.setattr(feature_store, "PROCESSES_FROM", 1)
    store, _ = pack(root, jobs=2)
    assert store.folder.name == whole.folder.name and packed_bytes(store) == packed_bytes(whole)
