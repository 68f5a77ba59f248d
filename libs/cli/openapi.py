"""`python -m libs.cli.openapi`: writes docs/openapi/SERVICE.json; with `--check` fails when one is out of date."""

import importlib
import json
import sys

from libs.cli.local.state import ROOT, SERVICES

FOLDER = ROOT / "docs" / "openapi"


def render(service: str) -> str:
    """The OpenAPI document of a service as it stands in the repository."""
    app = importlib.import_module(f"services.{service}.main").openapi_app()
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def main(arguments: list[str]) -> int:
    """Exit code 1 when `--check` finds a difference."""
    stale = []
    for service in SERVICES:
        path, text = FOLDER / f"{service}.json", render(service)
        if path.exists() and path.read_text() == text:
            continue
        if "--check" in arguments:
            stale.append(path.relative_to(ROOT))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")
    for path in stale:
        print(f"{path} is out of date: run `make openapi`")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
