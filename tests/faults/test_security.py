"""The promises on security, S1 to S16: each row is a test named after it, or names the test that stands for it."""

from __future__ import annotations

import ast
import csv
import hashlib
import inspect
import io
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import zipfile
import zlib
from contextlib import contextmanager, suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image, PngImagePlugin

from data_io import check, convert, integrity
from data_io.errors import BadInput, entry_point
from data_io.files import slug
from data_io.location import located
from search import trust
from tests.faults import corpus, planted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("analysis", "cluster", "data_io", "postprocess", "search")
SOURCES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))

ELSEWHERE = {
    "S4": ["tests/test_foundation.py::test_no_forbidden_call"],
    "S8": [
        "tests/data_io/test_integrity.py::test_forged_metadata_are_refused",
        "tests/data_io/test_integrity.py::test_an_array_without_a_manifest_is_opened_only_if_it_is_harmless",
    ],
    "S9": [
        "tests/data_io/test_integrity.py::test_a_manifest_that_leads_out_of_the_store_is_refused",
        "tests/data_io/test_integrity.py::test_a_field_that_leads_out_of_the_store_is_refused",
        "tests/data_io/test_integrity.py::test_foreign_metadata_and_links_are_refused_and_litter_is_not",
    ],
    "S10": [
        "tests/data_io/test_rois.py::test_a_bomb_is_refused_unread",
        "tests/data_io/test_geojson.py::test_a_large_file_is_refused_unread",
        "tests/data_io/test_images.py::test_bombs_are_refused_before_they_are_decoded",
    ],
    "S11": ["tests/test_line.py::test_no_secret_is_in_what_a_complete_run_leaves"],
    "S12": ["tests/search/test_tracking.py::test_offline_the_process_knows_no_key"],
    "S16": ["tests/test_foundation.py::test_every_requirement_has_both_bounds_and_a_pin_between_them"],
}
"""Tests of a row that lie with what they test."""


def test_every_row_has_a_test() -> None:
    mine = {node.name for node in ast.parse(Path(__file__).read_text()).body if isinstance(node, ast.FunctionDef)}
    for row in (f"S{n}" for n in range(1, 17)):
        here = [name for name in mine if name.startswith(f"test_{row}_")]
        assert here or row in ELSEWHERE, f"{row} has no test"
        for named in ELSEWHERE.get(row, []):
            file, _, name = named.partition("::")
            assert (ROOT / file).is_file(), named
            assert f"def {name}" in (ROOT / file).read_text(), named


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a file that appears when something is executed; it must not."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "canary"
    yield file
    assert not file.exists(), "code of a file was run"


@pytest.fixture
def bounded() -> Iterator[None]:
    """Let the test take 20 s and 2 GiB of memory more, no more."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, limits[1]))
    began = time.monotonic()
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)
    assert time.monotonic() - began < 20


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    """Return a folder with a movie of five frames."""
    return corpus.write_movie(tmp_path / "movie")


def refused(command: Callable[[list[str]], int], *arguments: object) -> int | str | None:
    """Run a command as from a shell and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        entry_point(lambda _: command(list(map(str, arguments))))
    return ended.value.code


# --- S1, S3 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addresses", "dashboard", "mode", "is_open"),
    [
        (["10.0.0.1"], "127.0.0.1:8265", "", False),
        (["10.0.0.1"], "", "", False),
        (["10.0.0.1"], "0.0.0.1:8265", "", True),
        (["10.0.0.1", "10.0.0.2"], "127.0.0.1:8265", "", True),
        (["10.0.0.1", "10.0.0.2"], "", "token", False),
    ],
)
def test_S1_a_cluster_beyond_this_machine_without_a_token_is_refused(
    addresses: list[str], dashboard: str, mode: str, is_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster import joined

    nodes = [joined.Node(str(at), address, address, {}) for at, address in enumerate(addresses)]
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.delenv(joined.ALLOW, raising=False)
    if not is_open:
        joined.refuse_open("10.0.0.1:6379", nodes, "10.0.0.1", dashboard)
        return
    with pytest.raises(ConnectionError, match=r"asks for no token; start it with RAY_AUTH_MODE=token") as refused:
        joined.refuse_open("10.0.0.1:6379", nodes, "10.0.0.1", dashboard)
    assert "--allow-insecure-cluster" in str(refused.value)
    monkeypatch.setenv(joined.ALLOW, "1")
    joined.refuse_open("10.0.0.1:6379", nodes, "10.0.0.1", dashboard)


def test_S3_the_token_file_is_the_owners_alone(tmp_path: Path) -> None:
    from cluster.token import TOKEN_FILE, is_private, make_private

    file = tmp_path / "ray/auth_token"
    make_private({TOKEN_FILE: str(file)})
    assert file.stat().st_mode & 0o777 == 0o600
    token = file.read_text()
    assert len(token) >= 32
    file.chmod(0o644)  # as Ray itself makes it
    assert not is_private(file)
    make_private({TOKEN_FILE: str(file)})
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text() == token


# --- S2 -----------------------------------------------------------------------------------------------------------


def test_S2_nothing_binds_every_address() -> None:
    everywhere = re.compile(
        r"""["'=\s]0\.0\.0\.0\b|["']::["'](?! in )|(host|bind|address)["'\s:=]+\*|bind\(\(["']{2}"""
    )
    for line in ("--dashboard-host=0.0.0.0", "x: '0.0.0.0:80'", 'bind(("", 0))', "bind(('0.0.0.0', 1))", "host: '*'"):
        assert everywhere.search(line), line
    files = [*SOURCES, *(p for p in (ROOT / "cluster").rglob("*") if p.suffix in (".yaml", ".yml", ".sh"))]
    bound = [f"{file}: {line}" for file in files for line in file.read_text().splitlines() if everywhere.search(line)]
    assert not bound


# --- S4: nothing is unpickled or executed ---------------------------------------------------------------------------

RUNS_CODE = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput", "torch.jit.load",
    "subprocess.getstatusoutput", "torch.hub.load", "shutil.unpack_archive", "tempfile.mktemp", "ctypes.CDLL",
}  # fmt: skip
ENDINGS = (".read_pickle", ".to_pickle", ".unsafe_load", ".full_load", ".load_extension", ".extractall", ".extract")
NEVER_IMPORTED = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml", "tarfile", "lxml",
    "ftplib", "xmlrpc", "http", "socketserver",
}  # fmt: skip


