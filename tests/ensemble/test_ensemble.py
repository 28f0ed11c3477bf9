"""Members, their fusion and ensemble.py by its command line: what takes part, what it weighs, what is written."""

import csv
import json
import shutil
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
from helpers import made_run
from motret.config import base
from motret.config.scripts import EnsembleConfig
from motret.data import folds
from motret.data.dataset import load_test, load_training
from motret.ensemble import external, members, query_bank
from motret.ensemble import fit as fit_module
from motret.ensemble.external import ExternalPredictions
from motret.ensemble.fit import FittedEnsemble, OofGalleries, _select_if_significant, fit_ensemble, held_out_captions
from motret.ensemble.inference import Encoder
from motret.ensemble.members import ExternalMember
from motret.ensemble.weights import WeightSearch
from motret.errors import RunError
from motret.evaluation import gallery_ranks, metrics
from motret.evaluation.z_score import ZScore
from motret.formats import submission
from motret.formats.queries import read_queries
from motret.formats.text_files import query_key
from motret.report import run_report
from motret.runs import oof
from motret.runs.run import open_run

pytestmark = pytest.mark.filterwarnings("ignore:.*candidates.*:UserWarning")
DATA, FOLDS = helpers.training_data(), helpers.folds(count=4)


def config(out_dir: Path, **values) -> EnsembleConfig:
    return base.build_config(EnsembleConfig, {"out_dir": out_dir, "query_bank": "off", "views": "none", "device": "cpu"} | values)


def run(folder: Path, name: str, seed: int = 0, alike: int | None = None, **made):
    """A run of made-up embeddings; runs of one `alike` have the same settings."""
    own = made_run(folder, name, seed, found=FOLDS, **{"folds": range(4)} | made)
    about = json.loads((own.folder / "args.json").read_text())
    about["settings"]["seed"] = seed if alike is None else alike
    (own.folder / "args.json").write_text(json.dumps(about))
    return open_run(own.folder)


def gathered(folder: Path, *named: str, **values) -> list[members.Member]:
    return members.gather_members(config(folder, runs=named, **values), DATA, FOLDS)


def fit(folder: Path, *extra: ExternalMember, **values) -> FittedEnsemble:
    chosen = config(folder, **values)
    encoder = Encoder(chosen.machine, folder, DATA.training.captions)
    return fit_ensemble([*members.gather_members(chosen, DATA, FOLDS), *extra], DATA, FOLDS, chosen, encoder)


# ---- members


def test_runs_of_the_same_settings_are_one_member(tmp_path: Path) -> None:
    run(tmp_path, "a", 0), run(tmp_path, "b", 0, full=True), run(tmp_path, "c", 1)
    first, second = gathered(tmp_path)
    assert (first.name, first.runs, second.runs) == ("a", ("a", "b"), ("c",))
    assert [(one.name, fold) for one, fold in first.models] == [("a", 0), ("a", 1), ("a", 2), ("a", 3), ("b", None)]


def test_a_model_of_all_motions_takes_part_beside_the_folds_of_its_settings(tmp_path: Path) -> None:
    run(tmp_path, "folds", 0), run(tmp_path, "whole", 0, folds=(), full=True), run(tmp_path, "stranger", 5, folds=(), full=True)
    (member,) = gathered(tmp_path)
    assert member.name == "folds" and [fold for _, fold in member.models] == [0, 1, 2, 3, None]


def test_a_named_model_of_all_motions_ranks_alone_and_is_weighed_by_its_twin(tmp_path: Path) -> None:
    run(tmp_path, "folds", 0), run(tmp_path, "whole", 0, folds=(), full=True)
    (member,) = gathered(tmp_path, "whole")
    assert member.name == "whole" and [(one.name, fold) for one, fold in member.models] == [("whole", None)]
    (twin,) = gathered(tmp_path, "folds")
    np.testing.assert_array_equal(member.similarity(2), twin.similarity(2))


