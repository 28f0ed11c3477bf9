"""Test-time views: which there are, what they show, what is cached, and ensemble.py --views."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ensemble
import helpers
import train
import validate
from helpers import made_run, unit
from motret.config import base
from motret.config.scripts import EnsembleConfig
from motret.config.training import MotionConfig
from motret.data import caption_mirror, dataset, folds
from motret.data.inputs import MotionBatch
from motret.ensemble import members, predict, tta
from motret.ensemble.galleries import ViewEmbeddings
from motret.ensemble.inference import Encoder
from motret.ensemble.tta import TtaView, ViewedMotions
from motret.evaluation.z_score import ZScore
from motret.models import registry
from motret.report import run_report
from motret.utils import files, reading

pytestmark = pytest.mark.filterwarnings("ignore:.*candidates.*:UserWarning")
DATA = helpers.training_data()
VIEW = TtaView("speed0.9", speed=0.9)


# ---- the cache


def test_cached_embeddings_are_read_under_their_former_names_and_half_a_file_is_none(
    tmp_path: Path,
) -> None:
    run, rng = made_run(tmp_path, "one"), np.random.default_rng(0)
    assert tta.load_view_embeddings(run, 0, VIEW) is None
    text, motion = unit(rng, 6, 4), unit(rng, 3, 4)
    tta.save_view_embeddings(run, 0, VIEW, ViewEmbeddings(text, motion, 0.5, "key"))
    file = run.fold_dir(0) / "oof_speed0.9.npz"
    former = reading.read_npz(file, "")
    former["of"] = former.pop("cache_key")
    for written in (None, former):
        if written is not None:
            files.write_npz(file, written)
        cached = tta.load_view_embeddings(run, 0, VIEW)
        assert cached is not None and (cached.deviation, cached.cache_key) == (0.5, "key")
        np.testing.assert_array_equal(cached.text, text)
        np.testing.assert_array_equal(cached.motion, motion)
    file.write_bytes(file.read_bytes()[:100])
    assert tta.load_view_embeddings(run, 0, VIEW) is None


# ---- what members have


def test_towers_that_are_symmetric_in_the_persons_have_nothing_to_swap(tmp_path: Path) -> None:
    towers = {
        "transformer": True,
        "part": True,
        "frame": False,
    }
    run = made_run(tmp_path, "one")
    for tower, is_symmetric in towers.items():
        config = base.build_config(MotionConfig, {"motion_tower": tower})
        assert registry.is_person_symmetric(config) == is_symmetric
        with_tower = replace(run, config=helpers.config(motion_tower=tower))
        names = [view.name for view in tta.swap_views(with_tower)]
        assert names == ([] if is_symmetric else ["swap"])
        assert tta.swap_views(replace(with_tower, persons=1)) == ()


def test_motions_are_shown_faster_mirrored_or_swapped() -> None:
    plain = gather(DATA, TtaView("plain"))
    fast = gather(DATA, TtaView("fast", speed=2.0))
    assert fast.lengths.tolist() == [(length - 1) // 2 + 1 for length in plain.lengths.tolist()]
    (view,) = tta.mirror_views(NO_ROTATIONS, named=True)
    assert view.mirror is not None
    mirrored, unmirrored = (
        gather(NO_ROTATIONS, view).frames,
        gather(NO_ROTATIONS, TtaView("plain")).frames,
    )
    assert torch.equal(mirrored, view.mirror(unmirrored)) and not torch.equal(mirrored, unmirrored)
    swapped = gather(DATA, TtaView("swap", swapped=True)).frames
    assert torch.equal(swapped, plain.frames.flip(2)) and not torch.equal(swapped, plain.frames)


def gather(data: dataset.TrainingData, view: TtaView) -> MotionBatch:
    """Two motions in a view."""
    return ViewedMotions(data.store, helpers.config().motion, helpers.CPU, view).gather(
        torch.tensor([3, 5])
    )


def without_rotations() -> dataset.TrainingData:
    """Made-up motions whose features have no rotations: they are mirrored without reading files."""
    config = replace(DATA.store.config, rotations=False)
    width = max(part.stop for part in replace(DATA.store, config=config).columns.values())
    return replace(
        DATA, store=replace(DATA.store, config=config, features=DATA.store.features[..., :width])
    )


NO_ROTATIONS = without_rotations()


# ---- ensemble.py --views


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without rotations, and one of raw columns, whose tower tells the persons apart."""
    folder = tmp_path_factory.mktemp("runs")
    assert helpers.run_training(folder, "canonical", no_rotations=True, epochs=1) == 0
    readme = {
        "width": 16,
        "heads": 2,
        "layers": 1,
        "max_frames": 60,
        "epochs": 1,
        "batch_size": 6,
        "text_width": 64,
        "text_layers": 1,
    }
    flags = helpers.flags(out_dir=folder, run_name="raw", folds=2, text_weights="none", **readme)
    assert train.main(["clip_readme", *helpers.places(), *flags]) == 0
    return folder


