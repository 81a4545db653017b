"""What the admin's pages of results and of schedules share: they show records that are in no table of Django's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import quote
from django.contrib.contenttypes.models import ContentType
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from kombu.exceptions import OperationalError

from ...console.views import visible
from ...errors import PermissionDenied as DatabasePermissionDenied
from ...errors import SurrealDBBackendError

View = Callable[..., HttpResponse]
#: The name of the checkboxes of a list, as in all of Django's admin.
SELECTED = admin.helpers.ACTION_CHECKBOX_NAME


def understood(view: View) -> View:
    """Make a view that answers an error of the database with a page that says it in one sentence."""

    @functools.wraps(view)
    def wrapped(self: ElsewhereAdmin, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return view(self, request, *args, **kwargs)
        except SurrealDBBackendError as error:
            status = 403 if isinstance(error, DatabasePermissionDenied) else 503
            text = visible(error)
            return self.page(request, "failed", "That did not work", status=status, error=text)

    return wrapped


class ElsewhereAdmin(admin.ModelAdmin):
    """An admin without a queryset: subclasses answer each of its views themselves."""

    def page(
        self, request: HttpRequest, template: str, title: str, *, status: int = 200, **context: Any
    ) -> TemplateResponse:
        """Answer with a page of this app.

        Args:
            request: The request.
            template: The name of the template, without folder and suffix.
            title: The heading.
            status: The HTTP status.
            **context: The template's variables.
        """
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "subtitle": None,
            "list_url": self.url("changelist"),
            "selected_name": SELECTED,
            **context,
        }
        return TemplateResponse(request, f"surrealdb_celery/{template}.html", context, status=status)

    def url(self, what: str, *objects: str) -> str:
        """The address of a page.

        Args:
            what: `changelist`, `add`, `change`, `delete` or `history`.
            *objects: The id of the record that it is of.
        """
        name = f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_{what}"
        return str(reverse(name, args=[quote(each) for each in objects]))

    def log(self, request: HttpRequest, object_id: str, text: str, message: str, flag: int = CHANGE) -> None:
        """Write down who did what, where Django's admin shows it.

        Args:
            request: The request.
            object_id: The id of the record.
            text: The name of the record.
            message: The action, as the log shows it.
            flag: One of Django's kinds of actions.
        """
        LogEntry.objects.create(
            user_id=request.user.pk,
            content_type=ContentType.objects.get_for_model(self.model),
            object_id=object_id,
            object_repr=visible(text)[:200],
            action_flag=flag,
            change_message=message,
        )

    def attempt(self, request: HttpRequest, call: Callable[[], Any]) -> Any:
        """Call something that changes records; an error becomes a message on the next page, and the answer None.

        Args:
            request: The request.
            call: The function.
        """
        try:
            return call()
        except OperationalError as error:
            self.message_user(request, f"The message broker cannot be reached: {visible(error)}", messages.ERROR)
        except SurrealDBBackendError as error:
            self.message_user(request, visible(error), messages.ERROR)
        return None

    def back(self, request: HttpRequest) -> HttpResponse:
        """Go to the list, with its filters as they were."""
        query = request.GET.urlencode()
        return HttpResponseRedirect(self.url("changelist") + (f"?{query}" if query else ""))


def can(request: HttpRequest, permission: str) -> bool:
    """Whether the user of a request has one of this app's permissions.

    Args:
        request: The request.
        permission: Its codename, such as `retry_task`.
    """
    return bool(request.user.has_perm(f"surrealdb_celery.{permission}"))
