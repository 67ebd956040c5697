from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cluster import health, joined
from cluster.joined import Node

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

HEAD = Node("a", "10.0.0.1", "head", {"CPU": 8, "memory": 16e9})
GPU = Node("b", "10.0.0.2", "gpu1", {"CPU": 16, "GPU": 2, "memory": 64e9})
SAME = {"python": "3.11.9", "ray": "2.60.0"}


def test_a_line_says_what_a_node_has() -> None:
    shown = health.lines([HEAD, GPU], {"a": SAME})
    assert shown[0] == "head 10.0.0.1: 8 CPUs, 0 GPUs, 16 GB; python 3.11.9, ray 2.60.0"
    assert shown[1] == "gpu1 10.0.0.2: 16 CPUs, 2 GPUs, 64 GB; no answer"


def test_another_version_somewhere_is_a_fault() -> None:
    assert health.different([HEAD, GPU], {"a": SAME, "b": SAME}) == []
    (fault,) = health.different([HEAD, GPU], {"a": SAME, "b": SAME | {"ray": "2.59.0"}})
    assert fault == "ray is 2.60.0 on head, but gpu1 has 2.59.0; install the same"


def test_this_machine_knows_its_versions() -> None:
    versions = health.of_this_node()
    assert set(versions) == {"python", *health.PACKAGES}
    assert "missing" not in versions.values()


def test_no_cluster_is_told_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    def nobody(**_: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", nobody)
    monkeypatch.setattr(health, "address_file", lambda: tmp_path / "none")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert health.main([]) == 2
    assert (
        "error: no Ray cluster at auto (Could not find any running Ray instance); start one" in capsys.readouterr().err
    )


def test_an_address_that_does_not_answer_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    def asks_for_ever(**_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(ray, "init", asks_for_ever)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "ray_current_cluster").write_text("127.0.0.1:1")
    monkeypatch.setattr(health, "address_file", lambda: tmp_path / "ray_current_cluster")
    for arguments in ([], ["--address", "127.0.0.1:1"], ["--address", "ray://127.0.0.1:1"]):
        assert health.main(arguments) == 2
        said = capsys.readouterr().err
        assert re.match(r"error: no Ray cluster at (ray://)?127\.0\.0\.1:1 \(it does not answer\); start one", said)


def test_storage_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    assert health._storage_faults(tmp_path / "none", [HEAD]) == [f"{tmp_path / 'none'}: no such folder on this machine"]


def test_an_object_store_is_a_fault_of_the_nodes_that_cannot_use_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = "s3://bucket/run"
    answers = {"a": "", "b": f"{place}: no credentials; set AWS_ACCESS_KEY_ID"}
    monkeypatch.setattr(health, "without_reach", lambda place, nodes: joined.without_reach(place, nodes, asked))

    def asked(nodes: list[Node], *_: object) -> dict[str, str]:
        return {node.id: answers[node.id] for node in nodes}

    assert health._store_faults(place, [HEAD, GPU]) == [f"gpu1 10.0.0.2: {answers['b']}"]
    assert not capsys.readouterr().out
    assert not health._store_faults(place, [HEAD])
    assert capsys.readouterr().out == f"{place}: its bucket can be used by all 1 nodes\n"
