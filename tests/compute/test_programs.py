"""Compiled programs that are kept compile once and change nothing, and no process holds more than it can."""

import json
import mmap
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from jaxdist.compute import programs
from jaxdist.data import prepared

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
    first, weights = run(tmp_path, "first")
    (kept,) = (tmp_path / "cache" / "jaxdist" / "programs").iterdir()
    listed = json.loads((kept / "list.json").read_text())
    if not listed["takes_back"]:
        assert not list(kept.glob("*-cache"))
        pytest.skip("JAX takes back none of its kept programs on this machine")
    assert first["cache_misses"] == len(listed["programs"]) > 5
    again, same = run(tmp_path, "again")
    assert same == weights
    assert "cache_misses" not in again
    assert again["cache_hits"] == first["cache_misses"]
    # What is damaged, half-written, another program, a link or not listed is compiled again, and then as before.
    damaged, empty, link, first_of_two, second_of_two, *_, unlisted = sorted(kept.glob("*-cache"))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    empty.write_bytes(b"")
    outside = link.rename(tmp_path / "outside")
    before = outside.read_bytes()
    link.symlink_to(outside)
    content = first_of_two.read_bytes()
    first_of_two.write_bytes(second_of_two.read_bytes())
    second_of_two.write_bytes(content)
    listed = json.loads((kept / "list.json").read_text())
    del listed["programs"][unlisted.name]
    (kept / "list.json").write_text(json.dumps(listed))
    mended, same = run(tmp_path, "mended")
    assert same == weights
    assert mended["cache_misses"] == 6
    assert outside.read_bytes() == before
    assert "cache_misses" not in run(tmp_path, "whole")[0]
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


def kept_in(cache):
    """Where programs are kept after `keep`, which begins with JAX told nothing; None where they are not."""
    jax.config.update("jax_compilation_cache_dir", None)
    programs.keep()
    folder = jax.config.values["jax_compilation_cache_dir"]
    assert folder is None or pathlib.Path(folder).is_relative_to(cache)
    return folder


def trial(monkeypatch, status):
    monkeypatch.setattr(programs, "_TRIAL", f"raise SystemExit({status})")


@pytest.mark.parametrize("takes_back", [True, False])
def test_nothing_is_kept_where_jax_does_not_take_it_back(cache, monkeypatch, takes_back):
    trial(monkeypatch, 0 if takes_back else programs._REJECTS)
    assert (kept_in(cache) is not None) == takes_back
    least = jax.config.values["jax_persistent_cache_min_compile_time_secs"]
    assert least == (0 if takes_back else programs.JAX_LEAST_S)
    # It is tried once, and not again.
    trial(monkeypatch, programs._REJECTS if takes_back else 0)
    assert (kept_in(cache) is not None) == takes_back


def test_what_else_is_said_of_a_trial_is_no_complaint(cache, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.setattr(programs, "_TRIAL", "import sys; print('I1130 15:30:09.0 1 platform.cc] CPU', file=sys.stderr)")
    assert kept_in(cache) is not None


def test_nothing_is_kept_where_jax_complains_of_what_it_takes_back(cache, monkeypatch):
    """As jaxlib 0.10.0 does on some machines, in some lines of errors for each program."""
    monkeypatch.setattr(
        programs, "_TRIAL", "import sys; print('E1130 15:30:09.0 1 cpu_aot_loader.cc] Machine', file=sys.stderr)"
    )
    assert kept_in(cache) is None
    trial(monkeypatch, 0)
    assert kept_in(cache) is None


@pytest.mark.parametrize("rubbish", [b"", b"\xff\xfe\0", b"[]", b'{"takes_back": 3, "programs": {}}'])
def test_a_list_that_cannot_be_read_is_made_anew(cache, monkeypatch, rubbish):
    trial(monkeypatch, 0)
    folder = pathlib.Path(kept_in(cache))
    (folder / "list.json").write_bytes(rubbish)
    (folder / "program-cache").write_bytes(b"of nobody knows whom")
    assert kept_in(cache) == str(folder)
    assert [path.name for path in folder.glob("*-cache")] == []


def test_a_trial_that_does_not_come_to_its_end_says_nothing(cache, monkeypatch):
    trial(monkeypatch, 1)
    assert kept_in(cache) is None
    trial(monkeypatch, 0)
    assert kept_in(cache) is not None


def test_the_trial_is_real_and_runs_nothing_that_lies_about(cache, monkeypatch, tmp_path):
    (tmp_path / "jax.py").write_text("raise SystemExit(0)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_DISABLE_JIT", "1")
    assert programs._takes_back() in (True, False)
    monkeypatch.setattr(programs, "_TRIAL", "import jax; raise SystemExit(0 if jax.__version__ else 1)")
    assert programs._takes_back() is True


def test_seconds_that_were_set_stay(cache, monkeypatch):
    trial(monkeypatch, 0)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 7.0)
    assert kept_in(cache) is not None
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == 7


