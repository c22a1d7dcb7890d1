"""The configuration of a run: frozen dataclasses, read from TOML, checked before anything else; default: quickstart."""

from __future__ import annotations

import codecs
import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_type_hints

import tomli_w
from annotated_types import Ge, Gt, Lt
from pydantic import Strict

from jaxdist import fields, registry
from jaxdist.errors import InputError, nearest
from jaxdist.fields import Call, Distinct, Integer, Many, Names, Number, OrRange, Seeds, Text, Truth, option

_REMOVED = {"refine", "scale_shortcut"}
"""Options that the section ``sweep`` once had, both false by default."""


Task: TypeAlias = Literal["classes", "tokens", "binary", "regression"]
"""What a network's outputs answer: a class an example, a class a token, one of two by a single logit, real numbers."""


@fields.options(section="data")
class DataConfig:
    """Which images, and how they are scaled."""

    name: Text = option("digits", "digits, mnist, fashion_mnist, or any TFDS image-classification set")
    dir: Text = option("", "folder of IDX files, or a TFDS data folder; empty: the default location for the name")
    normalisation: Literal["raw", "unit", "standard"] = option(
        "raw", "raw: stored pixel values (the paper's code); unit: divided by the largest; standard: (unit - mean) / sd"
    )
    mean: Number | None = option(
        None, "mean for 'standard', in units of the largest pixel; unset: that of the training images"
    )
    sd: Annotated[Number, Gt(0)] | None = option(
        None, "standard deviation for 'standard', in the same units; unset: that of the training images"
    )


@fields.options(section="model")
class ModelConfig:
    """The networks: one multilayer perceptron per activation, or a network of another form."""

    activations: Distinct[Text] = option(
        ("relu", "abs"),
        "one network each, from the same initial weights: relu, abs, leaky_relu, prelu, elu, gelu, silu, softplus, "
        "tanh, sigmoid, sine, identity; relu2, relu_l2, relu2_neg, relu_l2_neg, and the same four for abs",
    )
    hidden: Many[Annotated[Integer, Ge(1)]] = option((128,), "hidden units of each layer")
    init: Literal["pytorch", "paper_code", "paper_cuda", "lecun_normal", "he_normal", "glorot_uniform"] | Call = option(
        "pytorch",
        "pytorch: weights and biases U(-1/sqrt(fan_in), 1/sqrt(fan_in)); paper_code: the exact draws of these that "
        "the paper's code makes on a CPU for its 20 relu and 20 abs networks, whatever train.seed; paper_cuda: those "
        'that it makes on an A100 and most other GPUs; {name = "paper_cuda", blocks = 276}: on a GPU that holds that '
        "many blocks of 256 threads; the others have zero biases",
    )

    @property
    def from_paper(self) -> bool:
        """Whether initial weights are drawn from the seed of the paper's code, whatever ``train.seed``."""
        return isinstance(self.init, Call) or self.init in ("paper_code", "paper_cuda")


@fields.options(section="train")
class TrainConfig:
    """Full-batch training of the seed ensemble."""

    seeds: Annotated[Integer, Ge(1), OrRange()] = option(
        20, "networks per activation, or their numbers as a range, 20:40, for parts of a run that are merged later"
    )
    seed: Annotated[Integer, Ge(0), Lt(2**32)] = option(0, "root of all random keys")
    steps: Annotated[Integer, Ge(0), Lt(10**9)] = option(400, "parameter updates; 0: untrained networks")
    optimizer: Text | Call = option(
        "sgd",
        f"{', '.join(registry.OPTIMIZERS)} or any other optax optimiser (the paper uses sgd), or a table with its "
        "name and arguments; for your own, 'package.module:function'",
    )
    learning_rate: Annotated[Number, Gt(0)] | Call = option(
        0.01, "step size, or a table with the name and arguments of an optax schedule"
    )
    save_every: Annotated[Number, Ge(0)] = option(60.0, "seconds between saved states, from which a killed run resumes")
    snapshots: Truth = option(
        False, "keep the weights when training accuracy first passes 10, 20, ... 90, 95, 99 %, and sweep them too"
    )

    @property
    def numbers(self) -> range:
        """Those of the seeds."""
        return self.seeds.numbers if isinstance(self.seeds, Seeds) else range(self.seeds)

    @property
    def keeps_snapshots(self) -> bool:
        """Whether weights are kept along training, which there is none of without updates."""
        return self.snapshots and self.steps > 0


