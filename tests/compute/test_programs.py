"""Compiled programs kept for later processes: nothing is compiled twice, and nothing comes out different."""

import json
import os
import subprocess
import sys

import jax
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
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XDG_", "XLA_"))}
    given = {**plain, "MPLCONFIGDIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), **environment}
    command = [sys.executable, "-c", RUN, name]
    done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    weights = {path.name: path.read_bytes() for path in sorted((folder / name / "weights").iterdir())}
    assert weights
    return json.loads(done.stdout.splitlines()[-1]), weights


def test_a_second_run_compiles_nothing_and_trains_the_same_networks(tmp_path):
    open_to_others = tmp_path / "cache" / "jaxdist"
    open_to_others.mkdir(parents=True)
    open_to_others.chmod(0o775)
    first, weights = run(tmp_path, "first")
    (kept,) = (open_to_others / "programs").iterdir()
    for folder in (open_to_others, kept.parent, kept):
        assert folder.stat().st_mode & 0o022 == 0, "programs that are run are nobody else's to write"
    if (kept / "verdict").read_text() == "rejects":
        assert [path.name for path in kept.iterdir()] == ["verdict"]
        pytest.skip("JAX takes back none of its kept programs on this machine")
    assert first["cache_misses"] > 5
    again, same = run(tmp_path, "again")
    assert same == weights
    assert "cache_misses" not in again
    assert again["cache_hits"] == first["cache_misses"]
    # What was damaged, or left half-written, is compiled again.
    damaged, empty, *_ = sorted(kept.glob("*-cache"))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    empty.write_bytes(b"")
    mended, same = run(tmp_path, "mended")
    assert same == weights
    assert mended["cache_misses"] == 2
    assert empty.stat().st_size > 0
    # And nothing is kept where there is no place for it, or JAX is told so.
    (tmp_path / "file").write_text("")
    elsewhere = {"nowhere": {"XDG_CACHE_HOME": f"{tmp_path}/file"}, "told": {"JAX_ENABLE_COMPILATION_CACHE": "0"}}
    for name, more in elsewhere.items():
        alone, same = run(tmp_path, name, **more)
        assert same == weights
        assert not alone.keys() & {"cache_misses", "cache_hits"}


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


@pytest.fixture
def cache(monkeypatch, tmp_path, settings):
    """The user's cache folder, empty, with JAX told nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", programs.JAX_LEAST_S)
    return tmp_path


def test_the_least_seconds_are_jaxs_default():
    default = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.config.jax_persistent_cache_min_compile_time_secs)"],
        env={key: value for key, value in os.environ.items() if not key.startswith("JAX_")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(default.stdout) == programs.JAX_LEAST_S


def test_what_jax_has_been_told_stays(cache):
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    programs.keep()
    assert jax.config.values["jax_compilation_cache_dir"] == "elsewhere"
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    programs.keep()
    assert jax.config.values["jax_compilation_cache_dir"] is None
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(("trial", "kept"), [("raise SystemExit(0)", True), ("raise SystemExit(1)", False)])
def test_nothing_is_kept_where_jax_does_not_take_it_back(cache, monkeypatch, trial, kept):
    monkeypatch.setattr(programs, "_TRIAL", trial)
    programs.keep()
    assert (jax.config.values["jax_compilation_cache_dir"] is not None) == kept
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == (0 if kept else programs.JAX_LEAST_S)
    # It is tried once, and not again.
    monkeypatch.setattr(programs, "_TRIAL", "this is no Python")
    jax.config.update("jax_compilation_cache_dir", None)
    programs.keep()
    assert (jax.config.values["jax_compilation_cache_dir"] is not None) == kept


def test_seconds_that_were_set_stay(cache, monkeypatch):
    monkeypatch.setattr(programs, "_TRIAL", "")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 7.0)
    programs.keep()
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == 7


def test_a_folder_of_somebody_else_is_not_used(cache, monkeypatch):
    monkeypatch.setattr(programs, "_TRIAL", "")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    programs.keep()
    assert jax.config.values["jax_compilation_cache_dir"] is None


def test_the_oldest_are_removed_and_what_was_not_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "KEPT_BYTES", 40)
    machine, other = tmp_path / "a", tmp_path / "b"
    newest_first = [(machine, "a-cache", 10), (other, "b-cache", 8), (machine, "c-cache", 15), (other, "d-cache", 15)]
    for age, (folder, name, size) in enumerate(newest_first):
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x" * size)
        os.utime(folder / name, (1000 - age, 1000 - age))
    (machine / "empty-cache").write_bytes(b"")
    (machine / "verdict").write_text("finds")
    programs._trim(tmp_path)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"verdict", "a-cache", "b-cache"}
    programs._trim(tmp_path)
    assert (machine / "a-cache").exists()