def _names(tree: ast.AST) -> dict[str, str]:
    """Return what each imported name of a file stands for, with its module."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {
                alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
                for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _dangerous(text: str) -> list[str]:
    """Return what in a file would unpickle, run text, unpack an archive or a shell, whatever it was imported as."""
    tree, found = ast.parse(text), []
    names = _names(tree)
    found += [f"import {name}" for name in names.values() if name.split(".")[0] in NEVER_IMPORTED]
    found += [name for name in names.values() if name in RUNS_CODE]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, dot, rest = ast.unparse(node.func).partition(".")
        name = names.get(first, first) + dot + rest
        given = {k.arg: ast.unparse(k.value) for k in node.keywords}
        said = [ast.unparse(argument) for argument in node.args]
        unsafe = name in RUNS_CODE or name.endswith(ENDINGS)
        unsafe |= name in ("torch.load", "torch.serialization.load") and given.get("weights_only") != "True"
        unsafe |= name.endswith(".YAML") and "unsafe" in (given.get("typ", "") + "".join(said[:1]))
        unsafe |= (
            name.startswith("subprocess.")
            and bool(node.args)
            and isinstance(node.args[0], ast.Constant | ast.JoinedStr)
        )
        unsafe |= any(
            given.get(key, wanted) != wanted for key, wanted in (("allow_pickle", "False"), ("shell", "False"))
        )
        if unsafe:
            found.append(f"{node.lineno}: {name}")
    return found


def test_S4_no_code_of_ours_unpickles_or_runs_text() -> None:
    found = {str(file.relative_to(ROOT)): _dangerous(file.read_text()) for file in SOURCES}
    assert not {file: faults for file, faults in found.items() if faults}


@pytest.mark.parametrize(
    "code",
    [
        "from pickle import loads",
        "import torch as t\nt.load(f)",
        "from torch import load as read\nread(f, weights_only=weights)",
        "from os import system",
        "import subprocess as s\ns.run(f'ls {x}')",
        "subprocess.run(x, shell=yes)",
        "np.load(f, allow_pickle=unsafe)",
        "from ruamel.yaml import YAML\nYAML(typ='unsafe')",
        "import ruamel.yaml\nruamel.yaml.YAML('unsafe')",
        "zipfile.ZipFile(f).extractall()",
        "import shutil\nshutil.unpack_archive(f)",
        "import tempfile\ntempfile.mktemp()",
        "import pandas as pd\npd.read_pickle(f)",
        "import yaml",
    ],
)
def test_S4_what_would_run_code_is_found(code: str) -> None:
    assert _dangerous(code)


def _sealed(folder: Path, write: Callable[[Path], object]) -> Path:
    """Make a checkpoint whose manifest vouches for its state."""
    from search import checkpoints

    folder.mkdir(parents=True)
    write(folder / checkpoints.STATE)
    checkpoints.seal(folder, 1, 0.5)
    assert checkpoints.manifest(folder)
    return folder


STATES: dict[str, Callable[[Path, Path], object]] = {
    "pickle": lambda file, canary: corpus.pickled(corpus.Canary(canary), file),
    "pickle of the newest protocol": lambda file, canary: corpus.pickled(corpus.Canary(canary), file, 5),
    "torch file": lambda file, canary: _torch_saved(file, corpus.Canary(canary)),
    "old torch file": lambda file, canary: _torch_saved(
        file, corpus.Canary(canary), _use_new_zipfile_serialization=False
    ),
    "NumPy hyper-parameter": lambda file, canary: _torch_saved(file, np.float64(1e-3)),
    "path hyper-parameter": lambda file, canary: _torch_saved(file, Path("x")),
    "empty": lambda file, canary: file.write_bytes(b""),
    "text": lambda file, canary: file.write_text("weights"),
    "no state": lambda file, canary: _torch_written(file, [1, 2]),
    "packed": lambda file, canary: _packed(file),
}


def _torch_written(file: Path, what: object) -> None:
    import torch

    torch.save(what, file)


def _packed(file: Path) -> None:
    """Write a state of 64 MiB of zeros into some kilobytes."""
    import torch

    whole = io.BytesIO()
    torch.save({"state_dict": {"weight": torch.zeros(2**24)}}, whole)
    with zipfile.ZipFile(whole) as stored, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))


def _torch_saved(file: Path, what: object, **how: bool) -> None:
    import torch

    torch.save({"state_dict": {}, "hyper_parameters": {"x": what}}, file, **how)


@pytest.mark.parametrize("kind", STATES)
def test_S4_a_malicious_checkpoint_is_refused_and_not_run(kind: str, canary: Path, tmp_path: Path) -> None:
    from search import checkpoints
    from search.recorder import WholeFiles

    folder = _sealed(tmp_path / "trials/a/checkpoints/epoch_000001", lambda file: STATES[kind](file, canary))
    for read in (checkpoints.read_state, WholeFiles().load_checkpoint):
        with pytest.raises(BadInput, match=r"state\.ckpt: (holds more than weights|cannot be read) \(") as caught:
            read(folder / checkpoints.STATE)
        assert "\n" not in str(caught.value)
        assert f"; delete {folder}" in str(caught.value)


MANIFESTS = {
    "deep": "[" * 100_000,
    "a list of files": '{"files": ["state.ckpt"]}',
    "a device": json.dumps({"files": {"/dev/zero": {"bytes": 0, "sha256": ""}, "state.ckpt": {}}}),
    "a file elsewhere": json.dumps({"files": {"../outside": {"bytes": 0, "sha256": hashlib.sha256().hexdigest()}}}),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_S4_a_hostile_manifest_vouches_for_nothing(kind: str, tmp_path: Path) -> None:
    from search import checkpoints

    folder = _sealed(tmp_path / "epoch_000001", lambda file: file.write_bytes(b""))
    (tmp_path / "outside").touch()
    (folder / checkpoints.MANIFEST).write_text(MANIFESTS[kind])
    assert checkpoints.manifest(folder) is None


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        "null",
        "[1]",
        '{"event": 1, "trial": "a"}',
        '{"event": "epoch", "trial": "a"}',
        '{"event": "epoch", "trial": "a", "epoch": [1]}',
        '{"event": "start", "trial": {"a": 1}}',
    ],
)
def test_S4_a_hostile_ledger_is_a_line(line: str, tmp_path: Path) -> None:
    from search.ledger import BACKUP, LEDGER, Ledger

    (tmp_path / LEDGER).write_text(f"{line}\n")
    (tmp_path / BACKUP).write_text('{"event": "start", "trial": "a"}\n')
    with pytest.raises(BadInput, match=r"ledger\.jsonl:1: damaged line; the newest good copy"):
        Ledger(tmp_path / LEDGER)


def test_S4_the_best_checkpoint_of_a_trial_is_loaded_the_same_way(canary: Path, tmp_path: Path) -> None:
    from search.trial import load_best

    _sealed(tmp_path / "a/checkpoints/epoch_000001", lambda file: STATES["torch file"](file, canary))
    with pytest.raises(BadInput, match="holds more than weights"):
        load_best(None, tmp_path / "a", 1)  # type: ignore[arg-type]


def _objects(file: Path, canary: Path) -> Path:
    held = np.empty(1, object)
    held[0] = corpus.Canary(canary)
    np.save(file, held, allow_pickle=True)
    return file


def test_S4_arrays_of_objects_are_not_unpickled(
    canary: Path, movie: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from postprocess.measure import main

    for name, write in (("a.npy", _objects), ("b.npy", lambda file, at: corpus.pickled(corpus.Canary(at), file))):
        assert refused(main, write(tmp_path / name, canary), "--out", tmp_path / "cells.csv") == 2
        assert "may run code" in capsys.readouterr().err
    shutil.rmtree(movie / "masks")
    _objects(movie / "frames/t001_seg.npy", canary)
    assert refused(check.main, movie, "--no-files") == 2
    assert "a pickle, which may run code" in capsys.readouterr().err


def test_S4_yaml_makes_no_objects(canary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from search.run import main

    tag = f"!!python/object/apply:os.system ['touch {canary}']"
    file = tmp_path / "x.yaml"
    file.write_text(f"seed: {tag}\n")
    assert refused(main, "--config", file, "--out", tmp_path / "run") == 2
    assert refused(main, f"seed={tag}", "--out", tmp_path / "run") == 2
    trial = tmp_path / "run/trials/a"
    trial.mkdir(parents=True)
    (trial / "config.yaml").write_text(f"id: {tag}\n")
    (trial / "metrics.csv").write_text("epoch,train_loss\n1,0.5\n")
    assert refused(main, "--replay", trial) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [("the tag" in line, "is refused" in line) for line in lines] == [(True, True)] * 3


# --- S5 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["run", "predict", "export"])
def test_S5_pytorch_told_to_unpickle_is_refused(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib

    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert refused(importlib.import_module(f"search.{module}").main, *([] if module == "run" else [tmp_path])) == 2
    assert capsys.readouterr().err == (
        "error: TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD: set, which lets a file run code when it is loaded; "
        "run `unset TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD` first\n"
    )


@pytest.mark.parametrize("scheme", ["http", "https", "ftp"])
def test_S5_a_checkpoint_of_the_network_is_refused_unasked(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from search import export, predict, run

    def asked(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", asked)
    monkeypatch.setattr(socket, "getaddrinfo", asked)
    address = f"{scheme}://example.org/run"
    for command, *arguments in (
        (run.main, "--resume", address),
        (run.main, "--replay", address),
        (predict.main, address),
        (export.main, address),
    ):
        assert refused(command, *arguments) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["https://h/d", "simplecache::http://h/d", "file:///etc", "GitHub://a:b@c/d"])
def test_S5_an_address_is_no_place_to_read_or_write(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from analysis import compare
    from search import run

    monkeypatch.chdir(tmp_path)
    for command, *arguments in (
        (check.main, address),
        (convert.main, ".", address),
        (run.main, "--data", address, "--dry-run"),
        (run.main, f"--out={address}", "--dry-run"),
        (run.main, f"data.path='{address}'", "--dry-run"),
        (compare.main, f"a={address}", f"b={address}", "--out", "out"),
    ):
        assert refused(command, *arguments) == 2
        assert "an address of the network, which is not read" in capsys.readouterr().err
    for chained in (f"s3://bucket/d::{address}", "s3://bucket/d::memory"):
        with pytest.raises(BadInput, match=r"not a place in a bucket|address with keys"):
            located(chained)
    assert not list(tmp_path.iterdir())


# --- S6 -----------------------------------------------------------------------------------------------------------


def test_S6_the_report_of_a_hostile_run_unpickles_nothing(canary: Path, tmp_path: Path) -> None:
    import pandas as pd

    from analysis.record import curves, examples, read_record

    trial = tmp_path / "trials/a"
    trial.mkdir(parents=True)
    (tmp_path / "run.json").write_text("{}")
    row = dict.fromkeys(("target", "architecture", "encoder", "loss", "status"), "star")
    row["val_dataset_iou"] = 0.5  # type: ignore[assignment]
    pd.DataFrame([{"trial": "a", **row}]).to_parquet(tmp_path / "trials.parquet")
    for write in (
        lambda file: np.savez(file, image=np.array([corpus.Canary(canary)], object), allow_pickle=True),
        lambda file: corpus.pickled(corpus.Canary(canary), file),
        _bomb,
        lambda file: file.write_bytes(b"PK\3\4"),
    ):
        write(trial / "examples.npz")
        assert examples(read_record(tmp_path), 4) == []
    for text in (
        "epoch,val_dataset_iou\n1,x\n",
        f"epoch,train_loss\n{'9' * 5000},1\n",
        "\0",
        "epoch\n1,2,3\n1,2,3,4\n",
    ):
        (trial / "metrics.csv").write_text(text)
        assert curves(read_record(tmp_path)) == []
    pd.DataFrame([{"trial": "../../elsewhere", **row}]).to_parquet(tmp_path / "trials.parquet")
    with pytest.raises(BadInput, match="which is no name of a folder"):
        read_record(tmp_path)
    corpus.pickled(corpus.Canary(canary), tmp_path / "trials.parquet")
    with pytest.raises(BadInput, match=r"trials\.parquet: (cannot be read|damaged)"):
        read_record(tmp_path)


def _bomb(file: Path) -> None:
    """Write an archive of 288 MiB of zeros."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in ("image.npy", "truth.npy", "foreground.npy"):
            with packed.open(name, "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(
                    member, {"descr": "<f4", "fortran_order": False, "shape": (1, 8192, 3072)}
                )
                for _ in range(12):
                    member.write(bytes(2**23))