def rank_test(trained: Path, out: Path, *flags: str, data: Path | None = None) -> dict[str, Any]:
    """The JSON of the submission."""
    assert (
        ensemble.main(
            [*helpers.places(data), f"--out_dir={trained}", f"--submissions_dir={out}", *flags]
        )
        == 0
    )
    (file,) = out.glob("*.json")
    settings: dict[str, Any] = json.loads(file.read_text())
    return settings


def cached_views(trained: Path, name: str) -> dict[str, int]:
    """Name -> time of writing of the cached views of a run's first fold."""
    return {
        path.stem: path.stat().st_mtime_ns for path in (trained / name / "fold0").glob("oof_*.npz")
    }


def test_each_member_is_asked_for_the_views_it_has_and_only_once(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = rank_test(trained, tmp_path / "one", "--views=mirror,speed,swap")
    output = capsys.readouterr().out
    assert first["views"] == ["mirror", "speed", "swap"] and "views mirror, speed, swap" in output
    best, network, in_views = (gain["over"] for gain in first["gains"])
    assert (network, in_views) == (f"{best}, one network", f"{best} in the same views")
    assert (
        f"\n{in_views}  0." in output and f"gain over the best single model, {in_views}: " in output
    )
    before = [cached_views(trained, name) for name in ("canonical", "raw")]
    assert [sorted(of_run) for of_run in before] == [
        ["oof_mirror", "oof_speed0.9", "oof_speed1.1"],
        ["oof_speed0.9", "oof_speed1.1", "oof_swap"],
    ]
    again = rank_test(trained, tmp_path / "two", "--views=mirror,speed,swap")
    assert (
        again["local_score"] == first["local_score"]
        and [cached_views(trained, name) for name in ("canonical", "raw")] == before
    )
    (checkpoint,) = (trained / "canonical" / "fold0").glob("best_epoch*.pt")
    newer = checkpoint.rename(checkpoint.with_name("best_epoch77.pt"))
    (trained / "raw" / "fold0" / "oof_swap.npz").write_bytes(b"half a file")
    rank_test(trained, tmp_path / "three", "--views=mirror,speed,swap")
    newer.rename(checkpoint)
    after = cached_views(trained, "canonical")
    assert all(after[name] > before[0][name] for name in after)
    assert cached_views(trained, "raw")["oof_swap"] > before[1]["oof_swap"]
    assert cached_views(trained, "raw")["oof_speed0.9"] == before[1]["oof_speed0.9"]


@pytest.mark.parametrize("every", [0, 2])
def test_queries_are_ranked_by_the_same_mean_as_held_out_motions(
    trained: Path, tmp_path: Path, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The held-out motions as queries of a test folder: similarities in views, and of the bank, are
    as out of fold.

    every: one caption in so many cannot be mirrored, 0 where all can.
    """
    real = caption_mirror.mirror_caption
    monkeypatch.setattr(
        caption_mirror,
        "mirror_caption",
        lambda text: None if every and len(text) % every == 0 else real(text),
    )
    trained = Path(shutil.copytree(trained, tmp_path / "runs"))
    for cached in trained.glob("*/fold*/oof_mirror.npz"):
        cached.unlink()
    make_queries = [
        "make_batches",
        *helpers.places(),
        "--queries",
        "4",
        "--candidates",
        "11",
        "--fold",
        "0",
    ]
    assert validate.main([*make_queries, "--out", str(tmp_path / "val")]) == 0
    flags = {"out_dir": trained, "runs": ("canonical",), "views": "mirror,speed", "fold": 0}
    config = base.build_config(EnsembleConfig, data_config() | flags)
    data = dataset.load_training(config.data, 1)
    fold_table = folds.read_folds(data, config.data.folds_dir)
    (plain,) = members.gather_members(config, data, fold_table)
    encoder = Encoder(config.machine, tmp_path, data.training.captions)
    same_features = dataset.with_features(data, plain.features, config.data, 1)
    (member,) = predict.with_member_views([plain], {plain.features: same_features}, config)
    encoder.predict_held_out(member, 0, same_features, fold_table, None)
    encoder.predict_held_out(member, 1, same_features, fold_table, None)
    test = dataset.load_test(tmp_path / "val", plain.features, config.data, 1)
    (embeddings,) = encoder.predict_test(member, test, with_bank=True)
    val_idx = fold_table.val_idx(0)
    captions = [caption for motion_idx in val_idx for caption in data.training.captions[motion_idx]]
    ids = [data.training.ids[motion_idx] for motion_idx in val_idx]
    mirrored = [caption_mirror.mirror_caption(caption) for caption in captions]
    assert len(member.all_views) == 3
    assert any(
        text not in (None, caption) for text, caption in zip(mirrored, captions, strict=True)
    )
    assert any(text is None for text in mirrored) == bool(every)
    gallery, kinds = member.gallery(0), ("mirror", "speed")
    for of_views, of_test in ((kinds, embeddings), ((), embeddings.without_views())):
        scale = ZScore.of(gallery.similarity(of_views))
        out_of_fold, similarity = scale(gallery.similarity(of_views)), of_test.query_similarity()
        for query_idx, query in enumerate(test.queries):
            columns = [ids.index(path.resolve().stem) for path in query.paths]
            caption_idx = [captions.index(caption) for caption in query.captions]
            expected = out_of_fold[caption_idx][:, columns].mean(axis=0)
            np.testing.assert_allclose(
                similarity[query_idx][test.candidate_idx[query_idx]], expected, atol=1e-3
            )
    assert embeddings.bank is not None
    bank_idx = [encoder.training_captions.index(caption) for caption in captions]
    bank_similarity = embeddings.bank[bank_idx] @ gallery.embeddings(kinds)[1].T
    np.testing.assert_allclose(bank_similarity, gallery.similarity(kinds), atol=1e-3)


def data_config() -> dict[str, object]:
    data = helpers.challenge()
    return {
        "data_dir": data,
        "work_dir": Path(f"{data}-work"),
        "folds_dir": Path(f"{data}-folds"),
        "device": "cpu",
        "jobs": 1,
    }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--runs=raw", "--views=mirror"], "error: --views: no member has the view mirror"),
        (["--runs=canonical", "--views=speed,swap"], "error: --views: no member has the view swap"),
        (["--views=speed,sideways"], "error: --views: there is no view 'sideways'"),
    ],
)
def test_a_view_that_no_member_has_is_one_line(
    trained: Path,
    tmp_path: Path,
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        ensemble.main(
            [*helpers.places(), f"--out_dir={trained}", f"--submissions_dir={tmp_path}", *flags]
        )
        == 1
    )
    assert capsys.readouterr().err.splitlines()[-1].startswith(message)


def test_motions_of_one_person_are_mirrored_but_not_swapped(tmp_path: Path) -> None:
    captions = {
        f"{number:05d}": (f"person {number} raises the {side} hand",)
        for number, side in enumerate(["left", "right"] * 6)
    }
    root = helpers.write_data(
        tmp_path / "data",
        {name: helpers.motion(14 + row, 1, row) for row, name in enumerate(captions)},
        captions,
    )
    (root / "test" / "1").mkdir(parents=True)
    (root / "test" / "1" / "text.txt").write_text("a person raises the left hand\n")
    for number in range(1, 13):
        np.save(
            root / "test" / "1" / f"motion_{number}.npy",
            helpers.motion(20 + number, 1, 50 + number),
        )
    assert helpers.run_training(tmp_path / "runs", "one", root, no_rotations=True, epochs=1) == 0
    rank_test(tmp_path / "runs", tmp_path / "out", "--query_bank=off", data=root)
    assert sorted(cached_views(tmp_path / "runs", "one")) == [
        "oof_mirror",
        "oof_speed0.9",
        "oof_speed1.1",
    ]


def test_a_member_made_elsewhere_is_none_of_the_runs_to_report(
    trained: Path, tmp_path: Path
) -> None:
    alone = ("--runs=canonical", "--views=none", "--query_bank=off")
    rank_test(trained, tmp_path / "one", *alone)
    (file,) = (tmp_path / "one").glob("*.npz")
    rank_test(trained, tmp_path / "two", *alone, f"--members={file}", "--member_weight=0.5")
    data = dataset.load_training(base.build_config(EnsembleConfig, data_config()).data, 1)
    fold_table = folds.read_folds(data, Path(f"{helpers.challenge()}-folds"))
    assert run_report.latest_submission_members(tmp_path / "two", data, fold_table) == (
        "canonical",
    )
