"""Runs that were killed go on, finished ones grow, and nothing else is let into their folder."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import filelock
import jax
import numpy as np
import pytest
import tomli_w
import xarray as xr

from jaxdist import cli
from jaxdist import config as configs
from jaxdist.compute import ensemble
from jaxdist.errors import InputError
from jaxdist.experiment import finished, running
from jaxdist.networks import training
from jaxdist.perturbations import families
from jaxdist.storage import folders, result_files, unfinished, weights
from jaxdist.sweep import ensemble_sweep, results, waves

SMALL = {
    "model": {"hidden": [8], "activations": ["relu", "abs"]},
    "train": {"seeds": 4, "steps": 30, "save_every": 0.0},
    "sweep": {"families": ["scale"], "splits": ["test"]},
}


class Killed(BaseException):
    """Stands for the signal that no code sees."""


def config(out: Path, networks: tuple[str, ...] = ("relu", "abs"), **train) -> configs.Config:
    model = SMALL["model"] | {"activations": list(networks)}
    return configs.from_dict(SMALL | {"out": str(out), "model": model, "train": SMALL["train"] | train})


def arrays(folder: Path) -> dict[str, np.ndarray]:
    """All of a run's numbers, by path."""
    result = result_files.load(folder)
    found = {f"{node.path}/{name}": data.values for node in result.subtree for name, data in node.data_vars.items()}
    for name in ("relu", "abs"):
        leaves = jax.tree_util.tree_leaves_with_path(weights.load(folders.weights_path(folder, name)))
        found |= {f"{name} {jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in leaves}
    return found


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.fixture(scope="module", autouse=True)
def _short_calls():
    """Seven steps a compiled call, so that a short training has several, the last one not whole; no pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_steps_together", lambda _: 7)
        patch.setattr(ensemble, "group", lambda seeds, work, _: 2 if work else seeds)
        patch.setattr(running.writing, "write", lambda *_: [])
        yield


@pytest.fixture(scope="module")
def undisturbed(_short_calls, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    running.run(config(folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("calls", [1, 3, 6, 12])
def test_a_killed_run_goes_on_to_the_same_bits(calls, tmp_path, monkeypatch, undisturbed):
    """Killed after some calls of the compiled program that trains or sweeps; then the same command again."""
    left = calls

    def counted(function):
        def call(*args, measure=None, **kwargs):
            nonlocal left
            if measure is not None:
                kwargs["measure"] = measure
                if not isinstance(measure, ensemble_sweep.Counting):
                    return function(*args, **kwargs)
            if left == 0:
                raise Killed
            left -= 1
            return function(*args, **kwargs)

        return call

    steps, sweeps = training._steps, ensemble._run
    monkeypatch.setattr(training, "_steps", counted(steps))
    monkeypatch.setattr(ensemble, "_run", counted(sweeps))
    with pytest.raises(Killed):
        running.run(config(tmp_path / "run"))
    assert not (tmp_path / "run" / result_files.FILE).exists()
    left = 14 - calls  # all that is left of 5 calls to train, and 2 to sweep, each of 2 networks
    running.run(config(tmp_path / "run"))
    assert left == 0
    assert_same(arrays(tmp_path / "run"), arrays(undisturbed))
    assert not (tmp_path / "run" / unfinished.FOLDER).exists()


def test_a_sweep_goes_on_in_waves_of_another_size(tmp_path, monkeypatch, undisturbed):
    """As on another number of devices: nothing kept of smaller waves may stand for a larger one."""
    with monkeypatch.context() as patch:
        patch.setattr(ensemble, "group", lambda seeds, work, _: 1 if work else seeds)
        patch.setattr(running.folders, "save", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            running.run(config(tmp_path / "run"))
    monkeypatch.setattr(ensemble, "group", lambda seeds, work, _: 4 if work else seeds)
    running.run(config(tmp_path / "run"))
    assert_same(arrays(tmp_path / "run"), arrays(undisturbed))


@pytest.mark.slow
def test_work_that_nothing_tells_of_is_not_gone_on_with(tmp_path, monkeypatch, undisturbed):
    with monkeypatch.context() as patch:
        patch.setattr(running.folders, "save", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            running.train(config(tmp_path / "run", learning_rate=0.001))
    (tmp_path / "run" / unfinished.FOLDER / "run.toml").unlink()
    running.run(config(tmp_path / "run"))
    assert_same(arrays(tmp_path / "run"), arrays(undisturbed))


@pytest.mark.parametrize("noted", [{"format": 0}, {}])
def test_work_of_another_version_is_refused_and_stays(noted, tmp_path, monkeypatch):
    """What it kept may be other arrays than are read here."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(waves.ensemble_sweep, "sweep_sums", lambda *_, **__: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            running.run(config(folder))
    place = folder / unfinished.FOLDER / "run.toml"
    said = tomllib.loads(place.read_text())
    del said["format"]
    place.write_text(tomli_w.dumps(noted | said))
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match="unfinished: holds unfinished work of another version of jaxdist; delete it"):
        running.run(config(folder))
    assert sorted(folder.rglob("*")) == before


