"""What a server takes and refuses before anything is read."""

from pathlib import Path

import pytest

from pipeline.config import ServeConfig
from pipeline.errors import ConfigurationError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ()}, "MODELS: give at least one model directory"),
        ({"port": 65536}, "--port must be at least 0 and at most 65535, got 65536"),
        ({"port": 9000, "grpc_port": 9000}, "--port and --grpc-port must differ, got 9000 for"),
        ({"tls_key": Path("key.pem")}, "--tls-certificate and --tls-key go together; give both"),
        ({"request_timeout_s": 0.0}, "--request-timeout-s must be greater than 0, got 0.0"),
        ({"max_batch_size": 0}, "--max-batch-size must be at least 1, got 0"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        ServeConfig(**{"models": (Path("a"),), **changes})


def test_two_free_ports_and_one_port_without_grpc_are_fine():
    ServeConfig(models=(Path("a"),), port=0, grpc_port=0)
    ServeConfig(models=(Path("a"),), port=9000, grpc_port=9000, grpc=False)
