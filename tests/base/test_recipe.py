from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from elute.base.errors import ConfigError, SpaceError
from elute.base.recipe import Section, build, read_yaml, resolve, save


class Train(Section):
    """How to train."""

    rate: float = Field(default=1.0, gt=0)
    """The learning rate."""
    steps: int = 3
    """How many steps."""
    name: str = "run"
    """What to call it."""
    tags: list[str] = Field(default_factory=list)
    """What to find it by."""
    kind: Literal["topk", "relu"] = "topk"
    """How to be sparse."""
    quiet: bool = False
    """Whether to say less."""
    folder: Path | None = None
    """Where to write."""


class Split(Section):
    """How to split."""

    by_group: str
    """The column of groups."""
    seed: int = 0
    """The seed."""

    @model_validator(mode="after")
    def _checked(self) -> Split:
        if self.seed == 13:
            raise ValueError("seed 13 and\nthis column do not go together")
        return self


RECIPE: dict[str, type[Section]] = {"train": Train, "split": Split}


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "c.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def train(*overrides: str, file: Path | None = None, flags: Mapping[str, Any] | None = None) -> Train:
    section = resolve({"train": Train}, file, overrides, flags={"train": flags or {}})["train"]
    assert isinstance(section, Train)
    return section


def refused(text: str | bytes, folder: Path, *overrides: str) -> str:
    """The line with which a recipe is refused, without the path."""
    path = written(folder, text)
    with pytest.raises(ConfigError) as error:
        resolve(RECIPE, path, overrides, needed=())
    assert str(error.value).startswith(str(path))
    return str(error.value).removeprefix(str(path))


# What wins


@settings(deadline=None)
@given(file=st.none() | st.integers(), override=st.none() | st.integers(), flag=st.none() | st.integers())
def test_flags_win_over_set_and_set_over_the_file(
    tmp_path_factory: pytest.TempPathFactory, file: int | None, override: int | None, flag: int | None
) -> None:
    path = written(
        tmp_path_factory.getbasetemp(), "train:\n  name: from the file\n" + f"  steps: {file}\n" * (file is not None)
    )
    overrides = [] if override is None else [f"train.steps={override}"]
    section = train(*overrides, file=path, flags={} if flag is None else {"steps": flag})
    given_ones = [value for value in (file, override, flag) if value is not None]
    assert section.steps == (given_ones[-1] if given_ones else 3)
    assert section.name == "from the file"


def test_the_last_of_two_overrides_counts() -> None:
    assert train("train.steps=4", "train.steps=5", "train.name=x").steps == 5


def test_sections_are_those_that_are_needed_or_given(tmp_path: Path) -> None:
    path = written(tmp_path, "split: {by_group: donor}\ntrain:\n")
    assert set(resolve(RECIPE, path, needed=())) == {"split"}
    assert set(resolve(RECIPE, path, needed=("train",))) == {"split", "train"}
    assert set(resolve(RECIPE, path, ["train.steps=3"], needed=())) == {"split", "train"}
    assert set(resolve(RECIPE, path, flags={"train": {"steps": 3}}, needed=())) == {"split", "train"}
    assert set(resolve({"train": Train}, None)) == {"train"}
    assert resolve({"train": Train}, written(tmp_path, "")) == {"train": Train()}
    assert resolve({"train": Train}, written(tmp_path, "# nothing yet\n")) == {"train": Train()}


def test_sections_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        train().steps = 4


# Values


@pytest.mark.parametrize(
    ("text", "rate"),
    [("1e-4", 1e-4), ("1E4", 1e4), ("2", 2.0), (".5", 0.5), ("1.e+2", 100.0), ("'3'", 3.0), ("1_000.5", 1000.5)],
)
def test_numbers_are_read_as_people_write_them(tmp_path: Path, text: str, rate: float) -> None:
    """YAML 1.1 takes 1e-4 for text."""
    for section in (train(file=written(tmp_path, f"train: {{rate: {text}}}")), train(f"train.rate={text}")):
        assert section.rate == rate
        assert type(section.rate) is float


