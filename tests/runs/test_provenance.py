"""What a run was made from: recorded, and checked wherever one of its models is opened."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import ensemble
import helpers
import report
import search
import train
from helpers import WORDS, made_run, saved_bert
from motret.config.scripts import EnsembleConfig
from motret.data import feature_blocks
from motret.ensemble import members, tta
from motret.ensemble.tta import TtaView
from motret.errors import RunError
from motret.models import hf_tower, registry
from motret.runs import checkpoints, oof, provenance
from motret.runs.run import open_run

pytestmark = pytest.mark.filterwarnings("ignore:.*candidates.*:UserWarning")


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A small encoder in a folder of its own."""
    return saved_bert(tmp_path / "bert")


def flags(tmp_path: Path, encoder: Path, **values) -> list[str]:
    train_flags = [
        flag
        for flag in helpers.train_flags(tmp_path, "run", epochs=1, **values)
        if not flag.startswith("--text_")
    ]
    return [*train_flags, f"--text_tower=hf:{encoder}"]


def replace_encoder(encoder: Path) -> None:
    """Puts other weights under the same name."""
    shutil.rmtree(encoder)
    saved_bert(encoder, seed=1)


def open_everywhere(tmp_path: Path) -> list[int]:
    """Exit codes of all that open the run."""
    flags_of_folders = [*helpers.places(), f"--out_dir={tmp_path}"]
    submissions = f"--submissions_dir={tmp_path / 'subs'}"
    return [
        ensemble.main([*flags_of_folders, submissions, "--query_bank=off", "--views=none"]),
        search.main(["two people walk", *flags_of_folders]),
        report.main([*flags_of_folders, submissions, "--run", "run", "--fold=0"]),
    ]


def test_an_encoder_that_was_replaced_is_refused_by_all_that_ask_the_run(
    tmp_path, encoder, capsys
) -> None:
    assert train.main(flags(tmp_path, encoder)) == 0
    inputs = open_run(tmp_path / "run").inputs
    assert inputs.keys() == {provenance.WEIGHTS, provenance.TOKENIZER, provenance.FEATURES}
    replace_encoder(encoder)
    capsys.readouterr()
    assert open_everywhere(tmp_path) == [1, 1, 1]
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    digest = inputs[provenance.WEIGHTS]
    run = f"error: {tmp_path / 'run'}"
    message = f"{run}: its text weights changed since it was trained ({digest}, now "
    assert len(errors) == 3 and all(
        line.startswith(message) and f"put hf:{encoder} back as it was" in line for line in errors
    )
    (tmp_path / "run" / "fold1" / "oof.npz").unlink()
    assert train.main([*flags(tmp_path, encoder), "--resume=auto"]) == 1
    assert (
        message in capsys.readouterr().err and not (tmp_path / "run" / "fold1" / "oof.npz").exists()
    )


def test_a_run_of_another_encoder_is_trained_anew_once_its_folder_is_moved_away_as_the_error_says(
    tmp_path, encoder, capsys
) -> None:
    command = [*flags(tmp_path, encoder), "--resume=same"]  # as run_all.sh calls it
    assert train.main(command) == 0
    before = open_run(tmp_path / "run").inputs
    replace_encoder(encoder)
    (tmp_path / "run" / "fold1" / "oof.npz").unlink()
    assert train.main(command) == 1
    fix = f"or move the run's folder out of {tmp_path} and run the same command again)"
    assert fix in capsys.readouterr().err
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    assert train.main(command) == 0
    assert open_run(tmp_path / "run").inputs != before


def test_a_run_of_before_digests_were_kept_opens_with_one_line(tmp_path, encoder, capsys) -> None:
    assert train.main(flags(tmp_path, encoder)) == 0
    path = tmp_path / "run" / "args.json"
    content = json.loads(path.read_text())
    del content["inputs"]
    path.write_text(json.dumps(content))
    replace_encoder(encoder)
    capsys.readouterr()
    assert open_everywhere(tmp_path)[:2] == [0, 0]
    output = capsys.readouterr().out
    assert (
        output.count(f"{tmp_path / 'run'}: made before runs kept digests of their text tower") == 1
    )


def tower(encoder: Path) -> hf_tower.HfTower:
    return registry.make_text_tower(helpers.config(text_tower=f"hf:{encoder}").text)


def test_digests_change_with_weights_words_and_nothing_else(tmp_path, encoder) -> None:
    first = provenance.text_tower_digests(tower(encoder))
    assert (
        provenance.text_tower_digests(tower(shutil.copytree(encoder, tmp_path / "copy"))) == first
    )
    encoder.joinpath("vocab.txt").write_text("\n".join([*WORDS[:-2], *reversed(WORDS[-2:])]) + "\n")
    words = provenance.text_tower_digests(tower(encoder))
    assert (
        words[provenance.WEIGHTS] == first[provenance.WEIGHTS]
        and words[provenance.TOKENIZER] != first[provenance.TOKENIZER]
    )
    weights = provenance.text_tower_digests(tower(saved_bert(tmp_path / "other", seed=1)))
    assert (
        weights[provenance.WEIGHTS] != first[provenance.WEIGHTS]
        and weights[provenance.TOKENIZER] == first[provenance.TOKENIZER]
    )


