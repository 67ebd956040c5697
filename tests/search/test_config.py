from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from data_io.errors import BadInput
from search import strict_yaml
from search.config import LOSSES, Config, config_hash, dump, load, schema
from search.presets import PRESETS

if TYPE_CHECKING:
    from pathlib import Path


def refusal(*overrides: str, preset: str | None = "demo", file: Path | None = None) -> str:
    with pytest.raises(BadInput) as caught:
        load(preset, file, list(overrides))
    return str(caught.value)


def written(folder: Path, text: str) -> Path:
    file = folder / "settings.yaml"
    file.write_text(text, encoding="utf-8")
    return file


# presets and layers


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_named(preset: str) -> None:
    assert load(preset, None, []).preset == preset


def test_the_search_preset_spans_the_whole_grid() -> None:
    space = load("search", None, []).space
    assert len(space.architectures) == 8
    assert len(space.encoders) == 5
    assert {target: len(losses) for target, losses in space.losses.items()} == {
        "two_class": 5,
        "three_class": 6,
        "star": 1,
    }


def test_the_paper_preset_stops_nothing() -> None:
    config = load("paper", None, [])
    assert not config.schedule.asha
    assert (config.space.targets, config.space.losses) == (("two_class",), {"two_class": ("dice",)})
    assert (config.train.max_epochs, config.train.crop) == (1000, 224)


def test_a_file_lies_over_the_preset_and_overrides_over_both(tmp_path: Path) -> None:
    file = written(tmp_path, "train: {max_epochs: 7, batch_size: 4}\nschedule: {grace_epochs: 1}\n")
    config = load("demo", file, ["train.batch_size=6", "space.targets=[star]"])
    assert (config.train.max_epochs, config.train.batch_size, config.space.targets) == (7, 6, ("star",))
    assert config.train.crop == load("demo", None, []).train.crop


def test_the_losses_of_one_target_replace_only_its_own() -> None:
    losses = load("demo", None, ["space.losses.two_class=[dice, lovasz]"]).space.losses
    assert losses["two_class"] == ("dice", "lovasz")
    assert losses["star"] == ("stardist",)


def test_the_file_names_the_preset(tmp_path: Path) -> None:
    file = written(tmp_path, "preset: paper\n")
    assert load(None, file, []).preset == "paper"
    assert "drop one of them" in refusal(file=file)
    assert load(None, None, []).preset == "demo"


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_dumped_is_loaded_again(preset: str, tmp_path: Path) -> None:
    config = load(preset, None, ["space.learning_rate=[1e-5, 0.01]", "data.path='no'", "budget.minutes=0.5"])
    assert load(None, written(tmp_path, dump(config)), []) == config


def test_a_dump_says_what_each_value_means() -> None:
    text = dump(load("demo", None, ["train.crop=128"]))
    assert "crop: 128 # Edge of a training crop in pixels, a multiple of 32" in text
    assert "path: null #" in text


def test_the_configuration_is_frozen() -> None:
    config = load("demo", None, [])
    with pytest.raises(ValueError, match="frozen"):
        config.train.crop = 64  # type: ignore[misc]


def test_every_field_has_a_sentence() -> None:
    sections = [schema(), *schema()["$defs"].values()]
    fields = [(name, field) for section in sections for name, field in section["properties"].items()]
    assert not [name for name, field in fields if "description" not in field and "$ref" not in field]
    assert not [section["title"] for section in sections if "description" not in section]


# the hash


@pytest.mark.parametrize(
    "override", ["tracking.wandb=disabled", "budget.minutes=5", "resources.cpus_per_trial=2.0", "train.workers=2"]
)
def test_the_hash_ignores_what_changes_no_result(override: str) -> None:
    assert config_hash(load("demo", None, [override])) == config_hash(load("demo", None, []))


@pytest.mark.parametrize("override", ["seed=1", "train.crop=160", "space.learning_rate=[0.002]", "data.path=x"])
def test_the_hash_tells_what_changes_results(override: str) -> None:
    assert config_hash(load("demo", None, [override])) != config_hash(load("demo", None, []))


