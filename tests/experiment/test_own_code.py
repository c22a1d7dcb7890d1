"""A user's own functions that change between a killed run and the next command, or before a run grows."""

from __future__ import annotations

import functools
import importlib
import json
import sys

import numpy as np
import pytest

import jaxdist
from jaxdist import config as configs
from jaxdist import registry
from jaxdist.errors import InputError
from jaxdist.experiment import running
from jaxdist.networks import optimizers
from jaxdist.perturbations import families
from jaxdist.sweep import metrics

MODULE = """
import jax.numpy as jnp
import numpy as np
import optax
import jaxdist
from jaxdist.perturbations import edits

def moved(ranges, fraction):
    return edits.unedited(ranges.low.size)._replace(offset=fraction * (ranges.high - ranges.low))

family = jaxdist.Family(
    name="moved", text="moved", edit=moved, grid=lambda: np.linspace(0, 1, 3), above="moved by"
)
metric = jaxdist.Metric(name="first_logit", text="the first logit", of=lambda outputs, labels: outputs[:, 0])

def descent(learning_rate):
    return optax.sgd(learning_rate)
"""

OWN = {
    "family": {"sweep": {"families": ["clip", "own_code:family"]}},
    "metric": {"sweep": {"metrics": ["own_code:metric"]}},
    "optimizer": {"train": {"optimizer": "own_code:descent"}},
}
"""What a config names of the module, each in a section of its own."""


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "own_code.py"
    path.write_text(MODULE, encoding="utf-8")
    yield path
    sys.modules.pop("own_code", None)


def config_with(what: str, seeds: int = 2) -> configs.Config:
    tree = {"out": "run", "model": {"hidden": [6]}, "train": {"seeds": seeds, "steps": 3}}
    for section, fields in OWN[what].items():
        tree[section] = {**tree.get(section, {}), **fields}
    return configs.from_dict(tree)


def edited(path, text="moves further"):
    """Another formula in the file, in a process that has not loaded it yet."""
    path.write_text(path.read_text(encoding="utf-8") + f"\n# {text}\n", encoding="utf-8")
    sys.modules.pop("own_code")
    importlib.invalidate_caches()
    for register in (families.REGISTER, metrics.REGISTER):
        register.references.clear()
        for name in ("moved", "first_logit"):
            register.records.pop(name, None)
    optimizers.optimizer.cache_clear()


def killed_at(job: str):
    def show(name, done, total, note):
        if name.startswith(job) and "abs" in name:
            raise KeyboardInterrupt

    return show


@pytest.mark.parametrize("what", OWN)
def test_work_that_was_begun_with_other_code_is_not_gone_on_with(what, module):
    stage = "train" if what == "optimizer" else "sweep"
    with pytest.raises(KeyboardInterrupt):
        running.run(config_with(what), show=killed_at(stage))
    before = module.read_bytes()
    edited(module)
    with pytest.raises(
        InputError, match=r"run/unfinished: the code of 'own_code:\w+' has changed .* delete this folder"
    ):
        running.run(config_with(what))
    module.write_bytes(before)
    edited_back = running.run(config_with(what))
    name = {"family": "own_code:family", "metric": "own_code:metric", "optimizer": "own_code:descent"}[what]
    assert set(json.loads(edited_back.attrs["code"])) == {name}


@pytest.mark.parametrize("what", OWN)
def test_a_run_is_whole_and_grows_by_the_same_code_alone(what, module):
    running.run(config_with(what))
    before = module.read_bytes()
    edited(module)
    for seeds in (2, 3):
        with pytest.raises(InputError, match=r"^run: the code of 'own_code:\w+' has changed .* choose another folder"):
            running.run(config_with(what, seeds=seeds))
    module.write_bytes(before)
    assert running.run(config_with(what, seeds=3))["training"].sizes["seed"] == 3


def test_a_sweep_is_made_anew_by_other_code_and_training_does_not_matter_to_it(module):
    running.run(config_with("family"))
    first = jaxdist.load("run").attrs["code"]
    edited(module)
    swept = running.sweep_folder("run", {"sweep.families": "clip,own_code:family"})
    assert swept.attrs["code"] != first
    assert jaxdist.load("run").attrs["code"] == swept.attrs["code"]


def test_a_run_of_nothing_of_ones_own_tells_no_code(module):
    config = configs.from_dict({"out": "plain", "model": {"hidden": [6]}, "train": {"seeds": 2, "steps": 1}})
    assert "code" not in running.run(config).attrs


def test_code_is_told_by_the_files_of_all_functions_but_jaxdists(module, monkeypatch):
    monkeypatch.syspath_prepend(module.parent)
    own = importlib.import_module("own_code")
    told = registry.code_of(own.family)
    assert told == registry.code_of(functools.partial(own.descent, 3)) == registry.code_of(own.metric)
    assert registry.code_of(families.get("offset")) is None
    assert registry.code_of(families.get("random_offset")) is None
    assert registry.code_of(None) is None
    # Functions without a file, as those of a notebook's cell.
    typed: dict = {}
    exec(compile("def f(x): return x\ndef g(x): return x + 1\n", "<cell>", "exec"), {"__name__": "cell"}, typed)
    assert None is not registry.code_of(typed["f"]) != registry.code_of(typed["g"]) is not None
    assert registry.code_of(np.abs) is not None
