"""What Prometheus reads: requests, queue, batches, models, and the process."""

from collections.abc import Callable
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder

from pipeline import __version__
from serve.session import import_onnxruntime

__all__ = ["Metrics"]

# Seconds. A short text through a small model takes half a millisecond; requests end after 30 s.
_SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one server, in a registry of their own; safe to call from any thread.

    Labels are names of models that are or were loaded, never names that a client made up.
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self._requests = Counter(
            "smp_requests",
            "Requests answered, by HTTP status or gRPC status name; model is empty where unknown.",
            ("protocol", "model", "code"),
            registry=registry,
        )
        self._request_seconds = Histogram(
            "smp_request_seconds",
            "Time from a request's arrival to its answer.",
            ("protocol", "model"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._queue_seconds = Histogram(
            "smp_queue_seconds",
            "Time that a text waited for its batch.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._batch_texts = Histogram(
            "smp_batch_texts",
            "Texts that ran together.",
            ("model",),
            buckets=_TEXTS,
            registry=registry,
        )
        self._inference_seconds = Histogram(
            "smp_inference_seconds",
            "Time that a batch ran.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._tokens = Counter(
            "smp_tokens", "Tokens that ran, without padding.", ("model",), registry=registry
        )
        self._padding = Counter(
            "smp_padding_tokens",
            "Padding that ran beside smp_tokens_total.",
            ("model",),
            registry=registry,
        )
        self._queue_texts = Gauge("smp_queue_texts", "Texts that wait.", registry=registry)
        self._model_ready = Gauge(
            "smp_model_ready",
            "1 for a model that answers, 0 for one that cannot be loaded; gone after an unload.",
            ("model",),
            registry=registry,
        )
        self._model_events = Counter(
            "smp_model_events",
            "Changes of the repository: loaded, reloaded, load_failed, unloaded.",
            ("model", "event"),
            registry=registry,
        )
        Info("smp_build", "Versions.", registry=registry).info(
            {"version": __version__, "onnxruntime": import_onnxruntime().__version__}
        )
        ProcessCollector(registry=registry)

        # Looking a labelled metric up costs more than counting: what was found is kept.
        self._request_children: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self._batch_children: dict[
            str, tuple[Histogram, Histogram, Histogram, Counter, Counter]
        ] = {}

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """All metrics as text.

        Args:
            accept: the ``Accept`` header of the request.

        Returns:
            Body and content type: OpenMetrics where the client takes it, else Prometheus' own.
        """
        try:
            encoder, content_type = choose_encoder(accept or "")
        except (TypeError, ValueError):  # the version that the client wants is no number
            encoder, content_type = choose_encoder("")
        return encoder(self._registry), content_type

    def request(self, protocol: str, model: str, code: str, seconds: float) -> None:
        """Count an answered request.

        Args:
            protocol: ``http`` or ``grpc``.
            model: the model's name; empty where it is unknown.
            code: HTTP status or name of the gRPC status.
            seconds: from its arrival to its answer.
        """
        key = (protocol, model, code)
        children = self._request_children.get(key)
        if children is None:
            children = (self._requests.labels(*key), self._request_seconds.labels(protocol, model))
            self._request_children[key] = children
        counter, histogram = children
        counter.inc()
        histogram.observe(seconds)

    def queued(self, model: str, seconds: float) -> None:
        """Count a text that left the queue after so long."""
        self._of_batches(model)[0].observe(seconds)

    def batch(
        self, model: str, *, rows: int, tokens: int, padded_tokens: int, seconds: float
    ) -> None:
        """Count a batch that ran.

        Args:
            model: the model's name.
            rows: texts in it.
            tokens: their tokens.
            padded_tokens: texts times the longest of them.
            seconds: how long it ran.
        """
        _, texts, inference, real, padding = self._of_batches(model)
        texts.observe(rows)
        inference.observe(seconds)
        real.inc(tokens)
        padding.inc(padded_tokens - tokens)

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Have the number of waiting texts read from ``depth`` whenever metrics are rendered."""
        self._queue_texts.set_function(depth)

    def model_event(self, model: str, event: str, *, ready: bool) -> None:
        """Count a change of a model, and set whether it answers now."""
        self._model_events.labels(model, event).inc()
        self._model_ready.labels(model).set(ready)

    def forget(self, model: str) -> None:
        """Drop the gauge of a model that is no longer there; what was counted of it stays."""
        with suppress(KeyError):
            self._model_ready.remove(model)

    def _of_batches(self, model: str) -> tuple[Histogram, Histogram, Histogram, Counter, Counter]:
        children = self._batch_children.get(model)
        if children is None:
            children = (
                self._queue_seconds.labels(model),
                self._batch_texts.labels(model),
                self._inference_seconds.labels(model),
                self._tokens.labels(model),
                self._padding.labels(model),
            )
            self._batch_children[model] = children
        return children
