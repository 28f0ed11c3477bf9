"""Studies in databases: PostgreSQL where it is installed, Optuna's proxy, what is missing."""

import os
import socket
import subprocess
import sys
import time
from importlib.util import find_spec

import numpy as np
import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy import create_engine, text

import helpers
import postgresql
import tune_load
from motret.config import scripts
from motret.errors import ConfigError, MachineError
from motret.tuning import storage
from motret.tuning import study as study_module
from motret.tuning import trial as trial_module
from motret.tuning.study import FAULT, RETRY_OF, SURPLUS, StudyPlan, is_surplus, open_study

PROXY = (
    "from optuna.storages import get_storage, run_grpc_proxy_server as run; "
    "run(get_storage('{url}'), host='localhost', port={port})"
)
"""As docs/usage.md has it."""


def make_plan(tmp_path, url=None, trials=30):
    space = {"lr": optuna.distributions.FloatDistribution(0.5, 3)}
    config = scripts.TuneConfig(storage=url, out_dir=tmp_path, trials=trials)
    return StudyPlan(helpers.config(), config, space, {"lr": 1.0}, None, {}, (0,))


@pytest.fixture(scope="module")
def server():
    """URL of a PostgreSQL server of this file's own."""
    if reason := postgresql.missing():
        pytest.skip(reason)
    with postgresql.running_server() as url:
        yield url


def connections(url):
    """Connections that others have open to a PostgreSQL server."""
    engine = create_engine(url)
    query = "select count(*) from pg_stat_activity where backend_type = 'client backend'"
    with engine.connect() as connection:
        count = connection.execute(text(query)).scalar()
    engine.dispose()
    return count - 1


# ---- PostgreSQL


def test_postgresql_keeps_a_study_and_no_connection_while_a_trial_trains(server, tmp_path):
    plan = make_plan(tmp_path, server)
    study = open_study(plan)
    trial = study.ask(plan.space)
    trial.set_user_attr("scores", "trials/0-0123456789abcdef.npz")
    assert connections(server) == 0
    study.tell(trial, 0.5)
    again = open_study(plan).get_trials()
    assert [(one.value, one.params) for one in again] == [(0.5, {"lr": 1.0})]


