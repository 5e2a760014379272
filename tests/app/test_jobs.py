"""Work in a process of its own: what it says, and that it ends when it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from elute.app import jobs
from elute.base.errors import BusyError

SETTINGS = {"sources": "markers"}


@pytest.fixture(autouse=True)
def _none_left() -> Iterator[None]:
    yield
    jobs.stop_all()


def gone(job: jobs.Job, seconds: float = 20) -> bool:
    return job.wait(seconds) and job._process.poll() is not None


def asked(**more: object) -> dict[str, object]:
    return {"genes": ["CD3D", "CD3E", "TRAC"], "limit": 3, "settings": SETTINGS, **more}


def test_an_answer_is_that_of_the_function() -> None:
    from elute.validation.enrich import enrich
    from elute.validation.settings import DatabaseConfig

    job = jobs.Job("enrich", asked())
    assert job.wait(240)
    assert job.error == ""
    assert job.answer is not None
    direct = enrich(["CD3D", "CD3E", "TRAC"], DatabaseConfig(sources="markers"), limit=3).summary
    assert job.answer == json.loads(json.dumps(direct, default=str))
    assert job.words == "elute's own markers (0 of 1)"


def test_an_error_is_one_line() -> None:
    job = jobs.Job("enrich", asked(genes=["CD3D"]))
    assert job.wait(240)
    assert job.error == "1 genes are no list. Name 2 or more: elute genes enrich MYH7 TNNT2 TTN"
    assert job.answer is None


def test_a_fault_of_ours_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    job = jobs.Job("nothing that there is", {})
    assert job.wait(240)
    assert "ended without an answer (exit code 1)" in job.error
    assert "KeyError" in capfd.readouterr().err


def test_cancel_ends_it_at_once_and_there_are_not_too_many() -> None:
    every = [jobs.Job("enrich", asked()) for _ in range(jobs.MOST)]
    with pytest.raises(BusyError, match="4 pieces of work are under way"):
        jobs.Job("enrich", asked())
    began = time.monotonic()
    for job in every:
        job.cancel()
    assert all(gone(job) for job in every)
    assert time.monotonic() - began < 30
    assert all(job.answer is None and job.error == "" for job in every)


def test_it_ends_when_nobody_waits_any_more() -> None:
    job = jobs.Job("enrich", asked())
    process = job._process
    del job  # as when the page is left for good
    assert process.wait(20) != 0


def test_it_ends_when_the_server_dies() -> None:
    """A worker whose standard input ends, as it does when the process at its other end is killed."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "elute.app.work"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"what": "enrich", "given": asked()}).encode() + b"\n")
    process.stdin.flush()
    process.stdin.close()
    try:
        assert process.wait(120) == 1
        assert b"answer" not in process.stdout.read()
    finally:
        process.kill()
        process.stdout.close()
