"""What jaxdist wrote into a run folder, file by file: damage is noticed, and what a result no longer has goes.

A file's new content is listed before the file takes its place, beside the content that it replaces; so whenever a
process is killed, every file is one of the two. What is neither was damaged, or edited by a person, and what is not
listed is a person's: neither is ever removed or written over.

Several processes may write at once, as comparisons wait for no run: whoever changes the list, or a file in it, holds a
lock from reading the list until both are in their places.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import filelock

from jaxdist import files
from jaxdist.errors import DAMAGED, InputError
from jaxdist.storage import places

FILE = places.MANIFEST

_SCHEMA = 1

_BASIS = (places.CONFIG, places.RESULT)
"""With the weights, what all else in a run folder is made from."""

_MOST = 8
"""Files that one note names."""

_PATIENCE = 60
"""Seconds to wait for another process that changes the list, which takes moments."""

_RECORDED: ContextVar[tuple[Path, ...]] = ContextVar("_RECORDED", default=())
"""The folders whose files are being listed."""

_LOCKED: ContextVar[tuple[Path, ...]] = ContextVar("_LOCKED", default=())
"""The folders whose list this thread may change."""


@dataclasses.dataclass(frozen=True)
class Content:
    """What a file holds."""

    size: int
    sha256: str


@dataclasses.dataclass
class Entry:
    """A file that jaxdist wrote."""

    content: Content | None
    coming: Content | None = None
    """Listed before the file took its place; where a process was killed, the file holds either."""

    def holds(self, content: Content) -> bool:
        """Whether jaxdist wrote this content."""
        return content in (self.content, self.coming)


@dataclasses.dataclass
class Manifest:
    """The files of a run folder by their names in it, with slashes."""

    files: dict[str, Entry] = dataclasses.field(default_factory=dict)
    before: set[str] = dataclasses.field(default_factory=set)
    """What lay there when the list was begun, of an earlier version or a person: may be replaced, is never removed."""
    edited: set[str] = dataclasses.field(default_factory=set)
    """What jaxdist wrote and a person changed, and what the result has no longer, or has anew under the old name."""
    report_due: bool = False
    """A new result took the place of one that had tables, and its own are not all written yet."""


def read(folder: Path) -> Manifest | None:
    """The list of a folder, None where it has none; raises `InputError` for one that is damaged."""
    path = folder / FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != _SCHEMA or document.pop("sha256") != _sum_of(document):
            raise ValueError("it is not what was saved")
        listed = {
            name: Entry(_content(entry), _content(entry.get("coming", {}))) for name, entry in document["files"].items()
        }
        due = bool(document.get("report_due", False))
        return Manifest(listed, set(document["before"]), set(document["edited"]), due)
    except FileNotFoundError:
        return None
    except DAMAGED as error:
        raise InputError(
            f"{path}: not an intact list of the folder's files ({type(error).__name__}: {error}); move it away, then "
            "repeat the command: only files written from then on will be checked"
        ) from None


def write(folder: Path, manifest: Manifest) -> None:
    """Write the list of a folder; equal lists give equal bytes."""
    document: dict[str, Any] = {
        "schema": _SCHEMA,
        "files": {name: _plain(manifest.files[name]) for name in sorted(manifest.files)},
        "before": sorted(manifest.before),
        "edited": sorted(manifest.edited),
    }
    if manifest.report_due:
        document["report_due"] = True
    files.write_text(folder / FILE, json.dumps(document | {"sha256": _sum_of(document)}, indent=1) + "\n")


def _content(document: Mapping[str, Any]) -> Content | None:
    return Content(document["size"], document["sha256"]) if "sha256" in document else None


def _plain(entry: Entry) -> dict[str, Any]:
    now = dataclasses.asdict(entry.content) if entry.content else {}
    return now | ({"coming": dataclasses.asdict(entry.coming)} if entry.coming else {})


def _sum_of(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def content_of(path: Path) -> Content:
    """What a file holds now; opened once, as another may take its place meanwhile, of another size."""
    with path.open("rb") as file:
        return Content(os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())


def check_whole(path: Path) -> None:
    """Raise `InputError` for a file of a run folder that is listed and no longer what jaxdist wrote there."""
    if not is_whole(path):
        raise InputError(
            f"{path}: differs from what jaxdist wrote, so it was damaged or edited; restore it from an intact copy, "
            f"repeat the run in another folder, or, to use it as it is, delete {_owner(path)}/{FILE}, after which "
            "tables and figures that you have edited will be overwritten"
        )


def is_whole(path: Path) -> bool:
    """Whether a file is what jaxdist wrote there, or in no list; raises `InputError` for a damaged list."""
    entry = _entry(path)
    while entry is not None and not entry.holds(content_of(path)):
        before, entry = entry, _entry(path)
        if entry == before:  # else another process has written the file meanwhile
            return False
    return True


def _entry(path: Path) -> Entry | None:
    """What is listed of a file, if it lies in a folder with a list and is in it."""
    owner = _owner(path)
    return (read(owner) or Manifest()).files.get(_name(owner, path)) if owner else None


def refuse_own(path: Path) -> None:
    """Raise `InputError` if a file to be written would take the place of a folder, or of what a run consists of."""
    if files.expanded(path).is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    named = files.expanded(path)
    # What a link leads to is what is written, and the link itself may be a run's file.
    both = (named.resolve(), named.parent.resolve() / named.name)
    for place, folder in [(each, above) for each in both for above in each.parents]:
        if not any((folder / name).is_file() for name in (places.RESULT, f"{places.UNFINISHED}/{places.NOTED}")):
            continue  # whatever else is there, such as another program's manifest.json
        name = _name(folder, place)
        needed = is_basis(name) or name in (FILE, *places.LOCKS) or name.startswith(f"{places.UNFINISHED}/")
        if needed or name in (read(folder) or Manifest()).files:
            raise InputError(f"{path}: is a file of the run in {folder}, which would be lost; choose another name")


def is_own(folder: Path, path: Path) -> bool:
    """Whether a file is of the result in a folder, as far as can be told: not a person's, nor left over."""
    manifest = read(folder)
    return manifest is None or _name(folder, path) in {*manifest.files, *manifest.before}


