"""Checks before a run, and the forecast of its time."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import run_all
from helpers import motion, write_data
from motret.config import base, presets, training
from motret.errors import DataError, WeightsError
from motret.pipeline import preflight
from motret.pipeline.plan import Plan, make_plan
from motret.utils import network
from motret.utils.machine import Machine


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository as current folder; the model hub can be reached."""
    shutil.copy(base.ROOT / "SETTINGS.json", tmp_path)
    monkeypatch.setattr(base, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(network, "hub_reachable", lambda: True)
    return tmp_path


@pytest.fixture
def data(home: Path) -> Path:
    """Data of three motions."""
    return write_data(home / "data", ["1", "2", "3"])


def check(plan: Plan) -> None:
    preflight.check_before_run(plan.data_dir, plan.test_dir, plan.folders, plan.args_of("train"))


def limit_disk(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": int(free)})())


# ---- checks


@pytest.mark.usefixtures("data")
def test_text_weights_that_cannot_be_had_are_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(network, "hub_reachable", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setenv("HOME", str(home))
    for flags in ([], ["--dry_run"], ["--text_tower", "hf:nobody/nothing"]):
        assert run_all.main(flags) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "cannot be reached" in error and "--text_" in error
    assert run_all.main(["--text_weights", "none", "--dry_run"]) == 0


def test_the_default_weights_are_where_open_clip_takes_them_from() -> None:
    import open_clip

    text = training.TextConfig()
    source = open_clip.get_pretrained_cfg(text.text_tower, text.text_weights)
    assert source["hf_hub"].strip("/") == preflight.DEFAULT_WEIGHTS


@pytest.mark.usefixtures("data")
def test_a_backbone_file_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(WeightsError, match=r"--backbone_weights: gone.pt: no such file"):
        check(make_plan(["--backbone_weights", "gone.pt"]))


def test_a_folder_that_cannot_be_written_to_is_an_error(home: Path) -> None:
    (home / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"cannot be written to .* --out_dir"):
        check(make_plan(["--out_dir", "file/runs"]))


@pytest.mark.usefixtures("data")
def test_a_disk_that_is_too_full_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_disk(monkeypatch, 1000)
    with pytest.raises(DataError, match=r"needs about .*, 0\.0 GB are free \(free some space"):
        check(make_plan(["--preset", "fast"]))


@pytest.mark.usefixtures("data")
def test_runs_that_exist_need_no_disk_space(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(["--preset", "fast", "--variants", "holistic"])
    limit_disk(monkeypatch, preflight.SPARE_BYTES + 10e6)
    with pytest.raises(DataError, match="needs about"):
        check(plan)
    (run_name,) = plan.run_names()
    (home / "runs" / run_name).mkdir(parents=True)
    check(plan)


def test_data_that_cannot_be_read_are_an_error(data: Path) -> None:
    (data / "test").mkdir()
    with pytest.raises(DataError, match="test"):  # no query in it
        check(make_plan(["--preset", "fast"]))
    shutil.rmtree(data / "texts")
    with pytest.raises(DataError, match="texts: no such folder"):
        check(make_plan(["--preset", "fast"]))


@pytest.mark.usefixtures("data")
def test_the_check_reads_ids_of_the_width_that_a_flag_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = []
    read = preflight.dataset.read_training

    def read_training(root: Path, **how):
        options.append(how)
        return read(root, **how)

    monkeypatch.setattr(preflight.dataset, "read_training", read_training)
    check(make_plan(["--preset", "fast", "--id_width", "4"]))
    assert options == [{"id_width": 4}]


# ---- the forecast


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of a million operations per second."""
    monkeypatch.setattr(preflight, "measure_machine_apart", lambda _: SLOW)


SLOW = Machine("CPU", is_gpu=False, rate=1e6, product_bytes=4, available=8e9, n_cards=0)


def forecast(flags: str = "") -> str:
    plan = make_plan(flags.split())
    tune_calls = plan.args_of("tune")
    return preflight.forecast(plan.data_dir, plan.args_of("train"), tune_calls, plan.n_parallel)


TUNING_MINUTES = presets.PRESETS["full"].tuning["max_minutes"]


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize(
    ("flags", "minutes"),
    [
        ("--folds 3 --tuned none", 3 * 3 * 2),  # three variants
        ("--folds 3 --tuned none --all_data", 3 * (3 + 1) * 2),
        ("--folds 3 --tuned none --all_data --seeds 0 1", 3 * 2 * (3 + 1) * 2),
        ("--fold 0 --tuned none", 3 * 2),
        ("--fold 0", 3 * 2 + TUNING_MINUTES),
    ],
)
def test_a_time_limit_bounds_the_forecast(home: Path, flags: str, minutes: float) -> None:
    write_data(home / "data", ["1", "2", "3", "4"])
    limited = forecast(f"--max_minutes 2 {flags}")
    assert limited.startswith(f"forecast: about {minutes:.0f} min ")
    assert " h on this machine" in forecast()


@pytest.mark.usefixtures("slow", "data")
def test_each_variant_has_a_line_with_its_time_and_memory() -> None:
    title, *lines = forecast("--max_minutes 2 --folds 3 --seeds 0 1 --tuned none").splitlines()
    assert title.startswith("forecast: about 36 min ") and "(CPU)" in title
    assert [line.split()[:2] for line in lines] == [
        ["holistic", "12"],  # two seeds of three folds
        ["sgar", "12"],
        ["clip", "12"],
    ]
    assert all(line.endswith(" GB of 8.0 GB free") for line in lines)


@pytest.mark.usefixtures("data")
def test_too_little_memory_is_a_warning_with_a_fix_that_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def warnings(gigabytes: float, flags: str = "--batch_size 4096") -> list[str]:
        lines = forecast_on(monkeypatch, gigabytes, 1, flags).splitlines()
        return [line for line in lines if line.startswith("warning: ")]

    assert not warnings(80)
    (warning,) = warnings(2)
    assert warning.startswith("warning: holistic needs about ") and "2.0 GB are free" in warning
    (fix,) = re.findall(r"(--batch_size (\d+) --grad_accum (\d+))", warning)
    assert int(fix[1]) * int(fix[2]) == 4096 and int(fix[2]) > 1
    assert not warnings(2, fix[0])
    assert "take a smaller model" in warnings(0.1)[0]


@pytest.mark.usefixtures("data")
def test_models_side_by_side_share_the_memory_of_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = float(re.findall(r"([\d.]+) GB of 8.0 GB", forecast_on(monkeypatch, 8, 1, ""))[0])
    room = 1.5 * needed
    assert "warning" not in forecast_on(monkeypatch, room, 1, "")
    assert "2 models side by side" in forecast_on(monkeypatch, room, 1, "--fold_jobs 2")
    assert "warning" not in forecast_on(monkeypatch, room, 2, "--fold_jobs 2")


def forecast_on(monkeypatch: pytest.MonkeyPatch, gigabytes: float, cards: int, flags: str) -> str:
    machine = replace(SLOW, is_gpu=True, available=gigabytes * 1e9, n_cards=cards)
    monkeypatch.setattr(preflight, "measure_machine_apart", lambda _: machine)
    return forecast(f"--variants holistic --tuned none {flags}")


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("persons", [1, 2])
def test_broken_files_do_not_stop_the_forecast(home: Path, persons: int) -> None:
    motions = {str(number): motion(20, persons, number) for number in range(1, 5)}
    root = write_data(home / "data", motions)
    before = forecast()
    for number in (1, 4):
        (root / "motions" / f"{number}.npy").write_bytes(b"")
    assert forecast() == before
    for number in (2, 3):
        np.save(root / "motions" / f"{number}.npy", np.zeros((20, 5)))
    with pytest.raises(DataError, match="no readable motion"):
        forecast()
