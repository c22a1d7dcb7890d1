"""Measure jaxdist beside PyTorch on this machine.

python -m benchmarks parity   are training curves and gradients PyTorch's?
--data-dir is a folder of MNIST's IDX files. Without one, parity is checked on the embedded digits. --quick takes
seconds and shows only that everything runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import parity
from jaxdist import devices
from jaxdist.errors import InputError

COMMANDS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "parity": parity.run,
}


def main() -> int:
    """Parse, measure, print, write; the exit code is 1 where something measured is not as it must be."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=list(COMMANDS))
    parser.add_argument("--data-dir", help="folder of MNIST's IDX files")
    parser.add_argument("--steps", type=int, default=200, help="parity: updates to compare [200]")
    parser.add_argument("--quick", action="store_true", help="small and few: only to see that it runs")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    devices.use_all_cores()
    try:
        found = COMMANDS[options.what](options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if found.get("agrees", True) else 1


if __name__ == "__main__":
    sys.exit(main())
