"""The process that does long work for the Lab: one line of JSON in, lines of JSON out.

in    {"what": "enrich", "given": {…}}
out   {"done": 3, "of": 17, "words": "Reactome"}    how far it is
      {"answer": {…}} or {"error": "one line"}      once, at the end

When what started it is gone its input ends, and so does it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elute.base.run import Artifact

Tell = Callable[[int, int, str], None]


def main() -> int:
    """Do what is asked on standard input."""
    from elute.base import console
    from elute.base.errors import EluteError

    # Standard output is for answers: whatever a library prints goes to the terminal.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    console.set_level(-1)
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with, args=(sys.stdin,), daemon=True).start()

    def say(told: dict[str, Any]) -> None:
        out.write(json.dumps(told, default=str) + "\n")
        out.flush()

    try:
        answer = WORK[asked["what"]](
            asked["given"], lambda done, of, words: say({"done": done, "of": of, "words": words})
        )
    except EluteError as error:
        say({"error": error.line()})
        return 1
    say({"answer": answer})
    return 0


def _leave_with(lines: IO[str]) -> None:
    """End when nobody waits for an answer any more."""
    while lines.readline():
        pass
    os._exit(1)


def _enrich(given: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Hold genes against one database after the other, as `elute genes enrich` holds them against all."""
    from elute.validation import library
    from elute.validation.enrich import enrich
    from elute.validation.settings import DatabaseConfig
    from elute.validation.suite import chosen

    config = DatabaseConfig(**given["settings"])
    sources = chosen(config)
    told: dict[str, Any] = {}
    for i, source in enumerate(sources):
        tell(i, len(sources), source.title)
        one = enrich(given["genes"], config.model_copy(update={"sources": source.name}), limit=given["limit"]).summary
        told = {**one, "databases": {**told.get("databases", {}), **one["databases"]}}
    ran = [name for name, record in told["databases"].items() if record["status"] == "run"]
    return {**told, "kin": library.kin(ran)}


def _compare(given: dict[str, Any], tell: Tell) -> dict[str, Any]:
    from pathlib import Path

    from elute.app.comparing import match

    return match(Path(given["mine"]), Path(given["theirs"]), tell)


def _steer(given: dict[str, Any], tell: Tell) -> dict[str, Any]:
    from elute.cells import steering

    made = steering.steer(
        given["results"],
        feature=given["feature"],
        site=given["site"],
        told=lambda done, of: tell(done, of, "reading cells"),
        **given["asked"],
    )
    return _shown(steering.show, made)


def _perturb(given: dict[str, Any], tell: Tell) -> dict[str, Any]:
    from elute.cells import perturbing

    made = perturbing.perturb(
        given["results"],
        gene=given["gene"],
        site=given["site"],
        told=lambda done, of: tell(done, of, "reading cells"),
        **given["asked"],
    )
    return _shown(perturbing.show, made)


def _relevance(given: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Explain a gene as `elute tissue crp-relmax` does, with the settings of the run."""
    from dataclasses import replace
    from pathlib import Path

    from elute.base import console
    from elute.base.recipe import build
    from elute.tissue.pipeline import run_stage
    from elute.tissue.reopening import recorded_plan
    from elute.tissue.settings import CrpConfig
    from elute.tissue.telling import lines

    plan = recorded_plan(Path(given["results"]))
    # The encoder is not opened: a record may name any function of any module as one.
    asked = {**plan.crp.model_dump(), "gene": (given["gene"],), "codes": given["codes"], "through_encoder": False}
    plan = replace(plan, crp=build(CrpConfig, asked, where="codes"))
    tell(0, 1, "opening the run")
    with console.heard(lambda title, done, total: tell(done, total or 0, title)):
        made = run_stage(plan, "crp_relmax")
    told = lines("crp_relmax", {"path": str(made.path), **made.summary})
    return {"text": "\n".join(told), "codes": made.summary["explained"][given["gene"]]["codes"]}


def _shown(show: Callable[[dict[str, Any]], str], made: Artifact) -> dict[str, Any]:
    """What the command line prints, and where the table lies."""
    return {"text": show({"kind": made.kind, "path": str(made.path), **made.summary}), "path": str(made.path)}


WORK: dict[str, Callable[[dict[str, Any], Tell], dict[str, Any]]] = {
    "enrich": _enrich,
    "compare": _compare,
    "steer": _steer,
    "perturb": _perturb,
    "relevance": _relevance,
}

if __name__ == "__main__":
    sys.exit(main())
