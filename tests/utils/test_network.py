"""Whether the model hub can be reached."""

import os
import ssl
from urllib.error import HTTPError, URLError

import pytest

from motret.utils import network


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "")


def answers(monkeypatch: pytest.MonkeyPatch, error: Exception) -> bool:
    def urlopen(*args, **kwargs):
        raise error

    monkeypatch.setattr(network, "urlopen", urlopen)
    return network.hub_reachable()


@pytest.mark.parametrize("error", [HTTPError("https://hub", 403, "no", None, None), URLError(ssl.SSLError("certificate"))])
def test_an_answer_of_any_kind_is_a_network(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    assert answers(monkeypatch, error) and not os.environ["HF_HUB_OFFLINE"]


@pytest.mark.parametrize("error", [URLError(OSError("refused")), TimeoutError()])
def test_without_an_answer_the_hub_client_is_told_to_use_its_cache(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    assert not answers(monkeypatch, error) and os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_who_asks_for_no_network_gets_none(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    monkeypatch.setattr(network, "urlopen", lambda *args, **kwargs: pytest.fail("asked the network"))
    assert not network.hub_reachable()
