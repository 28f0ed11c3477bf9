"""Whether the model hub can be reached, and its client told to use its cache alone where it cannot."""

import os
import ssl
import sys
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

PROBE_SECONDS = 3


def hub_reachable() -> bool:
    """Whether anything answers at the model hub, through the proxy where one is set; asked once a process."""
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    if _responds(os.environ.get("HF_ENDPOINT", "https://huggingface.co")):
        return True
    go_offline()
    return False


def go_offline() -> None:
    """Tells the hub client to use its cache alone, instead of retrying for minutes."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if "huggingface_hub" in sys.modules:  # it reads the variable once, at import
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = True


def _responds(address: str) -> bool:
    try:
        urlopen(Request(address, method="HEAD"), timeout=PROBE_SECONDS).close()
    except HTTPError:
        return True  # an answer too
    except URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # the hub client has certificates of its own
    except OSError:
        return False
    return True