# YAML 1.2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-3", -3),
        ("010", 10),
        ("0x1F", 31),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("", None),
        ("'1e-4'", "1e-4"),
        ("2020-01-01", "2020-01-01"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("[a, 1, {b: no}]", ["a", 1, {"b": "no"}]),
    ],
)
def test_values_follow_yaml_1_2(text: str, value: Any) -> None:
    tree, _ = strict_yaml.read(f"key: {text}", "text")
    assert tree == {"key": value}
    assert type(tree["key"]) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"text:3: the key 'a' stands here and in line 1"),
        ("a: &x 1\nb: *x\n", r"text:1: anchors and aliases are refused"),
        ("a: 1\nb: *x\n", r"text:2: anchors and aliases are refused"),
        ("a: !!python/object/apply:os.system ['true']\n", r"text:1: the tag .* is refused"),
        ("a: !!float 3\n", r"text:1: the tag .* is refused"),
        ("a: 1\n---\na: 2\n", r"text:2: a second document"),
        ("a: [1, 2\nb: 3\n", r"text:\d: not valid YAML"),
        ("? [a, b]\n: 1\n", r"text:1: a key must be text"),
        ("a: " + "[" * 30 + "]" * 30, r"text:1: nested deeper than 20 levels"),
    ],
)
def test_what_can_hide_a_fault_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        strict_yaml.read(text, "text")


def test_lines_are_counted_from_one() -> None:
    _, lines = strict_yaml.read("# comment\na:\n  b: [1,\n    2]\n", "text")
    assert (lines["a",], lines["a", "b"], lines["a", "b", 1]) == (2, 3, 4)


printable = st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"])  # line breaks differ from YAML 1.1
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(printable),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text("abc", min_size=1), below, max_size=3),
    max_leaves=8,
)


@given(tree=st.dictionaries(st.text("abc", min_size=1), trees, max_size=3))
def test_what_ruamel_writes_as_yaml_1_2_is_read_the_same(tree: dict[str, Any], tmp_path_factory: Any) -> None:
    file = tmp_path_factory.mktemp("yaml") / "tree.yaml"
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.representer.ignore_aliases = lambda data: True
    yaml.dump(tree, file)
    assert (strict_yaml.read(file.read_text(encoding="utf-8"), "tree")[0] or {}) == tree


# refusals


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_epoch=3", "unknown key; did you mean train.max_epochs?"),
        ("max_epochs=3", "unknown key; did you mean train.max_epochs?"),
        ("train.epochs=3", "unknown key; did you mean train.max_epochs or budget.epochs?"),
        ("lerning_rate=3", "did you mean space.learning_rate?"),
        ("train.max_epochs=many", "not 'many'; write a number"),
        ("tracking.wandb=on", "unknown value 'on'; choose from offline, online, disabled"),
        ("space.architectures=[unett]", "unknown value 'unett'; did you mean unet?"),
        ("space.encoders=[res net]", "'res net' is not a plain name"),
        ("space.losses.star=[dice]", "star has no loss 'dice'"),
        ("space.losses.stars=[dice]", "did you mean star?"),
        ("space.targets=[]", "at least 1 item"),
        ("space.architectures=[]", "empty grid: no model for"),
        ("space.losses.star=[]", "empty grid: no loss for star"),
        ("space.seeds=[1, 1]", "1 stands twice"),
        ("space.seeds=1", "write a list: [a, b]"),
        ("space.learning_rate=[0]", "must be greater than 0, not 0"),
        ("space.learning_rate=['1e-3']", "write the number without quotes"),
        ("space.learning_rate=[.inf]", "must be a finite number, not inf"),
        ("space.mode=random", "add space.trials=N"),
        ("space.trials=5", "trials is for modes that draw"),
        ("train.crop=100", "must be a multiple of 32, not 100"),
        ("train.batch_size=1", "greater than or equal to 2"),
        ("train.batch_size=8.5", "write a whole number"),
        ("train.crops_per_epoch=2", "is less than batch_size"),
        ("train.max_epochs=true", "must be a valid integer, not True"),
        ("schedule.asha=no", "write true or false"),
        (
            "schedule.references=[{architecture: unet, encoder: vgg19, target: star}]",
            "schedule.references.0.loss: missing",
        ),
        (
            "schedule.references=[{architecture: stardist_unet, encoder: '', target: two_class, loss: dice}]",
            "stardist_unet learns the target star only",
        ),
        ("data.tiles=[0, 2]", "data.tiles.0: must be greater than or equal to 1, not 0"),
        ("data.memory_gb=1e308", "less than or equal to 1000000"),
        ("data.pixel_size_um=1e-300", "greater than or equal to 0.000000001, not 1e-300"),
        ("train.crops_per_epoch=99999999999999999999", "less than or equal to 100000000"),
        ("train.validation_crops=99999999999999999999", "less than or equal to 1000000"),
        ("budget.minutes=1e300", "less than or equal to 1000000000"),
        (f"objective={'x' * 5000}", "unknown objective 'xxx"),
        ("resources.gpus_per_trial=1e308", "share of one GPU (0 to 1) or whole GPUs"),
        ("resources.gpus_per_trial=1.5", "share of one GPU (0 to 1) or whole GPUs, not 1.5"),
        ("objective=trait:aera", "did you mean trait:area?"),
        ("preset=paper", "choose it with --preset"),
        ("data=3", "write key: value lines below it"),
        ("seed", "write key.path=value"),
        ("seed=[", "not valid YAML"),
        (f"seed={'9' * 5000}", "must be"),
    ],
)
def test_bad_values_are_refused_with_the_remedy(override: str, message: str) -> None:
    text = refusal(override)
    assert message in text
    assert "\n" not in text
    assert len(text) < 400


