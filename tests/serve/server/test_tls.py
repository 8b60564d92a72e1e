import ssl
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import ServeConfig
from pipeline.errors import ConfigurationError
from serve.server.tls import tls_context
from tests.serve.server.conftest import Certificate


def config(**settings: Any) -> ServeConfig:
    return ServeConfig(models=(Path("m"),), **settings)


def test_without_a_certificate_there_is_no_tls() -> None:
    assert tls_context(config()) is None


def test_a_certificate_and_its_key_do(certificate: Certificate) -> None:
    context = tls_context(config(tls_certificate=certificate.certificate, tls_key=certificate.key))
    assert context is not None and context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_what_is_no_certificate_or_key_is_named(certificate: Certificate, tmp_path: Path) -> None:
    absent, garbage = tmp_path / "absent", tmp_path / "garbage"
    garbage.write_bytes(b"\xff no PEM")
    good, key = certificate
    for cert_file, key_file, message in (
        (absent, key, r"--tls-certificate .*absent cannot be read: No such file"),
        (good, absent, r"--tls-key .*absent cannot be read: No such file"),
        (garbage, key, r"--tls-certificate .*garbage holds no PEM certificate"),
        (good, garbage, r"--tls-key .*garbage is not the private key of --tls-certificate"),
        (good, good, r"--tls-key .* is not the private key"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            tls_context(config(tls_certificate=cert_file, tls_key=key_file))
