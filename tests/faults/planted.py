"""Secrets planted where users have them, and a search for them in everything that a command leaves behind."""

from __future__ import annotations

import base64
import gzip
import io
import zipfile
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from pathlib import Path

ENVIRONMENT = {
    "WANDB_API_KEY": "9f1c0a7e5d3b2846f0e1d2c3b4a5968778695a4b",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDKEY000001",
    "AWS_SECRET_ACCESS_KEY": "planted/Secret+OfAws/0123456789abcdefghij",
    "AWS_SESSION_TOKEN": "PlantedSessionToken0123456789",
    "HF_TOKEN": "hf_PlantedTokenOfTheHub0123456789",
    "GITHUB_TOKEN": "ghp_PlantedTokenOfGithub0123456789",
    "DATABASE_PASSWORD": "planted-password-of-a-database",
}
YAML_COMMENT = "# token: planted-token-in-a-comment-0123\n"
TYPED = "planted-secret-typed-0123456789"
SECRETS = {
    **ENVIRONMENT,
    "comment of the configuration": "planted-token-in-a-comment-0123",
    "command line": TYPED,
}


def found_in(*roots: Path, but: Path | None = None) -> list[str]:
    """Return which secret stands in which file below some folders, archives and tables unpacked; `but` is not read."""
    told = []
    for root in roots:
        for file in sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink()):
            if file == but:
                continue
            data = unpacked(file)
            told += [f"{name} in {file}" for name, secret in SECRETS.items() if holds(data, secret)]
    return told


def holds(data: bytes, secret: str) -> bool:
    """Tell whether bytes hold a secret: plain, as part of an address, or in base64."""
    coded = base64.b64encode(secret.encode()).rstrip(b"=")[:-1]
    return any(form in data for form in (secret.encode(), quote(secret, safe="").encode(), coded))


def unpacked(file: Path) -> bytes:
    """Return the bytes of a file, and with them what lies in it if it is an archive or a table."""
    data = file.read_bytes()
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return b"\n".join(
                [data, *archive.namelist().__repr__().encode().split(), *map(archive.read, archive.namelist())]
            )
    if data[:2] == b"\x1f\x8b":
        return data + gzip.decompress(data)
    if data[:4] == b"PAR1":
        import pandas as pd

        return data + pd.read_parquet(io.BytesIO(data)).to_csv().encode()
    return data
