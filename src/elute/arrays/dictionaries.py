"""What is done with a dictionary of any arrays: judged, taken elsewhere, brought from elsewhere."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from elute.arrays.importing import digest_input
from elute.base import console, files
from elute.base.errors import ConfigError
from elute.base.recipe import Section
from elute.base.run import Artifact, record

if TYPE_CHECKING:
    from elute.dictionaries.dictionary import Dictionary
    from elute.engine.settings import EvalConfig

EVALUATION = "evaluation.json"
CENTRE = "centre.safetensors"


class ExportConfig(Section):
    """How a dictionary is taken elsewhere."""

    to: Literal["saelens", "safetensors", "hub"]
    """SAELens' own files, one safetensors file, or a Hugging Face repository."""
    repo: str | None = None
    """Repository as owner/name, for the hub."""
    private: bool = False
    """Make a repository that does not exist yet a private one."""


class BringConfig(Section):
    """How a dictionary is brought from elsewhere."""

    site: str | None = Field(None, min_length=1)
    """Name of the site that it reads here; the name in its own files if not given."""
    writes: str | None = Field(None, min_length=1)
    """Name of the site that it writes here, for a transcoder."""


def locate(text: str) -> Path:
    """Return the folder or file of a dictionary: a path, or hf://owner/name@revision, which is fetched."""
    from elute.base.hub.address import parse
    from elute.dictionaries import hub

    address = parse(text)
    if address is None:
        return Path(text)
    return hub.pull(address).folder


def judge(dictionary: str, store: Path, config: EvalConfig) -> Artifact:
    """Judge a dictionary on a store's rows; the answer is also kept beside it."""
    from elute.dictionaries.files import load_dictionary
    from elute.engine.evaluate import evaluate
    from elute.store.reader import Store

    path = locate(dictionary)
    answer = evaluate(load_dictionary(path), Store(store), config, beside=path)
    if path.is_dir():
        files.write_json(path / EVALUATION, answer)
    return Artifact("evaluation", path, answer)


def export(dictionary: str, output: Path | None, config: ExportConfig) -> Artifact:
    """Write a dictionary in a form that others read."""
    from elute.dictionaries.files import NAME, load_dictionary, save_safetensors

    path = locate(dictionary)
    loaded = load_dictionary(path)
    run = path if path.is_dir() else path.parent
    if config.to == "hub":
        return _push(loaded, run, path, config)
    if config.to == "safetensors":
        target = output or run / "sae_final.safetensors"
        if loaded.spec.source.get("centre") and target.parent.resolve() != run.resolve():
            console.warn(f"{target.parent}: copy {CENTRE} there too: its rows were centred, and are refused without")
        return Artifact("dictionary", save_safetensors(loaded, target), {"to": "safetensors", "of": NAME})
    from elute.dictionaries import saelens

    if column := loaded.spec.source.get("centre_by"):
        told = f"its rows were centred by {column}, which SAELens cannot know: subtract the means in {CENTRE} first"
        console.warn(f"{run}: {told}")
    target = output or run / "saelens"
    parts = [part.name for part in saelens.write(loaded, target)]
    return Artifact("dictionary", target, {"to": "saelens", "parts": parts})


def bring(path: str, output: Path, config: BringConfig) -> Artifact:
    """Read a dictionary of another library, or another place, and save it as one of ours."""
    from elute.dictionaries.files import NAME, digest, save_dictionary
    from elute.dictionaries.foreign import read_any, sniff

    if (output / NAME).exists():
        remedy = "Give another --output, or delete that file."
        raise ConfigError("there is a dictionary already", where=output / NAME, remedy=remedy)
    found = locate(path)
    dictionary = _renamed(read_any(found), config)
    inputs = {"source": digest_input(found)}
    files.make_folder(output)
    save_dictionary(dictionary, output / NAME)
    spec = dictionary.spec
    summary = {
        "library": sniff(found), "dictionary": digest(dictionary), "kind": spec.kind, "activation": spec.activation,
        "features": dictionary.n_features, "k": spec.k, "reads": spec.reads, "writes": spec.writes,
    }  # fmt: skip
    record(output, "import-dictionary", config, inputs=inputs, summary=summary)
    return Artifact("dictionary", output / NAME, summary)


def _renamed(dictionary: Dictionary, config: BringConfig) -> Dictionary:
    """Give the sites other names."""
    spec = dictionary.spec
    if config.site is None and config.writes is None:
        return dictionary
    if len(spec.reads) != 1 or len(spec.writes) != 1:
        raise ConfigError("sites can be renamed where one is read and one written")
    if spec.same and config.writes not in (None, config.site):
        raise ConfigError("a sparse autoencoder writes the site that it reads", remedy="Leave --writes out.")
    reads = {config.site or next(iter(spec.reads)): spec.width_in}
    writes = reads if spec.same else {config.writes or next(iter(spec.writes)): spec.width_out}
    dictionary.spec = spec.model_copy(update={"reads": reads, "writes": writes})
    return dictionary


def _push(dictionary: Dictionary, run: Path, path: Path, config: ExportConfig) -> Artifact:
    from elute.dictionaries import hub, saelens

    if config.repo is None:
        raise ConfigError("the repository is missing", remedy="Give --repo owner/name.")
    if not path.is_dir():
        raise ConfigError("a whole run is pushed", where=path, remedy="Give the run's folder.")
    with suppress(ConfigError):  # a kind that SAELens has no class for goes without
        saelens.write(dictionary, run / "saelens")
    card = run / "README.md"
    if not card.exists():
        files.write_atomically(card, lambda handle: handle.write(_card(dictionary, run).encode()))
    address = hub.push(run, config.repo, private=config.private)
    return Artifact("dictionary", run, {"to": "hub", "address": str(address)})


def _card(dictionary: Dictionary, run: Path) -> str:
    """The page that a repository shows: what it is, how good, and how to use it."""
    spec = dictionary.spec
    text = ["---", "library_name: elute", "tags: [sparse-autoencoder]", "---", f"# {dictionary!r}", ""]
    text += ["```python", "import elute", 'dictionary = elute.load_dictionary("sae_final.pt")', "```", ""]
    text += [f"- reads {json.dumps(spec.reads)}, writes {json.dumps(spec.writes)}", f"- {spec.activation}, k {spec.k}"]
    if (path := run / EVALUATION).exists():
        told: dict[str, Any] = files.read_json(path, what="an evaluation", remedy="Evaluate anew.")
        control = told.get("control", {}).get("explained_variance_pca")
        text.append(
            f"- explained variance {told['explained_variance']:.3f}; as many principal directions: {control:.3f}"
        )
        text.append(f"- dead features {told['dead_fraction']:.1%}")
    return "\n".join(text) + "\n"
