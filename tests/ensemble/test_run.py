"""ensemble.py by its command line: what is written, what is shown, members made elsewhere."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

import ensemble
import helpers
import prepare
import report
import validate
from helpers import unit
from motret.config import base
from motret.config.scripts import EnsembleConfig
from motret.data import dataset, folds
from motret.data.dataset import load_test, load_training
from motret.ensemble import external, fit, predict, query_bank
from motret.ensemble.assigned_test import assign_test
from motret.ensemble.galleries import FoldGallery, MemberGallery, OofGalleries
from motret.ensemble.predict import held_out_captions
from motret.evaluation import metrics, submission_score
from motret.evaluation.caption_shift import CaptionShift
from motret.evaluation.motion_shift import MotionShift
from motret.formats import submission
from motret.formats.queries import read_queries
from motret.formats.text_files import query_key
from motret.report import run_report
from motret.runs.run import open_run

pytestmark = pytest.mark.filterwarnings("ignore:.*candidates.*:UserWarning")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of two folds on the generated challenge, and one of all motions."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed, fold in (("one", 0, "all"), ("two", 1, "all"), ("whole", 1, "full")):
        assert helpers.run_training(folder, name, seed=seed, fold=fold, epochs=1) == 0
    return folder


def rank_test(trained: Path, out: Path, *flags: str) -> int:
    return ensemble.main(
        [*helpers.places(), f"--out_dir={trained}", f"--submissions_dir={out}", *flags]
    )


def written(folder: Path) -> tuple[dict, dict[str, np.ndarray], dict[str, tuple[int, ...]]]:
    """The JSON, the similarities and the answers of the one submission in a folder."""
    (settings,) = (path for path in folder.glob("*.json"))
    with np.load(settings.with_suffix(".npz"), allow_pickle=False) as arrays:
        similarities = {name: arrays[name] for name in arrays.files}
    return (
        json.loads(settings.read_text()),
        similarities,
        submission.read_submission(settings.with_suffix(".csv")),
    )


def test_it_ends_with_a_table_and_saves_all_similarities(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rank_test(trained, tmp_path) == 0
    output = capsys.readouterr().out.splitlines()
    settings, arrays, answers = written(tmp_path)
    assert [(member["run"], member["runs"], member["full"]) for member in settings["members"]] == [
        ("one", ["one"], False),
        ("two", ["two", "whole"], True),
    ]
    assert sum(member["weight"] for member in settings["members"]) == pytest.approx(1, abs=1e-5)
    head = next(number for number, line in enumerate(output) if line.startswith("member "))
    rows = [line.split("  ")[0] for line in output[head : head + 5]]
    best, network = (gain["over"] for gain in settings["gains"])
    assert (
        rows == ["member", "one", "two", network, "ensemble"]
        and best in ("one", "two")
        and network == f"{best}, one network"
    )
    assert f"{settings['local_score']['mean']:.4f} +- " in output[head + 4]
    for gain, line in zip(settings["gains"], output[head + 5 : head + 7], strict=True):
        assert (
            f"{gain['over']}: {gain['mean']:+.4f} +- {gain['error']:.4f}; "
            f"true {gain['true']['mean']:+.4f}" in line
        )
    low, high = settings["leaderboard_band"]
    assert (
        f"{low:.3f} to {high:.3f} in 9 of 10 cases" in output[head + 7]
        and low < settings["local_score"]["mean"] < high
    )
    assert "of their words are in no training caption (held out " in output[head + 9]
    assert arrays["query"].shape == arrays["candidate"].shape == arrays["similarity"].shape == (36,)
    assert (
        arrays["query"].dtype.kind == "U"
        and arrays["candidate"].dtype.kind == "i"
        and arrays["similarity"].dtype == np.float32
    )
    for query, ranked in answers.items():
        of_query = arrays["query"] == query
        order = arrays["candidate"][of_query][
            np.argsort(-arrays["similarity"][of_query], kind="stable")
        ]
        assert tuple(order[:10]) == ranked


def test_similarities_of_each_member_are_saved_and_the_page_shows_where_members_disagree(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--runs", "one", "two", "--query_bank=off", "--views=none", "--weights=equal")
    assert rank_test(trained, tmp_path, *flags) == 0
    settings, arrays, _ = written(tmp_path)
    assert (
        arrays["members"].tolist() == ["one", "two"]
        and arrays["alone"].shape == (2, 36)
        and arrays["alone"].dtype == np.float32
    )
    np.testing.assert_allclose(arrays["alone"].mean(axis=0), arrays["similarity"], atol=1e-5)
    monkeypatch.setattr(run_report, "write_run_report", lambda run, *_rest: run.folder)
    assert (
        report.main([*helpers.places(), f"--out_dir={trained}", f"--submissions_dir={tmp_path}"])
        == 0
    )
    html = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    queries = json.loads(html.split('id="data">')[1].split("</script>")[0])["queries"]
    expected = [
        1 - spearmanr(*arrays["alone"][:, arrays["query"] == query["id"]].astype(float)).statistic
        for query in queries
    ]
    assert [query["disagreement"] for query in queries] == pytest.approx(expected) and len(
        queries
    ) == 3
    scores = html.split('<dl class="facts scores">')[1].split("</dl>")[0]
    assert scores.index("Local score, expected on held-out motions") < scores.index(
        "True score on these queries"
    )
    assert "{mean:.3f} ± {error:.3f}".format(**settings["local_score"]) in scores


def test_the_score_of_one_network_is_the_mean_over_the_networks_alone(
    trained: Path, tmp_path: Path
) -> None:
    assert (
        rank_test(
            trained, tmp_path / "both", "--runs", "one", "two", "--query_bank=off", "--views=none"
        )
        == 0
    )
    settings = written(tmp_path / "both")[0]
    best, network = settings["gains"]
    alone = []
    for fold in (0, 1):
        out = tmp_path / str(fold)
        assert (
            rank_test(
                trained,
                out,
                "--runs",
                best["over"],
                f"--fold={fold}",
                "--query_bank=off",
                "--views=none",
            )
            == 0
        )
        alone.append(written(out)[0]["true_score"]["mean"])
    assert network["true"]["mean"] == pytest.approx(settings["true_score"]["mean"] - np.mean(alone))
    assert network["true"]["mean"] != best["true"]["mean"]
    assert (network["mean"], network["error"]) == (
        best["mean"],
        best["error"],
    )  # out of fold there is but one network


def test_any_number_of_candidates_may_be_written(trained: Path, tmp_path: Path) -> None:
    assert rank_test(trained, tmp_path, "--top_k=4", "--query_bank=off") == 0
    check = [str(tmp_path / "submission.csv"), "--data_dir", str(helpers.challenge())]
    assert validate.main(["submission", *check, "--top_k=4"]) == 0
    assert validate.main(["submission", *check]) == 1


def test_a_saved_similarity_file_is_an_external_member(trained: Path, tmp_path: Path) -> None:
    """A file with nearly all the weight ranks as the run it was saved from."""
    assert rank_test(trained, tmp_path / "two", "--runs", "two", "--query_bank=off") == 0
    (file,) = (tmp_path / "two").glob("*.npz")
    flags = ("--runs", "one", "--query_bank=off", f"--members={file}")
    assert rank_test(trained, tmp_path / "both", *flags, "--member_weight=0.999") == 0
    two, both = (written(tmp_path / name) for name in ("two", "both"))
    assert two[2] == both[2]
    assert [(member["run"], member["weight"]) for member in both[0]["members"]] == [
        ("one", pytest.approx(0.001)),
        (file.name, 0.999),
    ]


def test_ranks_made_elsewhere_are_a_member(trained: Path, tmp_path: Path) -> None:
    rows = {str(query): list(range(12, 0, -1)) for query in (1, 2, 3)}
    submission.write_submission(tmp_path / "mine.csv", rows, "name", 12)
    flags = ("--runs", "one", f"--members={tmp_path / 'mine.csv'}", "--member_weight=0.999")
    assert rank_test(trained, tmp_path / "out", *flags) == 0
    assert set(written(tmp_path / "out")[2].values()) == {tuple(range(12, 2, -1))}


def test_an_external_member_with_out_of_fold_predictions_is_weighed_by_score(
    trained: Path, tmp_path: Path
) -> None:
    """One that knows all held-out motions takes all the weight, one that guesses none."""
    data = load_training(
        base.build_config(base.DataConfig, vars(open_run(trained / "one").config.data)), 1
    )
    fold_table = folds.read_folds(data, data_settings().folds_dir)
    queries = load_test(helpers.challenge() / "test", data.store.config, data_settings(), 1).queries
    arrays = {
        "query": np.repeat([query.id for query in queries], 12),
        "candidate": np.tile(np.arange(1, 13), 3),
        "similarity": np.tile(np.arange(12.0), 3),
        "folds": np.array(fold_table.hash),
    }
    rng = np.random.default_rng(0)
    for name, margin in (("knows", 9.0), ("guesses", 0.0)):
        for fold in range(2):
            motion_idx, group = held_out_captions(data, fold_table, fold)
            arrays[f"oof{fold}"] = rng.normal(size=(len(motion_idx), len(group)))
            arrays[f"oof{fold}"][np.arange(len(motion_idx)), motion_idx] += margin
        np.savez(tmp_path / f"{name}.npz", **arrays)
    assert (
        rank_test(
            trained,
            tmp_path / "out",
            "--members",
            str(tmp_path / "knows.npz"),
            str(tmp_path / "guesses.npz"),
        )
        == 0
    )
    settings, _, answers = written(tmp_path / "out")
    weights = {member["run"]: member["weight"] for member in settings["members"]}
    assert weights == {"one": 0, "two": 0, "knows.npz": 1, "guesses.npz": 0}
    assert set(answers.values()) == {tuple(range(12, 2, -1))} and settings["query_bank"] is None
    np.savez(tmp_path / "other.npz", **arrays | {"folds": np.array("other")})
    assert rank_test(trained, tmp_path / "no", "--members", str(tmp_path / "other.npz")) == 1
    np.savez(tmp_path / "short.npz", **arrays | {"oof1": arrays["oof1"][1:]})
    assert rank_test(trained, tmp_path / "no", "--members", str(tmp_path / "short.npz")) == 1


def partial_member(path: Path, seed: int) -> Path:
    """A member that knows all motions, and scores each caption with 8 of the 12 of its fold."""
    data = load_training(data_settings(), 1)
    fold_table = folds.read_folds(data, data_settings().folds_dir)
    arrays, rng = {"folds": np.array(fold_table.hash)}, np.random.default_rng(seed)
    for fold in range(2):
        motion_idx, group = held_out_captions(data, fold_table, fold)
        own = np.arange(len(motion_idx)), motion_idx
        order = rng.random((len(motion_idx), len(group)))
        order[own] = 0
        scores = np.where(order.argsort(axis=1).argsort(axis=1) < 8, 0.0, np.nan)
        scores[own] = 9
        arrays[f"oof{fold}"] = scores
    return similarity_file(path, **arrays)


def test_captions_are_ranked_among_the_motions_that_a_partial_member_scores(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = partial_member(tmp_path / "part.npz", seed=0)
    flags = ("--views=none", "--query_bank=off")
    assert rank_test(trained, tmp_path / "few", *flags, "--members", str(file)) == 1
    error = capsys.readouterr().err
    assert "(NaN for pairs that are not scored; 32 of each caption at least" in error
    for module in (external, predict):
        monkeypatch.setattr(module, "POOL_SIZE", 6)
    assert rank_test(trained, tmp_path / "out", *flags, "--members", str(file)) == 0
    assert "out of fold each caption is ranked among 8 motions" in capsys.readouterr().out
    settings, _, _ = written(tmp_path / "out")
    weights = {member["run"]: member["weight"] for member in settings["members"]}
    assert weights["part.npz"] == 1 and settings["local_score"]["mean"] == 1
    for flag in ("--assign", "--members"):
        others = [str(partial_member(tmp_path / f"{seed}.npz", seed)) for seed in range(1, 5)]
        more = (flag, *others) if flag == "--members" else ("--members", str(file), flag)
        assert rank_test(trained, tmp_path / "no", *flags, *more) == 1
        assert f"error: {flag}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("motions", "captions", "warns"),
    [(False, False, False), (True, False, True), (True, True, False)],
)
def test_members_from_motion_tokens_are_to_be_left_out_where_motions_alone_are_unlike(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    motions: bool,
    captions: bool,
    warns: bool,
) -> None:
    """Where captions are unlike too, the weights are fitted to captions as far as the test's."""
    monkeypatch.setattr(MotionShift, "is_unlike", motions)
    monkeypatch.setattr(CaptionShift, "is_unlike", captions)
    flags = ("--views=none", "--query_bank=off", "--members")
    for name, marked in (("other", {}), ("likelihood", {"from_tokens": np.array(True)})):
        file = partial_member(tmp_path / f"{name}.npz", seed=0)
        arrays = dict(np.load(file))
        np.savez(
            file,
            **{
                key: np.nan_to_num(value) if key[:3] == "oof" else value
                for key, value in arrays.items()
            },
            **marked,
        )
        assert rank_test(trained, tmp_path / name, *flags, str(file)) == 0
        warned = f"warning: leave {name}.npz out" in capsys.readouterr().out
        assert warned == (warns and bool(marked))


