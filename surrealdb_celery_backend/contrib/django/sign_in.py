"""The console beside Django's pages: its visitors are the users that have signed in to Django.

::

    Mount("/console", console.app(celery_app, authenticate=visitor_of))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.http import HttpRequest
from django.utils.module_loading import import_string

from ...console import Access

if TYPE_CHECKING:
    from starlette.requests import Request

#: The permissions of those who may only look, and of those who may act, too.
LOOK = ("surrealdb_celery.view_task", "surrealdb_celery.view_schedule")
ACT = (
    "surrealdb_celery.retry_task",
    "surrealdb_celery.revoke_task",
    "surrealdb_celery.delete_task",
    "surrealdb_celery.add_schedule",
    "surrealdb_celery.change_schedule",
    "surrealdb_celery.delete_schedule",
)


async def visitor_of(request: Request) -> tuple[str, Access] | None:
    """Return the user of Django's session that a request belongs to, and what the console lets them do.

    Staff with all permissions to look sees the console; those who have every permission of this app act in it.

    Args:
        request: The request to the console.
    """
    return await sync_to_async(access_of)(request.cookies.get(settings.SESSION_COOKIE_NAME))


def access_of(session_key: str | None) -> tuple[str, Access] | None:
    """Return the user of one of Django's sessions, and what the console lets them do; None for a stranger.

    Args:
        session_key: What the session's cookie holds.
    """
    if not session_key:
        return None
    plain = HttpRequest()
    plain.session = import_string(f"{settings.SESSION_ENGINE}.SessionStore")(session_key)
    user: Any = get_user(plain)
    if not user.is_authenticated or not user.is_active:
        return None
    if not (user.is_staff and user.has_perms(LOOK)):
        return user.get_username(), Access.NONE
    return user.get_username(), Access.ACT if user.has_perms(ACT) else Access.READ
