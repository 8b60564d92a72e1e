"""The bound of benchmarks/serve.py: the session alone, without a server around it."""

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.machine import usable_cores
from serve.session import open_session


class BareLoops:
    """One loop with all cores for each batch, or a loop a core.

    Attributes:
        loops: the numbers of loops that can be run at once.
    """

    def __init__(self, directory: Path, texts: Sequence[str]) -> None:
        cores = usable_cores()
        self.loops = tuple(dict.fromkeys((1, cores)))
        self._sessions = {
            loops: open_session(directory, threads=cores // loops) for loops in self.loops
        }
        self.session = self._sessions[1]
        self._texts = texts
        self._tokens = self.session.encode(texts)

    def turn(
        self, first: int, *, batch: int, loops: int, tokenise: bool, seconds: float
    ) -> dict[str, float]:
        """Run batches of the texts in their order, again and again.

        Args:
            first: number of the text to begin with.
            batch: texts in a batch.
            loops: loops that run at once, each in a thread with its share of the cores.
            seconds: how long.
            tokenise: whether to tokenise, too; otherwise that was done before.

        Returns:
            ``per_s``: texts a second, of all loops together; ``p50_ms``: median time of a batch;
            ``cpu_ms``: CPU time a text.
        """
        session = self._sessions[loops]

        def loop(number: int) -> list[float]:
            times = []
            chunks = batches(len(self._texts), first + number * batch, batch, loops)
            begin = time.perf_counter()
            end = begin + seconds
            while begin < end:
                chunk = next(chunks)
                if tokenise:
                    rows = session.encode([self._texts[index] for index in chunk])
                else:
                    rows = [self._tokens[index] for index in chunk]
                session.run(session.collate(rows))
                now = time.perf_counter()
                times.append(now - begin)
                begin = now
            return times

        cpu = time.process_time()
        with ThreadPoolExecutor(loops) as pool:
            found = list(pool.map(loop, range(loops)))
        cpu = time.process_time() - cpu
        return {
            "per_s": sum(batch * len(times) / sum(times) for times in found),
            "p50_ms": 1e3 * statistics.median(itertools.chain.from_iterable(found)),
            "cpu_ms": 1e3 * cpu / (batch * sum(map(len, found))),
        }


def batches(texts: int, first: int, batch: int, loops: int) -> Iterator[list[int]]:
    """Every ``loops``-th batch of the texts' numbers, without end.

    Args:
        texts: how many texts there are.
        first: number of the text that the first batch begins with.
        batch: texts in a batch.
        loops: loops that take turns.
    """
    for start in itertools.count(first, loops * batch):
        yield [index % texts for index in range(start, start + batch)]
