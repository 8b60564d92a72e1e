"""The report of benchmarks/serve.py as Markdown."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.table_head import head, write_lines
from pipeline.markdown import markdown_table, plain

THROUGHPUT_AIM = 0.85
OVERHEAD_AIM_MS = 2.0

NOTES = """\
Each turn of load takes {seconds} s, and all ways to serve take turns with the session alone, in a
new random order in each of {rounds} rounds. A figure is the median of the rounds, in brackets the
lowest and the highest; ratios and differences are taken within a round. *Control* is a second
process of the same server: what differs between the two is noise.

Generator, server and session share the cores. *Server CPU* is the CPU time of the server's process
a request, *client CPU* that of the load generator; with the generator on another machine, the
server would have the latter, too. wrk corrects latencies for coordinated omission: where a request
took over twice the mean, it counts those that could not be sent meanwhile.

*Session alone* is a Python loop around `serve.session`: batches of texts in the order of arrival,
padded to the longest, one loop whose batches have all cores or a loop a core with a thread each.
"""

Row = Mapping[str, Any]
Rows = Sequence[Row]


def write_table(content: Mapping[str, Any], path: Path) -> None:
    """Write the report on what was measured."""
    write_lines(report(content), path)


def report(content: Mapping[str, Any]) -> Iterator[str]:
    """Its lines."""
    yield from head("The server", "serve", content)
    if not content["kserve"]:
        yield "The KServe SDK was left out: not installed."
        yield ""
    yield NOTES.format(**content)
    for model in content["models"]:
        yield from _model(model)


class BestLoop(NamedTuple):
    """The session alone at its best.

    Attributes:
        loops: how many ran at once.
        batch: texts in a batch.
        per_s: texts a second.
    """

    loops: int
    batch: int
    per_s: float


def best_loop(loop: Rows, *, most: int | None = None) -> BestLoop:
    """What gives the session alone the most texts a second, tokenising included.

    Args:
        loop: the turns of the session alone.
        most: loops at once; None for any number.
    """
    rates: dict[tuple[int, int], list[float]] = {}
    for row in loop:
        if row["tokenise"] and (most is None or row["loops"] <= most):
            rates.setdefault((row["loops"], row["batch"]), []).append(row["per_s"])
    return max(
        (BestLoop(*key, statistics.median(values)) for key, values in rates.items()),
        key=lambda found: found.per_s,
    )


def _model(model: Mapping[str, Any]) -> Iterator[str]:
    tokens = model["tokens"]
    yield f"## {plain(model['model'])}"
    yield ""
    yield (
        f"Format {model['format']}, density {model['density']:.3g}; {model['texts']} texts of "
        f"{tokens['mean']:.1f} tokens on average, at most {tokens['max']}; "
        f"{_count(model['threads'], 'core')}."
    )
    yield ""
    yield from _derived(model)
    requests, loop = model["requests"], model["loop"]
    headers = [
        "",
        "clients",
        "requests/s",
        "p50, ms",
        "p99, ms",
        "server CPU, ms",
        "client CPU, ms",
    ]
    rows = []
    for way, title in model["variants"].items():
        for clients in _unique(requests, "clients", variant=way):
            found = _pick(requests, variant=way, clients=clients)
            names = ("per_s", "p50_ms", "p99_ms", "server_cpu_ms", "client_cpu_ms")
            rows.append([title, str(clients), *(_range(_values(found, name)) for name in names)])
    yield markdown_table(headers, rows)
    yield ""
    memory = ", ".join(
        f"{model['variants'][key]} {size / 1e6:.0f}" for key, size in model["rss_bytes"].items()
    )
    yield f"Memory of each process at the end, in MB: {memory}."
    yield ""
    yield "Session alone:"
    yield ""
    headers = ["loops", "batch", "texts/s", "batch p50, ms", "CPU, ms a text"]
    headers += ["texts/s without tokenising", "CPU, ms a text"]
    rows = []
    for loops in _unique(loop, "loops"):
        for batch in _unique(loop, "batch"):
            whole = _pick(loop, loops=loops, batch=batch, tokenise=True)
            bare = _pick(loop, loops=loops, batch=batch, tokenise=False)
            row = [f"{loops}", f"{batch}"]
            row += [_range(_values(whole, name)) for name in ("per_s", "p50_ms", "cpu_ms")]
            rows.append(row + [_range(_values(bare, name)) for name in ("per_s", "cpu_ms")])
    yield markdown_table(headers, rows)
    yield ""


def _derived(model: Mapping[str, Any]) -> Iterator[str]:
    """What serving costs beside the session alone, and what each setting changes."""
    requests = model["requests"]
    clients = _unique(requests, "clients", variant="http")
    fewest, most = clients[0], clients[-1]
    top, one = best_loop(model["loop"]), best_loop(model["loop"], most=1)
    best = _pick(model["loop"], loops=top.loops, batch=top.batch, tokenise=True)
    single = _pick(model["loop"], loops=1, batch=1, tokenise=True)
    yield (
        f"The session alone is best with {_count(top.loops, 'loop')} and batches of {top.batch}: "
        f"{_short(top.per_s)} texts/s, which is what is compared with. One loop does at most "
        f"{_short(one.per_s)}, with batches of {one.batch}. Aims for HTTP: at "
        f"{_count(most, 'client')} at least {THROUGHPUT_AIM} of its throughput; at "
        f"{_count(fewest, 'client')} a median time of less than {OVERHEAD_AIM_MS:g} ms over that "
        "of one text in one loop."
    )
    yield ""
    headers = ["", f"throughput at {most} / session alone", f"p50 at {fewest} - session alone, ms"]
    headers += [f"CPU at {most} - session alone, ms"]
    headers += [f"throughput at {count} / HTTP" for count in clients]
    rows = []
    for way, title in model["variants"].items():
        many = _pick(requests, variant=way, clients=most)
        few = _pick(requests, variant=way, clients=fewest)
        row = [title]
        row.append(_compared(many, best, lambda ours, bare: ours["per_s"] / bare["per_s"]))
        row.append(_compared(few, single, lambda ours, bare: ours["p50_ms"] - bare["p50_ms"]))
        row.append(_compared(many, best, lambda ours, bare: ours["server_cpu_ms"] - bare["cpu_ms"]))
        for count in clients:
            found = _pick(requests, variant=way, clients=count)
            base = _pick(requests, variant="http", clients=count)
            ratio = _compared(found, base, lambda ours, plain: ours["per_s"] / plain["per_s"])
            row.append("1" if way == "http" else ratio)
        rows.append(row)
    yield markdown_table(headers, rows)
    yield ""


def _unique(rows: Rows, name: str, **wanted: Any) -> list[Any]:
    return sorted({row[name] for row in _pick(rows, **wanted)})


def _pick(rows: Rows, **wanted: Any) -> list[Row]:
    """Rows with these values, by round."""
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return sorted(found, key=lambda row: row["round"])


def _values(rows: Rows, name: str) -> list[float]:
    return [row[name] for row in rows]


def _compared(rows: Rows, others: Rows, combine: Callable[[Row, Row], float]) -> str:
    """Of the pairs of each round; nothing where one of them was not measured."""
    if not rows or not others:
        return ""
    return _range([combine(row, other) for row, other in zip(rows, others, strict=True)])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _range(values: Sequence[float]) -> str:
    """Median (lowest to highest), to three digits."""
    median, low, high = statistics.median(values), min(values), max(values)
    return f"{_short(median)} ({_short(low)} to {_short(high)})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
