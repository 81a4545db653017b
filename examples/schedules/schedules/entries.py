"""Add entries to the database while beat runs, change one, ask for a run, and list what there is.

python -m schedules.entries
"""

from __future__ import annotations

from surrealdb_celery_backend.beat import ScheduleEntry, Schedules

from .app import app

ENTRIES = (
    ScheduleEntry("add every two seconds", "schedules.tasks.add", {"timedelta": 2}, args=[2, 3]),
    ScheduleEntry(
        "add on the last Friday of the month",
        "schedules.tasks.add",
        {"rrule": "FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=17;BYMINUTE=0;BYSECOND=0"},
        args=[10, 20],
        timezone="America/New_York",
    ),
)


def main() -> None:
    """Do all of it; a second run changes nothing more."""
    app.loader.import_default_modules()
    app.finalize()
    with Schedules(app) as schedules:
        present = {entry.name for entry in schedules.entries()}
        schedules.import_entries([entry for entry in ENTRIES if entry.name not in present])
        schedules.change("add every two seconds", args=[20, 22])
        # Out of turn; its next runs stay where they are.
        schedules.run("add on the last Friday of the month")
        for entry in schedules.entries():
            due = ", ".join(str(run) for run in schedules.next_runs(entry, 2))
            print(f"{entry.name}: {entry.total_run_count} runs, next at {due}")


if __name__ == "__main__":
    main()
