"""A run's candidates are scored word by word, and the ensemble takes the file as a member."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ensemble
import helpers
import rerank
from motret.models.token_matcher import Sequences, TokenMatcher
from motret.rerank import rerank as word_scores
from motret.runs.run import open_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of the small challenge."""
    out_dir = tmp_path_factory.mktemp("runs")
    helpers.run_training(out_dir, "whole")
    return out_dir


def rerank_flags(out_dir, **values):
    small = {"epochs": 2, "hidden": 8, "dim": 8, "batch_size": 4, "device": "cpu"}
    return [*helpers.places(), *helpers.flags(out_dir=out_dir, **(small | values))]


def test_the_script_writes_a_member_that_the_ensemble_weighs(trained, capsys, tmp_path):
    assert rerank.main(rerank_flags(trained)) == 0
    printed = capsys.readouterr()
    path = trained / "whole" / "word_match.npz"
    assert f"--members {path}" in printed.out
    assert "word by word" in printed.out + printed.err
    arrays = np.load(path)
    assert {"query", "candidate", "similarity", "oof0", "oof1", "folds"} <= set(arrays.files)
    assert np.isfinite(arrays["similarity"]).all()
    for fold in (0, 1):
        assert abs(arrays[f"oof{fold}"].astype(float).mean()) < 0.01
        assert arrays[f"oof{fold}"].astype(float).std() == pytest.approx(1, abs=0.01)
    places = {"out_dir": trained, "submissions_dir": tmp_path, "device": "cpu"}
    args = [*helpers.places(), *helpers.flags(**places), "--members", str(path)]
    assert ensemble.main(args) == 0
    assert "word_match.npz" in capsys.readouterr().out


def test_a_second_call_trains_nothing_again(trained, monkeypatch):
    rerank.main(rerank_flags(trained))
    first = dict(np.load(trained / "whole" / "word_match.npz"))
    from motret.rerank import matcher_training

    def fail(*_):
        raise AssertionError("it was trained again")

    with monkeypatch.context() as patch:
        patch.setattr(matcher_training, "train_matcher", fail)
        rerank.main(rerank_flags(trained))
        second = dict(np.load(trained / "whole" / "word_match.npz"))
        assert all(np.array_equal(first[name], second[name]) for name in first)
        with pytest.raises(AssertionError, match="trained again"):
            rerank.main([*rerank_flags(trained, dim=16), "--debug"])


def test_a_matcher_of_another_model_or_a_broken_one_is_trained_again(trained, tmp_path, capsys):
    out_dir = tmp_path / "runs"
    shutil.copytree(trained, out_dir)
    rerank.main(rerank_flags(out_dir))
    checkpoint = out_dir / "whole" / "fold0" / "word_match.pt"
    before = checkpoint.read_bytes()
    path = out_dir / "whole" / "fold0" / "oof.npz"
    arrays = dict(np.load(path))
    np.savez(path, **(arrays | {"motion": arrays["motion"][:, ::-1].copy()}))
    rerank.main(rerank_flags(out_dir))
    assert checkpoint.read_bytes() != before
    checkpoint.write_bytes(b"this is no checkpoint")
    rerank.main(rerank_flags(out_dir))
    assert "word_match.pt: is no readable checkpoint" in "".join(capsys.readouterr())
    assert len(checkpoint.read_bytes()) == len(before)


def test_a_query_without_a_usable_candidate_has_scores_all_the_same(trained):
    model = SimpleNamespace(
        tokens=lambda *_: Sequences.of([torch.ones(2, 5), torch.ones(1, 5)]),
        words=lambda captions: Sequences.of([torch.ones(1, 6) for _ in captions]),
    )
    matcher = TokenMatcher((6, 5), 4, 8, 0.0)
    queries = [SimpleNamespace(captions=("a",)), SimpleNamespace(captions=("b", "c"))]
    candidate_idx = [np.array([-1, -1]), np.array([1, -1, 0])]
    test = SimpleNamespace(
        queries=queries, candidate_idx=candidate_idx, store=SimpleNamespace(ids=("x", "y"))
    )
    unusable, some = word_scores.test_scores(model, matcher, test)
    assert unusable.tolist() == [-1, -1]
    assert some[1] == -1 and min(some[0], some[2]) > -1


def test_folds_share_the_words_of_a_frozen_tower_alone(monkeypatch):
    read = []
    monkeypatch.setattr(word_scores.tokens, "word_states", lambda *args: read.append(args) or "new")

    def words(trained_tower, frozen):
        model = SimpleNamespace(text_tower=trained_tower)
        encoder = SimpleNamespace(
            device="cpu",
            load_model=lambda *_: model,
            text_tower=lambda _: "shared",
            autocast=lambda _: None,
        )
        return word_scores.FoldModel.open("run", 0, encoder, ["a"], frozen).captions

    assert words(None, None) == "new" and words(None, "first") == "first"
    assert words("its own", "first") == "new"
    assert [tower for _, tower, *_ in read] == ["shared", "its own"]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_run_itself_stays_as_it_is(trained):
    before = contents(trained / "whole")
    rerank.main(rerank_flags(trained))
    after = contents(trained / "whole")
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed <= {"word_match.npz", "word_match.pt"}
    assert open_run(trained / "whole").finished_folds() == [0, 1]


def test_a_tower_without_tokens_is_named(tmp_path, capsys):
    helpers.run_training(tmp_path, "frame", motion_tower="frame", fold=0)
    assert rerank.main(rerank_flags(tmp_path, runs="frame")) == 1
    *_, error = capsys.readouterr().err.strip().splitlines()
    assert "frame, gives no tokens (leave this run out)" in error
