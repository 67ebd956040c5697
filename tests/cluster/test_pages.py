"""The pages beside the code say what the code says: messages, links, commands, variables."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.cluster.heads import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TROUBLESHOOTING = ROOT / "search" / "troubleshooting.md"
PACKAGES = ("analysis", "cluster", "data_io", "postprocess", "search")
PAGES = sorted(
    [
        *(page for package in PACKAGES for page in (ROOT / package).rglob("*.md")),
        ROOT / "README.md",
        ROOT / "tests" / "faults" / "README.md",
    ]
)


@cache
def texts_of_the_code() -> str:
    """Return every text in the code, the values in messages as ``\\0``."""
    found = []
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(" ".join(text.split()) for text in found)


def messages(part: str) -> list[str]:
    """Return the quoted messages in the first column of the tables of a page's part."""
    rows = re.findall(r"^\| (`.*?) \| ", part, re.MULTILINE)
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row)]


def ours_and_rays() -> tuple[str, str]:
    page = TROUBLESHOOTING.read_text(encoding="utf-8").split("## It ends, but")[0]
    ours, rays = page.split("What Ray itself says:")
    return ours, rays


@pytest.mark.parametrize("message", messages(ours_and_rays()[0]))
def test_a_message_of_ours_stands_in_the_code(message: str) -> None:
    pattern = ".*".join(re.escape(part.strip()) for part in message.split("..."))
    assert re.search(pattern, texts_of_the_code()), message


def test_the_page_lists_many_messages() -> None:
    ours, rays = ours_and_rays()
    assert len(messages(ours)) > 60
    assert len(messages(rays)) > 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, heading = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}, target


def code(page: str) -> list[str]:
    """Return the lines that a page shows as code: those of its blocks, and what stands between backticks."""
    blocks = re.findall(r"```[a-z]*\n(.*?)```", page, re.DOTALL)
    inline = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))
    return [line for block in blocks for line in block.splitlines()] + [" ".join(text.split()) for text in inline]


def commands() -> list[tuple[str, str]]:
    """Return the commands that the pages and the files for users tell to type: module and arguments."""
    scripts = re.compile(r"^#? *(?:sbatch )?cluster/(?:slurm|machines)\.sh (?:submit )?(--.*)$")
    typed = re.compile(rf"python -m ((?:{'|'.join(PACKAGES)})\.[a-z_]+) (?! )(.*)")
    lines = [line for page in PAGES for line in code(page.read_text(encoding="utf-8"))]
    for file in [*(ROOT / "cluster").rglob("*.yaml"), *(ROOT / "cluster").glob("*.sh")]:
        lines += file.read_text(encoding="utf-8").replace("\\\n#", " ").splitlines()
    found = [told for line in lines for told in typed.findall(line)]
    found += [("search.run", arguments) for line in lines for arguments in scripts.findall(line)]
    cut = {(module, re.split(r"  | [#|>&]|'$", arguments)[0].strip()) for module, arguments in found}
    return sorted((module, arguments) for module, arguments in cut if not re.search(r"\$|\.\.\.", arguments))


class Understood(Exception):
    """The arguments were read."""


@pytest.mark.parametrize(("module", "arguments"), commands())
def test_the_commands_that_the_pages_name_are_understood(
    module: str, arguments: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if module == "search.run":
        from search.options import parse

        options = parse(shlex.split(arguments))
        if options.resume is None and options.replay is None:
            assert options.config()
        return
    usual = argparse.ArgumentParser.parse_args

    def parse_args(parser: argparse.ArgumentParser, *given: object, **more: object) -> None:
        usual(parser, *given, **more)  # type: ignore[call-overload]
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    with pytest.raises(Understood):
        importlib.import_module(module).main(shlex.split(arguments))


def test_the_pages_name_many_commands() -> None:
    assert {module for module, _ in commands()} >= {
        "analysis.compare", "analysis.score", "cluster.health", "data_io.check", "data_io.convert", "data_io.synthetic",
        "postprocess.run", "search.doctor", "search.predict", "search.run", "search.wandb_sync",
    }  # fmt: skip
    assert sum(module == "search.run" for module, _ in commands()) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_settings_that_a_page_names_are_settings(page: Path) -> None:
    from search.config import Config

    sections = {
        name: field.annotation.model_fields
        for name, field in Config.model_fields.items()
        if hasattr(field.annotation, "model_fields")
    }
    text = page.read_text(encoding="utf-8")
    named = re.findall(rf"(?<![\w/.])({'|'.join(sections)})\.(?!json\b|csv\b|yaml\b|zarr\b)([a-z_]+)", text)
    assert not [f"{section}.{name}" for section, name in named if name not in sections[section]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_and_variables_are_real(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for module in re.findall(r"python -m\s+([a-z_]+(?:\.[a-z_]+)+)", text):
        assert 'if __name__ == "__main__":' in (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    for variable in re.findall(r"\bSEARCH_[A-Z_]+\b", text):
        assert variable in texts_of_the_code()
    for path in re.findall(r"(?:`|python |pytest )(tests/[a-z_/]+\.py)", text):
        assert (ROOT / path).is_file(), path


def test_the_sweep_of_agents_is_one_trial_of_the_search() -> None:
    from ruamel.yaml import YAML

    from search.options import parse

    (block,) = re.findall(r"```yaml\n# sweep\.yaml\n(.*?)```", (ROOT / "cluster" / "README.md").read_text(), re.DOTALL)
    sweep = YAML(typ="safe", pure=True).load(block)
    chosen = {name: choice.get("value") or choice["values"][0] for name, choice in sweep["parameters"].items()}
    before, after = sweep["command"][:4], sweep["command"][4:]
    assert before == ["${env}", "python", "-m", "search.run"]
    assert after.pop() == "${args_no_hyphens}"
    options = parse([*after, *(f"{name}={value}" for name, value in chosen.items())])
    assert options.one_trial
    config = options.config()
    assert config.space.targets == ("star",)
    assert config.tracking.wandb == "online"
