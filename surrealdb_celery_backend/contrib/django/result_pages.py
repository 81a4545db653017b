"""Results in the admin: a list with filters and a search, a page for each, and what may be done about them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any

from celery import states
from django import forms
from django.contrib import messages
from django.contrib.admin.models import DELETION
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from ...console.graph import draw, rows_of
from ...errors import InvalidFilter, ResultNotFound
from ...results import Page, TaskSummary
from .apps import celery_app, results
from .elsewhere import SELECTED, ElsewhereAdmin, can, understood
from .models import Task

#: Results on a page of the list.
ON_A_PAGE = 50
#: Records that a page looks at for a rare filter before it shows what it found so far.
MOST_SCANNED = 20_000
#: Tasks of a workflow that a page lists.
MOST_OF_A_WORKFLOW = 500
#: Results that a search for the beginning of an id shows.
MOST_IDS = 20
#: The spans of the filter by time.
SPANS = {"1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
STATES = (states.PENDING, states.STARTED, "PROGRESS", states.RETRY, states.SUCCESS, states.FAILURE, states.REVOKED)
#: What may be done about results: the permission, the heading of the question, and its button.
ACTIONS = {
    "retry": ("retry_task", "Send these tasks again?", "Send them again"),
    "revoke": ("revoke_task", "Keep these tasks from running?", "Revoke them"),
    "forget": ("delete_task", "Delete these results?", "Delete them"),
}


class Filters(forms.Form):
    """The filters beside the list, and the search above it."""

    q = forms.CharField(label="Search", required=False)
    within = forms.ChoiceField(
        label="in",
        required=False,
        choices=[("text", "errors and tracebacks"), ("argument", "arguments"), ("id", "ids, from their beginning")],
    )
    state = forms.ChoiceField(required=False, choices=[("", "any"), *((each, each) for each in STATES)])
    name = forms.CharField(label="Task", required=False)
    worker = forms.CharField(required=False)
    queue = forms.CharField(required=False)
    since = forms.ChoiceField(
        label="Time",
        required=False,
        choices=[("", "any"), ("1h", "last hour"), ("24h", "last 24 hours"), ("7d", "last 7 days"), ("30d", "last 30 days")],
    )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].widget.attrs.update(list="task-names", placeholder="shop.*")
        for name in ("worker", "queue"):
            self.fields[name].widget.attrs.update(placeholder="*")

    @property
    def searched_id(self) -> str:
        """The beginning of an id, if that is searched for."""
        given = self.cleaned_data
        return str(given["q"]) if given["within"] == "id" else ""

    def wanted(self) -> dict[str, Any]:
        """The filters as `Results.find` takes them."""
        given = self.cleaned_data
        wanted = {name: given[name] for name in ("state", "name", "worker", "queue") if given[name]}
        if given["since"]:
            wanted["since"] = datetime.now(timezone.utc) - SPANS[given["since"]]
        if given["q"]:
            wanted[given["within"] or "text"] = given["q"]
        return wanted


class TaskAdmin(ElsewhereAdmin):
    """Results, read-only."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Task | None:
        """Return what Django calls the result: for its own pages, such as the history."""
        try:
            found = results().get(object_id)
        except ResultNotFound:
            return None
        return Task(id=found.id, name=found.name or "")

    # -- the list ------------------------------------------------------------------------------------------

    @understood
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The list, and what is done about the results that are ticked in it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            return self._act(request)
        filters = Filters(request.GET)
        page = Page((), None, complete=True, scanned=0)
        if filters.is_valid():
            try:
                page = self._found(filters, request.GET.get("after") or None)
            except InvalidFilter as error:
                self.message_user(request, str(error), messages.ERROR)
        newest, older = request.GET.copy(), request.GET.copy()
        newest.pop("after", None)
        older["after"] = page.after or ""
        return self.page(
            request,
            "results",
            "Task results",
            filters=filters,
            found=page,
            rows=[(task, self.url("change", task.id)) for task in page.tasks],
            is_filtered=any(request.GET.get(name) for name in filters.fields if name != "within"),
            is_later="after" in request.GET,
            newest=newest.urlencode(),
            older=older.urlencode() if page.after else None,
            actions=self._allowed(request),
            names=sorted(name for name in celery_app().tasks if not name.startswith("celery.")),
        )

    def _found(self, filters: Filters, after: str | None) -> Page:
        if not filters.searched_id:
            return results().find(limit=ON_A_PAGE, after=after, max_scanned=MOST_SCANNED, **filters.wanted())
        found: list[TaskSummary] = []
        for task_id in results().ids_starting_with(filters.searched_id, MOST_IDS):
            try:
                found.append(results().get(task_id))
            except ResultNotFound:  # it expired just now
                continue
        return Page(tuple(found), None, complete=len(found) < MOST_IDS, scanned=len(found))

    def _allowed(self, request: HttpRequest) -> list[str]:
        return [action for action, (permission, *_) in ACTIONS.items() if can(request, permission)]

    # -- one result ----------------------------------------------------------------------------------------

    @understood
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """All that is stored of one task, and its workflow."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            task = results().get(unquote(object_id))
            workflow = results().tree(task.id)
        except ResultNotFound as error:
            self.message_user(request, str(error), messages.WARNING)
            return self.back(request)
        nodes = list(islice(rows_of(workflow), MOST_OF_A_WORKFLOW))
        drawing = draw(workflow) if len(workflow.root) > 1 else None
        return self.page(
            request,
            "result",
            task.name or "Task result",
            task=task,
            workflow=workflow,
            rows=[(depth, node, self.url("change", node.id)) for depth, node in nodes],
            drawing=drawing,
            boxes=[(box, self.url("change", box.node.id)) for box in drawing.boxes] if drawing else [],
            actions=self._allowed(request),
            history_url=self.url("history", task.id),
            retry_of_url=self.url("change", task.retry_of) if task.retry_of else None,
            parent_url=self.url("change", task.parent_id) if task.parent_id else None,
        )

    @understood
    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """The actions of users on this result."""
        return super().history_view(request, object_id, extra_context)

    @understood
    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """The question whether one result is deleted."""
        return self._asked(request, "forget", [unquote(object_id)])

    # -- acting --------------------------------------------------------------------------------------------

    def _act(self, request: HttpRequest) -> HttpResponse:
        action, ids = request.POST.get("action", ""), request.POST.getlist(SELECTED)
        if action not in ACTIONS or not ids:
            self.message_user(request, "Choose an action, and the results that it is for.", messages.WARNING)
            return self.back(request)
        if request.POST.get("sure") != "yes":
            return self._asked(request, action, ids)
        if not can(request, ACTIONS[action][0]):
            raise PermissionDenied
        again = self.attempt(request, lambda: getattr(self, f"_{action}")(request, ids))
        # The page of a single task that was sent again shows the new one.
        return HttpResponseRedirect(self.url("change", again)) if again and len(ids) == 1 else self.back(request)

    def _asked(self, request: HttpRequest, action: str, ids: list[str]) -> HttpResponse:
        permission, question, button = ACTIONS[action]
        if not can(request, permission):
            raise PermissionDenied
        # What would be done, which also tells the names.
        known = results().retry(ids, dry_run=True)
        refused = [each for each in known if each.refused] if action == "retry" else []
        query = request.GET.urlencode()
        return self.page(
            request,
            "question",
            question,
            action=action,
            button=button,
            ids=[(each.task_id, each.name, each.refused if action == "retry" else None) for each in known],
            may_go_on=len(refused) < len(known),
            target=self.url("changelist") + (f"?{query}" if query else ""),
        )

    def _retry(self, request: HttpRequest, ids: list[str]) -> str | None:
        outcomes = results().retry(ids)
        sent = [each for each in outcomes if each.new_id is not None]
        for each in sent:
            self.log(request, each.task_id, each.name or each.task_id, f"Sent again as {each.new_id}.")
        for each in outcomes:
            if each.refused:
                self.message_user(request, f"Not sent again: {each.task_id}: {each.refused}", messages.WARNING)
        if sent:
            self.message_user(request, f"Sent again: {len(sent)}.", messages.SUCCESS)
        if len(ids) == 1 and sent and self._is_stored(sent[0].new_id or ""):
            return sent[0].new_id
        return None

    def _is_stored(self, task_id: str) -> bool:
        return task_id in results().ids_starting_with(task_id, 1)

    def _revoke(self, request: HttpRequest, ids: list[str]) -> None:
        terminate = request.POST.get("terminate") == "yes"
        for each in results().revoke(ids, terminate=terminate):
            self.log(request, each, each, "Revoked, and ended if it runs." if terminate else "Revoked.")
        self.message_user(request, f"All workers were asked to revoke: {len(ids)}.", messages.SUCCESS)

    def _forget(self, request: HttpRequest, ids: list[str]) -> None:
        gone = results().forget(ids)
        for each in gone:
            self.log(request, each, each, "", DELETION)
        self.message_user(request, f"Deleted: {len(gone)}.", messages.SUCCESS)
