"""No user folders and no network in the tests of data sets."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from jaxdist.data import prepared
from tests.data.support import arrays, prepare, put


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No user folders, and no network but the loopback."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("TFDS_DATA_DIR", str(home / "tfds"))
    monkeypatch.setattr(prepared, "_user_cache", lambda: home / "cache")
    monkeypatch.setenv("no_proxy", "*")
    connect = socket.socket.connect

    def loopback_only(self: socket.socket, address: Any) -> None:
        assert address[0] == "127.0.0.1", f"the network was tried: {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", loopback_only)


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """A prepared mnist, not decoded yet."""
    return prepare("mnist", put(tmp_path / "idx", arrays()), tmp_path / "tfds")[0]
