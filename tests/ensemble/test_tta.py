"""Test-time views: what they are a mean of, where they are taken, what is kept of them, and ensemble.py --views."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

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
from motret.ensemble import fit as fit_module
from motret.ensemble import inference, members, tta
from motret.ensemble.fit import (
    FittedEnsemble,
    _select_if_significant,
    find_member_views,
    fit_ensemble,
    held_out_captions,
    standardized_similarity,
    with_view_kinds,
)
from motret.ensemble.inference import Encoder
from motret.ensemble.members import Member
from motret.ensemble.tta import TtaView, ViewedMotions, ViewEmbeddings
from motret.evaluation import local_score, metrics
from motret.evaluation.gallery_ranks import GalleryRanks
from motret.evaluation.z_score import ZScore
from motret.models import registry
from motret.report import run_report
from motret.runs import oof

pytestmark = pytest.mark.filterwarnings("ignore:.*candidates.*:UserWarning")
DATA, FOLDS = helpers.training_data(), helpers.folds(count=4)
VIEW = TtaView("speed0.9", speed=0.9)


# ---- the mean over views


def constructed(folder: Path, name: str, seed: int, loud: float) -> Member:
    """A member of four folds whose captions say in the view where their motions are, `loud` times as loud as noise."""
    run, rng = made_run(folder, name, seed, folds=range(4), found=FOLDS), np.random.default_rng([seed, 7])
    for fold in range(4):
        out = oof.load_out_of_fold(run, fold)
        told = unit(rng, *out.motion.shape)
        text = loud * told[out.motion_idx] + unit(rng, *out.text.shape)
        deviation = (text @ told.T).std() / (out.text @ out.motion.T).std()
        tta.save_view_embeddings(run, fold, VIEW, ViewEmbeddings(text, told, float(deviation), "made up"))
    return Member(name, dict.fromkeys(range(4), run), tuple((run, fold) for fold in range(4)), (name,))


def test_a_member_with_a_view_is_the_mean_of_both_on_one_scale(tmp_path: Path) -> None:
    member = constructed(tmp_path, "one", 0, loud=3.0)
    for fold in range(4):
        out, seen = oof.load_out_of_fold(member.folds[fold], fold), tta.load_view_embeddings(member.folds[fold], fold, VIEW)
        both = [out.text.astype(float) @ out.motion.T, seen.text.astype(float) @ seen.motion.T]
        mean = np.mean([(similarity - similarity.mean()) / similarity.std() for similarity in both], axis=0)
        shown = standardized_similarity(replace(member, views=(VIEW,)), fold)
        np.testing.assert_allclose(shown, mean / mean.std(), atol=1e-5)
        assert not np.allclose(shown, standardized_similarity(member, fold), atol=0.1)


def test_the_plain_similarity_stands_in_for_a_caption_that_cannot_be_mirrored(tmp_path: Path) -> None:
    member = constructed(tmp_path, "one", 0, loud=3.0)
    run, absent = member.folds[0], [1, 4]
    seen = tta.load_view_embeddings(run, 0, VIEW)
    seen.text[absent] = 0
    tta.save_view_embeddings(run, 0, VIEW, seen)
    out = oof.load_out_of_fold(run, 0)
    plain, shown = out.text @ out.motion.T, replace(member, views=(VIEW,)).similarity(0)
    both = plain + seen.text @ seen.motion.T / seen.deviation
    both[absent] = 2 * plain[absent]
    np.testing.assert_allclose(shown, both, atol=1e-5)
    others = [row for row in range(len(plain)) if row not in absent]
    assert 0.5 < shown[absent].std() / shown[others].std() < 2  # on one scale with the other captions


def fit(folder: Path, monkeypatch: pytest.MonkeyPatch, louds: tuple[float, ...], **values) -> FittedEnsemble:
    """The fusion of constructed members, all of which have the view."""
    gathered = [constructed(folder, f"member{number}", number, loud) for number, loud in enumerate(louds)]
    monkeypatch.setattr(fit_module, "find_member_views", lambda asked, *rest: [{"speed": (VIEW,)}] * len(asked))
    chosen = base.build_config(EnsembleConfig, {"query_bank": "off", "weights": "equal", "device": "cpu"} | values)
    return fit_ensemble(gathered, DATA, FOLDS, chosen, Encoder(chosen.machine, folder, DATA.training.captions))


def test_a_view_that_helps_is_taken_and_scored_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = fit(tmp_path, monkeypatch, (3.0, 3.0))
    assert found.views == ("speed",) and [member.views for member in found.members] == [(VIEW,)] * 2
    for fold, own in zip(found.folds, found.together, strict=True):
        mean = np.mean([standardized_similarity(member, fold) for member in found.members], axis=0)
        np.testing.assert_allclose(own.values(), metrics.caption_scores(mean, held_out_captions(DATA, FOLDS, fold)[0]))
    plain = [
        standardized_similarity(replace(member, views=()), 2) for member in found.members
    ]  # what a member earns alone it earns plainly
    motion_idx = held_out_captions(DATA, FOLDS, 2)[0]
    np.testing.assert_allclose([own[2].values() for own in found.alone], [metrics.caption_scores(own, motion_idx) for own in plain])
    best = standardized_similarity(found.members[found.best()], 2)  # so that what the views bring is told from what the ensemble does
    np.testing.assert_allclose(found.viewed[2].values(), metrics.caption_scores(best, motion_idx))


def test_a_view_that_does_not_help_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = fit(tmp_path, monkeypatch, (0.0, 0.0))
    assert found.views == () and found.viewed is None and [member.views for member in found.members] == [(), ()]
    without = fit(tmp_path / "again", monkeypatch, (0.0, 0.0), views="none")
    assert found.local == without.local


def test_a_gain_within_its_error_is_none() -> None:
    """Four galleries where a view as good as the plain similarity happens to score a little better."""
    rng, motion_idx = np.random.default_rng(8), np.arange(40)
    tables = [
        {option: GalleryRanks.of(rng.normal(size=(40, 40)) + 2 * np.eye(40), motion_idx, motion_idx) for option in ("plain", "view")}
        for _ in range(4)
    ]
    pooled = {option: np.mean([table[option].values() for table in tables]) for option in ("plain", "view")}
    assert 0 < pooled["view"] - pooled["plain"] < 0.02
    assert _select_if_significant(tables, "plain") == "plain"


def test_a_view_that_is_named_is_taken_whatever_it_earns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fit(tmp_path, monkeypatch, (0.0,), views="speed").views == ("speed",)


def test_a_fold_has_no_part_in_choosing_the_view_it_is_scored_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The view is useless but on fold 3, where it knows all: the ensemble would take it for fold 0, never for fold 3."""
    member = constructed(tmp_path, "one", 0, loud=0.0)
    seen = tta.load_view_embeddings(member.folds[3], 3, VIEW)
    out = oof.load_out_of_fold(member.folds[3], 3)
    tta.save_view_embeddings(member.folds[3], 3, VIEW, replace(seen, text=9 * seen.motion[out.motion_idx], deviation=1e-3))
    monkeypatch.setattr(fit_module, "find_member_views", lambda asked, *rest: [{"speed": (VIEW,)}] * len(asked))
    chosen = base.build_config(EnsembleConfig, {"query_bank": "off", "device": "cpu", "fold": 3})
    found = fit_ensemble([member], DATA, FOLDS, chosen, Encoder(chosen.machine, tmp_path, DATA.training.captions))
    assert found.views == () and found.local.score == local_score.out_of_fold_score([member.folds[3]], FOLDS).by_fold[3]


