"""Our mixes next to Mélange's own: cost, and time of our MILP against its binary one under CBC.

    python benchmarks/melange.py FOLDER

Each JSON file of the folder holds ``instance``, ``slice_optimum`` (``cost``, proved) and ``peer``
(``cost``, ``seconds``), where the peer's time is what the file states, not measured here. Ours is
the median of five solves in one process; ``process`` is a whole ``planner mix``, Python included.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import planner
from planner.search.matrix import Split


def solve(instance: dict[str, object], split: Split) -> tuple[float, float]:
    """Return cost and the median of five times [s]."""
    found = [planner.mix(instance, split=split) for _ in range(5)]
    return found[0].cost, statistics.median(f.seconds for f in found)


def process(path: Path) -> float:
    """Return the wall time of a whole process [s]."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "planner", "mix", str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    if len(sys.argv) != 2 or not (files := sorted(Path(sys.argv[1]).glob("*.json"))):
        raise SystemExit("usage: python benchmarks/melange.py FOLDER (with JSON files)")
    heads = ("optimum", "slices", "s", "continuous", "s", "process s", "peer", "peer s")
    print(f"{'instance':24}" + "".join(f"{h:>11}" for h in heads))
    totals = [0.0] * 4
    for path in files:
        known = json.loads(path.read_text(encoding="utf-8"))
        sliced, free = (solve(known["instance"], s) for s in ("slices", "continuous"))
        optimum, peer = known["slice_optimum"]["cost"], known["peer"]
        times = (sliced[1], free[1], process(path), peer["seconds"])
        totals = [a + (b or 0.0) for a, b in zip(totals, times, strict=True)]
        print(
            f"{path.stem:24}{optimum:11.3f}{sliced[0]:11.3f}{times[0]:11.3f}{free[0]:11.3f}"
            f"{times[1]:11.3f}{times[2]:11.3f}"
            + "".join(
                f"{'-' if v is None else format(v, '.3f'):>11}"
                for v in (peer["cost"], peer["seconds"])
            )
        )
    print(
        f"{'total':24}{'':22}{totals[0]:11.3f}{'':11}{totals[1]:11.3f}{totals[2]:11.3f}"
        f"{'':11}{totals[3]:11.3f}"
    )


if __name__ == "__main__":
    main()
