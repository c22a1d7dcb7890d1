"""Shared by all tests: two CPU devices, strict promotion, small real data and the networks trained on it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Read when NumPy and PyTorch are imported: on small arrays their threads mostly wait for each other, at full speed, and
# every core has a worker of its own.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import chex
import jax
import jaxlib
import numpy as np
import pytest
from jaxtyping import install_import_hook

# Read when JAX is first used: without its newer emitters XLA compiles the many small programs of tests sooner, which
# takes a fifth off the whole. Users have them. An option that XLA does not know would end the process.
if jaxlib.__version__.startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

from tests.shape_support import shapes_only

# Shapes in signatures are checked in whatever tests call, in the modules that state any.
PACKAGE = Path(__file__).parents[1] / "jaxdist"
STATING = [path for path in PACKAGE.rglob("*.py") if "from jaxtyping import" in path.read_text()]
install_import_hook(
    [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in STATING],
    f"{shapes_only.__module__}.{shapes_only.__name__}",
)

# The number of devices must be set before anything uses JAX, so these imports come after it.
from jaxdist import data, registry
from jaxdist.compute import devices
from jaxdist.compute.devices import Examples
from jaxdist.config import DataConfig
from jaxdist.networks import mlp, optimizers, training
from jaxdist.perturbations import families
from jaxdist.report import figures
from jaxdist.sweep import metrics
from jaxdist.types import Params

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(autouse=True)
def _families_as_before() -> Iterator[None]:
    """What a test registers is not there for others."""
    tables: tuple[dict, ...] = (
        registry.FAMILIES,
        registry.METRICS,
        registry.OPTIMIZERS,
        families.ALL,
        families.REGISTER.references,
        metrics.REGISTER.records,
        metrics.REGISTER.references,
        optimizers._registered,
    )
    before = [dict(table) for table in tables]
    yield
    for table, content in zip(tables, before, strict=True):
        if table != content:
            table.clear()
            table.update(content)


# The files that take longest, first: a worker that gets one of them last would leave the others idle.
LONGEST = (
    "test_hosts",
    "test_docs",
    "test_examples",
    "test_run",
    "test_compare",
    "test_compare_published",
    "test_products",
    "test_family_sweeps",
    "test_unfinished",
    "test_study",
    "test_probe",
    "test_terminal",
    "test_page",
    "test_site",
    "test_verdict",
    "test_known_answers",
    "test_flax_networks",
    "test_snapshots",
    "test_comparison_run",
    "test_parity",
    "test_units",
    "test_failures",
    "test_devices",
    "test_reference",
)


LONG = Path(__file__).with_name("long.txt")
"""The test functions that take more than `MOMENT`, all their cases together, as `pytest --record-long` measured."""

MOMENT = 1.5
"""Seconds."""

QUICK = "not slow and not long"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--record-long`` lists further long tests; to begin anew, empty the list and record until nothing is added."""
    parser.addoption("--record-long", action="store_true", help=f"add to {LONG.name} the tests that take long")


def pytest_configure(config: pytest.Config) -> None:
    """Plain ``pytest`` leaves out the tests that are marked slow or long; of what is named, all are run."""
    # Workers are given paths, and this option with them.
    named = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    if not (named or config.option.markexpr or config.option.keyword):
        config.option.markexpr = QUICK
    if config.option.record_long and "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(Durations())


class Durations:
    """Adds up how long the functions of a session's tests take."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[_function(report.nodeid)] += report.duration

    def pytest_sessionfinish(self) -> None:
        # Only added to: what the list has may wait for a fixture that another test has paid for now.
        long = {name for name, seconds in self.seconds.items() if seconds > MOMENT}
        LONG.write_text("".join(f"{name}\n" for name in sorted(long.union(LONG.read_text().splitlines()))))


def _function(node: str) -> str:
    return node.partition("[")[0]


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say what is left out, and how it is run."""
    words = "left out: what takes long; -m 'not slow' leaves out less, 'pytest tests jaxdist' nothing"
    return words if config.option.markexpr == QUICK else None


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that are long, and put the longest files first; all others keep their order."""
    long = set(LONG.read_text().splitlines())
    for item in items:
        if _function(item.nodeid) in long:
            item.add_marker("long")
    place_of = {name: k for k, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place_of.get(item.path.stem, len(LONGEST)))


def _set(**options: object) -> None:
    """Set JAX's options here and in the environment of the commands that tests start."""
    for name, value in options.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


@pytest.fixture(scope="session", autouse=True)
def _draw_little() -> Iterator[None]:
    """Write figures without PDF, whose fonts take half of all the time of drawing; tests/report has those with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "FORMATS", ("svg", "png"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _compile_little(request: pytest.FixtureRequest) -> None:
    """Share compiled programs between tests, workers, commands and sessions, and do not polish them.

    Compiling takes most of the time of many tests, which run each program once, on little data. Where rounding or real
    sizes matter, tests use `optimised`. With JAX_DISABLE_MOST_OPTIMIZATIONS=0 all do.
    """
    kept = request.config.cache.mkdir("xla")
    _set(
        jax_compilation_cache_dir=os.environ.get("JAX_COMPILATION_CACHE_DIR", str(kept)),
        jax_persistent_cache_min_compile_time_secs=0.0,
        jax_disable_most_optimizations=os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS") != "0",
    )


@pytest.fixture(scope="module")
def optimised() -> Iterator[None]:
    """Compile a file's programs as those of a run are; with XLA_FLAGS set to nothing, by the newer emitters too."""
    before = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "True"
    if before:
        jax.clear_caches()
        _set(jax_disable_most_optimizations=False)
    yield
    if before:
        jax.clear_caches()
        _set(jax_disable_most_optimizations=True)


def traced_at_most(function: Callable[..., Any], times: int) -> Callable[..., Any]:
    """A function that raises when it is traced more often, as for programs that are made anew."""
    chex.clear_trace_counter()  # of other functions of the same source

    def plain(*args: Any) -> Any:  # chex reads the source of what it wraps
        return function(*args)

    return chex.assert_max_traces(plain, n=times)


@pytest.fixture
def in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands run in a folder of their own, on the devices that the tests have set."""
    monkeypatch.setattr(devices, "use_all_cores", lambda: None)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the folder 'shared' with real MNIST and the reference run is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def digits() -> data.Dataset:
    """The embedded data set."""
    return data.load(DataConfig())


@pytest.fixture(scope="session")
def train_set(digits: data.Dataset) -> Examples:
    """The first 301 training digits, a number that divides neither by the devices nor by any block."""
    return place(digits, 301)


@pytest.fixture(scope="session")
def trained(train_set: Examples) -> dict[str, Params]:
    """Three seeds of a small ReLU and Abs network, trained until they are right on most digits."""
    initial = mlp.init_ensemble(jax.random.key(7), range(3), (64, 24, 10))
    optimizer = training.optimizer("sgd", 0.01)
    return {
        name: training.train(mlp.model(name), initial, train_set, train_set, steps=150, optimizer=optimizer)[0]
        for name in ("relu", "abs")
    }


def place(digits: data.Dataset, count: int, devices_used: int = 2) -> Examples:
    """Lay the first training digits out over some of the CPU devices."""
    x, _ = data.scaled(digits, DataConfig())
    mesh = devices.make_mesh(jax.devices()[:devices_used])
    return devices.place(x[:count], digits.train.labels[:count], mesh)


def to_numpy(params: Params) -> dict[str, dict[str, np.ndarray]]:
    """Parameters in float64, for the oracle."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
