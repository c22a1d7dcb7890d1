"""Downloading the official files from a server on this machine."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jaxdist.data import download as web
from jaxdist.data import idx
from tests.data.support import (
    STEMS,
    TEST_LABELS,
    TRAIN_IMAGES,
    arrays,
    idx_bytes,
    load,
    prepare,
    put,
    refused,
)

# Downloading


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files; a path with 'cut' in it promises more bytes than it sends."""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def send_header(self, keyword: str, value: str) -> None:
        cut = keyword == "Content-Length" and "cut" in self.path
        super().send_header(keyword, "999999" if cut else value)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server on the loopback, of the folder tmp_path / 'web'."""
    (tmp_path / "web").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}/"
        serving.shutdown()
        thread.join()


@pytest.fixture
def mirror(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of small gzip files that stands for the official mnist; returned to be spoilt."""
    parts = arrays()
    digests = {stem: hashlib.sha256(idx_bytes(part)).hexdigest() for stem, part in zip(STEMS, parts, strict=True)}
    monkeypatch.setitem(web.MIRRORS, "mnist", server)
    monkeypatch.setitem(web.DIGESTS, "mnist", digests)
    return put(tmp_path / "web", parts, gz=True)


def test_a_download_is_prepared(mirror: Path, server: str, tmp_path: Path) -> None:
    place, lines = prepare("mnist", None, tmp_path / "tfds", download=True)
    assert load(tmp_path / "tfds").digest == load(mirror).digest
    assert lines[:4] == [f"fetching {server}{stem}.gz" for stem in STEMS]
    assert lines[-1] == f"mnist is prepared in {place}"


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "other data": (
        lambda path: path.write_bytes(gzip.compress(idx_bytes(arrays()[3][::-1]))),
        "not the official mnist file, whose SHA-256 is ",
    ),
    "not gzip": (lambda path: path.write_bytes(b"<html>log in first</html>"), "not the official mnist file"),
    "absent": (lambda path: path.unlink(), "cannot be fetched (HTTP Error 404: File not found)"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_download_of_anything_else_is_refused(mirror: Path, server: str, tmp_path: Path, case: str) -> None:
    spoil, part = SPOILT[case]
    spoil(mirror / f"{TEST_LABELS}.gz")
    refused(
        lambda: prepare("mnist", None, tmp_path / "tfds", download=True),
        f"{server}{TEST_LABELS}.gz: {part}",
        "run 'jaxdist data prepare mnist --from FOLDER', which needs no network",
    )
    assert not (tmp_path / "tfds").exists()


def test_a_download_cut_short_is_refused(server: str, tmp_path: Path) -> None:
    folder = put(tmp_path / "web" / "cut", arrays(), gz=True)
    digests = {TRAIN_IMAGES: idx.digest(folder / f"{TRAIN_IMAGES}.gz")}
    (folder / f"{TRAIN_IMAGES}.gz").write_bytes((folder / f"{TRAIN_IMAGES}.gz").read_bytes()[:-30])
    fetch = functools.partial(web.fetch, "mnist", tmp_path, digests=digests, report=lambda _: None)
    refused(lambda: fetch(base_url=f"{server}cut/"), f"{server}cut/{TRAIN_IMAGES}.gz: ", "official mnist file")


def test_no_server_and_too_much_data_are_refused(
    mirror: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/"
    fetch = functools.partial(web.fetch, "mnist", tmp_path, digests=web.DIGESTS["mnist"], report=lambda _: None)
    refused(
        lambda: fetch(base_url=closed), f"{closed}{TRAIN_IMAGES}.gz: cannot be fetched (", "refused", "--from FOLDER"
    )
    monkeypatch.setattr(web, "_MOST", 100)
    refused(lambda: fetch(base_url=server), "cannot be fetched (more than 100 bytes)")
    assert idx.present(mirror)
