"""index.py, and search.py over what it built."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import helpers
import index
import search
from motret.config.base import DataConfig, MachineConfig
from motret.config.scripts import SearchConfig
from motret.runs import provenance
from motret.search import approximate, index_files
from motret.search import build as build_module
from motret.search import search as search_module
from motret.search.index_files import open_index


@pytest.fixture(scope="module")
def out_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two folds, and one of another seed."""
    folder = tmp_path_factory.mktemp("runs")
    assert helpers.run_training(folder, "whole", epochs=1) == 0
    assert helpers.run_training(folder, "other", epochs=1, fold=0) == 0
    return folder


def run(command: str, folder: Path, out_dir: Path, **values: object) -> int:
    flags = helpers.flags(out_dir=out_dir, **values)
    return index.main([command, str(folder), *helpers.places(), *flags])


def find(out_dir: Path, text: str, **values: object) -> search_module.SearchResult:
    data = helpers.challenge()
    places = DataConfig(
        data_dir=data, work_dir=Path(f"{data}-work"), folds_dir=Path(f"{data}-folds")
    )
    machine = MachineConfig(device="cpu", jobs=1)
    config = SearchConfig(text=text, out_dir=out_dir, data=places, machine=machine, **values)
    return search_module.search(config)[1]


def half_folder(path: Path, start: int = 0) -> Path:
    """Links to every other motion of the challenge."""
    path.mkdir()
    for motion in sorted((helpers.challenge() / "motions").iterdir())[start::2]:
        (path / motion.name).symlink_to(motion)
    return path


