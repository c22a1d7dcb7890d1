"""Several processes as one program, on this machine: the same counts, one writer, an end when one is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import jaxdist
from jaxdist import cli
from jaxdist.compute import hosts
from jaxdist.errors import InputError

SMALL = ["--model.activations", "abs", "--model.hidden", "16", "--train.steps", "40"]
SMALL += ["--data.normalisation", "unit", "--train.learning_rate", "0.5"]

WITHOUT_PICTURES = (
    "import sys; from jaxdist import cli; from jaxdist.report import writing; from jaxdist.compute import hosts; "
    "writing.write = lambda *_: []; hosts.HEARTBEAT = 10; "
    "sys.exit(cli.main())"
)
"""The command line, but for the tables and figures, which take longer than all the rest, and with less patience."""

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@contextlib.contextmanager
def started(processes, *arguments):
    """Start the command in so many processes and yield them; none outlives the test."""
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    meeting = ["--distributed.coordinator", f"localhost:{port}", "--distributed.processes", str(processes)]
    meeting += ["--distributed.index"]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WITHOUT_PICTURES, *arguments, *meeting, str(index)],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(processes)
    ]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "seeds"), [(2, 3), (3, 3)])
def test_processes_count_what_one_counts_and_one_of_them_writes(processes, seeds, tmp_path, monkeypatch):
    small = [*SMALL, "--train.seeds", str(seeds)]
    monkeypatch.setattr("jaxdist.report.writing.write", lambda *_: [])
    assert cli.main(["run", "--out", "alone", *small]) == 0
    with started(processes, "run", "--out", "together", *small) as running:
        said = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0] * processes, said
    assert "sweep abs: " in said[0][0]
    assert all(out == "" for out, _ in said[1:])
    assert {path.name for path in (tmp_path / "together").rglob("*")} == {
        ".lock", "config.toml", "manifest.json", "result.nc", "weights", "abs.safetensors"
    }  # fmt: skip
    alone, together = jaxdist.load("alone"), jaxdist.load("together")
    for family in ("scale", "clip", "offset"):
        for counts in ("correct", "agree", "unperturbed"):
            assert np.abs(alone[family][counts] - together[family][counts]).max() <= 2
    np.testing.assert_allclose(alone["training"].loss, together["training"].loss, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_ends_the_other_within_a_minute(lost):
    with started(2, "train", "--out", "out", *SMALL, "--train.seeds", "3", "--train.steps", "999999") as running:
        # The first line that tells of progress: both train.
        assert any("train abs" in line for line in running[0].stdout)
        running[lost].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        other = running[1 - lost]
        _, error = other.communicate(timeout=60)
        assert time.monotonic() - killed < 60
    # In words where a transfer failed, or by JAX, which aborts the process once the coordination service has noticed.
    assert other.returncode in (1, -signal.SIGABRT)
    assert "another process has ended" in error or "another task died" in error


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"auto": "maybe"}, "--distributed.auto: expected true or false, got 'maybe'"),
        ({"auto": "true", "index": "0"}, "--distributed.index: cannot be combined with --distributed.auto true"),
        ({"processes": "2"}, "--distributed.processes: also needs --distributed.coordinator"),
        ({"coordinator": "a:1", "processes": "2"}, "--distributed.coordinator: also needs --distributed.index"),
        ({"coordinator": "a", "processes": "2", "index": "0"}, "expected HOST:PORT with a port 1..65535, got 'a'"),
        ({"coordinator": "a:0", "processes": "2", "index": "0"}, "expected HOST:PORT with a port 1..65535, got 'a:0'"),
        ({"coordinator": "a:66000", "processes": "2", "index": "0"}, "got 'a:66000'"),
        ({"coordinator": "a:1", "processes": "0", "index": "0"}, "--distributed.processes: expected at least 1, got 0"),
        ({"coordinator": "a:1", "processes": "x", "index": "0"}, "--distributed.processes: expected a whole number"),
        ({"coordinator": "a:1", "processes": "2", "index": "2"}, "index: expected 0..1 for 2 processes, got 2"),
        ({"coordinator": "a:1", "processes": "2", "index": "-1"}, "index: expected a whole number, got '-1'"),
    ],
)
def test_options_that_cannot_be_are_refused(given, message):
    with pytest.raises(InputError) as error:
        hosts.cluster(given)
    assert message in str(error.value)


def test_good_options_and_none():
    assert hosts.cluster({}) is None
    assert hosts.cluster({"auto": "false"}) is None
    assert hosts.cluster({"auto": "TRUE"}) == hosts.Cluster()
    good = {"coordinator": "[::1]:7000", "processes": "2", "index": "1"}
    assert hosts.cluster(good) == hosts.Cluster("[::1]:7000", 2, 1)


@pytest.mark.parametrize("command", ["run", "train", "sweep"])
def test_the_command_line_refuses_in_one_sentence(command, capsys):
    arguments = [command, *(["folder"] if command == "sweep" else [])]
    assert cli.main([*arguments, "--distributed.index", "3"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxdist: --distributed.index: also needs")
    assert error.count("\n") == 1
    assert cli.main([*arguments, "--distributed.proceses", "3"]) == 2
    assert "did you mean '--distributed.processes'?" in capsys.readouterr().err


def test_a_port_that_is_taken_is_refused(capsys):
    with socket.create_server(("", 0)) as taken:
        where = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match=r"cannot listen on this port .* choose another"):
            hosts.join(hosts.Cluster(where, 2, 0))


def test_a_process_0_that_does_not_come_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(hosts, "PATIENCE", 0)
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(InputError, match=r"no answer within 0 s .* start process 0 there"):
        hosts.join(hosts.Cluster(f"localhost:{port}", 2, 1))
