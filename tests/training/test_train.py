"""train.py, validate.py oof and ensemble.py by their command lines, on a generated challenge."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib.externals.loky import get_reusable_executor

import ensemble
import helpers
import train
import validate
from motret.evaluation import metrics
from motret.runs import checkpoints
from motret.runs.run import open_run
from motret.training import fit
from motret.training import train as train_module

EQUAL = {"rtol": 0, "atol": 0}


def ensemble_flags(out_dir, submissions, *extra):
    return [*helpers.places(), f"--out_dir={out_dir}", f"--submissions_dir={submissions}", *extra]


def rank_test(out_dir, submissions, *extra):
    return ensemble.main(ensemble_flags(out_dir, submissions, "--views=none", *extra))


def embeddings(folder, fold):
    with np.load(folder / f"fold{fold}" / "oof.npz", allow_pickle=False) as kept:
        return {name: kept[name] for name in kept}


def same_embeddings(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) for name in one
    )


def best(folder, fold):
    return checkpoints.load_checkpoint(
        checkpoints.best_checkpoint(folder / f"fold{fold}"), helpers.CPU
    )


def answers(path):
    with path.open(newline="") as stream:
        return {row.pop("query_id"): list(row.values()) for row in csv.DictReader(stream)}


def expected_true_score(path):
    """The competition's formula, on the files as they are written."""
    right = dict(
        line.split(",")
        for line in (helpers.challenge() / "test" / "gt.csv").read_text().split()[1:]
    )
    result = answers(path)
    total = 0.0
    for k in range(1, 11):
        total += np.mean([right[query] in result[query][:k] for query in right]) / k
    return total / sum(1 / k for k in range(1, 11))


