"""Schedule entries in the admin: a list, a form for each, and what may be done about them."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.admin.models import ADDITION, DELETION
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from ...beat import ScheduleEntry
from ...errors import InvalidSchedule, ScheduleExists, ScheduleNotFound
from .apps import celery_app, results, schedules
from .elsewhere import SELECTED, ElsewhereAdmin, understood
from .models import Schedule
from .schedule_form import EntryForm

#: Runs of an entry that its page shows, of the past and to come.
RUNS = 5
#: What may be done about entries: the beginning of the message afterwards. (Django's pages make its first letter a
#: capital one, which a name must not become.)
ACTIONS = {
    "pause": "Paused",
    "resume": "Resumed",
    "run": "The active beat was asked to run now",
    "remove": "Removed",
}


class ScheduleAdmin(ElsewhereAdmin):
    """Schedule entries, editable."""

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Schedule | None:
        """Return what Django calls the entry: for its own pages, such as the history."""
        try:
            return Schedule(name=schedules().find(object_id).name)
        except ScheduleNotFound:
            return None

    # -- the list ------------------------------------------------------------------------------------------

    @understood
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The list, and what is done about the entries that are ticked in it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            return self._act(request)
        known = schedules()
        rows = [
            {
                "stored": each,
                "record": each.record,
                "entry": each.entry,
                "when": each.entry.recurrence(known.zone).describe() if each.entry else each.record.get("schedule"),
                "next": next(iter(known.next_runs(each.entry, 1)), None) if each.entry and each.entry.active else None,
                "url": self.url("change", each.name),
            }
            for each in known.stored()
        ]
        return self.page(
            request,
            "schedules",
            "Schedules",
            rows=rows,
            beat=known.active_beat(),
            actions=self._allowed(request),
            add_url=self.url("add") if self.has_add_permission(request) else None,
        )

    def _allowed(self, request: HttpRequest) -> list[str]:
        may = {"remove": self.has_delete_permission(request)}
        return [action for action in ACTIONS if may.get(action, self.has_change_permission(request))]

    def _act(self, request: HttpRequest) -> HttpResponse:
        action, names = request.POST.get("action", ""), request.POST.getlist(SELECTED)
        if action not in ACTIONS or not names:
            self.message_user(request, "Choose an action, and the entries that it is for.", messages.WARNING)
            return self.back(request)
        if action not in self._allowed(request):
            raise PermissionDenied
        if action == "remove" and request.POST.get("sure") != "yes":
            return self._asked(request, names)
        known = schedules(request.user)
        done = [name for name in names if self.attempt(request, lambda name=name: self._do(known, action, name))]  # type: ignore[misc]
        for name in done:
            self.log(request, name, name, f"{action}.", *([DELETION] if action == "remove" else []))
        if done:
            self.message_user(request, f"{ACTIONS[action]}: {', '.join(done)}.", messages.SUCCESS)
        if action == "run" and done and known.active_beat() is None:
            self.message_user(request, "No beat is active: they run when one starts.", messages.WARNING)
        return self.back(request)

    @staticmethod
    def _do(known: Any, action: str, name: str) -> bool:
        getattr(known, action)(name)
        return True

    def _asked(self, request: HttpRequest, names: list[str]) -> HttpResponse:
        return self.page(
            request,
            "question",
            "Remove these schedule entries?",
            action="remove",
            button="Remove them",
            ids=[(name, None, None) for name in names],
            may_go_on=True,
            target=self.url("changelist"),
        )

    # -- one entry -----------------------------------------------------------------------------------------

    @understood
    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """A form for a new entry."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = EntryForm(request.POST or None, names=_task_names())
        if form.is_valid():
            known = schedules(request.user)
            try:
                saved = known.add(ScheduleEntry(**form.given()))
            except (InvalidSchedule, ScheduleExists) as error:
                form.refuse(error)
            else:
                self.log(request, saved.name, saved.name, "", ADDITION)
                return self._saved(request, saved)
        return self.page(request, "schedule", "Add schedule", form=form, may_save=True)

    @understood
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """The form of an entry, its last runs and those to come."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        known, name = schedules(request.user), unquote(object_id)
        try:
            stored = known.find(name)
        except ScheduleNotFound as error:
            self.message_user(request, str(error), messages.WARNING)
            return self.back(request)
        may_change = self.has_change_permission(request)
        form = EntryForm(
            request.POST or None, names=_task_names(), stored=stored, zone=known.zone, read_only=not may_change
        )
        if request.method == "POST":
            if not may_change:
                raise PermissionDenied
            if form.is_valid():
                try:
                    saved = known.change(name, **form.changes())
                except InvalidSchedule as error:
                    form.refuse(error)
                else:
                    self.log(request, name, name, f"Changed {', '.join(form.changed_data) or 'nothing'}.")
                    return self._saved(request, saved)
        entry = stored.entry
        return self.page(
            request,
            "schedule",
            name,
            form=form,
            may_save=may_change,
            name=name,
            stored=stored,
            entry=entry,
            coming=known.next_runs(entry, RUNS) if entry is not None and entry.active else (),
            runs=results().find(periodic=name, limit=RUNS).tasks,
            actions=[each for each in self._allowed(request) if each != ("resume" if entry and entry.active else "pause")],
            history_url=self.url("history", name),
        )  # fmt: skip

    @understood
    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """The changes of users to this entry."""
        return super().history_view(request, object_id, extra_context)

    @understood
    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """The question whether an entry is removed."""
        if not self.has_delete_permission(request):
            raise PermissionDenied
        return self._asked(request, [unquote(object_id)])

    def _saved(self, request: HttpRequest, entry: ScheduleEntry) -> HttpResponse:
        self.message_user(request, f"The entry {entry.name} was saved.", messages.SUCCESS)
        return HttpResponseRedirect(self.url("changelist"))


def _task_names() -> list[str]:
    return sorted(name for name in celery_app().tasks if not name.startswith("celery."))
