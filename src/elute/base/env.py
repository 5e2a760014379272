"""Keys in a file `.env` of the current folder, as people keep them beside their work.

    HF_TOKEN=hf_…                     NAME=value, a line each; `export ` before the name, quotes around the value
    # a comment

Only the names that elute uses are read, and only from the folder that is worked in. What the environment has already
stays. Nothing is evaluated: a value is the text that stands there. No value is ever told, in no message.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from elute.base import console

NAME = ".env"
SECRETS = ("WANDB_API_KEY", "HF_TOKEN", "DISGENET_API_KEY", "OMIM_API_KEY", "NCBI_API_KEY", "ELUTE_LLM_KEY")
KEYS = (*SECRETS, "ELUTE_LLM_URL", "ELUTE_LLM_MODEL")  # an address and a name are told, as in errors
_LARGEST = 1 << 16  # bytes: what is larger holds something else
# A name, and a value in quotes of one kind or in none; a comment follows a blank.
_LINE = re.compile(
    r"""(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?:"([^"]*)"|'([^']*)'|((?:[^\s"'#]\S*)?))\s*(?:(?<=\s)\#.*)?"""
)


def load_env(folder: Path | None = None) -> list[str]:
    """Set the keys of the folder's `.env` that the environment has not; return their names."""
    found = read_env(Path(NAME) if folder is None else Path(folder) / NAME)
    new = [name for name in found if not os.environ.get(name)]
    for name in new:
        os.environ[name] = found[name]
    if new:
        console.detail(f"{NAME}: {', '.join(new)} set")
    return new


def read_env(path: Path) -> dict[str, str]:
    """Read the keys of a file; a line that is none is told by its number alone."""
    try:
        mode = path.stat().st_mode  # before it is opened: a pipe would wait for its other end
        if not stat.S_ISREG(mode):
            console.warn(f"{path} is not read: it is no file")
            return {}
        with path.open("rb") as handle:
            content = handle.read(_LARGEST + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        console.warn(f"{path} is not read: {error.strerror}")
        return {}
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        if b"\0" in content:
            console.warn(f"{path} is not read: it is no text")
            return {}
        text = content.decode("latin-1")  # an older editor's comment
    if len(content) > _LARGEST:
        console.warn(f"{path} is not read: it is too large")
        return {}
    found, faulty = _parse(text)
    if faulty:
        console.warn(f"{path}, line {faulty[0]}: not of the form NAME=value, left out{_more(faulty)}")
    if found and mode & (stat.S_IRGRP | stat.S_IROTH):
        console.detail(f"{path} can be read by others than you: chmod 600 {path}")
    return found


def _parse(text: str) -> tuple[dict[str, str], list[int]]:
    """The keys with a value, the last one of a name counting; and the numbers of lines that are of no such file."""
    found: dict[str, str] = {}
    faulty = []
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            faulty.append(number)
            continue
        value = next((part for part in match.groups()[1:] if part is not None), "")
        if "\0" in value:
            faulty.append(number)
        elif match[1] in KEYS and value:
            found[match[1]] = value
    return found, faulty


def _more(faulty: list[int]) -> str:
    return f" (and {len(faulty) - 1} more)" if len(faulty) > 1 else ""
