"""Time zones of every library: taken by name, or refused; never wrong wall times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone, tzinfo
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import crontab
from celery.utils.time import LocalTimezone
from dateutil import tz as dateutil_tz

from surrealdb_celery_backend.beat import ScheduleEntry, zones
from surrealdb_celery_backend.beat import recurrence as rules
from surrealdb_celery_backend.beat.times import moment_of
from surrealdb_celery_backend.errors import InvalidSchedule, SettingsError
from tests.engines import matrix

if matrix.in_ci():
    import pytz
else:
    pytz = pytest.importorskip("pytz")

pytestmark = pytest.mark.unit

UTC = timezone.utc
BERLIN = ZoneInfo("Europe/Berlin")


class OwnBerlin(tzinfo):
    """A class of a project that says which zone it is."""

    key = "Europe/Berlin"


class Fixed(tzinfo):
    """A fixed offset as projects used to write them."""

    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=5, minutes=45)

    def dst(self, moment: datetime | None) -> timedelta:
        return timedelta(0)


class Nameless(tzinfo):
    """A zone with summer time and no name."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None if moment is None else timedelta(hours=2 if 4 <= moment.month <= 9 else 1)

    def dst(self, moment: datetime | None) -> timedelta:
        return timedelta(0)


SAME_AS = [
    (pytz.timezone("Europe/Berlin"), "Europe/Berlin"),
    (pytz.timezone("Europe/Berlin").localize(datetime(2026, 7, 1)).tzinfo, "Europe/Berlin"),
    (dateutil_tz.gettz("Europe/Berlin"), "Europe/Berlin"),
    (OwnBerlin(), "Europe/Berlin"),  # type: ignore[abstract]
    (BERLIN, "Europe/Berlin"),
    (pytz.timezone("America/New_York"), "America/New_York"),
    (dateutil_tz.gettz("America/New_York"), "America/New_York"),
    (pytz.utc, "UTC"),
    (dateutil_tz.UTC, "UTC"),
    (UTC, "UTC"),
    (pytz.FixedOffset(-210), "-03:30"),
    (dateutil_tz.tzoffset("X", 3600), "+01:00"),
    (timezone(timedelta(hours=5, minutes=30), "IST"), "+05:30"),
    (Fixed(), "+05:45"),  # type: ignore[abstract]
]


@pytest.mark.parametrize(("zone", "name"), SAME_AS, ids=[f"{type(zone).__name__} {name}" for zone, name in SAME_AS])
@pytest.mark.parametrize(
    "schedule",
    [
        {"minute": "0", "hour": "9"},
        {"minute": "30", "hour": "2"},
        {"minute": "*"},
        {"timedelta": 86400, "relative": True},
    ],
)
def test_a_zone_of_any_library_is_the_one_of_its_name(zone: Any, name: str, schedule: dict[str, Any]) -> None:
    """Whatever object stands for the zone, due times over a year are those of the zone of that name."""
    assert zones.zone_name(zone) == name
    rule, expected = rules.recurrence(schedule, zone), rules.recurrence(schedule, zones.time_zone(name))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for day in range(366):
        moment = start + timedelta(days=day, minutes=17 * day)
        assert rule.due_after(moment, moment) == expected.due_after(moment, moment)


@pytest.mark.parametrize("zone", [dateutil_tz.tzstr("EST5EDT,M3.2.0,M11.1.0"), Nameless()])  # type: ignore[abstract]
def test_a_zone_without_a_name_is_refused(zone: tzinfo) -> None:
    """Where there is neither a name nor a fixed offset, one sentence says what to give."""
    assert zones.zone_name(zone) is None
    with pytest.raises(InvalidSchedule, match="a time zone without a name: give an IANA name such as"):
        rules.recurrence({"minute": "0"}, zone)
    with pytest.raises(InvalidSchedule, match="timezone holds"):
        ScheduleEntry("e", "t", {"minute": "0"}, timezone=zone)  # type: ignore[arg-type]
    app = Celery("zones", set_as_current=False)
    app.conf.timezone = zone
    with pytest.raises(SettingsError, match=r"Celery's timezone holds .* without a name: give an IANA name"):
        zones.app_zone(app)


