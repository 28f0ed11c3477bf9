"""Shares of the trainings of run_all.sh, for workers on many machines."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import helpers
import run_all
import train
from motret.config import cli
from motret.errors import ConfigError
from motret.pipeline import tasks
from motret.pipeline.plan import make_plan
from motret.pipeline.steps import Step
from motret.pipeline.tasks import Task, TaskShare, parse_share, run_once, run_tasks
from motret.utils import claims

SMALL = (
    "--preset fast --folds 3 --epochs 1 --width 16 --heads 2 --text_width 64 --proj_dim 16"
    " --layers 1 --cross_person_layers 0 --tuned none --variants holistic"
)
ROOT = Path(__file__).parents[2]


def flags(tmp_path: Path, *more: str) -> list[str]:
    names = ("out_dir", "submissions_dir")
    folders = [f"--{name}={tmp_path / name}" for name in names]
    return [*helpers.places(), *SMALL.split(), *folders, *more]


def names(*arguments: str) -> list[str]:
    plan = make_plan(list(arguments))
    return [task.name for task in (plan.task_share or TaskShare(None)).select(plan.tasks())]


def test_a_task_is_a_fold_of_a_variant_and_seed(tmp_path: Path) -> None:
    plan = make_plan(flags(tmp_path, "--variants", "holistic", "sgar", "--seeds", "0", "1"))
    listed = plan.tasks()
    assert len(listed) == 2 * 2 * 3
    configs = [cli.parse_train(task.step.args, None)[0] for task in listed]
    trained = {(config.variant, config.machine.seed, config.fold) for config in configs}
    assert len(trained) == len(listed)
    assert {config.run_name for config in configs} == set(plan.run_names())
    assert all(config.resume == "same" for config in configs)


def test_shares_divide_all_tasks(tmp_path: Path) -> None:
    given = flags(tmp_path, "--seeds", "0", "1", "--all_data")
    whole = names(*given)
    shares = [names(*given, "--task", f"{number}/3") for number in (1, 2, 3)]
    assert (
        sorted(name for share in shares for name in share) == sorted(whole) and len(whole) == 2 * 4
    )
    assert [name.split()[1] for name in whole[-2:]] == ["full", "full"]  # after their folds
    assert names(*given, "--task=any") == whole


def test_a_fold_that_is_named_is_the_only_one(tmp_path: Path) -> None:
    (name,) = names(*flags(tmp_path, "--fold", "1"))
    assert name.endswith(" fold1")


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "1/", "a/b", "all", "-1/4", "1/4/2"])
def test_what_is_no_share_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="is no share"):
        parse_share(text)


def test_shares_are_trained_with_the_settings_of_the_last_call(tmp_path: Path) -> None:
    """Settings that are searched after the training would make the last call train all again."""
    given = [flag for flag in flags(tmp_path) if flag not in ("--tuned", "none")]
    with pytest.raises(ConfigError, match="--task: holistic would be tuned after the training"):
        make_plan([*given, "--task", "1/2"])
    found = tmp_path / "out_dir/tune/holistic/best.json"
    found.parent.mkdir(parents=True)
    found.write_text("{}")
    plan = make_plan([*given, "--task", "1/2"])
    assert not plan.args_of("tune") and "auto" in plan.args_of("train")[0]


def test_tasks_are_listed_with_their_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all.main([*flags(tmp_path), "--dry_run", "--tasks"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " fold" in line]
    assert len(lines) == 3 and all("train.py holistic" in line for line in lines)
    assert [line.split()[-1] for line in lines] == ["0", "1", "2"]
    assert run_all.main([*flags(tmp_path), "--dry_run", "--tasks", "--task", "2/3"]) == 0
    assert capsys.readouterr().out.count("train.py holistic") == 1
    assert not (tmp_path / "out_dir").exists()


# ---- doing them


def task(name: str, needs: tuple[Path, ...] = ()) -> Task:
    return Task(name, Step(name, "train", ()), needs)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "POLL_SECONDS", 0.01)


def never() -> None:
    raise AssertionError("nobody takes a task over")


def test_a_task_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    done: list[str] = []

    def call(step: Step) -> int:
        done.append(step.title)
        return 3 if step.title == "b" else 0

    assert run_tasks([task("a"), task("b"), task("c")], tmp_path, call, never) == 3
    assert done == ["a", "b", "c"]
    assert run_tasks([task("a")], tmp_path, lambda _step: 143, never) == 143


def test_a_task_of_another_worker_is_waited_for_and_seen_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its worker may have been killed or have failed: train.py says quickly that it is done."""
    claim = tmp_path / "a.json"
    claim.write_text(json.dumps({"token": "00000000-7-5", "host": "node7", "pid": 7}))
    done: list[str] = []

    def call(step: Step) -> int:
        done.append(step.title)
        if step.title == "b":
            threading.Timer(0.1, claim.unlink).start()
        return 0

    assert run_tasks([task("a"), task("b")], tmp_path, call, never) == 0
    assert done == ["b", "a"]
    assert capsys.readouterr().out.count("others are at work on a (node7, process 7)") == 1


