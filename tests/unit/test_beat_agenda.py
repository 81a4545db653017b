"""The agenda without a server: what is due when, whatever is fed to it."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery.schedules import schedule
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from surrealdb_celery_backend.beat import ScheduleEntry
from surrealdb_celery_backend.beat.agenda import Agenda
from surrealdb_celery_backend.beat.in_code import Code
from surrealdb_celery_backend.beat.plan import Firing, Plan
from surrealdb_celery_backend.client.values import RecordID
from surrealdb_celery_backend.errors import InvalidSchedule

pytestmark = pytest.mark.unit

UTC = timezone.utc
START = datetime(2026, 5, 4, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    """A time so many seconds after the start."""
    return START + timedelta(seconds=seconds)


class Table:
    """A table of entries as the database keeps it: each change of a definition has a revision of its own."""

    def __init__(self, agenda: Agenda) -> None:
        self.agenda = agenda
        self.records: dict[str, dict[str, Any]] = {}
        self.revisions = 0

    def write(self, name: str, now: datetime, /, **fields: Any) -> dict[str, Any]:
        """Add or change an entry, and return its record."""
        self.revisions += 1
        record = self.records.setdefault(name, {"id": RecordID("schedule", name), "task": "t"})
        record |= {**fields, "revision": str(self.revisions), "changed_at": now}
        return record

    def feed(self, name: str, now: datetime, /, **fields: Any) -> None:
        """Add or change an entry, and have the agenda take it in."""
        self.agenda.feed(self.write(name, now, **fields), now)
        self.keep_plans()

    def remove(self, name: str) -> None:
        self.records.pop(name, None)
        self.agenda.forget(str(RecordID("schedule", name)))

    def keep_plans(self) -> list[Plan]:
        """Write the plans of the agenda to the records, as the store does."""
        plans = self.agenda.take_plans()
        for plan in plans:
            record = self.records.get(str(plan.record.id))
            if record is not None and record["revision"] == plan.revision:
                record |= {"next_run_at": plan.due, "plan": plan.digest, "broken": plan.broken}
                self.finish(record, plan.is_finished)
        return plans

    def finish(self, record: dict[str, Any], is_finished: bool) -> None:
        """Write down whether an entry has ended: that changes its revision, as nothing else does that beat writes."""
        if bool(record.get("finished")) != is_finished:
            self.revisions += 1
            record |= {"finished": is_finished or None, "revision": str(self.revisions)}


@pytest.fixture
def agenda() -> Agenda:
    """An agenda that makes up for a minute."""
    return Agenda(UTC, catch_up=timedelta(seconds=60))


@pytest.fixture
def table(agenda: Agenda) -> Table:
    """Its table."""
    return Table(agenda)


def drain(agenda: Agenda, now: datetime) -> list[Firing]:
    """Take and send all that is due."""
    fired: list[Firing] = []
    while firings := agenda.take_due(now, 10):
        for firing in firings:
            if firing.is_current:
                fired.append(firing)
                agenda.sent(firing, now)
    return fired


def fired(agenda: Agenda, now: datetime) -> list[tuple[str, datetime]]:
    """The names and due times of all that is due, sent."""
    return [(firing.planned.entry.name, firing.due) for firing in drain(agenda, now)]


def test_every_due_time_comes_once(agenda: Agenda, table: Table) -> None:
    """An interval keeps its grid, however late somebody looks."""
    table.feed("a", START, schedule={"timedelta": 10})
    assert agenda.next_at() == after(10)
    assert fired(agenda, after(9.9)) == []
    assert fired(agenda, after(10)) == [("a", after(10))]
    assert fired(agenda, after(37)) == [("a", after(20)), ("a", after(30))]
    assert agenda.next_at() == after(40)


def test_a_long_outage_is_not_followed_by_a_flood(agenda: Agenda, table: Table) -> None:
    """The oldest missed due time is made up for, and those within the catch-up time."""
    table.feed("a", START, schedule={"timedelta": 10})
    assert [due for _, due in fired(agenda, after(3600))] == [after(10), *(after(3540 + n) for n in range(10, 70, 10))]


def test_a_paused_entry_misses_nothing(agenda: Agenda, table: Table) -> None:
    """A paused entry does not fire, not even at a due time that was planned; resumed it goes on from then."""
    table.feed("a", START, schedule={"timedelta": 10})
    table.feed("a", after(5), active=False)
    assert fired(agenda, after(100)) == []
    assert agenda.next_at() is None
    table.feed("a", after(102), active=True)
    assert fired(agenda, after(125)) == [("a", after(112)), ("a", after(122))]


def test_a_change_replaces_the_plan(agenda: Agenda, table: Table) -> None:
    """Of a changed entry only the new schedule is due, of a removed one nothing."""
    table.feed("a", START, schedule={"timedelta": 10})
    table.feed("a", after(1), schedule={"minute": "30"}, timezone="Asia/Kolkata")
    assert agenda.entries["a"].timezone == "Asia/Kolkata"
    assert agenda.next_at() == datetime(2026, 5, 4, 13, tzinfo=UTC)
    assert fired(agenda, after(60)) == []
    table.remove("a")
    assert agenda.next_at() is None
    assert fired(agenda, after(7200)) == []
    assert agenda.entries == {}


def test_a_plan_that_is_kept_goes_on(table: Table) -> None:
    """A beat that reads the table goes on where the last one ended: the plan in the record holds."""
    table.feed("a", START, schedule={"timedelta": 3600})
    planned = dict(table.records["a"])
    heir = Agenda(UTC, catch_up=timedelta(seconds=60))
    heir.feed(planned, after(1800))
    assert heir.next_at() == after(3600)
    assert heir.take_plans() == []


def test_a_wish_is_served_once_and_leaves_the_schedule(agenda: Agenda, table: Table) -> None:
    """A run that is asked for comes once, also of a paused entry, before what is due, and moves no due time."""
    table.feed("yearly", START, schedule={"crontab": "0 0 1 1 *"}, run_requested_at=after(-1))
    table.feed("paused", START, schedule={"timedelta": 10}, active=False, run_requested_at=after(-2))
    planned = agenda.next_at()
    assert agenda.is_anything_due(START)
    assert sorted(fired(agenda, START)) == [("paused", after(-2)), ("yearly", after(-1))]
    assert fired(agenda, after(60)) == []
    assert agenda.next_at() == planned


def test_what_is_put_back_is_due_again(agenda: Agenda, table: Table) -> None:
    """A firing that was not sent is taken again, unless its entry changed meanwhile."""
    table.feed("a", START, schedule={"timedelta": 10})
    table.feed("b", START, schedule={"timedelta": 10})
    taken = agenda.take_due(after(10), 10)
    assert len(taken) == 2
    table.feed("b", after(10), active=False)
    for firing in taken:
        agenda.put_back(firing)
    assert fired(agenda, after(10)) == [("a", after(10))]


def test_an_entry_ends(agenda: Agenda, table: Table) -> None:
    """one_off and max_runs end an entry with its last run, expires_at before it, a clocked one at its time."""
    table.feed("once", START, schedule={"timedelta": 10}, one_off=True)
    table.feed("thrice", START, schedule={"timedelta": 10}, max_runs=3)
    table.feed("until", START, schedule={"timedelta": 10}, expires_at=after(30))
    table.feed("at", START, schedule={"clocked": after(25).isoformat()})
    last = {}
    for second in range(0, 100, 5):
        for firing in agenda.take_due(after(second), 10):
            last[firing.planned.entry.name] = (firing.due, agenda.sent(firing, after(second)).is_finished)
    assert last == {
        "once": (after(10), True),
        "thrice": (after(30), True),
        "until": (after(20), True),
        "at": (after(25), True),
    }


@pytest.mark.parametrize("schedule", [{"timedelta": 600}, {"minute": "10"}, {"clocked": after(600).isoformat()}])
def test_what_expired_while_beat_was_away_does_not_run(agenda: Agenda, table: Table, schedule: Any) -> None:
    """A run that was due before the entry expired is left out when beat comes to it later; the entry has ended."""
    table.feed("a", START, schedule=schedule, expires_at=after(900))
    assert agenda.next_at() == after(600)
    assert fired(agenda, after(900)) == []
    assert agenda.next_at() is None
    [plan] = table.keep_plans()
    assert (plan.due, plan.is_finished) == (None, True)


def test_a_run_within_its_time_is_not_lost_by_jitter(agenda: Agenda, table: Table) -> None:
    """A jitter never moves a run past the time at which its entry expires."""
    for n in range(50):
        table.feed(f"a{n}", START, schedule={"timedelta": 600}, jitter=500, expires_at=after(700))
    assert len(fired(agenda, after(699))) == 50


def test_an_entry_that_ended_stays_so_until_it_is_changed(agenda: Agenda, table: Table) -> None:
    """An ended entry is not planned again by a change of something else, nor by a beat that reads it anew."""
    table.feed("at", START, schedule={"clocked": after(10).isoformat()})
    table.feed("once", START, schedule={"timedelta": 10}, one_off=True)
    for firing in agenda.take_due(after(10), 10):
        sent = agenda.sent(firing, after(10))
        record = table.records[firing.planned.entry.name]
        record |= {"next_run_at": sent.next_due, "plan": firing.planned.digest, "last_run_at": after(10)}
        table.finish(record, sent.is_finished)
    for name in table.records:
        table.feed(name, after(11), args=[1])
        assert table.records[name]["finished"]
    assert agenda.next_at() is None


@pytest.mark.parametrize(
    ("ended", "change", "due"),
    [
        ({"schedule": {"clocked": after(10).isoformat()}}, {"schedule": {"clocked": after(100).isoformat()}}, 100),
        ({"schedule": {"timedelta": 10}, "one_off": True}, {"schedule": {"timedelta": 20}}, 30),
        ({"schedule": {"timedelta": 10}, "one_off": True}, {"one_off": False}, 30),
        ({"schedule": {"timedelta": 10}, "one_off": True}, {"finished": None}, 30),
        ({"schedule": {"timedelta": 10}, "max_runs": 1}, {"max_runs": 2}, 30),
        ({"schedule": {"timedelta": 10}, "max_runs": 1}, {"total_run_count": 0}, 30),
        ({"schedule": {"timedelta": 10}, "expires_at": after(15)}, {"expires_at": None}, 30),
        ({"schedule": {"timedelta": 10}, "expires_at": after(15)}, {"expires_at": after(45)}, 30),
    ],
)
def test_a_changed_entry_runs_again(
    agenda: Agenda, table: Table, ended: dict[str, Any], change: dict[str, Any], due: int
) -> None:
    """An entry that had ended runs again after a change that gives it another run, and is not finished any more."""
    table.feed("a", START, **ended)
    [firing] = agenda.take_due(after(10), 10)
    sent = agenda.sent(firing, after(10))
    assert sent.is_finished
    record = table.records["a"]
    record |= {"next_run_at": None, "plan": firing.planned.digest, "last_run_at": after(10), "total_run_count": 1}
    table.finish(record, is_finished=True)
    table.feed("a", after(25), **change)
    assert agenda.next_at() == after(due)
    assert not table.records["a"]["finished"]


def test_a_wish_can_be_the_last_run(agenda: Agenda, table: Table) -> None:
    """A run that was asked for counts towards max_runs: what is due in the same moment is not sent then."""
    table.feed("a", START, schedule={"timedelta": 10}, max_runs=2, total_run_count=1, run_requested_at=after(9))
    asked, due = agenda.take_due(after(10), 10)
    assert agenda.may_be_last(asked)
    assert agenda.sent(asked, after(10)).is_finished
    assert not due.is_current
    assert agenda.next_at() is None


def test_a_count_that_was_set_back_counts(agenda: Agenda, table: Table) -> None:
    """The database's count of runs rules where it is asked."""
    table.feed("a", START, schedule={"timedelta": 10}, max_runs=5, total_run_count=4)
    [firing] = agenda.take_due(after(10), 10)
    assert not agenda.sent(firing, after(10), runs=1).is_finished
    assert agenda.next_at() == after(20)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"schedule": {"hour": "25"}}, "schedule.hour holds '25'"),
        ({"schedule": {"timedelta": 5}, "quue": 1}, "unknown field 'quue'"),
        ({"schedule": {"timedelta": 5}, "task": "unknown"}, "no such task"),
        ({"schedule": {"timedelta": 5}, "name": "good"}, "name holds 'good', which is another entry's too"),
    ],
)
def test_a_broken_entry_is_named_once(fields: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture) -> None:
    """A broken entry is logged once, planned as broken, and stops nothing; mended it runs."""

    def check(entry: ScheduleEntry) -> None:
        if entry.task == "unknown":
            raise InvalidSchedule("no such task")

    agenda = Agenda(UTC, catch_up=timedelta(seconds=60), check=check)
    table = Table(agenda)
    caplog.set_level(logging.ERROR)
    table.feed("good", START, schedule={"timedelta": 10})
    for _ in range(3):
        table.feed("bad", START, **fields)
    assert reason in table.records["bad"]["broken"]
    assert not agenda.is_news(table.records["bad"])
    assert len([each for each in caplog.records if "is broken" in each.getMessage()]) == 1
    assert fired(agenda, after(10)) == [("good", after(10))]
    del table.records["bad"]
    mended = table.write("bad", after(10), schedule={"timedelta": 10}, broken=reason)
    assert agenda.is_news(mended)
    agenda.feed(mended, after(10))
    table.keep_plans()
    assert table.records["bad"]["broken"] is None
    assert ("bad", after(20)) in fired(agenda, after(20))


