"""Where a study is kept that several hosts share: a database, or Optuna's proxy before one."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError
from sqlalchemy.pool import NullPool

from motret.errors import ConfigError, MachineError
from motret.utils import reading
from motret.utils.packages import argument_name

HEARTBEAT_SECONDS, GRACE_SECONDS = 60, 600
"""In a database each running trial records a heartbeat; without one for the grace period its worker
is dead."""
TABLE_ATTEMPTS = 5
"""Workers that open a new database at the same time all make its tables; those that come second
look again."""
PROXY_SECONDS = 20
"""A proxy that has not answered for so long is not there."""
DRIVERS = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "pymysql": "pymysql",
    "google": "protobuf",
    "grpc": "grpcio",
}
"""Module -> the package that has it."""

StaleTrialCallback = Callable[[Study, FrozenTrial], None]


def open_storage(url: str, on_stale: StaleTrialCallback) -> BaseStorage:
    """The storage at an Optuna URL, or at grpc://host:port.

    on_stale: gets each trial without a heartbeat, in a database. ConfigError where the storage
    cannot be opened.
    """
    problem, fix = f"{hide_password(url)} cannot be opened", "check the URL and the server"
    with reading.boundary("--storage", problem, fix, ConfigError):
        if urlsplit(url).scheme == "grpc":
            return _open_proxy(url)
        try:
            return _open_database(url, on_stale)
        except ImportError as error:
            raise _driver_error(url, error) from error


def hide_password(url: str) -> str:
    """A storage's URL as it may be shown: `***` for the password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:  # no URL of a database
        return url


def connection_errors() -> tuple[type[Exception], ...]:
    """What Optuna raises where a storage that was open no longer answers."""
    grpc = sys.modules.get("grpc")
    return (StorageInternalError,) if grpc is None else (StorageInternalError, grpc.RpcError)


@contextmanager
def named_connection_errors(url: str | None) -> Iterator[None]:
    """Within it, a storage that no longer answers is a MachineError that names it."""
    try:
        yield
    except connection_errors() as error:
        reason = type(error.__cause__ or error).__name__
        problem = f"{hide_password(url or 'the journal')} no longer answers ({reason})"
        fix = "once it does, the same command goes on"
        raise MachineError("--storage", problem, fix) from error


def _open_database(url: str, on_stale: StaleTrialCallback) -> BaseStorage:
    """A database with Optuna's heartbeat.

    A server gets a connection for each change: kept open through the trainings, those of a hundred
    workers would be more than it takes.
    """
    callback = argument_name(  # since Optuna 4.9
        RDBStorage, "heartbeat_stale_trial_callback", "failed_trial_callback"
    )
    options: dict[str, Any] = {callback: on_stale}
    if not url.startswith("sqlite"):
        options["engine_kwargs"] = {"poolclass": NullPool}
    times: dict[str, Any] = {"heartbeat_interval": HEARTBEAT_SECONDS, "grace_period": GRACE_SECONDS}
    for _ in range(TABLE_ATTEMPTS - 1):
        try:
            return RDBStorage(url, **times, **options)
        except (IntegrityError, ProgrammingError):  # another worker has made a table
            continue
    return RDBStorage(url, **times, **options)


def _open_proxy(url: str) -> BaseStorage:
    """Optuna's proxy, which has no heartbeat. ConfigError where it does not answer."""
    for module in ("grpc", "google"):
        if find_spec(module) is None:
            problem = f"{url} needs the package {DRIVERS[module]}"
            raise ConfigError("--storage", problem, f"pip install {DRIVERS[module]}")
    host, port = urlsplit(url).hostname, urlsplit(url).port
    if not host or not port:
        raise ConfigError("--storage", f"{url} has no host or no port", "give grpc://host:port")
    storage = GrpcStorageProxy(host=host, port=port)
    try:
        storage.wait_server_ready(timeout=PROXY_SECONDS)
    except ConnectionError as error:
        fix = "start the proxy, as docs/usage.md says, or correct the address"
        raise ConfigError("--storage", f"nothing answers at {url}", fix) from error
    return storage


def _driver_error(url: str, error: ImportError) -> ConfigError:
    """The error of a database whose driver is not installed."""
    module = getattr(error.__cause__ or error, "name", None) or "driver"
    package = DRIVERS.get(module.partition(".")[0], module)
    problem = f"{hide_password(url)} needs the package {package}, a driver of the database"
    return ConfigError("--storage", problem, f'pip install "{package}"')
