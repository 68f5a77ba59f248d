"""Alert rules, their tests, dashboards and runbooks fit together and fit the code. Needs no server."""

import importlib
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.metrics import ROOT, Series, declared, problems
from tests.manifests.tools import CONSUMERS, SERVICES, named, render, render_component
from tests.manifests.tools_promtool import MONITORING, promtool, rule_groups, write_groups

RUNBOOKS = ROOT / "docs" / "runbooks"
DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))
RULES = [rule for group in rule_groups() for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})


def known_series() -> dict[str, Series]:
    """What the code declares and what the rules record."""
    recorded = {rule["record"]: Series(frozenset({"service"})) for rule in RULES if "record" in rule}
    return {**declared(), **recorded}


@pytest.fixture(scope="module")
def program() -> str:
    try:
        return promtool()
    except LookupError as reason:
        pytest.skip(str(reason))


def run_promtool(program: str, folder: Path) -> str:
    """What promtool says against the rules and their tests in `folder`; empty when nothing."""
    names = [str(folder / f"{group['name']}.yaml") for group in rule_groups()]
    tests = [str(folder / path.name) for path in (MONITORING / "rules_test").glob("*.yaml")]
    commands = [[program, "check", "rules", *names], *([program, "test", "rules", test] for test in tests)]

    def run(command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    with ThreadPoolExecutor(2) as pool:
        return "".join(pool.map(run, commands))


def test_promtool_finds_nothing(program: str, tmp_path: Path) -> None:
    write_groups(rule_groups(), tmp_path)
    assert run_promtool(program, tmp_path) == ""


def test_promtool_finds_a_spoiled_rule(program: str, tmp_path: Path) -> None:
    groups = [group for group in rule_groups() if group["name"] == "superfan-state"]
    for rule in groups[0]["rules"]:
        rule["expr"] = rule["expr"].replace("< 1", "< 0")
    write_groups(groups, tmp_path)
    done = subprocess.run(
        [program, "test", "rules", str(tmp_path / "state.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "SuperfanConfigInvalid" in done.stdout + done.stderr


def test_every_alert_is_tested_both_ways() -> None:
    fired: set[tuple[str, str]] = set()
    silent: set[tuple[str, str]] = set()
    windows = {(rule["alert"], rule["labels"].get("window", "")) for rule in ALERTS}
    for path in (MONITORING / "rules_test").glob("*.yaml"):
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test["alert_rule_test"]:
                expected = {one["exp_labels"].get("window", "") for one in case["exp_alerts"]}
                for name, window in windows:
                    if name == case["alertname"]:
                        (fired if window in expected else silent).add((name, window))
    assert fired == windows
    assert silent == windows


def test_alerts_say_what_to_do() -> None:
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, rule["alert"]
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
        assert re.search(r"\$value|\$labels|\d", rule["annotations"]["description"]), rule["alert"]


def test_rules_ask_for_what_the_code_tells() -> None:
    known = known_series()
    found = {rule.get("alert") or rule["record"]: list(problems(rule["expr"], known)) for rule in RULES}
    assert {name: told for name, told in found.items() if told} == {}


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("superfan_no_such_total > 0", "no metric superfan_no_such_total"),
        ('superfan_outbox_rows{topic="x"} > 0', "superfan_outbox_rows has no label topic"),
        ("sum by (topic) (superfan_outbox_rows)", "superfan_outbox_rows has no label topic to group by"),
        ('superfan_event_delay_seconds_bucket{le="7.0"}', "superfan_event_delay_seconds_bucket has no bucket 7.0"),
        ("sum(superfan_outbox_rows", ""),
    ],
)
def test_a_wrong_expression_is_found(expression: str, problem: str) -> None:
    found = list(problems(expression, known_series()))
    assert len(found) == 1
    assert problem in found[0]


def test_dashboards_are_up_to_date() -> None:
    script = str(MONITORING / "dashboards" / "generate.py")
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_ask_for_what_the_code_tells(path: Path) -> None:
    known = known_series()
    document = json.loads(path.read_text())
    for panel in document["panels"]:
        for target in panel["targets"]:
            assert list(problems(target["expr"], known)) == [], panel["title"]
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                recorded = target["expr"].startswith("superfan:") and label == "service"
                assert recorded or re.search(rf"by \([^)]*\b{label}\b", target["expr"]), panel["title"]
        for link in panel["links"]:
            assert (RUNBOOKS / link["url"].rsplit("/", 1)[1]).exists(), panel["title"]
    for variable in document["templating"]["list"]:
        if variable["type"] == "query":
            assert list(problems(variable["definition"].split("(", 1)[1].rsplit(",", 1)[0], known)) == []


def test_dashboards_are_shipped() -> None:
    maps = [item for item in render_component("monitoring") if item["kind"] == "ConfigMap"]
    assert all(item["metadata"]["labels"]["grafana_dashboard"] == "1" for item in maps)
    assert sorted(name for item in maps for name in item["data"]) == [path.name for path in DASHBOARDS]


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    assert sorted(path.stem for path in RUNBOOKS.glob("*.md") if path.stem != "README") == NAMES
    rows = re.findall(
        r"^\| \[(\w+)\]\((\w+)\.md\) \| ([a-z, ]+) \|", (RUNBOOKS / "README.md").read_text(), re.MULTILINE
    )
    severities = {name: {rule["labels"]["severity"] for rule in ALERTS if rule["alert"] == name} for name in NAMES}
    assert {name: set(told.split(", ")) for name, _, told in rows} == severities
    assert all(name == page for name, page, _ in rows)


def test_service_monitors_find_the_pods_and_keep_our_label() -> None:
    """The operator labels targets with `service`, the Kubernetes Service; ours has to survive."""
    base: list[dict[str, Any]] = render("base")
    monitors = [item for item in render_component("monitoring") if item["kind"] == "ServiceMonitor"]
    assert sorted(item["metadata"]["name"] for item in monitors) == sorted(SERVICES)
    for monitor in monitors:
        service = monitor["metadata"]["name"]
        wanted = monitor["spec"]["selector"]["matchLabels"]
        (endpoint,) = monitor["spec"]["endpoints"]
        assert {"action": "labeldrop", "regex": "service"} in endpoint["relabelings"]
        assert "honorLabels" not in endpoint
        chosen = [
            item
            for item in base
            if item["kind"] == "Service"
            and wanted.items() <= item["metadata"]["labels"].items()
            and endpoint["port"] in [port["name"] for port in item["spec"]["ports"]]
        ]
        assert [item["metadata"]["name"] for item in chosen] == [f"{service}-metrics"]
        assert named(base, "Service", f"{service}-metrics")["spec"]["clusterIP"] == "None"


def test_what_thresholds_take_for_granted() -> None:
    """Posted to ingest are only events and webhooks; every consumer and every topic is looked at."""
    paths = json.loads((ROOT / "docs" / "openapi" / "ingest.json").read_text())["paths"]
    posted = [path for path, methods in paths.items() if "post" in methods]
    assert all(re.fullmatch(r"/v1/(events|webhooks/.+)", path) for path in posted), posted
    gone = next(rule["expr"] for rule in ALERTS if rule["alert"] == "SuperfanConsumerGone")
    looked_at = set(re.findall(r'service="(\w+)", topic="([\w.]+)"', gone))
    for service in CONSUMERS:
        topics = importlib.import_module(f"services.{service}.consumer").TOPICS
        apart = {"superfan.views"} & set(topics)
        own = {topic for name, topic in looked_at if name == service}
        assert own <= set(topics)
        assert apart <= own
        assert own - apart
    services = next(rule["expr"] for rule in ALERTS if rule["alert"] == "SuperfanServiceGone")
    assert re.findall(r'service="(\w+)"', services) == list(SERVICES)
