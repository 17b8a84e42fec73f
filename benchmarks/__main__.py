"""``python -m benchmarks [ROW…] [--quick] [--write]``: measure Roadstead beside its peers, and print tables.

Figures are medians; ratios are medians of the ratios of pairs measured one right after the other, because two runs
on one machine differ by more than most of our goals' margins. Nothing here decides whether a test passes.
"""

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import processes
from benchmarks.measures import MIB, Bench, Sample
from benchmarks.report import Measured, machine, table, verdicts
from benchmarks.rows import GROUPS, Row
from benchmarks.servers import ROOT, Servers
from roadstead.testing.components import ComponentMissingError

PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- figures: written by `make bench ARGS=--write` -->", "<!-- end of figures -->"


def main(arguments: Sequence[str]) -> int:
    """Measure what is asked for; return the exit status."""
    names = [row.name for group in GROUPS for row in group.rows]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Roadstead beside its peers.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"what to measure, by default all: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="short rows, to try them; the figures say little")
    parser.add_argument("--write", action="store_true", help=f"also write the tables to {PAGE.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.rows if name not in names]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(names)}")

    began = time.monotonic()
    parts = []
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="roadstead-bench-") as home:
        scratch, data = Path(home, "scratch"), Path(home, "servers")
        scratch.mkdir()
        data.mkdir()
        inner = stack.enter_context(ExitStack())
        bench = Bench(Servers(inner, data, quick=options.quick), scratch, options.quick)
        with inner:
            for part in run(bench, options.rows or names):
                print(part, "", sep="\n", flush=True)
                parts.append(part)
        # Before the files are removed, which may take longer than the figures did.
        took = f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; took {(time.monotonic() - began) / 60:.0f} minutes."
        print(took, flush=True)
        if options.write:
            write(PAGE, [took, *parts])
    return 0


def run(bench: Bench, names: Sequence[str]) -> Iterator[str]:
    """Yield the table of each group as soon as it is measured, then what is missing and how much memory it took."""
    missing: dict[str, str] = {}
    for group in GROUPS:
        rows = [measured(bench, row) for row in group.rows if row.name in names]
        if rows:
            yield table(group, rows)
        for each in rows:
            missing |= each.missing
    for name, command in missing.items():
        yield f"{name} was not measured; it needs: `{command}`"
    peaks = [
        f"{server.name} {max(m.peak for m in processes.memory(server.pid)) / MIB:.0f}"
        for server in bench.servers.running
    ]
    yield f"Peak resident memory of the largest process of each server, MiB: {', '.join(peaks)}."


def measured(bench: Bench, row: Row) -> Measured:
    """Measure a row: every column once, by turns, in as many rounds as it asks for."""
    samples: dict[str, list[Sample]] = {}
    missing: dict[str, str] = {}
    for _ in range(1 if bench.quick else row.rounds):
        for name, measure in row.columns.items():
            if name in missing:
                continue
            gc.collect()
            try:
                samples.setdefault(name, []).append(measure(bench))
            except ComponentMissingError as error:
                missing[name] = error.install
                del samples[name]
    result = Measured(row, samples, missing)
    said = "; ".join(f"{verdict.ratio:.3g}" for verdict in verdicts(result))
    print(f"{row.name}: {said}", file=sys.stderr, flush=True)
    return result


def write(page: Path, parts: Sequence[str]) -> None:
    """Put the figures into the page, between the marks."""
    text = page.read_text() if page.exists() else f"{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
