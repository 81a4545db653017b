"""When results are looked for, and what the LIVE query names. No server."""

from __future__ import annotations

import pytest

from surrealdb_celery_backend.results.live_cover import MAX_IDS, PROVEN, LiveCover
from surrealdb_celery_backend.results.live_trust import GRACE, MISSED, LiveTrust
from surrealdb_celery_backend.results.own_tasks import MAX_ADDRESSES, OwnTasks
from surrealdb_celery_backend.results.own_tasks import MAX_IDS as MAX_SENT
from surrealdb_celery_backend.results.polling import CONFIRM, SWEEP, TOGETHER, Coverage, Schedule
from surrealdb_celery_backend.results.push import LiveQuery, RecordFilter

pytestmark = pytest.mark.unit

ME = "process-1"


@pytest.mark.parametrize(
    ("coverage", "waited", "pause"),
    [
        (Coverage.NONE, 0.0, 0.01),
        (Coverage.NONE, 1.0, 0.1),
        (Coverage.NONE, 100.0, 0.5),
        (Coverage.ADDRESS, 0.0, 0.05),
        (Coverage.ADDRESS, 1.0, 1.0),
        (Coverage.ADDRESS, 100.0, 5.0),
        (Coverage.PROVEN_ADDRESS, 0.0, 0.2),
        (Coverage.ID, 0.0, 1.0),
        (Coverage.ID, 30.0, 3.0),
        (Coverage.ID, 100.0, 5.0),
    ],
)
def test_looks_grow_rarer(coverage: Coverage, waited: float, pause: float) -> None:
    """The pause between two looks grows with the time waited, up to a longest one."""
    assert coverage.value.after(waited) == pytest.approx(pause)


def test_everything_due_is_taken_at_once() -> None:
    """What is due within a few milliseconds goes into the same look; what is not planned again is not due again."""
    schedule = Schedule()
    for number in range(5):
        schedule.add(f"id-{number}", now=0.0, pause=0.01 + number * TOGETHER / 10)
    schedule.add("later", now=0.0, pause=1.0)
    assert schedule.next_due == 0.01
    assert sorted(schedule.take_due(0.01)) == [f"id-{number}" for number in range(5)]
    assert schedule.take_due(0.02) == []
    assert schedule.next_due == 1.0


def test_a_new_wait_for_an_old_task_looks_early_again() -> None:
    """Somebody who begins to wait for a task does not have to wait for the next look of those before."""
    schedule = Schedule()
    schedule.add("id", now=0.0, pause=0.01)
    schedule.take_due(0.01)
    schedule.plan("id", now=100.0, coverage=Coverage.NONE)
    assert schedule.next_due == 100.5
    schedule.add("id", now=100.1, pause=0.01)
    assert schedule.next_due == pytest.approx(100.11)
    assert schedule.age("id", 100.2) == pytest.approx(0.1)


def test_nothing_is_kept_of_what_was_dropped() -> None:
    """However many waits came and went, the heap holds about what is waited for; with none, nothing."""
    schedule = Schedule()
    schedule.add("stays", now=0.0, pause=1.0)
    for number in range(20_000):
        schedule.add(f"id-{number}", now=0.0, pause=0.01)
        schedule.drop(f"id-{number}")
    assert schedule.entries <= SWEEP + 4
    schedule.drop("stays")
    assert (len(schedule), schedule.entries, schedule.next_due) == (0, 0, None)


def test_a_look_that_was_already_planned_anew_stays() -> None:
    """Planning after a look does not postpone what somebody else asked for meanwhile."""
    schedule = Schedule()
    schedule.add("id", now=0.0, pause=0.01)
    assert schedule.take_due(0.01) == ["id"]
    schedule.add("id", now=0.02, pause=0.01)
    schedule.plan("id", now=0.025, coverage=Coverage.ID)
    assert schedule.next_due == pytest.approx(0.03)


def test_looks_that_fail_are_not_repeated_at_once() -> None:
    """While the database is away the pause is as long as it is told to be."""
    schedule = Schedule()
    schedule.add("id", now=0.0, pause=0.01)
    schedule.take_due(0.01)
    schedule.plan("id", now=0.01, coverage=Coverage.NONE, at_least=0.8)
    assert schedule.next_due == pytest.approx(0.81)


