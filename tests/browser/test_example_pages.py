"""The pages of the examples for Django and FastAPI in a real browser, with a real worker behind them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engines import RunningEngine
from tests.support.processes import MAX_WAIT
from tests.support.programs import Programs, programs
from tests.support.states import until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.program,
    pytest.mark.worker,
    pytest.mark.browser,
    pytest.mark.timeout(600),
]

PATIENCE = MAX_WAIT * 1000
ADMIN = "/admin/surrealdb_celery"
#: Has a page note all that it shows of a report: nobody may look while it shows it.
NOTE_PROGRESS = """() => {
  const told = document.getElementById("told"), bar = document.getElementById("progress");
  told.textContent = "";
  window.shown = [];
  if (window.noting) window.noting.disconnect();
  window.noting = new MutationObserver(() => window.shown.push([told.textContent, bar.value]));
  window.noting.observe(told, { childList: true, characterData: true, subtree: true });
}"""


def page_of(browser: Any, running: Programs) -> Any:
    """A tab whose addresses are those of the example."""
    context = browser.new_context(base_url=running.url, viewport={"width": 1280, "height": 860})
    context.set_default_timeout(PATIENCE)
    return context.new_page()


def test_results_and_schedules_in_the_admin(
    live_engine: RunningEngine, tmp_path: Path, browser: Any, screenshot: Callable[[Any, str], None]
) -> None:
    """A task that failed is found, looked at and sent again; a wrong schedule is refused in the form, a right one saved."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    more = {"DJANGO_DATABASE": str(tmp_path / "shop.sqlite3"), "DJANGO_SUPERUSER_PASSWORD": "ada"}
    with programs("django_shop", live_engine.database(), tmp_path, "web", "worker", **more) as running:
        running.python("manage.py", "createsuperuser", "--noinput", "--username", "ada", "--email", "ada@example.com")
        page = page_of(browser, running)
        page.goto("/admin/login/")
        page.fill("[name=username]", "ada")
        page.fill("[name=password]", "ada")
        page.click("[type=submit]")
        page.goto("/")
        page.fill("[name=product]", "castle")
        page.fill("[name=quantity]", "500")
        page.get_by_role("button", name="Order").click()
        page.get_by_role("link", name="in the admin").wait_for()
        while "refused" not in page.inner_text("ul"):
            page.reload()

        results_are_worked_with(page, axe, screenshot)
        schedules_are_edited(page, axe, screenshot)
        page.context.close()


def results_are_worked_with(page: Any, axe: Any, screenshot: Callable[[Any, str], None]) -> None:
    """The task that failed is found by a filter, shown, and sent again."""
    page.goto(f"{ADMIN}/task/")
    page.select_option("[name=state]", "FAILURE")
    page.get_by_role("button", name="Filter", exact=True).click()
    page.get_by_role("link", name="orders.tasks.ship").wait_for()
    assert page.locator("#result_list tbody tr").count() == 1
    screenshot(page, "django-results")
    usable(page, axe)
    page.get_by_role("link", name="orders.tasks.ship").click()
    page.get_by_text("OutOfStockError: there are no 500 of castle").first.wait_for()
    screenshot(page, "django-result")
    usable(page, axe)
    page.go_back()
    # Django's own script counts what is ticked.
    page.check("#action-toggle")
    page.get_by_text("1 of 1 selected").wait_for()
    page.select_option("[name=action]", "retry")
    page.get_by_role("button", name="Go").click()
    usable(page, axe)
    page.get_by_role("button", name="Send them again").click()
    page.get_by_text("Sent again: 1.").wait_for()


def schedules_are_edited(page: Any, axe: Any, screenshot: Callable[[Any, str], None]) -> None:
    """The form says what is wrong beside the field, and saves what is right."""
    page.goto(f"{ADMIN}/schedule/add/")
    page.fill("[name=name]", "every monday")
    page.fill("[name=task]", "orders.tasks.report")
    page.fill("[name=schedule]", '{"crontab": "0 99 * * 1"}')
    page.get_by_role("button", name="Save").click()
    page.locator(".field-schedule .errorlist").get_by_text("schedule.hour holds '99'").wait_for()
    usable(page, axe)
    page.fill("[name=schedule]", '{"crontab": "0 9 * * 1"}')
    page.get_by_role("button", name="Save").click()
    page.get_by_text("The entry every monday was saved.").wait_for()
    screenshot(page, "django-schedules")
    usable(page, axe)


def usable(page: Any, axe: Any) -> None:
    """axe-core finds nothing in what is ours of a page; Django's frame around it is Django's."""
    found = axe.run(page, context="#content-main")
    assert found.violations_count == 0, f"{page.url}: {found.generate_report()}"


def test_progress_on_the_page(
    live_engine: RunningEngine, tmp_path: Path, browser: Any, screenshot: Callable[[Any, str], None]
) -> None:
    """The page shows how far a report is, its end, and why another one failed; the console shows both."""
    more = {"SERVICE_DATABASE": str(tmp_path / "words.sqlite3")}
    with programs("fastapi_service", live_engine.database(), tmp_path, "web", "worker", **more) as running:
        page = page_of(browser, running)
        page.goto("/")

        def progress_is_seen() -> bool:
            page.evaluate(NOTE_PROGRESS)
            page.fill("[name=pages]", "12")
            page.get_by_role("button", name="Write").click()
            page.locator("#told").get_by_text(re.compile(r"of 12|Ready")).wait_for()
            screenshot(page, "fastapi-progress")
            page.locator("#told").get_by_text("Ready: 12 pages.").wait_for()
            return any("of 12" in text and value > 0 for text, value in page.evaluate("window.shown"))

        # On a slow machine the service may look only when all pages are written.
        until(progress_is_seen, "progress is shown", MAX_WAIT)
        page.fill("[name=pages]", "0")
        page.get_by_role("button", name="Write").click()
        page.locator("#told").get_by_text("Failed: a report of 0 pages has nothing to say.").wait_for()
        page.get_by_role("link", name="Console").click()
        page.get_by_role("link", name="Tasks", exact=True).click()
        page.get_by_text("This list is live.").wait_for()
        page.locator("tr", has_text="ValueError: a report of 0 pages").wait_for()
        page.context.close()
