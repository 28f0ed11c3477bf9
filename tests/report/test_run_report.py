"""report.py from the command line, and the same figures while train.py trains."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import ensemble
import helpers
import report
from helpers import check
from motret.report import page, run_report
from motret.runs import checkpoints, oof
from motret.runs.run import Run, open_run, settings_hash
from motret.skeleton import PARTS
from motret.training import fit

PARTED = {"motion_tower": "part", "use_gar": True}
FILES = {
    "1_heatmap": "png",
    "2_query_retrieval": "txt",
    "3_category_analysis": "txt",
    "4_tsne": "png",
    "5_similarity": "png",
}
FILES["6_failure_analysis"] = "txt"


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def analysis(epoch: int) -> set[str]:
    return {f"qualitative_epoch{epoch}/{name}_epoch{epoch}.{kind}" for name, kind in FILES.items()}


def attention(epoch: int, *parts: str) -> set[str]:
    return {
        f"epoch{epoch:03d}_probe_attn_{name}.png"
        for name in ("cls", *(f"part_{part}" for part in parts))
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: with parts and fold 0, and with snapshots and fold 1."""
    out_dir = tmp_path_factory.mktemp("runs")
    assert helpers.run_training(out_dir, "parts", fold=0, **PARTED) == 0
    drawing = {
        "save_attention": True,
        "attn_interval": 9,
        "run_qualitative": True,
        "qualitative_interval": 9,
    }
    assert helpers.run_training(out_dir, "drawn", fold=1, **drawing) == 0
    return out_dir


def draw(out_dir: Path, *flags: str) -> int:
    return report.main(
        [
            *helpers.places(),
            f"--out_dir={out_dir}",
            f"--submissions_dir={out_dir}/submissions",
            *flags,
        ]
    )


def test_the_report_of_a_run_has_all_its_files(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw(trained, "--run", str(trained / "parts"), "--pairs", "6") == 0
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == f"parts: report in {trained / 'parts' / 'report'}"
    )
    run = open_run(trained / "parts")
    epoch = checkpoints.load_checkpoint(checkpoints.best_checkpoint(run.fold_dir(0)), helpers.CPU)[
        "epoch"
    ]
    folder = trained / "parts" / "report"
    of_fold = (
        {"curves.png", "loss_curve.png", "tsne_latent_space.png"}
        | analysis(epoch)
        | attention(epoch, *PARTS)
    )
    of_run = {"curves.png", "slices.png", "index.html"}
    assert names(folder) == of_run | {f"fold0/{name}" for name in of_fold}
    for path in folder.rglob("*.png"):
        check(path)
    text = (
        folder / f"fold0/qualitative_epoch{epoch}/2_query_retrieval_epoch{epoch}.txt"
    ).read_text()
    out = oof.load_out_of_fold(run, 0)
    caption = text.split('"')[1]
    assert (
        caption
        in (
            helpers.challenge() / "texts" / f"{text.split('(motion ')[1].split(',')[0]}.txt"
        ).read_text()
    )
    assert f"top 5 of {len(out.ids)} held-out motions" in text


def test_of_several_folds_the_first_is_drawn_by_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert helpers.run_training(tmp_path, "two", epochs=1) == 0
    folder = tmp_path / "two" / "report"

    def drawn(*flags: str) -> set[str]:
        shutil.rmtree(folder, ignore_errors=True)
        assert draw(tmp_path, "--run", "two", "--pairs", "4", *flags) == 0
        return names(folder)

    def files_of(*fold_dirs: str) -> set[str]:
        files = (
            {"curves.png", "loss_curve.png", "tsne_latent_space.png"} | analysis(1) | attention(1)
        )
        return {"curves.png", "slices.png", "index.html"} | {
            f"{fold_dir}/{name}" for fold_dir in fold_dirs for name in files
        }

    capsys.readouterr()
    assert drawn() == files_of("fold0")
    note = "attention and analysis of the first finished fold of each run; --all_folds: of all"
    assert capsys.readouterr().out.splitlines()[-2] == note
    both, pages = (
        check(folder / "curves.png"),
        json.loads(
            (folder / "index.html").read_text().split('id="data">')[1].split("</script>")[0]
        ),
    )
    assert len(pages["motions"]) == 24  # of both folds
    assert drawn("--fold", "1") == files_of("fold1") and note not in capsys.readouterr().out
    assert np.array_equal(check(folder / "curves.png"), both)
    assert not np.array_equal(check(folder / "fold1" / "curves.png"), both)
    assert (
        drawn("--all_folds") == files_of("fold0", "fold1") and note not in capsys.readouterr().out
    )


