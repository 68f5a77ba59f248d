"""How Kafka is reached: plainly, over TLS, or over TLS as a user with a password (SCRAM-SHA-512)."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from libs.common.credentials import read_password, trust
from libs.common.kafka.deadline import within


@dataclass(frozen=True)
class Security:
    """`ca`: a file of certificates; with one, connections are TLS with host name check. `user` and `password_file`:
    both or none, and only with `ca`. Both files are read for each new connection."""

    ca: Path | None = None
    user: str | None = None
    password_file: Path | None = None

    def options(self) -> dict[str, Any]:
        """As aiokafka's clients want it."""
        if self.ca is None:
            return {}
        if self.user is None or self.password_file is None:
            return {"security_protocol": "SSL", "ssl_context": trust(self.ca)}
        return {
            "security_protocol": "SASL_SSL",
            "ssl_context": trust(self.ca),
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": self.user,
            "sasl_plain_password": _PasswordFile(self.password_file),
        }


PLAIN = Security()


class _PasswordFile(str):
    """A path that turns into the password at the moment when aiokafka encodes it, which it does for each login.

    So a client that lives on comes back with a new password when a broker has closed its connections. With the text of
    the old one it would keep the brokers that it is connected to, and never read from the one that it has lost.
    """

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return read_password(Path(self)).encode(encoding, errors)


def is_forbidden(error: BaseException) -> bool:
    """Whether Kafka knows us and its ACLs do not allow what was tried."""
    return isinstance(
        error, ClusterAuthorizationFailedError | GroupAuthorizationFailedError | TopicAuthorizationFailedError
    )


async def refusal(bootstrap: str, security: Security) -> str | None:
    """Why none of the brokers at `bootstrap` lets us in, in words, found out by trying; None when one does,
    or when nothing can be refused.

    aiokafka says only that it cannot bootstrap.
    """
    found = None
    if security == PLAIN:
        return None
    for host, port, _ in collect_hosts(bootstrap):
        try:
            connection = await within(5, create_conn(host, port, request_timeout_ms=4000, **security.options()))
        except ssl.SSLCertVerificationError as error:
            found = f"the certificate of {host}:{port} is not accepted: {error.verify_message}"
        except (KafkaError, OSError, TimeoutError, ValueError) as error:
            user = f" as {security.user}" if security.user else ""
            found = f"{host}:{port} cannot be used{user}: {str(error) or type(error).__name__}"
        else:
            connection.close()
            return None
    return found
