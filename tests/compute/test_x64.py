"""Where JAX has 64 bits, which is a flag of the whole process, all works as in float32, to rounding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

import jaxdist
from jaxdist.storage import result_files
from tests import oracle

OPTIONS = {
    "families and doses": {
        "families": ("scale", "clip", "offset", "random_offset", "restored_offset", "noise", "floor", "clip_both"),
        "draws": 2,
        "dose": True,
    },
    "matched doses": {"families": ("clip", "offset"), "matched": (0.1,)},
    "units, pairs, radii and derivatives": {
        "families": ("offset",),
        "grid": True,
        "units": True,
        "sensitivity": True,
    },
    "quantiles": {"families": ("clip",), "rule": "quantile"},
    "standard deviations": {"families": ("clip",), "rule": "sd"},
    "gauges": {"families": ("clip",), "gauges": ("as_is", "averaged", "absolute"), "draws": 2},
}

POST = {"gauges": jax.numpy.abs}


def arrays():
    """One network, with images and labels, in float64."""
    rng = np.random.default_rng(0)
    params = {"dense0": {"weight": rng.normal(size=(24, 16)) / 4, "bias": rng.normal(size=24) / 4}}
    params["dense1"] = {"weight": rng.normal(size=(5, 24)) / 5, "bias": rng.normal(size=5) / 5}
    x = rng.normal(size=(211, 16))
    return params, x, oracle.predict(params, "relu", oracle.preactivations(params, "relu", x, 0), 0)


def probed(name, x):
    """The result of some options; `x` says in which precision."""
    activation = POST.get(name, jax.nn.relu)

    def apply(params, x, tap):
        h = tap("h", x @ params["dense0"]["weight"].T + params["dense0"]["bias"][None])
        return activation(h) @ params["dense1"]["weight"].T + params["dense1"]["bias"][None]

    params, _, y = arrays()
    return jaxdist.probe(apply, params, train=(x, y), post={"h": activation}, **OPTIONS[name])


def write(folder: str) -> None:
    """What the other process does."""
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    assert jax.config.jax_enable_x64
    for k, name in enumerate(OPTIONS):
        result_files.save(probed(name, arrays()[1]), Path(folder) / f"{k}.nc")


@pytest.fixture(scope="module")
def double(tmp_path_factory) -> dict[str, xr.DataTree]:
    folder = tmp_path_factory.mktemp("double")
    code = f"from tests.compute import test_x64; test_x64.write({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "JAX_ENABLE_X64": "1"})
    return {name: jaxdist.load(folder / f"{k}.nc") for k, name in enumerate(OPTIONS)}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_every_measurement_is_that_of_float32(name, double):
    single = probed(name, arrays()[1].astype(np.float32))
    assert list(double[name].children) == list(single.children)
    for group, expected in single.children.items():
        for variable, values in expected.data_vars.items():
            measured, wanted = double[name][group][variable].to_numpy(), values.to_numpy()
            where = f"{group}/{variable}"
            assert measured.dtype == wanted.dtype, where
            if wanted.dtype.kind in "iu" or variable in ("correct", "agree", "kept", "correct_sd", "agree_sd"):
                assert np.abs(measured - wanted).max() <= 1, where
            elif wanted.dtype.kind == "f":
                np.testing.assert_allclose(measured, wanted, rtol=1e-3, atol=1e-4, err_msg=where)
            else:
                np.testing.assert_array_equal(measured, wanted, err_msg=where)


def test_counts_are_those_of_an_oracle_in_float64(double):
    params, x, y = arrays()
    for family, counts in oracle.sweep(params, "relu", x, y, ranges_x=x).items():
        group = double["families and doses"][family].to_dataset().squeeze()
        for variable, values in zip(("correct", "agree", "kept"), counts, strict=True):
            assert np.abs(group[variable].to_numpy() - values).max() <= 1, (family, variable)


def test_derivatives_are_those_of_differences_in_float64(double):
    params, x, y = arrays()
    h = oracle.preactivations(params, "relu", x, 0)

    def margin(h):
        logits = np.maximum(h, 0) @ params["dense1"]["weight"].T + params["dense1"]["bias"]
        right = np.arange(5) == y[:, None]
        return (logits[right] - np.where(right, -np.inf, logits).max(1)).mean()

    group = double["units, pairs, radii and derivatives"]["sensitivity"].to_dataset().squeeze()
    np.testing.assert_allclose(group.margin, margin(h), rtol=1e-5)
    for unit in range(24):
        step = np.zeros(24)
        step[unit] = 1e-6
        slope = (margin(h + step) - margin(h - step)) / 2e-6
        growth = (margin(h * np.exp(step)) - margin(h * np.exp(-step))) / 2e-6
        np.testing.assert_allclose([group.offset[unit], group.log_scale[unit]], [slope, growth], atol=1e-4)


@pytest.mark.slow
def test_a_run_with_training_and_snapshots_is_that_of_float32(tmp_path):
    options = "--train.steps 30 --train.seeds 2 --train.snapshots true --sweep.families clip,random_offset"
    for flag in "01":
        command = [sys.executable, "-m", "jaxdist", "run", *options.split(), "--out", str(tmp_path / flag), "--quiet"]
        subprocess.run(command, check=True, env={**os.environ, "JAX_ENABLE_X64": flag})
    single, double = (jaxdist.load(tmp_path / flag) for flag in "01")
    assert list(single.children) == list(double.children)
    for group, expected in single.children.items():
        for variable, values in expected.data_vars.items():
            if values.dtype.kind in "fiu":
                measured = double[group][variable].to_numpy()
                np.testing.assert_allclose(measured, values, rtol=1e-4, atol=1e-5, err_msg=f"{group}/{variable}")


def test_images_in_the_order_of_a_staircase_train_as_in_their_own():
    script = """
import jax
import numpy as np
from jaxdist import data
from jaxdist.compute import devices
from jaxdist.config import DataConfig
from jaxdist.data import lay_out
from jaxdist.networks import mlp, training
from tests.staircase_support import shifted

assert jax.config.jax_enable_x64
splits = {"train": shifted(data.load(DataConfig()).train, 3000, seed=0)}
whole = mlp.init_ensemble(jax.random.key(0), range(2), (256, 8, 10))
made = []
for in_order in (True, False):
    laid_out = lay_out(splits, devices.make_mesh(), "float32", in_order=in_order)
    assert bool(laid_out.splits["train"].widths) != in_order
    model, examples = mlp.model("relu", background=laid_out.background), laid_out.splits["train"]
    sgd = training.optimizer("sgd", 1e-4)
    trained = training.train(model, mlp.narrow(whole, laid_out.used), examples, examples, steps=3, optimizer=sgd)
    made.append(mlp.widen(trained.params, laid_out.used, whole)["dense0"]["weight"])
np.testing.assert_allclose(*made, atol=1e-6)
assert np.abs(made[0] - whole["dense0"]["weight"]).max() > 1e-4
"""
    environment = {**os.environ, "JAX_ENABLE_X64": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
