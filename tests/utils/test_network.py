"""Whether the model hub can be reached."""

import os
import ssl
from email.message import Message
from urllib.error import HTTPError, URLError

import pytest

from motret.utils import network


@pytest.fixture(autouse=True)
def no_offline_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "")


def reachable_when_it_raises(monkeypatch: pytest.MonkeyPatch, error: Exception) -> bool:
    """Whether the hub counts as reachable when the request ends with this error."""

    def urlopen(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(network, "urlopen", urlopen)
    return network.hub_reachable()


@pytest.mark.parametrize(
    "error",
    [HTTPError("https://hub", 403, "no", Message(), None), URLError(ssl.SSLError("certificate"))],
)
def test_an_answer_of_any_kind_is_a_network(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    assert reachable_when_it_raises(monkeypatch, error) and not os.environ["HF_HUB_OFFLINE"]


@pytest.mark.parametrize("error", [URLError(OSError("refused")), TimeoutError()])
def test_without_an_answer_the_hub_client_uses_its_cache_alone(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    assert not reachable_when_it_raises(monkeypatch, error)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_offline_mode_asks_nothing_of_the_network(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    monkeypatch.setattr(network, "urlopen", lambda *_: pytest.fail("asked the network"))
    assert not network.hub_reachable()