# ---- what members have


def test_towers_that_take_persons_alike_have_nothing_to_swap(tmp_path: Path) -> None:
    towers = {
        "transformer": True,
        "part": True,
        "frame": False,
    }
    run = made_run(tmp_path, "one")
    for tower, alike in towers.items():
        assert registry.is_person_symmetric(base.build_config(MotionConfig, {"motion_tower": tower})) == alike
        own = replace(run, config=helpers.config(motion_tower=tower))
        assert [view.name for view in tta.swap_view(own)] == ([] if alike else ["swap"]) and tta.swap_view(replace(own, persons=1)) == ()


def test_motions_are_shown_faster_mirrored_or_swapped() -> None:
    chosen, rows = helpers.config().motion, torch.tensor([3, 5])
    plain = ViewedMotions(DATA.store, chosen, helpers.CPU, TtaView("plain")).gather(rows)
    fast = ViewedMotions(DATA.store, chosen, helpers.CPU, TtaView("fast", speed=2.0)).gather(rows)
    assert fast.lengths.tolist() == [(length - 1) // 2 + 1 for length in plain.lengths.tolist()]
    (mirror,) = tta.mirror_view(DATA_ALONE, named=True)
    turned = ViewedMotions(DATA_ALONE.store, chosen, helpers.CPU, mirror).gather(rows).frames
    alone = ViewedMotions(DATA_ALONE.store, chosen, helpers.CPU, TtaView("plain")).gather(rows).frames
    assert torch.equal(turned, mirror.mirror(alone)) and not torch.equal(turned, alone)
    swapped = ViewedMotions(DATA.store, chosen, helpers.CPU, TtaView("swap", swapped=True)).gather(rows)
    assert torch.equal(swapped.frames, plain.frames.flip(2)) and not torch.equal(swapped.frames, plain.frames)


def without_rotations() -> dataset.TrainingData:
    """Made-up motions whose features have no rotations, and so are mirrored without a look at the files."""
    config = replace(DATA.store.config, rotations=False)
    width = max(part.stop for part in replace(DATA.store, config=config).columns.values())
    return replace(DATA, store=replace(DATA.store, config=config, features=DATA.store.features[..., :width]))


DATA_ALONE = without_rotations()


# ---- ensemble.py --views


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without rotations, and one of raw columns, whose tower tells the persons apart."""
    folder = tmp_path_factory.mktemp("runs")
    assert helpers.run_training(folder, "canonical", no_rotations=True, epochs=1) == 0
    readme = {"width": 16, "heads": 2, "layers": 1, "max_frames": 60, "epochs": 1, "batch_size": 6, "text_width": 64, "text_layers": 1}
    flags = helpers.flags(out_dir=folder, run_name="raw", folds=2, text_weights="none", **readme)
    assert train.main(["clip_readme", *helpers.places(), *flags]) == 0
    return folder


def rank_test(trained: Path, out: Path, *flags: str, data: Path | None = None) -> dict:
    """What the JSON of the submission says."""
    assert ensemble.main([*helpers.places(data), f"--out_dir={trained}", f"--submissions_dir={out}", *flags]) == 0
    (about,) = out.glob("*.json")
    return json.loads(about.read_text())


def kept(trained: Path, name: str) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in (trained / name / "fold0").glob("oof_*.npz")}


def test_each_member_is_asked_for_the_views_it_has_and_once(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = rank_test(trained, tmp_path / "one", "--views=mirror,speed,swap")
    told = capsys.readouterr().out
    assert first["views"] == ["mirror", "speed", "swap"] and "views mirror, speed, swap" in told
    best, network, viewed = (gain["over"] for gain in first["gains"])
    assert (network, viewed) == (f"{best}, one network", f"{best} in the same views")
    assert f"\n{viewed}  0." in told and f"gain over the best single, {viewed}: " in told
    before = [kept(trained, name) for name in ("canonical", "raw")]
    assert [sorted(own) for own in before] == [
        ["oof_mirror", "oof_speed0.9", "oof_speed1.1"],
        ["oof_speed0.9", "oof_speed1.1", "oof_swap"],
    ]
    again = rank_test(trained, tmp_path / "two", "--views=mirror,speed,swap")
    assert again["local_score"] == first["local_score"] and [kept(trained, name) for name in ("canonical", "raw")] == before
    (checkpoint,) = (trained / "canonical" / "fold0").glob("best_epoch*.pt")
    newer = checkpoint.rename(checkpoint.with_name("best_epoch77.pt"))
    (trained / "raw" / "fold0" / "oof_swap.npz").write_bytes(b"half a file")
    rank_test(trained, tmp_path / "three", "--views=mirror,speed,swap")
    newer.rename(checkpoint)
    after = kept(trained, "canonical")
    assert all(after[name] > before[0][name] for name in after)
    assert kept(trained, "raw")["oof_swap"] > before[1]["oof_swap"]
    assert kept(trained, "raw")["oof_speed0.9"] == before[1]["oof_speed0.9"]


@pytest.mark.parametrize("every", [0, 2])
def test_queries_are_ranked_by_the_same_mean_as_held_out_motions(
    trained: Path, tmp_path: Path, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The held-out motions as queries of a test folder: what is said of them in views, and of the bank, is the same as out of fold.

    every: how many captions there are to each that cannot be mirrored, 0 where all can.
    """
    real = caption_mirror.mirror_caption
    monkeypatch.setattr(caption_mirror, "mirror_caption", lambda text: None if every and len(text) % every == 0 else real(text))
    trained = Path(shutil.copytree(trained, tmp_path / "runs"))
    for kept_view in trained.glob("*/fold*/oof_mirror.npz"):
        kept_view.unlink()
    drawn = ["make_batches", *helpers.places(), "--queries", "4", "--candidates", "11", "--fold", "0", "--out", str(tmp_path / "val")]
    assert validate.main(drawn) == 0
    chosen = base.build_config(EnsembleConfig, place() | {"out_dir": trained, "runs": ("canonical",), "views": "mirror,speed", "fold": 0})
    data = dataset.load_training(chosen.data, 1)
    found = folds.read_folds(data, chosen.data.folds_dir)
    (plain,) = members.gather_members(chosen, data, found)
    encoder = Encoder(chosen.machine, tmp_path, data.training.captions)
    (own,) = find_member_views([plain], data, found, chosen, encoder)
    member = with_view_kinds(plain, own, ("mirror", "speed"))
    test = dataset.load_test(tmp_path / "val", plain.features, chosen.data, 1)
    told = encoder.test(member, test, with_bank=True)
    captions = [caption for row in found.val_idx(0) for caption in data.training.captions[row]]
    ids = [data.training.ids[row] for row in found.val_idx(0)]
    assert len(member.views) == 3 and any(caption_mirror.mirror_caption(caption) not in (None, caption) for caption in captions)
    assert any(caption_mirror.mirror_caption(caption) is None for caption in captions) == bool(every)
    known = [encoder.training.index(caption) for caption in captions]
    for asked, shown in ((member, told), (plain, inference.without_views(told, member))):
        scale = ZScore.of(asked.similarity(0))
        wanted, whole = scale(asked.similarity(0)), inference.mean_similarity(shown, "query", slice(None))
        for number, query in enumerate(test.queries):
            columns = [ids.index(path.resolve().stem) for path in query.paths]
            rows = [captions.index(caption) for caption in query.captions]
            np.testing.assert_allclose(whole[number][test.candidate_idx[number]], wanted[rows][:, columns].mean(axis=0), atol=1e-3)
    said = told[0].bank[known] @ member.vectors(0)[1].T
    np.testing.assert_allclose(said, member.similarity(0), atol=1e-3)


def place() -> dict[str, object]:
    data = helpers.challenge()
    return {"data_dir": data, "work_dir": Path(f"{data}-work"), "folds_dir": Path(f"{data}-folds"), "device": "cpu", "jobs": 1}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--runs=raw", "--views=mirror"], "error: --views: no member has the view mirror"),
        (["--runs=canonical", "--views=speed,swap"], "error: --views: no member has the view swap"),
        (["--views=speed,sideways"], "error: --views: there is no view 'sideways'"),
    ],
)
def test_a_view_that_nobody_has_is_one_line(
    trained: Path, tmp_path: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ensemble.main([*helpers.places(), f"--out_dir={trained}", f"--submissions_dir={tmp_path}", *flags]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(said)


def test_motions_of_one_person_are_seen_in_the_mirror_but_not_swapped(tmp_path: Path) -> None:
    told = {f"{number:05d}": (f"person {number} raises the {side} hand",) for number, side in enumerate(["left", "right"] * 6)}
    root = helpers.write_data(tmp_path / "data", {name: helpers.motion(14 + row, 1, row) for row, name in enumerate(told)}, told)
    (root / "test" / "1").mkdir(parents=True)
    (root / "test" / "1" / "text.txt").write_text("a person raises the left hand\n")
    for number in range(1, 13):
        np.save(root / "test" / "1" / f"motion_{number}.npy", helpers.motion(20 + number, 1, 50 + number))
    assert helpers.run_training(tmp_path / "runs", "one", root, no_rotations=True, epochs=1) == 0
    rank_test(tmp_path / "runs", tmp_path / "out", "--query_bank=off", data=root)
    assert sorted(kept(tmp_path / "runs", "one")) == ["oof_mirror", "oof_speed0.9", "oof_speed1.1"]


def test_a_member_made_elsewhere_is_none_of_the_runs_to_report(trained: Path, tmp_path: Path) -> None:
    alone = ("--runs=canonical", "--views=none", "--query_bank=off")
    rank_test(trained, tmp_path / "one", *alone)
    (file,) = (tmp_path / "one").glob("*.npz")
    rank_test(trained, tmp_path / "two", *alone, f"--members={file}", "--member_weight=0.5")
    data = dataset.load_training(base.build_config(EnsembleConfig, place()).data, 1)
    found = folds.read_folds(data, Path(f"{helpers.challenge()}-folds"))
    assert run_report.latest_submission_members(tmp_path / "two", data, found) == ("canonical",)
