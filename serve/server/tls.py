"""The server's certificate and key."""

import ssl

from pipeline.config import ServeConfig
from pipeline.errors import ConfigurationError

__all__ = ["tls_context"]


def tls_context(config: ServeConfig) -> ssl.SSLContext | None:
    """What the server's end of TLS needs; None where the configuration has no certificate.

    Raises:
        ConfigurationError: the certificate or the key cannot be read or used.
    """
    certificate, key = config.tls_certificate, config.tls_key
    if certificate is None or key is None:
        return None
    for flag, path in (("--tls-certificate", certificate), ("--tls-key", key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"{flag} {path} cannot be read: {error.strerror}; give a PEM file"
            ) from error
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        ssl.create_default_context(cafile=certificate)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"--tls-certificate {certificate} holds no PEM certificate; give one, or a chain that "
            "begins with the server's"
        ) from error
    try:
        # Without a password of ours, OpenSSL would ask at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"--tls-key {key} is not the private key of --tls-certificate {certificate} "
            f"({error.reason or error}); give it as PEM, not encrypted"
        ) from error
    return context