@fields.options(section="ranges")
class RangesConfig:
    """How the per-unit ranges are measured, always on the training images."""

    measured_on: Literal["post", "pre"] = option(
        "post", "pre: before the activation; post: after it, as in the paper's code"
    )
    rule: Literal["minmax", "quantile", "sd"] = option(
        "minmax",
        "minmax: smallest and largest value (the paper's); quantile: two quantiles; sd: mean -+ deviations * sd",
    )
    quantile: Annotated[Number, Gt(0), Lt(0.5)] = option(
        0.001, "for the rule 'quantile': a range goes from this quantile to 1 minus it"
    )
    deviations: Annotated[Number, Gt(0)] = option(
        3.0, "for the rule 'sd': standard deviations to either side of the mean"
    )


@fields.options(section="sweep")
class SweepConfig:
    """The edits of the preactivations."""

    families: Distinct[Annotated[Text, Names(registry.FAMILIES)]] = option(
        registry.PAPER,
        f"families of edits, each on its own grid: {', '.join(registry.PAPER)} (the paper's); "
        f"{', '.join(name for name in registry.FAMILIES if name not in registry.PAPER)}; for your own, "
        "'package.module:name'",
    )
    metrics: Distinct[Annotated[Text, Names(registry.METRICS)]] | None = option(
        None,
        f"also average these over the images, besides {' and '.join(registry.COUNTED)}, which are always counted: "
        f"{', '.join(name for name in registry.METRICS if name not in registry.COUNTED)}; for your own, "
        "'package.module:name'",
    )
    dose: Truth = option(
        False, "also measure how much each edit disturbs the values that the logits are computed from, as an angle"
    )
    matched: Distinct[Annotated[Number, Gt(0), Lt(1)]] | None = option(
        None, "also sweep every family at these angular doses, such as 0.1,0.2,0.4"
    )
    draws: Annotated[Integer, Ge(2)] = option(
        8,
        "draws of random signs that the averaged gauge averages over; random families use half as many, noise a "
        "quarter",
    )
    gauges: Distinct[Literal["as_is", "averaged", "absolute"]] = option(
        ("as_is",),
        "for even activations; as_is: units' signs as trained; averaged: mean over random signs; absolute: magnitudes "
        "edited",
    )
    splits: Distinct[Literal["train", "test"]] = option(("train", "test"), "images to evaluate on")
    layers: Literal["both", "each", "all"] = option(
        "both", "with several sites: edit each by itself, all together, or both"
    )
    clip_formula: Literal["code", "text", "caption"] = option(
        "code", "code: low + p*(high-low); text: p*(high-low); caption: p*high"
    )
    offset_formula: Literal["code", "intended", "literal"] = option(
        "code", "slope and offset; code: (high-p*r)/high, p*r; intended: 1-p, p*r; literal: (1-p)*r, p*r"
    )
    dead_units: Literal["identity", "nan"] = option(
        "identity", "identity: a unit that is never active is left unchanged; nan: 0/0 as in the paper's code"
    )
    grid: Truth = option(False, "also edit scale and offset together, on a grid")
    units: Truth = option(False, "also edit each unit alone, which ranks the units")
    sensitivity: Truth = option(
        False, "also take derivatives of the logit margin with respect to each unit's offset and log-scale"
    )


