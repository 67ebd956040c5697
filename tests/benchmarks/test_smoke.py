"""The benchmarks run to their end, on next to nothing; no time is asserted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SMALL = ["--frames", "5", "--size", "160x192", "--crop", "64", "--crops", "16", "--rounds", "1", "--memory-mb", "2"]


def _printed(*call: str) -> list[str]:
    done = subprocess.run([sys.executable, *call], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.splitlines()


def test_crops(tmp_path):
    lines = _printed(str(HERE / "crops.py"), "--cache", str(tmp_path), *SMALL)
    for what in ("memory of 4 trials", "stream, frames held", "shared: order", "stream: order"):
        assert next(line for line in lines if line.startswith(what)).endswith("yes")


def test_preparation():
    lines = _printed(str(HERE / "preparation.py"), "--rounds", "1")
    assert any(line.startswith("target: star") for line in lines)


SHORT = ["--crops", "8", "--size", "64", "--rounds", "1", "--trials", "2", "--seconds", "1"]


def test_overhead_of_an_epoch():
    ratio = next(line for line in _printed(str(HERE / "overhead.py"), "epoch", *SHORT) if line.startswith("ratio"))
    assert float(ratio.split()[1]) > 0


@pytest.mark.slow
def test_overhead_of_a_search():
    lines = _printed(str(HERE / "overhead.py"), "search", *SHORT)
    assert any(line.startswith("2 of 2 trials") for line in lines)
    assert any(line.startswith("ratio") for line in lines)


def test_postprocess(tmp_path):
    small = ["--cache", str(tmp_path), "--frames", "5", "--size", "160x192", "--rounds", "1"]
    lines = _printed(str(HERE / "postprocess.py"), *small)
    assert any(line.startswith("ratio whole") for line in lines)


@pytest.mark.slow
def test_large_frame():
    lines = _printed("-m", "tests.benchmarks.large_frame", "--side", "4100", "--targets", "two_class")
    assert any("peak of memory" in line and "failed" not in line for line in lines)


@pytest.mark.slow
def test_the_length_of_a_movie_costs_no_memory():
    lines = _printed("-m", "tests.benchmarks.long_movie", "--frames", "250")
    frames, whole = (next(line for line in lines if line.startswith(name)) for name in ("frames", "whole stage"))
    assert float(frames.split(" MB, ")[1].split()[0]) <= 10
    longer, shorter = (float(part.split()[-1]) for part in whole.split(" MB")[:2])
    assert longer <= 1.1 * shorter
