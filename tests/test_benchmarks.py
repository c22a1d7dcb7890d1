"""The benchmarks' own arithmetic, and what their files hold; nothing here judges a time."""

from __future__ import annotations

import json
import time

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import __main__ as command_line
from benchmarks import (
    adapters,
    images,
    jax_contenders,
    machine,
    parity,
    scaling,
    show,
    staircase,
    sweep,
    timing,
    train,
    waits,
)
from benchmarks.peers import comparison
from jaxdist.compute import products
from jaxdist.errors import InputError
from jaxdist.perturbations import families

ROW = {"median_s", "spread_s", "compile_s", "ratio_to_paper", "share_of_floor", "largest_count_difference"}
FAMILIES = [(name, families.get(name).grid()[::25]) for name in families.PAPER]


@pytest.fixture(scope="module")
def few() -> images.Images:
    """Made-up images, so few that every contender is quick."""
    return images.made_up(240, 40)


@pytest.fixture
def without_torch(monkeypatch):
    """As if PyTorch were not installed."""
    monkeypatch.setattr(machine, "have_torch", lambda: False)
    monkeypatch.setattr(machine, "measure_rates", lambda: machine.Rates(1e11, 1e10))


@pytest.mark.slow
def test_without_pytorch_jax_is_timed_all_the_same(without_torch, few, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(images, "for_speed", lambda options: few)
    monkeypatch.setattr(
        "sys.argv", ["benchmarks", "train", "--quick", "--repeats=1", "--seeds=2", f"--json={tmp_path}/f"]
    )
    monkeypatch.setattr(command_line.devices, "use_all_cores", lambda: None)
    assert command_line.main() == 0
    found = json.loads((tmp_path / "f").read_text())
    rows = found["contenders"]
    assert {"naive_jax", "jaxdist", "jaxdist_bfloat16", "jaxdist_digits", "floor"} <= set(rows)
    rounded = found["rounding"]["contenders"]
    assert set(rounded) == {"jaxdist", "jaxdist_bfloat16", "jaxdist_digits"}
    for row in rounded.values():
        assert 0 < row["rms_gradient_error"] <= row["largest_gradient_error"] < 1e-4
        assert row["flips"] < 1e-3 * row["values"]
    for name in rounded:
        assert ("executed_gflops" in rows[name]) == (rows[name]["share_of_floor"] is not None) == (name == "jaxdist")
    assert not any("torch" in name for name in rows)
    for row in rows.values():
        assert set(row) >= ROW
        assert row["ratio_to_paper"] is None
    assert found["machine"]["versions"]["jax"]
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("jaxdist" in line for line in lines)
    assert not any("…" in line for line in lines)
    show.figure(found, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_both_ways_in_jax_count_the_same(few):
    weights = parity.initial_weights(few, seed=0)
    stacked = {k: {leaf: jnp.asarray(v)[None] for leaf, v in layer.items()} for k, layer in weights.items()}
    naive = jax_contenders.naive_sweep(weights, "relu", few, FAMILIES)()
    ours = jax_contenders.jaxdist_sweep(stacked, "relu", few, FAMILIES)()
    assert timing.largest_difference(ours, naive) <= 1
    steps = {"steps": 2, "learning_rate": 0.001}
    first = jax_contenders.naive_train(stacked, "relu", few, **steps)()
    for backend in products.BACKENDS:
        second = jax_contenders.jaxdist_train(stacked, "relu", few, **steps, backend=backend)()
        assert first.shape == second.shape == (4,)
        assert timing.largest_difference(first, second) <= 1


def test_named_sites_and_flax_count_what_the_kernel_by_hand_counts(few):
    contenders = adapters.make_contenders(few, FAMILIES)
    found = {name: timing.Timed(1.0, (1.0, 3.0), contender.run()) for name, contender in contenders.items()}
    rows = adapters.rows(found)
    assert set(rows) == {adapters.HAND, *adapters.TARGETS}
    assert len(found[adapters.HAND].answer) == sum(len(grid) for _, grid in FAMILIES)
    assert len(set(found[adapters.HAND].answer.tolist())) > 3
    for row in rows.values():
        assert row["largest_count_difference"] <= adapters.ALLOWED
        assert row["ratio_to_hand"] == 1
    alone = adapters.rows({"linen": found["linen"]})["linen"]
    assert alone["ratio_to_hand"] is alone["largest_count_difference"] is None


def test_images_in_the_order_of_a_staircase_are_counted_as_in_their_own(monkeypatch, tmp_path, capsys):
    many = images.made_up(3_000, 500)
    monkeypatch.setattr(images, "for_speed", lambda options: many)
    options = ["staircase", "--quick", "--repeats=1", "--seeds=2", f"--figure={tmp_path}/drawn.png"]
    found = staircase.run(command_line.parse(options))
    rows = found["contenders"]
    assert set(rows) == {f"{what} {order}" for what in ("train", "sweep") for order in ("staircase", staircase.OWN)}
    assert all(row["largest_count_difference"] <= 1 for row in rows.values())
    assert all(rows[f"{what} {staircase.OWN}"]["ratio_to_own"] == 1 for what in ("train", "sweep"))
    assert found["widths"][0] < found["mean_width"] < 0.8 * found["widths"][-1]
    assert f"{found['mean_width']:.0f} pixels an image" in capsys.readouterr().out
    assert (tmp_path / "drawn.png").stat().st_size > 1000


def test_both_ways_in_pytorch_count_the_same(few):
    pytest.importorskip("torch", reason="PyTorch is an optional extra")
    from benchmarks import chunked_torch, paper_torch

    weights = parity.initial_weights(few, seed=0)
    x, y = paper_torch.as_tensors(*few[:2])
    points = [(name, float(p)) for name, grid in FAMILIES for p in grid]
    paper = paper_torch.sweep(weights, "abs", x, y, points)
    chunked = chunked_torch.make_sweep(weights, "abs", *few[:2], points, compile=False)()
    assert timing.largest_difference(chunked, paper) <= 1
    curves = paper_torch.train(weights, "abs", (x, y), (x, y), steps=2, learning_rate=0.001)[1]
    other = parity.initial_weights(few, seed=1)
    both = chunked_torch.make_train(
        [weights, other], "abs", few[:2], few[:2], steps=2, learning_rate=0.001, compile=False
    )()
    assert timing.largest_difference(both, np.concatenate([curves.train_correct, curves.test_correct])) <= 1


def test_contenders_take_turns():
    calls: list[str] = []

    def contender(name: str) -> timing.Contender:
        return timing.Contender(lambda: calls.append(name) or np.zeros(1, int), units=2)

    found = timing.interleave({"a": contender("a"), "b": contender("b")}, repeats=20)
    rounds = [tuple(calls[k : k + 2]) for k in range(0, len(calls), 2)]
    assert set(rounds) == {("a", "b"), ("b", "a")}  # every round has both, and not always in one order
    assert len(found["a"].each_s) == 20


def test_a_fast_contender_is_timed_more_often():
    slow, fast = (timing.Contender(lambda s=s: time.sleep(s) or np.zeros(1, int)) for s in (0.05, 0.001))
    found = timing.interleave({"slow": slow, "fast": fast}, repeats=2, turn_s=0.05)
    assert len(found["slow"].each_s) == 2 < len(found["fast"].each_s)


def test_ratios_are_to_the_paper_and_shares_of_the_floor():
    timed = {
        "paper_torch": timing.Timed(9.0, (4.0, 8.0, 6.0), np.array([5, 6, 7])),
        "jaxdist": timing.Timed(5.0, (1.0, 2.0, 3.0), np.array([5, 4, 7])),
    }
    some = timing.Contender(lambda: np.zeros(1))
    rows = timing.summary(timed, dict.fromkeys(timed, some), floor_s=1.0)
    assert rows["jaxdist"] == {
        "median_s": 2.0,
        "spread_s": 2.0,
        "compile_s": 3.0,
        "ratio_to_paper": 3.0,
        "share_of_floor": 0.5,
        "largest_count_difference": 2,
    }
    assert rows["floor"]["ratio_to_paper"] == 6.0


def test_only_some_contenders_can_be_asked_for():
    all_ = dict.fromkeys(("jaxdist", "naive_jax"), timing.Contender(lambda: np.zeros(1)))
    assert list(timing.chosen(all_, None)) == ["jaxdist", "naive_jax"]
    assert list(timing.chosen(all_, "naive_jax")) == ["naive_jax"]
    with pytest.raises(InputError, match="unknown contender 'jaxdits'; did you mean 'jaxdist'"):
        timing.chosen(all_, "jaxdits")


def test_a_line_is_fitted_in_relative_terms():
    line = timing.fit_line([1, 2, 4], [3.0, 5.0, 9.0])
    assert line["constant_s"] == pytest.approx(1)
    assert line["slope_s"] == pytest.approx(2)
    assert line["largest_deviation"] < 1e-9
    assert timing.fit_line([1, 2, 4], [3.0, 6.0, 9.0])["largest_deviation"] > 0.05


def test_the_work_of_the_paper_is_what_its_shapes_say():
    real = images.made_up(60, 10)
    flops, elements = sweep.work(60_000, 784, 325)
    assert flops == 2 * 60_000 * 128 * (784 + 3250)
    assert elements == 60_000 * 325 * 138
    flops, _ = train.work(real, 784)
    assert flops == 2 * 128 * (60 * (2 * 784 + 30) + 10 * 794)


def test_scaling_times_a_shared_size_once(few):
    sizes, contenders = scaling.cases(few, quick=True)
    assert set(sizes) == {
        "sweep, images",
        "sweep, points",
        "sweep, networks",
        "training step, images",
        "training step, networks",
    }
    assert all(len(cases) == 2 for cases in sizes.values())
    assert len(contenders) == 4 + 3
    assert {name for cases in sizes.values() for name in cases.values()} == set(contenders)


def test_only_contenders_can_be_drawn(capsys):
    with pytest.raises(SystemExit):
        command_line.parse(["scaling", "--figure", "x.png"])
    assert "only sweep, train and staircase" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command_line.parse(["train", "--repeats", "0"])
    assert "integer of at least 1" in capsys.readouterr().err


class TestWaits:
    def test_every_wait_of_this_checkout_is_timed(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr("sys.argv", ["benchmarks", "waits", "--quick", f"--json={tmp_path}/f"])
        monkeypatch.setattr(command_line.devices, "use_all_cores", lambda: None)
        assert command_line.main() == 0
        rows = json.loads((tmp_path / "f").read_text())["contenders"]
        assert list(rows) == [name for name in waits.NAMES if name in rows]
        assert {"a loop of one's own", "first probe", "second probe", "run", "run again"} == set(rows)
        loop, first = rows["a loop of one's own"], rows["first probe"]
        assert first["x_loop"] == first["wall_s"] / loop["wall_s"]
        assert all(row["wall_s"] > 0 for row in rows.values())
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80

    def test_what_is_no_checkout_is_said(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr("sys.argv", ["benchmarks", "waits", "--quick", f"--against={tmp_path}"])
        monkeypatch.setattr(command_line.devices, "use_all_cores", lambda: None)
        assert command_line.main() == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"error: --against: {tmp_path}: no checkout of jaxdist; expected a folder that holds jaxdist/"

    def test_checkouts_of_one_name_are_refused(self, tmp_path):
        (tmp_path / waits.CHECKOUT.name / "jaxdist").mkdir(parents=True)
        (tmp_path / waits.CHECKOUT.name / "jaxdist" / "__init__.py").touch()
        with pytest.raises(InputError, match="folders of different names"):
            waits.run(command_line.parse(["waits", f"--against={tmp_path}/{waits.CHECKOUT.name}"]))

    def test_a_process_that_fails_is_said_in_its_last_line(self, tmp_path):
        place = waits.Place(waits.CHECKOUT, tmp_path)
        assert place.run("-c", "print(3)").printed == "3\n"
        with pytest.raises(InputError, match=r"-c raise ValueError\('so'\): ValueError: so$"):
            place.run("-c", "raise ValueError('so')")


class TestPeers:
    def test_what_is_installed_counts_the_same(self, monkeypatch, tmp_path, capsys):
        only = "plain_vmap,with_jaxdist" + (",torch_hooks" if machine.have_torch() else "")
        monkeypatch.setattr("sys.argv", ["benchmarks", "peers", "--quick", f"--only={only}", f"--json={tmp_path}/f"])
        monkeypatch.setattr(command_line.devices, "use_all_cores", lambda: None)
        assert command_line.main() == 0
        written = json.loads((tmp_path / "f").read_text())
        assert written["agrees"]
        assert list(written["contenders"]) == only.split(",")
        for name, row in written["contenders"].items():
            assert row["lines"] == comparison.lines(name)
            assert min(row[f"{what}_{call}_s"] for what in ("one", "all") for call in ("first", "again")) > 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80

    def test_what_is_not_installed_is_left_out_and_said(self, monkeypatch, capsys):
        monkeypatch.setattr(comparison.importlib.util, "find_spec", lambda name: None)
        options = command_line.parse(["peers", "--quick"])
        monkeypatch.setattr(comparison, "_job", lambda *_: {})
        assert comparison.run(options)["contenders"] == {}
        assert "left out: torch, nnsight, pyvene" in capsys.readouterr().err

    def test_an_unknown_peer_is_said(self):
        with pytest.raises(InputError, match="unknown contender 'with_jaxdits'; did you mean 'with_jaxdist'"):
            comparison.run(command_line.parse(["peers", "--only=with_jaxdits"]))
        with pytest.raises(InputError, match="expected plain_vmap among them"):
            comparison.run(command_line.parse(["peers", "--only=with_jaxdist"]))

    def test_lines_of_code_are_counted_and_no_others(self, tmp_path):
        path = tmp_path / "some.py"
        text = '"""A docstring\nof two lines."""\n\nimport os  # with a comment\n\n\n# alone\n'
        text += 'def f(\n    a,\n):\n    """Said."""\n    x = """of\n    three\n    lines"""\n'
        path.write_text(text + "    return [\n        x,\n\n    ]\n")
        assert comparison.lines_of(path) == 1 + 3 + 3 + 3
