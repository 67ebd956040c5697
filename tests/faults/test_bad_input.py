"""Every item of the list of bad input, given to the commands that take it: exit code 2, one line, nothing left."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from data_io import check, convert
from data_io.errors import entry_point
from tests.faults import corpus

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[[list[str]], int]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Take back what a command changes of its process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    umask = os.umask(0)
    os.umask(umask)
    yield
    os.umask(umask)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Give a function that runs a command and returns the one line it was refused with."""

    def run(command: Command, *arguments: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            entry_point(lambda _: command(list(map(str, arguments))))
        lines = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2, lines
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        assert ": " in lines[0].removeprefix("error: ")
        assert "; " in lines[0], "no remedy"
        assert lines[0].isprintable()
        assert sorted(tmp_path.rglob("*")) == before, "something was left behind"
        return lines[0]

    return run


def search(arguments: list[str]) -> int:
    """Run `python -m search.run` in this process."""
    from search.run import main

    return main(arguments)


def predict(arguments: list[str]) -> int:
    """Run `python -m search.predict` in this process."""
    from search.predict import main

    return main(arguments)


def measure(arguments: list[str]) -> int:
    """Run `python -m postprocess.measure` in this process."""
    from postprocess.measure import main

    return main(arguments)


def compare(arguments: list[str]) -> int:
    """Run `python -m analysis.compare` in this process."""
    from analysis.compare import main

    return main(arguments)


def score(arguments: list[str]) -> int:
    """Run `python -m analysis.score` in this process."""
    from analysis.score import main

    return main(arguments)


def made_for(section: str) -> set[str]:
    """Return the items of a section that the corpus can make."""
    refused = {
        "images": corpus.IMAGES,
        "masks": corpus.MASKS,
        "set": corpus.SETS,
        "zarr": corpus.STORES | corpus.SHARDS,
        "config": corpus.CONFIGS,
        "statistics": corpus.STATISTICS | corpus.NOT_TESTED,
        "checkpoints": corpus.MODELS,
    }
    return {*refused[section], *corpus.NOTED.get(section, {})}


@pytest.mark.parametrize("section", corpus.ITEMS)
def test_no_item_is_missing(section: str) -> None:
    assert not set(corpus.ITEMS[section]) - made_for(section)


# --- images, masks, sets: data_io.check, data_io.convert, search.run --data, search.predict --images ----------------

FOLDERS = {
    f"{section}: {item}": (section, item, *case)
    for section, of in (("images", corpus.IMAGES), ("masks", corpus.MASKS), ("set", corpus.SETS))
    for item, case in of.items()
}


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    """Return a folder with a movie of five frames."""
    return corpus.write_movie(tmp_path / "movie")


@pytest.fixture
def denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have files without permissions unreadable for root as well."""
    usual = Path.open

    def opened(path: Path, *how: object, **more: object) -> object:
        if path.exists() and not path.stat().st_mode & 0o444:
            raise PermissionError(13, "Permission denied")
        return usual(path, *how, **more)  # type: ignore[call-overload]

    if not os.geteuid():
        monkeypatch.setattr(Path, "open", opened)


@pytest.mark.usefixtures("denied")
@pytest.mark.parametrize("item", FOLDERS)
def test_a_folder_is_refused_by_every_command(item: str, movie: Path, refusal: Callable[..., str]) -> None:
    _, name, spoil, said = FOLDERS[item]
    spoil(movie)
    out = movie.parent / "out"
    by_well = ["--split-by", "well"] if name in corpus.BY_WELL else []
    lines = {
        refusal(check.main, movie, "--no-files", *by_well),
        refusal(convert.main, movie, out / "d.zarr", *by_well),
        refusal(search, "--data", movie, "--out", out, *(["data.split_by=well"] if by_well else [])),
    }
    assert len(lines) == 1, "the commands say the same"
    assert re.search(said, lines.pop())


def test_a_folder_that_may_not_be_read_is_refused_by_every_command(
    movie: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, masks, out = Path.iterdir, movie / "masks", movie.parent / "out"

    def listed(path: Path) -> Iterator[Path]:
        if path == masks:
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path)

    monkeypatch.setattr(Path, "iterdir", listed)
    lines = {
        refusal(check.main, movie, "--no-files"),
        refusal(convert.main, movie, out / "d.zarr"),
        refusal(search, "--data", movie, "--out", out),
        refusal(compare, f"a={masks}", "--out", out),
    }
    assert lines == {f"error: {masks}: permission denied; change its permissions or name another place"}


@pytest.mark.usefixtures("denied")
@pytest.mark.parametrize("item", corpus.IMAGES)
def test_images_to_predict_are_refused(
    item: str, movie: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, said = corpus.IMAGES[item]
    spoil(movie)
    monkeypatch.setattr("search.handover.load", lambda folder: None)  # the images are what is wrong
    model = movie.parent / "run/best/star"
    model.mkdir(parents=True)
    (model / "model.json").write_text("{}")
    line = refusal(predict, movie.parent / "run", "--images", movie / "frames", "--out", movie.parent / "out")
    assert re.search(said, line)


@pytest.mark.parametrize("item", [f"{section}: {item}" for section, of in corpus.NOTED.items() for item in of])
def test_what_is_legitimate_is_accepted_and_told(
    item: str, movie: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    section, name = item.split(": ")
    spoil, said = corpus.NOTED[section][name]
    spoil(movie)
    assert check.main([str(movie), "--no-files"]) == 0
    assert re.search(said, capsys.readouterr().out)
    assert convert.main([str(movie), str(tmp_path / "d.zarr")]) == 0
    assert not [c for c in capsys.readouterr().out if not c.isprintable() and c != "\n"]


# --- label images: postprocess.measure, analysis.score, analysis.compare --------------------------------------------

LABEL_IMAGES = {
    "float": r"(labels of type float32, not whole numbers|a mask with fractions)",
    "NaN": r"(labels of type float32, not whole numbers|a mask with fractions or NaN)",
    "negative": r"negative (labels|values) \(down to -1\)",
    "RGB mask": r"(colours per pixel|a colour mask)",
    "JPEG in a TIFF mask": r"a JPEG-compressed (label image|mask) has changed labels",
    "uint8 overflow suspected": r"more than 255 cells in 8 bits share labels",
    "cut": r"unreadable",
    "in depth": r"3 planes in depth",
}


@pytest.mark.parametrize("item", LABEL_IMAGES)
def test_a_label_image_is_refused(item: str, movie: Path, refusal: Callable[..., str]) -> None:
    spoil, _ = corpus.MASKS[item]
    spoil(movie)
    mask, good = movie / corpus.MASK, movie / "masks/t000.tif"
    assert re.search(LABEL_IMAGES[item], refusal(measure, mask, "--out", movie / "cells.csv"))
    assert re.search(LABEL_IMAGES[item], refusal(score, mask, good))
    assert re.search(LABEL_IMAGES[item], refusal(score, good, mask))
    assert re.search(LABEL_IMAGES[item], refusal(compare, f"a={good}", f"b={mask}", "--out", movie / "out"))
    assert re.search(LABEL_IMAGES[item], refusal(compare, f"a={good}", "--truth", mask, "--out", movie / "out"))


def test_an_image_is_no_label_image(movie: Path, refusal: Callable[..., str]) -> None:
    image, good, said = movie / corpus.FRAME, movie / corpus.MASK, r"t001\.tif: an image, no labels \(no background, "
    assert re.search(said, refusal(measure, image, "--out", movie / "cells.csv"))
    assert re.search(said, refusal(compare, f"a={good}", "--truth", image, "--out", movie / "out"))


# --- stores: data_io.check, search.run --data -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a data set of ours and one of another program."""
    folder = tmp_path_factory.mktemp("stores")
    corpus.write_store(corpus.write_movie(folder / "movie"), folder / "d.zarr")
    shutil.rmtree(folder / "movie")
    corpus.write_sharded(folder)
    return folder


@pytest.mark.parametrize("item", corpus.STORES)
def test_a_store_is_refused(item: str, stores: Path, tmp_path: Path, refusal: Callable[..., str]) -> None:
    store = shutil.copytree(stores / "d.zarr", tmp_path / "d.zarr")
    spoil, said = corpus.STORES[item]
    spoil(store)
    assert re.search(said, refusal(check.main, store, "--no-files"))
    assert re.search(said, refusal(search, "--data", store, "--out", tmp_path / "run"))


def test_nothing_is_written_into_a_store(stores: Path, tmp_path: Path, refusal: Callable[..., str]) -> None:
    store = shutil.copytree(stores / "d.zarr", tmp_path / "d.zarr")
    movie = corpus.write_movie(tmp_path / "movie")
    said = rf"lies in the data set {re.escape(str(store))}, which would be damaged; choose a place outside it"
    assert re.search(said, refusal(convert.main, movie, store / "movie/other.zarr"))
    assert re.search(said, refusal(search, "--data", store, "--out", store / "run"))


@pytest.mark.parametrize("item", corpus.SHARDS)
def test_a_sharded_store_of_another_program_is_refused(
    item: str, stores: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    source = shutil.copytree(stores / "movie.zarr", tmp_path / "movie.zarr")
    assert check.main([str(source), "--no-files"]) == 0
    spoil, said = corpus.SHARDS[item]
    spoil(source)
    assert re.search(said, refusal(check.main, source, "--no-files"))
    assert re.search(said, refusal(convert.main, source, tmp_path / "d.zarr"))


# --- configurations: search.run --config ----------------------------------------------------------------------------

SMALL = ["data.synthetic.fields=1", "data.synthetic.frames=3", "data.synthetic.height=64", "data.synthetic.width=64"]


@pytest.mark.parametrize("item", corpus.CONFIGS)
def test_a_configuration_is_refused(item: str, tmp_path: Path, refusal: Callable[..., str]) -> None:
    text, said = corpus.CONFIGS[item]
    file = tmp_path / "settings.yaml"
    file.write_text(text, errors="surrogateescape")
    small = SMALL if item == "unknown encoder" else []
    line = refusal(search, "--config", file, "--out", tmp_path / "run", *small)
    assert re.search(said, line)
    assert "settings.yaml" in line or item == "unknown encoder"


def test_several_faults_are_a_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        entry_point(lambda _: search(["train.max_epoch=3", "seed=-1", "--out", str(tmp_path / "run")]))
    assert ended.value.code == 2
    first, *each = capsys.readouterr().err.splitlines()
    assert first == "error: 2 faults in the configuration"
    assert [line.split(":")[1].strip() for line in each] == ["train.max_epoch", "seed"]


# --- arguments: every command ---------------------------------------------------------------------------------------

COMMANDS = sorted(
    file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for package in ("data_io", "postprocess", "analysis", "search", "cluster")
    for file in (ROOT / package).glob("*.py")
    if "Parser(" in file.read_text() and 'if __name__ == "__main__":' in file.read_text()
)


@pytest.mark.parametrize("module", COMMANDS)
def test_wrong_arguments_are_one_line(module: str, refusal: Callable[..., str]) -> None:
    import importlib

    line = refusal(importlib.import_module(module).main, "--no-such-option")
    assert re.search(rf"python -m {module}: .*; see --help", line)


def test_the_commands_are_found() -> None:
    assert len(COMMANDS) >= 9


@pytest.mark.parametrize(
    ("module", "arguments", "said"),
    [
        ("data_io.check", ["nowhere"], "error: nowhere: no such file or folder; give"),
        ("data_io.convert", ["nowhere", "d.zarr"], "error: nowhere: no such file or folder; give"),
        ("search.run", ["--preset", "demmo"], "error: --preset: unknown preset 'demmo'; did you mean demo?"),
        ("analysis.compare", ["nowhere"], "error: nowhere: no such run folder; give"),
        ("postprocess.measure", ["nowhere", "--out", "c.csv"], "error: nowhere: no such file or folder; give"),
    ],
)
def test_the_same_from_a_shell(module: str, arguments: list[str], said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


# --- models: search.predict -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run that holds one model, and frames to predict."""
    from search import handover, models

    folder = tmp_path_factory.mktemp("trained")
    facts = {
        "architecture": "unet",
        "encoder": "tu-regnetx_002",
        "target": "two_class",
        "in_channels": 1,
        "encoder_depth": 3,
        "decoder_width": 0.5,
        "output_stride": None,
        "normalisation": {},
        "decode": {},
    }
    network = models.build("unet", "tu-regnetx_002", "two_class", 1, depth=3, width=0.5)
    handover.save(folder / "run/best/two_class", network, facts)
    shutil.move(corpus.write_movie(folder / "movie", 2) / "frames", folder / "images")
    shutil.rmtree(folder / "movie")
    return folder


@pytest.mark.parametrize("item", corpus.MODELS)
def test_a_model_is_refused(
    item: str, trained: Path, tmp_path: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    spoil, said = corpus.MODELS[item]
    spoil(tmp_path / "run/best/two_class")
    line = refusal(predict, "run", "--images", "images", "--out", "out")  # "canary" would be left behind
    assert re.search(said, line)


TAKEN = {
    "the run of a search": ("run", r"run: holds the run of a search; give another folder with --out"),
    "the images": ("images", r"images: holds files that are no predictions; give a new folder with --out"),
}


@pytest.mark.parametrize("item", TAKEN)
def test_a_folder_of_something_else_is_not_predicted_into(
    item: str, trained: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / "run/run.json").write_text('{"kind": "search", "dataset": "elsewhere.zarr"}')
    name, said = TAKEN[item]
    line = refusal(predict, tmp_path / "run", "--images", tmp_path / "images", "--out", tmp_path / name)
    assert re.search(said, line)


RUNS = {
    "no run": (None, r"run\.json.*(missing|no such file)"),
    "cut": ('{"dataset"', r"run\.json: (not JSON|cannot be read)"),
    "a list": ("[]", r"run\.json: (does not name its dataset|not a JSON object)"),
    "no text": ("\udcff", r"run\.json: (not JSON|cannot be read)"),
    "a number as data set": ('{"dataset": 3}', r"run\.json: does not name its dataset"),
    "a text as fold": ('{"dataset": "d.zarr", "fold": "a"}', r"run\.json: its fold 'a' is no number"),
    "no data set": ('{"dataset": "nowhere.zarr"}', r"nowhere\.zarr: no such data set; make one"),
    "keys": ('{"dataset": "s3://me:secret@b/d"}', r"s3://\(hidden\)@b/d: an address with keys in it"),
}


@pytest.mark.parametrize("item", RUNS)
def test_a_damaged_run_is_refused_by_every_later_stage(
    item: str, trained: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    from postprocess.run import main

    text, said = RUNS[item]
    run = shutil.copytree(trained / "run", tmp_path / "run")
    (run / "cells.parquet").write_bytes(b"")
    if text is not None:
        (run / "run.json").write_text(text, errors="surrogateescape")
    for command in (predict, main, compare):
        assert re.search(said, refusal(command, run))


TRIALS = {
    "no trial": ("metrics.csv", None, r"a: no trained trial; give RUN/trials/ID"),
    "metrics are no numbers": ("metrics.csv", "epoch,train_loss\nx,y\n", r"metrics\.csv: damaged \(.*\); restore it"),
    "metrics are no text": ("metrics.csv", "\udcff", r"metrics\.csv: damaged \(.*\); restore it"),
    "a configuration that is none": ("config.yaml", "[]", r"config\.yaml: .*; restore the file as the search wrote it"),
    "an unknown key": ("config.yaml", "{evil: 1}", r"config\.yaml: .*; restore the file as the search wrote it"),
    "an alias bomb": ("config.yaml", "a: &a [x]\nb: [*a, *a]", r"anchors and aliases are refused; write the value out"),
}


@pytest.mark.parametrize("item", TRIALS)
def test_a_trial_that_cannot_be_replayed_is_refused(item: str, tmp_path: Path, refusal: Callable[..., str]) -> None:
    name, text, said = TRIALS[item]
    trial = tmp_path / "run/trials/a"
    trial.mkdir(parents=True)
    for file, sound in (("metrics.csv", "epoch,train_loss\n1,0.5\n"), ("config.yaml", "{}")):
        (trial / file).write_text(sound)
    (trial / name).unlink()
    if text is not None:
        (trial / name).write_text(text, errors="surrogateescape")
    assert re.search(said, refusal(search, "--replay", trial))


# --- cells tables and label images: analysis.compare ----------------------------------------------------------------


@pytest.mark.parametrize("item", corpus.STATISTICS)
def test_tables_are_refused(item: str, tmp_path: Path, refusal: Callable[..., str]) -> None:
    spoil, said, asked = corpus.STATISTICS[item]
    a, b = _tables(tmp_path, *spoil(corpus.cells(), corpus.cells(1)))
    given = [f"a={a}"] if asked else [f"a={a}", f"b={b}"]
    assert re.search(said, refusal(compare, *given, *asked, "--out", tmp_path / "out"))


@pytest.mark.parametrize("item", corpus.NOT_TESTED)
def test_honest_tables_that_cannot_be_tested_say_so(item: str, tmp_path: Path) -> None:
    a, b = _tables(tmp_path, *corpus.NOT_TESTED[item](corpus.cells(), corpus.cells(1)))
    assert compare([f"a={a}", f"b={b}", "--out", str(tmp_path / "out")]) == 0
    found = pd.read_csv(tmp_path / "out/comparisons.csv")
    rows = found[found["trait"] == "area"]
    told = rows["reason"].fillna("") + rows["verdict"].fillna("")
    assert len(rows)
    assert told.str.contains("not tested: |cannot rank|caution").all()
    assert rows["p_holm"].isna().all()


TABLES = {
    "semicolons": (
        lambda text: text.replace(",", ";").encode(),
        r"its columns are not separated by commas; save it as",
    ),
    "no header": (lambda text: text.split("\n", 1)[1].encode(), r"its first line holds no names of columns; export it"),
    "UTF-16": (lambda text: text.encode("utf-16"), r"cannot be read as a table \(.*\); export it again"),
    "a workbook": (lambda text: b"PK\x03\x04\x14\0\x80\x81", r"cannot be read as a table \(.*\); export it again"),
    "empty": (lambda text: b"", r"cannot be read as a table \(No columns.*\); export it again"),
}
"""Item: what a CSV file becomes, and what the line that refuses it says."""


@pytest.mark.parametrize("item", TABLES)
def test_files_that_are_no_tables_are_refused(item: str, tmp_path: Path, refusal: Callable[..., str]) -> None:
    spoil, said = TABLES[item]
    a, b = _tables(tmp_path, corpus.cells(), corpus.cells(1))
    b.write_bytes(spoil(b.read_text()))
    assert re.search(said, refusal(compare, f"a={a}", f"b={b}", "--out", tmp_path / "out"))


FOREIGN = {
    "TrackMate, decimal commas": (
        'FRAME,ID,POSITION_X,POSITION_Y,AREA\n,,(px),(px),(px^2)\n0,1,5,5,"78,5"\n',
        r"column AREA holds '78,5', which is no number",
    ),
    "ImageJ, names of slices": (" ,Area,Circ.,Slice\n1,78,0.9,t1.tif\n", r"column Slice holds 't1\.tif', which is no"),
    "ImageJ, slices from 0": (
        " ,Area,Circ.,Slice\n1,78,0.9,0\n",
        r"frame -1 in 1 rows; frames are whole numbers from 0",
    ),
}
"""Item: a table of another program, and what the line that refuses it says."""


@pytest.mark.parametrize("item", FOREIGN)
def test_tables_of_other_programs_are_refused(item: str, tmp_path: Path, refusal: Callable[..., str]) -> None:
    text, said = FOREIGN[item]
    (tmp_path / "a.csv").write_text(text)
    assert re.search(said, refusal(compare, f"a={tmp_path / 'a.csv'}", "--out", tmp_path / "out"))


PAGES = {
    "text": {"page": ["a", "b"]},
    "too many": {"page": [0, 2]},
    "twice": {"page": [0, 0]},
    "no frame": {"frame": [0, float("nan")]},
    "one frame": {"frame": [0, 0]},
    "larger than the page": {"height_px": [96, 97]},
    "nothing of the page": {"width_px": [0, 128]},
}


@pytest.mark.parametrize("item", PAGES)
def test_a_table_of_other_pages_is_refused(item: str, tmp_path: Path, refusal: Callable[..., str]) -> None:
    pages = tmp_path / "run/a.tif"
    pages.parent.mkdir()
    for path in (pages, tmp_path / "b.tif"):
        tifffile.imwrite(path, np.stack([corpus.discs(t) for t in range(2)]), photometric="minisblack")
    told = pd.DataFrame({"page": [0, 1], "field": "f", "frame": [0, 1], "height_px": 96, "width_px": 128})
    told.to_csv(pages.with_name("frames.csv"), index=False)
    assert score([str(pages), str(tmp_path / "b.tif")]) == 0
    told.assign(**PAGES[item]).to_csv(pages.with_name("frames.csv"), index=False)
    line = refusal(score, pages, tmp_path / "b.tif")
    assert "frames.csv: does not tell the pages of a.tif; restore it or move it away" in line


@pytest.mark.parametrize("asked", [[], ["--by", "treatment"]])
def test_a_pipe_is_no_table(asked: list[str], tmp_path: Path, refusal: Callable[..., str]) -> None:
    a, b = _tables(tmp_path, corpus.cells(), corpus.cells(1))
    b.unlink()
    os.mkfifo(b)
    said = refusal(compare, f"a={a}", f"b={b}", *asked, "--out", tmp_path / "out")
    assert "b.csv: a folder, a pipe or a device, not a table; give the file itself" in said


def _tables(folder: Path, *tables: pd.DataFrame) -> list[Path]:
    for name, table in zip("ab", tables, strict=True):
        table.to_csv(folder / f"{name}.csv", index=False)
    return [folder / "a.csv", folder / "b.csv"]