def test_a_model_of_all_motions_without_a_twin_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "other", 1), run(tmp_path, "whole", 0, folds=(), full=True)
    with pytest.raises(RunError, match="whole: holds a model of all motions alone, and no run with the same settings"):
        gathered(tmp_path, "whole")


def test_a_run_without_a_finished_model_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "begun", 0, folds=())
    with pytest.raises(RunError, match="begun: has no finished model"):
        gathered(tmp_path, "begun")


def test_runs_that_do_not_take_part_are_named_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "whole", 0), run(tmp_path, "part", 1, folds=(0, 1)), run(tmp_path, "stale", 2), run(tmp_path, "foreign", 3)
    for name, what in (("stale", "folds"), ("foreign", "data")):
        about = json.loads((tmp_path / name / "args.json").read_text())
        (tmp_path / name / "args.json").write_text(json.dumps(about | {what: "another"}))
    assert [member.name for member in gathered(tmp_path)] == ["whole"]
    assert capsys.readouterr().out == "left aside: foreign (other data), part (2 of 4 folds finished), stale (other folds)\n"
    gathered(tmp_path, "whole")
    assert capsys.readouterr().out == ""


def test_the_models_of_one_fold_are_those_alone_and_a_member_without_it_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "whole", 0), run(tmp_path, "part", 1, folds=(0, 1))
    assert [[fold for _, fold in member.models] for member in gathered(tmp_path, "whole", "part", fold=1)] == [[1], [1]]
    with pytest.raises(RunError, match="part: has not finished fold 2"):
        gathered(tmp_path, "whole", "part", fold=2)


# ---- the fusion


def test_each_fold_is_scored_by_weights_fitted_on_the_others(tmp_path: Path) -> None:
    for name, seed, sharp in (("a", 0, 1.0), ("b", 1, 2.0), ("c", 2, 0.0)):
        run(tmp_path, name, seed, sharp=sharp)
    found = fit(tmp_path)
    galleries = OofGalleries.open(gathered(tmp_path), range(4), DATA, FOLDS)
    weigher = WeightSearch(galleries.contests)
    for fold, own in zip(found.folds, found.together, strict=True):
        weights = weigher.choose([other for other in range(4) if other != fold])
        np.testing.assert_allclose(own.values(), galleries.contests[fold].standing(weights).values())
        assert found.local.by_fold[fold].mean == pytest.approx(own.values().mean())
    np.testing.assert_array_equal(found.weights, weigher.choose(range(4)))
    assert found.local.score.mean == pytest.approx(gallery_ranks.mean_score(found.together).mean)


