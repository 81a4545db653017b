"""Prometheus metrics of what is stored, on engines; the dashboard and the alerts name what there is."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from surrealdb_celery_backend.results import Results
from tests.engines import Database
from tests.support import history_data as data
from tests.support.apps.contract_apps import request
from tests.support.paths import CHECKOUT
from tests.support.shell import Shell

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk]

FILES = CHECKOUT / "docs" / "monitoring"


@pytest.fixture
def shell(fresh_database: Database) -> Iterator[Shell]:
    """A shell on a database of its own."""
    shell = Shell(fresh_database)
    yield shell
    shell.close()


def samples(text: str) -> dict[tuple[str, ...], float]:
    """The values by name and labels."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def fill(shell: Shell) -> None:
    """Tasks that ended, wait and run, a chord, and a lease."""
    # Not data.NOW, the time of the import: a run of all tests may take longer than the hour that a scrape counts.
    now = datetime.now(timezone.utc)
    done = now - timedelta(minutes=1)
    data.write(
        shell.app,
        [
            *(data.record(task_id=f"t{n}", date_done=done, runtime=0.2, queue_time=3.0) for n in range(5)),
            data.record(task_id="bad", date_done=done, status="FAILURE", runtime=20.0),
            data.record(task_id="old", date_done=now - timedelta(days=2)),
            data.record(task_id="waits", status="PENDING", date_done=None, sent_at=now - timedelta(minutes=10)),
            data.record(task_id="runs", status="STARTED", date_done=None, sent_at=now - timedelta(hours=10)),
        ],
    )
    shell.app.backend.set_chord_size("c", 3)
    shell.database.query(
        "CREATE schedule_lease:1 SET token = 1, holder = 'h', host = 'a', process = 1, until = time::now() + 1h"
    )


def test_each_task_is_counted_once(shell: Shell) -> None:
    """Scrape after scrape: what ended since the one before is added, nothing twice."""
    fill(shell)
    registry = CollectorRegistry()
    with Results(shell.app) as results:
        registry.register(results.metrics())
        server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
        try:

            def scrape() -> dict[tuple[str, ...], float]:
                with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as reply:
                    return samples(reply.read().decode())

            found = scrape()
            assert found["surrealdb_celery_tasks_total", "shop.report", "SUCCESS"] == 5
            assert found["surrealdb_celery_tasks_total", "shop.report", "FAILURE"] == 1
            assert found["surrealdb_celery_task_runtime_seconds_bucket", "0.25", "shop.report"] == 5
            assert found["surrealdb_celery_task_runtime_seconds_bucket", "+Inf", "shop.report"] == 6
            assert found["surrealdb_celery_task_runtime_seconds_sum", "shop.report"] == pytest.approx(21)
            assert found["surrealdb_celery_task_queue_time_seconds_count", "shop.report"] == 6
            assert found["surrealdb_celery_tasks_unfinished", "shop.report", "PENDING"] == 1
            assert found["surrealdb_celery_tasks_unfinished", "shop.report", "STARTED"] == 1
            assert 600 <= found[("surrealdb_celery_oldest_waiting_seconds",)] < 3600
            assert found[("surrealdb_celery_chords_unfinished",)] == 1
            assert 0 < found[("surrealdb_celery_beat_lease_seconds",)] <= 3600
            assert found[("surrealdb_celery_up",)] == 1
            shell.app.backend.store_result("new", 1, "SUCCESS", request=request("new"))
            found = scrape()
            assert found["surrealdb_celery_tasks_total", "contract.add", "SUCCESS"] == 1
            assert found["surrealdb_celery_tasks_total", "shop.report", "SUCCESS"] == 5
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def test_the_command_prints_metrics(shell: Shell) -> None:
    """`metrics --once` prints what a scrape gives."""
    fill(shell)
    assert samples(shell.ok("metrics", "--once"))["surrealdb_celery_tasks_total", "shop.report", "SUCCESS"] == 5


def test_a_database_that_is_away_is_told(shell: Shell, dead_port: int) -> None:
    """Where the database cannot be asked, `up` is 0 and the exporter goes on."""
    away = Shell(shell.database, surrealdb_url=f"ws://127.0.0.1:{dead_port}/rpc", surrealdb_timeout=2)
    assert samples(away.ok("metrics", "--once"))[("surrealdb_celery_up",)] == 0
    away.close()


def test_dashboard_and_alerts_name_series_that_there_are(shell: Shell) -> None:
    """Every series that the dashboard and the alert rules name is one of the exporter's, with its labels."""
    fill(shell)
    there = {name for name, *_ in samples(shell.ok("metrics", "--once"))}
    dashboard = json.loads((FILES / "grafana-dashboard.json").read_text())
    alerts = yaml.safe_load((FILES / "alerts.yml").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    named = {name for expression in expressions for name in re.findall(r"surrealdb_celery_\w+", expression)}
    assert named
    assert named <= there
    assert _essential(there) <= named


def _essential(there: set[str]) -> Any:
    """What a dashboard is to show: all but a histogram's own parts and the times of creation."""
    return {name for name in there if not name.endswith(("_created", "_count", "_sum", "_bucket"))}
