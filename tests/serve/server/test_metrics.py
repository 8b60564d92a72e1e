from prometheus_client.parser import text_string_to_metric_families

from pipeline import __version__
from serve.server.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a Prometheus server would read: name and labels -> value."""
    body, _ = metrics.render(None)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, tuple(sorted(labels.items()))))


def test_requests_are_counted_by_protocol_model_and_code() -> None:
    metrics = Metrics()
    metrics.request("http", "reviews", "200", 0.003)
    metrics.request("http", "reviews", "200", 0.3)
    metrics.request("http", "", "404", 0.001)
    metrics.request("grpc", "reviews", "OK", 0.003)
    ours = {"protocol": "http", "model": "reviews"}
    assert value(metrics, "smp_requests_total", **ours, code="200") == 2
    assert value(metrics, "smp_requests_total", protocol="http", model="", code="404") == 1
    assert value(metrics, "smp_requests_total", protocol="grpc", model="reviews", code="OK") == 1
    assert value(metrics, "smp_request_seconds_count", **ours) == 2
    assert value(metrics, "smp_request_seconds_bucket", **ours, le="0.005") == 1
    assert value(metrics, "smp_request_seconds_bucket", **ours, le="0.5") == 2


def test_batches_tell_texts_time_and_padding() -> None:
    metrics = Metrics()
    metrics.batch("reviews", rows=3, tokens=20, padded_tokens=30, seconds=0.002)
    metrics.batch("reviews", rows=1, tokens=7, padded_tokens=7, seconds=0.001)
    metrics.queued("reviews", 0.02)
    assert value(metrics, "smp_batch_texts_sum", model="reviews") == 4
    assert value(metrics, "smp_batch_texts_count", model="reviews") == 2
    assert value(metrics, "smp_inference_seconds_count", model="reviews") == 2
    assert value(metrics, "smp_tokens_total", model="reviews") == 27
    assert value(metrics, "smp_padding_tokens_total", model="reviews") == 10
    assert value(metrics, "smp_queue_seconds_sum", model="reviews") == 0.02


def test_the_queue_is_read_when_it_is_asked_for() -> None:
    metrics = Metrics()
    waiting = [1, 2]
    metrics.watch_queue(lambda: len(waiting))
    assert value(metrics, "smp_queue_texts") == 2
    waiting.clear()
    assert value(metrics, "smp_queue_texts") == 0


def test_a_forgotten_model_is_neither_ready_nor_not() -> None:
    metrics = Metrics()
    metrics.model_event("reviews", "loaded", ready=True)
    assert value(metrics, "smp_model_ready", model="reviews") == 1
    metrics.model_event("reviews", "unloaded", ready=False)
    assert value(metrics, "smp_model_ready", model="reviews") == 0
    metrics.forget("reviews")
    metrics.forget("reviews")
    assert value(metrics, "smp_model_ready", model="reviews") is None
    assert value(metrics, "smp_model_events_total", model="reviews", event="unloaded") == 1


def test_versions_and_the_process_are_told() -> None:
    found = samples(Metrics())
    ((labels, one),) = [
        (dict(labels), value) for (name, labels), value in found.items() if name == "smp_build_info"
    ]
    assert labels["version"] == __version__
    assert one == 1
    assert found["process_resident_memory_bytes", ()] > 0
    assert found["process_open_fds", ()] > 0


def test_two_servers_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.request("http", "reviews", "200", 0.1)
    assert value(second, "smp_request_seconds_count", protocol="http", model="reviews") is None


def test_openmetrics_is_given_to_who_asks() -> None:
    metrics = Metrics()
    body, content_type = metrics.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    for other in (
        "text/html, */*;q=0.8",
        "application/openmetrics-text; version=new",
        "text/plain; version=1.x; escaping=none",
        "text/plain; version=",
    ):
        body, content_type = metrics.render(other)
        assert content_type.startswith("text/plain; version=0.0.4")
        assert body
