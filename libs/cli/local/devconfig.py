"""The configuration that a system on this machine starts with, and where its key and secrets lie."""

import base64
import secrets
import tomllib
from pathlib import Path

from libs.cli.local.tools import LOCKS
from libs.common.config import hash_key, make_key

TEMPLATE = LOCKS / "superfan.toml"


def ensure_config(folder: Path) -> Path:
    """Makes the development configuration at the first start; later starts use it as it then is."""
    path = folder / "superfan.toml"
    key = _ensure_secret(folder / "keys" / "dev", make_key("dev", secrets.token_urlsafe(24)))
    _ensure_secret(folder / "secrets" / "douyin-demo", secrets.token_hex(16))
    _ensure_secret(folder / "secrets" / "standard-demo", "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())
    if not path.exists():
        path.write_text(TEMPLATE.read_text().replace("@sha256 of keys/dev@", hash_key(key)))
    return path


def _ensure_secret(path: Path, text: str) -> str:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(text + "\n")
    return path.read_text().strip()


def first_key(config: Path) -> str | None:
    """The text of the first key that has a file keys/<id> beside the configuration."""
    for key in tomllib.loads(config.read_text()).get("keys", []):
        file = config.parent / "keys" / str(key["id"])
        if file.is_file():
            return file.read_text().strip()
    return None


def secret_files(config: Path) -> dict[str, Path]:
    """The first secret file of each webhook source."""
    sources = tomllib.loads(config.read_text()).get("sources", [])
    return {source["id"]: config.parent / source["secret_files"][0] for source in sources}
