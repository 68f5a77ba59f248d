"""Passwords and certificates from files that are replaced while the process runs, as Kubernetes replaces Secrets."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any


def read_password(path: Path) -> str:
    """What the file holds now, without a last line break. Raises OSError."""
    return path.read_text(encoding="utf-8").rstrip("\r\n")


def trust(ca: Path) -> ssl.SSLContext:
    """A context for clients: the server's certificate must come from an authority in `ca` (PEM) and name the host.

    The file is read for each new connection: an unreadable one is an OSError there, and a renewed one needs no restart.
    """
    context = _Trust(ssl.PROTOCOL_TLS_CLIENT)
    context.ca = ca
    return context


class _Trust(ssl.SSLContext):
    ca: Path

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """What event loops call at the beginning of a connection. Authorities read before stay trusted."""
        self.load_verify_locations(cafile=self.ca)
        return super().wrap_bio(*arguments, **named)


def problem_of(read: Callable[[Path], object], path: Path) -> str | None:
    """Why `read` cannot take the file, or None."""
    try:
        read(path)
    except ssl.SSLError:
        return f"{path} holds no certificate"
    except (OSError, ValueError) as error:
        return f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
    return None
