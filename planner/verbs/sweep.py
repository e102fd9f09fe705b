"""``sweep``: plans for many scenarios × models × inventories, on as many cores as there are."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any

from planner.catalog.text import read_text
from planner.errors import InfeasibleError, InputError
from planner.search.swept import Row, SweepResult
from planner.spec.sweep import Sweep
from planner.wiring.load import Catalog
from planner.wiring.sweep import Case, cases_of, known_rows, read_sweep

SCHEMA = "planner/sweep/1"


def sweep(
    sweep: str | Path | Sweep,
    *,
    out: str | Path | None = None,
    jobs: int | None = None,
    dask: str | None = None,
    executor: Executor | None = None,
    progress: Callable[[int, int], object] = lambda done, of: None,
    catalog: Catalog = None,
) -> SweepResult:
    """Return the recommended plan of every model × inventory × scenario of a sweep.

    Parameters
    ----------
    sweep
        Path of a file, or a record.
    out
        File of one JSON line per case, written as cases are done. What it holds already is not
        computed again: a sweep that was stopped goes on where it was.
    jobs
        Local processes; by default one per core.
    dask
        Address of a Dask scheduler (``"tcp://host:8786"``), or ``"local"`` for a cluster on this
        machine; needs the extra ``dask``.
    executor
        Any other executor of :mod:`concurrent.futures`; it is not shut down.
    progress
        Called with the number of cases done, and of all.
    catalog
        Directory whose entries override the shipped ones.

    Raises
    ------
    InputError
        If the sweep has mistakes, ``out`` is no file of a sweep, or Dask is not installed.
    """
    if isinstance(sweep, Sweep):
        record, document = sweep, None
    else:
        record, document = read_sweep(Path(sweep))
    cases = cases_of(record, document, catalog)
    path = None if out is None else Path(out)
    done = {} if path is None else known_rows(_left(path), cases)
    resumed = len(done)
    todo = [case for case in cases if case.key not in done]
    progress(resumed, len(cases))
    with _line_writer(path) as write, _executor(jobs, dask, executor, len(todo)) as pool:
        tasks = [pool.submit(row_of, case) for case in todo]
        for task in as_completed(tasks):
            try:
                row = task.result()
            except BrokenExecutor:
                raise InputError(
                    "a worker ended unexpectedly, perhaps for lack of memory: expected fewer "
                    f"--jobs; {len(done)} of {len(cases)} cases are done"
                ) from None
            write(asdict(row))
            done[row.case] = asdict(row)
            progress(len(done), len(cases))
    return SweepResult(tuple(_row(done[case.key]) for case in cases), resumed)


def row_of(case: Case) -> Row:
    """Return what becomes of a case."""
    from planner.report.table import pools_text
    from planner.verbs.plan import plan

    named = (case.key, case.model, case.inventory, case.scenario)
    try:
        found = plan(case.model, **case.arguments)
    except InfeasibleError as error:
        return Row(*named, "infeasible", str(error))
    except InputError as error:
        return Row(*named, "refused", str(error))
    best = found.recommended
    return Row(
        *named,
        "planned",
        "",
        pools_text(best.pools),
        best.gpus,
        best.usd_per_hour,
        best.rate_per_s,
        best.goodput_per_s,
        best.ttft_s["p90"],
        best.tpot_s["p90"],
        best.power_w,
        found.gap,
    )


def _row(known: Mapping[str, Any]) -> Row:
    return Row(**{f.name: known[f.name] for f in fields(Row)})


def _left(path: Path) -> str:
    """Return what an earlier run left in a file; nothing where there is none.

    Raises
    ------
    InputError
        If the file is something else.
    """
    if not path.exists():
        return ""
    text = read_text(path, "sweep")
    first = text.partition("\n")[0]
    try:
        head = json.loads(first) if first else {"schema": SCHEMA}
    except json.JSONDecodeError:
        head = {}
    if not isinstance(head, dict) or head.get("schema") != SCHEMA:
        raise InputError(f"--out: {path} is not the file of a sweep, name another one")
    return text


@contextmanager
def _line_writer(path: Path | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Give a function that appends a line to a file, on disk when it returns."""
    if path is None:
        yield lambda row: None
        return
    with path.open("a+", encoding="utf-8") as file:
        _whole(file)

        def write(row: Mapping[str, Any]) -> None:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

        if file.tell() == 0:
            write({"schema": SCHEMA})
        yield write


def _whole(file: IO[str]) -> None:
    """End the last line of a file: a run that was killed may have left a part of one."""
    end = file.seek(0, os.SEEK_END)
    if end:
        file.seek(0)
        if not file.read().endswith("\n"):
            file.write("\n")
        file.seek(0, os.SEEK_END)


@contextmanager
def _executor(
    jobs: int | None, dask: str | None, given: Executor | None, cases: int
) -> Iterator[Executor]:
    """Give the executor asked for; Ctrl-C ends local processes at once."""
    if given is not None:
        yield given
        return
    if dask is not None:
        with _dask(dask) as pool:
            yield pool
        return
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs: found {jobs}, expected a whole number of at least 1")
    count = max(1, min(jobs or os.cpu_count() or 1, cases))
    pool = ProcessPoolExecutor(count, initializer=_quietly)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for one in multiprocessing.active_children():
            one.terminate()
        raise
    pool.shutdown()


def _quietly() -> None:
    """End a worker on Ctrl-C without a word: the parent speaks for all."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError:
        raise InputError(
            "--dask: Dask is not installed, expected: pip install 'llm-serving-planner[dask]'"
        ) from None
    with Client(None if address == "local" else address) as client:
        yield client.get_executor()
