"""What goes wrong between here and a service, each in words: what it is, and whether it is worth to ask again."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from elute.validation.online.keys import scrub

Again = Literal["yes", "once", "no"]
SIGN_IN = "Does a proxy want you to sign in? Open any page in a browser."
_NETWORK = "Check the network, and the proxy if one is set."


class Failed(Exception):  # noqa: N818  # internal: what a person sees is made of it
    """One attempt that did not succeed, told without any key."""

    def __init__(self, what: str, *, again: Again = "no", remedy: str = "", wait: float | None = None) -> None:
        self.what, self.remedy = " ".join(scrub(what).split()), remedy
        self.again = again
        """Whether it may pass; `once` if it hardly will."""
        self.wait = wait
        """Seconds that the service asks to wait."""
        super().__init__(self.what)


@contextmanager
def failures(host: str) -> Iterator[None]:
    """Turn what the library for requests raises into a `Failed`; its own errors quote addresses and headers."""
    import httpx

    try:
        yield
    except httpx.TimeoutException as error:
        reached = not isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout)
        failed = Failed("did not answer in time" if reached else f"{host} cannot be reached in time", again="yes")
    except httpx.ProxyError as error:
        remedy = "Look at HTTPS_PROXY, or set NO_PROXY for this host."
        failed = Failed(f"the proxy does not lead there ({_short(error)})", remedy=remedy)
    except httpx.ConnectError as error:
        failed = _unconnected(error, host)
    except httpx.RemoteProtocolError as error:
        cut = "incomplete" in str(error) or "without sending complete" in str(error)
        failed = Failed("cut its answer short" if cut else "broke the connection off", again="yes")
    except httpx.NetworkError:
        failed = Failed("broke the connection off", again="yes")
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        failed = Failed(f"cannot be asked ({type(error).__name__})")
    else:
        return
    raise failed


def _unconnected(error: Exception, host: str) -> Failed:
    cause = _cause(error, ssl.SSLError, socket.gaierror)
    if isinstance(cause, ssl.SSLCertVerificationError):
        remedy = "If a proxy of your institute stands between, set SSL_CERT_FILE to its certificate."
        return Failed(f"the certificate of {host} is not to be trusted ({cause.verify_message})", remedy=remedy)
    if isinstance(cause, ssl.SSLError):
        return Failed(f"no encrypted connection to {host} ({cause.reason})", again="once", remedy=_NETWORK)
    if isinstance(cause, socket.gaierror):
        return Failed(f"the name {host} is not found (no network?)", again="once", remedy=_NETWORK)
    return Failed(f"{host} cannot be reached ({_short(error)})", again="yes", remedy=_NETWORK)


def _cause(error: BaseException | None, *kinds: type[BaseException]) -> BaseException | None:
    """Return the first error of a kind among those that led to this one."""
    for _ in range(10):
        if error is None or isinstance(error, kinds):
            return error
        error = error.__cause__ or error.__context__
    return None


def _short(error: Exception) -> str:
    return scrub(str(error))[:120] or type(error).__name__