def _tensors(head: bytes, length: int | None = None) -> bytes:
    return (len(head) if length is None else length).to_bytes(8, "little") + head


WEIGHTS: dict[str, bytes] = {
    "a header of 2**63 bytes": _tensors(b"{}", 2**63),
    "a header too deep": _tensors(b"[" * 200_000),
    "a tensor beyond the file": _tensors(
        b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    ),
    "a size that overflows": _tensors(b'{"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'),
    "two tensors in one place": _tensors(
        b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}'
    )
    + bytes(6),
    "objects": _tensors(b'{"a":{"dtype":"OBJ","shape":[1],"data_offsets":[0,8]}}') + bytes(8),
    "nothing": b"",
}
FACTS: dict[str, dict[str, Any]] = {
    "an unknown encoder": {"encoder": "tu-hub"},
    "an encoder elsewhere": {"encoder": "tu-hf-hub:a/b"},
    "an encoder that is a path": {"encoder": "../x"},
    "code for an architecture": {"architecture": "__import__"},
    "terabytes of channels": {"in_channels": 10**9},
}


@pytest.mark.usefixtures("canary")
def test_S6_hostile_models_whose_checksums_fit_are_a_line(tmp_path: Path) -> None:
    from data_io import sealed
    from search import handover, models

    network = models.build("unet", "tu-regnetx_002", "three_class", 1, depth=3, width=0.5)
    facts = {"architecture": "unet", "encoder": "tu-regnetx_002", "target": "three_class", "in_channels": 1}
    facts |= {"encoder_depth": 3, "decoder_width": 0.5, "output_stride": None, "normalisation": {}, "decode": {}}
    written = handover.save(tmp_path, network, facts)
    honest = (tmp_path / handover.WEIGHTS).read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pickled = tmp_path / "pickled"
    corpus.pickled(corpus.Canary(tmp_path / "canary"), pickled)
    hostile = [(weights, {}) for weights in (*WEIGHTS.values(), pickled.read_bytes())]
    for weights, told in [*hostile, *((honest, told) for told in FACTS.values())]:
        (tmp_path / handover.WEIGHTS).write_bytes(weights)
        changed = {k: v for k, v in written.items() if k != sealed.CHECK} | {
            "sha256": hashlib.sha256(weights).hexdigest()
        }
        (tmp_path / handover.FACTS).write_text(json.dumps(sealed.sealed(changed | told)))
        with pytest.raises(BadInput) as refusal:
            handover.load(tmp_path)
        assert len(str(refusal.value).splitlines()) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