@pytest.fixture(scope="module")
def built(out_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the training motions by both models of the run; no test may write to it."""
    folder = tmp_path_factory.mktemp("built") / "index"
    assert run("build", folder, out_dir, run="whole") == 0
    return folder


def test_an_index_ranks_as_its_folder_does(out_dir: Path, built: Path) -> None:
    text, motions = "someone waves", str(helpers.challenge() / "motions")
    result = find(out_dir, text, gallery=str(built), top=24)
    folder = find(out_dir, text, gallery=motions, run="whole")
    expected = dict(zip(folder.ids, folder.similarity, strict=True))
    assert set(result.ids) == set(folder.ids) and result.searched == 24
    assert result.model == folder.model == "whole, 2 models"
    similarity = [expected[name] for name in result.ids]
    np.testing.assert_allclose(result.similarity, similarity, atol=0.06)  # int8, z-scored
    assert result.paths[0] == Path(motions) / f"{result.ids[0]}.npy"


def test_float16_and_one_model_rank_as_they_are(out_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    assert run("build", folder, out_dir, run="other", models=0, numbers="float16") == 0
    result = find(out_dir, "both bow", gallery=str(folder), top=24)
    expected = find(out_dir, "both bow", gallery=str(helpers.challenge() / "motions"), run="other")
    similarity = dict(zip(expected.ids, expected.similarity, strict=True))
    np.testing.assert_allclose(
        result.similarity, [similarity[name] for name in result.ids], atol=0.01
    )


def test_search_prints_and_draws_the_best_of_an_index(
    out_dir: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = helpers.flags(out_dir=out_dir, gallery=built, top=3, out=tmp_path / "page.html")
    assert search.main(["two people wave", *helpers.places(), *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"24 motions of the index {built}, ranked by whole, 2 models"
    assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "3"]
    assert lines[1].split()[2] in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_motions_are_added_and_those_that_are_there_stay(
    out_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, half = tmp_path / "index", half_folder(tmp_path / "half")
    (half / "broken.npy").write_bytes(b"nothing")
    assert run("build", folder, out_dir, run="whole", motions=half) == 0
    printed = capsys.readouterr().out
    assert "12 motions of" in printed and "left out: 1, such as" in printed
    before = open_index(folder)
    assert run("add", folder, out_dir) == 0
    printed = capsys.readouterr().out
    assert "12 motions of" in printed and "12 were in the index before" in printed
    assert open_index(folder).shards[0].entry == before.shards[0].entry
    assert run("add", folder, out_dir) == 0
    assert "0 motions of" in capsys.readouterr().out
    assert run("check", folder, out_dir) == 0
    assert "whole, 24 motions in 2 shards, 16 x int8, embedded by whole" in capsys.readouterr().out


def test_a_build_that_was_broken_off_goes_on(
    out_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_module, "SHARD_ROWS", 5)
    embed, calls = build_module._embed, []

    def embed_twice(*args: object) -> object:
        calls.append(args)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return embed(*args)

    folder = tmp_path / "index"
    with monkeypatch.context() as patch:
        patch.setattr(build_module, "_embed", embed_twice)
        assert run("build", folder, out_dir, run="whole") == 130
    assert open_index(folder).rows == 10
    assert run("build", folder, out_dir) == 0
    index_whole = open_index(folder)
    assert [shard.entry.rows for shard in index_whole.shards] == [5, 5, 5, 5, 4]
    ids, _ = index_whole.names(np.arange(24))
    assert len(set(ids)) == 24


def test_a_query_embedded_by_another_model_is_refused(
    out_dir: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def search_line(runs: Path, **values: object) -> str:
        flags = helpers.flags(out_dir=runs, gallery=built, **values)
        assert search.main(["x", *helpers.places(), *flags]) == 1
        return capsys.readouterr().err

    line = f"error: {built}: its motions were embedded by whole (fold0, fold1)"
    assert search_line(out_dir, run="other").startswith(line)
    runs = Path(shutil.copytree(out_dir, tmp_path / "runs"))
    checkpoint = next((runs / "whole" / "fold1").glob("best_epoch*.pt"))
    shutil.copy(next((runs / "other" / "fold0").glob("best_epoch*.pt")), checkpoint)
    error = search_line(runs)
    assert error.startswith(line) and "it was trained again" in error
    shutil.rmtree(runs / "whole" / "fold1")
    assert "--models: whole has no finished model 'fold1'" in search_line(runs)
    shutil.rmtree(runs / "whole")
    assert "whole: is no run" in search_line(runs)


def test_a_query_through_another_text_tower_is_refused(
    out_dir: Path,
    built: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    digests = provenance.input_digests
    flags = helpers.flags(out_dir=out_dir, gallery=built)
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "check_inputs", lambda *_, **__: None)
        patch.setattr(
            provenance,
            "input_digests",
            lambda *args: digests(*args) | {provenance.TOKENIZER: "another"},
        )
        assert search.main(["x", *helpers.places(), *flags]) == 1
    assert "with another text tower" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "values", "message"),
    [
        ("add", {}, "is no index: it has no index.json"),
        ("check", {}, "is no index: it has no index.json"),
        ("build", {"motions": "nowhere"}, "error: nowhere: no such folder"),
        ("build", {"models": 7}, "error: --models: whole has no finished model '7' (give some of "),
        ("build", {"run": "nobody"}, "nobody: is no run"),
    ],
)
def test_what_cannot_be_indexed_is_one_line(
    out_dir: Path,
    tmp_path: Path,
    command: str,
    values: dict,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    named = {} if command == "check" else {"run": "whole"}
    assert run(command, tmp_path / "index", out_dir, **(named | values)) == 1
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_motions_that_are_all_broken_are_an_error(
    out_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "motions").mkdir()
    (tmp_path / "motions" / "a.npy").write_bytes(b"nothing")
    assert run("build", tmp_path / "index", out_dir, motions=tmp_path / "motions") == 1
    assert "no usable motion" in capsys.readouterr().err


def test_without_faiss_an_approximate_index_is_refused_before_any_work(
    out_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert run("build", tmp_path / "index", out_dir, ann=True) == 1
    assert "pip install faiss-cpu" in capsys.readouterr().err
    assert not (tmp_path / "index").exists()


def test_an_approximate_index_is_built_searched_and_measured(
    out_dir: Path,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("faiss", reason=f"faiss is not installed: {approximate.INSTALL}")
    monkeypatch.setattr(approximate, "MIN_ROWS", 1000)
    monkeypatch.setattr(approximate, "TRAINING_ROWS_PER_LIST", 10)
    folder = Path(shutil.copytree(built, tmp_path / "index"))
    with index_files.open_writer(folder) as writer:  # enough motions: those there are, with noise
        vectors = np.tile(open_index(folder).vectors(np.arange(24)), (60, 1))
        vectors += np.random.default_rng(0).normal(0, 0.1, vectors.shape).astype(np.float32)
        ids = [f"more{number}" for number in range(len(vectors))]
        writer.append(ids, ids, folder, vectors)
    assert run("build", folder, out_dir, run="whole", ann=True) == 0
    assert "approximate index IVF128,PQ4" in capsys.readouterr().out
    result = find(out_dir, "someone waves", gallery=str(folder), top=5, probes=128)
    exact = find(out_dir, "someone waves", gallery=str(folder), top=5, exact=True)
    assert "--exact compares every motion" in result.note and exact.note == ""
    assert len(set(result.ids) & set(exact.ids)) >= 4
    assert run("check", folder, out_dir, queries=7, probes=128) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("7 captions, exactly: ")
    assert lines[2].startswith("--probes 128: recall@10 ")
    assert float(lines[2].split()[3].rstrip(",")) > 0.8
