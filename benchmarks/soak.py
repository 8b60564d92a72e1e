"""Everything at once for minutes: what a server loses, mixes up and refuses, and how it grows.

    python -m benchmarks.soak MODEL_DIR --validation-file CSV [--minutes 10]

More clients than the queue holds ask without a pause; a second model is loaded anew, unloaded,
replaced by a corrupt one and mended, again and again; clients vanish, and others send what is no
request. Every answer is compared with the one that the quiet server gave to each text alone. The
clients run on the same machine and take their share of its cores, so that the throughput is not the
server's best.
"""

import argparse
import asyncio
import collections
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.http_load import Tally
from benchmarks.server_process import ServerProcess
from benchmarks.soak_actors import (
    MOST_TEXTS,
    Sample,
    ask_clients,
    copy_model,
    disturb_model,
    right_answers,
    sample,
    send_rubbish,
    vanish,
)
from benchmarks.soak_table import write_table
from pipeline.artifacts.manifest import to_json
from pipeline.data import read_labelled_text
from pipeline.environment import package_versions
from pipeline.errors import PipelineError
from pipeline.machine import describe_machine

PACKAGES = ("smp-pipeline", "numpy", "onnxruntime", "starlette", "tokenizers", "uvicorn")
STEADY, CHANGING = "steady", "changing"
# Clients of the model that changes.
_CHANGING_CLIENTS = 4


@dataclass(frozen=True)
class Soak:
    """What became of it.

    Attributes:
        start: when the load began, of ``time.monotonic``.
        end: when the server was told to stop.
        steady: the requests to the model that stays as it is.
        changing: the requests to the model that is loaded, unloaded and replaced.
        samples: one a second.
        vanished: clients that went away.
        rubbish: status of what was no request -> how often.
        changes: what was done to the changing model, with the status -> how often.
        exit_code: of the server, stopped under load.
        tracebacks: events of its log that have one.
    """

    start: float
    end: float
    steady: Tally
    changing: Tally
    samples: Sequence[Sample]
    vanished: int
    rubbish: collections.Counter[int]
    changes: collections.Counter[str]
    exit_code: int
    tracebacks: int


def main() -> int:
    try:
        arguments = parse_arguments()
        data = read_labelled_text(arguments.validation_file, flag="--validation-file")
        done = soak(
            arguments.model,
            data.texts[: arguments.texts],
            seconds=60 * arguments.minutes,
            clients=arguments.clients,
            max_queue=arguments.max_queue,
            tolerance=arguments.tolerance,
            pause_s=arguments.pause,
        )
        settings = {name: str(value) for name, value in vars(arguments).items() if name != "output"}
        settings["model"] = arguments.model.name
        settings["validation_file"] = arguments.validation_file.name
        facts = {"machine": to_json(describe_machine()), "versions": package_versions(PACKAGES)}
        write_table(done, {**facts, "settings": settings}, arguments.output)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    wrong = done.steady.wrong + done.changing.wrong
    print(*wrong[:20], f"{len(wrong)} wrong; wrote {arguments.output}", sep="\n", file=sys.stderr)
    return 1 if wrong else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", type=Path, help="a model directory")
    add("--validation-file", type=Path, required=True, help="csv with columns text and label")
    add("--minutes", type=float, default=10.0)
    add("--clients", type=int, default=64)
    add("--max-queue", type=int, default=64, help="texts that may wait")
    add("--texts", type=int, default=400, help="how many different texts")
    add("--tolerance", type=float, default=1e-4, help="how far a logit may be off")
    add("--pause", type=float, default=3.0, help="seconds between two changes of a model")
    add("--output", type=Path, default=Path("benchmarks/results/soak.md"))
    return parser.parse_args()


def soak(
    model: Path,
    texts: Sequence[str],
    *,
    seconds: float,
    clients: int,
    max_queue: int,
    tolerance: float,
    pause_s: float,
) -> Soak:
    """Start a server, do everything at once, and stop it under load.

    Args:
        model: the model directory.
        texts: what is asked.
        seconds: how long.
        clients: that ask the steady model.
        max_queue: of the server.
        tolerance: how far a logit may be off.
        pause_s: between two changes of the changing model.
    """
    # Beside the model, so that its copies are links.
    with tempfile.TemporaryDirectory(dir=model.parent, prefix=".soak-") as scratch:
        repository, stock = Path(scratch) / "repository", Path(scratch) / "stock"
        stock.mkdir()
        for name in (STEADY, CHANGING):
            copy_model(model, repository / name)
        flags = ["--no-log-requests", "--watch-s=0.5", f"--max-queue={max_queue}"]
        flags.append(f"--max-request-texts={MOST_TEXTS}")
        with ServerProcess([repository], flags) as server:
            server.wait_for("ready")
            return asyncio.run(
                _soak(
                    server,
                    texts,
                    repository / CHANGING,
                    stock,
                    seconds=seconds,
                    clients=clients,
                    tolerance=tolerance,
                    pause_s=pause_s,
                )
            )


async def _soak(
    server: ServerProcess,
    texts: Sequence[str],
    changing: Path,
    stock: Path,
    *,
    seconds: float,
    clients: int,
    tolerance: float,
    pause_s: float,
) -> Soak:
    port = server.port
    questions = {name: await right_answers(port, name, texts) for name in (STEADY, CHANGING)}
    tallies = {name: Tally() for name in questions}
    rubbish: collections.Counter[int] = collections.Counter()
    ended, stop = asyncio.Event(), asyncio.Event()
    start = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for name, count in ((STEADY, clients), (CHANGING, _CHANGING_CLIENTS)):
            group.create_task(
                ask_clients(ended, port, questions[name], count, tallies[name], tolerance)
            )
        vanished = group.create_task(vanish(stop, port, questions[STEADY][0]))
        group.create_task(send_rubbish(stop, port, questions[STEADY][0].path, rubbish))
        changes = group.create_task(disturb_model(stop, port, changing, stock, pause_s))
        samples = group.create_task(sample(stop, server))
        await asyncio.sleep(seconds)
        stop.set()
        await asyncio.wait([vanished, changes, samples])
        end = time.monotonic()
        # The clients go on: each ends when the server takes no more connections.
        code = await asyncio.to_thread(server.stop)
    return Soak(
        start=start,
        end=end,
        steady=tallies[STEADY],
        changing=tallies[CHANGING],
        samples=samples.result(),
        vanished=vanished.result(),
        rubbish=rubbish,
        changes=changes.result(),
        exit_code=code,
        tracebacks=sum("traceback" in event for event in server.events),
    )


if __name__ == "__main__":
    sys.exit(main())