def test_a_task_that_another_worker_has_finished_is_not_looked_at_again(tmp_path: Path) -> None:
    done: list[str] = []

    def call(step: Step) -> int:
        done.append(step.title)
        if step.title == "a":
            (tmp_path / "b.done").touch()
            later = (tmp_path / "b.done").stat().st_mtime + 1
            os.utime(tmp_path / "b.done", (later, later))
        return 0

    assert run_tasks([task("a"), task("b")], tmp_path, call, never) == 0
    assert done == ["a"]
    os.utime(tmp_path / "b.done", (1, 1))  # by a call of before, perhaps with other data
    assert run_tasks([task("b")], tmp_path, call, never) == 0
    assert done == ["a", "b"]


def test_a_task_whose_worker_is_silent_is_taken_over(tmp_path: Path) -> None:
    claim = tmp_path / "a.json"
    claim.write_text(json.dumps({"token": "00000000-7-5", "host": "node7", "pid": 7}))
    silent = time.time() - claims.STALE_SECONDS - 60
    os.utime(claim, (silent, silent))
    done: list[str] = []
    assert run_tasks([task("a")], tmp_path, lambda step: done.append(step.title) or 0, never) == 0
    assert done == ["a"]


def test_a_worker_that_has_lost_a_task_stops_it_and_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was suspended for so long that another one took the task over."""
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.01)
    stopped, calls = threading.Event(), []
    other = json.dumps({"token": "00000000-7-5", "host": "node7", "pid": 7})

    def call(step: Step) -> int:
        calls.append(step.title)
        if len(calls) > 1:
            return 0
        (tmp_path / "a.json").write_text(other)
        assert stopped.wait(30)
        threading.Timer(0.1, (tmp_path / "a.json").unlink).start()
        return 143

    assert run_tasks([task("a")], tmp_path, call, stopped.set) == 0
    assert calls == ["a", "a"]


def test_the_model_of_all_data_waits_for_its_folds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []
    found = tmp_path / "oof.npz"

    def call(step: Step) -> int:
        done.append(step.title)
        if step.title == "fold0":
            found.touch()
        return 0

    both = [task("full", (found,)), task("fold0")]
    assert run_tasks(both, tmp_path, call, never) == 0
    assert done == ["fold0", "full"]
    assert run_tasks([task("full", (tmp_path / "gone",))], tmp_path, call, never) == 0
    assert "left for the last call, as not all of their folds are finished: full" in (
        capsys.readouterr().out
    )


def test_what_all_need_is_done_by_one(tmp_path: Path) -> None:
    claim, calls = tmp_path / "data.json", []
    claim.write_text(json.dumps({"token": "00000000-7-5", "host": "node7", "pid": 7}))
    threading.Timer(0.1, claim.unlink).start()
    assert run_once("data", tmp_path, lambda: calls.append(1) or 0, never) == 0
    assert calls == []
    assert run_once("data", tmp_path, lambda: calls.append(1) or 5, never) == 5
    assert calls == [1]


def test_two_workers_of_one_folder_share_the_trainings_and_the_last_call_finds_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = flags(tmp_path, "--folds", "2", f"--folds_dir={tmp_path / 'folds'}")
    workers = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "solution/run_all.py"), *given, "--task", share],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for share in ("1/2", "any")
    ]
    outputs = [worker.communicate(timeout=900)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    (run_dir,) = (tmp_path / "out_dir").glob("holistic-*")
    for fold in range(2):  # each is trained by one of them
        assert (run_dir / f"fold{fold}/oof.npz").is_file()
        assert sum(output.count(f"fold{fold}: score") for output in outputs) == 1
    assert "once all are, the same command without --task ranks" in outputs[0]
    assert not list((tmp_path / "out_dir/claims").glob("*.json"))
    capsys.readouterr()
    (step,) = (step for step in make_plan(given).steps if step.script == "train")
    assert train.main(step.args) == 0
    assert "finished before: fold0, fold1" in capsys.readouterr().out
