from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from data_io.errors import BadInput
from search import reading_options
from search.config import dump, load
from search.options import parse

ROOT = Path(__file__).resolve().parents[2]


def test_without_arguments_it_is_the_demo() -> None:
    options = parse([])
    assert options.config() == load("demo", None, [])
    assert (options.out, options.resume, options.dry_run, options.printed()) == (None, None, False, None)


def test_options_become_overrides() -> None:
    config = parse(["--data", "movie", "--minutes", "15", "--objective", "trait:area", "--wandb", "disabled"]).config()
    assert (config.data.path, config.budget.minutes, config.objective) == ("movie", 15, "trait:area")
    assert config.tracking.wandb == "disabled"


@pytest.mark.parametrize("name", ["1e3", "no", "null", "a: b #c", 'quo"te\\', "měsíc", "[x]"])
def test_a_folder_keeps_its_name(name: str) -> None:
    assert parse(["--data", name]).config().data.path == name


def test_overrides_may_stand_anywhere() -> None:
    options = parse(["train.crop=64", "--preset", "search", "seed=3", "--out", "here", "tracking.project=p"])
    assert options.out == Path("here")
    config = options.config()
    assert (config.preset, config.train.crop, config.seed, config.tracking.project) == ("search", 64, 3, "p")


def test_a_configuration_file_lies_between(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("seed: 5\ntrain: {crop: 64}\n")
    config = parse(["--config", str(file), "train.crop=96"]).config()
    assert (config.seed, config.train.crop) == (5, 96)


def test_resume_goes_on_with_the_runs_own_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump(load("paper", None, ["seed=9"])))
    config = parse(["--resume", str(tmp_path), "budget.minutes=3"]).config()
    assert (config.preset, config.seed, config.budget.minutes) == ("paper", 9, 3)


def test_resume_refuses_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no run to resume \(config.yaml is missing\)"):
        parse(["--resume", str(tmp_path)]).config()


def test_resume_refuses_another_configuration() -> None:
    with pytest.raises(BadInput, match=r"--resume goes on with the run's own configuration.*; see --help"):
        parse(["--resume", "run", "--preset", "paper"])


def test_what_is_printed() -> None:
    assert parse(["--print-config", "--preset", "paper"]).printed() == dump(load("paper", None, []))
    assert json.loads(parse(["--print-schema"]).printed() or "")["properties"]["space"]


def test_faults_name_the_option_and_the_nearest_name() -> None:
    with pytest.raises(BadInput, match=r"--preset: unknown preset 'papre'; did you mean paper\?"):
        parse(["--preset", "papre"]).config()
    with pytest.raises(BadInput, match="must be greater than 0"):
        parse(["--minutes", "-1"]).config()


@pytest.mark.parametrize("option", reading_options.SETTINGS)
def test_an_option_of_a_conversion_is_told_as_a_setting(option: str) -> None:
    setting = reading_options.SETTINGS[option].strip("'")
    with pytest.raises(
        BadInput, match=f"{option}: an option of .*; in a search write the setting, such as .*{re.escape(setting)}"
    ):
        parse(["--data", "movie", option, "max"])
    load("demo", None, [setting])  # what it says is a setting


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    assert "python -m search.run --data movie" in shown


def test_an_unknown_option_is_one_line() -> None:
    with pytest.raises(BadInput, match=r"python -m search\.run: unrecognized arguments: --outt; see --help"):
        parse(["--outt", "x"])


def test_help_needs_none_of_the_heavy_libraries() -> None:
    code = "import sys, search.options; print(sorted({'torch', 'ray', 'wandb', 'zarr', 'pandas'} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
