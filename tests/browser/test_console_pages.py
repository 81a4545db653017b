"""The console in a real browser beside a real worker: a task appears, goes on, fails, is sent again; beat obeys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain, group

from tests.support.states import until

from .conftest import MAX_WAIT, Shop

pytestmark = [
    pytest.mark.integration,
    pytest.mark.program,
    pytest.mark.worker,
    pytest.mark.browser,
    pytest.mark.timeout(400),
]

PATIENCE = MAX_WAIT * 1000


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A tab that fails the test when a script of the page fails or the browser refuses to load something."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, timezone_id="Asia/Tokyo")
    context.set_default_timeout(PATIENCE)
    tab = context.new_page()
    wrong: list[str] = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    yield tab
    context.close()
    # A page that is left closes its live updates; a task of which nothing is stored yet has a page with status 404.
    assert [text for text in wrong if "net::ERR" not in text and "404 (Not Found)" not in text] == []


def test_a_task_is_seen_from_its_start_to_its_retry(
    shop: Shop, page: Any, tmp_path: Path, screenshot: Callable[..., None]
) -> None:
    """A task appears in the open list by itself, shows its progress, and ends; a failed one is retried by a button."""
    page.goto(f"{shop.url}/tasks")
    page.get_by_text("This list is live.").wait_for()
    packing = shop.app.send_task("shop.pack", (str(tmp_path),))
    row = page.locator(f"tr[data-id='{packing.id}']")
    row.get_by_text("PROGRESS").wait_for()
    row.get_by_text("3 of 4 packing").wait_for()
    screenshot(page, "console-tasks-live")
    page.goto(f"{shop.url}/task?id={packing.id}")
    page.locator(".id .state").get_by_text("PROGRESS").wait_for()
    (tmp_path / "go").touch()
    # The page follows its task: nobody loads it again.
    page.locator(".id .state").get_by_text("SUCCESS").wait_for()
    page.get_by_text("packed").first.wait_for()

    failing = shop.app.send_task("shop.pay", (str(tmp_path),))
    with pytest.raises(ValueError, match="refused"):
        failing.get(timeout=MAX_WAIT)
    page.goto(f"{shop.url}/tasks?state=FAILURE")
    page.get_by_role("link", name="shop.pay").click()
    page.get_by_text("ValueError: the card was refused").first.wait_for()
    screenshot(page, "console-task-failed")
    page.get_by_role("button", name="Retry").click()
    page.get_by_text("The task was sent again.").wait_for()
    again = page.url.partition("id=")[2].partition("&")[0]
    assert again != failing.id
    # At first nothing may be stored of the new task: its page shows it by itself when it is.
    page.get_by_role("link", name=failing.id).wait_for()
    page.locator(".id .state").get_by_text("SUCCESS").wait_for()
    assert shop.app.AsyncResult(again).get(timeout=MAX_WAIT) == "paid"


def test_beat_obeys_the_page(shop: Shop, page: Any, screenshot: Callable[..., None]) -> None:
    """An entry that is paused on the page runs no more, and runs again when it is resumed there."""
    shop.start("beat", "beat", "-S", "surrealdb", "--max-interval", "1", "--loglevel", "INFO")

    def runs() -> int:
        return shop.log_of("beat").count("Sending due task tick") + shop.log_of("worker").count("shop.tick")

    until(lambda: runs() > 2, "the entry runs", MAX_WAIT)
    page.goto(f"{shop.url}/schedules")
    screenshot(page, "console-schedules")
    page.get_by_role("button", name="Pause: tick").click()
    page.get_by_text("The entry is paused.").wait_for()

    def still_runs() -> bool:
        before = runs()
        page.wait_for_timeout(3000)
        return runs() > before

    # Beat learns of it by a LIVE query; one run may have been under way.
    until(lambda: not still_runs(), "the paused entry stands still", MAX_WAIT)
    paused = runs()
    page.get_by_role("button", name="Resume: tick").click()
    page.get_by_text("The entry runs again.").wait_for()
    until(lambda: runs() > paused, "the entry runs again", MAX_WAIT)
    page.get_by_role("link", name="tick", exact=True).click()
    page.get_by_text("Tasks that this entry sent").wait_for()


def test_a_workflow_is_drawn_and_walked(shop: Shop, page: Any, screenshot: Callable[..., None]) -> None:
    """The graph shows every task with its state, and a click on one leads to it."""
    order = shop.app.signature("shop.order")
    flow = chain(order.clone((1,)), group(order.clone() for _ in range(3)))
    result = flow.apply_async()
    assert result.get(timeout=MAX_WAIT) == [3, 3, 3]
    page.goto(f"{shop.url}/task?id={result.parent.id}")
    boxes = page.locator("svg.graph g.box-success")
    boxes.nth(3).wait_for()
    assert boxes.count() == 4
    page.locator("svg.graph").scroll_into_view_if_needed()
    screenshot(page, "console-workflow")
    page.locator(f"svg.graph a[href$='{result.results[1].id}']").click()
    page.wait_for_url(f"**/task?id={result.results[1].id}")


def test_times_are_in_the_viewers_zone(shop: Shop, page: Any) -> None:
    """A time is shown in the browser's zone, and in UTC when the pointer is on it."""
    result = shop.app.send_task("shop.order", (1,))
    result.get(timeout=MAX_WAIT)
    page.goto(f"{shop.url}/task?id={result.id}")
    time = page.locator("ol.line time").last
    moment = time.get_attribute("datetime")
    shown = time.inner_text()
    expected = page.evaluate("text => new Date(text).toLocaleString(undefined, "
                             "{dateStyle: 'medium', timeStyle: 'medium'})", moment)  # fmt: skip
    assert shown == expected
    assert time.get_attribute("title") == f"{moment[:19].replace('T', ' ')} UTC"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(
    shop: Shop, browser: Any, scheme: str, tmp_path: Path, screenshot: Callable[..., None]
) -> None:
    """axe-core finds nothing on any page, in light and dark; the keyboard reaches the content; narrow screens fit."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    shop.app.send_task("shop.pay", (str(tmp_path),)).get(timeout=MAX_WAIT, propagate=False)
    done = shop.app.send_task("shop.order", (1,))
    done.get(timeout=MAX_WAIT)
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 860})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    paths = (
        "/",
        "/tasks",
        f"/task?id={done.id}",
        "/task?id=unknown",
        "/groups",
        "/group?id=unknown",
        "/schedules",
        "/schedules/new",
    )
    for path in paths:
        page.goto(f"{shop.url}{path}")
        found = axe.Axe().run(page)
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"
    page.goto(f"{shop.url}/")
    screenshot(page, f"console-overview-{scheme}")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.locator("#main:focus").wait_for()
    page.set_viewport_size({"width": 360, "height": 700})
    for path in paths:
        page.goto(f"{shop.url}{path}")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, f"{path} is {wide} wide"
    context.close()
