"""A W&B server in this process that knows just enough: sweeps, runs, histories, artifacts and one agent.

What it answers was written down from what a wandb 0.31 client asks; it proves what goes over the wire, not what the
hosted service makes of it.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = {"id": "UHJvamVjdA==", "name": "cellsearch", "entity": {"id": "RW50aXR5", "name": "lab"}}
VIEWER = {
    "id": "VXNlcg==",
    "username": "lab",
    "entity": "lab",
    "email": "",
    "admin": False,
    "flags": "{}",
    "teams": {"edges": []},
}
SERVER = {"features": [], "cliVersionInfo": {"max_cli_version": "0.31.0"}, "latestLocalVersionInfo": None}


@dataclass
class WandbStub:
    """A server on a free port of this machine, in use as a context manager.

    Parameters
    ----------
    refuses
        Operations answered with a GraphQL error.
    knows_sweeps
        Whether a run of a sweep that was never registered is refused.
    silent
        Whether requests are taken and never answered.
    commands
        What the agent is told, one list per heartbeat; afterwards to leave.
    command
        The command of every sweep, as an agent reads it.
    """

    refuses: tuple[str, ...] = ()
    knows_sweeps: bool = False
    silent: bool = False
    commands: list[list[dict[str, Any]]] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    sweeps: list[dict[str, Any]] = field(default_factory=list)
    buckets: list[dict[str, Any]] = field(default_factory=list)
    streams: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"stub": self})
        self.stopped = threading.Event()
        self.server = _Server(("127.0.0.1", 0), handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        """Address for WANDB_BASE_URL."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def environment(self) -> dict[str, str]:
        """Return the variables that send a client here."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "0123456789" * 4}

    def rows(self, run: str) -> list[dict[str, Any]]:
        """Return the history rows that were streamed for a run."""
        lines: Iterator[str] = (
            line
            for body in self.streams.get(run, [])
            for line in body.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
        )
        return [json.loads(line) for line in lines]

    def runs(self) -> dict[str, dict[str, Any]]:
        """Return what the runs said of themselves, by their id."""
        merged: dict[str, dict[str, Any]] = {}
        for bucket in self.buckets:
            said = {name: value for name, value in bucket.items() if value is not None}
            merged.setdefault(bucket["name"], {}).update(said)
        return merged

    def config(self, run: str) -> dict[str, Any]:
        """Return the configuration of a run, W&B's own part left out."""
        whole = json.loads(self.runs()[run]["config"])
        return {name: entry["value"] for name, entry in whole.items() if name != "_wandb"}

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Answer one operation."""
        found = re.search(r"(?:query|mutation)\s+(\w+)", query)
        name = found.group(1) if found else ""
        self.operations.append(name)
        if name in self.refuses:
            return {"errors": [{"message": f"{name} is refused"}], "data": None}
        answer = getattr(self, f"_{name.lower()}", None)
        if answer is None:
            return {"data": {}}
        try:
            return {"data": answer(variables)}
        except LookupError as fault:
            return {"errors": [{"message": str(fault)}], "data": None}

    def _viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": VIEWER}

    def _serverinfo(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": SERVER, "viewer": VIEWER}

    def _upsertsweep(self, variables: dict[str, Any]) -> dict[str, Any]:
        self.sweeps.append(variables)
        sweep = {"name": f"sweep{len(self.sweeps)}", "project": PROJECT}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def _upsertbucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        sweep = variables.get("sweep")
        if self.knows_sweeps and sweep and sweep not in {f"sweep{n + 1}" for n in range(len(self.sweeps))}:
            raise LookupError(f"sweep {sweep} not found")
        inserted = variables["name"] not in {bucket["name"] for bucket in self.buckets}
        self.buckets.append(variables)
        bucket = {
            "id": f"id-{variables['name']}",
            "name": variables["name"],
            "displayName": variables.get("displayName"),
            "description": "",
            "config": "{}",
            "sweepName": sweep,
            "project": PROJECT,
            "historyLineCount": 0,
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _runresumestatus(self, variables: dict[str, Any]) -> dict[str, Any]:
        model = {"id": PROJECT["id"], "name": PROJECT["name"], "entity": PROJECT["entity"], "bucket": None}
        return {"model": model}

    def _createrunfiles(self, variables: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/put/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}

    def _artifacttype(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def _createartifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        said = variables.get("input") or variables
        self.artifacts.append(said)
        artifact = {"id": f"artifact{len(self.artifacts)}", "state": "PENDING"}
        return {"createArtifact": {"artifact": {**artifact, "artifactSequence": {"id": "s", "latestArtifact": None}}}}

    def _createartifactmanifest(self, variables: dict[str, Any]) -> dict[str, Any]:
        said = variables.get("input") or variables
        file = {
            "id": "file",
            "name": "manifest",
            "displayName": "manifest",
            "uploadUrl": f"{self.url}/put/manifest/{said.get('artifactID', '')}",
            "uploadHeaders": [],
        }
        return {"createArtifactManifest": {"artifactManifest": {"id": "manifest", "file": file}}}

    def _createartifactfiles(self, variables: dict[str, Any]) -> dict[str, Any]:
        said = variables.get("input") or variables
        edges = [
            {
                "node": {
                    "id": spec["name"],
                    "name": spec["name"],
                    "displayName": spec["name"],
                    "uploadUrl": f"{self.url}/put/artifact/{spec['name']}",
                    "uploadHeaders": [],
                    "storagePath": f"artifact/{spec['name']}",
                    "artifact": {"id": spec["artifactID"]},
                }
            }
            for spec in said["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _commitartifact(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"commitArtifact": {"artifact": {"id": "artifact", "digest": "0"}}}

    def _sweep(self, variables: dict[str, Any]) -> dict[str, Any]:
        sweep = {
            "id": variables["sweep"],
            "name": variables["sweep"],
            "method": "custom",
            "state": "RUNNING",
            "description": "",
            "bestLoss": None,
            "controller": None,
            "scheduler": None,
            "createdAt": "2026-01-01T00:00:00Z",
            "config": json.dumps({"method": "custom", "command": self.command}),
            "runs": {"edges": []},
        }
        return {"project": {"sweep": sweep}}

    _sweepwithruns = _sweep

    def _createagent(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"createAgent": {"agent": {"id": "agent1"}}}

    def _heartbeat(self, variables: dict[str, Any]) -> dict[str, Any]:
        running = json.loads(variables.get("runState") or "{}")
        last: list[dict[str, Any]] = [] if running else [{"type": "exit"}]
        commands = self.commands.pop(0) if self.commands else last
        return {"agentHeartbeat": {"agent": {"id": "agent1"}, "commands": json.dumps(commands)}}

    _agentheartbeat = _heartbeat


class _Server(ThreadingHTTPServer):
    """A server that takes it calmly when a client hangs up."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print every fault but a connection that was reset."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One request; the class that serves knows its stub."""

    stub: WandbStub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer the question whether anybody is there."""
        self._answer({})

    def do_PUT(self) -> None:
        """Keep an uploaded file."""
        self.stub.uploads[self.path.removeprefix("/put/")] = self._body()
        self._answer({})

    def do_POST(self) -> None:
        """Answer GraphQL, or keep a piece of a run's stream."""
        body = self._body()
        if self.stub.silent:
            self.stub.stopped.wait()
            self.close_connection = True
        elif self.path.endswith("/graphql"):
            said = json.loads(body)
            self._answer(self.stub.graphql(said["query"], said.get("variables") or {}))
        elif found := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            self.stub.streams.setdefault(found.group(1), []).append(json.loads(body))
            self._answer({"exitcode": None, "limits": {}})
        else:
            self._answer({})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Say nothing."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _answer(self, data: dict[str, Any]) -> None:
        body = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
