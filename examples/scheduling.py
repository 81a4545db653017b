"""Periodic tasks in SurrealDB: of the code, of class tasks, and added while beat runs.

In three terminals, beside the engine of README.md:

    celery -A scheduling worker --loglevel INFO
    celery -A scheduling beat -S surrealdb --loglevel INFO
    python scheduling.py
"""

from __future__ import annotations

from celery_app import app

from surrealdb_celery_backend.beat import AsyncTask, ScheduleEntry, Schedules, SyncTask

# As with every other beat: this entry is added when a beat starts. What is changed
# in the database afterwards stays.
app.conf.beat_schedule = {
    "add every second": {"task": "tasks.add", "schedule": 1, "args": (2, 3)},
}


class Report(SyncTask):
    """A task that is registered and scheduled by being defined."""

    name = "scheduling.report"
    schedule = {"minute": "0", "hour": "9"}  # noqa: RUF012 - as short as a reader would write it
    entry = {"timezone": "Europe/Berlin"}  # noqa: RUF012

    def run(self) -> str:
        """What is done every morning."""
        return "the report"


class Poll(AsyncTask):
    """The same with async: its event loop is kept, and its result too."""

    name = "scheduling.poll"

    async def execute(self, place: str) -> str:
        """What is done whenever somebody asks for it."""
        return f"polled {place}"


def main() -> None:
    """Add an entry, ask for a run, and list what there is."""
    with Schedules(app) as schedules:
        if "poll" not in [entry.name for entry in schedules.entries()]:
            schedules.add(ScheduleEntry("poll", "scheduling.poll", {"timedelta": 3600}, args=["the office"]))
        schedules.run("poll")
        for entry in schedules.entries():
            due = ", ".join(str(run) for run in schedules.next_runs(entry, 2))
            print(f"{entry.name}: ran {entry.total_run_count} times, next at {due}")


if __name__ == "__main__":
    app.finalize()
    main()