def test_only_changes_are_news(agenda: Agenda, table: Table) -> None:
    """What beat itself writes about runs is no news; an entry that is new or has another definition is."""
    record = table.write("a", START, schedule={"timedelta": 10})
    assert agenda.is_news(record)
    agenda.feed(record, START)
    assert not agenda.is_news({**record, "total_run_count": 7, "last_run_at": after(10)})
    assert agenda.is_news(table.write("a", after(1), schedule={"timedelta": 20}))


def test_what_could_not_be_sent_is_tried_when_it_is_due_again(agenda: Agenda, table: Table) -> None:
    """A firing that its entry's own mistake stops marks the entry; the next due time is tried, and mends it."""
    table.feed("a", START, schedule={"timedelta": 10})
    [firing] = agenda.take_due(after(10), 10)
    agenda.not_sent(firing, "no such queue", after(10))
    [plan] = table.keep_plans()
    assert (plan.broken, plan.due) == ("no such queue", after(20))
    assert agenda.take_due(after(19), 10) == []
    assert fired(agenda, after(20)) == [("a", after(20))]
    [plan] = table.keep_plans()
    assert (plan.broken, plan.due) == (None, after(30))


def test_the_starting_deadline_passes_over_what_is_late(table: Table) -> None:
    """With a starting deadline a crontab's older due time is passed over, an interval's is not."""
    agenda = Agenda(UTC, catch_up=timedelta(seconds=60), starting_deadline=timedelta(seconds=60))
    table = Table(agenda)
    table.feed("hourly", after(60), schedule={"minute": "0"})
    table.feed("interval", after(60), schedule={"timedelta": 3000})
    assert fired(agenda, after(5400)) == [("interval", after(3060))]
    assert fired(agenda, after(7230)) == [("interval", after(6060)), ("hourly", after(7200))]


