"""What the dashboards are made of: panels, queries, variables.

A panel is a title, a unit and its queries. Thresholds are those of the alerts in ../rules.yaml that it names; their
runbooks are linked. What counts only mishaps has no series before the first one: `or_zero` makes such panels show 0.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml

RULES = Path(__file__).resolve().parents[1] / "rules.yaml"
PER_ROW, WIDTH, HEIGHT = 3, 8, 8
RATE = "[$__rate_interval]"

Query = tuple[str, str]
Panel = dict[str, Any]


def limits() -> dict[str, list[tuple[str, float]]]:
    """The comparisons of each alert: `>` or `<`, and the number."""
    found: dict[str, list[tuple[str, float]]] = {}
    for group in yaml.safe_load(RULES.read_text())["spec"]["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                comparisons = re.findall(r" ([<>]) ([0-9.]+)$", rule["expr"].strip(), re.MULTILINE)
                found.setdefault(rule["alert"], []).extend((sign, float(number)) for sign, number in comparisons)
    return found


LIMITS = limits()


def panel(title: str, unit: str, *queries: Query, alerts: str = "", note: str = "", show: str = "timeseries") -> Panel:
    """`alerts` are names without `Superfan`, divided by spaces; the first one gives the threshold."""
    names = [f"Superfan{name}" for name in alerts.split()]
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if names and LIMITS[names[0]]:
        sign, limit = LIMITS[names[0]][0]
        if sign == "<":
            steps[0]["color"] = "red"
        steps.append({"color": "green" if sign == "<" else "red", "value": limit})
    return {
        "type": show,
        "title": title,
        "description": " ".join([note, *(f"Alert: {name}." for name in names)]).strip(),
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend}
            for place, (expression, legend) in enumerate(queries)
        ],
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": {"thresholdsStyle": {"mode": "line" if len(steps) > 1 else "off"}} if show != "stat" else {},
            },
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if show != "stat" else {},
        "links": [
            {"title": f"Runbook of {name}", "url": f"${{runbooks}}/{name}.md", "targetBlank": True} for name in names
        ],
    }


def or_zero(expression: str) -> str:
    return f"{expression} or on() vector(0)"


def rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{RATE}))"


def total(metric: str) -> str:
    return or_zero(f"sum(rate({metric}{RATE}))")


def p99(histogram: str, selector: str, by: str) -> str:
    return f"histogram_quantile(0.99, sum by (le, {by}) (rate({histogram}_bucket{selector}{RATE})))"


def quantiles(title: str, histogram: str, window: str = RATE) -> Panel:
    """`window` as in `[1h]` is for what happens rarely."""
    buckets = f"sum by (le) (rate({histogram}_bucket{window}))"
    shares = (("p50", 0.5), ("p99", 0.99))
    return panel(title, "s", *((f"histogram_quantile({share}, {buckets})", name) for name, share in shares))


def variable(name: str, metric: str) -> dict[str, Any]:
    query = f"label_values({metric}, {name})"
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": "All", "value": "$__all"},
        "sort": 1,
    }


def dashboard(name: str, title: str, panels: list[Panel], variables: list[dict[str, Any]] | None = None) -> str:
    for place, one in enumerate(panels):
        one["id"] = place + 1
        row, column = divmod(place, PER_ROW)
        one["gridPos"] = {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT}
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    runbooks = {
        "name": "runbooks",
        "type": "textbox",
        "label": "Address of docs/runbooks",
        "query": "docs/runbooks",
        "current": {"text": "docs/runbooks", "value": "docs/runbooks"},
    }
    document = {
        "uid": f"superfan-{name}",
        "title": f"Superfan: {title}",
        "tags": ["superfan"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source, runbooks, *(variables or [])]},
        "links": [{"type": "dashboards", "tags": ["superfan"], "title": "Superfan", "asDropdown": True}],
        "panels": panels,
    }
    return json.dumps(document, indent=1) + "\n"


def rest(service: str) -> list[Panel]:
    own = f'{{service="{service}"}}'
    return [
        panel(
            "REST: requests by route and status",
            "reqps",
            (rate(f"superfan_http_requests_total{own}", "route, status"), "{{route}} {{status}}"),
        ),
        panel(
            "REST: p99 by route",
            "s",
            (p99("superfan_http_request_seconds", own, "route"), "{{route}}"),
        ),
        panel(
            "REST: refused for overload",
            "reqps",
            (rate(f"superfan_http_shed_total{own}", "service"), "refused"),
            note="Answered 503 before anything was done.",
        ),
    ]


def applied(service: str) -> Panel:
    metric = f'superfan_events_applied_total{{service="{service}"}}'
    return panel("Events applied by type", "cps", (rate(metric, "type"), "{{type}}"))


def sweep(service: str) -> list[Panel]:
    own = f'{{service="{service}"}}'
    return [
        panel(
            "Sweep: longest overdue",
            "d",
            (f"max(superfan_sweep_due_oldest_days{own})", "days"),
            alerts="SweepBehind",
        ),
        panel(
            "Sweep: rows",
            "cps",
            (total(f"superfan_sweep_rows_total{own}"), "looked at"),
            (total(f"superfan_sweep_errors_total{own}"), "rounds that failed"),
        ),
    ]