@fields.options(section="statistics")
class StatisticsConfig:
    """Tests and intervals."""

    confidence: Annotated[Number, Gt(0.5), Lt(1)] = option(0.95, "confidence level of every interval, as a fraction")
    margin: Annotated[Number, Gt(0), Lt(1)] = option(
        0.01, "accuracy loss that matters, as a fraction; 0.01 is one point"
    )
    flips: Annotated[Number, Gt(0), Lt(1)] = option(0.01, "share of changed predictions that matters, as a fraction")
    published_baseline_index: Annotated[Integer, Ge(0), Lt(100)] = option(
        50, "grid index that the published analysis uses as its baseline"
    )


@fields.options(section="compute")
class ComputeConfig:
    """How the work is done; the results do not depend on it, up to rounding."""

    precision: Literal["float32", "exact"] = option(
        "float32",
        "float32: for every product; exact: products of raw pixels computed from exact narrow parts, for matrix units",
    )
    # As large as one likes: it is cut to the examples.
    block: Annotated[int, Strict(), Ge(1)] | None = option(None, "examples per block; unset: chosen from the shapes")
    networks: Annotated[Integer, Ge(1)] | None = option(
        None, "networks that run together; unset: 1 on a CPU, 10 elsewhere"
    )
    points: Annotated[Integer, Ge(1)] | None = option(
        None, "points of a sweep that run together; unset: 1 on a CPU, 32 elsewhere"
    )

    @property
    def together(self) -> dict[str, int | None]:
        """What runs together, as `jaxdist.compute.tuning.using` takes it."""
        return {"networks": self.networks, "points": self.points}


@fields.options()
class Options:
    """What determines how given networks are measured."""

    ranges: RangesConfig = dataclasses.field(default_factory=RangesConfig)
    sweep: SweepConfig = dataclasses.field(default_factory=SweepConfig)
    statistics: StatisticsConfig = dataclasses.field(default_factory=StatisticsConfig)
    compute: ComputeConfig = dataclasses.field(default_factory=ComputeConfig)


@fields.options()
class Config:
    """Everything that determines a run."""

    out: Text = option("runs/quickstart", "run folder: new, empty, or one to resume")
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    ranges: RangesConfig = dataclasses.field(default_factory=RangesConfig)
    sweep: SweepConfig = dataclasses.field(default_factory=SweepConfig)
    statistics: StatisticsConfig = dataclasses.field(default_factory=StatisticsConfig)
    compute: ComputeConfig = dataclasses.field(default_factory=ComputeConfig)

    @property
    def options(self) -> Options:
        """The part that does not depend on where the networks come from."""
        return Options(self.ranges, self.sweep, self.statistics, self.compute)


def load(path: str | Path, *, kept: bool = False) -> Config:
    """Read a TOML file; raises `InputError` with the file's name for anything wrong in it.

    One that a run has `kept` may name families that are not known in this process.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InputError(f"{path}: is UTF-16; save it as UTF-8, the encoding of TOML files")
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such config file; pass the path of a TOML file, or leave it out for the quickstart"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a config ({error}); expected a UTF-8 TOML file") from None
    return from_toml(text, where=str(path), kept=kept)


def from_toml(text: str, *, where: str = "config", kept: bool = False) -> Config:
    """Build a config from TOML text; raises `InputError` as `load` does."""
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, tables thousands deep
        said = str(error) if isinstance(error, tomllib.TOMLDecodeError) else str(error).partition(";")[0]
        raise InputError(f"{where}: not valid TOML: {said}") from None
    try:
        return from_dict(tree, where=where, kept=kept)
    except RecursionError:  # keys of thousands of parts, which are tables as deep
        raise InputError(f"{where}: tables lie thousands of levels deep; the config has two levels") from None


def from_dict(tree: Mapping[str, Any], *, where: str = "config", kept: bool = False) -> Config:
    """Build a config from nested dictionaries; missing keys keep their defaults, unknown ones are refused.

    What is `kept` is as `load` says.
    """
    return fields.build(Config, _without_removed(tree, where), where, any_name=kept)


def options_from_dict(tree: Mapping[str, Any], *, where: str = "options", kept: bool = False) -> Options:
    """Build options from nested dictionaries, as `from_dict` does."""
    return fields.build(Options, _without_removed(tree, where), where, any_name=kept)


def _without_removed(tree: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Leave out options that are no longer there, as older configs and results hold them at their defaults."""
    sweep = tree.get("sweep") if isinstance(tree, Mapping) else None
    if not isinstance(sweep, Mapping):
        return tree
    for name in _REMOVED & sweep.keys():
        if sweep[name] is not False:
            raise InputError(
                f"{where}: sweep.{name}: this option has been removed; leave it out, or use a version of jaxdist that "
                "still has it"
            )
    return {**tree, "sweep": {name: value for name, value in sweep.items() if name not in _REMOVED}}