def _owner(path: Path) -> Path | None:
    """The run folder that a file lies in and that has a list."""
    runs = (folder for folder in (path.parent, path.parent.parent) if any((folder / name).is_file() for name in _BASIS))
    return next((folder for folder in runs if (folder / FILE).is_file()), None)


def report_due(folder: Path) -> bool:
    """Whether a folder's result took the place of one that had tables, and its own are not all written yet."""
    manifest = read(folder)
    return manifest is not None and manifest.report_due


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes and threads from changing the list of a folder; again within itself it does nothing."""
    folder = folder.resolve()
    if folder in _LOCKED.get():
        yield
        return
    path = folder / places.MANIFEST_LOCK
    lock = filelock.FileLock(path, timeout=_PATIENCE, poll_interval=0.01)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(
            f"{path}: another process has locked the list of the folder's files for {_PATIENCE} s; wait until it has "
            "finished, or end it, then repeat the command"
        ) from None
    active = _LOCKED.set((*_LOCKED.get(), folder))
    try:
        yield
    finally:
        _LOCKED.reset(active)
        if os.name == "posix":  # elsewhere releasing removes it
            # While it is held: who waits for this file sees that it has gone, and takes a new one.
            with contextlib.suppress(OSError):
                path.unlink()
        lock.release()


@contextlib.contextmanager
def recording(
    folder: Path, replaced: Callable[[str], bool] = lambda _: False, *, report_due: bool | None = None
) -> Iterator[None]:
    """List every file that is written into a run folder within the block.

    At its end what was listed before goes whose name is `replaced` and which was not written again. A file that a
    person has edited stays, under another name if its own is needed. Whether a report is due may be said: that one is,
    as soon as the block writes the result, or that none is any longer, at the block's end.

    Raises:
      InputError: for a damaged list, before anything is written.
    """
    record, active = _Record(folder, report_due), _RECORDED.set((*_RECORDED.get(), folder.resolve()))
    try:
        with files.watched(record.note):
            yield
    finally:
        _RECORDED.reset(active)
    record.finish(replaced)


@contextlib.contextmanager
def renewing(path: Path) -> Iterator[None]:
    """List a file that is written within the block in the folder above it that has a list, if one has."""
    owner = _owner(path)
    with recording(owner) if owner and owner.resolve() not in _RECORDED.get() else contextlib.nullcontext():
        yield


class _Record:
    """The list of a folder while files are written; it is read anew each time, since others may have changed it."""

    def __init__(self, folder: Path, report_due: bool | None = None) -> None:
        self._folder, self._report_due, self._written = folder, report_due, dict[str, Content]()
        read(folder)

    @contextlib.contextmanager
    def note(self, temporary: Path, path: Path) -> Iterator[None]:
        """List a file's content before it takes its place; move out of its way what a person has put there."""
        name = _name(self._folder, path)
        if name in ("", FILE) or name.startswith(f"{places.UNFINISHED}/"):
            yield
            return
        coming = content_of(temporary)
        with _locked(self._folder):
            self._list(name, coming, path)
            yield

    def _list(self, name: str, coming: Content, path: Path) -> None:
        manifest = self._read_or_begin()
        entry = manifest.files.setdefault(name, Entry(None))
        if path.is_file() and name != places.RESULT and name not in manifest.before:
            current = content_of(path)
            if entry.holds(current):
                entry.content = current
            else:
                moved = _beside(path)
                path.rename(moved)
                manifest.edited.add(_name(self._folder, moved))
        entry.coming = self._written[name] = coming
        manifest.before.discard(name)
        manifest.edited.discard(name)
        if name == places.RESULT and self._report_due:
            manifest.report_due = True
        write(self._folder, manifest)

    def finish(self, replaced: Callable[[str], bool]) -> None:
        """Settle what was written, and remove what was not."""
        if self._written or any(map(replaced, (read(self._folder) or Manifest()).files)):
            with _locked(self._folder):
                self._settle(replaced)

    def _settle(self, replaced: Callable[[str], bool]) -> None:
        manifest = read(self._folder)
        if manifest is None:
            return
        for name in list(manifest.files):
            path, entry = self._folder / name, manifest.files[name]
            if name in self._written and entry.coming in (None, self._written[name]):
                manifest.files[name] = Entry(entry.coming or entry.content)
            elif not path.is_file():
                del manifest.files[name]
            elif replaced(name) and name not in self._written:
                if entry.holds(content_of(path)):
                    path.unlink()
                    with contextlib.suppress(OSError):  # not empty
                        path.parent.rmdir()
                else:
                    manifest.edited.add(name)
                del manifest.files[name]
            elif entry.coming and entry.holds(current := content_of(path)):  # a process was killed before it did this
                manifest.files[name] = Entry(current)
        for names in (manifest.before, manifest.edited):
            names.intersection_update({name for name in names if (self._folder / name).is_file()})
        if self._report_due is False:
            manifest.report_due = False
        write(self._folder, manifest)

    def _read_or_begin(self) -> Manifest:
        manifest = read(self._folder)
        if manifest is not None:
            return manifest
        # Of an earlier version: what the result stands on is as it is read now, the rest may be anybody's.
        there = {_name(self._folder, path): path for path in _lying(self._folder)}
        basis = {name: Entry(content_of(path)) for name, path in there.items() if is_basis(name)}
        return Manifest(basis, set(there) - set(basis))


