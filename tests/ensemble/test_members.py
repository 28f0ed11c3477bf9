"""Members of an ensemble: which runs take part, and which count as one."""

import json
from pathlib import Path

import numpy as np
import pytest

import helpers
from helpers import made_run
from motret.config import base
from motret.config.scripts import EnsembleConfig
from motret.ensemble import external, members
from motret.ensemble.members import Member
from motret.errors import RunError
from motret.runs.run import Run, open_run
from motret.utils import logs

DATA, FOLDS = helpers.training_data(), helpers.folds(count=4)


def make(folder: Path, name: str, seed: int = 0, **values: object) -> Run:
    """A run of made-up embeddings; runs of one seed have the same settings."""
    run = made_run(folder, name, seed, found=FOLDS, **{"folds": range(4)} | values)
    edit_args(
        run.folder,
        settings=json.loads((run.folder / "args.json").read_text())["settings"] | {"seed": seed},
    )
    return open_run(run.folder)


def edit_args(folder: Path, **values: object) -> None:
    args = folder / "args.json"
    args.write_text(json.dumps(json.loads(args.read_text()) | values))


def gather(folder: Path, *names: str, **values: object) -> list[Member]:
    config = base.build_config(EnsembleConfig, {"out_dir": folder, "runs": names} | values)
    return members.gather_members(config, DATA, FOLDS)


def test_runs_of_the_same_settings_are_one_member(tmp_path: Path) -> None:
    make(tmp_path, "a", 0), make(tmp_path, "b", 0, full=True), make(tmp_path, "c", 1)
    first, second = gather(tmp_path)
    assert (first.name, first.runs, second.runs) == ("a", ("a", "b"), ("c",))
    models = [(run.name, fold) for run, fold in first.models]
    assert models == [("a", 0), ("a", 1), ("a", 2), ("a", 3), ("b", None)]


def test_a_model_of_all_motions_joins_the_folds_of_its_settings(tmp_path: Path) -> None:
    make(tmp_path, "folds", 0), make(tmp_path, "whole", 0, folds=(), full=True)
    make(tmp_path, "stranger", 5, folds=(), full=True)
    (member,) = gather(tmp_path)
    assert member.name == "folds" and [fold for _, fold in member.models] == [0, 1, 2, 3, None]


def test_a_named_model_of_all_motions_ranks_alone_and_is_weighed_by_its_twin(
    tmp_path: Path,
) -> None:
    make(tmp_path, "folds", 0), make(tmp_path, "whole", 0, folds=(), full=True)
    (member,) = gather(tmp_path, "whole")
    assert member.name == "whole" and [(run.name, fold) for run, fold in member.models] == [
        ("whole", None)
    ]
    (twin,) = gather(tmp_path, "folds")
    np.testing.assert_array_equal(member.gallery(2).similarity(), twin.gallery(2).similarity())


def test_a_model_of_all_motions_without_a_twin_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "other", 1), make(tmp_path, "whole", 0, folds=(), full=True)
    with pytest.raises(
        RunError, match="whole: holds a model of all motions alone, and no run of these settings"
    ):
        gather(tmp_path, "whole")


def test_a_run_without_a_finished_model_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "begun", 0, folds=())
    with pytest.raises(RunError, match="begun: has no finished model"):
        gather(tmp_path, "begun")


def test_runs_that_do_not_take_part_are_named_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.show_logs()
    make(tmp_path, "whole", 0), make(tmp_path, "part", 1, folds=(0, 1))
    make(tmp_path, "stale", 2), make(tmp_path, "foreign", 3)
    edit_args(tmp_path / "stale", folds="another")
    edit_args(tmp_path / "foreign", data="another")
    assert [member.name for member in gather(tmp_path)] == ["whole"]
    reasons = "foreign (other data), part (2 of 4 folds finished), stale (other folds)"
    assert capsys.readouterr().out == f"left out: {reasons}\n"
    gather(tmp_path, "whole")
    assert capsys.readouterr().out == ""


def test_one_fold_means_its_models_alone_and_a_member_without_it_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "whole", 0), make(tmp_path, "part", 1, folds=(0, 1))
    both = gather(tmp_path, "whole", "part", fold=1)
    assert [[fold for _, fold in member.models] for member in both] == [[1], [1]]
    with pytest.raises(RunError, match="part: has not finished fold 2"):
        gather(tmp_path, "whole", "part", fold=2)


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    words, other = "word_match.npz", tmp_path / "mine.npz"
    paths = [tmp_path / "a" / words, other, tmp_path / "b" / words]
    assert external.member_names(paths) == [f"a/{words}", "mine.npz", f"b/{words}"]
    assert external.member_names(paths[:2]) == [words, "mine.npz"]