def test_a_schedule_class_is_asked_again() -> None:
    """A schedule class that is not due is asked again, and one that raises breaks its entry and nothing else."""

    class Odd(schedule):
        answer: Any = (False, 5)

        def is_due(self, last_run_at: datetime) -> Any:
            if isinstance(Odd.answer, Exception):
                raise Odd.answer
            return Odd.answer

    agenda = Agenda(UTC, catch_up=timedelta(seconds=60))
    agenda.code = Code({"odd": ScheduleEntry("odd", "t", Odd(60), source="code")})
    table = Table(agenda)
    table.feed("odd", START, schedule={"code": "odd"}, source="code")
    table.feed("good", START, schedule={"timedelta": 10})
    assert fired(agenda, after(10)) == [("good", after(10))]
    assert agenda.next_at() == after(15)
    Odd.answer = (True, 60)
    assert [name for name, _ in fired(agenda, after(15))] == ["odd"]
    Odd.answer = RuntimeError("no idea")
    assert [name for name, _ in fired(agenda, after(100))].count("odd") == 0
    table.keep_plans()
    assert table.records["odd"]["broken"] == "schedule cannot say its next run: RuntimeError('no idea')"
    assert fired(agenda, after(110)) == [("good", after(110))]


def test_an_entry_that_changes_for_ever_takes_no_more_room(agenda: Agenda, table: Table) -> None:
    """However often a far-off entry is changed, what the agenda keeps stays bounded."""
    for n in range(5000):
        table.feed("a", after(n), schedule={"timedelta": 1_000_000 + n})
    assert agenda.size < 200
    assert agenda.next_at() == after(4999 + 1_004_999)


