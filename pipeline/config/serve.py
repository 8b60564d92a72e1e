"""The configuration of `smp-pipeline serve`."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config.fields import check_bounds, option
from pipeline.errors import ConfigurationError

__all__ = ["ServeConfig"]

_BATCHING = "Batching"
_LIMITS = "Limits"
_SECURITY = "Security"
_OPERATION = "Operation"


@dataclass(frozen=True)
class ServeConfig:
    """Which models to serve, where to listen, and within which limits."""

    models: tuple[Path, ...] = option(
        help="Model directories that `export` wrote (NAME=DIRECTORY gives another name), or "
        "directories of such directories.",
        positional=True,
    )
    host: str = option(
        "127.0.0.1", help="Address to listen on; 0.0.0.0 takes requests from other machines."
    )
    port: int = option(8080, help="HTTP port; 0 takes a free one.", minimum=0, maximum=65535)
    grpc_port: int = option(8081, help="gRPC port; 0 takes a free one.", minimum=0, maximum=65535)
    grpc: bool = option(True, help="Listen for gRPC.")
    threads: int = option(0, help="Threads of one batch; 0 takes all cores.", minimum=0)
    concurrency: int = option(
        1, help="Batches that run at once, each with --threads.", minimum=1, maximum=64
    )
    max_batch_size: int = option(
        16, help="Texts that run together; 1 switches batching off.", minimum=1, group=_BATCHING
    )
    max_batch_delay_ms: float = option(
        0.0,
        help="How long a text waits for others while nothing runs, in ms.",
        minimum=0,
        maximum=10_000,
        group=_BATCHING,
    )
    max_queue: int = option(
        512,
        help="Texts that may wait; beyond it requests get 429 or RESOURCE_EXHAUSTED.",
        minimum=1,
        group=_LIMITS,
    )
    max_request_texts: int = option(256, help="Texts of one request.", minimum=1, group=_LIMITS)
    max_text_chars: int = option(100_000, help="Characters of one text.", minimum=1, group=_LIMITS)
    max_request_bytes: int = option(
        8 * 2**20, help="Bytes of one request's body.", minimum=1024, group=_LIMITS
    )
    max_connections: int = option(
        1024,
        help="HTTP connections, or gRPC calls, at once; further ones get 503 or "
        "RESOURCE_EXHAUSTED.",
        minimum=1,
        group=_LIMITS,
    )
    request_timeout_s: float = option(
        30.0,
        help="Time for a request, from its first byte to its answer, in s.",
        minimum=0,
        exclusive_minimum=True,
        group=_LIMITS,
    )
    token_file: Path | None = option(
        None, help="File with the bearer token that requests must bring.", group=_SECURITY
    )
    tls_certificate: Path | None = option(
        None, help="PEM file with the server's certificate chain.", group=_SECURITY
    )
    tls_key: Path | None = option(
        None, help="PEM file with the certificate's private key.", group=_SECURITY
    )
    watch_s: float = option(
        0.0,
        help="Time between two looks for new, changed and removed models, in s; 0 never looks.",
        minimum=0,
        group=_OPERATION,
    )
    shutdown_timeout_s: float = option(
        30.0,
        help="Time to finish accepted requests after SIGTERM, in s.",
        minimum=0,
        group=_OPERATION,
    )
    log_requests: bool = option(True, help="Log a line for each request.", group=_OPERATION)

    def __post_init__(self) -> None:
        check_bounds(self)
        if not self.models:
            raise ConfigurationError("MODELS: give at least one model directory")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigurationError("--tls-certificate and --tls-key go together; give both")
        if self.grpc and self.port == self.grpc_port != 0:
            raise ConfigurationError(
                f"--port and --grpc-port must differ, got {self.port} for both"
            )
