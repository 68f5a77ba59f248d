"""Passwords and certificates from files that are replaced while the process runs, as Kubernetes replaces Secrets."""

import contextlib
import ssl
from pathlib import Path
from typing import Any


def read_password(path: Path) -> str:
    """What the file holds now, without a last line break. Raises OSError."""
    return path.read_text(encoding="utf-8").rstrip("\r\n")


def trust(ca: Path) -> ssl.SSLContext:
    """A context for clients: the server's certificate must come from an authority in `ca` (PEM) and name the host.

    The file is read for each new connection, so a renewed one needs no restart.
    """
    context = _Trust(ssl.PROTOCOL_TLS_CLIENT)
    context.ca = ca
    return context


class _Trust(ssl.SSLContext):
    ca: Path

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """What event loops call at the beginning of a connection. Authorities read before stay trusted."""
        with contextlib.suppress(OSError):  # raised from here, it would leave the socket open
            self.load_verify_locations(cafile=self.ca)
        return super().wrap_bio(*arguments, **named)


def check_ca(path: Path) -> Path:
    """For settings: raises ValueError that says why `trust` cannot work with the file."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise ValueError(f"{path} holds no certificate") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    return path


def check_password_file(path: Path) -> Path:
    """For settings: raises ValueError that says why there is no password in the file."""
    try:
        password = read_password(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    if not password:
        raise ValueError(f"{path} is empty")
    return path
