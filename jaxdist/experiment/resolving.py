"""What a config names, found: the families of its sweep, some of which a module of the user's may hold.

Such a module is imported for a config or an option that is given to a command, never for one that a folder holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

from jaxdist.config import Config, Options, SweepConfig
from jaxdist.errors import InputError
from jaxdist.perturbations import families

WHERE = "sweep.families"


def options(config: Config) -> Options:
    """A config's options, with every family by its own name, as it is called in results; imports what is not known.

    Raises:
      InputError: in one sentence, for a module or family that there is not, or one that is named twice.
    """
    return dataclasses.replace(config.options, sweep=named(config.sweep))


def named(sweep: SweepConfig) -> SweepConfig:
    """The same of the sweep alone."""
    names = [families.named(reference, WHERE) for reference in sweep.families]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{WHERE}: family '{name}' is named twice, in {', '.join(sweep.families)}; name it once")
    return dataclasses.replace(sweep, families=tuple(names))


def refuse_foreign(config: Config, given: Collection[str], folder: Path) -> None:
    """Refuse a folder's config that names families which are not known here, unless the option was `given` again.

    Raises:
      InputError: it says which option to give.
    """
    foreign = [name for name in config.sweep.families if not families.is_known(name)]
    if not foreign or WHERE in given:
        return
    unknown = [name for name in foreign if ":" not in name]  # registered by whoever made the run
    names = [f"MODULE:{name}" if name in unknown else name for name in config.sweep.families]
    why = (
        f"family '{unknown[0]}', which is not known in this process; name the module that holds it"
        if unknown
        else f"family '{foreign[0]}', whose module is only imported where it is asked for; ask for it"
    )
    raise InputError(f"{folder}: its sweep has the {why}, with --{WHERE} {','.join(names)}")