@pytest.mark.parametrize(("zone", "name"), SAME_AS[:6])
def test_an_entry_takes_a_zone_object_by_its_name(zone: Any, name: str) -> None:
    """`timezone` may be a zone object; the entry keeps its name."""
    assert ScheduleEntry("e", "t", {"minute": "0"}, timezone=zone).timezone == name


@pytest.mark.parametrize(("written", "offset"), [("+05:30", 330), ("-03:00", -180), ("UTC+01:00", 60), ("+0545", 345)])
def test_an_offset_is_a_zone(written: str, offset: int) -> None:
    """A fixed offset can be written in place of a name."""
    moment = datetime(2026, 7, 1, 9)
    assert moment.replace(tzinfo=zones.time_zone(written)).utcoffset() == timedelta(minutes=offset)
    entry = ScheduleEntry("e", "t", {"minute": "0", "hour": "9"}, timezone=written)
    [due] = entry.next_runs(1, datetime(2026, 7, 1, tzinfo=UTC), UTC)
    assert (due + timedelta(minutes=offset)).strftime("%H:%M") == "09:00"


@pytest.mark.parametrize("name", ["Mars/Olympus", "", None, "../etc/passwd", 5, "+99:00", "GMT+3"])
def test_an_unknown_zone_is_named(name: object) -> None:
    """A wrong time zone is refused by name."""
    with pytest.raises(InvalidSchedule, match="timezone holds"):
        zones.time_zone(name)


@pytest.mark.parametrize("zone", [pytz.timezone("Europe/Berlin"), dateutil_tz.gettz("Europe/Berlin"), OwnBerlin()])  # type: ignore[abstract]
def test_the_clock_of_a_schedule_names_its_zone(zone: Any) -> None:
    """A crontab whose `nowfun` tells the time of a zone is data, with that zone by name."""

    class Moment(datetime):
        """A datetime that takes any zone as it is."""

    given = crontab(minute=0, hour=9, nowfun=lambda: Moment(2026, 1, 1, tzinfo=zone))
    assert rules.schedule_data(given) == ({"minute": "0", "hour": "9"}, "Europe/Berlin")


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        # What pytz gives without localize() is local mean time: 9:00 is what is meant.
        (datetime(2026, 7, 1, 9, tzinfo=pytz.timezone("Europe/Berlin")), "2026-07-01T07:00"),
        (pytz.timezone("Europe/Berlin").localize(datetime(2026, 7, 1, 9)), "2026-07-01T07:00"),
        (pytz.timezone("Europe/Berlin").localize(datetime(2026, 10, 25, 2, 30), is_dst=False), "2026-10-25T01:30"),
        (pytz.timezone("Europe/Berlin").localize(datetime(2026, 10, 25, 2, 30), is_dst=True), "2026-10-25T00:30"),
        (datetime(2026, 7, 1, 9, tzinfo=dateutil_tz.gettz("Europe/Berlin")), "2026-07-01T07:00"),
        # A skipped time is as much later as the clocks were moved.
        (datetime(2026, 3, 29, 2, 30, tzinfo=dateutil_tz.gettz("Europe/Berlin")), "2026-03-29T01:30"),
        (datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=dateutil_tz.gettz("Europe/Berlin")), "2026-10-25T01:30"),
        (datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN), "2026-10-25T01:30"),
        (datetime(2026, 7, 1, 9, tzinfo=Nameless()), "2026-07-01T07:00"),  # type: ignore[abstract]
        (datetime(2026, 7, 1, 9), "2026-07-01T00:00"),
    ],
)
def test_a_moment_is_the_wall_time_that_it_shows(moment: datetime, expected: str) -> None:
    """A datetime with a zone object of any library is the instant of the wall time that it shows."""
    read = moment_of("start_time", moment, ZoneInfo("Asia/Tokyo"))
    assert read == datetime.fromisoformat(expected).replace(tzinfo=UTC)
    entry = ScheduleEntry("e", "t", {"clocked": moment}, timezone="Asia/Tokyo", start_time=moment)
    assert entry.start_time == read
    assert entry.schedule == {"clocked": read.isoformat()}


