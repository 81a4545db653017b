"""Fixtures of all tests: running engines, a database of one's own, and the other services. See README.md."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.engines import Database, NotPossible, Provider, RunningEngine, Unavailable, all_specs, matrix

#: Fixtures that are given an engine. `live_engine` and `own_engine` narrow or renew what `engine` is.
ENGINE_FIXTURES = ("engine", "own_engine")

_PROVIDERS = pytest.StashKey[list[tuple[str, Provider | Unavailable]]]()
_COUNTS = pytest.StashKey[dict[str, Counter[str]]]()
_PROPERTY = "engine"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --engine and --stores."""
    group = parser.getgroup("engines")
    group.addoption("--engine", help="only this one, as `python -m tests.engines list` names it: 3.0.2, 3.0.2-mem")
    group.addoption("--stores", choices=["default", "all"], default="default", help="each engine's first, or all")


def pytest_configure(config: pytest.Config) -> None:
    """Find out once which engines there are."""
    # The SDKs open their blocking connection in a way that websockets 17.1 deprecated; not ours to change.
    config.addinivalue_line(
        "filterwarnings", r"ignore:connect\(\) must be used as a context manager:DeprecationWarning"
    )
    config.stash[_PROVIDERS] = list(
        all_specs(every_store=config.getoption("stores") == "all", only=config.getoption("engine"))
    )
    config.stash[_COUNTS] = {}
    config.pluginmanager.register(_Count(config.stash[_COUNTS]), "engine-counts")
    if not config.stash[_PROVIDERS]:
        raise pytest.UsageError(
            f"--engine is {config.getoption('engine')!r}: choose one of {', '.join(matrix.names())},"
            " alone or with a store, such as 3.0.2-mem"
        )


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say from where each engine comes, and why others are missing."""
    lines = []
    for label, found in config.stash[_PROVIDERS]:
        if isinstance(found, Unavailable):
            lines.append(f"engine {label}: cannot run here: {found}")
        else:
            lines.append(f"engine {label}: {found.source}{'' if found.spec.live else ', without LIVE'}")
    return lines


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that takes an engine on each of them."""
    for fixture in ENGINE_FIXTURES:
        if fixture not in metafunc.fixturenames:
            continue
        providers = metafunc.config.stash[_PROVIDERS]
        usable = [(label, found) for label, found in providers if isinstance(found, Provider)]
        if "live_engine" in metafunc.fixturenames:
            usable = [(label, found) for label, found in usable if found.spec.live]
        if usable:
            parameters = [pytest.param(found, id=label) for label, found in usable]
        else:
            # One visible skip instead of a test that silently is not there.
            reason = "no engine can run here that this test needs: see `python -m tests.engines list`"
            parameters = [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]
        metafunc.parametrize(fixture, parameters, indirect=True, scope="session" if fixture == "engine" else None)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note on each test which engine it runs on, for the count."""
    callspec = getattr(item, "callspec", None)
    for fixture in ENGINE_FIXTURES:
        if callspec is not None and fixture in callspec.params:
            provider = callspec.params[fixture]
            item.user_properties.append((_PROPERTY, "none" if provider is None else str(provider.spec)))


class _Count:
    """Counts outcomes per engine from the reports, which pytest-xdist's processes send here too."""

    def __init__(self, counts: dict[str, Counter[str]]) -> None:
        self._counts = counts

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test by its call, or by what kept it from being called or from ending well."""
        label = dict(report.user_properties).get(_PROPERTY)
        if label is None or (report.when != "call" and report.passed):
            return
        outcome = "error" if report.failed and report.when != "call" else report.outcome
        self._counts.setdefault(str(label), Counter())[outcome] += 1


def _not_run(config: pytest.Config) -> list[str]:
    """The required engines that no test ran on, if tests for engines were asked for at all."""
    counts = config.stash[_COUNTS]
    if not counts or config.getoption("engine"):
        return []
    ran = {label for label, count in counts.items() if count["passed"] or count["failed"]}
    return sorted(name for name in matrix.required() if not any(label.startswith(f"{name}-") for label in ran))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which a required engine took no part."""
    if hasattr(session.config, "workerinput"):
        return
    if session.exitstatus == pytest.ExitCode.OK and _not_run(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say per engine how many tests passed, failed and were skipped."""
    counts = config.stash[_COUNTS]
    if not counts:
        return
    terminalreporter.section("engines")
    for label, found in config.stash[_PROVIDERS]:
        name = label.replace("-", " ")
        if isinstance(found, Unavailable):
            terminalreporter.write_line(f"engine {name}: did not run: {found}", yellow=True)
            continue
        count = counts.get(label, Counter())
        told = ", ".join(f"{number} {category}" for category, number in sorted(count.items())) or "no tests"
        terminalreporter.write_line(f"engine {name}: {told} ({found.source})")
    for name in _not_run(config):
        terminalreporter.write_line(f"engine {name}: required, but no test ran on it", red=True)


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[RunningEngine]:
    """A running engine, shared by all tests of this run: each engine in turn. Leave it as it is."""
    provider: Provider = request.param
    with provider.start(0) as running:
        yield running


@pytest.fixture
def fresh_database(engine: RunningEngine) -> Database:
    """A namespace and database that nobody used before, on each engine in turn."""
    return engine.database()


@pytest.fixture
def live_engine(engine: RunningEngine) -> RunningEngine:
    """As `engine`, but only those whose LIVE queries notify."""
    return engine


@pytest.fixture
def own_engine(request: pytest.FixtureRequest) -> Iterator[RunningEngine]:
    """An engine for this test alone, which may stop, pause, kill and restart it: each engine in turn."""
    provider: Provider = request.param
    running = provider.start(0)
    try:
        running.pid  # noqa: B018 - an engine that has none is not ours
    except NotPossible as error:
        pytest.skip(str(error))
    with running:
        yield running


def _service(variable: str, default: str, port: int) -> str:
    """The URL of a service that answers; otherwise the test is skipped, and in CI it fails."""
    url = os.environ.get(variable, default)
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or port), timeout=60).close()
    except OSError as error:
        reason = f"no {parts.scheme} server at {parts.hostname}:{parts.port or port} ({error}): set {variable}"
        if matrix.in_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return url


@pytest.fixture(scope="session")
def redis_url() -> str:
    """A Redis server, database 0: use keys of your own."""
    return _service("REDIS_TEST_URL", "redis://127.0.0.1:6379/0", 6379)


@pytest.fixture(scope="session")
def rabbitmq_url() -> str:
    """A RabbitMQ server: use queues of your own."""
    return _service("RABBITMQ_TEST_URL", "amqp://guest:guest@127.0.0.1:5672//", 5672)


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """A PostgreSQL server and database for the tests."""
    return _service("POSTGRES_TEST_URL", "postgresql://postgres@127.0.0.1:5432/test", 5432)


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port where nobody listens, and nobody else can begin to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])
