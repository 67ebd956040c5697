"""A model hub on this machine that speaks the Hugging Face protocol, so that the libraries' real loading code runs.

    with Hub() as hub:
        hub.add("smp-hub/resnet18.imagenet", {"model.safetensors": ..., "config.json": b"{}"})
        hub.connect(monkeypatch, cache)

A file is asked for with HEAD at ``/OWNER/NAME/resolve/REVISION/FILE``. Small files are answered there, with ETag and
X-Repo-Commit; weights are a redirect to another host (the hub's storage network) with X-Linked-Etag and X-Linked-Size.
What is missing is a 404 with X-Error-Code.
"""

from __future__ import annotations

import hashlib
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import safetensors.torch
import segmentation_models_pytorch as smp
import timm
import torch

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    import pytest

MAIN = "0123456789abcdef0123456789abcdef01234567"
"""The commit that a branch stands for."""


class Hub:
    """The server; `asked` lists the paths it was asked for with GET."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        self.truncates = False
        self.answers = threading.Event()
        self.answers.set()
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self) -> Hub:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.answers.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def add_smp(self, encoder: str, name: str) -> None:
        """Serve random weights of an encoder of segmentation-models-pytorch."""
        repository = smp.encoders.encoders[encoder]["pretrained_settings"][name]["repo_id"]
        self.add(repository, smp.encoders.get_encoder(encoder, weights=None).state_dict())

    def add_timm(self, model: str) -> None:
        """Serve random weights of a timm model, classifier included."""
        repository = timm.models.get_pretrained_cfg(model).hf_hub_id
        self.add(repository, timm.create_model(model).state_dict())

    def add(self, repository: str, state: dict[str, torch.Tensor]) -> None:
        """Serve a repository with these weights, a little changed: running averages are not those of a new model."""
        changed = {k: v + torch.rand_like(v) / 100 if v.is_floating_point() else v + 7 for k, v in state.items()}
        self.files[repository] = {"config.json": b"{}", "model.safetensors": safetensors.torch.save(changed)}

    def connect(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        """Send this process's hub client here (what HF_ENDPOINT and HF_HOME do before it is imported)."""
        from huggingface_hub import constants

        endpoint = f"http://127.0.0.1:{self.port}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self.hub.asked.append(self.path)
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.hub.answers.wait()
        repository, _, rest = self.path.removeprefix("/storage").removeprefix("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        files = self.hub.files.get(repository)
        if files is None or name not in files:
            self._send(404, {"X-Error-Code": "RepoNotFound" if files is None else "EntryNotFound"})
            return
        data = files[name]
        etag = f'"{_sha256(data)}"'
        commit = {"X-Repo-Commit": revision if len(revision) == 40 else MAIN}
        if self.path.startswith("/storage/"):
            sent = data[: len(data) // 2] if self.hub.truncates else data
            self._send(200, {"ETag": etag}, sent, body=body)
        elif name.endswith(".safetensors"):
            place = {"Location": f"http://localhost:{self.hub.port}/storage{self.path}"}
            self._send(302, commit | place | {"X-Linked-Etag": etag, "X-Linked-Size": str(len(data))})
        else:
            self._send(200, commit | {"ETag": etag}, data, body=body)

    def _send(self, status: int, headers: dict[str, str], data: bytes = b"", *, body: bool = True) -> None:
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@cache
def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