def loaded_folds(monkeypatch):
    """The names of the folds whose checkpoints are loaded from now on."""
    loaded = []
    real = checkpoints.load_checkpoint
    monkeypatch.setattr(
        checkpoints,
        "load_checkpoint",
        lambda path, device: loaded.append(path.parent.name) or real(path, device),
    )
    return loaded


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder of runs: two whole ones that differ in their seed, and one of fold 0 alone."""
    out_dir = tmp_path_factory.mktemp("runs")
    assert helpers.run_training(out_dir, "one") == 0
    assert helpers.run_training(out_dir, "two", seed=1) == 0
    assert helpers.run_training(out_dir, "partial", seed=2, fold=0) == 0
    return out_dir


# ---- train.py


def test_a_run_leaves_what_the_contract_names(trained):
    folder = trained / "one"
    assert sorted(path.name for path in folder.iterdir()) == ["args.json", "fold0", "fold1"]
    for fold in (0, 1):
        files = sorted(path.name for path in (folder / f"fold{fold}").iterdir())
        assert re.fullmatch(r"best_epoch[12]\.pt", files.pop(0))
        assert files == ["last.pt", "metrics.csv", "oof.npz", "train_log.txt"]
    ids = [*embeddings(folder, 0)["ids"], *embeddings(folder, 1)["ids"]]
    assert sorted(ids) == (helpers.challenge() / "train.txt").read_text().split()


def test_args_json_says_where_each_setting_came_from(tmp_path):
    flags = [
        *helpers.places(),
        "--preset=fast",
        "--fold",
        "0",
        "--out-dir",
        str(tmp_path),
        "--run_name=small",
        "--epochs=1",
        "--no-rotations",
    ]
    assert (
        train.main(
            [
                "holistic",
                *flags,
                "--text-width=64",
                "--width",
                "16",
                "--proj_dim=8",
                "--max_frames=60",
            ]
        )
        == 0
    )
    content = json.loads((tmp_path / "small" / "args.json").read_text())
    for source, names in {
        "flag": ("width", "epochs", "rotations", "text_width", "data_dir", "fold", "preset"),
        "preset fast": ("text_weights", "lr", "batch_size", "folds"),
        "default": ("tau", "patch", "seed"),
        "variant holistic": ("variant",),
    }.items():
        assert {name: content["sources"][name] for name in names} == dict.fromkeys(names, source)
    values = content["settings"]
    assert (values["width"], values["rotations"], values["text_weights"], values["epochs"]) == (
        16,
        False,
        "none",
        1,
    )
    assert content["sources"].keys() == values.keys()


def test_the_same_seed_gives_the_same_model_and_another_seed_another(trained, tmp_path):
    assert helpers.run_training(tmp_path, "again", fold=1) == 0
    assert same_embeddings(
        embeddings(tmp_path / "again", 1), embeddings(trained / "one", 1)
    )  # fold 1 alone, or after fold 0
    torch.testing.assert_close(best(tmp_path / "again", 1), best(trained / "one", 1), **EQUAL)
    assert not same_embeddings(embeddings(trained / "two", 1), embeddings(trained / "one", 1))


def test_a_killed_and_resumed_run_ends_bit_for_bit_where_an_unbroken_one_does(
    trained, tmp_path, monkeypatch, capsys
):
    real = checkpoints.save_checkpoint

    def killed(path, content):
        real(path, content)
        if path.name == "last.pt":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save_checkpoint", killed)
        assert helpers.run_training(tmp_path, "one") == 130
    assert "finished work is kept" in capsys.readouterr().err
    left = tmp_path / "one" / "fold0"
    assert (
        len(checkpoints.load_checkpoint(left / "last.pt", helpers.CPU)["history"]) == 1
        and not (left / "oof.npz").exists()
    )
    assert helpers.run_training(tmp_path, "one", resume="auto") == 0
    for fold in (0, 1):
        assert same_embeddings(
            embeddings(tmp_path / "one", fold), embeddings(trained / "one", fold)
        )
        torch.testing.assert_close(
            best(tmp_path / "one", fold), best(trained / "one", fold), **EQUAL
        )


def test_finished_folds_are_not_trained_again(trained, tmp_path, monkeypatch, capsys):
    shutil.copytree(trained / "partial", tmp_path / "partial")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "partial" / "fold0").iterdir()}
    real, fitted = fit.fit, []
    monkeypatch.setattr(fit, "fit", lambda *args: fitted.append(args[0].fold) or real(*args))
    assert helpers.run_training(tmp_path, "partial", seed=2, fold="all", resume="auto") == 0
    assert fitted == [1] and "finished before: fold0" in capsys.readouterr().out
    assert before == {
        path: path.stat().st_mtime_ns for path in (tmp_path / "partial" / "fold0").iterdir()
    }
    monkeypatch.setattr(fit, "fit", None)
    monkeypatch.setattr(
        "motret.models.registry.make_text_tower", None
    )  # not even a text tower is needed
    assert helpers.run_training(tmp_path, "partial", seed=2, resume="auto") == 0


def test_a_model_of_all_motions_leaves_done_and_no_embeddings(tmp_path, capsys):
    assert helpers.run_training(tmp_path, "whole", fold="full") == 0
    files = sorted(path.name for path in (tmp_path / "whole" / "full").iterdir())
    assert files == ["best_epoch2.pt", "done.json", "last.pt", "metrics.csv", "train_log.txt"]
    assert json.loads((tmp_path / "whole" / "full" / "done.json").read_text()) == {"epoch": 2}
    assert "trained on all motions" in capsys.readouterr().out
    assert helpers.run_training(tmp_path, "whole", fold="full", resume="auto") == 0
    assert "finished before: full" in capsys.readouterr().out


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_folds_side_by_side_end_bit_for_bit_where_they_do_one_after_another(
    trained, tmp_path, capfd, backend
):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    get_reusable_executor().shutdown(
        wait=True
    )  # workers of an earlier test would print into that test's output
    try:
        assert helpers.run_training(tmp_path, "serial") == 0
        assert helpers.run_training(tmp_path, "one", fold_jobs=2, joblib_backend=backend) == 0
    finally:
        torch.set_num_threads(threads)
    for fold in (0, 1):
        assert same_embeddings(
            embeddings(tmp_path / "one", fold), embeddings(tmp_path / "serial", fold)
        )
        torch.testing.assert_close(
            best(tmp_path / "one", fold), best(tmp_path / "serial", fold), **EQUAL
        )
    out = capfd.readouterr().out
    assert "2 folds side by side, 1 thread each\n" in out
    assert (
        len(re.findall(r"fold[01] epoch \d", out)) == 2 * 4
    )  # where nobody watches a bar, both runs tell each epoch


def test_folds_side_by_side_are_prepared_in_a_process_of_their_own(tmp_path, monkeypatch, capfd):
    """A parent that computed on a card would hold memory there."""

    def never(*_):
        raise AssertionError("in the parent")

    monkeypatch.setattr(train_module, "make_tower_and_context", never)
    monkeypatch.setattr(train_module, "count_cards", lambda _: 2)
    assert helpers.run_training(tmp_path, "one", fold_jobs=2, epochs=1) == 0
    out = capfd.readouterr().out
    assert re.search(r"2 folds side by side, \d threads? each, on 2 GPUs\n", out)
    assert out.count("training on CPU, float32\n") == 1
    command = json.loads((tmp_path / "one" / "args.json").read_text(encoding="utf-8"))["command"]
    assert command == [Path(sys.argv[0]).name, *sys.argv[1:]]


def test_a_pool_that_forks_is_refused_where_there_is_a_card(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_module, "count_cards", lambda _: 1)
    said = "multiprocessing forks this process, which CUDA does not survive"
    refused(capsys, said, tmp_path, "none", fold_jobs=2, joblib_backend="multiprocessing")
    assert not (tmp_path / "none").exists()


def test_what_is_wrong_in_one_of_the_folds_side_by_side_is_one_line(tmp_path, capfd):
    wild = {
        "lr": 1e30,
        "grad_clip": 0,
        "warmup_epochs": 0,
        "fold_jobs": 2,
        "joblib_backend": "multiprocessing",
    }
    assert helpers.run_training(tmp_path, "wild", **wild) == 1
    message = capfd.readouterr().err
    assert (
        "error: " in message
        and "the loss is nan in epoch 1" in message
        and "Traceback" not in message
    )


@pytest.mark.parametrize(
    ("backend", "said"),
    [("threading", "share torch's random state"), ("nosuch", "joblib has no backend 'nosuch'")],
)
def test_a_backend_that_cannot_be_used_is_refused_before_the_run_begins(
    tmp_path, capsys, backend, said
):
    refused(capsys, said, tmp_path, "none", fold_jobs=2, joblib_backend=backend)
    assert not (tmp_path / "none").exists()


def refused(capsys, said, *args, **values):
    assert helpers.run_training(*args, **values) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ") and said in message


def test_an_existing_name_is_refused(trained, capsys):
    refused(capsys, "one: exists already", trained, "one")


def test_going_on_with_other_settings_is_refused_by_their_names(trained, capsys):
    refused(
        capsys,
        "has other settings: width 16 -> 8, lr 0.0005 -> 0.002",
        trained,
        "one",
        resume="auto",
        width=8,
        lr=0.002,
    )


def test_going_on_with_other_data_is_refused(trained, capsys):
    refused(
        capsys,
        "was trained on other data",
        trained,
        "one",
        data=helpers.challenge(seed=1),
        resume="auto",
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"fold": 2}, "--fold: there is no fold 2: folds are 0 to 1"),
        ({"fold": "none"}, "--fold: 'none' is no fold"),
        ({"heads": 3}, "--heads: 3 heads do not divide a width of 16"),
        ({"text_tower": "ViT-Z-99"}, "--text_tower: open_clip has no model 'ViT-Z-99'"),
    ],
)
def test_settings_that_cannot_be_used_are_faults_of_their_flag(tmp_path, capsys, values, said):
    refused(capsys, said, tmp_path, "bad", **values)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, capsys):
    refused(
        capsys,
        "fold0: the loss is nan in epoch 1 (lower --lr",
        tmp_path,
        "wild",
        lr=1e30,
        grad_clip=0,
        fold=0,
        warmup_epochs=0,
    )
    assert not (tmp_path / "wild" / "fold0" / "oof.npz").exists()


def test_a_fold_with_a_broken_last_checkpoint_is_finished_all_the_same(trained, tmp_path, capsys):
    shutil.copytree(trained / "partial", tmp_path / "partial")
    fold_dir = tmp_path / "partial" / "fold0"
    whole = (fold_dir / "oof.npz").read_bytes()
    (fold_dir / "oof.npz").unlink()
    (fold_dir / "last.pt").write_bytes(b"this is no checkpoint")
    assert helpers.run_training(tmp_path, "partial", seed=2, fold=0, resume="auto") == 0
    assert "last.pt" in "".join(capsys.readouterr())
    assert (fold_dir / "oof.npz").read_bytes() == whole


# ---- validate.py oof


def test_the_validator_prints_what_the_embeddings_score(trained, capsys):
    flags = [*helpers.places(), f"--out_dir={trained}"]
    assert validate.main(["oof", *flags, "--verbose", "--runs", "one"]) == 0
    message = capsys.readouterr().out
    values = []
    for fold in (0, 1):
        out = embeddings(trained / "one", fold)
        own = metrics.caption_scores(out["text"] @ out["motion"].T, out["motion_idx"])
        assert f"fold {fold}: {own.mean():.4f} +- " in message
        values.append(own)
    assert re.search(rf"^one +all 2 +24 +{np.concatenate(values).mean():.4f} \+- ", message, re.M)
    assert (
        "text to motion, whole fold: R@1" in message
        and "motion to text, whole fold: R@1" in message
    )


def test_the_validator_takes_every_run_with_a_finished_fold_unless_told(trained, capsys):
    flags = [*helpers.places(), f"--out_dir={trained}"]
    assert validate.main(["oof", *flags]) == 0
    head, *rows = capsys.readouterr().out.splitlines()[:4]
    assert head.split() == [
        "run",
        "folds",
        "motions",
        "score",
        "difference",
        "R@1",
        "R@5",
        "R@10",
        "MedR",
    ]
    message = {
        row.split("  ")[0]: [cell.strip() for cell in row.split("  ") if cell.strip()]
        for row in rows
    }
    assert message.keys() == {"one", "partial", "two"}
    scores = [float(cells[3].split()[0]) for cells in message.values()]
    assert scores == sorted(scores, reverse=True)
    top, *others = message.values()
    assert len(top) == 8 and all(
        re.fullmatch(r"[+-]\d\.\d{4} \+- \d\.\d{4}", cells[4]) for cells in others
    )
    assert validate.main(["oof", *flags, "--runs", "partial"]) == 0
    alone = capsys.readouterr().out
    assert re.search(r"^partial +\d +12 +0\.", alone, re.M) and "difference" not in alone


def test_the_validator_tells_the_slices_of_the_best_run_and_how_like_the_test_is(trained, capsys):
    flags = [*helpers.places(), f"--out_dir={trained}", "--runs", "one", "two"]
    assert validate.main(["oof", *flags]) == 0
    plain = capsys.readouterr().out
    assert validate.main(["oof", *flags, "--slices"]) == 0
    table, _, sliced = capsys.readouterr().out.partition("\n\n")
    best = table.splitlines()[1].split()[0]
    assert sliced.startswith(f"{best} by what captions are like:\nslice ")
    lengths = re.findall(r"^words in the caption: .*?  +(\d+) +\d+ +0\.\d{4} \+- ", sliced, re.M)
    ids = [name for fold in (0, 1) for name in embeddings(trained / "one", fold)["ids"]]
    texts = [(helpers.challenge() / "texts" / f"{name}.txt").read_text() for name in ids]
    assert sum(map(int, lengths)) == sum(len(text.splitlines()) for text in texts)
    assert re.search(r"^between 2 folds: standard deviation 0\.", sliced, re.M)
    last = sliced.splitlines()[-1]
    assert "% of their words are in no training caption (held out " in last
    assert plain == f"{table}\n{last}\n"


def test_differences_are_to_the_best_run_or_to_the_one_that_is_named(trained, capsys):
    flags = [*helpers.places(), f"--out_dir={trained}", "--runs", "one", "two"]
    assert validate.main(["oof", *flags]) == 0
    plain = capsys.readouterr().out
    best, other = (line.split()[0] for line in plain.splitlines()[1:3])
    assert f"difference: to {best}, motion by motion" in plain
    assert validate.main(["oof", *flags, "--against", other]) == 0
    against = capsys.readouterr().out
    assert f"difference: to {other}, motion by motion" in against
    (down,), (up,) = (
        re.findall(r"([+-]\d\.\d{4} \+- \d\.\d{4})", "\n".join(message.splitlines()[1:3]))
        for message in (plain, against)
    )
    assert down[0] in "-+" and up[0] == "+" and down[1:] == up[1:]


def test_the_last_epoch_is_kept_unless_a_flag_has_one_chosen_and_that_is_said(tmp_path, capsys):
    assert helpers.run_training(tmp_path, "last", fold=0, epochs=3) == 0
    assert (
        tmp_path / "last" / "fold0" / "best_epoch3.pt"
    ).is_file() and "flatters" not in capsys.readouterr().out
    assert "kept epoch 3 (the last)" in (tmp_path / "last" / "fold0" / "train_log.txt").read_text()
    assert helpers.run_training(tmp_path, "chosen", fold=0, epochs=3, select="score") == 0
    assert helpers.run_training(tmp_path, "stopped", fold=0, epochs=3, early_stop_patience=1) == 0
    note = (
        "the epoch of each fold is chosen on the fold it is scored on, "
        "which flatters the score a little"
    )
    assert capsys.readouterr().out.count(note) == 2
    for name in ("chosen", "stopped"):
        with (tmp_path / name / "fold0" / "metrics.csv").open(newline="") as stream:
            scores = [float(row["score"]) for row in csv.DictReader(stream)]
        assert (tmp_path / name / "fold0" / f"best_epoch{1 + int(np.argmax(scores))}.pt").is_file()
    assert validate.main(["oof", *helpers.places(), f"--out_dir={tmp_path}"]) == 0
    noted = next(
        line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch chosen on")
    )
    assert (
        "chosen" in noted.split(": ")[1]
        and "stopped" in noted.split(": ")[1]
        and "last" not in noted.split(": ")[1]
    )


# ---- ensemble.py


def test_an_ensemble_writes_the_submission_its_dated_copy_the_json_and_the_log(
    trained, tmp_path, capsys
):
    assert rank_test(trained, tmp_path) == 0
    message = capsys.readouterr().out
    (kept,) = tmp_path.glob("*_cv*.csv")
    result = re.fullmatch(
        r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_ensemble-of-2_cv(\d\.\d{4})_([0-9a-f]{6})\.csv", kept.name
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [kept.name, kept.stem + ".json", kept.stem + ".npz", "log.csv", "submission.csv"]
    )
    assert kept.read_bytes() == (tmp_path / "submission.csv").read_bytes()
    ranked = answers(kept)
    assert list(ranked) == ["1", "2", "3"]
    assert all(
        len(set(own)) == 10 and {int(number) for number in own} <= set(range(1, 13))
        for own in ranked.values()
    )
    content = json.loads(kept.with_suffix(".json").read_text())
    assert [(member["run"], member["folds"]) for member in content["members"]] == [
        ("one", [0, 1]),
        ("two", [0, 1]),
    ]
    assert (
        f"{content['local_score']['mean']:.4f}" == result[1] and f"score {result[1]} +- " in message
    )
    (row,) = csv.DictReader((tmp_path / "log.csv").open())
    assert (row["file"], row["local_score"], row["members"], row["hash"]) == (
        kept.name,
        result[1],
        "one two",
        result[2],
    )
    assert content["true_score"]["mean"] == pytest.approx(expected_true_score(kept))
    assert f"true score {expected_true_score(kept):.4f} +- " in message


def test_the_log_grows_by_a_row_and_submission_csv_is_the_latest(trained, tmp_path):
    for name in ("one", "two"):
        assert rank_test(trained, tmp_path, "--runs", name) == 0
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["members"] for row in rows] == ["one", "two"]
    assert (tmp_path / "submission.csv").read_bytes() == (tmp_path / rows[1]["file"]).read_bytes()
    assert answers(tmp_path / rows[0]["file"]) != answers(tmp_path / rows[1]["file"])


def test_candidates_may_be_written_as_names_and_the_file_put_elsewhere(trained, tmp_path):
    assert rank_test(trained, tmp_path / "int", "--runs", "one") == 0
    named = tmp_path / "there" / "mine.csv"
    assert (
        rank_test(
            trained, tmp_path / "name", "--runs", "one", "--candidate_format=name", f"--out={named}"
        )
        == 0
    )
    assert not (tmp_path / "name" / "submission.csv").exists()
    numbers = answers(tmp_path / "int" / "submission.csv")
    assert answers(named) == {
        query: [f"motion_{number}" for number in own] for query, own in numbers.items()
    }


def test_an_ensemble_of_the_same_member_twice_ranks_as_the_member(trained, tmp_path):
    shutil.copytree(trained / "one", tmp_path / "runs" / "one")
    shutil.copytree(trained / "one", tmp_path / "runs" / "again")
    assert rank_test(tmp_path / "runs", tmp_path / "both") == 0
    assert rank_test(trained, tmp_path / "alone", "--runs", "one") == 0
    assert answers(tmp_path / "both" / "submission.csv") == answers(
        tmp_path / "alone" / "submission.csv"
    )
    scores = [
        next(csv.DictReader((tmp_path / name / "log.csv").open()))["local_score"]
        for name in ("both", "alone")
    ]
    assert scores[0] == scores[1]


def test_a_ranking_is_the_mean_of_the_folds_on_their_own_scales(trained, tmp_path):
    """The whole way once more by hand: encode, dot, standardise by the gallery each model had not
    seen, average, sort."""
    assert rank_test(trained, tmp_path, "--runs", "one") == 0
    run = open_run(trained / "one")
    from motret.data import dataset
    from motret.data.batching import MotionTensors
    from motret.models.embed import make_caption_bank
    from motret.models.registry import make_text_tower

    test = dataset.load_test(helpers.challenge() / "test", run.features, run.config.data, jobs=1)
    motions, tower = (
        MotionTensors(test.store, run.config.motion, helpers.CPU),
        make_text_tower(run.config.text),
    )
    for number, query in enumerate(test.queries):
        total = 0
        for fold in (0, 1):
            model = checkpoints.build_model(run.config, run, test.store.columns, tower, 0).eval()
            model.load_state_dict(best(run.folder, fold)["model"])
            bank = make_caption_bank(query.captions, tower, False, tmp_path, helpers.CPU)
            with torch.inference_mode():
                said = model.encode_captions(bank, bank.indices(query.captions)).numpy()
                seen = model.encode_motions(
                    motions.gather(torch.from_numpy(test.candidate_idx[number]))
                ).numpy()
            out = embeddings(run.folder, fold)
            gallery = out["text"] @ out["motion"].T
            total = total + ((said @ seen.T).mean(0) - gallery.mean()) / gallery.std()
        order = [str(query.candidates[context]) for context in np.argsort(-total)]
        assert answers(tmp_path / "submission.csv")[query.id] == order[:10]


def test_a_partial_run_is_left_out_unless_it_is_named(trained, tmp_path):
    assert rank_test(trained, tmp_path, "--runs", str(trained / "partial")) == 0
    (row,) = csv.DictReader((tmp_path / "log.csv").open())
    assert row["members"] == "partial"


def test_the_models_of_one_fold_alone_may_rank(trained, tmp_path, monkeypatch):
    loaded = loaded_folds(monkeypatch)
    assert (
        rank_test(trained, tmp_path / "fold", "--runs", "one", "--fold=0", "--query_bank=off") == 0
    )
    (kept,) = (tmp_path / "fold").glob("*.json")
    content = json.loads(kept.read_text())
    assert (
        loaded == ["fold0"]
        and content["fold"] == 0
        and list(content["local_score"]["by_fold"]) == ["0"]
    )


def test_the_model_of_all_motions_ranks_with_its_folds(trained, tmp_path, monkeypatch):
    shutil.copytree(trained / "one", tmp_path / "one")
    assert helpers.run_training(tmp_path, "one", fold="full", resume="auto") == 0
    loaded = loaded_folds(monkeypatch)
    assert rank_test(tmp_path, tmp_path / "submissions", "--query_bank=off") == 0
    assert loaded == ["fold0", "fold1", "full"]


def test_runs_of_other_data_or_folds_are_refused(trained, tmp_path, capsys):
    for key in ("data", "folds"):
        shutil.copytree(trained / "one", tmp_path / key)
        content = json.loads((tmp_path / key / "args.json").read_text())
        (tmp_path / key / "args.json").write_text(json.dumps(content | {key: "other"}))
        assert rank_test(tmp_path, tmp_path / "submissions", "--runs", key) == 1
        assert f"was trained on other {key} (other, now {content[key]})" in capsys.readouterr().err
    assert rank_test(tmp_path, tmp_path / "submissions") == 1
    assert (
        "none of its 2 runs is finished and of this data and these folds" in capsys.readouterr().err
    )
    assert not (tmp_path / "submissions").exists()


# ---- a pretrained text encoder, frozen and trained


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    from helpers import saved_bert

    return f"hf:{saved_bert(tmp_path_factory.mktemp('bert'))}"


def test_a_frozen_encoder_embeds_each_caption_once_for_all_runs(encoder, tmp_path, monkeypatch):
    from motret.models import embed

    embedded = []
    real = embed.embed_frozen
    monkeypatch.setattr(
        embed,
        "embed_frozen",
        lambda tower, ids, *rest: embedded.append(len(ids)) or real(tower, ids, *rest),
    )
    for name in ("first", "second"):
        assert (
            helpers.run_training(
                tmp_path, name, text_tower=encoder, fold=0, work_dir=tmp_path / "work"
            )
            == 0
        )
    assert len(embedded) == 1 and embedded[0] > 24
    assert (
        "text_tower.encoder.embeddings.word_embeddings.weight"
        not in best(tmp_path / "first", 0)["model"]
    )
    assert rank_test(tmp_path, tmp_path / "submissions", "--runs", "first") == 0


def test_each_fold_trains_the_encoder_as_it_was_published(encoder, tmp_path):
    """Fold 1 after fold 0 is fold 1 alone: its encoder has not learned from the captions that it
    holds out."""
    assert (
        helpers.run_training(tmp_path, "both", text_tower=encoder, unfreeze_text=True, lr=3e-3) == 0
    )
    assert (
        helpers.run_training(
            tmp_path, "alone", text_tower=encoder, unfreeze_text=True, lr=3e-3, fold=1
        )
        == 0
    )
    assert (
        "text_tower.encoder.embeddings.word_embeddings.weight"
        in best(tmp_path / "both", 1)["model"]
    )
    assert same_embeddings(embeddings(tmp_path / "both", 1), embeddings(tmp_path / "alone", 1))


@pytest.mark.parametrize(
    ("how", "said"), [("subsample", "evenly thinned"), ("crop", "cut to their middle")]
)
def test_it_says_how_many_motions_are_too_long_and_what_becomes_of_them(
    tmp_path, capsys, how, said
):
    lengths = [
        len(np.load(path, mmap_mode="r"))
        for path in (helpers.challenge() / "motions").glob("*.npy")
    ]
    limit = sorted(lengths)[len(lengths) // 2]
    assert (
        helpers.run_training(
            tmp_path, "short", fold=0, epochs=1, max_frames=limit, long_motions=how
        )
        == 0
    )
    longer = sum(length > limit for length in lengths)
    assert (
        f"{longer} motions longer than --max_frames {limit} are {said}" in capsys.readouterr().out
    )


def test_a_run_whose_text_tower_cannot_be_had_leaves_no_folder(tmp_path, capsys):
    empty = tmp_path / "no_encoder"
    empty.mkdir()
    assert helpers.run_training(tmp_path, "towerless", text_tower=f"hf:{empty}") == 1
    assert "error: hf:" in capsys.readouterr().err
    assert not (tmp_path / "towerless").exists()