def test_a_grace_longer_than_the_training_names_both_places(tmp_path: Path) -> None:
    file = written(tmp_path, "schedule:\n  grace_epochs: 50\n")
    text = refusal("train.max_epochs=40", file=file)
    assert text.startswith("'train.max_epochs=40', ") or f"{file}:2" in text
    assert "schedule.grace_epochs 50 is more than train.max_epochs 40" in text
    assert load("demo", file, ["train.max_epochs=40", "schedule.asha=false"]).schedule.grace_epochs == 50


def test_all_faults_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "train:\n  max_epoch: 5\n  crop: '128'\nspace:\n  mode: random\n  learning_rate: [-1, 1e-4]\n"
        "schedule: {grace_epochs: 30}\n",
    )
    text = refusal("tracking.wandb=on", "foo", file=file)
    for part in (
        "faults in the configuration",
        f"{file}:2: train.max_epoch: unknown key",
        f"{file}:3: train.crop",
        f"{file}:6: space.learning_rate.0",
        f"{file}:7: schedule.grace_epochs 30 is more than",
        "'tracking.wandb=on': tracking.wandb",
        "'foo': not an override; write key.path=value, or --data 'foo' if these are your images",
    ):
        assert part in text


def test_a_fault_of_a_section_is_told_with_the_others(tmp_path: Path) -> None:
    text = refusal("space.mode=random", "train.crop=3")
    assert "add space.trials=N" in text
    assert "train.crop" in text


@pytest.mark.parametrize(("content", "message"), [(b"\xff\xfe", "not UTF-8"), (b"- a\n- b\n", "holds no keys")])
def test_files_that_hold_no_configuration_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_bytes(content)
    assert message in refusal(file=file)


def test_a_missing_file_is_refused_and_an_empty_one_changes_nothing(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(file=tmp_path / "nothing.yaml")
    assert load("demo", written(tmp_path, ""), []) == load("demo", None, [])


def test_a_secret_on_the_command_line_is_not_repeated() -> None:
    text = refusal("tracking.api_key=hunter2secret")
    assert "unknown key" in text
    assert "hunter2secret" not in text


@given(keys=st.text(), value=st.text())
def test_any_override_gives_a_configuration_or_a_refusal(keys: str, value: str) -> None:
    try:
        config = load("demo", None, [f"{keys}={value}"])
    except BadInput:
        return
    assert isinstance(config, Config)


def test_the_losses_known_are_those_of_the_search_preset() -> None:
    assert {target: tuple(names) for target, names in PRESETS["search"]["space"]["losses"].items()} == LOSSES
