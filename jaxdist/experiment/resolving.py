"""The names in a config resolved: the families and metrics of its sweep, some of which a module of the user's may hold.

Such a module is imported for a config or an option that is given to a command, never for one that a folder holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from jaxdist.config import Config, Options, SweepConfig
from jaxdist.errors import InputError
from jaxdist.networks import optimizers
from jaxdist.perturbations import Family, families
from jaxdist.sweep import Metric, metrics

Record = TypeVar("Record", Family, Metric)


class _Named(NamedTuple):
    """A field of the sweep that names records."""

    noun: str
    field: str
    named: Callable[[str, str], str]
    code: Callable[[str], str | None]
    """What tells the code of a record, by what a config names."""
    knows: Callable[[str], bool]

    @property
    def option(self) -> str:
        return f"sweep.{self.field}"

    def references(self, sweep: SweepConfig) -> tuple[str, ...]:
        return tuple(getattr(sweep, self.field) or ())


_FIELDS = (
    _Named("family", "families", families.REGISTER.named, families.REGISTER.code_of, families.REGISTER.knows),
    _Named("metric", "metrics", metrics.named, metrics.REGISTER.code_of, metrics.knows),
)


def options(config: Config) -> Options:
    """A config's options, with every record by its own name, as it is called in results; imports what is not known.

    Raises:
      InputError: in one sentence, for a module or record that there is not, one that is named twice, or a metric that
        is not of classes, which a config's networks have; or for what is no config.
    """
    if not isinstance(config, Config):
        raise InputError(
            f"expected a Config, got {type(config).__name__}; jaxdist.config.load(path) reads one from a file"
        )
    sweep = named(config.sweep)
    metrics.check_task(metrics.chosen(sweep.metrics), "classes", (3,))
    return dataclasses.replace(config.options, sweep=sweep)


def named(sweep: SweepConfig) -> SweepConfig:
    """The same of the sweep alone."""
    for of in _FIELDS:
        references = of.references(sweep)
        names = [of.named(reference, of.option) for reference in references]
        for name in names:
            if names.count(name) > 1:
                raise InputError(
                    f"{of.option}: {of.noun} '{name}' is named twice, in {', '.join(references)}; name it once"
                )
        if names:
            chosen: dict[str, Any] = {of.field: tuple(names)}
            sweep = dataclasses.replace(sweep, **chosen)
    return sweep


def code_of_training(config: Config) -> dict[str, str]:
    """What tells the code of a user's own optimiser and schedules, by their names in the config.

    Raises:
      InputError: for a module or function that there is not.
    """
    if not config.train.steps:
        return {}
    return _told(optimizers.code_of(config.train.optimizer, config.train.learning_rate))


def code_of_sweep(config: Config) -> dict[str, str]:
    """The same of families and metrics; raises as `options` does."""
    digests: dict[str, str | None] = {}
    for of in _FIELDS:
        for reference in of.references(config.sweep):
            of.named(reference, of.option)
            digests[reference] = of.code(reference)
    return _told(digests)


def _told(digests: Mapping[str, str | None]) -> dict[str, str]:
    return {name: digest for name, digest in digests.items() if digest is not None}


def refuse_other_code(before: Mapping[str, str], now: Mapping[str, str], folder: Path, way_out: str) -> None:
    """Refuse to go on with work whose code has changed since, by names as `code_of_training` has them.

    Args:
      before: the code of the work.
      now: the code that there is.
      folder: where the work lies.
      way_out: what to do instead.

    Raises:
      InputError: with the first name whose code differs.
    """
    for name in before:
        if name in now and before[name] != now[name]:
            raise InputError(
                f"{folder}: the code of '{name}' has changed since this was computed; restore it, or {way_out}"
            )


def register(record: Record) -> Record:
    """Make a family of edits or a metric known in this process, by its name, to configs, `probe` and all reports.

    Raises:
      InputError: in one sentence, for a record that cannot be used, or a name that another has.
    """
    add: Any
    for kind, add in ((Family, families.REGISTER.add), (Metric, metrics.REGISTER.add)):
        if isinstance(record, kind):
            return cast(Record, add(record))
    raise InputError(f"register: expected a jaxdist.Family or a jaxdist.Metric, got {type(record).__name__}")


def refuse_foreign(config: Config, given: Collection[str], folder: Path) -> None:
    """Refuse a folder's config that names records which are not known here, unless the option was `given` again.

    Raises:
      InputError: it says which option to give.
    """
    for of in _FIELDS:
        references = of.references(config.sweep)
        foreign = [name for name in references if not of.knows(name)]
        if not foreign or of.option in given:
            continue
        unknown = [name for name in foreign if ":" not in name]  # registered by whoever made the run
        names = [f"MODULE:{name}" if name in unknown else name for name in references]
        why = (
            f"{of.noun} '{unknown[0]}', which this process does not know; name the module that holds it"
            if unknown
            else f"{of.noun} '{foreign[0]}', whose module is imported only on request; request it"
        )
        raise InputError(f"{folder}: its sweep uses the {why}, with --{of.option} {','.join(names)}")