def options_by_name(given: Mapping[str, Any], *, where: str = "options") -> Options:
    """Build options from the names of their fields alone, without sections; raises as `from_dict` does.

    >>> options_by_name({"grid": True, "margin": 0.02}).statistics.margin
    0.02
    """
    sections = {field.name: field.default_factory for field in dataclasses.fields(Options)}
    section_of = {
        field.name: section
        for section, kind in sections.items()
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]  # each default_factory is a dataclass
    }
    tree: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        if name not in section_of:
            raise InputError(f"{where}: unknown option '{name}'{nearest(name, section_of)}")
        if value is None and getattr(getattr(Options(), section_of[name]), name) is None:
            continue  # the default, given
        tree.setdefault(section_of[name], {})[name] = value
    return options_from_dict(tree, where=where)


def to_dict(config: Config | Options) -> dict[str, Any]:
    """Nested dictionaries of plain values, without the options that are unset."""

    def plain(value: Any) -> Any:
        if isinstance(value, Call):
            return value.table()
        if isinstance(value, Seeds):
            return value.written
        if dataclasses.is_dataclass(value):
            items = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
            return {name: plain(v) for name, v in items if v is not None}
        return list(value) if isinstance(value, tuple) else value

    tree: dict[str, Any] = plain(config)
    return tree


def schema() -> dict[str, Any]:
    """The JSON schema of a config, by which editors complete and check what is typed."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **fields.schema(Config)}


def to_toml(config: Config) -> str:
    """The resolved config as TOML; `load` of it gives the same config."""
    return tomli_w.dumps(to_dict(config))


def override(config: Config, changes: Mapping[str, str], *, where: str = "command line") -> Config:
    """Return `config` with fields replaced, keyed by dotted name, values as typed on a command line.

    >>> override(Config(), {"train.steps": "200", "model.activations": "relu"}).model.activations
    ('relu',)
    """
    tree = to_dict(config)
    types = field_types()
    for key, text in changes.items():
        *sections, name = key.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[name] = fields.parse(text, types.get(key, str), f"{where}: {key}")
    # Names that are not changed were checked when the config was made; one that a run has kept may hold others.
    unchanged = {"sweep.families": config.sweep.families, "sweep.metrics": config.sweep.metrics or ()}
    also = [name for key, names in unchanged.items() if key not in changes for name in names]
    return fields.build(Config, _without_removed(tree, where), where, also=also)


def field_types() -> dict[str, Any]:
    """The type of every field by its dotted name, in declaration order."""
    found: dict[str, Any] = {}
    hints = get_type_hints(Config)
    for field in dataclasses.fields(Config):
        if dataclasses.is_dataclass(hints[field.name]):
            inner = get_type_hints(hints[field.name])
            found |= {f"{field.name}.{name}": fields.set_type(inner[name]) for name in inner}
        else:
            found[field.name] = hints[field.name]
    return found


def field_help() -> dict[str, str]:
    """The help text of every field by its dotted name, with its default."""
    found = {}
    default = Config()
    for key in field_types():
        owner: Any = default
        *sections, name = key.split(".")
        for section in sections:
            owner = getattr(owner, section)
        text = fields.help_of(owner, name)
        value = getattr(owner, name)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        shown = str(shown).lower() if isinstance(shown, bool) else shown
        found[key] = f"{text} [{'unset' if shown is None else 'empty' if shown == '' else shown}]"
    return found
