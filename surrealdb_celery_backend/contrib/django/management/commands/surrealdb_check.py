"""`manage.py surrealdb_check`."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from .....errors import SurrealDBBackendError
from ...apps import results


class Command(BaseCommand):
    """Say whether the result backend is as it should be."""

    help = (
        "Check the connection, latency, clocks, schema, rights, LIVE notifications, settings and beat's lease of the "
        "SurrealDB result backend. Each line that fails says what to do; one marked `warn` says what would be "
        "better."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--json", action="store_true", help="Print JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            findings = results().check()
        except SurrealDBBackendError as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps([each.as_dict() for each in findings], indent=2))
        else:
            for each in findings:
                self.stdout.write(f"{each.mark:4}  {each.subject}: {each.text}")
                if each.advice:
                    self.stdout.write(f"{'':4}  -> {each.advice}")
        failed = sum(each.good is False for each in findings)
        if failed:
            raise CommandError(f"{failed} of {len(findings)} checks failed")
