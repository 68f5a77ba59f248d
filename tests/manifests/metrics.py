"""The metrics that the code declares, and what PromQL expressions ask of them."""

import functools
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
from prometheus_client import REGISTRY, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.utils import floatToGoString

ROOT = Path(__file__).resolve().parents[2]
OF_TARGETS = frozenset({"job", "namespace", "pod"})
"""Labels that every series gets from its scrape and that rules may use."""
OF_GRAFANA = {"$__rate_interval": "5m", "$service": ".+", "$topic": ".+"}


@dataclass(frozen=True)
class Series:
    """The labels of one name, and the values of `le` where it is a histogram's."""

    labels: frozenset[str]
    limits: frozenset[str] = frozenset()


@functools.cache
def declared() -> dict[str, Series]:
    """Every name that a scrape of the services may show. Imports all of them."""
    for folder in ("libs/common", "services"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "migrations" not in path.parts and path.name not in ("__main__.py", "__init__.py"):
                importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    found: dict[str, Series] = {}
    for collector, names in REGISTRY._collector_to_names.items():
        labels = frozenset(collector._labelnames) if isinstance(collector, MetricWrapperBase) else frozenset()
        for name in names:
            found[name] = Series(labels)
        if isinstance(collector, Histogram):
            name = collector._name
            limits = frozenset(str(floatToGoString(bound)) for bound in collector._upper_bounds)  # type: ignore[no-untyped-call]
            found[f"{name}_bucket"] = Series(labels | {"le"}, limits)
    return found


def parse(expression: str) -> Any:
    """The tree of an expression of a rule or a dashboard. Raises ValueError."""
    for name, value in OF_GRAFANA.items():
        expression = expression.replace(name, value)
    return promql_parser.parse(expression)


def selectors(tree: Any) -> list[Any]:
    """The vector selectors in a tree."""
    found: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        elif isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)

    promql_parser.walk(tree, visit)
    return found


def problems(expression: str, known: dict[str, Series]) -> Iterator[str]:
    """What `expression` asks for and no service will ever tell: names, labels, limits of buckets."""
    try:
        tree = parse(expression)
    except ValueError as error:
        yield str(error)
        return
    for selector in selectors(tree):
        if selector.name == "ALERTS":
            continue
        series = known.get(selector.name)
        if series is None:
            yield f"no metric {selector.name}"
            continue
        for matcher in selector.matchers.matchers:
            if matcher.name not in series.labels | OF_TARGETS:
                yield f"{selector.name} has no label {matcher.name}"
            if matcher.name == "le" and matcher.value not in series.limits:
                yield f"{selector.name} has no bucket {matcher.value}"
    yield from _groupings(tree, known)


def _groupings(tree: Any, known: dict[str, Series]) -> Iterator[str]:
    grouped: list[tuple[list[str], Any]] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            grouped.append((node.modifier.labels, node.expr))
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier and node.modifier.matching:
            grouped.append((node.modifier.matching.labels, node.lhs))

    promql_parser.walk(tree, visit)
    for labels, inner in grouped:
        for selector in selectors(inner):
            has = known.get(selector.name, Series(frozenset())).labels | OF_TARGETS
            for label in labels:
                if label not in has:
                    yield f"{selector.name} has no label {label} to group by"
