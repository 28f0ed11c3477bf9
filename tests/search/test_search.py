"""search.py: a free text against training motions, test candidates and a folder of motions."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import helpers
import search
from motret.config.base import DataConfig, MachineConfig
from motret.config.scripts import SearchConfig
from motret.data import dataset
from motret.evaluation.z_score import ZScore
from motret.runs import oof
from motret.runs.run import open_run
from motret.search import search as search_module
from motret.search.run_models import choose_search_run
from motret.search.search import SearchResult


@pytest.fixture(scope="module")
def out_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two folds, and one that has only the first."""
    folder = tmp_path_factory.mktemp("runs")
    assert helpers.run_training(folder, "whole", epochs=1) == 0
    assert helpers.run_training(folder, "part", epochs=1, fold=0) == 0
    os.utime(folder / "part" / "fold0" / "oof.npz", (1, 1))
    return folder


def config(out_dir: Path, text: str, **values) -> SearchConfig:
    data = helpers.challenge()
    where = DataConfig(
        data_dir=data, work_dir=Path(f"{data}-work"), folds_dir=Path(f"{data}-folds")
    )
    return SearchConfig(
        text=text,
        out_dir=out_dir,
        data=where,
        machine=MachineConfig(device="cpu", jobs=1),
        **values,
    )


def run(out_dir: Path, text: str, **values) -> int:
    return search.main([text, *helpers.places(), *helpers.flags(out_dir=out_dir, **values)])


def search_result(out_dir: Path, text: str, **values) -> SearchResult:
    return search_module.search(config(out_dir, text, **values))[1]


def test_the_ranking_is_printed_and_drawn(
    out_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(out_dir, "two people <b>wave</b>", top=3, out=tmp_path / "page.html") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "24 training motions, ranked by whole, 2 models. Each motion is ranked by the one model"
    )
    assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "3"] and lines[
        4
    ] == f"page {tmp_path / 'page.html'}"
    scores = [float(line.split()[1]) for line in lines[1:4]]
    assert scores == sorted(scores, reverse=True)
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert lines[1].split()[2] in html and "<b>wave" not in html


def test_by_default_the_page_goes_into_the_run(out_dir: Path) -> None:
    assert run(out_dir, "someone bows", run="part", gallery="test") == 0
    assert (out_dir / "part" / "report" / "search.html").is_file()


def test_a_training_motion_is_ranked_by_the_model_that_has_not_seen_it(out_dir: Path) -> None:
    """A caption of the data set gets the similarities of its fold's out-of-fold predictions."""
    whole = open_run(out_dir / "whole")
    data = dataset.load_training(config(out_dir, "x").data, jobs=1)
    for fold in (0, 1):
        out = oof.load_out_of_fold(whole, fold)
        caption = data.training.captions[out.data_idx[0]][0]
        result = search_result(out_dir, caption, run=str(out_dir / "whole"))
        idx = [result.ids.index(data.training.ids[index]) for index in out.data_idx]
        expected = ZScore.of(out.similarity())(out.similarity())[0]
        np.testing.assert_allclose(result.similarity[idx], expected, atol=2e-3)
        assert result.captions[idx[0]][0] == caption
    assert len(result.ids) == 24


def test_a_folder_of_motions_and_the_test_are_ranked_by_all_models_of_the_run(
    out_dir: Path, tmp_path: Path
) -> None:
    text = "someone waves"
    data = helpers.challenge()
    partial = search_result(
        out_dir, text, run="part"
    )  # the one model of the run, and the motions it has not seen
    folder = search_result(out_dir, text, run="part", gallery=str(data / "motions"))
    idx = [folder.ids.index(name) for name in partial.ids]
    assert (len(folder.ids), len(partial.ids)) == (
        24,
        12,
    ) and "12 motions of unfinished folds are left out" in partial.note
    np.testing.assert_allclose(folder.similarity[idx], partial.similarity, atol=2e-3)
    candidates = search_result(out_dir, text, gallery="test")
    assert len(candidates.ids) == 36 and len(set(candidates.paths)) == 36
    first = candidates.paths[5]
    shutil.copy(first, tmp_path / "some.npy")
    (tmp_path / "broken.npy").write_bytes(b"nothing")
    (tmp_path / "readme.txt").write_text("no motion")
    single = search_result(out_dir, text, gallery=str(tmp_path))
    assert single.ids == ("some",) and single.paths == (tmp_path / "some.npy",)
    assert single.note.startswith("Left out: 1 file, such as ") and "broken.npy" in single.note
    assert single.similarity[0] == pytest.approx(candidates.similarity[5], abs=2e-3)


def test_by_default_the_run_that_finished_last_is_searched(out_dir: Path) -> None:
    assert choose_search_run(None, out_dir, ()).name == "whole"
    assert choose_search_run("part", out_dir, ()).name == "part"
    assert choose_search_run(str(out_dir / "part"), out_dir, ()).name == "part"


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        (" ", {}, "error: search.py: the text is empty"),
        (
            "x",
            {"gallery": "nowhere"},
            "error: nowhere: no such folder (--gallery takes train, test, a folder of ",
        ),
        ("x", {"run": "nobody"}, "nobody: is no run"),
        ("x", {"top": 0}, "error: --top: is 0"),
    ],
)
def test_a_search_that_is_not_possible_is_one_line(
    out_dir: Path, text: str, values: dict, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(out_dir, text, **values) == 1
    assert message in capsys.readouterr().err


def test_no_run_and_no_motion_are_errors(
    out_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "x") == 1
    assert "holds no run with a finished fold" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run(out_dir, "x", gallery=tmp_path / "empty") == 1
    assert "holds no .npy file" in capsys.readouterr().err
    (tmp_path / "new").mkdir()
    shutil.copy(out_dir / "part" / "args.json", tmp_path / "new")
    assert run(tmp_path, "x", run="new") == 1
    assert "has no finished fold" in capsys.readouterr().err