def test_what_a_fold_says_does_not_change_the_weights_it_is_scored_by(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        run(tmp_path, name, seed, sharp=2 - 2 * seed)
    before = fit(tmp_path, fold=3)
    own = open_run(tmp_path / "b")
    out = oof.load_out_of_fold(own, 3)
    oof.save_out_of_fold(own.fold_dir(3) / "oof.npz", replace(out, text=out.motion[out.motion_idx]))  # a perfect member on that fold alone
    after = fit(tmp_path, fold=3)
    np.testing.assert_array_equal(before.weights, after.weights)
    assert after.folds == (3,) and gallery_ranks.motion_values(after.alone[1]).mean() > 0.99


def test_equal_similarities_are_one_member(tmp_path: Path) -> None:
    run(tmp_path, "a", 0), run(tmp_path, "b", 1)
    before = fit(tmp_path)
    again = {fold: 3 * member.similarity(fold) + 1 for member in gathered(tmp_path, "a") for fold in range(4)}
    after = fit(tmp_path, ExternalMember("again", ExternalPredictions("again", (), again)))
    assert [member.name for member in after.members] == ["a", "b"]
    np.testing.assert_array_equal(before.weights, after.weights)
    assert before.local.score == after.local.score


def test_equal_weights_may_be_asked_for(tmp_path: Path) -> None:
    run(tmp_path, "a", 0, sharp=3.0), run(tmp_path, "b", 1, sharp=0.0)
    assert list(fit(tmp_path, weights="equal").weights) == [0.5, 0.5]


def test_one_common_fold_leaves_weights_equal(tmp_path: Path) -> None:
    run(tmp_path, "a", 0, sharp=3.0), run(tmp_path, "b", 1, sharp=0.0, folds=(2,))
    found = fit(tmp_path, runs=("a", "b"))
    assert list(found.weights) == [0.5, 0.5] and found.folds == (2,)


def test_a_bank_is_asked_for_each_mixture_as_the_formula_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        run(tmp_path, name, seed)
    rng = np.random.default_rng(0)
    texts = {name: rng.normal(size=(50, 6)) for name in ("a", "b")}
    asked = []

    class Told:
        def bank_of_fold(self, member, fold, captions):
            asked.append((fold, captions))
            return texts[member.name]

    galleries, weights = OofGalleries.open(gathered(tmp_path), range(4), DATA, FOLDS), (0.3, 0.7)
    found = galleries.with_bank({weights}, 1, Told())[weights]
    learned = {caption for row in FOLDS.training(1) for caption in DATA.training.captions[row]}
    assert [fold for fold, _ in asked] == [1, 1] and set(asked[0][1]) == learned and len(asked[0][1]) == len(learned)
    queries = captions = 0
    for member, weight in zip(galleries.members, weights, strict=True):
        text, motion = member.vectors(1)
        scale = ZScore.of(text @ motion.T)
        queries, captions = queries + weight * scale(text @ motion.T), captions + weight * scale(texts[member.name] @ motion.T)
    hubs = np.unique(captions.argmax(axis=1))
    for beta in query_bank.BETAS:
        normalised = np.exp(beta * queries) / np.exp(beta * captions).sum(axis=0)
        whole = np.where(np.isin(queries.argmax(axis=1), hubs)[:, None], normalised, queries)
        motion_idx, _ = held_out_captions(DATA, FOLDS, 1)
        np.testing.assert_allclose(found[beta].values(), metrics.caption_scores(whole, motion_idx))


def test_a_bank_is_used_where_it_helps_on_galleries_that_did_not_choose_it() -> None:
    def tables(gain: float, seeds: int = 4):
        rng, listed = np.random.default_rng(0), []
        for _ in range(seeds):
            motion_idx = np.arange(60)
            plain = rng.normal(size=(60, 60)) + 1.5 * np.eye(60)
            options = {None: plain} | {beta: plain + (gain if beta == 2.0 else -0.1) * np.eye(60) for beta in query_bank.BETAS}
            listed.append({beta: gallery_ranks.GalleryRanks.of(sim, motion_idx, motion_idx) for beta, sim in options.items()})
        return listed

    assert _select_if_significant(tables(1.0), None) == 2.0
    assert _select_if_significant(tables(0.0), None) is None and _select_if_significant(tables(1.0, seeds=1), None) is None
    assert _select_if_significant([{None: table[None]} for table in tables(1.0)], None) is None


# ---- ensemble.py


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of two folds on the generated challenge, and one of all motions."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed, fold in (("one", 0, "all"), ("two", 1, "all"), ("whole", 1, "full")):
        assert helpers.run_training(folder, name, seed=seed, fold=fold, epochs=1) == 0
    return folder


def rank_test(trained: Path, out: Path, *flags: str) -> int:
    return ensemble.main([*helpers.places(), f"--out_dir={trained}", f"--submissions_dir={out}", *flags])


def written(folder: Path) -> tuple[dict, dict[str, np.ndarray], dict[str, tuple[int, ...]]]:
    """The JSON, the similarities and the answers of the one submission in a folder."""
    (about,) = (path for path in folder.glob("*.json"))
    with np.load(about.with_suffix(".npz"), allow_pickle=False) as kept:
        similarities = {name: kept[name] for name in kept.files}
    return json.loads(about.read_text()), similarities, submission.read_submission(about.with_suffix(".csv"))


def test_it_ends_with_a_table_and_keeps_all_similarities(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rank_test(trained, tmp_path) == 0
    told = capsys.readouterr().out.splitlines()
    about, kept, answers = written(tmp_path)
    assert [(one["run"], one["runs"], one["full"]) for one in about["members"]] == [
        ("one", ["one"], False),
        ("two", ["two", "whole"], True),
    ]
    assert sum(one["weight"] for one in about["members"]) == pytest.approx(1, abs=1e-5)
    head = next(number for number, line in enumerate(told) if line.startswith("member "))
    rows = [line.split("  ")[0] for line in told[head : head + 5]]
    best, network = (gain["over"] for gain in about["gains"])
    assert rows == ["member", "one", "two", network, "ensemble"] and best in ("one", "two") and network == f"{best}, one network"
    assert f"{about['local_score']['mean']:.4f} +- " in told[head + 4]
    for gain, line in zip(about["gains"], told[head + 5 : head + 7], strict=True):
        assert f"{gain['over']}: {gain['mean']:+.4f} +- {gain['error']:.4f}; true {gain['true']['mean']:+.4f}" in line
    low, high = about["leaderboard_band"]
    assert f"{low:.3f} to {high:.3f} in 9 of 10 cases" in told[head + 7] and low < about["local_score"]["mean"] < high
    assert kept["query"].shape == kept["candidate"].shape == kept["similarity"].shape == (36,)
    assert kept["query"].dtype.kind == "U" and kept["candidate"].dtype.kind == "i" and kept["similarity"].dtype == np.float32
    for query, ranked in answers.items():
        mine = kept["query"] == query
        order = kept["candidate"][mine][np.argsort(-kept["similarity"][mine], kind="stable")]
        assert tuple(order[:10]) == ranked


def test_what_each_member_says_is_kept_and_its_page_tells_where_members_disagree(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--runs", "one", "two", "--query_bank=off", "--views=none", "--weights=equal")
    assert rank_test(trained, tmp_path, *flags) == 0
    about, kept, _ = written(tmp_path)
    assert kept["members"].tolist() == ["one", "two"] and kept["alone"].shape == (2, 36) and kept["alone"].dtype == np.float32
    np.testing.assert_allclose(kept["alone"].mean(axis=0), kept["similarity"], atol=1e-5)
    monkeypatch.setattr(run_report, "write_run_report", lambda run, *rest: run.folder)
    assert report.main([*helpers.places(), f"--out_dir={trained}", f"--submissions_dir={tmp_path}"]) == 0
    html = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    shown = json.loads(html.split('id="data">')[1].split("</script>")[0])["queries"]
    expected = [1 - spearmanr(*kept["alone"][:, kept["query"] == query["id"]].astype(float)).statistic for query in shown]
    assert [query["disagreement"] for query in shown] == pytest.approx(expected) and len(shown) == 3
    scores = html.split('<dl class="facts scores">')[1].split("</dl>")[0]
    assert scores.index("Local score, expected on held-out motions") < scores.index("True score, on these queries")
    assert "{mean:.3f} ± {error:.3f}".format(**about["local_score"]) in scores


def test_one_network_of_a_member_is_worth_the_mean_of_its_networks_alone(trained: Path, tmp_path: Path) -> None:
    assert rank_test(trained, tmp_path / "both", "--runs", "one", "two", "--query_bank=off", "--views=none") == 0
    about = written(tmp_path / "both")[0]
    best, network = about["gains"]
    alone = []
    for fold in (0, 1):
        out = tmp_path / str(fold)
        assert rank_test(trained, out, "--runs", best["over"], f"--fold={fold}", "--query_bank=off", "--views=none") == 0
        alone.append(written(out)[0]["true_score"]["mean"])
    assert network["true"]["mean"] == pytest.approx(about["true_score"]["mean"] - np.mean(alone))
    assert network["true"]["mean"] != best["true"]["mean"]
    assert (network["mean"], network["error"]) == (best["mean"], best["error"])  # out of fold there is but one network


def test_any_number_of_candidates_may_be_written(trained: Path, tmp_path: Path) -> None:
    assert rank_test(trained, tmp_path, "--top_k=4", "--query_bank=off") == 0
    check = [str(tmp_path / "submission.csv"), "--data_dir", str(helpers.challenge())]
    assert validate.main(["submission", *check, "--top_k=4"]) == 0
    assert validate.main(["submission", *check]) == 1


def test_a_kept_similarity_file_is_a_foreign_member(trained: Path, tmp_path: Path) -> None:
    """A file that is given nearly all the weight ranks as what it was made from."""
    assert rank_test(trained, tmp_path / "two", "--runs", "two", "--query_bank=off") == 0
    (file,) = (tmp_path / "two").glob("*.npz")
    flags = ("--runs", "one", "--query_bank=off", f"--members={file}")
    assert rank_test(trained, tmp_path / "both", *flags, "--member_weight=0.999") == 0
    two, both = (written(tmp_path / name) for name in ("two", "both"))
    assert two[2] == both[2]
    assert [(one["run"], one["weight"]) for one in both[0]["members"]] == [("one", pytest.approx(0.001)), (file.name, 0.999)]


def test_ranks_made_elsewhere_are_a_member(trained: Path, tmp_path: Path) -> None:
    rows = {str(query): list(range(12, 0, -1)) for query in (1, 2, 3)}
    submission.write_submission(tmp_path / "mine.csv", rows, "name", 12)
    flags = ("--runs", "one", f"--members={tmp_path / 'mine.csv'}", "--member_weight=0.999")
    assert rank_test(trained, tmp_path / "out", *flags) == 0
    assert set(written(tmp_path / "out")[2].values()) == {tuple(range(12, 2, -1))}


def test_a_foreign_member_with_out_of_fold_part_is_weighed_by_score(trained: Path, tmp_path: Path) -> None:
    """One that knows every held-out motion takes all the weight, one that knows nothing gets none."""
    data = load_training(base.build_config(base.DataConfig, vars(open_run(trained / "one").config.data)), 1)
    found = folds.read_folds(data, data_settings().folds_dir)
    queries = load_test(helpers.challenge() / "test", data.store.config, data_settings(), 1).queries
    arrays = {
        "query": np.repeat([query.id for query in queries], 12),
        "candidate": np.tile(np.arange(1, 13), 3),
        "similarity": np.tile(np.arange(12.0), 3),
        "folds": np.array(found.hash),
    }
    rng = np.random.default_rng(0)
    for name, sure in (("knows", 9.0), ("guesses", 0.0)):
        for fold in range(2):
            motion_idx, group = held_out_captions(data, found, fold)
            arrays[f"oof{fold}"] = rng.normal(size=(len(motion_idx), len(group)))
            arrays[f"oof{fold}"][np.arange(len(motion_idx)), motion_idx] += sure
        np.savez(tmp_path / f"{name}.npz", **arrays)
    assert rank_test(trained, tmp_path / "out", "--members", str(tmp_path / "knows.npz"), str(tmp_path / "guesses.npz")) == 0
    about, _, answers = written(tmp_path / "out")
    weights = {one["run"]: one["weight"] for one in about["members"]}
    assert weights == {"one": 0, "two": 0, "knows.npz": 1, "guesses.npz": 0}
    assert set(answers.values()) == {tuple(range(12, 2, -1))} and about["query_bank"] is None
    np.savez(tmp_path / "other.npz", **arrays | {"folds": np.array("other")})
    assert rank_test(trained, tmp_path / "no", "--members", str(tmp_path / "other.npz")) == 1
    np.savez(tmp_path / "short.npz", **arrays | {"oof1": arrays["oof1"][1:]})
    assert rank_test(trained, tmp_path / "no", "--members", str(tmp_path / "short.npz")) == 1


def data_settings() -> base.DataConfig:
    data = helpers.challenge()
    return base.DataConfig(data_dir=data, work_dir=Path(f"{data}-work"), folds_dir=Path(f"{data}-folds"))


def similarity_file(path: Path, **changed: np.ndarray) -> Path:
    arrays = {"query": np.repeat(["1", "2", "3"], 12), "candidate": np.tile(np.arange(1, 13), 3), "similarity": np.zeros(36)}
    np.savez(path, **arrays | changed)
    return path


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("a.npz", {"candidate": np.tile(np.arange(12), 3)}, "no similarity of candidate 12 of query 1"),
        ("a.npz", {"candidate": np.ones(36, dtype=int)}, "row 1: candidate 1 of query 1 is there twice"),
        ("a.npz", {"similarity": np.zeros(35)}, "arrays of different shapes"),
        ("a.npz", {"similarity": np.full(36, np.nan)}, "similarities finite numbers"),
        ("a.npz", {"query": np.array([object()])}, "cannot be read as .npz"),
        ("a.txt", {}, "is neither .csv nor .npz"),
    ],
)
def test_a_foreign_file_of_the_wrong_form_is_one_line(
    trained: Path, tmp_path: Path, name: str, changed: dict, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = similarity_file(tmp_path / "a.npz", **changed).rename(tmp_path / name)
    assert rank_test(trained, tmp_path / "out", f"--members={file}", "--member_weight=0.5") == 1
    assert f"error: {file}: " in (err := capsys.readouterr().err) and said in err
    assert not (tmp_path / "out").exists()


def test_a_foreign_member_that_nothing_weighs_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = similarity_file(tmp_path / "a.npz")
    assert rank_test(trained, tmp_path / "out", f"--members={file}") == 1
    assert "--member_weight: 0 weights, and 1 members without out-of-fold part (a.npz)" in capsys.readouterr().err


def test_validation_queries_are_ranked_but_are_no_submission(trained: Path, tmp_path: Path) -> None:
    val = tmp_path / "val"
    drawn = ["make_batches", *helpers.places(), "--queries", "2", "--candidates", "12", "--fold", "0", "--out", str(val)]
    assert validate.main(drawn) == 0
    assert rank_test(trained, tmp_path / "subs", "--fold=0", f"--test_dir={val}") == 0
    assert not (tmp_path / "subs").exists() and len(submission.read_submission(val / "ranked.csv")) == 2
    assert rank_test(trained, tmp_path / "subs", "--fold=0", "--query_bank=off", f"--test_dir={val}", f"--out={tmp_path / 'mine.csv'}") == 0
    assert not (tmp_path / "subs").exists() and (tmp_path / "mine.npz").is_file()


def test_one_run_as_it_is_stands_once_in_the_table(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rank_test(trained, tmp_path, "--runs", "one", "--query_bank=off", "--views=none") == 0
    told, (about, _, _) = capsys.readouterr().out, written(tmp_path)
    table = told.splitlines()[1:3]
    assert table[0].startswith("member ") and table[1].startswith("one ") and told.count("ensemble") == 0 and "gain over" not in told
    own = about["members"][0]["local_score"]["mean"]
    assert about["local_score"]["mean"] == own and f"{own:.4f} +- " in table[1] and about["gains"] == []
    low, high = about["leaderboard_band"]
    assert f"{low:.3f} to {high:.3f} in 9 of 10 cases" in told


def test_one_run_with_views_tells_what_they_are_worth_and_why_it_may_be_less(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rank_test(trained, tmp_path, "--runs", "one", "--query_bank=off", "--views=speed") == 0
    told, (about, _, _) = capsys.readouterr().out, written(tmp_path)
    rows = [line.split("  ")[0] for line in told.splitlines()[1:4]]
    assert rows == ["member", "one", "one with views speed"] and [gain["over"] for gain in about["gains"]] == ["one"]
    assert ("it is below its one member since" in told) == (about["gains"][0]["mean"] < 0)


def test_an_ensemble_that_comes_to_one_plain_member_has_that_members_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, "a", 0)
    monkeypatch.setattr(
        fit_module, "_select_if_significant", lambda tables, plain: plain if len(tables) == 4 else next(iter({*tables[0]} - {plain}), plain)
    )
    chosen = base.build_config(EnsembleConfig, {"out_dir": tmp_path, "views": "none"})

    class Told:
        def bank_of_fold(self, member, fold, captions):
            return np.random.default_rng(fold).normal(size=(len(captions), 6))

    fused = fit_ensemble(gathered(tmp_path), DATA, FOLDS, chosen, Told())
    assert fused.changes_nothing and fused.together == fused.alone[0]


def test_a_file_that_no_score_can_weigh_leaves_the_mix_without_score(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = similarity_file(tmp_path / "a.npz"), tmp_path / "out"
    assert rank_test(trained, out, "--runs", "one", "--query_bank=off", f"--members={file}", "--member_weight=0.3") == 0
    told = capsys.readouterr().out
    assert "the local score leaves a.npz out, which has no out-of-fold part" in told and "local score of the other members: score" in told
    assert "a leaderboard of" not in told and "gain over the best single, one: true " in told
    (about,) = (json.loads(path.read_text()) for path in out.glob("*_unscored_*.json"))
    assert about["local_score"] is None and about["leaderboard_band"] is None and not list(out.glob("*_cv*"))
    (row,) = csv.DictReader((out / "log.csv").open())
    assert row["local_score"] == row["error"] == ""
    assert validate.main(["record", str(out / "submission.csv"), "0.5", f"--submissions_dir={out}"]) == 0
    assert "public score 0.5, no local score" in capsys.readouterr().out


def test_the_same_submission_is_not_logged_twice(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two", "one"):
        assert rank_test(trained, tmp_path, "--runs", name, "--query_bank=off") == 0
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["members"] for row in rows] == ["two", "one"]  # the last row is the latest
    assert f"(the same as {rows[1]['file']}, logged before)" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*_cv*.csv"))) == 2
    assert (tmp_path / rows[1]["file"]).read_bytes() == (tmp_path / "submission.csv").read_bytes()


def test_the_order_in_which_runs_are_named_makes_no_other_submission(trained: Path, tmp_path: Path) -> None:
    for names in (("one", "two"), ("two", "one")):
        assert rank_test(trained, tmp_path, "--runs", *names, "--query_bank=off", "--views=none", "--weights=equal") == 0
    assert len(list(csv.DictReader((tmp_path / "log.csv").open()))) == 1


# ---- validate.py record, compare


def test_the_leaderboards_score_is_written_into_the_log(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        assert rank_test(trained, tmp_path, "--runs", name, "--query_bank=off") == 0
    before = list(csv.DictReader((tmp_path / "log.csv").open()))
    place = f"--submissions_dir={tmp_path}"
    assert validate.main(["record", before[0]["file"], "0.61", place]) == 0
    assert validate.main(["record", str(shutil.copy(tmp_path / "submission.csv", tmp_path.parent / "mine.csv")), "0.78", place]) == 0
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["public_score"] for row in rows] == ["0.61", "0.78"]
    assert [row | {"public_score": ""} for row in rows] == before
    assert f"{before[1]['file']}: public score 0.78, local score {before[1]['local_score']}" in capsys.readouterr().out
    assert validate.main(["record", "nobody.csv", "0.5", place]) == 1
    assert "log.csv: has no row of nobody.csv" in capsys.readouterr().err
    assert validate.main(["record", before[0]["file"], "78", place]) == 1
    assert "public_score: is 78" in capsys.readouterr().err
    assert list(csv.DictReader((tmp_path / "log.csv").open())) == rows


def test_a_log_of_other_columns_is_left_alone(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.csv").write_text("time,mine\n1,2\n")
    assert rank_test(trained, tmp_path, "--runs", "one", "--query_bank=off") == 1
    assert "log.csv: its columns are not" in capsys.readouterr().err and (tmp_path / "log.csv").read_text() == "time,mine\n1,2\n"


def answers(path: Path, *ranked: list[int]) -> Path:
    submission.write_submission(path, {str(number): own for number, own in enumerate(ranked, 1)}, top_k=len(ranked[0]))
    return path


def test_two_submissions_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = answers(tmp_path / "a.csv", [1, 2, 3, 4], [5, 6, 7, 8])
    same = answers(tmp_path / "b.csv", [1, 2, 3, 4], [5, 6, 7, 8])
    assert validate.main(["compare", str(one), str(same)]) == 0
    said = "rank correlation 1.0000, first candidate changed in 0.0% of 2 queries, 4.00 of 4 candidates in common\n"
    assert capsys.readouterr().out == said
    turned = answers(tmp_path / "c.csv", [4, 3, 2, 1], [5, 6, 9, 10])
    assert validate.main(["compare", str(one), str(turned)]) == 0
    ranks = [[0, 1, 2, 3, 4.5, 4.5], [0, 1, 4.5, 4.5, 2, 3]]  # of 5 6 7 8 9 10; what is not listed shares the places after the last
    correlation = (-1 + np.corrcoef(*ranks)[0, 1]) / 2
    said = f"rank correlation {correlation:.4f}, first candidate changed in 50.0% of 2 queries, 3.00 of 4 candidates in common\n"
    assert capsys.readouterr().out == said
    other = answers(tmp_path / "d.csv", [1, 2, 3, 4])
    assert validate.main(["compare", str(one), str(other)]) == 1
    assert "d.csv: answers other queries than a.csv: 2" in capsys.readouterr().err


# ---- candidates that cannot be used


def spoil_candidates(folder: Path) -> None:
    """Query 1: frames of NaN, five frames, a text file, NaN throughout, a link to nothing; the first two can be repaired."""
    raw = np.load(folder / "motion_2.npy")
    raw[4:7] = np.nan
    np.save(folder / "motion_2.npy", raw)
    np.save(folder / "motion_3.npy", np.load(folder / "motion_3.npy")[:5])
    (folder / "motion_4.npy").write_text("no array")
    np.save(folder / "motion_5.npy", np.full((20, 384), np.nan, np.float32))
    (folder / "motion_6.npy").unlink()
    (folder / "motion_6.npy").symlink_to(folder / "gone.npy")


@pytest.mark.filterwarnings("ignore:.*candidates.*:UserWarning")
def test_bad_candidates_are_told_and_ranked_last_and_the_submission_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Path(shutil.copytree(helpers.challenge(), tmp_path / "data"))
    assert helpers.run_training(tmp_path / "runs", "one", data, epochs=1) == 0
    queries = tmp_path / "data" / "test"
    first = next(folder for folder in sorted(queries.iterdir()) if folder.is_dir())
    spoil_candidates(first)
    asked = read_queries(queries)
    loud = [np.where(np.isin(query.candidates, (4, 5, 6)), 9.0, np.arange(12.0)) for query in asked]  # a file that likes the bad ones
    external.save_similarities(tmp_path / "loud.npz", asked, loud)
    out = ["--out_dir", str(tmp_path / "runs"), "--submissions_dir", str(tmp_path / "submissions"), "--top_k", "12"]
    call = [*helpers.places(data), *out, "--members", str(tmp_path / "loud.npz"), "--member_weight", "0.9"]
    capsys.readouterr()
    assert prepare.main(helpers.places(data)) == 0
    assert "motion_4.npy: not an .npy file: ranked last" in capsys.readouterr().out
    assert ensemble.main(call) == 0
    told = capsys.readouterr().out
    for number in range(2, 7):
        assert told.count(f"{first / f'motion_{number}.npy'}: ") == 1
    assert "2 candidate motions were repaired, 3 cannot be used and are ranked last (--strict stops instead)" in told
    answers = submission.read_submission(tmp_path / "submissions" / "submission.csv", asked, 12)
    ranked = answers[query_key(first.name)]
    assert sorted(ranked) == list(range(1, 13)) and set(ranked[-3:]) == {4, 5, 6}
    command = ["submission", str(tmp_path / "submissions" / "submission.csv"), "--data_dir", str(data), "--top_k", "12"]
    assert validate.main(command) == 0
    (kept,) = (tmp_path / "submissions").glob("*.npz")
    assert all(np.isfinite(own).all() for own in external.read_saved_similarities(kept, asked))
    assert ensemble.main([*call, "--strict"]) == 1
    assert "error: " in capsys.readouterr().err
