"""TLS: the server's certificate and its private key, as two PEM files. A renewed pair is taken up without a restart."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import grpc

from jobwire_server.api.given_files import GivenFiles, UnusableFile


def credentials(certificate: Path, key: Path) -> grpc.ServerCredentials:
    """What a port speaks TLS with. Connections made so far stay; later ones are shown what the files hold by then.

    Raises UnusableFile if they make no pair.
    """

    def make(contents: Sequence[bytes]) -> grpc.ServerCertificateConfiguration:
        _check(certificate, key)
        chain, private = contents
        return grpc.ssl_server_certificate_configuration([(private, chain)])

    files = GivenFiles({"JOBWIRE_TLS_CERT": certificate, "JOBWIRE_TLS_KEY": key}, make)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        return files.made if files.renewed() else None

    # The stubs do not know that None leaves things as they are.
    return grpc.dynamic_ssl_server_credentials(files.made, cast(Any, renewed))


def _check(certificate: Path, key: Path) -> None:
    """Raises what gRPC would not: it tells no more than that a handshake failed, and the client alone."""

    def no_password() -> str:
        raise UnusableFile(f"JOBWIRE_TLS_KEY: {key} is locked with a password, which the server cannot enter")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, no_password)
    except ssl.SSLError as error:
        raise UnusableFile(
            f"JOBWIRE_TLS_CERT and JOBWIRE_TLS_KEY: {certificate} and {key} make no pair ({error.reason or error}): "
            "they must be PEM, a certificate with its chain, and its private key"
        ) from None
    except OSError as error:
        # UnusableFile as well.
        raise UnusableFile(str(error)) from None
