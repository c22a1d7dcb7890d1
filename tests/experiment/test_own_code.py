"""A user's own functions that change between a killed run and the next command, or before a run grows."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import json
import linecache
import math
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import jaxdist
from jaxdist import config as configs
from jaxdist import own_code, registry
from jaxdist.errors import InputError, MeaninglessError
from jaxdist.experiment import running
from jaxdist.fields import Call
from jaxdist.networks import optimizers
from jaxdist.perturbations import edits, families
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


FORMULAS = {
    "family": ("offset=fraction", "offset=2 * fraction"),
    "metric": ("outputs[:, 0]", "outputs[:, 1]"),
    "optimizer": ("optax.sgd(learning_rate)", "optax.sgd(0.5 * learning_rate)"),
}


def edited(path, what):
    """Another formula in the file, in a process that has not loaded it yet."""
    before, after = FORMULAS[what]
    text = path.read_text(encoding="utf-8")
    assert before in text
    loaded_anew(path, text.replace(before, after))


def loaded_anew(path, text):
    path.write_text(text, encoding="utf-8")
    sys.modules.pop("own_code")
    importlib.invalidate_caches()
    for register in (families.REGISTER, metrics.REGISTER):
        register.references.clear()
        for name in ("moved", "first_logit"):
            register.records.pop(name, None)


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
    edited(module, what)
    with pytest.raises(
        InputError, match=r"run/unfinished: the code of 'own_code:\w+' has changed .* delete this folder"
    ):
        running.run(config_with(what))
    loaded_anew(module, MODULE)
    resumed = running.run(config_with(what))
    name = {"family": "own_code:family", "metric": "own_code:metric", "optimizer": "own_code:descent"}[what]
    assert json.loads(resumed.attrs["code"]) == {name: hashlib.sha256(MODULE.encode()).hexdigest()}
    whole = running.run(dataclasses.replace(config_with(what), out="whole"))
    for group in resumed.children:
        xr.testing.assert_equal(resumed[group].to_dataset(), whole[group].to_dataset())


@pytest.mark.parametrize("what", OWN)
def test_a_run_is_whole_and_grows_by_the_same_code_alone(what, module):
    running.run(config_with(what))
    edited(module, what)
    for seeds in (2, 3):
        with pytest.raises(InputError, match=r"^run: the code of 'own_code:\w+' has changed .* choose another folder"):
            running.run(config_with(what, seeds=seeds))
    loaded_anew(module, MODULE)
    assert running.run(config_with(what, seeds=3))["training"].sizes["seed"] == 3


def test_a_sweep_is_made_anew_by_other_code(module):
    running.run(config_with("family"))
    first = jaxdist.load("run")
    edited(module, "family")
    swept = running.sweep_folder("run", {"sweep.families": "clip,own_code:family"})
    assert swept.attrs["code"] == jaxdist.load("run").attrs["code"] != first.attrs["code"]
    assert not swept["moved"].correct.equals(first["moved"].correct)


def test_a_sweep_neither_imports_the_optimiser_nor_takes_its_code_for_that_of_the_training(module):
    running.train(config_with("optimizer"))
    trained = jaxdist.load("run").attrs["code"]
    loaded_anew(module, "raise SystemExit('imported')")
    swept = running.sweep_folder("run")
    assert swept.attrs["code"] == trained
    edited_text = MODULE.replace(*FORMULAS["optimizer"])
    module.write_text(edited_text, encoding="utf-8")
    with pytest.raises(InputError, match="the code of 'own_code:descent' has changed"):
        running.run(config_with("optimizer", seeds=3))


def test_a_family_that_means_nothing_may_be_mended(module, monkeypatch):
    def refuse(*_):
        raise InputError("it means nothing")

    with monkeypatch.context() as patch:
        patch.setattr(families, "check_meaning", refuse)
        with pytest.raises(MeaninglessError):
            running.run(config_with("family"))
    assert "code" not in jaxdist.load("run").attrs
    edited(module, "family")
    assert "own_code:family" in running.run(config_with("family")).attrs["code"]


def test_a_run_of_nothing_of_ones_own_tells_no_code(module):
    config = configs.from_dict({"out": "plain", "model": {"hidden": [6]}, "train": {"seeds": 2, "steps": 1}})
    assert "code" not in running.run(config).attrs
    for register in (families.REGISTER, metrics.REGISTER):
        assert not [name for name in register.built_in if register.code_of(name) is not None]
    assert optimizers.code_of("adamw", Call("cosine_decay_schedule", (("init_value", 0.1), ("decay_steps", 9)))) == {}


def test_a_script_may_change_around_a_function_that_it_registers(module):
    """Only the function is looked at, so that a script which holds the config too can grow its run."""
    text = MODULE.replace("own = 1", "") + "jaxdist.register(family)\n"
    tell = functools.partial(families.REGISTER.code_of, "moved")
    digests = []
    for each in (text, "# a comment\n" + text, text.replace("offset=fraction", "offset=2 * fraction")):
        exec(compile(each, "<script>", "exec"), {"__name__": "script"})
        digests.append(tell())
        families.REGISTER.records.pop("moved")
    assert digests[0] == digests[1] != digests[2]
    assert None not in digests


TOLD = """
import dataclasses, functools, types, jax, numpy as np, optax
K = {0}
CALLS = []
def helper(x): return x * {0}
def plain(x): return x * {0}
def default(x, k={0}): return x
def constant(x): return x * K
def helped(x): return helper(x)
def logged(x): CALLS.append(x); return x + {0}
def make(*k):
    def inner(x): return x * k[0] - k[-1]
    return inner
