from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fetch.servers import Server
from fetch.world import clock, server, services, world
from hypothesis import settings

__all__ = ["clock", "server", "services", "world"]

# A loaded machine is slow now and then; that is no failure.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for lora.test, its own authority."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=lora.test", "-keyout", key, "-out", cert),
            *("-addext", "subjectAltName=DNS:lora.test"),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


@pytest.fixture
def context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    """What a server that is lora.test encrypts with."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*certificate)
    return made


@pytest.fixture
def secure(context: ssl.SSLContext, server: Callable[..., Server]) -> Server:
    return server(tls=context)
