"""What of elute is usable on this machine, and what to type for the rest."""

from __future__ import annotations

import json
import os
import re
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from elute.base import device, env, run
from elute.base.run import Artifact

KEYS = {
    "HF_TOKEN": "models and dictionaries that need an account at Hugging Face",
    "WANDB_API_KEY": "training curves at Weights & Biases",
    "DISGENET_API_KEY": "DisGeNET's gene–disease associations",
    "OMIM_API_KEY": "OMIM's gene–phenotype relations",
    "NCBI_API_KEY": "a higher rate at NCBI",
    "ELUTE_LLM_URL": "a language model's words on features: its address",
    "ELUTE_LLM_MODEL": "a language model's words on features: its name",
    "ELUTE_LLM_KEY": "a language model's words on features: its key, if it takes one",
}
WHAT_FOR = {
    "arrays": "Zarr files",
    "cells": "the demonstration's cells, and parts of .h5ad files written",
    "geneformer": "Geneformer, and any encoder of transformers",
    "tissue": "image encoders and tiles",
    "timm": "image encoders of timm",
    "slides": "whole-slide images",
    "routing": "routing policies (nothing beyond elute itself)",
    "particles": "particle embeddings",
    "app": "the interactive application",
    "cluster": "several machines with Ray",
    "tensorboard": "training curves in TensorBoard",
    "wandb": "training curves at Weights & Biases",
    "dev": "elute's own tests",
}


def examine() -> Artifact:
    """Look at the extras, the device and the keys; a key's value is never read out."""
    chosen = device.choose()
    kept = env.read_env(Path(env.NAME))
    keys = {
        name: {
            "usable": bool(os.environ.get(name) or name in kept),
            "for": purpose,
            "type": f"export {name}=…  (or a line in .env)",
        }
        for name, purpose in KEYS.items()
    }
    extras = {}
    for name, packages in _extras().items():
        missing = [package for package in packages if not _installed(package)]
        extras[name] = {
            "usable": not missing,
            "for": WHAT_FOR.get(name, ""),
            "type": f"{how_to_install(name)}  (missing: {', '.join(missing)})" if missing else "",
        }
    summary: dict[str, Any] = {
        "versions": run.versions(),
        "device": chosen.why,
        "extras": extras,
        "keys": keys,
    }
    return Artifact("doctor", Path(), summary)


def how_to_install(extra: str) -> str:
    """What to type for an extra: from the folder that elute was installed from, if it was one, else from the index."""
    try:
        origin = json.loads(distribution("elute").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        origin = {}
    folder = unquote(urlsplit(origin.get("url", "")).path) if "dir_info" in origin else ""
    if not folder:
        return f'pip install "elute[{extra}]"'
    where = "." if Path(folder).resolve() == Path.cwd() else folder
    return f'pip install -e "{where}[{extra}]"'


def _extras() -> dict[str, list[str]]:
    """Packages that each extra asks for, as the installed package declares them."""
    found: dict[str, list[str]] = {}
    for line in _declared():
        match = re.match(r"([\w.-]+)[^;]*;.*\bextra\s*==\s*[\"']([\w-]+)[\"']", line)
        if match and match[2] != "all":
            found.setdefault(match[2], []).append(match[1])
    return {name: found.get(name, []) for name in WHAT_FOR}


def _declared() -> list[str]:
    """What the installed package asks for; nothing where elute is run from its source alone."""
    try:
        return requires("elute") or []
    except PackageNotFoundError:
        return []


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
