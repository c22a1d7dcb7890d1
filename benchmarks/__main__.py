"""Measure jaxdist beside PyTorch on this machine.

  parity     are training curves and gradients PyTorch's?
  sweep      speed of a sweep of all 325 points, beside every other way to do it
  train      speed of a training step, beside every other way to do it, and how exact its gradients are
  scaling    how the cost grows with images, points, networks and devices
  staircase  what training and a sweep gain where blocks are cut to the pixels that they need
  adapters   what named sites and Flax modules cost, beside a kernel written by hand
  peers      a layer scaled by other libraries and by jaxdist: seconds, lines of code, answers
  readers    how often `jaxdist controls` is right about networks whose reading is known
  waits      how long commands and first calls take, as whole processes, of this checkout and others

--data-dir is a folder of MNIST's IDX files. Without one, speed is measured on made-up images of the same shape, which
are the same work, and parity is checked on the embedded digits. --quick takes seconds and shows only that all of it
runs. PyTorch comes with: pip install 'jaxdist[torch]', the peers with: pip install 'jaxdist[peers]'.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks import adapters, known_readers, parity, scaling, staircase, sweep, train, waits
from benchmarks.peers import comparison
from jaxdist.compute import devices
from jaxdist.errors import InputError

COMMANDS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "parity": parity.run,
    "sweep": sweep.run,
    "train": train.run,
    "scaling": scaling.run,
    "staircase": staircase.run,
    "adapters": adapters.run,
    "peers": comparison.run,
    "readers": known_readers.run,
    "waits": waits.run,
}


def main() -> int:
    """Parse, measure, print, write; the exit code is 1 where something measured is not as it must be."""
    options = parse(sys.argv[1:])
    if options.devices is None:
        devices.use_all_cores()
    else:
        jax.config.update("jax_num_cpu_devices", options.devices)
    try:
        found = COMMANDS[options.what](options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if found.get("agrees", True) else 1


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=list(COMMANDS))
    parser.add_argument("--data-dir", help="folder of MNIST's IDX files")
    parser.add_argument("--steps", type=_positive, default=200, help="parity: updates to compare [200]")
    parser.add_argument("--repeats", type=_positive, help="rounds of timing, after one that compiles [10; --quick: 3]")
    parser.add_argument("--seeds", type=_positive, default=4, help="train, staircase: networks at once [4]")
    parser.add_argument("--devices", type=_positive, help="CPU devices; scaling: only this number [all cores]")
    parser.add_argument("--only", help="not for parity, scaling, waits: only these contenders, as a,b,c [all]")
    parser.add_argument("--against", type=Path, action="append", help="waits: another checkout, timed in turns")
    parser.add_argument("--quick", action="store_true", help="small and few: only to see that it runs")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument(
        "--figure",
        type=Path,
        help="sweep, train: also draw a bar for each contender into this file; staircase: the staircase",
    )
    options = parser.parse_args(arguments)
    if options.figure and options.what not in ("sweep", "train", "staircase"):
        parser.error("--figure: only sweep, train and staircase have something to draw")
    options.repeats = options.repeats or (3 if options.quick else 10)
    return options


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