def test_postgresql_knows_a_dead_worker_by_its_heartbeat(server, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(storage, "GRACE_SECONDS", 1)
    plan = make_plan(tmp_path / "other", server, trials=31)
    plan = StudyPlan(**{**vars(plan), "identity": {"data": "another study"}})
    study = open_study(plan)
    dead = study.ask(plan.space)
    study._storage.record_heartbeat(dead._trial_id)
    deadline = time.monotonic() + 60
    while study.trials[0].state == TrialState.RUNNING and time.monotonic() < deadline:
        study_module.requeue_stale_trials(plan, study)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    assert study.ask(plan.space).params == dead.params


def test_workers_on_postgresql_some_killed_lose_and_double_no_trial(server, tmp_path):
    load = tune_load.Load(workers=4, trials=16, kills=2)
    result = tune_load.run_load(load, server, tmp_path)
    assert result.faults == [] and result.kills == 2
    assert result.trials_by_worker.total() == 16


# ---- Optuna's proxy


@pytest.fixture
def proxy(tmp_path):
    """URL of Optuna's proxy, in a process of its own, and that of the database behind it."""
    if find_spec("grpc") is None:
        pytest.skip("grpcio is not installed (pip install grpcio)")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    url = f"sqlite:///{tmp_path}/study.db"
    command = [sys.executable, "-c", PROXY.format(url=url, port=port)]
    with subprocess.Popen(command, env=os.environ | {"PYTHONWARNINGS": "ignore"}) as process:
        try:
            yield f"grpc://localhost:{port}", url
        finally:
            process.kill()


def test_a_study_behind_a_proxy_is_that_of_its_database(proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "PROXY_SECONDS", 120)
    behind, url = proxy
    result = tune_load.run_load(tune_load.Load(workers=2, trials=6, kills=0), behind, tmp_path)
    assert result.faults == []
    plan = tune_load.make_plan(tune_load.Load(2, 6, 0), url, tmp_path)
    assert tune_load.find_faults(plan, open_study(plan)) == []


def test_a_proxy_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    if find_spec("grpc") is None:
        pytest.skip("grpcio is not installed (pip install grpcio)")
    monkeypatch.setattr(storage, "PROXY_SECONDS", 0.1)
    with pytest.raises(ConfigError, match="nothing answers at grpc://localhost:9"):
        open_study(make_plan(tmp_path, "grpc://localhost:9"))
    with pytest.raises(ConfigError, match="give grpc://host:port"):
        open_study(make_plan(tmp_path, "grpc://localhost"))


# ---- what is missing


def test_a_missing_driver_is_one_line_without_the_password(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    url = "postgresql+psycopg://me:secret@nowhere/study"
    with pytest.raises(ConfigError) as caught:
        open_study(make_plan(tmp_path, url))
    assert str(caught.value) == (
        "--storage: postgresql+psycopg://me:***@nowhere/study needs the package psycopg[binary], "
        'a driver of the database (pip install "psycopg[binary]")'
    )


def test_missing_grpc_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        open_study(make_plan(tmp_path, "grpc://localhost:13000"))
    assert str(caught.value) == (
        "--storage: grpc://localhost:13000 needs the package grpcio (pip install grpcio)"
    )


def test_a_database_that_no_longer_answers_is_one_line_and_no_fault_of_a_trial(tmp_path):
    file = tmp_path / "study.db"
    plan = tune_load.make_plan(tune_load.Load(1, 3, 0), f"sqlite:///{file}", tmp_path)
    trained = []

    def lose_database(*_args):
        trained.append(True)
        with create_engine(f"sqlite:///{file}").begin() as connection:
            connection.execute(text("drop table trial_intermediate_values"))

    with pytest.raises(MachineError, match=r"study\.db no longer answers \(OperationalError\)"):
        tune_load.work(plan, wait=lose_database)
    assert trained == [True]
    with create_engine(f"sqlite:///{file}").connect() as connection:
        faults = connection.execute(text("select value_json from trial_user_attributes")).all()
    assert not [fault for (fault,) in faults if "answers" in fault or "Error" in fault]


def test_an_error_of_a_database_does_not_show_its_password():
    shown = storage.hide_password("mysql://me:secret@host/study")
    assert shown == "mysql://me:***@host/study"
    with (
        pytest.raises(MachineError, match="no longer answers"),
        storage.named_connection_errors("mysql://me:secret@host/study"),
    ):
        raise StorageInternalError("gone")


# ---- one study for all trials of a worker


def test_a_worker_opens_its_study_once(tmp_path, monkeypatch):
    opened = []

    def open_counted(plan):
        opened.append(plan)
        return open_study(plan)

    monkeypatch.setattr(study_module, "open_study", open_counted)
    plan = tune_load.make_plan(tune_load.Load(1, 3, 0), None, tmp_path)
    plan.folder.mkdir(parents=True)
    tune_load.work(plan)
    assert len(opened) == 1 and len(open_study(plan).trials) == 3
    journal = plan.folder / "journal.log"
    journal.rename(tmp_path / "away")
    journal.write_bytes((tmp_path / "away").read_bytes())
    assert len(study_module.worker_study(plan).trials) == 3 and len(opened) == 2


# ---- confirmations


def test_workers_share_out_the_confirmations_and_wait_for_each_other(tmp_path, monkeypatch):
    plan = tune_load.make_plan(tune_load.Load(1, 3, 0), None, tmp_path)
    plan.folder.mkdir(parents=True)
    trained = []

    def train_once(plan, name, values, folds, on_epoch_end=None):
        trained.append(name)
        nested = trial_module.confirm_trial(plan, 0, plan.default, 1)  # another worker, meanwhile
        assert nested is None
        return np.full(4, 0.5)

    monkeypatch.setattr(trial_module, "train_folds", train_once)
    monkeypatch.setattr(
        trial_module, "load_shared_data", lambda base: (None, tune_load.FOLDS, None, None)
    )
    line = trial_module.confirm_trial(plan, 0, plan.default, 1)
    assert line.startswith("confirm trial 0 on fold 1: score 0.5")
    for wait in (False, True):
        assert trial_module.confirm_trial(plan, 0, plan.default, 1, wait=wait) is None
    assert trained == ["confirm0-1"]
    assert not list((plan.folder / "trials").glob("*.claim"))


# ---- trials that another worker runs again


def test_a_worker_that_was_taken_for_dead_leaves_its_trial_to_the_other(tmp_path):
    plan = tune_load.make_plan(tune_load.Load(1, 3, 0), None, tmp_path)
    plan.folder.mkdir(parents=True)
    taken = []

    def take_over(_seconds):
        if not taken:
            study = open_study(plan)
            (trial,) = [one for one in study.trials if one.state == TrialState.RUNNING]
            study.tell(trial.number, state=TrialState.FAIL)
            study_module.requeue_trial(plan, study, trial)
            taken.append(trial.number)

    tune_load.work(plan, wait=take_over)
    study = open_study(plan)
    assert taken == [0] and tune_load.find_faults(plan, study) == []
    assert [trial.user_attrs.get(RETRY_OF) for trial in study.trials] == [None, 0, None, None]


def test_seeds_are_those_of_the_first_tries_whenever_trials_are_queued_again(tmp_path):
    plan = make_plan(tmp_path)
    sampler = study_module.TrialSeededSampler(0, plan.default)

    def drawn(retries):
        """Values of trials 1 and 2, and of those that run them again."""
        study = optuna.create_study(sampler=sampler)
        begun = [study.ask() for _ in range(3)]
        for trial in begun[1:]:
            study.tell(trial, state=TrialState.FAIL)
        for number in retries:
            study.enqueue_trial({}, user_attrs={RETRY_OF: number})
        again = [study.ask(plan.space).params["lr"] for _ in retries]
        return again, study.ask(plan.space).params["lr"]

    (first, second), third = drawn((1, 2))
    assert len({first, second, third}) == 3
    assert drawn((2, 1)) == ([second, first], third) and drawn(())[1] == third


# ---- trials that are one too many


def test_of_trials_that_begin_at_the_same_time_those_beyond_the_number_do_not_count(tmp_path):
    plan = make_plan(tmp_path, trials=2)
    study = optuna.create_study()
    begun = [study.ask(plan.space) for _ in range(4)]
    assert [is_surplus(plan, study, trial.number) for trial in begun] == [0, 0, 1, 1]
    for trial in begun[2:]:
        trial.set_user_attr(FAULT, SURPLUS)
        study.tell(trial, state=TrialState.FAIL)
    assert not study_module.ended_trials(study)
    more = make_plan(tmp_path, trials=3)
    assert not is_surplus(more, study, study.ask(plan.space).number)


def test_a_trial_that_two_workers_queue_again_runs_again_once(tmp_path):
    plan = make_plan(tmp_path, trials=2)
    study = optuna.create_study()
    for _ in range(2):
        study.tell(study.ask(plan.space), state=TrialState.FAIL)
    for number in (0, 0, 1):
        study.enqueue_trial({"lr": 1.0}, user_attrs={RETRY_OF: number})
    again = [study.ask(plan.space) for _ in range(3)]
    assert [is_surplus(plan, study, trial.number) for trial in again] == [0, 1, 0]
    study_module.requeue_trial(plan, study, study.trials[0])
    assert len(study.trials) == 5
    assert np.all([trial.state != TrialState.WAITING for trial in study.trials])
