"""Curves of a fold in TensorBoard, and in a stand-in for wandb: each epoch once, also where the
training goes on."""

import importlib.util
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from motret.errors import ConfigError
from motret.utils import network, tracking
from motret.utils.tracking import TrackedFold

SETTINGS = {"lr": 1e-3, "variant": "sgar", "learn_tau": True, "backbone_weights": None}
Curves = dict[str, list[tuple[int, float]]]
"""Column -> (step, value) of each point."""


def row(epoch: int) -> dict[str, float]:
    """An epoch of metrics.csv; every second one is validated."""
    return {
        "epoch": epoch,
        "train_loss": 1 / epoch,
        "score": math.nan if epoch % 2 else epoch / 10,
    }


def rows(*epochs: int) -> list[dict[str, float]]:
    return [row(epoch) for epoch in epochs]


def curves_of(epochs: Sequence[int]) -> Curves:
    """What a tracker must show of these epochs."""
    return {
        "train_loss": [(epoch, 1 / epoch) for epoch in epochs],
        "score": [(epoch, epoch / 10) for epoch in epochs if epoch % 2 == 0],
    }


def track(kind: str, folder: Path, earlier: Sequence[int], new: Sequence[int]) -> None:
    """A process that resumes after the earlier epochs and trains the new ones."""
    fold = TrackedFold(folder, "run", "fold0", "key0", SETTINGS, rows(*earlier))
    with tracking.open_tracker(kind, fold) as log_epoch:
        for epoch in new:
            log_epoch(row(epoch))


@pytest.mark.parametrize("kind", ["tensorboard", "wandb"])
def test_a_package_that_is_missing_is_one_line_with_the_command_that_installs_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    tracking.check_tracker("none")
    with pytest.raises(ConfigError, match=rf"--log {kind}: .* not installed .* install {kind}`"):
        tracking.check_tracker(kind)


# ---- TensorBoard


@pytest.fixture
def numbered_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event files of one second are read in the order of their numbers, which must be as long as
    each other. Those of two processes, as when a run goes on, differ in their second."""
    writers = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    monkeypatch.setattr(writers, "_global_uid", writers.AtomicCounter(100))


def tensorboard_curves(folder: Path) -> Curves:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        name: [(point.step, pytest.approx(point.value)) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def tensorboard_settings(folder: Path) -> dict[str, Any]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.metadata import (
        SESSION_START_INFO_TAG,
        parse_session_start_info_plugin_data,
    )

    events = EventAccumulator(str(folder)).Reload()
    content = events.SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
    hparams = parse_session_start_info_plugin_data(content).hparams
    return {
        name: value.string_value or value.number_value or value.bool_value
        for name, value in hparams.items()
    }


@pytest.mark.parametrize(
    ("earlier", "again"),
    [
        ((), (1, 2)),  # killed before its first checkpoint
        ((1, 2), (3, 4)),  # killed between two checkpoints
        ((1, 2, 3, 4), (5,)),
    ],
)
def test_tensorboard_shows_each_epoch_once_where_a_fold_goes_on(
    earlier: tuple[int, ...], again: tuple[int, ...], tmp_path: Path, numbered_files: None
) -> None:
    track("tensorboard", tmp_path, (), (1, 2, 3, 4))
    track("tensorboard", tmp_path, earlier, again)
    assert tensorboard_curves(tmp_path) == curves_of((*earlier, *again))


def test_tensorboard_shows_epochs_of_before_it_was_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    track("tensorboard", tmp_path, (1, 2), (3, 4))
    assert tensorboard_curves(tmp_path) == curves_of((1, 2, 3, 4))


def test_tensorboard_has_the_settings_beside_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    track("tensorboard", tmp_path, (), (1,))
    assert tensorboard_settings(tmp_path) == {"lr": 1e-3, "variant": "sgar", "learn_tau": 1}


# ---- Weights & Biases

STAND_IN = '''"""Stands in for wandb: writes what a process gives it into a file beside its runs."""
import json, os
from pathlib import Path
from types import SimpleNamespace

class Error(Exception): pass
class UsageError(Error): pass
errors = SimpleNamespace(Error=Error, UsageError=UsageError)
answer = None

def setup():
    mode = os.environ.get("WANDB_MODE")
    return SimpleNamespace(settings=SimpleNamespace(mode=mode, base_url="https://wandb"))

Settings = dict

def init(dir, config, settings, **given):
    if given.get("mode") is None and answer is not None:
        raise answer
    return Run(Path(dir) / "wandb", {"config": config, **given})

class Run:
    url = "https://wandb/run"
    def __init__(self, folder, given):
        folder.mkdir(exist_ok=True)
        self.file = folder / f"{len(list(folder.glob('*.run.json')))}.run.json"
        self.content = {"given": given, "points": []}
    def log(self, values, step, commit):
        assert commit and "epoch" not in values
        self.content["points"].append([step, values])
    def __enter__(self):
        return self
    def __exit__(self, *error):
        self.file.write_text(json.dumps(self.content))
'''


@pytest.fixture
def wandb(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """The stand-in as `import wandb` finds it; the network answers, nobody chose a mode."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "wandb.py").write_text(STAND_IN)
    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(network, "responds", lambda _: True)
    former = sys.modules.pop("wandb", None)
    yield importlib.import_module("wandb")
    del sys.modules["wandb"]
    if former:
        sys.modules["wandb"] = former


