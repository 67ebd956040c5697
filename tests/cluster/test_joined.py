from __future__ import annotations

import os
import stat
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from cluster import joined, token
from cluster.joined import Node, asks_for_token, blind_nodes, is_loopback, is_open, refuse_open, within_reach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HERE, THERE = Node("a", "10.0.0.1", "head", {}), Node("b", "10.0.0.2", "gpu1", {})
TOKEN = {"RAY_AUTH_MODE": "token"}


@contextmanager
def dashboard(code: int) -> Iterator[str]:
    """Give the address of a server that answers every request with `code`."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def on_nodes(see: set[str]) -> Callable[..., dict[str, Any]]:
    """Return an `ask` whose nodes see the folder, or not."""

    def asked(nodes: list[Node], question: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        return {node.id: question(*arguments) if node.id in see else "" for node in nodes}

    return asked


def test_nodes_that_see_the_folder_leave_a_word_and_nothing_stays(tmp_path: Path) -> None:
    assert blind_nodes(tmp_path, [HERE, THERE], on_nodes({"a", "b"})) == []
    assert blind_nodes(tmp_path, [HERE, THERE], on_nodes({"a"})) == [THERE]
    assert not list(tmp_path.iterdir())


def test_a_node_with_a_folder_of_its_own_is_blind(tmp_path: Path) -> None:
    def asked(nodes: list[Node], question: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        return {node.id: str(tmp_path / "never written") for node in nodes}

    joined_before = joined.SEEN_SECONDS
    joined.SEEN_SECONDS = 0.2
    try:
        assert blind_nodes(tmp_path, [THERE], asked) == [THERE]
        assert blind_nodes(tmp_path, [THERE], lambda *_: {}) == [THERE]  # no answer
    finally:
        joined.SEEN_SECONDS = joined_before


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:8265", True),
        ("localhost:8265", True),
        ("[::1]:8265", True),
        ("10.0.0.1:8265", False),
        ("0.0.0.0:8265", False),
        ("head:8265", False),
    ],
)
def test_loopback(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


def test_a_dashboard_that_takes_anyones_request_is_open_whatever_the_mode() -> None:
    with dashboard(200) as address:
        assert not asks_for_token(address, TOKEN)
    with dashboard(401) as address:
        assert asks_for_token(address, TOKEN)
        assert not asks_for_token(address, {})
    assert asks_for_token("127.0.0.1:1", TOKEN)  # not to be reached: what the processes were told


def test_machines_without_a_token_are_open_one_machine_is_not() -> None:
    assert is_open([HERE, THERE], HERE.address, "", {})
    assert not is_open([HERE, THERE], HERE.address, "", TOKEN)
    assert not is_open([HERE, HERE], HERE.address, "127.0.0.1:8265", {})
    assert is_open([HERE], HERE.address, "10.0.0.1:8265", {})  # its dashboard is for all


def test_a_cluster_of_one_machine_whose_ports_take_anyones_call_is_told() -> None:
    with dashboard(200) as address:
        (told,) = within_reach("10.0.0.1:6379", address, {})
        assert told.startswith("the Ray cluster 10.0.0.1:6379 asks for no token, and whoever reaches its ports")
        assert not within_reach("127.0.0.1:6379", address, {})
    with dashboard(401) as address:
        assert not within_reach("10.0.0.1:6379", address, TOKEN)


def test_an_open_cluster_is_refused_unless_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv(joined.ALLOW, raising=False)
    with pytest.raises(ConnectionError, match=r"10\.0\.0\.1:6379 \(2 nodes\) runs the code of anyone .*RAY_AUTH_MODE"):
        refuse_open("10.0.0.1:6379", [HERE, THERE], HERE.address, "")
    monkeypatch.setenv(joined.ALLOW, "1")
    refuse_open("10.0.0.1:6379", [HERE, THERE], HERE.address, "")


def test_the_token_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "ray" / "token"
    environment = {"RAY_AUTH_TOKEN_PATH": str(file)}
    token.make_private(environment)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    made = file.read_text()
    assert len(made) == 64
    file.chmod(0o644)
    assert not token.is_private(file)
    token.make_private(environment)
    assert file.read_text() == made
    assert token.is_private(file)


def test_an_empty_file_gets_a_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.touch()
    token.make_private({"RAY_AUTH_TOKEN_PATH": str(file)})
    assert len(file.read_text()) == 64
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("other", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "x" * 32}])
def test_no_file_is_made_where_none_is_used(tmp_path: Path, other: dict[str, str]) -> None:
    token.make_private({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")} | other)
    assert not (tmp_path / "token").exists()


def test_the_default_file_is_rays_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ray._private.authentication.authentication_token_setup import _get_default_token_path

    monkeypatch.setenv("HOME", str(tmp_path))
    assert token.token_file({}) == _get_default_token_path() == tmp_path / ".ray" / "auth_token"
    assert os.environ["HOME"] == str(tmp_path)