def test_a_folder_that_others_can_write_is_not_used(cache, monkeypatch):
    trial(monkeypatch, 0)
    folder = pathlib.Path(kept_in(cache))
    folder.chmod(0o775)
    assert kept_in(cache) is None
    folder.chmod(0o700)
    assert kept_in(cache) is not None
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert kept_in(cache) is None
    assert folder.stat().st_mode & 0o777 == 0o700


def test_without_a_home_nothing_is_kept(cache, monkeypatch):
    def none(name):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(programs.platformdirs, "user_cache_path", none)
    assert kept_in(cache) is None
    assert prepared._user_cache() is None, "nor arrays of prepared data"


def test_the_oldest_are_removed(cache, monkeypatch):
    trial(monkeypatch, 0)
    monkeypatch.setattr(programs, "KEPT_BYTES", 40)
    folder = pathlib.Path(kept_in(cache))
    newest_first = {"a-cache": 10, "b-cache": 8, "c-cache": 15, "d-cache": 15}
    for age, (name, size) in enumerate(newest_first.items()):
        (folder / name).write_bytes(b"x" * size)
        os.utime(folder / name, (1000 - age, 1000 - age))
    programs._note_new(folder)
    for _ in range(2):
        assert kept_in(cache) == str(folder)
        assert {path.name for path in folder.glob("*-cache")} == {"a-cache", "b-cache"}


MANY = """
import mmap, sys
from pathlib import Path
import jax.numpy as jnp, numpy as np
import jaxdist
from jaxdist.compute import programs

if sys.argv[1] == "held":
    programs.release_if_many = lambda: None
most = int(Path("/proc/sys/vm/max_map_count").read_text())
pieces = [mmap.mmap(-1, 4096) for _ in range(most - 6000)]
rng = np.random.default_rng(0)
x, labels = rng.normal(size=(8, 3)).astype(np.float32), np.arange(8) % 2
for width in range(2, 52):
    inner, outer = rng.normal(size=(3, width)).astype(np.float32), rng.normal(size=(width, 2)).astype(np.float32)
    network = lambda params, x: jaxdist.site("hidden", jnp.maximum(x @ params[0], 0)) @ params[1]
    jaxdist.probe(network, [inner, outer], train=(x, labels), sites=["hidden"], families=("scale",))
print("all swept")
"""


def _most_mapped() -> int:
    return int(programs._MOST_MAPPED.read_text()) if programs._MOST_MAPPED.exists() else 0


@pytest.mark.slow
@pytest.mark.skipif(not 6000 < _most_mapped() < 200_000, reason="not the pieces of memory that Linux allows by default")
@pytest.mark.parametrize("how", ["held", "released"])
def test_a_process_may_compile_more_programs_than_it_can_map(how, tmp_path):
    """Fifty networks where there is room for forty; what happens without a release shows that there is no more."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-c", MANY, how], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) == ("all swept" in done.stdout) == (how == "released"), done.stderr[-2000:]


def test_programs_are_released_where_many_pieces_are_mapped_and_not_again_and_again(monkeypatch):
    def compiled():
        function = jax.jit(lambda x: x + 1)
        function(1.0)
        for _ in range(programs._CALLS):
            programs.release_if_many()
        return function._cache_size()

    shares = iter([0.49, 0.5, 0.02, 0.5, 0.51, 0.6, 0.79, 0.81, 0.9, 0.86, 0.9])
    monkeypatch.setattr(programs, "_share_mapped", lambda: next(shares))
    monkeypatch.setattr(programs, "_calls", 0)
    monkeypatch.setattr(programs, "_releases_at", 0.5)
    # Two shares are read where programs are released, the next release halfway between the second and all, or where
    # no more than the reserve is left.
    assert [compiled() for _ in range(7)] == [1, 0, 1, 0, 1, 0, 0]
    assert next(shares, None) is None


def test_the_share_of_pieces_is_that_of_this_process():
    share = programs._share_mapped()
    if share is not None:
        pieces = [mmap.mmap(-1, 4096) for _ in range(100)]
        more = programs._share_mapped()
        assert more is not None
        assert (more - share) * _most_mapped() == pytest.approx(100, abs=10)
        assert pieces
