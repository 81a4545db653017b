"""The project of examples/workflows runs as its page says, and draws what it did."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.engines import RunningEngine
from tests.support.projects import Project

pytestmark = [pytest.mark.integration, pytest.mark.program, pytest.mark.worker, pytest.mark.timeout(600)]

#: Every task of the nightly report, and how often it is there.
TASKS = {"fetch": 1, "total": 3, "merge": 1, "chart": 1, "table": 1, "publish": 1, "archive": 1, "announce": 1}
SVG = "{http://www.w3.org/2000/svg}"


# Chords and trees are tested on every engine; a project on one of them.
@pytest.mark.parametrize("broker", ["folder", "redis", "rabbitmq"])
def test_the_workflow_runs_and_is_drawn(
    live_engine: RunningEngine, tmp_path: Path, broker: str, request: pytest.FixtureRequest
) -> None:
    """The chain of chords gives its result, and its picture has a box for every task and a line to each but the first."""
    url = "" if broker == "folder" else request.getfixturevalue(f"{broker}_url")
    project = Project("workflows", live_engine.database(), tmp_path, url)
    with project.worker("--concurrency", "2"):
        printed = project.python("-m", "workflows")
        found = re.fullmatch(r"Report of [\d-]+: 97 characters\npython (-m workflows.draw \S+) report.svg\n", printed)
        assert found, printed
    # Only now each task is stored: a worker sends the next step before it stores the result of this one.
    file = tmp_path / "report.svg"
    outline = project.python(*found[1].split(), str(file))
    lines = outline.splitlines()
    assert lines[-1].startswith("10 tasks, drawn in ")
    assert lines[0] == "workflows.tasks.fetch SUCCESS"
    picture = ET.parse(file).getroot()  # noqa: S314 - the project's own file
    texts = [each.text for each in picture.iter(f"{SVG}text")]
    assert {name: texts.count(f"workflows.tasks.{name}") for name in TASKS} == TASKS
    assert texts.count("SUCCESS") == 10
    assert len(list(picture.iter(f"{SVG}path"))) == 9
