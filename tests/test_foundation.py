"""What holds for the whole project: who imports whom, what no code may do, and that the stated commands are real."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

MAY_IMPORT = {
    "data_io": set(),
    "postprocess": {"data_io", "cluster"},
    "analysis": {"data_io", "postprocess"},
    "search": {"data_io", "postprocess", "analysis", "cluster"},
    "cluster": {"data_io"},
}
# A library that only some packages or files may import.
ONLY_IN = {
    "torch": ("search/",),
    "pytorch_lightning": ("search/",),
    "segmentation_models_pytorch": ("search/",),
    "timm": ("search/",),
    "ray": ("search/", "cluster/", "postprocess/schedulers.py"),
    "distributed": ("postprocess/schedulers.py",),
    "wandb": ("search/wandb_",),
    "matplotlib": ("analysis/",),
}
# Needed although no code of ours imports them: they serve another package, which loads them when it needs them.
SERVES_ANOTHER = {
    "s3fs": "universal-pathlib loads it by name",
    "optuna": "Ray Tune's OptunaSearch loads it by name",
    "timm": "smp builds the encoders named tu-NAME with it",
    "torchvision": "timm needs the one that belongs to the torch release",
}

RUN_COMMAND = "bash .ci/setup && .venv/bin/python -m search.run"
TEST_COMMAND = "bash .ci/setup && .venv/bin/python -m pytest"

SOURCES = sorted(file for package in MAY_IMPORT for file in (ROOT / package).rglob("*.py"))


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imported(file: Path) -> frozenset[str]:
    """Return the top-level names a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(file)} imports relatively"
            names.add((node.module or "").split(".")[0])
    return frozenset(names)


# directions


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_imports_run_leftwards(file: Path) -> None:
    package = name_of(file).split("/")[0]
    foreign = (imported(file) & MAY_IMPORT.keys()) - MAY_IMPORT[package] - {package}
    assert not foreign, f"{name_of(file)} imports {foreign}"


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_frameworks_stay_at_the_edge(file: Path) -> None:
    name = name_of(file)
    astray = [library for library in imported(file) & ONLY_IN.keys() if not name.startswith(ONLY_IN[library])]
    assert not astray, f"{name} imports {astray}"


def test_only_entry_points_import_cluster() -> None:
    own = ("cluster/", "postprocess/schedulers.py")  # the latter starts Ray for postprocess.run
    files = [file for file in SOURCES if "cluster" in imported(file) and not name_of(file).startswith(own)]
    assert not [name_of(file) for file in files if 'if __name__ == "__main__":' not in file.read_text(encoding="utf-8")]


# what no code may do


def forbidden(tree: ast.AST) -> list[str]:
    """Return the forbidden things in a file, each with its line."""
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            faults.extend(_forbidden_call(node))
        elif isinstance(node, ast.ExceptHandler) and _swallows(node):
            faults.append(f"{node.lineno}: an exception is swallowed")
    return faults


def _forbidden_call(call: ast.Call) -> list[str]:
    name = ast.unparse(call.func)
    faults = []
    if name in ("eval", "exec", "os.system", "yaml.load", "__import__"):
        faults.append(f"{call.lineno}: {name}")
    settings = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    for setting, value in (("shell", "True"), ("allow_pickle", "True"), ("weights_only", "False")):
        if settings.get(setting) == value:
            faults.append(f"{call.lineno}: {setting}={value}")
    if name == "torch.load" and settings.get("weights_only") != "True":
        faults.append(f"{call.lineno}: torch.load without weights_only=True")
    return faults


def _swallows(handler: ast.ExceptHandler) -> bool:
    is_broad = handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException")
    return is_broad and all(isinstance(statement, ast.Pass) for statement in handler.body)


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_no_forbidden_call(file: Path) -> None:
    assert not forbidden(parsed(file))
    assert not imported(file) & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}


@pytest.mark.parametrize(
    "code",
    [
        "eval('1')",
        "subprocess.run('ls', shell=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept:\n    pass",
    ],
)
def test_forbidden_calls_are_found(code: str) -> None:
    assert forbidden(ast.parse(code))


def test_files_are_named_for_what_they_hold() -> None:
    assert not [name_of(file) for file in SOURCES if re.fullmatch(r"(.*_)?(utils?|helpers?|common|misc)", file.stem)]


# the distribution


def test_every_package_is_in_the_distribution() -> None:
    found = {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests"}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = set(settings["tool"]["setuptools"]["packages"])
    rooms = {
        ".".join(file.parent.relative_to(ROOT).parts) for name in found for file in ROOT.glob(f"{name}/**/__init__.py")
    }
    assert packages == rooms
    assert found == MAY_IMPORT.keys()


OPTIONAL = {"bioimageio-core", "bioio", "onnx", "onnxscript", "s3fs", "universal-pathlib"}
"""Distributions of extras: imported where they are asked for, with a remedy where they are missing."""


def requirements(extras: bool = True) -> dict[str, Requirement]:
    lines = [*PROJECT["dependencies"]]
    if extras:
        lines += [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)}