def test_the_rule_of_an_entry_is_built_once() -> None:
    """However often beat asks for it, an entry builds its rule once; a changed entry has one of its own."""
    entry = ScheduleEntry("a", "t", {"minute": "5"})
    assert entry.recurrence(UTC) is entry.recurrence(UTC)
    assert entry.changed(schedule={"minute": "6"}).recurrence(UTC) is not entry.recurrence(UTC)


class AgendaModel(RuleBasedStateMachine):
    """Any order of changes, looks, sends, failures and waits keeps the promises of the agenda."""

    names = st.sampled_from(["a", "b", "c"])
    schedules = st.one_of(
        st.builds(lambda n: {"timedelta": n}, st.integers(1, 90)),
        st.builds(lambda n: {"minute": f"*/{n}"}, st.integers(1, 5)),
        st.builds(lambda n: {"clocked": after(n).isoformat()}, st.integers(0, 2000)),
    )
    limits = st.fixed_dictionaries(
        {},
        optional={
            "max_runs": st.integers(1, 5),
            "one_off": st.booleans(),
            "active": st.booleans(),
            "jitter": st.integers(1, 30),
            "expires_at": st.integers(0, 2000).map(after),
        },
    )

    def __init__(self) -> None:
        super().__init__()
        self.agenda = Agenda(UTC, catch_up=timedelta(seconds=60))
        self.table = Table(self.agenda)
        self.now = START
        self.sent: Counter[tuple[str, str, datetime, bool]] = Counter()
        self.pending: list[Firing] = []

    @rule(name=names, schedule=schedules, limits=limits)
    def change(self, name: str, schedule: Any, limits: Any) -> None:
        """Somebody adds or changes an entry."""
        base = dict.fromkeys(("max_runs", "one_off", "active", "jitter", "expires_at"))
        self.table.feed(name, self.now, schedule=schedule, **{**base, **limits})

    @rule(name=names)
    def remove(self, name: str) -> None:
        """Somebody removes an entry."""
        self.table.remove(name)

    @precondition(lambda self: self.table.records)
    @rule(data=st.data())
    def ask(self, data: Any) -> None:
        """Somebody asks for a run."""
        name = data.draw(st.sampled_from(sorted(self.table.records)))
        self.table.feed(name, self.now, run_requested_at=self.now)

    @rule()
    def look(self) -> None:
        """Beat looks for changes, its own writes among them."""
        for record in self.table.records.values():
            if self.agenda.is_news(record):
                self.agenda.feed(record, self.now)
        self.table.keep_plans()
        for name, entry in self.agenda.entries.items():
            record = self.table.records[name]
            is_explained = record.get("finished") or record.get("broken") or not entry.active
            assert is_explained or record.get("next_run_at"), "no run is left, and nothing says why"

    @rule(seconds=st.integers(0, 200))
    def wait(self, seconds: int) -> None:
        """Time goes by."""
        self.now += timedelta(seconds=seconds)

    @rule(most=st.integers(1, 3))
    def take(self, most: int) -> None:
        """Beat takes what is due."""
        self.give_back()
        self.pending = self.agenda.take_due(self.now, most)
        self.table.keep_plans()
        assert len(self.pending) <= most
        for firing in self.pending:
            name = firing.planned.entry.name
            assert firing.planned.entry == self.agenda.entries[name]
            if not firing.is_asked:
                assert firing.planned.entry.fires_at(firing.due) <= self.now
                assert firing.planned.entry.active
                assert not self.has_expired(firing.planned.entry)

    @precondition(lambda self: self.pending)
    @rule(is_well=st.booleans())
    def send(self, is_well: bool) -> None:
        """Beat sends one of them, or cannot."""
        firing = self.pending.pop(0)
        record = self.table.records.get(firing.planned.entry.name)
        if record is None or record["revision"] != firing.planned.revision:
            # The claim is refused, and the entry is read again.
            self.agenda.forget(firing.planned.key)
            if record is not None:
                self.agenda.feed(record, self.now)
                self.table.keep_plans()
            return
        if not firing.is_current:
            return
        if not is_well:
            self.agenda.not_sent(firing, "it cannot be sent", self.now)
            self.table.keep_plans()
            return
        revision = str(firing.planned.revision)
        sent = self.agenda.sent(firing, self.now)
        self.sent[firing.planned.entry.name, revision, firing.due, firing.is_asked] += 1
        record["total_run_count"] = record.get("total_run_count", 0) + 1
        if firing.is_asked:
            self.table.revisions += 1
            record |= {"run_requested_at": None, "revision": str(self.table.revisions)}
            if sent.is_finished:
                record |= {"next_run_at": None, "plan": firing.planned.digest}
                self.table.finish(record, is_finished=True)
        else:
            assert sent.next_due is None or sent.next_due > firing.due
            record |= {"last_run_at": self.now, "next_run_at": sent.next_due, "plan": firing.planned.digest}
            self.table.finish(record, sent.is_finished)
        self.table.keep_plans()

    def has_expired(self, entry: ScheduleEntry) -> bool:
        return entry.expires_at is not None and self.now >= entry.expires_at

    def give_back(self) -> None:
        for firing in self.pending:
            self.agenda.put_back(firing)
        self.pending = []

    @invariant()
    def nothing_is_sent_twice(self) -> None:
        """No due time of a definition is sent twice."""
        assert not [key for key, count in self.sent.items() if count > 1]

    @invariant()
    def nothing_gets_lost(self) -> None:
        """Every due time that was planned is on the agenda, unless it was taken."""
        taken = {firing.planned.key for firing in self.pending}
        due = [
            entry.fires_at(record["next_run_at"])
            for name, entry in self.agenda.entries.items()
            for record in [self.table.records[name]]
            if record.get("next_run_at")
            and str(record["id"]) not in taken
            and not entry.is_finished
            # Beat's own write may have changed the revision: it is read again.
            and not self.agenda.is_news(record)
        ]
        following = self.agenda.next_at()
        if due:
            assert following is not None
            assert following <= min(due)

    @invariant()
    def it_stays_small(self) -> None:
        """What is kept follows from the number of entries."""
        assert self.agenda.size <= 2 * len(self.agenda) + 101


TestAgendaModel: Any = AgendaModel.TestCase
TestAgendaModel.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestAgendaModel.pytestmark = [pytest.mark.unit]