@settings(deadline=None)
@given(rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False), steps=st.integers(), quiet=st.booleans())
def test_overrides_of_each_kind(rate: float, steps: int, quiet: bool) -> None:
    section = train(f"train.rate={rate!r}", f"train.steps={steps}", f" train . quiet ={quiet}")
    assert (section.rate, section.steps, section.quiet) == (rate, steps, quiet)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a=b", "a=b"), ("a: b: c", "a: b: c"), ("  spaced  ", "spaced"), ("'7'", "7"), ("ä β", "ä β"), ("*x", "*x"),
        ("2024-13-45", "2024-13-45"), ("0x_", "0x_"), ("!!python/name:os.system", "!!python/name:os.system"),
        ("!!bool maybe", "!!bool maybe"), ("!!int ''", "!!int ''"), ("!!timestamp x", "!!timestamp x"),
        ("!!map x", "!!map x"), ("{a: 1, a: 2}", "{a: 1, a: 2}"), ("[" * 1000, "[" * 1000),
    ],
)  # fmt: skip
def test_what_is_no_yaml_is_text(text: str, name: str) -> None:
    assert train(f"train.name={text}").name == name


def test_lists_and_nothing() -> None:
    assert train("train.tags=[a, b c]").tags == ["a", "b c"]
    assert train("train.folder=").folder is None
    latin = os.fsdecode(b"caf\xe9")
    assert train(f"train.folder={latin}").folder == Path(latin)


