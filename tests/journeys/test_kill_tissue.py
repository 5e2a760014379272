"""A run from tiles to pages, killed in each of its stages and given again, ends as one left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.journeys.same import differing
from tests.tissue.tiles_made import write_files

from elute.base import run as records

# By stage the file, in the run's folder, that is about to appear when the run is killed, and how often it appears before.
MOMENTS = {
    "embed_export, its rows": (r"/run/embeddings/00000\.parquet$", 0),
    "embed_export, its record": (r"/run/tiles\.parquet$", 0),
    "train_sae, trained": (r"/run/sae/sae_final\.pt$", 0),
    "extract_codes": (r"/run/codes/manifest\.json$", 1),
    "train_heads, a control": (r"/run/controls/random_encoder/sae/sae_final\.pt$", 0),
    "train_heads, its tables": (r"/run/heads/baselines\.parquet$", 0),
    "crp_relmax, its maps": (r"/run/token_maps/.*\.png$", 9),
    "make_reports": (r"/run/report/codes/\d+\.html$", 2),
}
# The program as it is, but that it kills itself, with a signal that nothing can catch, when a file is put in its place.
PROGRAM = """
import os, re, signal, sys
from pathlib import Path
from elute.cli.main import main

pattern, left, put = sys.argv[1], int(sys.argv[2]), Path.replace

def replace(self, target):
    global left
    if pattern and re.search(pattern, str(target)):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return put(self, target)

Path.replace = replace
sys.exit(main(sys.argv[3:]))
"""


def run(config: Path, pattern: str = "", before: int = 0) -> tuple[int, str]:
    words = [sys.executable, "-c", PROGRAM, pattern, str(before), "tissue", "run", "--config", str(config)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=config.parent, capture_output=True, text=True, timeout=120, env=env)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_files(tmp_path_factory.mktemp("tissue"))
    settings = yaml.safe_load(path.read_text())
    settings["crp"] |= {"curve_samples": 3, "most_genes": 2}
    path.write_text(yaml.safe_dump(settings))
    return path


def test_a_kill_in_each_stage(config: Path) -> None:
    home = config.parent
    code, told = run(config)
    assert code == 0, told
    (home / "run").rename(home / "alone")  # the pages name the folder
    for moment, (pattern, before) in MOMENTS.items():
        code, told = run(config, pattern, before)
        assert code == -signal.SIGKILL, f"{moment}: {code}\n{told}"
        stage = moment.partition(",")[0]
        assert stage not in records.read(home / "run")["stages"], moment  # it was killed in this stage, before its end
    code, told = run(config)
    assert code == 0, told
    assert differing(home / "run", home / "alone") == []
    for stage in ("train_sae", "extract_codes", "train_heads", "crp_relmax"):
        assert f"{stage} was done already" in told
