"""Start the Lab: Streamlit's own server on one address, with nothing of it turned towards the outside.

Whatever a person's own Streamlit settings say, here no statistics are sent, no file is served but Streamlit's own, and
on this machine's own address only pages that came from there are answered.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import importlib.util
import ipaddress
import socket
import threading
import time
from pathlib import Path
from typing import Any

from elute.base import console
from elute.base.errors import BusyError, ConfigError, MissingError
from elute.base.run import Artifact

PORT = 8501
_TRIED = 100  # ports that are tried when none was asked for
_READY = 60.0  # seconds in which a server has to answer
_TAKEN = (errno.EADDRINUSE,)
_SCRIPT = Path(__file__).parent / "script" / "lab.py"


def serve(results: Path, *, host: str, port: int | None) -> Artifact:
    """Show a run's folder in a browser until the program is stopped."""
    if importlib.util.find_spec("streamlit") is None:
        from elute.base.doctor import how_to_install

        raise MissingError("the Lab needs Streamlit, which is not installed", remedy=f"Type: {how_to_install('app')}")
    chosen = free_port(host, port)
    from elute.app import session

    lab = session.begin(Path(results))
    address = f"http://{f'[{host}]' if ':' in host else host}:{chosen}"
    if not is_local(host):
        console.warn(f"whoever reaches {host} can read this run and start work on this machine: there is no password")
    threading.Thread(target=_announce, args=(address, host, chosen), daemon=True).start()
    _run(host, chosen)
    return Artifact("lab", lab.folder, {"address": address})


def is_local(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def free_port(host: str, port: int | None) -> int:
    """Return the port that was asked for if it is free, else the first free one from 8501 on."""
    for number in [port] if port is not None else range(PORT, PORT + _TRIED):
        try:
            family, kind, _, _, place = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(place)
        except socket.gaierror:
            raise ConfigError(f"there is no address {host!r}", where="--host", remedy="Give 127.0.0.1.") from None
        except PermissionError:
            raise ConfigError(
                f"port {number} needs more rights", where="--port", remedy="Choose 1024 or more."
            ) from None
        except OSError as error:
            if getattr(error, "errno", None) not in _TAKEN:
                raise ConfigError(f"cannot be used: {error.strerror}", where=f"--host {host}") from None
        else:
            return int(number)
    if port is not None:
        raise BusyError(f"port {port} is taken", where="--port", remedy="Leave it out, and the next free one is taken.")
    raise BusyError(f"no port from {PORT} to {PORT + _TRIED - 1} is free", remedy="Name one with --port.")


def settings(host: str, port: int) -> dict[str, Any]:
    """Streamlit's settings, which win over a person's own."""
    return {
        "browser_gatherUsageStats": False,
        "browser_serverAddress": host,
        "client_allowedOrigins": [],
        "client_showErrorDetails": "none",
        "client_showErrorLinks": False,
        "client_toolbarMode": "minimal",
        "global_developmentMode": False,
        "logger_hideWelcomeMessage": True,
        "logger_level": "error",
        "runner_magicEnabled": False,
        "server_address": host,
        "server_allowedHosts": ["localhost", "127.0.0.1", "::1", host] if is_local(host) else ["*"],
        "server_baseUrlPath": "",
        "server_customComponentBaseUrlPath": "",
        "server_enableAgentApi": False,
        "server_enableCORS": True,
        "server_enableStaticServing": False,
        "server_enableXsrfProtection": True,
        "server_fileWatcherType": "none",
        "server_headless": True,
        "server_maxUploadSize": 1,
        "server_port": port,
        "server_runOnSave": False,
        "server_showEmailPrompt": False,
        "server_sslCertFile": "",
        "server_sslKeyFile": "",
        "logger_enableRich": False,
        "theme_primaryColor": "#0b63c4",
    }


def _run(host: str, port: int) -> None:
    """Be the server until it is told to stop."""
    from streamlit import net_util
    from streamlit.web import bootstrap

    from elute.app import jobs

    # To judge where a page came from Streamlit would ask a service for this machine's address: it is told here.
    net_util._external_ip = net_util._internal_ip = host
    told = settings(host, port)
    bootstrap.load_config_options(told)
    try:
        bootstrap.run(str(_SCRIPT), False, [], told)
    finally:
        jobs.stop_all()


def _announce(address: str, host: str, port: int) -> None:
    """Say where the Lab is, once it answers."""
    reach = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # asked of it, not bound
    end = time.monotonic() + _READY
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(reach, port, timeout=2)
            connection.request("GET", "/_stcore/health")
            if connection.getresponse().status == http.client.OK:
                console.say(f"The Lab is at {address} (Ctrl-C ends it)", level=-1)
                return
        time.sleep(0.1)