def test_runs_reported_together_pack_each_motion_once(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, packed = page.read_packed_motion, []
    monkeypatch.setattr(
        page, "read_packed_motion", lambda path, config: packed.append(path) or read(path, config)
    )
    for name in ("_draw_attention", "_write_fold_analysis"):
        monkeypatch.setattr(run_report, name, lambda *_: None)
    assert draw(trained, "--run", "parts", "parts", "drawn") == 0
    assert len(packed) == len(set(packed)) == 24


def test_snapshots_do_not_change_the_weights(trained: Path, tmp_path: Path) -> None:
    assert helpers.run_training(tmp_path, "plain", fold=1) == 0
    plain, drawn = (
        checkpoints.load_checkpoint(out / "fold1" / "last.pt", helpers.CPU)
        for out in (tmp_path / "plain", trained / "drawn")
    )
    assert plain["model"].keys() == drawn["model"].keys()
    assert all(torch.equal(plain["model"][name], drawn["model"][name]) for name in plain["model"])
    assert settings_hash(open_run(tmp_path / "plain").config) == settings_hash(
        open_run(trained / "drawn").config
    )


def test_snapshots_are_of_the_first_and_last_epochs(trained: Path) -> None:
    folder = trained / "drawn" / "fold1"
    drawn = {
        name
        for name in names(folder)
        if name.endswith((".png", ".txt")) and name != "train_log.txt"
    }
    assert drawn == attention(1) | attention(2) | analysis(2)
    for path in folder.rglob("*.png"):
        check(path)
    first, last = (check(folder / name) for name in sorted(attention(1) | attention(2)))
    assert not np.array_equal(first, last)


@pytest.mark.parametrize(
    ("interval", "epochs"), [(1, {1, 2, 3, 4, 5}), (2, {1, 2, 4, 5}), (9, {1, 5})]
)
def test_snapshots_follow_their_intervals(
    interval: int, epochs: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from motret.report import snapshots

    drawn: dict[str, set[int]] = {"attention": set(), "analysis": set()}
    monkeypatch.setattr(
        snapshots.attention_probe, "draw_probe", lambda _, epoch, *__: drawn["attention"].add(epoch)
    )
    monkeypatch.setattr(snapshots.qualitative, "gather_inputs", lambda *args: args[4])
    monkeypatch.setattr(
        snapshots.qualitative, "write_analysis", lambda _, epoch: drawn["analysis"].add(epoch)
    )
    flags = {
        "save_attention": True,
        "attn_interval": interval,
        "run_qualitative": True,
        "qualitative_interval": interval,
    }
    config, data = helpers.config(epochs=5, **flags), helpers.training_data()
    run = Run(
        tmp_path / "run",
        config,
        {},
        data.fingerprint,
        "folds-a",
        data.store.config,
        data.store.persons,
    )
    fit.fit(helpers.fold_context(run, data), make_plots=snapshots.make_plot_callback)
    assert drawn == {"attention": epochs, "analysis": epochs - ({1} if interval > 1 else set())}


def test_a_model_of_all_data_has_attention_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        helpers.run_training(
            tmp_path, "all", fold="full", epochs=1, save_attention=True, run_qualitative=True
        )
        == 0
    )
    assert "no qualitative analysis, since no motions are held out" in capsys.readouterr().out
    assert {
        name for name in names(tmp_path / "all" / "full") if name.endswith(".png")
    } == attention(1)
    assert draw(tmp_path, "--run", "all") == 0
    assert names(tmp_path / "all" / "report") == {
        f"full/{name}" for name in {"curves.png", "loss_curve.png"} | attention(1)
    }


def test_an_external_tower_is_reported_without_attention(
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run_report.attention, "special_tokens", lambda _: ())
    monkeypatch.setattr(run_report, "_write_fold_analysis", lambda *_: None)
    assert draw(trained, "--run", "drawn") == 0
    assert (
        "no figure of attention, since transformer is an external tower" in capsys.readouterr().out
    )
    assert not any("probe" in name for name in names(trained / "drawn" / "report"))


# ---- which runs


def reported_names(trained: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> list[str]:
    """Names of the runs that would be reported."""
    reported: list[str] = []
    monkeypatch.setattr(run_report, "write_run_report", lambda run, *_: reported.append(run.name))
    assert draw(trained, *flags) == 0
    return reported


def test_by_default_the_runs_of_the_latest_submission_are_reported_else_all(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reported_names(trained, monkeypatch) == ["drawn", "parts"]
    submissions = trained / "submissions"
    for name in ("parts", "drawn"):
        flags = [
            *helpers.places(),
            f"--out_dir={trained}",
            f"--submissions_dir={submissions}",
            "--runs",
            name,
        ]
        assert ensemble.main(flags) == 0
        assert reported_names(trained, monkeypatch) == [name]
    assert (
        ensemble.main(
            [*flags, f"--members={submissions / 'submission.csv'}", "--member_weight=0.5"]
        )
        == 0
    )
    assert reported_names(trained, monkeypatch) == ["drawn"]  # an external file is no run
    assert reported_names(trained, monkeypatch, "--run", "parts", "drawn") == ["parts", "drawn"]
    with (submissions / "log.csv").open(newline="") as log:
        latest = (submissions / list(csv.DictReader(log))[-1]["file"]).with_suffix(".json")
    latest.write_text(json.dumps(json.loads(latest.read_text()) | {"data": "other"}))
    assert reported_names(trained, monkeypatch) == ["drawn", "parts"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--run", "gone"], "gone: is no run"),
        (["--run", "parts", "--fold", "1"], "parts: fold 1 is not finished"),
        (["--run", "parts", "--attn_layer", "2"], "--attn_layer: there is no layer 2"),
        (["--pairs", "2"], "--pairs: is 2"),
        (["--all_folds", "--fold", "0"], "--all_folds: draws every fold, and --fold 0 draws one"),
    ],
)
def test_a_report_that_is_not_possible_is_one_line(
    trained: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw(trained, *flags) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_broken_metrics_are_an_error(tmp_path: Path) -> None:
    from motret.errors import RunError

    for content in ("", "epoch,lr\n1,x\n", "epoch,lr\n1\n"):
        (tmp_path / "metrics.csv").write_text(content)
        with pytest.raises(RunError, match=r"metrics.csv: cannot be read"):
            run_report.read_history(tmp_path / "metrics.csv", 1)


def test_learning_rates_are_those_of_the_groups(tmp_path: Path) -> None:
    data = helpers.training_data()
    plain = helpers.config()
    run = Run(tmp_path, plain, {}, "", "", data.store.config, 2)
    model = checkpoints.build_model(plain, run, data.store.columns, helpers.NoTower(), 0)
    assert run_report.lr_groups(plain, model) == {"all weights": 1.0}
    loaded = helpers.config(backbone_weights="file.pt", backbone_lr_mult=0.2)
    assert run_report.lr_groups(loaded, model) == {"other weights": 1.0, "loaded backbone": 0.2}
    assert run_report.lr_groups(
        helpers.config(backbone_weights="file.pt", freeze_backbone=True), model
    ) == {"all weights": 1.0}


def test_the_latest_submission_gets_a_page_where_its_similarities_are_saved(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = [*helpers.places(), f"--out_dir={trained}", f"--submissions_dir={tmp_path}"]
    assert ensemble.main([*places, "--runs", "parts"]) == 0
    monkeypatch.setattr(run_report, "write_run_report", lambda run, *_: run.folder)
    (saved,) = tmp_path.glob("*_cv*.csv")
    saved.with_suffix(".npz").unlink(missing_ok=True)
    assert report.main([*places, "--run", "parts"]) == 0
    assert not (tmp_path / "report").exists()
    pairs = [(query, number) for query in ("1", "2", "3") for number in range(1, 13)]
    arrays = {
        "query": [pair[0] for pair in pairs],
        "candidate": [pair[1] for pair in pairs],
        "similarity": np.arange(36.0),
    }
    np.savez(saved.with_suffix(".npz"), **arrays)
    assert report.main([*places, "--run", "parts"]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == f"latest submission: {tmp_path / 'report' / 'index.html'}"
    )
    html = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert (
        saved.stem in html
        and (helpers.challenge() / "test" / "1" / "text.txt").read_text().strip().splitlines()[0]
        in html
    )


def test_metrics_of_earlier_versions_are_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "epoch,seconds,lr,tau,train_loss,score,r1,r5,r10\n1,1.0,1e-3,0.07,2.0,0.5,0.1,0.2,0.3\n"
    )
    columns = run_report.read_history(tmp_path / "metrics.csv", 1).columns
    assert [columns[f"t2m_r{k}"][0] for k in (1, 5, 10)] == [0.1, 0.2, 0.3]