def test_open_clips_words_count_and_a_tower_from_scratch_has_no_weights(monkeypatch) -> None:
    config = helpers.config(**helpers.SCRATCH)
    first_tower = registry.make_text_tower(config.text)
    inputs = provenance.input_digests(config, first_tower)
    assert inputs.keys() == {provenance.TOKENIZER, provenance.FEATURES}
    second = registry.make_text_tower(config.text)
    monkeypatch.setattr(second.tokenizer, "encoder", second.tokenizer.encoder | {"zebra</w>": 7})
    assert (
        provenance.input_digests(config, second)[provenance.TOKENIZER]
        != inputs[provenance.TOKENIZER]
    )


def test_other_features_are_refused_and_weights_that_were_trained_are_in_the_checkpoint(
    tmp_path, encoder, monkeypatch
) -> None:
    config = helpers.config(text_tower=f"hf:{encoder}", unfreeze_text=True)
    run = replace(
        made_run(tmp_path, "one", 0),
        config=config,
        inputs=provenance.input_digests(config, tower(encoder)),
    )
    second = tower(saved_bert(tmp_path / "other", seed=1))
    provenance.check_inputs(run, second)
    with pytest.raises(
        RunError,
        match=r"its text weights changed since it was trained .*, now .*put hf:.* back as it was",
    ):
        provenance.check_inputs(run, second, resumed=True)
    monkeypatch.setattr("motret.data.features.FEATURE_VERSION", 99)
    with pytest.raises(
        RunError, match=r"its feature version changed since it was trained \(\d+, now 99\)"
    ):
        provenance.check_inputs(run, tower(encoder))


def test_versions_of_further_blocks_count_where_they_were_recorded(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(feature_blocks.BLOCKS, "posture", feature_blocks.BLOCKS["root"])
    config = helpers.config(**helpers.SCRATCH, features="canonical+posture")
    text = registry.make_text_tower(config.text)
    inputs = provenance.input_digests(config, text)
    assert inputs[provenance.FEATURES] == "1 posture=1"
    plain = provenance.input_digests(helpers.config(**helpers.SCRATCH), text)
    assert plain[provenance.FEATURES] == "1"
    run = replace(made_run(tmp_path, "one", 0), config=config, inputs=inputs)
    former = replace(run, inputs=plain)  # as runs with further blocks once recorded it
    raised = replace(feature_blocks.BLOCKS["posture"], version=2)
    monkeypatch.setitem(feature_blocks.BLOCKS, "posture", raised)
    with pytest.raises(
        RunError,
        match=r"\(1 posture=1, now 1 posture=2\) \(put version 1 of block posture back",
    ):
        provenance.check_inputs(run, text)
    provenance.check_inputs(former, text)
    monkeypatch.setattr("motret.data.features.FEATURE_VERSION", 99)
    for other in (run, former):
        with pytest.raises(RunError, match=r"now 99.*\(use the code it was trained with"):
            provenance.check_inputs(other, text)


def test_runs_of_other_part_texts_or_another_tower_are_other_members(tmp_path) -> None:
    data, folds = helpers.training_data(), helpers.folds(count=4)
    values_of = {
        "a": {},
        "b": {"part_texts": "gar 1"},
        "c": {"part_texts": "gar 2"},
        "d": {"inputs": {provenance.WEIGHTS: "x"}},
    }
    values_of["e"] = {"part_texts": "gar 2", "inputs": {provenance.WEIGHTS: "x"}}
    for name, content in values_of.items():
        made_run(tmp_path, name, 0, folds=range(4), found=folds)
        path = tmp_path / name / "args.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | content))

    def groups(*names: str) -> list[tuple[str, ...]]:
        return [
            member.runs
            for member in members.gather_members(
                EnsembleConfig(runs=names, out_dir=tmp_path), data, folds
            )
        ]

    assert groups("b", "c") == [("b",), ("c",)]
    assert groups("c", "d", "e") == [
        ("c", "d", "e")
    ]  # what one of them has not kept is not compared
    assert groups("a", "b", "c") == [("a", "b"), ("c",)]


def test_what_is_kept_of_a_view_in_the_mirror_changes_with_the_caption_rules(
    tmp_path, monkeypatch
) -> None:
    run = made_run(tmp_path, "one", 0)
    checkpoints.save_checkpoint(run.fold_dir(0) / "best_epoch1.pt", {})
    out = oof.load_out_of_fold(run, 0)

    def keys() -> list[str]:
        views = (TtaView("mirror", mirror=object()), TtaView("speed0.9", speed=0.9))
        return [tta.view_cache_key(run, 0, view, out.text, out.motion) for view in views]

    before = keys()
    assert before == keys()
    monkeypatch.setattr(provenance, "caption_rules", lambda: "others")
    assert keys()[0] != before[0] and keys()[1] == before[1]