def wandb_runs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((folder / "wandb").glob("*.run.json"))]


def wandb_curves(folder: Path) -> Curves:
    curves: Curves = {}
    for run in wandb_runs(folder):
        for step, values in run["points"]:
            for name, value in values.items():
                curves.setdefault(name, []).append((step, value))
    return curves


@pytest.mark.usefixtures("wandb")
@pytest.mark.parametrize(
    ("earlier", "again"), [((), (1, 2, 3, 4, 5)), ((1, 2), (3, 4, 5)), ((1, 2, 3, 4), (5,))]
)
def test_wandb_gets_each_epoch_once_where_a_fold_goes_on(
    earlier: tuple[int, ...], again: tuple[int, ...], tmp_path: Path
) -> None:
    track("wandb", tmp_path, (), (1, 2, 3, 4))
    track("wandb", tmp_path, earlier, again)
    assert wandb_curves(tmp_path) == curves_of((1, 2, 3, 4, 5))
    assert {run["given"]["id"] for run in wandb_runs(tmp_path)} == {"key0"}


@pytest.mark.usefixtures("wandb")
def test_wandb_gets_epochs_of_before_it_was_asked_for(tmp_path: Path) -> None:
    track("wandb", tmp_path, (1, 2), (3, 4))
    assert wandb_curves(tmp_path) == curves_of((1, 2, 3, 4))


@pytest.mark.usefixtures("wandb")
def test_a_fold_is_a_run_of_wandb_in_the_group_of_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    track("wandb", tmp_path, (), (1,))
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    track("wandb", tmp_path, (1,), (2,))
    first, second = (run["given"] for run in wandb_runs(tmp_path))
    assert (first["name"], first["group"], first["config"]) == ("run/fold0", "run", SETTINGS)
    assert (first["project"], second["project"]) == ("motret", "mine")
    assert first["resume"] == "allow" and "mode" not in first


def test_wandb_stays_offline_where_nobody_is_logged_in(
    wandb: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    wandb.answer = wandb.UsageError("no API key\nsee the page")
    track("wandb", tmp_path, (), (1, 2))
    (run,) = wandb_runs(tmp_path)
    assert run["given"]["mode"] == "offline" and wandb_curves(tmp_path) == curves_of((1, 2))
    assert [message.split(":")[0] for message in caplog.messages] == [
        "--log wandb",
        f"curves stay in {tmp_path / 'wandb'}",
    ]


@pytest.mark.usefixtures("wandb")
def test_wandb_stays_offline_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "responds", lambda _: False)
    track("wandb", tmp_path, (), (1,))
    assert wandb_runs(tmp_path)[0]["given"]["mode"] == "offline"


@pytest.mark.usefixtures("wandb")
@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_a_mode_that_is_set_asks_nothing_of_the_network(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setattr(network, "responds", lambda _: pytest.fail("asked the network"))
    track("wandb", tmp_path, (), (1,))
    assert wandb_runs(tmp_path)[0]["given"]["mode"] == mode


def test_a_refused_login_is_one_line(wandb: Any, tmp_path: Path) -> None:
    wandb.answer = wandb.Error("returned error 401\nrun: 7")
    with pytest.raises(ConfigError, match=r"--log wandb: returned error 401 \(.*WANDB_MODE"):
        track("wandb", tmp_path, (), (1,))


@pytest.mark.usefixtures("wandb")
def test_a_login_finds_no_terminal_to_ask_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    terminal, terminals = Terminal(), []
    monkeypatch.setattr(sys, "stdin", terminal)
    module = sys.modules["wandb"]
    init = module.init
    monkeypatch.setattr(
        module, "init", lambda **given: terminals.append(sys.stdin.isatty()) or init(**given)
    )
    track("wandb", tmp_path, (), (1,))
    assert terminals == [False] and sys.stdin is terminal