def test_a_finished_run_is_rid_of_what_was_left_whoever_left_it(tmp_path, undisturbed):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    (folder / unfinished.FOLDER).mkdir()
    (folder / unfinished.FOLDER / "run.toml").write_text("format = 0\n")
    running.run(config(folder))
    assert not (folder / unfinished.FOLDER).exists()
    assert_same(arrays(folder), arrays(undisturbed))


@pytest.mark.slow
def test_other_statistics_change_no_run(tmp_path):
    running.run(config(tmp_path / "run", seeds=2))
    finished.report_folder(tmp_path / "run", {"statistics.margin": "0.02"})
    assert results.config_of(running.run(config(tmp_path / "run", seeds=2))).statistics.margin == 0.01
    assert results.config_of(result_files.load(tmp_path / "run")).statistics.margin == 0.01


def test_networks_from_elsewhere_are_not_extended(tmp_path):
    running.run(config(tmp_path / "run", seeds=2))
    result = result_files.load(tmp_path / "run")
    result.attrs["origin"] = "{}"
    result_files.save(result, tmp_path / "run" / result_files.FILE)
    with pytest.raises(InputError, match=r"were not made from train.seed, so no seeds can be added"):
        running.run(config(tmp_path / "run", seeds=3))


def test_a_folder_with_a_config_alone_is_no_run(tmp_path):
    (tmp_path / folders.CONFIG_FILE).write_text("mine")
    (tmp_path / ".cache-0123abcd").mkdir()
    with pytest.raises(InputError, match="is neither empty nor a run"):
        running.run(config(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {folders.CONFIG_FILE, ".cache-0123abcd"}


def test_a_diverged_extension_names_its_own_seeds(tmp_path, monkeypatch):
    running.train(config(tmp_path / "run", seeds=2))
    whole = training._steps

    def diverged(*args, **kwargs):
        state, metrics = whole(*args, **kwargs)
        return state, metrics._replace(loss=metrics.loss.at[2, 1].set(np.inf))

    monkeypatch.setattr(training, "_steps", diverged)
    with pytest.raises(InputError, match="the loss of seed 3 is not finite after 2 updates"):
        running.train(config(tmp_path / "run", seeds=4))


def test_a_finished_run_is_left_as_it_is(undisturbed):
    before = (undisturbed / result_files.FILE).read_bytes()
    running.run(config(undisturbed))
    assert (undisturbed / result_files.FILE).read_bytes() == before


def test_an_extended_run_is_the_run_of_all_seeds(tmp_path, undisturbed):
    running.run(config(tmp_path / "run", seeds=2))
    progress: list[tuple[str, int, int]] = []
    running.run(config(tmp_path / "run"), show=lambda job, done, total, _: progress.append((job, done, total)))
    assert {total for job, _, total in progress if job.startswith("sweep")} == {2}  # only the new ones
    found, expected = arrays(tmp_path / "run"), arrays(undisturbed)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        # Two networks at a time and four are other programs, which round differently.
        np.testing.assert_allclose(found[name], values, rtol=2e-4, atol=1e-5 if "correct" not in name else 2)
    assert results.config_of(result_files.load(tmp_path / "run")).train.seeds == 4
    assert configs.load(tmp_path / "run" / folders.CONFIG_FILE).train.seeds == 4


def test_seeds_are_added_at_the_fractions_of_those_before(tmp_path, monkeypatch):
    """As where a version with a coarser grid has swept them."""
    with pytest.MonkeyPatch.context() as patch:
        coarse = dataclasses.replace(families.get("scale"), grid=lambda: families.intensity_grid()[::3])
        patch.setitem(families.ALL, "scale", coarse)
        running.run(config(tmp_path / "run", ("relu",), seeds=1))
    running.run(config(tmp_path / "run", ("relu",), seeds=2))
    running.run(config(tmp_path / "whole", ("relu",), seeds=2))
    grown, whole = (result_files.load(tmp_path / name)["scale"].to_dataset() for name in ("run", "whole"))
    np.testing.assert_array_equal(grown.fraction, families.intensity_grid()[::3])
    np.testing.assert_allclose(grown.correct, whole.correct.sel(fraction=grown.fraction), atol=2)


def test_a_run_only_trained_is_extended_and_then_swept(tmp_path):
    for seeds in (2, 4):
        running.train(config(tmp_path / "run", ("relu",), seeds=seeds))
    result = running.run(config(tmp_path / "run", ("relu",), seeds=6))
    assert result["scale"].sizes["seed"] == result["training"].sizes["seed"] == 6
    assert "seeds" not in result.attrs


def test_another_config_in_the_same_folder_is_refused_with_the_difference(undisturbed, tmp_path, monkeypatch):
    with pytest.raises(
        InputError, match=r"train.learning_rate 0.01, not 0.5; use the same settings, or choose another folder"
    ):
        running.run(config(undisturbed, learning_rate=0.5))
    with pytest.raises(InputError, match=r"train.seeds 4, not 3"):
        running.run(config(undisturbed, seeds=3))
    with pytest.raises(InputError, match="is already swept; to add seeds, use 'jaxdist run'"):
        running.train(config(undisturbed, seeds=5))
    monkeypatch.setattr(waves.ensemble_sweep, "sweep_sums", lambda *_, **__: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        running.run(config(tmp_path / "run"))
    with pytest.raises(InputError, match=r"train.steps 30, not 31"):
        running.run(config(tmp_path / "run", steps=31))
    with pytest.raises(InputError, match="holds an unfinished run; repeat the command that started it"):
        running.sweep_folder(tmp_path / "run")


@pytest.mark.parametrize("what", ["training/relu-0", "sweep"])
def test_damaged_work_is_named_and_the_run_goes_on_without_it(what, tmp_path, monkeypatch, undisturbed):
    monkeypatch.setattr(running.folders, "save", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        running.run(config(tmp_path / "run"))
    monkeypatch.undo()
    work = tmp_path / "run" / unfinished.FOLDER / what
    newest = max((path for path in work.iterdir() if path.name[0] != "."), key=lambda path: path.stat().st_mtime)
    for path in [newest] if newest.is_file() else [path for path in newest.rglob("*") if path.is_file()]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"is damaged .*; delete it, then repeat the command") as error:
        running.run(config(tmp_path / "run"))
    assert str(newest) in str(error.value)
    shutil.rmtree(newest) if newest.is_dir() else newest.unlink()
    running.run(config(tmp_path / "run"))
    assert_same(arrays(tmp_path / "run"), arrays(undisturbed))


@pytest.mark.parametrize("after", ["weights", "config", "result"])
def test_killed_while_saving_more_seeds(after, tmp_path, monkeypatch):
    """The files of a run are written one by one; whichever is the last, the same command finishes the run."""
    running.run(config(tmp_path / "run", seeds=2))
    owner, name = {
        "weights": (folders.configs, "to_toml"),
        "config": (result_files, "save"),
        "result": (unfinished.Store, "clear"),
    }[after]
    monkeypatch.setattr(owner, name, lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        running.run(config(tmp_path / "run", seeds=4))
    monkeypatch.undo()
    running.run(config(tmp_path / "run", seeds=4))
    assert arrays(tmp_path / "run")["/scale/correct"].shape[1] == 4
    assert arrays(tmp_path / "run")["relu ['dense0']['bias']"].shape[0] == 4
    assert configs.load(tmp_path / "run" / folders.CONFIG_FILE).train.seeds == 4
    assert not (tmp_path / "run" / unfinished.FOLDER).exists()


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(configs.StatisticsConfig)])
def test_statistics_may_change_on_the_way(field, tmp_path):
    wanted = config(tmp_path)
    other = configs.override(wanted, {f"statistics.{field}": "60" if field.endswith("index") else "0.6"})
    unfinished.refuse_other(wanted, other, tmp_path)
    with pytest.raises(InputError, match=r"sweep\.draws"):
        unfinished.refuse_other(wanted, configs.override(other, {"sweep.draws": "9"}), tmp_path)


def test_two_processes_on_one_folder(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    with filelock.FileLock(folder / folders.LOCK_FILE):
        assert cli.main(["run", "--out", str(folder), "--train.seeds=1", "--train.steps=1"]) == 2
    assert "another jaxdist process is using this folder" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == [folders.LOCK_FILE]


def test_a_process_that_was_killed_holds_nothing_and_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    code = (
        "import sys, time; from jaxdist import files; from jaxdist.storage import folders; from pathlib import Path\n"
        "with folders.held(Path(sys.argv[1])) as f, files.aside(f / 'result.nc') as t:\n"
        "    t.write_text('half'); print('writing', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate()
    assert len(list(folder.iterdir())) == 2
    with folders.held(folder):
        assert [path.name for path in folder.iterdir()] == [folders.LOCK_FILE]


def test_states_are_saved_now_and_then(tmp_path, monkeypatch):
    """Not at every call: only when the time is up, and at the end."""
    store = unfinished.Store(tmp_path, config(tmp_path, save_every=100.0))
    clock = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    with store.training("relu-0") as (newest, keep, due):
        assert newest({"a": np.zeros(2)})["a"].tolist() == [0, 0]
        for step in range(1, 8):
            clock += 30
            if due() or step == 7:
                keep({"a": np.full(2, step)}, step)
    with store.training("relu-0") as (newest, *_):
        assert newest({"a": np.zeros(2)})["a"].tolist() == [7, 7]
    kept = {path.name for path in (tmp_path / unfinished.FOLDER / "training" / "relu-0").iterdir()}
    assert kept == {"4", "7"}


def test_joined_results_keep_where_each_part_was_made(tmp_path):
    running.run(config(tmp_path / "run", seeds=2))
    first: xr.DataTree = result_files.load(tmp_path / "run")
    running.run(config(tmp_path / "run", seeds=4))
    both = result_files.load(tmp_path / "run")
    for group in ("training", "ranges", "scale"):
        assert list(np.atleast_1d(both[group].attrs["made_before"])) == [first[group].attrs["made"]]


@pytest.fixture
def working(tmp_path) -> tuple[unfinished.Store, dict[str, np.ndarray]]:
    """A store that keeps a state, swept arrays and what they are for."""
    rng = np.random.default_rng(0)
    state = {"weights": rng.normal(size=(3, 5000)).astype(np.float32), "zeros": np.zeros((40, 40), np.float32)}
    store = unfinished.Store(tmp_path, config(tmp_path))
    store.begin("0" * 64, "float32", {})
    with store.training("relu-0") as (_, keep, _):
        keep(state, 3)
    store.kept_or_computed("counts", lambda: (np.arange(300), state["zeros"]))
    return store, state


@pytest.mark.parametrize("what", ["*/*/3/*/**/*", "*/*/3/sha256.json", "sweep/*", "run.toml"])
def test_one_flipped_bit_of_what_is_kept_is_never_gone_on_with(what, working, tmp_path):
    """Large arrays of a training state have no checksum of TensorStore's."""
    store, state = working
    paths = [path for path in (tmp_path / unfinished.FOLDER).glob(what) if path.is_file()]
    rng = np.random.default_rng(1)
    sentences: list[str] = []
    for path in [max(paths, key=lambda path: path.stat().st_size), *paths] * 4:
        whole = bytearray(path.read_bytes())
        damaged = whole.copy()
        damaged[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            again = unfinished.Store(tmp_path, config(tmp_path))
            with again.training("relu-0") as (newest, *_):
                restored = newest(jax.tree.map(np.ones_like, state))
            swept = again.kept_or_computed("counts", lambda: pytest.fail("is kept already"))
        except InputError as error:
            sentences.append(str(error))
        else:
            assert_same(restored, state)
            assert_same(dict(enumerate(swept)), {0: np.arange(300), 1: state["zeros"]})
            assert again._found == store._found
        path.write_bytes(whole)
    assert sentences
    assert all("delete it" in sentence for sentence in sentences)


def test_a_state_without_checksums_was_not_finished_and_the_one_before_it_is_taken(working, tmp_path):
    store, state = working
    with store.training("relu-0") as (_, keep, _):
        keep(jax.tree.map(np.zeros_like, state), 7)
    (work,) = (tmp_path / unfinished.FOLDER).glob("training/*/7/sha256.json")
    work.unlink()
    with store.training("relu-0") as (newest, keep, _):
        assert_same(newest(jax.tree.map(np.ones_like, state)), state)
        keep(state, 7)
    assert work.exists()
