"""Rounds of benchmarks/serve.py: every way to serve a model, and its session alone, in turn."""

import argparse
import csv
import functools
import itertools
import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.serve_load import grpc_load, http_load
from benchmarks.serve_loop import BareLoops
from benchmarks.serve_servers import Server, Variant, start_servers, stop_servers
from pipeline.errors import ConfigurationError, MachineError
from serve.session import Session

# Between answers of a quiet server and of the session: rounding of JSON and of batching.
_TOLERANCE = 1e-3
_CHECKED = 64


class Turn(NamedTuple):
    """A measurement that each round does once.

    Attributes:
        kind: the list that its figures go to.
        what: is measured.
        run: from the text of this number on; returns the figures.
    """

    kind: str
    what: dict[str, Any]
    run: Callable[[int], dict[str, float]]


def variants(
    clients: Sequence[int], delays_ms: Sequence[float], tries: Sequence[str], *, kserve: bool
) -> list[Variant]:
    """What is measured, besides the session alone."""
    every = tuple(clients)
    found = [
        Variant("http", "HTTP", every),
        Variant("control", "HTTP again (control)", every),
        _with_flags("unbatched", "--max-batch-size 1", every),
        Variant("grpc", "gRPC", every, grpc=True),
    ]
    for delay in delays_ms:
        flags = f"--max-batch-delay-ms {delay:g}"
        found.append(_with_flags(f"delay-{delay:g}", flags, every[:2]))
    found += [_with_flags(f"try-{number}", flags, every) for number, flags in enumerate(tries)]
    if kserve:
        found.append(Variant("kserve", "KServe SDK, HTTP, no batching", every, kserve=True))
    return found


def _with_flags(key: str, flags: str, clients: tuple[int, ...]) -> Variant:
    return Variant(key, f"HTTP, {flags}", clients, tuple(flags.split()))


def read_texts(path: Path, seed: int) -> list[str]:
    """The texts of a CSV file's column ``text``, in random order.

    Raises:
        ConfigurationError: it cannot be read, or has none.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            texts = [row["text"] for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError) as error:
        raise ConfigurationError(
            f"--validation-file {path}: no CSV file with a column text ({error!r})"
        ) from error
    if not texts:
        raise ConfigurationError(f"--validation-file {path} has no texts")
    random.Random(seed).shuffle(texts)
    return texts


def measure_model(
    directory: Path, texts: Sequence[str], arguments: argparse.Namespace, kserve_python: Path | None
) -> dict[str, Any]:
    """All turns of one model.

    Args:
        directory: the model directory.
        texts: what is asked, in this order.
        arguments: of the benchmark.
        kserve_python: an interpreter with the KServe SDK; None leaves it out.

    Raises:
        MachineError: a server does not start, or gives other answers than the session.
    """
    bare = BareLoops(directory, texts)
    session = bare.session
    manifest = session.manifest
    if manifest is None or not manifest.task.labels or manifest.task.text_pair_column is not None:
        raise ConfigurationError(f"{directory}: give a model that classifies single texts")
    ways = variants(
        arguments.clients, arguments.delays, arguments.tries, kserve=kserve_python is not None
    )
    files = arguments.work_dir / "requests"
    files.mkdir(parents=True, exist_ok=True)
    (files / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    bodies = [_body(text) for text in texts]
    (files / "bodies.jsonl").write_text("\n".join(bodies) + "\n", encoding="utf-8")
    logs = arguments.work_dir / "logs"
    servers = start_servers(ways, directory, logs, kserve_python or Path(sys.executable))
    try:
        for server in servers.values():
            _check_answers(server, session, texts, bodies)
        turns = _turns(bare, ways, servers, files, arguments)
        results = _rounds(turns, arguments, directory.name, len(texts))
        memory = {key: server.rss_bytes() for key, server in servers.items()}
    finally:
        stop_servers(servers)
    tokens = [len(encoding.ids) for encoding in session.encode(texts)]
    return {
        "model": directory.name,
        "format": manifest.format,
        "density": manifest.density,
        "threads": session.threads,
        "texts": len(texts),
        "tokens": {"mean": float(np.mean(tokens)), "max": max(tokens)},
        "variants": {way.key: way.title for way in ways},
        "rss_bytes": memory,
        **results,
    }


def _turns(
    bare: BareLoops,
    ways: Sequence[Variant],
    servers: dict[str, Server],
    files: Path,
    arguments: argparse.Namespace,
) -> list[Turn]:
    turns: list[Turn] = []
    for way in ways:
        ask = functools.partial(
            _ask, way, servers["http" if way.grpc else way.key], files, arguments.seconds
        )
        for clients in way.clients:
            what = {"variant": way.key, "clients": clients}
            turns.append(Turn("requests", what, functools.partial(ask, clients)))
    for loops, batch, tokenise in itertools.product(bare.loops, arguments.batches, (True, False)):
        what = {"loops": loops, "batch": batch, "tokenise": tokenise}
        loop = functools.partial(
            bare.turn,
            loops=loops,
            batch=batch,
            tokenise=tokenise,
            seconds=arguments.loop_seconds,
        )
        turns.append(Turn("loop", what, loop))
    return turns


def _ask(
    way: Variant, server: Server, files: Path, seconds: int, clients: int, first: int
) -> dict[str, float]:
    """One turn of load."""
    cpu_s = server.cpu_s()
    if way.grpc:
        load = grpc_load(server, files / "texts.json", first, clients, seconds)
    else:
        load = http_load(server.url, files / "bodies.jsonl", first, clients, seconds)
    return {
        "per_s": load.requests / load.seconds,
        "p50_ms": load.p50_ms,
        "p99_ms": load.p99_ms,
        "server_cpu_ms": 1e3 * (server.cpu_s() - cpu_s) / load.requests,
        "client_cpu_ms": 1e3 * load.client_cpu_s / load.requests,
    }


def _rounds(
    turns: Sequence[Turn],
    arguments: argparse.Namespace,
    name: str,
    texts: int,
) -> dict[str, list[dict[str, Any]]]:
    """Every turn once a round, in a new random order each time."""
    generator = random.Random(arguments.seed)
    results: dict[str, list[dict[str, Any]]] = {}
    for number in range(arguments.rounds):
        print(f"{name}: round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
        first = generator.randrange(texts)
        for turn in generator.sample(turns, len(turns)):
            row = {**turn.what, "round": number, **turn.run(first)}
            results.setdefault(turn.kind, []).append(row)
    return results


def _body(text: str) -> str:
    return json.dumps(
        {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}]}
    )


def _check_answers(
    server: Server, session: Session, texts: Sequence[str], bodies: Sequence[str]
) -> None:
    """A server that answers otherwise than the session is not worth a measurement."""
    logits = session.logits(texts[:_CHECKED])
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    found = [server.infer(body)["probabilities"] for body in bodies[:_CHECKED]]
    difference = float(np.abs(np.array(found).reshape(expected.shape) - expected).max())
    if difference > _TOLERANCE:
        raise MachineError(
            f"{server.variant.title} gives other probabilities than the session "
            f"(by {difference:.2g})"
        )
