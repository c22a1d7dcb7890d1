"""Compiled programs kept for later processes: nothing is compiled twice, and nothing comes out different."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxdist.compute import programs

RUN = """
import collections, json, sys
import jax.monitoring
events = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name.rpartition("/")[2]]))
from jaxdist.cli import main
sys.argv = ["jaxdist", "run", "-q", "--out", sys.argv[1], "--train.seeds", "2", "--train.steps", "3"]
code = main()
print(json.dumps(events))
sys.exit(code)
"""


def run(folder, name, **environment):
    """Run a small experiment in a process of its own: what JAX did with its cache, and the run's weights."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XDG_"))}
    given = {**plain, "MPLCONFIGDIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), **environment}
    command = [sys.executable, "-c", RUN, name]
    done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    weights = {path.name: path.read_bytes() for path in sorted((folder / name / "weights").iterdir())}
    assert weights
    return json.loads(done.stdout.splitlines()[-1]), weights


def test_a_second_run_compiles_nothing_and_trains_the_same_networks(tmp_path):
    first, weights = run(tmp_path, "first")
    assert first["cache_misses"] > 5
    again, same = run(tmp_path, "again")
    assert same == weights
    if "cache_hits" not in again:
        pytest.skip("JAX finds none of its kept programs again on this machine")
    assert "cache_misses" not in again
    kept = tmp_path / "cache" / "jaxdist" / "programs"
    assert kept.stat().st_mode & 0o077 == 0, "programs that are run are nobody else's to write"
    # What was damaged, or left half-written, is compiled again.
    entries = sorted(kept.glob("*-cache"))
    entries[0].write_bytes(entries[0].read_bytes()[:-20])
    entries[1].write_bytes(b"")
    entries[1].with_name(entries[1].name.removesuffix("-cache") + "-atime").unlink()
    mended, same = run(tmp_path, "mended")
    assert same == weights
    assert mended["cache_misses"] >= 1
    assert entries[1].stat().st_size > 0
    # And nothing is kept where there is no place for it, or JAX is told so.
    (tmp_path / "file").write_text("")
    nowhere, same = run(tmp_path, "nowhere", XDG_CACHE_HOME=str(tmp_path / "file"))
    assert same == weights
    assert "cache_misses" not in nowhere


@pytest.fixture
def settings():
    """The tests' own settings, again in place after a test."""
    names = (
        "jax_compilation_cache_dir",
        "jax_compilation_cache_max_size",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_enable_compilation_cache",
    )
    before = {name: jax.config.values[name] for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("settings")
def test_what_jax_has_been_told_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    told = jax.config.values["jax_compilation_cache_dir"]
    assert told is not None
    programs.keep()
    assert jax.config.values["jax_compilation_cache_dir"] == told
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    programs.keep()
    assert jax.config.values["jax_compilation_cache_dir"] is None
    assert list(tmp_path.iterdir()) == []


def test_only_what_was_not_finished_is_removed(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a-cache", "a-atime", "b-cache", "c-atime"):
        (tmp_path / name).write_bytes(rng.bytes(8))
    programs._remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} - {".lockfile"} == {"a-cache", "a-atime", "c-atime"}
