"""Alert rules, dashboard and docs/metrics.md name metrics that a control plane serves; the rules do what they say.

`promtool`, of Debian's package prometheus, checks and runs the rules.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from kuma.api.derived.metric_names import ALIASES, PREFIX
from tests.fakes.control_plane import MTLS, dataplane, running
from tests.fakes.patience import PATIENCE

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ALERTS = ROOT / "deploy" / "prometheus" / "kuma-alerts.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "kuma-mutual-tls.json"
PAGE = ROOT / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(\w+)(?:\{([\w,]+)\})?` \| (\w+) \|", re.MULTILINE)
NAME = re.compile(r"\b(?:kuma|process)_\w+")


def promtool(*arguments: str, cwd: Path) -> str:
    try:
        done = subprocess.run(
            ["promtool", *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except FileNotFoundError:
        pytest.fail("promtool is missing: make packages")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Metric]:
    """What a control plane with a mesh and a proxy in it serves, by name."""
    text = asyncio.run(_metrics(tmp_path_factory.mktemp("home")))
    return {metric.name: metric for metric in text_string_to_metric_families(text)}


async def _metrics(home: Path) -> str:
    async with running(home) as cp:
        await cp.apply(MTLS)
        await cp.proxy(dataplane("web-01", "web"))
        await cp.settled(1)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{await cp.parts.diagnostics.port()}", timeout=PATIENCE
        ) as client:
            return (await client.get("/metrics")).text


def names(text: str) -> set[str]:
    """The metrics that an expression asks for."""
    return {name.removesuffix("_total") for name in NAME.findall(text) if name != "kuma_mutual_tls"}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    """Those of the dashboard, with values for Grafana's variables."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    return [expr.replace("$__rate_interval", "5m").replace("$mesh", ".*") for expr in found]


def test_each_alert_is_raised_by_what_it_is_for_and_by_nothing_else(tmp_path: Path) -> None:
    promtool("check", "rules", str(ALERTS), cwd=tmp_path)
    bare = yaml.safe_load(ALERTS.read_text())
    for group in bare["groups"]:
        for rule in group["rules"]:
            assert rule.pop("annotations").keys() == {"summary", "description"}
    (tmp_path / ALERTS.name).write_text(yaml.safe_dump(bare))
    cases = (HERE / "alerts.yaml").read_text()
    (tmp_path / "alerts.yaml").write_text(cases)
    promtool("test", "rules", "alerts.yaml", cwd=tmp_path)
    tried = [case for test in yaml.safe_load(cases)["tests"] for case in test["alert_rule_test"]]
    raised = {case["alertname"] for case in tried if case["exp_alerts"]}
    assert raised == {rule["alert"] for rule in rules()}


def test_the_expressions_of_the_dashboard_can_be_evaluated(tmp_path: Path) -> None:
    made = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(expressions())]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": made}]}))
    assert f"{len(made)} rules found" in promtool("check", "rules", "panels.yaml", cwd=tmp_path)


def test_alerts_and_dashboard_ask_for_metrics_that_are_served(served: Mapping[str, Metric]) -> None:
    asked = {name for text in (*(rule["expr"] for rule in rules()), *expressions()) for name in names(text)}
    assert asked <= served.keys()
    assert not {name for name in asked if name.removeprefix(PREFIX) in ALIASES and not name.startswith(PREFIX)}


def test_every_metric_is_documented_with_its_labels(served: Mapping[str, Metric]) -> None:
    documented = {
        name.removesuffix("_total"): (set(labels.split(",")) if labels else set(), kind)
        for name, labels, kind in ROW.findall(PAGE.read_text())
    }
    ours = {
        name: metric for name, metric in served.items() if name.startswith(PREFIX) and not name.endswith("_created")
    }
    assert documented.keys() == ours.keys()
    for name, metric in ours.items():
        labels, kind = documented[name]
        assert kind == metric.type, name
        assert all(sample.labels.keys() == labels for sample in metric.samples), name
        deprecated = name.removeprefix(PREFIX)
        if deprecated in ALIASES:
            alias = served[deprecated]
            assert alias.documentation == f"Deprecated name of {name}."
            values = [
                [(s.labels, s.value) for s in m.samples if not s.name.endswith("_created")] for m in (alias, metric)
            ]
            assert values[0] == values[1]
    assert {name for name in ALIASES if f"{PREFIX}{name}" not in ours} == set()


def _is_a_time(name: str) -> bool:
    """Whether it is when a counter began, which the library adds to each."""
    return name.endswith("_created")
