from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from data_io import synthetic
from data_io.check import main
from data_io.convert import convert
from data_io.files import sha256

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[..., Path]

VOID = ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write(tmp_path_factory.mktemp("check") / "movies", fields=3, frames=3, size=(128, 160), seed=1)


@pytest.fixture(scope="module")
def store(movies: Path) -> Path:
    return convert(movies, movies.parent / "movies.zarr").path


def told(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    found = capsys.readouterr()
    return found.out, found.err


def test_a_folder_is_checked_without_a_store(movies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(movies.rglob("*"))
    assert main([str(movies), "--out", str(tmp_path / "out")]) == 0
    out, err = told(capsys)
    assert sorted(movies.rglob("*")) == before
    assert "SYNTHETIC DATA" in out
    assert re.search(r"frames +9 of 128 x 160 px; 9 annotated", out)
    assert "recommended: crop 128 px, batch 8" in out
    assert "usable: yes" in out
    assert err == ""
    found = json.loads((tmp_path / "out/movies.check.json").read_text())
    assert found["usable"] is True
    assert found["synthetic"] is True
    assert found["fingerprint"]["frames"] == 9
    assert len(found["fingerprint"]["by_field"]["field_1"]["focus"][0]) == 3
    assert found["recommended"]["why"]["crop"]


def test_a_store_says_what_the_folder_said(
    movies: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: sha256(path) for path in store.rglob("*") if path.is_file()}
    for place in (movies, store):
        assert main([str(place), "--out", str(tmp_path)]) == 0
    assert {path: sha256(path) for path in store.rglob("*") if path.is_file()} == before
    folder, stored = (json.loads((tmp_path / f"{one.name}.check.json").read_text()) for one in (movies, store))
    for name in ("fingerprint", "recommended", "warnings", "fields", "synthetic"):
        assert folder[name] == stored[name], name
    assert "every byte as written" in told(capsys)[0]


def test_files_go_beside_by_default_and_never_into_a_store(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(store, tmp_path / "copy.zarr")
    assert main([str(copy)]) == 0
    assert (tmp_path / "copy.zarr.check.json").is_file()
    assert (tmp_path / "copy.zarr.check.html").is_file()
    assert main([str(copy), "--out", str(copy / "report")]) == 0
    assert not (copy / "report").exists()
    assert "lies in the data set" in told(capsys)[1]
    (tmp_path / "copy.zarr.check.json").unlink()
    assert main([str(copy), "--no-files"]) == 0
    assert not (tmp_path / "copy.zarr.check.json").exists()


def test_a_place_that_cannot_be_written_is_a_warning(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main([str(store), "--out", str(tmp_path / "file" / "out")]) == 0
    assert "cannot write there" in told(capsys)[1]


def test_every_damaged_chunk_is_named(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(store, tmp_path / "copy.zarr")
    chunks = sorted(path for path in copy.rglob("c/*/*") if path.is_file() or path.is_dir())
    files = sorted({file for chunk in chunks for file in (chunk.rglob("*") if chunk.is_dir() else [chunk])})
    hurt = [file for file in files if file.is_file()][:3]
    for file in hurt:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    assert main([str(copy), "--out", str(tmp_path / "out")]) == 2
    out, err = told(capsys)
    assert "usable: no" in out
    for file in hurt:
        assert str(file) in err
    found = json.loads((tmp_path / "out/copy.zarr.check.json").read_text())
    assert found["usable"] is False
    assert len(found["faults"]) >= 3
    assert "Not usable" in (tmp_path / "out/copy.zarr.check.html").read_text()


def test_bad_input_is_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "nowhere"):
        assert main([str(place), "--out", str(tmp_path / "out")]) == 2
        out, err = told(capsys)
        assert "usable: no" in out
        assert err.count("\n") == 1
        assert err.startswith(f"error: {place}: ")
    assert not (tmp_path / "out/nowhere.check.json").exists()


def test_frames_without_masks_are_usable_when_asked_for(movie: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(movie / "masks")
    assert main([str(movie)]) == 2
    told(capsys)
    assert main([str(movie), "--no-masks"]) == 0
    out, _ = told(capsys)
    assert "0 annotated" in out
    assert "no split" in out
    page = (movie.parent / "movie.check.html").read_text()
    assert "not annotated" in page


def test_the_page_is_self_contained_and_escaped(write_movie: Write, tmp_path: Path) -> None:
    folder = write_movie(tmp_path / "<b>bold & 'quoted'", frames=5)
    assert main([str(folder), "--out", str(tmp_path)]) == 0
    page = (tmp_path / f"{folder.name}.check.html").read_text()
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold &amp;" in page
    assert "default-src 'none'" in page.replace("&#39;", "'")
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert not re.search(r"<script|\son\w+=|style=\"|url\(|@import|https?://", page)
    assert page.count("data:image/png;base64,") == 3
    opened = [name for name in re.findall(r"<([a-z0-9]+)[\s>]", page) if name not in VOID]
    closed = re.findall(r"</([a-z0-9]+)>", page)
    assert sorted(opened) == sorted(closed)
    assert "Synthetic" not in page


def test_a_synthetic_page_says_so(store: Path, tmp_path: Path) -> None:
    assert main([str(store), "--out", str(tmp_path)]) == 0
    assert "made by a computer, not by a microscope" in (tmp_path / "movies.zarr.check.html").read_text()


def test_what_is_odd_is_on_the_page(movie: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stray = tifffile.imread(movie / "masks/t001.tif")
    stray[-1, -1] = 1
    tifffile.imwrite(movie / "masks/t001.tif", stray)
    tifffile.imwrite(movie / "masks/t002.tif", np.zeros_like(stray))
    assert main([str(movie)]) == 0
    out, _ = told(capsys)
    page = (movie.parent / "movie.check.html").read_text()
    for text in (out, page):
        assert "1 frames annotated as empty" in text
    assert "Labels in pieces" in page
    assert "neighbours in time, in two parts" in page


def test_the_yeast_movie(yeast: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(yeast), "--out", str(tmp_path), "--pixel-size", "0.16"]) == 0
    out, _ = told(capsys)
    assert re.search(r"frames +10 of 520 x 692 px; 10 annotated", out)
    assert "11 bits used" in out
    found = json.loads((tmp_path / "yeast_phase_movie.check.json").read_text())["fingerprint"]
    assert found["cells"] == 1226
    assert found["radius_um"]["median"] == pytest.approx(0.16 * found["radius_px"]["median"], rel=1e-3)
    assert (tmp_path / "yeast_phase_movie.check.html").stat().st_size < 1_000_000


def test_a_store_with_several_faults_has_all_of_them_named(
    movie: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = convert(movie, tmp_path / "d.zarr").path
    (store / "movie/zarr.json").write_bytes(b"{}")
    flipped = store / "movie/s0/c/1/0/0/0"
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 4
    flipped.write_bytes(data)
    (store / "movie/s0/c/3/0/0/0").unlink()
    assert main([str(store)]) == 2
    _, error = told(capsys)
    for name in ("movie/zarr.json", "movie/s0/c/1/0/0/0", "movie/s0/c/3/0/0/0"):
        assert name in error