# --- S7 -----------------------------------------------------------------------------------------------------------


def _run_folder(folder: Path) -> Path:
    for name in ("trials/a/checkpoints/epoch_000001", "best/star"):
        (folder / name).mkdir(parents=True)
    for name in ("config.yaml", "ledger.jsonl", "trials/a/checkpoints/epoch_000001/state.ckpt"):
        (folder / name).write_text("")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


CHECKPOINT = "trials/a/checkpoints/epoch_000001"


@pytest.mark.parametrize(
    "what", [".", "config.yaml", "ledger.jsonl", "trials/a", CHECKPOINT, f"{CHECKPOINT}/state.ckpt"]
)
@pytest.mark.parametrize(("mode", "who"), [(0o002, "everyone"), (0o020, "its group")])
def test_S7_a_run_that_others_may_write_to_is_refused(what: str, mode: int, who: str, tmp_path: Path) -> None:
    run = _run_folder(tmp_path / "run")
    trust.refuse_foreign(run)
    path = run / what
    path.chmod(path.stat().st_mode | mode)
    with pytest.raises(BadInput, match=rf"{who} may write to it; if its content is yours, run `chmod -R go-w {run}`"):
        trust.refuse_foreign(run)
    subprocess.run(["chmod", "-R", "go-w", str(run)], check=True)
    trust.refuse_foreign(run)


def test_S7_a_run_at_which_another_driver_works_is_looked_at_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _run_folder(tmp_path / "run")
    scan = os.scandir

    @contextmanager
    def passing(folder: Any) -> Iterator[Iterator[os.DirEntry[str]]]:
        """List what is there, and take files and checkpoints away before they are looked at."""
        with scan(folder) as entries:
            found = list(entries)
        if folder == run / "trials/a/checkpoints":
            shutil.rmtree(folder / "epoch_000001")
        if folder == run:
            (folder / "config.yaml").unlink()
        yield iter(found)

    monkeypatch.setattr(os, "scandir", passing)
    trust.refuse_foreign(run)
    monkeypatch.undo()
    assert not (run / "config.yaml").exists()
    assert not (run / "trials/a/checkpoints/epoch_000001").exists()


def test_S7_what_a_link_of_a_run_leads_to_is_looked_at(tmp_path: Path) -> None:
    run = _run_folder(tmp_path / "run")
    (run / "trials").rename(tmp_path / "shared")
    (run / "trials").symlink_to(tmp_path / "shared")
    (run / "nothing").symlink_to(tmp_path / "gone")
    (tmp_path / "link").symlink_to(run)
    trust.refuse_foreign(tmp_path / "link")
    (tmp_path / "shared/a").chmod(0o775)
    for named in (run, tmp_path / "link"):
        with pytest.raises(BadInput, match=r"trials/a: its group may write to it"):
            trust.refuse_foreign(named)


def test_S7_a_run_of_someone_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _run_folder(tmp_path / "run")
    monkeypatch.setattr(trust, "_made_there", lambda folder: (os.geteuid() + 1, True))
    with pytest.raises(
        BadInput, match=r"run: belongs to .*; if you trust them, go on in a copy: `cp -r .*run run-mine`"
    ):
        trust.refuse_foreign(run)


def test_S7_a_file_system_without_permissions_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _run_folder(tmp_path / "run")
    run.chmod(0o777)
    monkeypatch.setattr(trust, "_made_there", lambda folder: (os.geteuid(), False))
    trust.refuse_foreign(run)
    trust.refuse_foreign(tmp_path / "nothing")


def test_S7_the_command_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from search.config import dump, load
    from search.run import main

    run = _run_folder(tmp_path / "run")
    (run / "config.yaml").write_text(dump(load("demo", None, [])))
    run.chmod(0o777)
    for arguments in (("--resume", run), (*TRIAL, "--out", run)):
        assert refused(main, *arguments) == 2
        assert capsys.readouterr().err == (
            f"error: {run}: everyone may write to it; if its content is yours, run `chmod -R go-w {run}`\n"
        )


# --- S8, S9: stores of other programs -------------------------------------------------------------------------------