closure, swapped = make({0}), make({0}, 5 - {0})
array, key = make(np.arange({0})), functools.partial(plain, key=jax.random.key({0}))
partial = functools.partial(optax.sgd, momentum={0})
turned = functools.partial(pow, {0}, 5 - {0})
jitted, mapped = jax.jit(plain), jax.vmap(plain)
one_line = lambda x: x * {0}
members = lambda x: x in {{"one", "two", "three", "four", "n{0}"}}
@functools.wraps(np.mean)
def wrapper(x): return x + {0}
@jax.custom_jvp
def custom(x): return x - {0}
@jax.custom_jvp
def ruled(x): return x
ruled.defjvp(lambda primals, tangents: (primals[0], {0} * tangents[0]))
class Base:
    def __call__(self, rate): return optax.sgd({0} * rate)
class Inherited(Base):
    pass
inherited = Inherited()
class Descent:
    rate = 0.1
    def __init__(self): self.factor = {0}
    def __call__(self, rate): return optax.sgd(rate)
    def other(self, rate): return optax.sgd(rate * self.factor)
instance, bound = Descent(), Descent().other
class Attribute:
    factor = {0}
    def __call__(self, x): return x * self.factor
attribute = Attribute()
class Static:
    __slots__ = ("k",)
    @staticmethod
    def times(x): return x * {0}
    @functools.partial(jax.jit, static_argnums=0)
    def __call__(self, x): return self.times(x)
static = Static()
class Slots:
    __slots__ = "k"
    def __call__(self, x): return x * self.k
slots = Slots()
slots.k = {0}
@dataclasses.dataclass
class Held:
    k: float
holds, names = make(Held({0})), make(types.SimpleNamespace(k={0}))
chained = functools.partial(optax.chain, optax.scale({0}))
nested = functools.partial(map, {{"f": [plain, None]}})
circle = []
circle.append(circle)
round_and_round = make(circle, {0})
"""


@pytest.mark.parametrize("file", ["<cell 1>", "in a file"])
def test_whatever_a_function_is_made_of_is_told_alike_in_every_process(file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mine", types.ModuleType("mine"))

    def told(number, name="a.py"):
        path = tmp_path / name if file == "in a file" else file
        if file == "in a file":
            path.write_text(TOLD.format(number), encoding="utf-8")
            linecache.checkcache(str(path))
        scope: dict = {"__name__": "mine"}
        exec(compile(TOLD.format(number), str(path), "exec"), scope)
        ends = ("plain", "default", "constant", "helped", "logged", "closure", "swapped", "array", "key", "partial")
        ends += ("turned", "jitted", "mapped", "one_line", "members", "wrapper", "custom", "ruled", "inherited")
        ends += ("instance", "bound", "attribute", "static", "slots", "holds", "names", "chained", "nested")
        return {name: own_code.of_function(scope[name]) for name in (*ends, "round_and_round")}

    first, again, other = told(2), told(2, "b.py"), told(3)
    assert first == again
    assert not [name for name, digest in first.items() if digest is None or digest == other[name]]


def test_sets_are_told_alike_whatever_the_order_of_their_hashes(tmp_path):
    code = "from jaxdist import own_code\nf = lambda x: x in {'one', 'two', 'three', 'four'}\n"
    code += "print(own_code.of_function(f))"
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(4)
    }
    assert len(told) == 1


def test_a_users_module_may_have_the_name_of_one_of_pythons(monkeypatch, tmp_path):
    path = tmp_path / "test.py"
    path.write_text("def f(x): return x\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "test", raising=False)
    own_code._is_of_a_library.cache_clear()
    module = importlib.import_module("test")
    assert module.__file__ == str(path)
    assert own_code.of_function(module.f) is not None
    monkeypatch.delitem(sys.modules, "test")
    own_code._is_of_a_library.cache_clear()


def test_what_is_registered_is_told_as_it_was_then():
    """A function may count its calls."""
    calls = [0]

    def moved(ranges, fraction):
        calls[0] += 1
        return edits.unedited(ranges.low.size)._replace(offset=fraction * (ranges.high - ranges.low))

    grid = functools.partial(np.linspace, 0, 1, 3)
    jaxdist.register(jaxdist.Family(name="counting", text="counts", edit=moved, grid=grid, above="moved by"))
    before = families.REGISTER.code_of("counting")
    calls[0] = 7
    assert families.REGISTER.code_of("counting") == before != own_code.of_function(families.get("counting"))


def test_an_optimiser_that_was_loaded_anew_is_the_new_one(module):
    first = running.train(config_with("optimizer"))
    edited(module, "optimizer")
    second = running.train(dataclasses.replace(config_with("optimizer"), out="second"))
    assert first.attrs["code"] != second.attrs["code"]
    assert not first["training"].loss.equals(second["training"].loss)


@pytest.mark.parametrize("value", [jnp.abs, np.abs, math.log, optax.sgd, jax.nn.relu, None, 3])
def test_libraries_are_not_told(value):
    assert own_code.of_function(value) is None


def test_a_module_is_told_as_it_was_when_it_was_loaded(module):
    registry.imported("own_code:family", "here")
    module.write_text(MODULE + "# later", encoding="utf-8")
    registry.imported("own_code:family", "here")
    assert registry.code_of("own_code:family", None) == hashlib.sha256(MODULE.encode()).hexdigest()