ASK = """
import json, sys
from datetime import datetime, timedelta, timezone
from celery import Celery
from celery.schedules import crontab
from surrealdb_celery_backend.beat import ScheduleEntry
from surrealdb_celery_backend.beat.zones import app_zone

class Mine(crontab):
    "A class of the project's own."

app = Celery("host")
app.conf.update(json.loads(sys.argv[1]))
zone = app_zone(app)
now = datetime.now(timezone.utc)
daily = ScheduleEntry("e", "t", {"minute": "0", "hour": "9"})
often = ScheduleEntry("e", "t", {"minute": "*"})
mine = ScheduleEntry("e", "t", Mine(minute=0, hour=9))
print(json.dumps({
    "zone": str(zone),
    "daily": [each.isoformat() for each in daily.next_runs(400, now, app.timezone)],
    "often": [(each - now).total_seconds() for each in often.next_runs(3, now, app.timezone)],
    "mine": mine.recurrence(app.timezone, now).not_before(now).isoformat(),
}))
"""


@pytest.mark.parametrize(
    ("host", "settings", "name"),
    [
        ("America/New_York", {"enable_utc": False}, "America/New_York"),
        (":America/New_York", {"enable_utc": False}, "America/New_York"),
        ("Australia/Lord_Howe", {"enable_utc": False}, "Australia/Lord_Howe"),
        ("America/New_York", {}, "UTC"),
        ("America/New_York", {"timezone": "Asia/Kolkata"}, "Asia/Kolkata"),
        ("America/New_York", {"timezone": "Asia/Kolkata", "enable_utc": False}, "Asia/Kolkata"),
        ("<+0530>-5:30", {"enable_utc": False}, "UTC+05:30"),
    ],
)
def test_the_zone_of_the_host(host: str, settings: dict[str, Any], name: str) -> None:
    """With `enable_utc` off and no `timezone` wall times are this host's, the same on every Celery."""
    found = json.loads(_ask(host, settings).stdout)
    assert found["zone"] == name
    zone = zones.time_zone(name)
    days = [datetime.fromisoformat(each).astimezone(zone) for each in found["daily"]]
    assert {each.strftime("%H:%M") for each in days} == {"09:00"}
    assert {(later.date() - earlier.date()).days for earlier, later in pairwise(days)} == {1}
    assert 0 < found["often"][0] <= 60
    assert found["often"][1] - found["often"][0] == pytest.approx(60)
    # A schedule class of the project's own counts by Celery's arithmetic, in the same zone.
    assert datetime.fromisoformat(found["mine"]) == days[0]


def test_a_host_whose_zone_has_no_name_is_refused() -> None:
    """Where TZ holds a rule with summer time, one sentence says which setting to set."""
    done = _ask("EST5EDT,M3.2.0,M11.1.0", {"enable_utc": False})
    assert done.returncode != 0
    assert (
        "SettingsError: Celery's timezone is not set, and this host's zone (TZ='EST5EDT,M3.2.0,M11.1.0')" in done.stderr
    )


def _ask(host: str, settings: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK, json.dumps(settings)],
        env={**os.environ, "TZ": host},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_local_zone_of_celery_is_this_hosts() -> None:
    """Celery's own class, which is wrong west of Greenwich on 5.4, stands for this host's zone; so does dateutil's."""
    assert type(zones.exact_zone(LocalTimezone())) in zones.EXACT_ZONES
    assert zones.exact_zone(dateutil_tz.tzlocal()) == zones.exact_zone(LocalTimezone())
