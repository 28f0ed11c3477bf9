"""A run's candidates are scored word by word, and the ensemble takes the file as a member."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ensemble
import helpers
import rerank
from motret.config.scripts import RerankConfig
from motret.data.caption_mirror import mirror_caption
from motret.models.token_matcher import Sequences
from motret.rerank import likelihood, tokens
from motret.rerank import rerank as flow
from motret.rerank import words as word_scores
from motret.runs.run import open_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of the small challenge."""
    out_dir = tmp_path_factory.mktemp("runs")
    helpers.run_training(out_dir, "whole")
    return out_dir


FILES = {"likelihood": "likelihood", "words": "word_match"}


def rerank_flags(out_dir, **values):
    small = {"epochs": 2, "hidden": 8, "dim": 8, "batch_size": 4, "device": "cpu"}
    return [*helpers.places(), *helpers.flags(out_dir=out_dir, **(small | values))]


@pytest.mark.parametrize(("method", "title"), [("likelihood", "likelihood"), ("words", "word by")])
def test_the_script_writes_a_member_that_the_ensemble_weighs(
    trained, capsys, tmp_path, method, title
):
    assert rerank.main(rerank_flags(trained, method=method)) == 0
    printed = capsys.readouterr()
    path = trained / "whole" / f"{FILES[method]}.npz"
    assert f"--members {path}" in printed.out
    assert f"{title}" in printed.out + printed.err
    arrays = np.load(path)
    assert {"query", "candidate", "similarity", "oof0", "oof1", "folds"} <= set(arrays.files)
    assert np.isfinite(arrays["similarity"]).all()
    for fold in (0, 1):
        assert abs(arrays[f"oof{fold}"].astype(float).mean()) < 0.01
        assert arrays[f"oof{fold}"].astype(float).std() == pytest.approx(1, abs=0.01)
    places = {"out_dir": trained, "submissions_dir": tmp_path, "device": "cpu"}
    args = [*helpers.places(), *helpers.flags(**places), "--members", str(path)]
    assert ensemble.main(args) == 0
    assert path.name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("method", "module", "function"),
    [
        ("likelihood", likelihood, "train_caption_model"),
        ("words", word_scores, "train_matcher"),
    ],
)
def test_a_second_call_trains_nothing_again(trained, monkeypatch, method, module, function):
    rerank.main(rerank_flags(trained, method=method))
    first = dict(np.load(trained / "whole" / f"{FILES[method]}.npz"))

    def fail(*_):
        raise AssertionError("it was trained again")

    with monkeypatch.context() as patch:
        patch.setattr(module, function, fail)
        rerank.main(rerank_flags(trained, method=method))
        second = dict(np.load(trained / "whole" / f"{FILES[method]}.npz"))
        assert all(np.array_equal(first[name], second[name]) for name in first)
        with pytest.raises(AssertionError, match="trained again"):
            rerank.main([*rerank_flags(trained, dim=16, method=method), "--debug"])


@pytest.mark.parametrize("method", ["likelihood", "words"])
def test_a_scorer_of_another_model_or_a_broken_one_is_trained_again(
    trained, tmp_path, capsys, method
):
    out_dir = tmp_path / "runs"
    shutil.copytree(trained, out_dir)
    rerank.main(rerank_flags(out_dir, method=method))
    checkpoint = out_dir / "whole" / "fold0" / f"{FILES[method]}.pt"
    before = checkpoint.read_bytes()
    path = out_dir / "whole" / "fold0" / "oof.npz"
    arrays = dict(np.load(path))
    np.savez(path, **(arrays | {"motion": arrays["motion"][:, ::-1].copy()}))
    rerank.main(rerank_flags(out_dir, method=method))
    assert checkpoint.read_bytes() != before
    checkpoint.write_bytes(b"this is no checkpoint")
    rerank.main(rerank_flags(out_dir, method=method))
    assert f"{checkpoint.name}: is no readable checkpoint" in "".join(capsys.readouterr())
    assert len(checkpoint.read_bytes()) == len(before)


