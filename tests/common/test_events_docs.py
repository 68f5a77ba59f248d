"""What is made from the event types: examples, docs/events.md, JSON Schemas, the graph of causes."""

import json
from graphlib import TopologicalSorter
from pathlib import Path

import jsonschema_rs
import pytest

from libs.common.events import EVENT_TYPES, parse_event
from libs.common.events.__main__ import main
from libs.common.events.docs import EXAMPLES, events_page, example, schema

PAGE = Path(__file__).parents[2] / "docs" / "events.md"


def test_every_published_version_has_one_example() -> None:
    published = {
        f"{name}.v{version}.json" for name, kind in EVENT_TYPES.items() for version in range(1, kind.version + 1)
    }
    assert {path.name for path in EXAMPLES.iterdir()} == published


@pytest.mark.parametrize(
    ("type_name", "version"),
    [(name, version) for name, kind in EVENT_TYPES.items() for version in range(1, kind.version + 1)],
)
def test_an_example_is_read_and_written_unchanged(type_name: str, version: int) -> None:
    golden = example(type_name, version)
    found = parse_event(json.dumps(golden))
    assert found.type == type_name
    written = json.loads(found.to_json())
    assert parse_event(found.to_json()) == found
    if version == EVENT_TYPES[type_name].version:
        assert written == golden


@pytest.mark.parametrize("type_name", EVENT_TYPES)
def test_an_example_fits_its_schema(type_name: str) -> None:
    kind = EVENT_TYPES[type_name]
    golden = example(type_name, kind.version)
    jsonschema_rs.validator_for(schema(type_name)).validate(golden)
    jsonschema_rs.validator_for(schema()).validate(golden)
    assert not jsonschema_rs.is_valid(schema(type_name), golden | {"account": "NOT VALID"})


def test_the_page_is_up_to_date() -> None:
    assert main(["docs", "--check", str(PAGE)]) == 0


def test_a_page_that_differs_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "events.md"
    assert main(["docs", "--check", str(page)]) == 1
    page.write_text(events_page() + "x", encoding="utf-8")
    assert main(["docs", "--check", str(page)]) == 1
    assert "out of date" in capsys.readouterr().err


def test_the_page_names_every_type_and_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs"]) == 0
    page = capsys.readouterr().out
    sections = dict(part.split("\n", 1) for part in page.split("\n## ")[1:])
    for name, kind in EVENT_TYPES.items():
        data = kind.model.model_fields["data"].annotation
        assert data is not None
        for field in data.model_fields:
            assert f"| `{field}" in sections[name]


def test_the_schema_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "sign_in"]) == 0
    assert json.loads(capsys.readouterr().out)["$id"] == "urn:superfan:event:sign_in:1"
    assert main(["schema"]) == 0
    assert set(json.loads(capsys.readouterr().out)["discriminator"]["mapping"]) == set(EVENT_TYPES)


def test_no_event_can_cause_itself() -> None:
    graph = {name: kind.model.caused_by for name, kind in EVENT_TYPES.items()}
    assert set().union(*graph.values()) <= set(EVENT_TYPES)
    by_request = {"points.spent", "points.adjusted"}
    assert {name for name in graph if not graph[name]} == by_request | {
        name for name, kind in EVENT_TYPES.items() if kind.direction == "input" and name != "order.enriched"
    }
    TopologicalSorter(graph).prepare()