def test_what_is_imported_is_required_and_the_other_way_round() -> None:
    distributions = packages_distributions()
    modules = {name for file in SOURCES for name in imported(file)} - sys.stdlib_module_names - MAY_IMPORT.keys()
    used = {module: {canonicalize_name(name) for name in distributions[module]} for module in modules}
    required = requirements(extras=False).keys() | OPTIONAL
    brought_along = {"pydantic-core", "markupsafe"}  # parts of pydantic and jinja2 under a name of their own
    missing = [module for module, names in used.items() if not names & (required | brought_along)]
    assert not missing, f"imported but not required: {missing}"
    unused = required - set().union(*used.values()) - SERVES_ANOTHER.keys()
    assert not unused, f"required but imported nowhere: {sorted(unused)}"


@cache
def constraints() -> dict[str, str]:
    lines = (ROOT / ".ci/constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert not [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( ;.*)?", line)]
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1].split(" ")[0] for line in pins}


def test_every_requirement_has_both_bounds_and_a_pin_between_them() -> None:
    for name, requirement in requirements().items():
        assert ">" in str(requirement.specifier), f"{requirement} has no lower bound"
        assert "<" in str(requirement.specifier), f"{requirement} is open above"
        assert requirement.specifier.contains(constraints()[name]), f"{requirement} excludes {constraints()[name]}"


def test_torch_and_torchvision_belong_together() -> None:
    assert (constraints()["torch"], constraints()["torchvision"]) == ("2.14.1", "0.29.1")
    assert constraints()["pytorch-lightning"] not in ("2.6.2", "2.6.3")  # malicious releases


def test_citation_and_changelog_are_of_this_version() -> None:
    citation = YAML(typ="safe", pure=True).load(ROOT / "CITATION.cff")
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert citation["references"][0]["doi"] == "10.1177/11779322241272387"
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# the commands


def test_the_readme_gives_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert RUN_COMMAND in readme
    assert TEST_COMMAND in readme


def test_ci_runs_the_readmes_test_command() -> None:
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert TEST_COMMAND in lines
    assert "set -eu" in lines


@pytest.mark.parametrize("module", re.findall(r"python -m ([a-z_]+\.[a-z_]+)", (ROOT / "CHANGELOG.md").read_text()))
def test_the_commands_named_exist(module: str) -> None:
    file = ROOT / f"{module.replace('.', '/')}.py"
    assert 'if __name__ == "__main__":' in file.read_text(encoding="utf-8")


FAKE_PYTHON = """\
#!/usr/bin/env bash
echo "$*" >> "{log}"
case "$*" in
    *"version_info[:2] <="*) exit {too_old} ;;
    *"import ensurepip"*) exit {no_ensurepip} ;;
    *'%d.%d'*) echo 3.12 ;;
    --version) echo "Python 3.9.1" ;;
    *"venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *"--editable"*) exit {no_install} ;;
esac
"""


def run_setup(folder: Path, too_old: int = 0, no_ensurepip: int = 0, no_install: int = 0) -> tuple[int, str, str]:
    """Run .ci/setup in a folder with a Python that only notes what it is asked; its code, output and those notes."""
    (folder / ".ci").mkdir(exist_ok=True)
    for name in (".ci/setup", ".ci/constraints.txt", "pyproject.toml"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    log, python = folder / "calls", folder / "python3"
    log.write_text("")
    fake = FAKE_PYTHON.format(log=log, too_old=too_old, no_ensurepip=no_ensurepip, no_install=no_install)
    python.write_text(fake)
    python.chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHON": str(python)}
    command = ["bash", ".ci/setup"]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout + result.stderr, log.read_text()


def test_setup_upgrades_pip_first_and_installs_under_the_constraints(tmp_path: Path) -> None:
    code, output, calls = run_setup(tmp_path)
    assert code == 0, output
    installs = [line for line in calls.splitlines() if "pip install" in line]
    assert "--upgrade pip>=26" in installs[0]
    assert installs[1].endswith("--constraint .ci/constraints.txt --editable .[test]")


def test_a_second_setup_does_nothing(tmp_path: Path) -> None:
    run_setup(tmp_path)
    code, output, calls = run_setup(tmp_path)
    assert (code, output) == (0, "")
    assert "pip" not in calls


def test_a_failed_install_is_tried_again(tmp_path: Path) -> None:
    code, _, _ = run_setup(tmp_path, no_install=1)
    assert code != 0
    (tmp_path / ".venv/bin/python").write_text((tmp_path / ".venv/bin/python").read_text().replace("exit 1", "exit 0"))
    code, _, calls = run_setup(tmp_path)
    assert code == 0
    assert "--editable" in calls


def test_setup_names_an_old_python(tmp_path: Path) -> None:
    code, output, _ = run_setup(tmp_path, too_old=1)
    assert code == 2
    assert "Python 3.11, 3.12 or 3.13 is needed, found Python 3.9.1" in output
    assert not (tmp_path / ".venv").exists()


def test_setup_names_a_missing_ensurepip(tmp_path: Path) -> None:
    code, output, _ = run_setup(tmp_path, no_ensurepip=1)
    assert code == 2
    assert "ensurepip is missing" in output
    assert "sudo apt install python3.12-venv" in output


def test_the_readmes_pictures_exist_and_no_gap_is_left() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert pictures
    assert not [picture for picture in pictures if not (ROOT / picture).is_file()]
    assert "RESULTS_TABLE" not in text