@pytest.mark.parametrize("method", ["likelihood", "words"])
def test_the_likelihood_is_taught_motions_and_captions_in_the_mirror_too(
    trained, monkeypatch, method
):
    taught = []
    scorer = {"likelihood": likelihood.LikelihoodScorer, "words": word_scores.WordScorer}[method]
    train = scorer.train
    monkeypatch.setattr(
        scorer, "train", lambda training, *rest: taught.append(training) or train(training, *rest)
    )
    rerank.main(rerank_flags(trained, method=method, dim=24))
    rerank.main([*rerank_flags(trained, method=method, dim=24, lr=1e-4), "--no_mirror"])
    mirrored, plain = taught[0], taught[2]
    motions = len(plain.captions)
    assert len(plain.tokens.lengths) == motions and mirrored.captions[:motions] == plain.captions
    if method == "words":
        assert len(mirrored.captions) == motions
        return
    can_be = [
        (index, in_mirror)
        for index, texts in enumerate(plain.captions)
        if None not in (in_mirror := list(map(mirror_caption, texts)))
    ]
    assert mirrored.captions[motions:] == [texts for _, texts in can_be]
    assert mirrored.captions[motions:] != [plain.captions[index] for index, _ in can_be]
    index = torch.tensor([index for index, _ in can_be])
    of_mirror = mirrored.tokens.select(torch.arange(motions, len(mirrored.captions)))
    assert of_mirror.lengths.equal(plain.tokens.lengths[index])
    assert not of_mirror.vectors.equal(plain.tokens.select(index).vectors)


def test_a_query_without_a_usable_candidate_has_scores_all_the_same(trained):
    model = SimpleNamespace(tokens=lambda *_: Sequences.of([torch.ones(2, 5), torch.ones(1, 5)]))
    scorer = SimpleNamespace(
        score=lambda captions, tokens: np.arange(len(tokens.lengths)) - 7.0 * np.ones((1, 1))
    )
    queries = [SimpleNamespace(captions=("a",)), SimpleNamespace(captions=("b", "c"))]
    candidate_idx = [np.array([-1, -1]), np.array([1, -1, 0])]
    test = SimpleNamespace(
        queries=queries, candidate_idx=candidate_idx, store=SimpleNamespace(ids=("x", "y"))
    )
    unusable, some = flow.test_scores(model, scorer, test)
    assert unusable.tolist() == [0, 0]
    assert some.tolist() == [-7, -7, -6]


@pytest.mark.parametrize(("unfreeze", "times"), [(False, 1), (True, 2)])
def test_folds_share_the_words_of_a_frozen_tower_alone(
    trained, tmp_path, monkeypatch, unfreeze, times
):
    out_dir = trained
    if not unfreeze:
        out_dir = tmp_path
        folder = helpers.saved_bert(tmp_path / "bert")
        helpers.run_training(out_dir, "frozen", text_tower=f"hf:{folder}")
    read = []
    states = tokens.word_states
    monkeypatch.setattr(tokens, "word_states", lambda *args: read.append(args) or states(*args))
    assert rerank.main(rerank_flags(out_dir, method="words", hidden=9)) == 0
    assert len(read) == times


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_run_itself_stays_as_it_is(trained):
    before = contents(trained / "whole")
    rerank.main(rerank_flags(trained))
    rerank.main(rerank_flags(trained, method="words"))
    after = contents(trained / "whole")
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed <= {f"{name}.{kind}" for name in FILES.values() for kind in ("npz", "pt")}
    assert open_run(trained / "whole").finished_folds() == [0, 1]


def test_a_tower_without_tokens_is_named(tmp_path, capsys):
    helpers.run_training(tmp_path, "frame", motion_tower="frame", fold=0)
    assert rerank.main(rerank_flags(tmp_path, runs="frame")) == 1
    *_, error = capsys.readouterr().err.strip().splitlines()
    assert "frame, gives no tokens (leave this run out)" in error


def test_every_held_out_motion_is_asked_for_once_among_as_many_others():
    galleries = flow.draw_galleries(300, 128, np.random.default_rng(0))
    asked = np.concatenate([of_gallery for of_gallery, _ in galleries])
    assert sorted(asked) == list(range(300))
    for of_gallery, among in galleries:
        assert len(set(among)) == 128 and set(of_gallery) <= set(among) <= set(range(300))


def test_pairs_outside_of_the_galleries_are_not_scored():
    data = SimpleNamespace(
        training=SimpleNamespace(captions=[["a", "b"] if row % 2 else ["c"] for row in range(200)]),
        store=None,
    )
    split = SimpleNamespace(val_idx=lambda _: np.arange(1, 181))
    model = SimpleNamespace(
        fold=0, tokens=lambda _, rows: Sequences.of([torch.full((1, 4), float(r)) for r in rows])
    )
    scorer = SimpleNamespace(
        score=lambda captions, tokens: np.tile(tokens.vectors[:, 0].numpy(), (len(captions), 1))
    )
    config = RerankConfig(gallery=40)
    scores = flow.held_out_scores(model, scorer, data, split, config)
    assert scores.shape == (270, 180) and (np.isfinite(scores).sum(axis=1) == 40).all()
    motion_idx = np.repeat(np.arange(180), [2, 1] * 90)
    assert np.array_equal(scores[np.arange(270), motion_idx], motion_idx + 1)
    whole = flow.held_out_scores(model, scorer, data, split, RerankConfig(gallery=0))
    assert np.array_equal(whole, np.tile(np.arange(1, 181), (270, 1)))