def test_live_is_relied_on_after_a_look_found_nothing_in_spite_of_it() -> None:
    """Only then does a result that a look finds count as missed; and a state found just before is looked at again."""
    schedule = Schedule()
    schedule.add("id", now=0.0, pause=0.01)
    assert not schedule.relied_on("id")
    schedule.take_due(0.01)
    schedule.plan("id", now=0.01, coverage=Coverage.ID, soon=True)
    assert schedule.next_due == pytest.approx(0.01 + CONFIRM)
    assert schedule.relied_on("id")
    schedule.take_due(0.2)
    schedule.plan("id", now=0.2, coverage=Coverage.ID, soon=True)
    assert schedule.next_due == pytest.approx(1.2)
    schedule.look_at_once(2.0)
    assert not schedule.relied_on("id")
    assert schedule.take_due(2.0) == ["id"]


# -- the LIVE query ------------------------------------------------------------------------------------


def query(**fields: frozenset[str]) -> LiveQuery:
    """A query that asks for values of single fields."""
    return LiveQuery("task", tuple(RecordFilter.of(**{name: values}) for name, values in fields.items()))


def sent_by_us(*task_ids: str, address: str = "thread-1") -> OwnTasks:
    """The tasks that this process sent."""
    sent = OwnTasks()
    for task_id in task_ids:
        sent.add(task_id, address)
    return sent


def test_the_query_names_what_is_waited_for_and_the_addresses() -> None:
    """Results for the process's own address, for Celery's, and of every task that is waited for are asked for."""
    wanted = LiveCover("task").wanted(["a"], ["a", "b"], None, sent_by_us("a"), address=ME)
    assert wanted is not None
    assert wanted.named("task_id") == {"a", "b"}
    assert wanted.named("reply_to") == {ME, "thread-1"}


def test_a_process_that_sent_nothing_asks_by_id_only() -> None:
    """A web process that only knows ids."""
    wanted = LiveCover("task").wanted(["a"], ["a"], None, OwnTasks(), address=ME)
    assert wanted == query(task_id=frozenset({"a"}))


def test_a_query_that_names_all_that_is_due_stays() -> None:
    """It is replaced for what it does not name, not for other threads' addresses, and drops what nobody waits for."""
    cover, sent = LiveCover("task"), sent_by_us("b")
    standing = query(reply_to=frozenset({ME}), task_id=frozenset({"a", "gone"}))
    assert cover.wanted(["a"], ["a", "b"], standing, sent, address=ME) is None
    wanted = cover.wanted(["b"], ["a", "b"], standing, sent, address=ME)
    assert wanted is not None
    assert wanted.named("task_id") == {"a", "b"}


