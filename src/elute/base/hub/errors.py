"""What a hub or the way to it can answer, each as one line; the token is in none of them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from elute.base import console
from elute.base.errors import BusyError, ConfigError, DamagedError, DataError, EluteError, MissingError

_WRITE = "Set HF_TOKEN to a token that may write there, or push to a name of your own."
_AGAIN = "Run the same command again: what was transferred is kept."


@contextmanager
def one_line(where: str, endpoint: str, token: str | None) -> Iterator[None]:
    """Turn what a library call raises into one line, its warnings too, and keep its log quiet."""
    from huggingface_hub.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(40)  # errors
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            yield
    except EluteError:
        raise
    except Exception as error:
        if (line := explain(error, where, endpoint=endpoint, token=token)) is None:
            raise
        # The library's own error, in a chain below this one, may quote a request's headers.
        raise line from None
    finally:
        logging.set_verbosity(level)
    for warning in told:
        if issubclass(warning.category, UserWarning):  # others are for those who write the library
            console.warn(f"{where}: {_clean(str(warning.message), token)}")


def explain(error: Exception, where: str, *, endpoint: str, token: str | None) -> EluteError | None:
    """The line for an error of the library; nothing for one that is no answer of a hub or network."""
    from huggingface_hub import errors

    while isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # "not in the cache, and": what follows is what happened
    host = public(endpoint)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return MissingError("the network is switched off", where=where, remedy="Unset HF_HUB_OFFLINE.")
    if isinstance(error, errors.HFValidationError):
        return ConfigError(f"is no name on the hub: {_clean(str(error), token)}", where=where)
    if isinstance(error, errors.HfHubHTTPError):
        return _answer(error, where, host=host, token=token)
    if isinstance(error, errors.HfHubHTTPError.__bases__[0] | ConnectionError | TimeoutError):
        what = f"{host} cannot be reached ({type(error).__name__}: {_clean(str(error), token)})"
        return EluteError(what, where=where, remedy=f"Check the network and HF_ENDPOINT. {_AGAIN}")
    if isinstance(error, OSError) and error.errno is None:
        return DamagedError(f"did not arrive whole: {_clean(str(error), token)}", where=where, remedy=_AGAIN)
    if isinstance(error, RuntimeError) or type(error).__module__.partition(".")[0] in ("huggingface_hub", "hf_xet"):
        what = f"the transfer failed ({type(error).__name__}: {_clean(str(error), token)})"
        return EluteError(what, where=where, remedy=_AGAIN)
    if isinstance(error, ValueError | KeyError | TypeError):
        what = f"the answer of {host} is not understood ({type(error).__name__}: {_clean(str(error), token)})"
        return DataError(what, where=where, remedy="Check that HF_ENDPOINT is a hub of models.")
    return None


def _answer(error: Exception, where: str, *, host: str, token: str | None) -> EluteError:
    """The line for a status that a hub gave."""
    from huggingface_hub import errors

    response = getattr(error, "response", None)
    status = int(getattr(response, "status_code", 0))
    said = _clean(str(getattr(error, "server_message", None) or ""), token)
    said = f" ({said})" if said else ""
    if isinstance(error, errors.GatedRepoError):
        remedy = f"Accept them at {host}/{where.removeprefix('hf://').partition('@')[0]}, then set HF_TOKEN."
        return MissingError("is open only to those who accepted its conditions", where=where, remedy=remedy)
    if isinstance(error, errors.RevisionNotFoundError):
        return DataError("there is no such revision", where=where, remedy="Name a branch, a tag or a whole commit.")
    if isinstance(error, errors.EntryNotFoundError):
        return DataError("there is no such file or folder at this revision", where=where)
    if status == 401 and (token is None or not isinstance(error, errors.RepositoryNotFoundError)):
        what = f"{host} does not accept the token" if token else f"is not there, or {host} wants a token to show it"
        return MissingError(what, where=where, remedy="Check the name, and set HF_TOKEN to a valid token.")
    if status == 404 or isinstance(error, errors.RepositoryNotFoundError):
        what = f"{host} has no such model repository, or shows it to others only"
        return DataError(what, where=where, remedy="Check the name; for a private one, set HF_TOKEN.")
    if status == 403:
        return MissingError(f"{host} does not allow this{said}", where=where, remedy=_WRITE)
    if status in (409, 412):
        return BusyError(f"was changed by somebody else meanwhile{said}", where=where, remedy="Run it again.")
    if status == 429:
        return EluteError(f"{host} had too many requests", where=where, remedy=f"Wait some minutes. {_AGAIN}")
    if status >= 500:
        return EluteError(f"{host} has a fault ({status})", where=where, remedy=f"Try later. {_AGAIN}")
    return EluteError(f"{host} answered {status}{said}", where=where)


def public(endpoint: str) -> str:
    """An endpoint without the user and password that its address may hold."""
    parts = urlsplit(endpoint)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _clean(text: str, token: str | None) -> str:
    """A library's words without the token, without anybody's, and not too many."""
    if token:
        text = text.replace(token, "***")
    text = re.sub(r"\bhf_\w+|(?<=Bearer )[^\s'\"]+|(?<=://)[^/\s@]+@", "***", text)
    return " ".join(text.split())[:300]