def test_S8_a_store_of_another_program_with_objects_or_foreign_codecs_is_refused(
    canary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = corpus.write_sharded(tmp_path)
    file = source / "s0/zarr.json"
    said = file.read_text()
    for forged in (
        said.replace('"uint16"', '"object"', 1),
        said.replace('"name": "zstd"', '"name": "numcodecs.pickle"', 1),
        said.replace('"name": "zstd"', '"name": "numcodecs.vlen-utf8"', 1),
    ):
        assert forged != said
        file.write_text(forged)
        assert refused(check.main, source, "--no-files") == 2
        line = capsys.readouterr().err
        assert "s0/zarr.json: " in line
        assert "not plain numbers" in line or "is not read; write it with one of" in line


@pytest.mark.parametrize("place", ["../other", "/etc", "s0/../../other"])
def test_S9_a_store_of_another_program_that_leads_out_is_refused(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = corpus.write_sharded(tmp_path)
    shutil.copytree(source / "s0", tmp_path / "other")
    root = zarr.open_group(source, mode="r+")
    told = dict(root.attrs["ome"])  # type: ignore[arg-type]
    told["multiscales"][0]["datasets"][0]["path"] = place
    root.attrs["ome"] = told
    assert refused(check.main, source, "--no-files") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_S9_a_link_out_of_a_store_of_another_program_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = corpus.write_sharded(tmp_path)
    (source / "s0/c/0/0/0").rename(tmp_path / "outside")
    (source / "s0/c/0/0/0").symlink_to(tmp_path / "outside")
    assert refused(check.main, source, "--no-files") == 2
    assert "a link out of the store; copy the file itself" in capsys.readouterr().err


def test_S9_a_field_of_a_plate_that_is_a_link_out_of_it_is_refused(tmp_path: Path) -> None:
    _image(tmp_path / "outside", "zstd", 3)
    plate = tmp_path / "plate.zarr"
    for place, told in (("", {"plate": {"wells": [{"path": "A/1"}]}}), ("A/1", {"well": {"images": [{"path": "0"}]}})):
        zarr.create_group(plate / place, attributes={"ome": {"version": "0.5", **told}})
    (plate / "A/1/0").symlink_to(tmp_path / "outside")
    with pytest.raises(BadInput, match="names a path outside itself"):
        _frames_of(plate)


FORGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "byte order": lambda array: array["codecs"][0]["configuration"].update(endian="wrong"),
    "no codecs": lambda array: array.update(codecs=[]),
    "chunks of nothing": lambda array: array["chunk_grid"]["configuration"].update(chunk_shape=[0, 0, 0, 0]),
    "keys that lead out": lambda array: array["chunk_key_encoding"]["configuration"].update(separator="../"),
    "another transformer": lambda array: array.update(storage_transformers=[{"name": "os"}]),
    "more than an array has": lambda array: array.update(evil={"must_understand": True}),
    "a group": lambda array: array.update(node_type="group"),
}


@pytest.mark.parametrize("what", [*FORGED, "a list", "too deep", "no list of files"])
def test_S8_a_store_whose_manifest_fits_its_forged_metadata_is_a_line(
    what: str, movie: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "d.zarr"
    corpus.write_store(movie, store)
    file, manifest = store / "movie/s0/zarr.json", json.loads((store / "manifest.json").read_text())
    if what in FORGED:
        array = json.loads(file.read_text())
        FORGED[what](array)
        file.write_text(json.dumps(array))
    elif what != "no list of files":
        file.write_text("[]" if what == "a list" else "[" * 100_000)
    data = file.read_bytes()
    manifest["files"]["movie/s0/zarr.json"] = [len(data), hashlib.sha256(data).hexdigest()]
    listed = {key: value for key, value in manifest.items() if key != "sha256"}
    (store / "manifest.json").write_bytes(
        integrity._text(listed if what != "no list of files" else listed | {"files": 3})
    )
    assert refused(check.main, store, "--no-files") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


PREDICTED = {
    "a method out of the store": ("zarr.json", {"methods": ["../../evil"]}),
    "a method that is no name": ("zarr.json", {"methods": [3]}),
    "no methods": ("zarr.json", {}),
    "a field out of the store": (
        "star/zarr.json",
        {"method": {"target": "star", "grid": 2, "channels": 1, "rays": 32, "fields": [["f", "../../x", 1, 8, 8]]}},
    ),
    "a method without facts": ("star/zarr.json", {"method": {"target": "star"}}),
}


@pytest.mark.parametrize("what", PREDICTED)
def test_S9_predictions_that_lead_out_of_their_store_are_refused(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from postprocess.run import main

    run = tmp_path / "run"
    corpus.write_store(corpus.write_movie(tmp_path / "movie"), run / "dataset.zarr")
    (run / "run.json").write_text(json.dumps({"dataset": "dataset.zarr"}))
    zarr.create_group(run / "predictions.zarr", attributes={"methods": ["star"]})
    zarr.create_group(run / "predictions.zarr/star", attributes={"method": {}})
    file, attributes = PREDICTED[what]
    described = json.loads((run / "predictions.zarr" / file).read_text())
    (run / "predictions.zarr" / file).write_text(json.dumps(described | {"attributes": attributes}))
    assert refused(main, run) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "delete predictions.zarr and run `python -m search.predict` again" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["movie", "run"]


def test_S10_a_store_that_says_it_has_billions_of_chunks_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bounded: None
) -> None:
    source = corpus.write_sharded(tmp_path)
    file = source / "s0/zarr.json"
    told = json.loads(file.read_text())
    for shape, said in (
        ([10**12, 96, 128], "chunks; write it with larger ones"),
        ([4, 2**20, 2**20], "pixels in one plane"),
    ):
        file.write_text(json.dumps(told | {"shape": shape}))
        assert refused(check.main, source, "--no-files") == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("key", ["axes", "datasets", "multiscales", "shape"])
def test_S8_metadata_that_lack_what_they_need_are_a_line(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = corpus.write_sharded(tmp_path)
    file = source / ("s0/zarr.json" if key == "shape" else "zarr.json")
    file.write_text(file.read_text().replace(f'"{key}"', '"other"'))
    assert refused(check.main, source, "--no-files") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


# --- S10: bombs -----------------------------------------------------------------------------------------------------

BOMB = "<!DOCTYPE x [<!ENTITY a0 'ha'>" + "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 12)) + "]>"


def _described(text: str, **how: object) -> Callable[[Path], object]:
    return lambda movie: tifffile.imwrite(
        movie / corpus.FRAME, tifffile.imread(movie / corpus.FRAME), description=text, metadata=None, **how
    )


def _circular(movie: Path) -> None:
    with tifffile.TiffFile(movie / corpus.FRAME) as tiff:
        page = tiff.pages.first
        end = page.offset + 2 + 12 * len(page.tags)
    data = bytearray((movie / corpus.FRAME).read_bytes())
    data[end : end + 4] = page.offset.to_bytes(4, "little")
    (movie / corpus.FRAME).write_bytes(data)


def _text_bomb(movie: Path) -> None:
    frame = movie / corpus.FRAME
    facts = PngImagePlugin.PngInfo()
    facts.add_text("note", "a" * 2**28, zip=True)
    Image.fromarray((tifffile.imread(frame) // 8).astype(np.uint8)).save(frame.with_suffix(".png"), pnginfo=facts)
    frame.unlink()


HOSTILE_IMAGES: dict[str, Callable[[Path], object]] = {
    "entities in OME": _described(
        f"<?xml version='1.0'?>{BOMB}<OME xmlns='http://www.openmicroscopy.org/x'>&a11;</OME>"
    ),
    "file in OME": _described(
        "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY f SYSTEM 'file:///etc/passwd'>]>"
        "<OME xmlns='http://www.openmicroscopy.org/x'><Image Name='&f;'/></OME>"
    ),
    "entities in Gen5": _described(
        f"{BOMB}<BTIImageMetaData><ImageWidthMicrons>&a11;</ImageWidthMicrons></BTIImageMetaData>"
    ),
    "a billion slices of ImageJ": _described("ImageJ=1.54\nimages=1000000000\nslices=1000000000\n"),
    "a huge shape": _described(json.dumps({"shape": [100_000, 100_000, 100_000]})),
    "pages in a circle": _circular,
    "text of a PNG": _text_bomb,
}


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("kind", HOSTILE_IMAGES)
def test_S10_hostile_images_neither_hang_nor_fill_the_memory(
    kind: str, movie: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    HOSTILE_IMAGES[kind](movie)
    with pytest.raises(SystemExit) as ended:
        entry_point(lambda _: check.main([str(movie), "--no-files"]))
    said = capsys.readouterr()
    assert ended.value.code in (0, 2), said.err
    assert len(said.err.splitlines()) == (ended.value.code == 2), said.err
    assert "root:" not in said.out + said.err


def _image(store: Path, packed: str, zarr_format: int) -> Path:
    """Write an OME-Zarr of one frame in one chunk with a compressor; return the file of the chunk."""
    v3: dict[str, Any] = {
        "gzip": zarr.codecs.GzipCodec(),
        "zstd": zarr.codecs.ZstdCodec(),
        "blosc": zarr.codecs.BloscCodec(),
    }
    scales = {"axes": ["t", "y", "x"], "datasets": [{"path": "s0"}], "version": "0.4"}
    ome = {"version": "0.5", "multiscales": [scales]}
    attributes = {"ome": ome} if zarr_format == 3 else {"multiscales": [scales]}
    group = zarr.create_group(store, attributes=attributes, zarr_format=zarr_format)  # type: ignore[arg-type]
    array = group.create_array(
        "s0",
        shape=(1, *corpus.SHAPE),
        chunks=(1, *corpus.SHAPE),
        dtype="uint16",
        compressors=v3[packed] if zarr_format == 3 else {"id": packed},
        chunk_key_encoding={"name": "default" if zarr_format == 3 else "v2", "separator": "/"},
    )
    array[0] = corpus.grey(corpus.discs())
    return next(path for path in (store / "s0").rglob("0") if path.is_file())


def _frames_of(store: Path) -> list[np.ndarray]:
    from data_io.readers import ome_zarr
    from data_io.readers.raw import Options

    return [frame[0] for frame, _ in ome_zarr.read(store, Options(), [])[0].files[0].read()]


def _zstd_of_zeros(size: int, *, stated: bool = True) -> bytes:
    """Return a zstd frame (RFC 8878) of a size in blocks of 128 KiB that say "zero, so many times"."""
    head = b"\xe0" + size.to_bytes(8, "little") if stated else b"\x00\x58"  # without: a window of 2 MiB
    blocks = [((2**17 << 3) | 2 | last).to_bytes(3, "little") + b"\0" for last in (0, 1)]
    return b"\x28\xb5\x2f\xfd" + head + blocks[0] * (size // 2**17 - 1) + blocks[1]


def _deflated(size: int, window: int) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, window)
    return b"".join([*(packer.compress(bytes(2**24)) for _ in range(size // 2**24)), packer.flush()])


HUGE = 2**28
BOMBS = {
    "zstd": lambda: _zstd_of_zeros(HUGE),
    "zstd of no stated size": lambda: _zstd_of_zeros(HUGE, stated=False),
    "gzip": lambda: _deflated(HUGE, 31),
    "zlib": lambda: _deflated(HUGE, 15),
    "blosc": lambda: b"\x02\x01\x01\x02" + (2**31 - 1).to_bytes(4, "little") + bytes(24),
    "lz4": lambda: (2**31 - 1).to_bytes(4, "little") + bytes(24),
}


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
    ("kind", "zarr_format"),
    [*((kind, 2) for kind in BOMBS), *((kind, 3) for kind in BOMBS if kind not in ("zlib", "lz4"))],
)
def test_S10_a_chunk_that_unpacks_to_more_than_a_chunk_is_refused(kind: str, zarr_format: int, tmp_path: Path) -> None:
    chunk = _image(tmp_path / "a.zarr", kind.split()[0], zarr_format)
    (whole,) = _frames_of(tmp_path / "a.zarr")
    assert np.array_equal(whole, corpus.grey(corpus.discs()))
    chunk.write_bytes(BOMBS[kind]())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadInput, match=r"frame 0 is damaged \((unpacks to|ZSTD_decompress)"):
        _frames_of(tmp_path / "a.zarr")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # KiB


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("side", [10**5, 10**9])
def test_S10_a_chunk_far_larger_than_its_array_is_refused(side: int, tmp_path: Path) -> None:
    _image(tmp_path / "a.zarr", "zstd", 3)
    file = tmp_path / "a.zarr/s0/zarr.json"
    told = json.loads(file.read_text())
    told["chunk_grid"]["configuration"]["chunk_shape"] = [1, side, side]
    file.write_text(json.dumps(told))
    with pytest.raises(BadInput, match=r"chunks of \d+ bytes in an array of 24576; write it with smaller ones"):
        _frames_of(tmp_path / "a.zarr")


def test_S10_archives_are_read_and_never_extracted(movie: Path, tmp_path: Path) -> None:
    from roifile import ImagejRoi

    shutil.rmtree(movie / "masks")
    box = np.array([[10, 10], [30, 10], [30, 30], [10, 30]])
    with zipfile.ZipFile(movie / "RoiSet.zip", "w") as archive:
        for t in range(5):
            roi = ImagejRoi.frompoints(box, position=t)
            archive.writestr(f"../../escaped{t}.roi", roi.tobytes())
    convert.main([str(movie), str(tmp_path / "d.zarr")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.zarr", "movie"]
    assert not list(tmp_path.parent.glob("escaped*"))


# --- S11 ----------------------------------------------------------------------------------------------------------

TRIAL = [
    *("--one-trial", "target=two_class", "architecture=unet", "encoder=tu-regnety_002", "loss=dice", "epochs=2"),
    *("data.synthetic.fields=3", "data.synthetic.frames=1", "data.synthetic.height=64", "data.synthetic.width=64"),
    *("train.crop=32", "train.crops_per_epoch=4", "train.batch_size=2", "train.validation_crops=2"),
    *("train.encoder_depth=3", "schedule.grace_epochs=1", "schedule.references=[]"),
]


def test_S11_no_secret_in_what_a_trial_leaves_and_S7_it_is_its_owners(tmp_path: Path) -> None:
    settings, home, scratch = tmp_path / "settings.yaml", tmp_path / "home", tmp_path / "scratch"
    settings.write_text(f"{planted.YAML_COMMENT}seed: 3\n")
    home.mkdir()
    scratch.mkdir()
    places = {"HOME": str(home), "TMPDIR": str(scratch), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "search.run", "--config", str(settings), "--out", str(tmp_path / "run"), *TRIAL]

    def run() -> str:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | planted.ENVIRONMENT | places,
            umask=0o002,  # as shared clusters have it
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not [name for name, secret in planted.SECRETS.items() if secret in done.stdout + done.stderr]
        return done.stdout

    assert "best epoch" in run()
    assert list(tmp_path.glob("run/wandb/**/*.wandb"))
    assert planted.found_in(tmp_path, but=settings) == []
    writable = [
        path for path in (tmp_path / "run").rglob("*") if path.lstat().st_mode & 0o022 and not path.is_symlink()
    ]
    assert not writable
    assert "best epoch" in run()  # it may be gone on with


@pytest.mark.parametrize(
    "typed",
    [
        f"--wandb-api-key={planted.TYPED}",
        f"tracking.api_key={planted.TYPED}",
        f"tracking={{api_key: {planted.TYPED}}}",
        f"data.path='s3://AKIAPLANTED:{planted.TYPED}@bucket/d.zarr'",
        f"data.path='s3://bucket/d.zarr?X-Amz-Signature={planted.TYPED}'",
        f"data={{path: 's3://AKIAPLANTED:{planted.TYPED}@bucket/d.zarr'}}",
        f"tracking.project=https://me:{planted.TYPED}@host/project",
        f"token: {planted.TYPED}",
    ],
)
def test_S11_a_secret_on_the_command_line_is_refused_and_not_repeated(
    typed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from search.run import main

    assert refused(main, typed, "--out", tmp_path / "run") == 2
    settings = tmp_path / "settings.yaml"
    settings.write_text(typed.replace("=", ": ", 1).replace("data.path", "data: {path").replace("d.zarr'", "d.zarr'}"))
    assert refused(main, "--config", settings, "--out", tmp_path / "run") == 2
    assert refused(main, "--config", settings, "--print-config") == 2
    said = capsys.readouterr()
    assert planted.TYPED not in said.out + said.err
    assert len(said.err.splitlines()) == 3
    assert not (tmp_path / "run").exists()


def test_S11_a_secret_in_an_address_is_refused_by_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = f"s3://AKIAPLANTED:{planted.TYPED}@bucket/d.zarr"
    movie = corpus.write_movie(tmp_path / "movie")
    for command, *arguments in (
        (check.main, address),
        (convert.main, address, "d.zarr"),
        (convert.main, movie, address),
    ):
        assert refused(command, *arguments) == 2
    said = capsys.readouterr()
    assert planted.TYPED not in said.out + said.err
    assert [path.name for path in tmp_path.iterdir()] == ["movie"]


def test_S11_a_secret_of_the_environment_is_not_in_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_API_KEY", f"/{planted.TYPED}")
    monkeypatch.setenv("SOME_KEY_FILE", "/home/me/key")

    def fails(_: object) -> int:
        raise RuntimeError(
            f"server said: key /{planted.TYPED} at https://me:{planted.TYPED}@2@host is wrong, /home/me/key"
        )

    with pytest.raises(SystemExit):
        entry_point(fails)
    said = capsys.readouterr().err
    assert "RuntimeError: server said: key (hidden) at https://(hidden)@host is wrong, /home/me/key" in said
    assert planted.TYPED not in said


def test_S11_a_secret_of_the_environment_is_not_in_the_traceback_of_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    from search.worker import what_failed

    monkeypatch.setenv("SOME_TOKEN", planted.TYPED)
    for fault in (ValueError(planted.TYPED), OSError(28, f"No space at https://me:{planted.TYPED}@h")):
        (told,) = what_failed(fault).values()
        assert planted.TYPED not in told


# --- S12 ----------------------------------------------------------------------------------------------------------


def test_S12_tune_hands_no_keys_of_object_stores_to_its_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.tune.execution import class_cache

    from data_io.secrecy import is_secret
    from search.tuning import _tune, hand_on_no_keys

    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", class_cache.ENV_VARS_TO_PROPAGATE | {"AWS_SESSION_TOKEN"})
    for name, secret in planted.ENVIRONMENT.items():
        monkeypatch.setenv(name, secret)
    assert "hand_on_no_keys()" in inspect.getsource(_tune)
    hand_on_no_keys()
    assert not [name for name in class_cache.ENV_VARS_TO_PROPAGATE if is_secret(name)]
    environment = class_cache._ActorClassCache().get(object)._default_options["runtime_env"]["env_vars"]
    assert not set(environment.values()) & set(planted.ENVIRONMENT.values())


def test_S12_nothing_is_handed_to_ray_or_sent_unasked() -> None:
    from search.config import load

    tracking = load("demo", None, []).tracking
    assert (tracking.wandb, tracking.images) == ("offline", False)
    for file in SOURCES:
        text = file.read_text()
        if "runtime_env" in text:
            assert file.parent.name == "cluster", f"{file} hands an environment to Ray's workers"
            assert "WANDB_API_KEY" not in text.split("runtime_env", 1)[1], file
    settings = (ROOT / "search/wandb_writer.py").read_text()
    for switched_off in ("disable_code=True", "disable_git=True", "x_disable_meta=True", "x_save_requirements=False"):
        assert switched_off in settings


# --- S13, S14, S15: names -------------------------------------------------------------------------------------------

EVIL = "<script>alert(1)</script>"


class _Tags(HTMLParser):
    """The elements of a page: their names and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def _is_harmless(page: str) -> None:
    assert EVIL not in page
    tags = _Tags(page).found
    (policy,) = (a["content"] for tag, a in tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for tag, attributes in tags:
        assert tag not in ("iframe", "object", "embed", "base", "form", "link")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            address = attributes.get(name) or "#"
            assert address.startswith(("#", "data:")) or (tag == "a" and address.startswith("https://"))


def test_S13_hostile_names_are_escaped_in_the_page_of_a_check(movie: Path, tmp_path: Path) -> None:
    folder = tmp_path / "<b onload=x>"
    for name in ("frames", "masks"):
        for path in (movie / name).iterdir():
            path.rename(path.with_name(path.name.replace("t0", EVIL.replace("/", "") + "0")))
    movie.rename(folder)
    (folder / "groups.csv").write_text(f"field,patient\n{folder.name},{EVIL}\n")
    assert check.main([str(folder), "--out", str(tmp_path / "out")]) == 0
    (page,) = (tmp_path / "out").glob("*.html")
    text = page.read_text()
    _is_harmless(text)
    assert "&lt;script&gt;" in text


def test_S13_hostile_names_leave_the_xml_of_a_store_whole(movie: Path, tmp_path: Path) -> None:
    movie.rename(tmp_path / f"\x1b[2J{EVIL.replace('/', '')}&")
    convert.main([str(next(tmp_path.glob("*script*"))), str(tmp_path / "d.zarr")])
    (image,) = ElementTree.parse(tmp_path / "d.zarr/OME/METADATA.ome.xml").getroot()  # noqa: S314 - our own
    assert image.get("Name") == f"\\x1b[2J{EVIL.replace('/', '')}&"


def test_S13_hostile_names_are_escaped_in_the_report(tmp_path: Path) -> None:
    from analysis.compare import main

    rng = np.random.default_rng(1)
    with (tmp_path / "a.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            ["field", "patient", "frame", "label", "area_px2", "radius_px", "centroid_y_px", "centroid_x_px"]
        )
        for name in (EVIL, "=1+1", "c"):
            cells = [(frame, label) for frame in range(4) for label in range(5)]
            table.writerows([[name, name, t, n, 100 + rng.normal(), 6, 20 * n, 5] for t, n in cells])
    assert main([f"a={tmp_path / 'a.csv'}", "--by", "patient", "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/report.html").read_text()
    _is_harmless(page)
    assert "&lt;script&gt;" in page


def test_S13_hostile_names_move_no_cursor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from search.console import say

    monkeypatch.setenv("SOME_TOKEN", planted.TYPED)
    say(f"note: a\x1b[2J\rb of {planted.TYPED}\nsecond line")
    assert capsys.readouterr().out == "note: a\\x1b[2J\\rb of (hidden)\nsecond line\n"


def test_S13_the_reason_of_a_failure_moves_no_cursor_and_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    from search.config import load
    from search.feasibility import Feasibility
    from search.progress import Display
    from search.space import plan

    config = load("demo", None, ["train.crop=128", "schedule.references=[]"])
    trial = plan(config, examine=lambda cells: {cell: Feasibility(True, 128) for cell in cells}).trials[0]
    with Display([trial], {}, None) as display:
        display.started(trial)
        display.ended(trial, "failed", "no file [/data/x] :smile:\x1b[2J [bold]")
    assert f"failed: {trial.id} (no file [/data/x] :smile:\\x1b[2J [bold])" in capsys.readouterr().out


def test_S14_text_that_is_a_formula_is_neutralised_and_numbers_are_not(tmp_path: Path) -> None:
    import pandas as pd

    from postprocess.export import write_csv
    from postprocess.tables import appending

    signs = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "a;=1", "a\n=1", "\uff1d1", "a; -1 = b"]
    table = pd.DataFrame({"name": signs, "=cmd": 1.0, "change": [-1.5, 2.0, -3.0, 4.0, 5.0, -6.0, -7.0, 8.0, 9.0, 0.0]})
    write_csv(tmp_path / "t.csv", table)
    with appending(tmp_path / "cells.csv") as add:
        add(table)
    assert (tmp_path / "cells.csv").read_bytes() == (tmp_path / "t.csv").read_bytes()
    rows = list(csv.reader(io.StringIO((tmp_path / "t.csv").read_bytes().decode(), newline="")))
    assert rows[0] == ["name", "'=cmd", "change"]
    safe = ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\t=1", "' =1", "a;'=1", "a\n'=1", "'\uff1d1", "a; -1 = b"]
    assert [row[0] for row in rows[1:]] == safe
    assert [float(row[2]) for row in rows[1:]] == table["change"].tolist()


def test_S15_output_names_are_slugs_and_a_collision_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (
        "../../x",
        "a/b",
        "a\0b",
        "x" * 300,
        "..",
        "naïve ☃",
        "-rf",
        "a.",
        "CON",
        "nul.txt",
        "OME",
        "zarr.json",
    ):
        assert re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,90}[A-Za-z0-9_])?", slug(name))
        assert slug(slug(name)) == slug(name)
    for reserved in ("CON", "nul.txt", "OME", "ome", "Zarr.json", "manifest.json"):
        assert slug(reserved) != reserved
    for alike in ("e\u0301", "É", "ｅ", " e."):  # composed, decomposed, of full width: one file on some systems
        assert slug(alike).lower() == slug("é").lower()
    corpus.write_movie(tmp_path / "set/a b", 2)
    corpus.write_movie(tmp_path / "set/a-b", 2, seed=9)
    assert refused(convert.main, tmp_path / "set", tmp_path / "d.zarr") == 2
    assert "are the same as file names; rename one" in capsys.readouterr().err


def test_S16_malicious_releases_are_excluded() -> None:
    from packaging.requirements import Requirement

    project = (ROOT / "pyproject.toml").read_text()
    required = Requirement(re.search(r'"(pytorch-lightning[^"]*)"', project)[1])  # type: ignore[index]
    assert not required.specifier.contains("2.6.2")
    assert not required.specifier.contains("2.6.3")
    pins = (ROOT / ".ci/constraints.txt").read_text()
    assert re.search(r"^pytorch-lightning==2\.6\.[6-9]", pins, re.MULTILINE)
    assert "--constraint .ci/constraints.txt" in (ROOT / ".ci/setup").read_text()


def test_S16_all_that_the_requirements_bring_is_pinned() -> None:
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / ".ci/constraints.txt").read_text().splitlines()
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line and line[0] != "#"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    seen: set[tuple[str, str]] = set()
    open_ones = [(Requirement(one), "") for one in asked]
    while open_ones:
        one, extra = open_ones.pop()
        name = canonicalize_name(one.name)
        if one.marker and not one.marker.evaluate({"extra": extra}):
            continue
        for wanted in ("", *one.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                with suppress(PackageNotFoundError):  # of another platform
                    open_ones += [(Requirement(more), wanted) for more in requires(name) or []]
    assert not {name for name, _ in seen} - pinned
    assert len(seen) > 200
