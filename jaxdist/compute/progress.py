"""Progress of long jobs: bars with rate and time left on a terminal, plain lines when piped."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from jaxdist.formatting import counted, shortened

Show = Callable[[str, int, int, str], None]
"""Called with the name of a job, how much of it is done, how much there is, and a note."""

PLAIN_INTERVAL = 10.0
"""Seconds between plain lines about one job."""

MOST_BARS = 8
"""Jobs shown at once; the summary that follows still fits on a terminal of 24 lines beside them."""

LONGEST_JOB = 26
"""Letters of a job's name on a terminal."""


def silent(job: str, done: int, total: int, note: str) -> None:
    """Show nothing.

    Args:
      job, done, total, note: what every `Show` is called with; ignored.
    """


@contextlib.contextmanager
def progress_display(console: Console) -> Iterator[Show]:
    """Yield what shows progress on this console."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield _plain(console)
        return
    with _Bars(console) as bars:
        yield bars.show


class _Bars(Progress):
    """One line a job in the console's width: what does not fit is cut from the note, which comes last."""

    earlier = 0  # finished jobs that are not shown any more

    def __init__(self, console: Console) -> None:
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=8, table_column=Column(no_wrap=True)),
            _TextOf(lambda task: f"{task.completed:.0f}/{task.total:.0f}"),
            _TextOf(_rate),
            _TextOf(_time),
            _Note(table_column=Column(no_wrap=False)),  # rich narrows columns that may wrap, so this one alone
            console=console,
        )
        self._jobs: dict[str, Task] = {}

    def show(self, job: str, done: int, total: int, note: str) -> None:
        """Show where a job is; one that begins anew, as for further seeds, is timed anew."""
        task = self._jobs.get(job)
        if task is None:
            # What an earlier process has done counts for no rate.
            name = shortened(job, LONGEST_JOB)
            self.add_task(name, total=total, completed=done, note=note, before=done)
            task = self._jobs[job] = self.tasks[-1]
            self._leave_out()
        elif done < task.completed or total != task.total:
            self.reset(task.id, total=total, completed=done, note=note, before=done)
        self.update(task.id, completed=done, note=note)

    def _leave_out(self) -> None:
        over = len(self._jobs) - MOST_BARS
        for job, task in [pair for pair in self._jobs.items() if pair[1].finished][: max(over, 0)]:
            self.remove_task(task.id)
            del self._jobs[job]
            self.earlier += 1

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.earlier:
            yield Text(f"{counted(self.earlier, 'job')} finished before these")
        yield self.make_tasks_table(self.tasks)


class _TextOf(ProgressColumn):
    """A column of words that a function makes of a task."""

    def __init__(self, words: Callable[[Task], str]) -> None:
        self._words = words
        super().__init__(Column(no_wrap=True, justify="right"))

    def render(self, task: Task) -> Text:
        return Text(self._words(task))


class _Note(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")


def _rate(task: Task) -> str:
    if task.total == 1:
        return ""
    if task.finished_time:
        return per_second((task.completed - task.fields["before"]) / task.finished_time)
    return "" if task.speed is None else per_second(task.speed)


def _time(task: Task) -> str:
    if task.finished:
        return f"in {clock(task.finished_time or 0)}"
    return "" if task.time_remaining is None else f"{clock(task.time_remaining)} left"


def per_second(speed: float) -> str:
    """Say a rate in at most 6 letters, or how long one takes where that is long.

    >>> per_second(1234.5), per_second(7.25), per_second(0.25), per_second(0)
    ('1234/s', '7.2/s', '4.0 s each', '')
    """
    if speed <= 0:
        return ""
    if speed < 0.5:
        return f"{1 / speed:.1f} s each"
    return f"{speed:.0f}/s" if speed >= 10 else f"{speed:.1f}/s"


def clock(seconds: float) -> str:
    """Say a duration as a clock does.

    >>> clock(75.2), clock(3 * 3600 + 5)
    ('1:15', '3:00:05')
    """
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _plain(console: Console) -> Show:
    started: dict[str, tuple[float, int]] = {}
    said: dict[str, float] = {}

    def show(job: str, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        since, before = started.setdefault(job, (now, done))
        if done == total or now - said.get(job, since) >= PLAIN_INTERVAL:
            said[job] = now
            elapsed = now - since
            rate = per_second((done - before) / elapsed) if elapsed > 0 and total > 1 else ""
            left = f", about {elapsed * (total - done) / (done - before):.0f} s left" if before < done < total else ""
            words = f"{job}: {done}/{total} in {elapsed:.0f} s{', ' + rate if rate else ''}{left}"
            console.print(Text(f"{words}; {note}" if note else words), soft_wrap=True)

    return show