@pytest.mark.parametrize(
    ("weights", "unlike", "drawn_as_test"),
    [("auto", True, True), ("auto", False, False), ("local", True, False)],
)
def test_weights_are_fitted_on_captions_as_far_as_the_tests_where_these_are_unlike(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    weights: str,
    unlike: bool,
    drawn_as_test: bool,
) -> None:
    monkeypatch.setattr(CaptionShift, "is_unlike", unlike)
    targets = []

    def fit_weights(*args: object) -> fit.FittedWeights:
        targets.append(args[2])
        return plain(*args)

    plain = fit.fit_weights
    monkeypatch.setattr(fit, "fit_weights", fit_weights)
    flags = ("--views=none", "--query_bank=off", f"--weights={weights}")
    assert rank_test(trained, tmp_path, *flags) == 0
    (target,) = targets
    assert (target is not None) == drawn_as_test
    if target is not None:
        assert sum(map(np.sum, target.values())) == pytest.approx(1)
    output = capsys.readouterr().out
    assert ("weights fitted on held-out captions that are as far" in output) == drawn_as_test
    expected = written(tmp_path)[0]["expected_test_score"]
    line = f"expect {expected['mean']:.4f} +- {expected['error']:.4f}"
    assert line in output and 0 < expected["mean"] <= 1


