"""The form of a schedule entry."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.admin import widgets
from django.utils import timezone

from ...beat import StoredSchedule
from ...errors import SurrealDBBackendError

#: How schedules are written.
WRITTEN = (
    'An interval {"timedelta": "1h30m"}, a crontab {"crontab": "0 9 * * 1-5"} (minute, hour, day of month, month, day '
    'of week), a rule of RFC 5545 {"rrule": "FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=9"}, the sun {"solar": "sunset", '
    '"latitude": 52.5, "longitude": 13.4}, or one time {"clocked": "2026-12-24T18:00:00+01:00"}.'
)


class EmptyOrJSON(forms.JSONField):
    """JSON, or nothing, which is not `null`."""

    def prepare_value(self, value: Any) -> Any:
        return "" if value is None else super().prepare_value(value)


def _json(**given: Any) -> forms.JSONField:
    return EmptyOrJSON(widget=widgets.AdminTextareaWidget(attrs={"rows": 2, "spellcheck": "false"}), **given)


def _text(**given: Any) -> forms.CharField:
    return forms.CharField(widget=widgets.AdminTextInputWidget(attrs={"spellcheck": "false"}), **given)


class EntryForm(forms.Form):
    """The fields of an entry; the database's own validation adds to what the fields refuse.

    Args:
        *args: As of any form.
        names: Names of tasks that are suggested.
        stored: The entry that is changed; None for a new one.
        zone: The zone of entries that name none.
        read_only: Whether it only shows.
        **kwargs: As of any form.
    """

    name = _text()
    task = _text(help_text="The name of the task that is sent, such as shop.tasks.report.")
    schedule = _json(help_text=WRITTEN)
    args = _json(required=False, help_text='Positional arguments, a list: [1, "two"].')
    kwargs = _json(required=False, help_text='Keyword arguments, an object: {"number": 1}.')
    options = _json(
        required=False, help_text='Others of apply_async: {"queue": "slow", "priority": 3, "expires": 300}.'
    )
    timezone = _text(required=False, help_text="The zone of its wall times, such as Europe/Berlin; Celery's if empty.")
    active = forms.BooleanField(required=False, initial=True, help_text="An entry that is not active does not run.")
    one_off = forms.BooleanField(required=False, help_text="End it after its next run.")
    no_overlap = forms.BooleanField(required=False, help_text="Leave out a run while one still runs.")
    run_at_once = forms.BooleanField(required=False, help_text="Its first run is due when it is added.")
    start_time = forms.DateTimeField(required=False, help_text="It does not run before this time.")
    expires_at = forms.DateTimeField(required=False, help_text="It does not run at this time and later.")
    max_runs = forms.IntegerField(required=False, help_text="End it after so many runs.")
    jitter = forms.FloatField(required=False, help_text="Send each run up to so many seconds later, at random.")
    description = forms.CharField(required=False, widget=widgets.AdminTextareaWidget(attrs={"rows": 2}))

    def __init__(
        self,
        *args: Any,
        names: list[str],
        stored: StoredSchedule | None = None,
        zone: tzinfo | None = None,
        read_only: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.names = names
        self.fields["task"].widget.attrs["list"] = "task-names"
        if stored is not None:
            self.initial = _values(stored, zone or timezone.get_current_timezone())
            self.fields["name"].disabled = True
        for field in self.fields.values():
            field.disabled = field.disabled or read_only

    def given(self) -> dict[str, Any]:
        """All that was filled in, for a new entry."""
        return {name: value for name, value in self.cleaned_data.items() if value not in (None, "")}

    def changes(self) -> dict[str, Any]:
        """What was changed of an entry; what was emptied is None. The rest stays as it is, broken or in code."""
        return {name: None if self.cleaned_data[name] == "" else self.cleaned_data[name] for name in self.changed_data}

    def refuse(self, error: SurrealDBBackendError) -> None:
        """Show why the entry cannot be saved, beside the field that the message begins with.

        Args:
            error: The exception of the typed API.
        """
        first = re.split(r"\W", str(error), maxsplit=1)[0]
        self.add_error(first if first in self.fields else None, str(error))


def _values(stored: StoredSchedule, zone: tzinfo) -> dict[str, Any]:
    """The fields of an entry, or of a record that makes none, as they stand in the form."""
    entry = stored.entry
    values = dict(stored.record) if entry is None else {name: getattr(entry, name) for name in EntryForm.base_fields}
    values["name"] = stored.name
    return {name: _value(values.get(name), entry.zone(zone) if entry else zone) for name in EntryForm.base_fields}


def _value(value: Any, zone: tzinfo) -> Any:
    if isinstance(value, datetime):
        return value if settings.USE_TZ else timezone.make_naive(value, zone)
    if isinstance(value, (Mapping, list, tuple)):
        return json.loads(json.dumps(value, default=_plain))
    return value


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)
