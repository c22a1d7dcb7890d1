"""A network's program cut in two at the values that are edited: the part before them, and the part after them.

A sweep edits the same values in many ways. The part that no edit changes is evaluated once a block, the other part once
an edit. Equations are told apart by dependence alone; a scan is cut at an iteration that is named, while an edit in all
its iterations leaves the whole of it to the part after.

Semi-private parts of JAX: ``jax.extend.core``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.extend import core

from jaxdist.errors import InputError
from jaxdist.networks import site_programs, site_values
from jaxdist.networks.site_primitives import site_p
from jaxdist.networks.site_programs import Action, Atom, Environment, Job, Key, Placed
from jaxdist.types import Params


@dataclasses.dataclass(frozen=True, eq=False)
class CutProgram:
    """A program cut at some sites: ``after(before(params, x), edits)`` is the network's output with these edits.

    Both parts can be jitted, mapped, differentiated, and called within ``jax.shard_map``, with ``check_vma=False``,
    since constants of the program are not marked as varying. Effects, such as ``jax.debug.print``, happen as often as
    their part is evaluated.
    """

    traced: site_values.Traced
    marks: Mapping[str, tuple[str, ...]]
    """The names of the marks in the program, for each key."""
    jaxpr: core.Jaxpr
    consts: Sequence[Any]
    first: Sequence[core.JaxprEqn]
    """The equations before the edited values, and after them."""
    second: Sequence[core.JaxprEqn]
    needed: Sequence[core.Var]
    """The values that the part after needs of the part before, which are the residuals."""

    def before(self, params: Params, x: Any) -> list[Any]:
        """Evaluate the part that no edit changes; returns the residuals, arrays that the other part needs.

        Raises:
          InputError: if these are not of the shapes that the network was traced with.
        """
        environment: Environment = dict(zip(self.jaxpr.constvars, self.consts, strict=True))
        environment.update(zip(self.jaxpr.invars, self.traced.leaves(params, x), strict=True))
        site_programs.run_equations(self.first, environment, Job())
        return [environment[var] for var in self.needed]

    def after(self, residuals: Sequence[Any], edits: Mapping[str, site_values.Edit | Placed]) -> Any:
        """Evaluate the rest with these edits, by the keys at which the program is cut; returns the network's output.

        Raises:
          InputError: for another key, and an edit that changes the shape or the type.
        """
        actions: list[tuple[Key, Action | Placed]] = []
        for text, edit in edits.items():
            if text not in self.marks:
                cut_at = site_values.listed_names(list(self.marks))
                raise InputError(f"site '{text}': the program is cut only at {cut_at}; cut it at this site as well")
            action = site_values.action_of(text, edit)
            marks = self.marks[text]
            each = [_of_call(action, k) if len(marks) > 1 else action for k in range(len(marks))]
            actions.extend((Key(mark, None, None), of_mark) for mark, of_mark in zip(marks, each, strict=True))
        environment: Environment = dict(zip(self.needed, residuals, strict=True))
        site_programs.run_equations(self.second, environment, Job(actions))
        return self.traced.output([site_programs.read_atom(environment, atom) for atom in self.jaxpr.outvars])

    def values(self, residuals: Sequence[Any]) -> dict[str, Any]:
        """The values that are edited, unedited, by key: those that lie in no loop and after no other edited value.

        Of a key with several calls or names they are a tuple.
        """
        environment = dict(zip(self.needed, residuals, strict=True))
        operands: dict[str, Atom | None] = {}
        for eqn in self.second:
            if eqn.primitive is site_p:  # a mark that is there twice has no value of its own
                name = eqn.params["name"]
                operands[name] = None if name in operands else eqn.invars[0]
        within_reach: dict[str, Any] = {}
        for text, marks in self.marks.items():
            atoms = [
                atom
                for atom in (operands.get(mark) for mark in marks)
                if isinstance(atom, core.Literal) or (atom is not None and atom in environment)
            ]
            if len(atoms) == len(marks):
                arrays = tuple(site_programs.read_atom(environment, atom) for atom in atoms)
                within_reach[text] = arrays[0] if len(arrays) == 1 else arrays
        return within_reach


def _of_call(action: Action | Placed, call: int) -> Action | Placed:
    return Placed(lambda _, iterations: action.at(call, iterations)) if isinstance(action, Placed) else action


def split(traced: site_values.Traced, keys: Iterable[str]) -> CutProgram:
    """Cut a network's program at the values that these keys name.

    Raises:
      InputError: for a key without a site, for no keys, and where the output depends on none of these values.
    """
    texts = tuple(dict.fromkeys(site_values.texts("split", keys)))
    if not texts:
        raise InputError("split: expected the name of at least one site, got none")
    actions: dict[Key, Action] = {}
    marked: dict[str, tuple[str, ...]] = {}
    for text in texts:
        calls = [single for key in traced.keys(text) for single in _calls(key, traced)]
        marked[text] = tuple(f"\0{text} {k}" for k in range(len(calls)))
        for key, mark in zip(calls, marked[text], strict=True):
            if any(_share(key, other) for other in actions):
                raise InputError(
                    f"site '{text}': names a value that another key also names, and both cannot be edited at once; "
                    "use one key for each value, or edit each by itself, as probe does with layers='each'"
                )
            actions[key] = _marking(mark)
    inner = traced.program.jaxpr

    def flat(*arguments: Any) -> list[Any]:
        return site_programs.run(inner, traced.program.consts, arguments, Job(tuple(actions.items()), cut=True))[0]

    shapes = [site_values.shape_of(site_programs.aval_of(var)) for var in inner.invars]
    program = jax.make_jaxpr(flat)(*shapes)
    return _cut(traced, program, marked)


def _share(first: Key, second: Key) -> bool:
    """Whether two keys mean a value in common."""
    same = [
        value is None or other is None or value == other
        for value, other in ((first.call, second.call), (first.iteration, second.iteration))
    ]
    return first.name == second.name and all(same)


def _calls(key: Key, traced: site_values.Traced) -> list[Key]:
    """A key for each call, as each has a value of its own; one for all where the network differentiates itself."""
    count = sum(each.name == key.name for each in traced.every_site)
    if key.call is not None or count == 1 or key.name in traced.differentiated:
        return [key]
    return [key._replace(call=call) for call in range(count)]


def _marking(mark: str) -> Action:
    return lambda value: site_p.bind(value, name=mark, batched=0, kind="named")


def _cut(traced: site_values.Traced, program: core.ClosedJaxpr, marked: Mapping[str, tuple[str, ...]]) -> CutProgram:
    jaxpr = program.jaxpr
    needed = {atom for atom in jaxpr.outvars if isinstance(atom, core.Var)}
    live: list[core.JaxprEqn] = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or not needed.isdisjoint(eqn.outvars):
            live.append(eqn)
            needed.update(atom for atom in eqn.invars if isinstance(atom, core.Var))
    job = Job([(Key(mark, None, None), _marking(mark)) for marks in marked.values() for mark in marks])
    edited: set[core.Var] = set()
    first: list[core.JaxprEqn] = []
    second: list[core.JaxprEqn] = []
    for eqn in reversed(live):
        depends = job.touches(eqn) or any(isinstance(atom, core.Var) and atom in edited for atom in eqn.invars)
        (second if depends else first).append(eqn)
        if depends:
            edited.update(eqn.outvars)
    reaching = {mark.eqn.params["name"] for eqn in second for mark in site_programs.marks_within(eqn)}
    for text, names in marked.items():
        if reaching.isdisjoint(names):
            listed = list(dict.fromkeys(each.name for each in traced.sites))
            raise InputError(
                f"site '{text}': its value does not reach the network's output, so no edit of it could change the "
                f"output; the network's sites are {site_values.listed_names(listed)}"
            )
    used = [atom for eqn in second for atom in eqn.invars] + list(jaxpr.outvars)
    residuals = tuple(dict.fromkeys(atom for atom in used if isinstance(atom, core.Var) and atom not in edited))
    return CutProgram(traced, dict(marked), jaxpr, program.consts, tuple(first), tuple(second), residuals)