def is_basis(name: str) -> bool:
    """Whether a file is config, result or weights, which all else in a run folder is made from."""
    return name in _BASIS or name.startswith(f"{places.WEIGHTS}/")


def _lying(folder: Path) -> Iterator[Path]:
    """The files of a run folder that jaxdist may have written."""
    for place in (folder, *(folder / name for name in places.FOLDERS)):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if path.is_file() and path.name[0] != "." and path.name != FILE:
                yield path


def interrupted(folder: Path) -> list[Path] | None:
    """The files of a first save that was killed, where a folder holds nothing else; None where it holds more or less.

    As of an import, which keeps no unfinished work that it could go on with.
    """
    try:
        manifest = read(folder)
    except InputError:  # perhaps another program's
        return None
    if manifest is None or not any(entry.coming for entry in manifest.files.values()):
        return None
    left = [path for path in folder.rglob("*") if path.is_file() and path.name not in places.LOCKS]
    names = {_name(folder, path): path for path in left if not files.is_temporary(path.name) and path.name != FILE}
    if places.RESULT in names or not all(
        name in manifest.files and manifest.files[name].holds(content_of(path)) for name, path in names.items()
    ):
        return None
    return left


def clear_interrupted(folder: Path) -> None:
    """Make a folder empty that holds only what a first save left that was killed."""
    for path in interrupted(folder) or ():
        path.unlink()
        with contextlib.suppress(OSError):  # not empty yet
            path.parent.rmdir()


def notes(folder: Path) -> list[str]:
    """Sentences on files that are not of a folder's result and were left there."""
    manifest = read(folder) or Manifest()
    rest = {name for name in manifest.before if not is_basis(name)}
    reasons = ((manifest.edited, "edited"), (rest, f"there before {FILE}"))
    there = [(sorted(name for name in names if (folder / name).is_file()), why) for names, why in reasons]
    return [f"not part of this result, but kept, since {why}: {_enumerated(names)}" for names, why in there if names]


def _enumerated(names: Sequence[str]) -> str:
    more = len(names) - _MOST
    return ", ".join(names[:_MOST]) + (f" and {more} more" if more > 0 else "")


def _beside(path: Path) -> Path:
    """A free name for a file that a person has edited."""
    ends = (f".edited{'' if k == 1 else f'-{k}'}{path.suffix}" for k in itertools.count(1))
    return next(free for end in ends if not (free := path.with_name(files.fitted(path.stem, end))).exists())


def _name(folder: Path, path: Path) -> str:
    """A file's name in a folder, with slashes; empty for one elsewhere."""
    folder, path = folder.resolve(), path.parent.resolve() / path.name
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else ""
