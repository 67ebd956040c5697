from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from data_io import job_folder
from data_io.errors import BadInput
from search import destination


@dataclass(frozen=True)
class Node:
    host: str
    address: str

    @property
    def id(self) -> str:
        return self.host


NODES = [Node("head", "10.0.0.1"), Node("gpu1", "10.0.0.2"), Node("gpu2", "10.0.0.3")]


def test_on_a_workstation_a_run_goes_where_it_is_told_else_into_a_numbered_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert destination.outside_a_job(Path("results")) == tmp_path / "results"
    assert destination.outside_a_job(None) == tmp_path / "runs" / "0001"


def test_what_an_agent_starts_has_a_folder_of_its_own_wherever_others_start_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    agent = {"WANDB_SWEEP_ID": "sweep1", "WANDB_RUN_ID": "k3x9"}
    assert destination.outside_a_job(None, agent) == tmp_path / "runs" / "k3x9"
    assert destination.outside_a_job(Path("results"), agent) == tmp_path / "results"
    assert destination.outside_a_job(None, agent | {"WANDB_RUN_ID": "../x"}) == tmp_path / "runs" / "0001"
    assert destination.outside_a_job(None, {"WANDB_RUN_ID": "k3x9"}) == tmp_path / "runs" / "0001"


def test_a_relative_folder_is_refused_in_a_job() -> None:
    with pytest.raises(BadInput, match=r"^--out results: a Ray job works in a temporary copy .*; give a path"):
        destination.in_a_job(Path("results"), {}, 1)
    with pytest.raises(BadInput, match=r"^SEARCH_STORAGE runs: a Ray job works in a temporary copy"):
        destination.in_a_job(None, {"SEARCH_STORAGE": "runs"}, 1)


WRITERS = {
    "data_io.check movie --out pages": "--out pages",
    "data_io.convert movie movie.zarr": "movie.zarr",
    "data_io.synthetic movies": "movies",
    "data_io.synthetic": "synthetic_paper_0",
    "postprocess.run results": "results",
    "postprocess.measure /labels --out cells.csv": "--out cells.csv",
    "analysis.compare results": "results",
    "analysis.compare a=/a.csv b=/b.csv --out pages": "--out pages",
    "search.predict results": "results",
    "search.predict /run --images /frames --out measured": "--out measured",
    "search.export results/best/star": "results/best/star",
    "search.export /run/best/star --out star.zip": "--out star.zip",
}
"""Commands that write to a folder of the one who types them, and the output as the refusal names it."""


@pytest.mark.parametrize("command", WRITERS)
def test_every_command_that_writes_refuses_a_relative_output_inside_a_job(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module, *arguments = command.split()
    main = import_module(module).main
    output = WRITERS[command]
    monkeypatch.setenv(job_folder.IN_A_JOB, "{}")
    with pytest.raises(BadInput) as refused:
        main(arguments)
    place = Path(output.split()[-1]).name
    remedy = f"give a path from the root that every node sees, such as /shared/{place}"
    assert str(refused.value).startswith(f"{output}: a Ray job works in a temporary copy of your folder")
    assert str(refused.value).endswith(f"; {remedy}")
    assert not list(tmp_path.iterdir())


def test_outside_a_job_and_for_a_place_that_stays_nothing_is_refused(tmp_path: Path) -> None:
    job_folder.refuse_lost("results", environment={})
    for place in (tmp_path, "/shared/results", "s3://bucket/results"):
        job_folder.refuse_lost(place, environment={job_folder.IN_A_JOB: "{}"})


def test_what_is_asked_for_comes_first_then_the_variable_then_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    variable = {"SEARCH_STORAGE": str(tmp_path / "shared")}
    (tmp_path / "shared" / "0004").mkdir(parents=True)
    assert destination.in_a_job(tmp_path / "run", variable, 3) == (tmp_path / "run", "as asked for")
    assert destination.in_a_job(None, variable, 3)[0] == tmp_path / "shared" / "0005"
    assert destination.in_a_job(None, {}, 1)[0] == tmp_path / "home" / "cellsearch-runs" / "0001"


def test_in_an_object_store_a_new_run_is_named_by_the_time() -> None:
    place, why = destination.in_a_job(None, {"SEARCH_STORAGE": "s3://bucket/runs/"}, 3)
    assert re.fullmatch(r"s3://bucket/runs/\d{8}-\d{6}", str(place))
    assert why == "SEARCH_STORAGE is s3://bucket/runs/"
    asked = "s3://bucket/first"
    assert destination.in_a_job(asked, {}, 3) == (asked, "as asked for")


def test_several_nodes_need_a_place() -> None:
    with pytest.raises(BadInput, match=r"no place for the run: this cluster has 3 nodes; give --out or set"):
        destination.in_a_job(None, {}, 3)


def test_a_folder_that_some_node_does_not_see_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "first"
    seen: list[Path] = []

    def blind(folder: Path, nodes: list[Node]) -> list[Node]:
        assert folder.is_dir()
        seen.append(folder)
        return nodes[1:]

    with pytest.raises(BadInput, match=r"2 of 3 nodes do not see .*\(gpu1 10\.0\.0\.2, gpu2 10\.0\.0\.3\); give"):
        destination.check_seen(run, NODES, blind)
    assert seen == [run]
    assert not run.exists()


def test_one_node_and_object_stores_are_not_asked(tmp_path: Path) -> None:
    def blind(folder: Path, nodes: list[Node]) -> list[Node]:
        raise AssertionError(folder)

    destination.check_seen(tmp_path / "run", NODES[:1], blind)
    destination.check_seen("s3://bucket/run", NODES, blind)


def test_an_existing_run_is_kept_by_the_look(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_text("")
    destination.check_seen(tmp_path, NODES, lambda folder, nodes: [])
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.jsonl"]


def test_data_that_did_not_come_along_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"^movie: not here; a Ray job works in a copy of your folder without the data"):
        destination.check_data("movie")
    (tmp_path / "movie").mkdir()
    for place in (None, "movie", "/shared/movie", "s3://bucket/movie.zarr"):
        destination.check_data(place)


def test_a_node_that_cannot_use_the_object_store_is_named_before_anything_begins() -> None:
    from cluster.joined import without_reach

    lacks = "s3://bucket/movie.zarr: s3:// needs more packages; `pip install 'cellsearch[s3]'`"

    def asked(nodes, question, place):
        assert question("s3:///") == "s3:///: not a place in a bucket; write it as s3://bucket/name.zarr"
        return {node.id: lacks if place.endswith(".zarr") and node.id == "gpu1" else "" for node in nodes}

    def without(place, nodes):
        return without_reach(place, nodes, asked)

    assert without_reach("s3://bucket/run", NODES, lambda *_: {}) == [
        f"{node.host} {node.address}: s3://bucket/run: no answer from this node" for node in NODES
    ]
    destination.check_reached(["s3://bucket/run", None], NODES, without)
    destination.check_reached(["s3://bucket/run", "s3://bucket/movie.zarr"], NODES[:1], without)
    with pytest.raises(BadInput, match=f"^{re.escape(f'{NODES[1].host} {NODES[1].address}: {lacks}')}$"):
        destination.check_reached([Path("/shared/run"), "s3://bucket/movie.zarr"], NODES, without)
