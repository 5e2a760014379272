"""The demonstration does all of it, and a second time nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from elute.cli.main import elute, main
from elute.routing.cause_settings import RoutingDemoConfig
from elute.routing.demo import PAIRS, demonstrate, show

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = RoutingDemoConfig(steps=3, num_loc=5, pair_instances=30, epochs=1, judged=20)


def test_all_of_it_on_very_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elute.routing.inspect_plots.draw", lambda _: b"<svg/>")  # slow, and tested by itself
    folder = tmp_path / "demo"
    told = demonstrate(folder, TINY).summary
    assert len(told["patch"]) == len(PAIRS) + 2  # each, all feed-forward parts, all layers
    assert all(part["identical"] for part in told["patch"].values())
    assert all(value is not None for value in told["linear_r2"].values())
    text = show({**told, "path": str(folder)})
    assert "to the last bit" in text
    assert "together_mlp" in text
    for page in ("patch", f"eval/{told['shown']}"):
        assert (folder / "clt" / page / "index.html").is_file()
    stamps = {p: p.stat().st_mtime_ns for p in folder.rglob("per_instance.parquet")}
    before = (folder / "run.json").read_bytes()
    assert demonstrate(folder, TINY).summary == told
    assert (folder / "run.json").read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("per_instance.parquet")} == stamps


@pytest.mark.parametrize("name", ["eval", "patch", "steer", "paths", "generalise", "demo"])
def test_every_command_has_its_help(name: str) -> None:
    done = CliRunner().invoke(elute, ["routing", name, "--help"])
    assert done.exit_code == 0, done.output
    assert "--json" in done.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["eval", "--pair", "clt_L0_to_L9"], "there is no dictionary of 'clt_L0_to_L9'"),
        (["patch", "--checkpoint", "77"], "there is no checkpoint of epoch 77"),
        (["steer", "--pair", "x", "--factors", "no"], "'no' is not a valid float"),
        (["paths", "--pair", "clt_L0_to_L9"], "there is no dictionary of"),
        (["generalise", "--pair", "clt_L0_to_L9", "--run_dir", "nowhere"], "there is no such run"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tiny_pairs: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words if "--run_dir" in words else [*words, "--run_dir", str(tiny_pairs)]
    if words[0] == "patch":
        given += ["--pair", "clt_L0_to_L2"]
    assert main(["routing", *given]) in (1, 2)
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said
    if said.startswith("error"):
        assert said.count("\n") == 1