# What is refused


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.stepss=4", "train: unknown key 'stepss'. Did you mean 'steps'?"),
        ("train.steps.a=4", "train: unknown key 'steps.a'. Did you mean 'steps'?"),
        ("trian.steps=4", "--set 'trian.steps=4': unknown section 'trian'. Did you mean 'train'?"),
        (".steps=4", "--set '.steps=4': unknown section ''. There are: split, train."),
        ("train.steps", "--set 'train.steps' is not of the form section.key=value. For example: --set split.seed=7"),
        ("steps=4", "--set 'steps=4' is not of the form section.key=value. For example: --set split.seed=7"),
        ("train.=4", "--set 'train.=4' is not of the form section.key=value. For example: --set split.seed=7"),
        ("train. =4", "--set 'train. =4' is not of the form section.key=value. For example: --set split.seed=7"),
        ("=", "--set '=' is not of the form section.key=value. For example: --set split.seed=7"),
        ("", "--set '' is not of the form section.key=value. For example: --set split.seed=7"),
        ("train.steps=", "train: steps = None: Input should be a valid integer"),
        ("train.steps=2.5", "train: steps = 2.5: Input should be a valid integer, got a number with a fractional part"),
        ("train.steps=many", "train: steps = 'many': Input should be a valid integer, unable to parse string as an integer"),
        ("train.kind=top", "train: kind = 'top': Input should be 'topk' or 'relu'"),
        ("train.rate=0", "train: rate = 0: Input should be greater than 0"),
        ("train.rate=nan", "train: rate = 'nan': Input should be a finite number"),
        ("train.rate=.inf", "train: rate = inf: Input should be a finite number"),
        ("train.tags=a", "train: tags = 'a': Input should be a valid list"),
        ("train.quiet=perhaps", "train: quiet = 'perhaps': Input should be a valid boolean, unable to interpret input"),
        ("train.tags=[a, 3]", "train: tags.1 = 3: Input should be a valid string"),
    ],
)  # fmt: skip
def test_overrides_that_are_refused(override: str, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(RECIPE, None, [override], needed=())
    assert str(error.value) == line


INDENT = ". Check the indentation and the colons there."
FAULTS: dict[str, tuple[str | bytes, str]] = {
    "unknown section": ("trian: {}", ": unknown section 'trian'. Did you mean 'train'?"),
    "unknown section, far off": ("zzz:\n", ": unknown section 'zzz'. There are: split, train."),
    "a section that is a number": ("1: {}", ": unknown section 1. There are: split, train."),
    "unknown key": ("train: {step: 4}", ", train: unknown key 'step'. Did you mean 'steps' or 'rate'?"),
    "unknown keys": ("train: {step: 4, x: 1}", ", train: unknown key 'step' (and 1 more). Did you mean 'steps' or 'rate'?"),
    "a key that is a number": ("train: {1: 2}", ", train: 1 = 1: Keys should be strings"),
    "a key that is nothing": ("train: {null: 2}", ", train: unknown key 'null'. There are: folder, kind, name, quiet, rate, steps, tags."),
    "a section that is a value": (
        "train: 3",
        ": section 'train' must hold keys and values, not 3. Write `train:` and its keys indented below it.",
    ),
    "a section that is a list": (
        "train: [steps, 4]",
        ": section 'train' must hold keys and values, not ['steps', 4]. Write `train:` and its keys indented below it.",
    ),
    "a list": ("- train", ": must hold sections, each with its keys"),
    "text": ("train", ": must hold sections, each with its keys"),
    "twice": (
        "train:\n  steps: 4\n  rate: 1\n  steps: 5\n",
        f": is not valid YAML: the key 'steps' is given twice at line 4, column 3: steps: 5 ^{INDENT}",
    ),
    "a section twice": (
        "train: {}\nsplit:\ntrain: {}\n",
        f": is not valid YAML: the key 'train' is given twice at line 3, column 1: train: {{}} ^{INDENT}",
    ),
    "a tab": (
        "train:\n\tsteps: 4\n",
        ": is not valid YAML: while scanning for the next token found character '\\t' that cannot start any token at line",
    ),
    "an open bracket": (
        "train: {tags: [a",
        ": is not valid YAML: while parsing a flow sequence at line 1, column 15: train: {tags: [a ^ expected ',' or ']'",
    ),
    "two documents": ("--- {}\n--- {}\n", ": is not valid YAML: expected a single document in the stream at line 1"),
    "a key that is a list": ("train: {[a]: 3}", ": is not valid YAML: while constructing a mapping at line 1, column 8"),
    "a merge": (
        "split: &a {seed: 1}\ntrain: {<<: *a}\n",
        ": is not valid YAML: could not determine a constructor for the tag 'tag:yaml.org,2002:merge' at line 2, column 9",
    ),
    "an anchor that is not there": ("train: *a", ": is not valid YAML: found undefined alias 'a' at line 1, column 8"),
    "no such day": ("train: {name: 2024-13-45}", f": is not valid YAML: month must be in 1..12{INDENT}"),
    "no number": ("train: {steps: 0x_}", f": is not valid YAML: invalid literal for int() with base 16: ''{INDENT}"),
    "a tag that lies": (
        "train: !!map steps",
        f": is not valid YAML: expected a mapping node, but found scalar at line 1, column 8: train: !!map steps ^{INDENT}",
    ),
    "no truth": ("train: {quiet: !!bool maybe}", f": is not valid YAML: 'maybe'{INDENT}"),
    "deep": ("[" * 1000, f": is not valid YAML: maximum recursion depth exceeded{INDENT}"),
    "no UTF-8": (b"train: \xff", ": cannot be read as YAML: 'utf-8' codec can't decode byte 0xff in position 7: inval"),
    "a control character": ("train: \x07", ": is not valid YAML: unacceptable character #x0007: special characters are no"),
    "a rule over several": ("split: {by_group: a, seed: 13}", ", split: seed 13 and this column do not go together"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_files_that_are_refused(tmp_path: Path, kind: str) -> None:
    text, line = FAULTS[kind]
    said = refused(text, tmp_path)
    assert said.startswith(line)
    if line[-1] in ".?" or "YAML" not in line:
        assert said == line
    assert "<unicode" not in said


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(RECIPE, tmp_path / "none.yaml")
    assert str(error.value) == (
        f"{tmp_path / 'none.yaml'}: there is no such configuration file. Check the path given to --config."
    )
    with pytest.raises(ConfigError, match=r"cannot be read as YAML: .*Is a directory"):
        resolve(RECIPE, tmp_path)


def test_a_missing_key_names_its_flag(tmp_path: Path) -> None:
    asked = "by_group is missing. Give --by-group, or by_group in the configuration file."
    with pytest.raises(ConfigError) as error:
        resolve(RECIPE, None)
    assert str(error.value) == f"split: {asked}"
    assert refused("split: {seed: 3}", tmp_path) == f", split: {asked}"
    assert refused("split: {seed: x}", tmp_path) == (
        ", split: by_group is missing (and 1 more). Give --by-group, or by_group in the configuration file."
    )


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.mkdir [{}]",
        "!!python/object/apply:pathlib.Path.mkdir [!!python/object/apply:pathlib.Path [{}]]",
        "!!python/object/new:os.mkdir [{}]",
        "!!python/name:os.mkdir",
        "!!python/module:antigravity",
        "!mine {}",
    ],
)
def test_tags_that_would_run_code_are_refused_and_do_not_run(tmp_path: Path, tag: str) -> None:
    harm = tmp_path / "harm"
    text = tag.replace("{}", str(harm))
    said = refused(f"train:\n  name: {text}\n", tmp_path)
    assert said.startswith(": is not valid YAML: could not determine a constructor for the tag ")
    assert "at line 2, column 9" in said
    assert train(f"train.name={text}").name == text
    assert not harm.exists()
    if "apply:os.mkdir" in tag:
        yaml.unsafe_load(text)  # the attack does work on one who lets it
        assert harm.exists()


def test_a_few_lines_that_stand_for_gigabytes(tmp_path: Path) -> None:
    """Aliases of aliases cost nothing until they are written out, as a message would."""
    lines = ["- &a0 [" + ", ".join(["x"] * 9) + "]"]
    lines += [f"- &a{i} [" + ", ".join([f"*a{i - 1}"] * 9) + "]" for i in range(1, 25)]
    bomb = "\n".join("    " + line for line in lines)
    assert len(refused(f"train:\n  rate:\n{bomb}\n", tmp_path)) < 10_000
    assert len(refused(f"train:\n{bomb}\n", tmp_path)) < 10_000
    assert len(refused("train: {rate: " + "x" * 1_000_000 + "}", tmp_path)) < 1_000


def test_a_section_is_built_without_a_recipe() -> None:
    assert build(Train, {"steps": "7"}, where="here").steps == 7
    with pytest.raises(ConfigError, match=r"^here: unknown key 'stops'\. Did you mean 'steps'\?$"):
        build(Train, {"stops": 7}, where="here")


# Writing


TEXT = st.text(max_size=12) | st.sampled_from(
    ["yes", "null", "~", "1e5", "=", "<<", "0x_", "2024-13-45", "\udce9", "a: b", "- a", "#"]
)


@settings(max_examples=60, deadline=None)
@given(
    rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False), steps=st.integers(), name=TEXT,
    tags=st.lists(TEXT, max_size=3), folder=st.none() | st.just(Path("a/ä b")),
)  # fmt: skip
def test_what_is_saved_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rate: float, steps: int, name: str, tags: list[str], folder: Path | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "saved.yaml"
    section = Train(rate=rate, steps=steps, name=name, tags=tags, folder=folder)
    save(path, {"train": section})
    content = path.read_bytes()
    assert resolve(RECIPE, path, needed=()) == {"train": section}
    save(path, {"train": section})
    assert path.read_bytes() == content


def test_saving_keeps_the_other_sections(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    save(path, {"train": Train(steps=4, tags=["ä"])})
    save(path, {"split": Split(by_group="donor")})
    save(path, {"train": Train(steps=5, tags=["ä"])})
    assert path.read_text(encoding="utf-8") == (
        "split:\n  by_group: donor\n  seed: 0\n"
        "train:\n  folder: null\n  kind: topk\n  name: run\n  quiet: false\n  rate: 1.0\n  steps: 5\n  tags:\n  - ä\n"
    )
    assert read_yaml(path)["split"] == {"by_group": "donor", "seed": 0}
    path.write_text("train: [")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        save(path, {"train": Train()})
    assert path.read_text() == "train: ["
    with pytest.raises(SpaceError, match=r"Not a directory\. Choose another name\.$"):
        save(path / "x.yaml", {"train": Train()})


def test_nothing_can_be_recorded_that_json_could_not_hold() -> None:
    with pytest.raises(ValidationError, match="finite number"):
        Train(rate=math.inf)
