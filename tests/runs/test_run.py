"""Run folders: what args.json records, when a run may go on, and that broken files are errors."""

import json
import os
from dataclasses import replace

import pytest
import torch

import helpers
from motret.config import base, training
from motret.errors import RunError
from motret.runs import checkpoints
from motret.runs.resolve import resolve_run
from motret.runs.run import create_run_dir, list_runs, open_run, settings_hash

DATA, FOLDS = helpers.training_data(), helpers.folds()


def create(folder, data=DATA, folds=FOLDS, **values):
    run = resolve_run(helpers.config(out_dir=folder, **values), {"width": "flag"}, data, folds)
    create_run_dir(run)
    return run


def test_a_run_opens_as_it_was_made(tmp_path):
    run = create(tmp_path, run_name="one", width=32, tau=0.05, data_dir=tmp_path / "data")
    assert run.folder == tmp_path / "one" and run.name == "one"
    opened = open_run(tmp_path / "one")
    assert opened == run
    assert opened.config.motion.width == 32 and opened.config.data.data_dir == tmp_path / "data"
    assert [run.name for run in list_runs(tmp_path)] == ["one"]


def test_args_json_holds_what_a_result_needs_to_be_traced(tmp_path):
    create(tmp_path, run_name="one")
    content = json.loads((tmp_path / "one" / "args.json").read_text())
    assert content["sources"] == {"width": "flag"}
    assert (content["data"], content["folds"], content["persons"]) == ("data-a", "folds-a", 2)
    assert content["settings"]["width"] == 16 and set(content["settings"]) == set(
        base.flag_defaults(training.TrainConfig)
    )
    assert (
        content["versions"]["torch"] == torch.__version__.split("+")[0]
        or content["versions"]["torch"] == torch.__version__
    )
    assert content["hash"] == settings_hash(helpers.config())


def test_a_run_is_named_after_its_variant_and_the_time_unless_told(tmp_path):
    assert create(tmp_path).name.startswith("holistic_20")


def test_an_existing_name_is_refused_unless_it_is_resumed(tmp_path):
    run = create(tmp_path, run_name="one")
    with pytest.raises(RunError, match=r"one: exists already .*--resume auto"):
        create(tmp_path, run_name="one")
    assert create(tmp_path, run_name="one", resume="auto").folder == run.folder


def test_resume_takes_a_folder_a_checkpoint_in_it_or_auto(tmp_path):
    run = create(tmp_path, run_name="one")
    checkpoint = run.fold_dir(0) / "last.pt"
    checkpoints.save_checkpoint(checkpoint, {})
    for resume in (run.folder, checkpoint):
        assert create(tmp_path, resume=str(resume)).folder == run.folder
    assert (
        create(tmp_path, run_name="new", resume="auto").folder == tmp_path / "new"
    )  # auto: starts where there is nothing yet
    with pytest.raises(RunError, match="no run to resume there"):
        create(tmp_path, resume=str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_resuming_without_a_name_goes_on_with_the_newest_run_of_the_same_settings(tmp_path):
    for age, name in enumerate(("newest", "oldest")):
        create(tmp_path, run_name=name)
        os.utime(tmp_path / name / "args.json", ns=(0, 10**9 * (9 - age)))
    create(tmp_path, run_name="wider", width=32)
    create(tmp_path, run_name="other_data", data=replace(DATA, fingerprint="data-b"))
    assert create(tmp_path, resume="auto").name == "newest"
    assert create(tmp_path, resume="auto", lr=0.5).name.startswith("holistic_20")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 32}, "has other settings: width 16 -> 32"),
        (
            {"lr": 1.0, "epochs": 9, "seed": 4},
            "has other settings: seed 0 -> 4, lr 0.0005 -> 1.0 (leave",
        ),
        ({"text_tower": "hf:other"}, "text_tower ViT-B-32 -> hf:other"),
        ({"fps": 20.0}, "fps 30.0 -> 20.0"),
    ],
)
def test_going_on_with_other_settings_is_refused_by_their_names(tmp_path, values, message):
    create(tmp_path, run_name="one")
    with pytest.raises(RunError, match=r"one: ") as error:
        create(tmp_path, run_name="one", resume="auto", **values)
    assert message in str(error.value)


def test_settings_of_where_and_when_may_differ(tmp_path):
    create(tmp_path, run_name="one")
    resumed = create(
        tmp_path,
        run_name="one",
        resume="auto",
        data_dir=tmp_path,
        work_dir=tmp_path,
        fold="1",
        jobs=2,
        device="auto",
        debug=True,
    )
    assert resumed.name == "one"
    assert settings_hash(resumed.config) == settings_hash(helpers.config())
    assert settings_hash(helpers.config(seed=1)) != settings_hash(helpers.config())


def test_going_on_with_other_data_or_folds_is_refused(tmp_path):
    create(tmp_path, run_name="one")
    with pytest.raises(RunError, match=r"other data \(data-a, now data-b\)"):
        create(tmp_path, data=replace(DATA, fingerprint="data-b"), run_name="one", resume="auto")
    with pytest.raises(RunError, match=r"other folds \(folds-a, now folds-b\)"):
        create(tmp_path, folds=replace(FOLDS, hash="folds-b"), run_name="one", resume="auto")


def test_going_on_with_other_part_texts_is_refused_unless_they_were_never_noted(tmp_path):
    path, values = (
        tmp_path / "data" / "texts" / "gar_train.json",
        {"data_dir": tmp_path / "data", "use_gar": True},
    )

    def write(text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([{"id": 1, "part_descriptions": {"torso": text}}]))

    write("bends")
    run, _ = create(tmp_path, run_name="one", **values), create(tmp_path, run_name="plain")
    assert open_run(run.folder) == run and run.part_texts.startswith("gar ")
    assert create(tmp_path, resume="auto", **values).name == "one"
    write("leans")
    with pytest.raises(
        RunError,
        match=r"one: was trained on other part texts \(gar \w+, now gar \w+\) \(give another",
    ):
        create(tmp_path, run_name="one", resume="auto", **values)
    assert (
        create(tmp_path, run_name="plain", resume="auto", data_dir=tmp_path / "data").part_texts
        is None
    )
    assert create(tmp_path, resume="auto", **values).name not in ("one", "plain")
    content = json.loads((tmp_path / "one" / "args.json").read_text())
    del content["part_texts"]  # as runs were before
    (tmp_path / "one" / "args.json").write_text(json.dumps(content))
    assert create(tmp_path, run_name="one", resume="auto", **values).name == "one"


def test_a_folder_that_is_no_run_is_an_error(tmp_path):
    with pytest.raises(RunError, match="is no run"):
        open_run(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"settings": 3}', b'{"settings": "\xff"}', b"9" * 10_000],
)
def test_a_broken_args_json_is_an_error(tmp_path, content):
    create(tmp_path, run_name="one")
    (tmp_path / "one" / "args.json").write_bytes(content)
    problems = "cannot be read|not JSON|not UTF-8 at byte 14|holds no JSON object"
    with pytest.raises(RunError, match=rf"args\.json: ({problems})"):
        open_run(tmp_path / "one")


def test_settings_that_no_longer_exist_are_left_out(tmp_path):
    create(tmp_path, run_name="one")
    path = tmp_path / "one" / "args.json"
    content = json.loads(path.read_text())
    content["settings"]["of_an_older_version"] = 3
    path.write_text(json.dumps(content))
    assert open_run(tmp_path / "one").config == helpers.config(out_dir=tmp_path, run_name="one")
