"""`manage.py surrealdb_cleanup`."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from .....errors import SurrealDBBackendError
from ...apps import results


class Command(BaseCommand):
    """Delete expired results."""

    help = "Delete the task results that have expired, in bounded batches, as beat does once a day."
    requires_system_checks = ()

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only say what would be done.")
        parser.add_argument("--json", action="store_true", help="Print JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            report = results().cleanup(dry_run=options["dry_run"])
        except SurrealDBBackendError as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            records, names = dict(report.records), {name or "": number for name, number in report.names.items()}
            self.stdout.write(json.dumps({"dry_run": report.dry_run, "records": records, "names": names}, indent=2))
            return
        verb = "would delete" if report.dry_run else "deleted"
        self.stdout.write(f"{verb} {report.total:,} expired records")
        for name, number in report.names.most_common():
            self.stdout.write(f"  {number:,} {name or '?'}")
        if report.spared:
            self.stderr.write(f"{report.spared:,} records stayed, because what was to be done before failed")
