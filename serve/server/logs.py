"""Structured logs: one JSON object a line on stderr."""

import logging
import time

import msgspec

from pipeline.quiet import error_stream

__all__ = ["LOGGER", "configure_logging", "log"]

LOGGER = logging.getLogger("smp_pipeline.serve")


def log(level: int, event: str, **fields: object) -> None:
    """Log an event.

    Args:
        level: of the standard library's ``logging``.
        event: what happened, in a few words that stay the same from time to time.
        **fields: JSON values: ``request_id``, ``model``, ``status``, ``duration_ms``, ...
    """
    if LOGGER.isEnabledFor(level):
        # Not LOGGER.log(), which walks the stack for the caller: a third of a request's line.
        extra = {"fields": fields}
        LOGGER.handle(LOGGER.makeRecord(LOGGER.name, level, "", 0, event, (), None, extra=extra))


def configure_logging() -> None:
    """Send the server's own events, and warnings of the libraries under it, to stderr.

    With ``--quiet``, errors alone.
    """
    handler = logging.StreamHandler(error_stream())
    handler.setFormatter(_JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # What no line shows is not looked up for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    LOGGER.setLevel(logging.INFO)


class _JsonFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__()
        self._encoder = msgspec.json.Encoder(enc_hook=str)
        self._second = 0
        self._prefix = ""

    def format(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        if second != self._second:
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        line: dict[str, object] = {
            "time": f"{self._prefix}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        if record.name != LOGGER.name:
            line["logger"] = record.name
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return self._encoder.encode(line).decode()