def data_settings() -> base.DataConfig:
    data = helpers.challenge()
    return base.DataConfig(
        data_dir=data, work_dir=Path(f"{data}-work"), folds_dir=Path(f"{data}-folds")
    )


def similarity_file(path: Path, **changed: np.ndarray) -> Path:
    arrays = {
        "query": np.repeat(["1", "2", "3"], 12),
        "candidate": np.tile(np.arange(1, 13), 3),
        "similarity": np.zeros(36),
    }
    np.savez(path, **arrays | changed)
    return path


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda file: np.save(file, np.zeros(3)), "is no whole .npz file"),
        (lambda file: np.savez_compressed(file, bomb=np.zeros(200_000_000, np.uint8)), "has 200.0"),
    ],
)
def test_a_member_that_is_another_file_or_a_zip_bomb_is_one_line(
    tmp_path: Path, write: Callable, message: str, expect_error: Callable
) -> None:
    file, settings = tmp_path / "a.npz", data_settings()
    with file.open("wb") as stream:
        write(stream)
    data = load_training(settings, 1)
    split, _ = folds.read_or_make_folds(data, tmp_path, 2, 0)
    queries = read_queries(settings.data_dir / "test")
    expect_error(lambda: external.read_external(file, queries, data, split), file, message)


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        (
            "a.npz",
            {"candidate": np.tile(np.arange(12), 3)},
            "no similarity of candidate 12 of query 1",
        ),
        (
            "a.npz",
            {"candidate": np.ones(36, dtype=int)},
            "entry 1: candidate 1 of query 1 is there twice",
        ),
        ("a.npz", {"similarity": np.zeros(35)}, "arrays of different shapes"),
        ("a.npz", {"similarity": np.full(36, np.nan)}, "similarities finite numbers"),
        ("a.npz", {"query": np.array([object()])}, "an object array, which is never unpickled"),
        ("a.txt", {}, "is neither .csv nor .npz"),
    ],
)
def test_an_external_file_of_another_form_is_one_line(
    trained: Path,
    tmp_path: Path,
    name: str,
    changed: dict,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = similarity_file(tmp_path / "a.npz", **changed).rename(tmp_path / name)
    assert rank_test(trained, tmp_path / "out", f"--members={file}", "--member_weight=0.5") == 1
    assert f"error: {file}: " in (err := capsys.readouterr().err) and message in err
    assert not (tmp_path / "out").exists()


def test_an_external_member_without_a_weight_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = similarity_file(tmp_path / "a.npz")
    assert rank_test(trained, tmp_path / "out", f"--members={file}") == 1
    assert (
        "--member_weight: 0 weights for 1 members without out-of-fold predictions (a.npz)"
        in capsys.readouterr().err
    )


def test_validation_queries_are_ranked_but_are_no_submission(trained: Path, tmp_path: Path) -> None:
    val = tmp_path / "val"
    make_queries = [
        "make_batches",
        *helpers.places(),
        "--queries",
        "2",
        "--candidates",
        "12",
        "--fold",
        "0",
        "--out",
        str(val),
    ]
    assert validate.main(make_queries) == 0
    assert rank_test(trained, tmp_path / "subs", "--fold=0", f"--test_dir={val}") == 0
    assert (
        not (tmp_path / "subs").exists()
        and len(submission.read_submission(val / "ranked.csv")) == 2
    )
    assert (
        rank_test(
            trained,
            tmp_path / "subs",
            "--fold=0",
            "--query_bank=off",
            f"--test_dir={val}",
            f"--out={tmp_path / 'mine.csv'}",
        )
        == 0
    )
    assert not (tmp_path / "subs").exists() and (tmp_path / "mine.npz").is_file()


def test_one_run_as_it_is_stands_once_in_the_table(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rank_test(trained, tmp_path, "--runs", "one", "--query_bank=off", "--views=none") == 0
    output, (settings, _, _) = capsys.readouterr().out, written(tmp_path)
    table = output.splitlines()[1:3]
    assert (
        table[0].startswith("member ")
        and table[1].startswith("one ")
        and output.count("ensemble") == 0
        and "gain over" not in output
    )
    member_score = settings["members"][0]["local_score"]["mean"]
    assert (
        settings["local_score"]["mean"] == member_score
        and f"{member_score:.4f} +- " in table[1]
        and settings["gains"] == []
    )
    low, high = settings["leaderboard_band"]
    assert f"{low:.3f} to {high:.3f} in 9 of 10 cases" in output


def test_one_run_with_views_shows_their_gain_and_why_it_may_be_negative(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rank_test(trained, tmp_path, "--runs", "one", "--query_bank=off", "--views=speed") == 0
    output, (settings, _, _) = capsys.readouterr().out, written(tmp_path)
    rows = [line.split("  ")[0] for line in output.splitlines()[1:4]]
    assert rows == ["member", "one", "one with views speed"] and [
        gain["over"] for gain in settings["gains"]
    ] == ["one"]
    assert ("the gain is below 0: views and query bank" in output) == (
        settings["gains"][0]["mean"] < 0
    )


def test_a_bank_of_queries_ranks_the_test_by_the_formula(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = ("--runs", "one", "--views=none")
    assert rank_test(trained, tmp_path / "few", *flags, "--query_bank=test") == 1
    assert "--query_bank test: 3 queries are too few for a bank" in capsys.readouterr().err
    monkeypatch.setattr(query_bank, "MIN_TEST_QUERIES", 3)
    assert rank_test(trained, tmp_path / "plain", *flags, "--query_bank=off") == 0
    assert rank_test(trained, tmp_path / "bank", *flags, "--query_bank=test") == 0
    assert "normalisation with beta 2 and the test's queries" in capsys.readouterr().out
    plain, bank = (written(tmp_path / name)[0] for name in ("plain", "bank"))
    assert plain["query_bank"] is None and bank["query_bank"] == 2.0
    assert plain["local_score"] != bank["local_score"]


def test_a_member_with_a_given_weight_leaves_the_ensemble_without_score(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = similarity_file(tmp_path / "a.npz"), tmp_path / "out"
    assert (
        rank_test(
            trained,
            out,
            "--runs",
            "one",
            "--query_bank=off",
            f"--members={file}",
            "--member_weight=0.3",
        )
        == 0
    )
    output = capsys.readouterr().out
    assert (
        "the local score leaves out a.npz, which cannot be scored" in output
        and "local score of the other members: score" in output
    )
    assert (
        "a leaderboard of" not in output and "gain over the best single model, one: true " in output
    )
    (settings,) = (json.loads(path.read_text()) for path in out.glob("*_unscored_*.json"))
    assert (
        settings["local_score"] is None
        and settings["leaderboard_band"] is None
        and not list(out.glob("*_cv*"))
    )
    (row,) = csv.DictReader((out / "log.csv").open())
    assert row["local_score"] == row["error"] == ""
    assert (
        validate.main(["record", str(out / "submission.csv"), "0.5", f"--submissions_dir={out}"])
        == 0
    )
    assert "public score 0.5, no local score" in capsys.readouterr().out


def test_the_same_submission_is_not_logged_twice(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two", "one"):
        assert rank_test(trained, tmp_path, "--runs", name, "--query_bank=off") == 0
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["members"] for row in rows] == ["two", "one"]  # the last row is the latest
    assert f"(the same as {rows[1]['file']}, logged before)" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*_cv*.csv"))) == 2
    assert (tmp_path / rows[1]["file"]).read_bytes() == (tmp_path / "submission.csv").read_bytes()


def test_the_order_in_which_runs_are_named_makes_no_other_submission(
    trained: Path, tmp_path: Path
) -> None:
    for names in (("one", "two"), ("two", "one")):
        assert (
            rank_test(
                trained,
                tmp_path,
                "--runs",
                *names,
                "--query_bank=off",
                "--views=none",
                "--weights=equal",
            )
            == 0
        )
    assert len(list(csv.DictReader((tmp_path / "log.csv").open()))) == 1


# ---- validate.py record, compare


def test_the_leaderboards_score_is_written_into_the_log(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        assert rank_test(trained, tmp_path, "--runs", name, "--query_bank=off") == 0
    before = list(csv.DictReader((tmp_path / "log.csv").open()))
    submissions = f"--submissions_dir={tmp_path}"
    assert validate.main(["record", before[0]["file"], "0.61", submissions]) == 0
    assert (
        validate.main(
            [
                "record",
                str(shutil.copy(tmp_path / "submission.csv", tmp_path.parent / "mine.csv")),
                "0.78",
                submissions,
            ]
        )
        == 0
    )
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["public_score"] for row in rows] == ["0.61", "0.78"]
    assert [row | {"public_score": ""} for row in rows] == before
    assert (
        f"{before[1]['file']}: public score 0.78, local score {before[1]['local_score']}"
        in capsys.readouterr().out
    )
    assert validate.main(["record", "nobody.csv", "0.5", submissions]) == 1
    assert "log.csv: has no row of nobody.csv" in capsys.readouterr().err
    assert validate.main(["record", before[0]["file"], "78", submissions]) == 1
    assert "public_score: is 78" in capsys.readouterr().err
    assert list(csv.DictReader((tmp_path / "log.csv").open())) == rows


def test_a_log_of_other_columns_is_left_alone(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.csv").write_text("time,mine\n1,2\n")
    assert rank_test(trained, tmp_path, "--runs", "one", "--query_bank=off") == 1
    assert (
        "log.csv: its columns are not" in capsys.readouterr().err
        and (tmp_path / "log.csv").read_text() == "time,mine\n1,2\n"
    )


def answers(path: Path, *ranked: list[int]) -> Path:
    submission.write_submission(
        path,
        {str(query): candidates for query, candidates in enumerate(ranked, 1)},
        top_k=len(ranked[0]),
    )
    return path


def test_two_submissions_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = answers(tmp_path / "a.csv", [1, 2, 3, 4], [5, 6, 7, 8])
    same = answers(tmp_path / "b.csv", [1, 2, 3, 4], [5, 6, 7, 8])
    assert validate.main(["compare", str(first), str(same)]) == 0
    expected = (
        "rank correlation 1.0000, first candidate changed in 0.0% of 2 queries, "
        "4.00 of 4 candidates in common\n"
    )
    assert capsys.readouterr().out == expected
    reversed_top = answers(tmp_path / "c.csv", [4, 3, 2, 1], [5, 6, 9, 10])
    assert validate.main(["compare", str(first), str(reversed_top)]) == 0
    ranks = [
        [0, 1, 2, 3, 4.5, 4.5],
        [0, 1, 4.5, 4.5, 2, 3],
    ]  # of 5 6 7 8 9 10; unlisted ones share the ranks after the last
    correlation = (-1 + np.corrcoef(*ranks)[0, 1]) / 2
    expected = (
        f"rank correlation {correlation:.4f}, first candidate changed in 50.0% of 2 queries, "
        "3.00 of 4 candidates in common\n"
    )
    assert capsys.readouterr().out == expected
    other = answers(tmp_path / "d.csv", [1, 2, 3, 4])
    assert validate.main(["compare", str(first), str(other)]) == 1
    assert "d.csv: answers other queries than a.csv: 2" in capsys.readouterr().err


def test_with_the_answers_two_submissions_are_scored_in_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top, moved = [7, *range(1, 7), 8, 9, 10], [*range(1, 7), 7, 8, 9, 10]
    first = answers(tmp_path / "a.csv", top, top, top)
    second = answers(tmp_path / "b.csv", top, moved, moved)
    truth = tmp_path / "gt.csv"
    truth.write_text("query_id,candidate\n1,7\n2,7\n3,32\n")
    assert validate.main(["compare", str(first), str(second), "--gt", str(truth)]) == 0
    seventh = float(metrics.rank_value(np.array([6]))[0])
    scores = np.array([1, 1, 0]), np.array([1, seventh, 0])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"true score {scores[0].mean():.4f} +- ")
    assert f", {scores[1].mean():.4f} +- " in lines[1] and "(3 queries)" in lines[1]
    difference = scores[0] - scores[1]
    error = difference.std(ddof=1) / np.sqrt(3)
    expected = f"first minus second {difference.mean():+.4f} +- {error:.4f}, paired by query"
    assert lines[2] == expected


def test_a_run_may_hold_its_folds_and_the_model_of_all_data(tmp_path: Path) -> None:
    for fold in ("all", "full"):
        flags = {"fold": fold, "resume": "same", "epochs": 1}
        assert helpers.run_training(tmp_path / "runs", "one", **flags) == 0
    flags = ("--runs", "one", "--views=none", "--query_bank=off")
    assert rank_test(tmp_path / "runs", tmp_path / "submissions", *flags) == 0
    (member,) = written(tmp_path / "submissions")[0]["members"]
    assert (member["runs"], member["folds"], member["full"]) == (["one"], [0, 1], True)


# ---- one-to-one assignment


def test_where_no_queries_share_candidates_assignment_says_so_and_changes_nothing(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rank_test(trained, tmp_path / "plain", "--runs=one") == 0
    capsys.readouterr()
    assert rank_test(trained, tmp_path / "assigned", "--runs=one", "--assign") == 0
    output = capsys.readouterr().out
    assert "--assign changes nothing: no two queries of the test share a candidate" in output
    assert "one-to-one" not in output
    plain, assigned = (tmp_path / name / "submission.csv" for name in ("plain", "assigned"))
    assert plain.read_bytes() == assigned.read_bytes()
    assert "assignment" not in written(tmp_path / "assigned")[0]


def test_queries_that_share_candidates_are_ranked_together(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = Path(shutil.copytree(helpers.challenge() / "test", tmp_path / "test"))
    one, two, _ = (query.id for query in read_queries(test))
    for path in (test / one).glob("*.npy"):
        shutil.copyfile(path, test / two / path.name)  # copies, not links
    flags = ("--runs=one", "--views=none", "--query_bank=off", f"--test_dir={test}")
    assert rank_test(trained, tmp_path / "plain", *flags) == 0
    capsys.readouterr()
    assert rank_test(trained, tmp_path / "assigned", *flags, "--assign") == 0
    output = capsys.readouterr().out.splitlines()
    plain, before, _ = written(tmp_path / "plain")
    settings, after, answers = written(tmp_path / "assigned")
    assert "one-to-one assignment: 2 of 3 queries share candidates, 24 motions in all" in output
    told = settings["assignment"]
    line = f"gain out of fold {told['distinct']['mean']:+.4f} +- {told['distinct']['error']:.4f}"
    assert any(text.startswith(line) for text in output)
    queries = read_queries(test)
    for array, settled in ((before, plain), (after, settings)):
        truth = submission.read_ground_truth(test / "gt.csv")
        similarities = [array["similarity"][array["query"] == query.id] for query in queries]
        scores = submission_score.ranking_scores(queries, truth, similarities)
        assert settled["true_score"]["mean"] == pytest.approx(scores.mean())
    changed = before["similarity"] != after["similarity"]
    assert set(before["query"][changed]) == {one, two}
    gain = settings["true_score"]["mean"] - plain["true_score"]["mean"]
    assert any(text.startswith(f"one-to-one assignment: true {gain:+.4f}") for text in output)
    of_one = after["query"] == one
    order = after["candidate"][of_one][np.argsort(-after["similarity"][of_one], kind="stable")]
    assert tuple(order[:10]) == answers[one]


def test_a_broken_candidate_stays_last_after_assignment() -> None:
    candidate_idx = (np.array([0, 1, -1]), np.array([0, 2, 1]))
    store = replace(helpers.store([5, 5, 5]), digests=("a", "b", "c"))
    test = dataset.TestData((), store, candidate_idx, True)
    rng = np.random.default_rng(0)
    motion = unit(rng, 8, 4)
    member = MemberGallery(motion + 0.3 * unit(rng, 8, 4), motion)
    gallery = FoldGallery(np.arange(8), np.arange(8), (member,))
    galleries = OofGalleries(("one",), {0: gallery, 1: gallery})
    config = base.build_config(EnsembleConfig, {"views": "none", "query_bank": "off"})
    fitted = fit.fit_ensemble(galleries, fit.fit_weights(galleries, config), config)
    similarities = [np.array([2.0, 1.0, 0.0]), np.array([9.0, 1.0, -1.0])]
    assigned = assign_test(similarities, test, fitted, galleries, seed=0)
    assert assigned is not None and assigned.pools.n_sharing == 2
    first, second = assigned.similarities
    assert first.argmin() == 2 and first[0] < first[1]  # the second query wants motion 0 more
    assert second.argmax() == 0
    assert similarities[0].tolist() == [2.0, 1.0, 0.0]


# ---- candidates that cannot be used


def spoil_candidates(folder: Path) -> None:
    """Query 1: frames of NaN, five frames, a text file, NaN throughout, a link to nothing; the
    first two can be repaired.
    """
    raw = np.load(folder / "motion_2.npy")
    raw[4:7] = np.nan
    np.save(folder / "motion_2.npy", raw)
    np.save(folder / "motion_3.npy", np.load(folder / "motion_3.npy")[:5])
    (folder / "motion_4.npy").write_text("no array")
    np.save(folder / "motion_5.npy", np.full((20, 384), np.nan, np.float32))
    (folder / "motion_6.npy").unlink()
    (folder / "motion_6.npy").symlink_to(folder / "gone.npy")


@pytest.mark.filterwarnings("ignore:.*candidates.*:UserWarning")
def test_bad_candidates_are_named_and_ranked_last_and_the_submission_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(helpers.challenge(), tmp_path / "data"))
    assert helpers.run_training(tmp_path / "runs", "one", data, epochs=1) == 0
    queries = tmp_path / "data" / "test"
    first = next(folder for folder in sorted(queries.iterdir()) if folder.is_dir())
    spoil_candidates(first)
    test_queries = read_queries(queries)
    similarities = [
        np.where(np.isin(query.candidates, (4, 5, 6)), 9.0, np.arange(12.0))
        for query in test_queries
    ]  # they prefer the bad candidates
    external.save_similarities(tmp_path / "prefers_bad.npz", test_queries, similarities)
    out = [
        "--out_dir",
        str(tmp_path / "runs"),
        "--submissions_dir",
        str(tmp_path / "submissions"),
        "--top_k",
        "12",
    ]
    call = [
        *helpers.places(data),
        *out,
        "--members",
        str(tmp_path / "prefers_bad.npz"),
        "--member_weight",
        "0.9",
    ]
    capsys.readouterr()
    assert prepare.main(helpers.places(data)) == 0
    assert "motion_4.npy: not an .npy file: ranked last" in capsys.readouterr().out
    assert ensemble.main(call) == 0
    output = capsys.readouterr().out
    for number in range(2, 7):
        assert output.count(f"{first / f'motion_{number}.npy'}: ") == 1
    assert (
        "2 candidate motions were repaired, 3 cannot be used and are ranked last "
        "(--strict stops instead)" in output
    )
    answers = submission.read_submission(
        tmp_path / "submissions" / "submission.csv", test_queries, 12
    )
    ranked = answers[query_key(first.name)]
    assert sorted(ranked) == list(range(1, 13)) and set(ranked[-3:]) == {4, 5, 6}
    command = [
        "submission",
        str(tmp_path / "submissions" / "submission.csv"),
        "--data_dir",
        str(data),
        "--top_k",
        "12",
    ]
    assert validate.main(command) == 0
    (saved,) = (tmp_path / "submissions").glob("*.npz")
    assert all(
        np.isfinite(scores).all()
        for scores in external.read_saved_similarities(saved, test_queries)
    )
    assert ensemble.main([*call, "--strict"]) == 1
    assert "error: " in capsys.readouterr().err