def test_the_number_of_ids_is_bounded() -> None:
    """Tasks that others sent come first, because nothing but their id can bring them; then there is no more room."""
    cover = LiveCover("task")
    own = [f"own-{number}" for number in range(MAX_IDS)]
    others = [f"other-{number}" for number in range(MAX_IDS // 2)]
    sent = sent_by_us(*own)
    wanted = cover.wanted(own, [*own, *others], None, sent, address=ME)
    assert wanted is not None
    ids = wanted.named("task_id")
    assert len(ids) == MAX_IDS
    assert ids.issuperset(others)
    left = [each for each in own if each not in ids]
    assert cover.wanted(left, [*own, *others], wanted, sent, address=ME) is None
    # As soon as a quarter of the places is free, they are given to others.
    waiting = [*left, *sorted(ids)[: MAX_IDS // 2]]
    again = cover.wanted(left, waiting, wanted, sent, address=ME)
    assert again is not None
    assert again.named("task_id") == set(waiting)


def test_the_last_ones_that_fit_are_named() -> None:
    """Where all that wait fit into the query, all are named, also when few places were left."""
    cover = LiveCover("task")
    waiting = [f"task-{number}" for number in range(MAX_IDS)]
    standing = cover.wanted(waiting[:-10], waiting[:-10], None, OwnTasks(), address=ME)
    assert standing is not None
    wanted = cover.wanted(waiting[-10:], waiting, standing, OwnTasks(), address=ME)
    assert wanted is not None
    assert wanted.named("task_id") == set(waiting)


def test_the_query_is_not_replaced_all_the_time() -> None:
    """At most a fifth of the time is spent on replacing it."""
    cover = LiveCover("task")
    assert cover.may_replace(0.0)
    cover.replaced(1.0, 1.1)
    assert not cover.may_replace(1.49)
    assert cover.may_replace(1.51)


def test_what_a_query_brings() -> None:
    """By id for certain; by address if the task was sent here; and not at all without a query or trust in it."""
    cover, sent = LiveCover("task"), sent_by_us("own")
    standing = query(reply_to=frozenset({ME}), task_id=frozenset({"named"}))

    def coverage(task_id: str, standing: LiveQuery | None = standing, now: float = 0.0) -> Coverage:
        return cover.coverage(task_id, standing, sent, now)

    assert coverage("named") is Coverage.ID
    assert coverage("own") is Coverage.ADDRESS
    assert coverage("other") is Coverage.NONE
    assert coverage("own", None) is Coverage.NONE
    assert coverage("own", query(task_id=frozenset({"named"}))) is Coverage.NONE
    for number in range(MISSED):
        cover.trust.found(f"missed-{number}", 0.0)
    assert coverage("named", now=2 * GRACE) is Coverage.NONE


def test_addresses_prove_themselves() -> None:
    """Once results came by their address, the next are looked for later; one that did not come undoes it."""
    cover, sent = LiveCover("task"), sent_by_us("own")
    standing = query(reply_to=frozenset({ME}))
    for _ in range(PROVEN):
        cover.came("other", "elsewhere", standing, waited_for=True)
        assert cover.coverage("own", standing, sent, 0.0) is Coverage.ADDRESS
    for _ in range(PROVEN):
        cover.came("own", ME, standing, waited_for=True)
    assert cover.coverage("own", standing, sent, 0.0) is Coverage.PROVEN_ADDRESS
    cover.did_not_come()
    assert cover.coverage("own", standing, sent, 0.0) is Coverage.ADDRESS


def test_live_that_misses_results_is_distrusted() -> None:
    """Three results that did not come, more than one in ten: a cluster. Enough that do come restore the trust."""
    trust = LiveTrust()
    for number in range(MISSED):
        assert trust.is_kept(10.0)
        trust.found(f"id-{number}", 0.0)
    assert not trust.is_kept(10.0)
    for number in range(10 * MISSED):
        trust.came(f"other-{number}", useful=True)
    assert trust.is_kept(10.0)


def test_a_notification_that_is_only_late_is_not_missed() -> None:
    """A look may find a record before its notification comes."""
    trust = LiveTrust()
    for number in range(100):
        trust.found(f"id-{number}", now=0.0)
    assert trust.is_kept(GRACE / 2)
    for number in range(100):
        trust.came(f"id-{number}", useful=False)
    assert trust.is_kept(10 * GRACE)
    assert (trust.missed, trust.pushed, len(trust)) == (0, 100, 0)
    trust.came("nobody waits for it", useful=False)
    assert trust.pushed == 100


# -- the tasks that were sent --------------------------------------------------------------------------


def test_own_tasks_are_remembered_up_to_a_number() -> None:
    """The oldest go first; addresses likewise."""
    sent = OwnTasks()
    for number in range(MAX_SENT + 10):
        sent.add(f"id-{number}", f"thread-{number % (MAX_ADDRESSES + 5)}")
    assert len(sent) == MAX_SENT
    assert "id-9" not in sent
    assert "id-10" in sent
    assert len(sent.addresses) == MAX_ADDRESSES


def test_forgetting_a_task_that_was_never_sent_is_nothing() -> None:
    """Result objects of any task are collected."""
    sent = sent_by_us("id")
    sent.forget("other")
    sent.forget("id")
    sent.forget("id")
    assert len(sent) == 0
