"""The pages beside the code say what the code says: messages, links, commands, variables."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.cluster.heads import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TROUBLESHOOTING = ROOT / "search" / "troubleshooting.md"
PAGES = sorted([*(ROOT / "cluster").rglob("*.md"), ROOT / "data_io" / "README.md", TROUBLESHOOTING])
PACKAGES = ("analysis", "cluster", "data_io", "postprocess", "search")


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


def commands() -> list[str]:
    """Return the searches that the pages and the files for users tell to type."""
    files = [*PAGES, *(ROOT / "cluster").rglob("*.yaml"), *(ROOT / "cluster").glob("*.sh")]
    scripts = re.compile(r"^#? *(?:sbatch )?cluster/(?:slurm|machines)\.sh (?:submit )?(--.*)$", re.MULTILINE)
    found: set[str] = set()
    for file in files:
        text = file.read_text(encoding="utf-8").replace("\\\n", " ")
        lines = [*re.findall(r"-m search\.run ([^`|#'\n]*)", text), *scripts.findall(text)]
        found |= {line.split(" > ")[0].strip() for line in lines if not re.search(r"\$[{@(]", line)}
    return sorted(found)


@pytest.mark.parametrize("command", commands())
def test_the_searches_that_the_pages_name_are_understood(command: str) -> None:
    from search.options import parse

    options = parse(shlex.split(command))
    if options.resume is None and options.replay is None:
        assert options.config()


def test_the_pages_name_many_searches() -> None:
    assert len(commands()) > 6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_and_variables_are_real(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for module in re.findall(r"python -m ([a-z_]+\.[a-z_]+)", text):
        assert 'if __name__ == "__main__":' in (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    for variable in re.findall(r"\bSEARCH_[A-Z_]+\b", text):
        assert variable in texts_of_the_code()
    for path in re.findall(r"`(tests/[a-z_/]+\.py)`", text):
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
