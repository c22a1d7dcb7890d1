"""Progress of long jobs: a bar with an estimate on a terminal, plain lines when piped."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Show = Callable[[str, int, int, str], None]
"""Called with the name of a job, how much of it is done, how much there is, and a note."""

PLAIN_INTERVAL = 10.0
"""Seconds between plain lines about one job."""


def silent(job: str, done: int, total: int, note: str) -> None:
    """Show nothing."""


@contextlib.contextmanager
def shown(console: Console) -> Iterator[Show]:
    """Yield what shows progress on this console."""
    if not console.is_terminal:
        yield _plain(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bars:
        tasks = {}

        def show(job: str, done: int, total: int, note: str) -> None:
            if job not in tasks:
                tasks[job] = bars.add_task(job, total=total, note=note)
            bars.update(tasks[job], completed=done, note=note)

        yield show


def _plain(console: Console) -> Show:
    started: dict[str, tuple[float, int]] = {}
    said: dict[str, float] = {}

    def show(job: str, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        since, before = started.setdefault(job, (now, done))
        if done == total or now - said.get(job, since) >= PLAIN_INTERVAL:
            said[job] = now
            elapsed = now - since
            left = f", about {elapsed * (total - done) / (done - before):.0f} s left" if before < done < total else ""
            console.print(
                f"{job}: {done}/{total} in {elapsed:.0f} s{left}{'; ' + note if note else ''}", soft_wrap=True
            )

    return show
