"""The pytest plugin that runs tests on each engine, counts them by engine, and fails when a required one is missing."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator

import pytest

from . import Database, NotPossible, Provider, RunningEngine, Unavailable, all_specs, matrix

#: Fixtures that are given an engine. `live_engine` narrows what `engine` is; the others are engines of one test.
ENGINE_FIXTURES = ("engine", "own_engine", "durable_engine")

_PROVIDERS = pytest.StashKey[list[tuple[str, Provider | Unavailable]]]()
_COUNTS = pytest.StashKey[dict[str, Counter[str]]]()
_PROPERTY = "engine"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --engine, --stores and --everything."""
    group = parser.getgroup("engines")
    group.addoption("--engine", help="only this one, as `python -m tests.engines list` names it: 3.0.2, 3.0.2-mem")
    group.addoption("--stores", choices=["default", "all"], default="default", help="each engine's first, or all")
    group.addoption("--everything", action="store_true", help="run with SDK 2 also what its line does not matter to")


def pytest_configure(config: pytest.Config) -> None:
    """Find out once which engines there are."""
    # The SDKs open their blocking connection in a way that websockets 17.1 deprecated; not ours to change.
    config.addinivalue_line(
        "filterwarnings", r"ignore:connect\(\) must be used as a context manager:DeprecationWarning"
    )
    only = config.getoption("engine")
    found = all_specs(every_store=config.getoption("stores") == "all", only=only)
    left_out = () if only else _left_out(config)
    config.stash[_PROVIDERS] = [each for each in found if each[0].rpartition("-")[0] not in left_out]
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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write halves of surrogate pairs out: pytest-xdist cannot send them, and would end the run instead."""
    report = yield
    report.sections = [(name, _sendable(text)) for name, text in report.sections]
    if report.longrepr is not None and _sendable(str(report.longrepr)) != str(report.longrepr):
        report.longrepr = _sendable(str(report.longrepr))
    return report


def _sendable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


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
    required = matrix.required(_left_out(config))
    return sorted(name for name in required if not any(label.startswith(f"{name}-") for label in ran))


def _left_out(config: pytest.Config) -> frozenset[str]:
    return frozenset() if config.getoption("everything") else matrix.left_out()


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
def shared_engines() -> Iterator[Callable[[Provider], RunningEngine]]:
    """Start an engine when a test first asks for it, and keep it for the rest of the run.

    The tests of a run side by side come file by file, and go through all engines in each: starting one takes seconds.
    """
    with contextlib.ExitStack() as stack:
        running: dict[str, RunningEngine] = {}

        def shared(provider: Provider) -> RunningEngine:
            label = str(provider.spec)
            if label not in running:
                running[label] = stack.enter_context(provider.start(0))
            return running[label]

        yield shared


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest, shared_engines: Callable[[Provider], RunningEngine]) -> RunningEngine:
    """A running engine, shared by all tests of this run: each engine in turn. Leave it as it is."""
    return shared_engines(request.param)


@pytest.fixture
def fresh_database(engine: RunningEngine) -> Database:
    """A namespace and database that nobody used before, on each engine in turn."""
    return engine.database()


@pytest.fixture(scope="session")
def live_engine(engine: RunningEngine) -> RunningEngine:
    """As `engine`, but only those whose LIVE queries notify."""
    return engine


@pytest.fixture
def own_engine(request: pytest.FixtureRequest) -> Iterator[RunningEngine]:
    """An engine for this test alone, which may stop, pause, kill and restart it: each engine in turn."""
    yield from _for_one_test(request.param)


@pytest.fixture
def durable_engine(request: pytest.FixtureRequest) -> Iterator[RunningEngine]:
    """As `own_engine`, on a store that outlives the process: each engine in turn."""
    provider: Provider = request.param
    yield from _for_one_test(matrix.find(provider.spec.name, "surrealkv") if provider.spec.store == "mem" else provider)


def _for_one_test(provider: Provider) -> Iterator[RunningEngine]:
    running = provider.start(0)
    try:
        running.pid  # noqa: B018 - an engine that has none is not ours
    except NotPossible as error:
        pytest.skip(str(error))
    with running:
        yield running
