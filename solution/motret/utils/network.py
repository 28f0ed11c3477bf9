"""Whether a server can be reached; where the model hub cannot, its client uses its cache alone."""

import os
import ssl
import sys
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

PROBE_SECONDS = 3


def hub_reachable() -> bool:
    """Whether anything answers at the model hub, through the proxy where one is set.

    Where nothing answers, the hub client goes offline for the rest of the process, and so no later
    call probes the network again.
    """
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    if responds(os.environ.get("HF_ENDPOINT", "https://huggingface.co")):
        return True
    go_offline()
    return False


def go_offline() -> None:
    """Makes the hub client use its cache alone, instead of retrying for minutes."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if "huggingface_hub" in sys.modules:  # it reads the variable once, at import
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = True


def responds(address: str) -> bool:
    """Whether anything answers at an address within `PROBE_SECONDS`."""
    try:
        urlopen(Request(address, method="HEAD"), timeout=PROBE_SECONDS).close()
    except HTTPError:
        return True  # an error status is an answer too
    except URLError as error:
        # a server answered with a certificate unknown to Python; the hub client brings its own list
        return isinstance(error.reason, ssl.SSLError)
    except OSError:
        return False
    return True
