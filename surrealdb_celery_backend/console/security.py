"""Who asks, whether a form is our own page's, and the headers that keep a browser from doing anything else."""

from __future__ import annotations

import base64
import binascii
import hmac
import inspect
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, Response

from .options import Access, ConsoleOptions, is_pair

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

logger = logging.getLogger(__name__)

#: The cookie that a form's hidden field has to repeat.
CSRF_COOKIE, CSRF_FIELD = "surrealdb_console_csrf", "csrf"
#: What pages may load: nothing but this application's own files, and no script or style within a page.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: A chart is an image with a style sheet of its own, and nothing else.
CHART_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
#: Bytes of a form.
LONGEST_FORM = 1_000_000
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Not "no-referrer": the origin of a form would then be "null".
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

CallNext = Callable[["Request"], Awaitable[Response]]


@dataclass(frozen=True)
class Visitor:
    """Somebody whose request is answered.

    Attributes:
        name: The visitor's name, for the audit log.
        access: The visitor's rights.
        csrf: The token that their forms carry.
    """

    name: str
    access: Access
    csrf: str

    @property
    def may_act(self) -> bool:
        """Whether they may change anything."""
        return self.access is Access.ACT


class Guard(BaseHTTPMiddleware):
    """Lets requests in by their credentials, and forms in by their token.

    Args:
        app: The application behind.
        options: The console's options.
    """

    def __init__(self, app: ASGIApp, options: ConsoleOptions) -> None:
        super().__init__(app)
        self._options = options

    async def dispatch(self, request: Request, call_next: CallNext) -> Response:
        response = await self._answer(request, call_next)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        return response

    async def _answer(self, request: Request, call_next: CallNext) -> Response:
        # A health probe has no credentials, and is told nothing but whether this works.
        if request.scope["path"].removeprefix(request.scope.get("root_path", "")) == "/health":
            return await call_next(request)
        who = await self._who(request)
        if who is None:
            return _unknown(self._options)
        name, access = who
        if access is Access.NONE:
            return PlainTextResponse("You may not look at this.\n", status_code=403)
        token = request.cookies.get(CSRF_COOKIE) or ""
        fresh = not token
        if fresh:
            token = secrets.token_urlsafe(32)
        request.state.visitor = Visitor(name, access, token)
        if request.method not in {"GET", "HEAD", "OPTIONS"}:
            refusal = await self._refusal(request, token, access)
            if refusal is not None:
                return refusal
        response = await call_next(request)
        if fresh:
            secure = request.url.scheme == "https"
            response.set_cookie(
                CSRF_COOKIE, token, httponly=True, samesite="strict", secure=secure, path=_path(request)
            )
        return response

    async def _who(self, request: Request) -> tuple[str, Access] | None:
        options = self._options
        if options.authenticate is not None:
            answer = options.authenticate(request)
            if inspect.isawaitable(answer):
                answer = await answer
            if answer is not None and not is_pair(answer):
                raise TypeError(f"authenticate returned {type(answer).__name__}: return a name and an Access, or None")
            return answer
        credentials = options.credentials
        if credentials is None:
            return "anonymous", options.access_of(known=True)
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and credentials.is_token(given.strip()):
            return "token", options.access_of(known=True)
        if scheme.lower() == "basic":
            username, password = _basic(given)
            if credentials.is_user(username, password):
                return username, options.access_of(known=True)
        return None

    async def _refusal(self, request: Request, token: str, access: Access) -> Response | None:
        if access is not Access.ACT:
            return PlainTextResponse(
                "This console only shows: actions need --allow-actions, and the right to them.\n", status_code=403
            )
        if not _is_same_site(request):
            return PlainTextResponse("This form is of another site.\n", status_code=403)
        # A bearer token is sent by no browser of itself: a program that has it needs no form.
        if request.headers.get("authorization", "").lower().startswith("bearer "):
            return None
        if int(request.headers.get("content-length") or 0) > LONGEST_FORM:
            return PlainTextResponse("This form is too large.\n", status_code=413)
        await request.body()  # kept, so that the page behind reads the form, too
        given = (await request.form()).get(CSRF_FIELD)
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(), token.encode()):
            return PlainTextResponse("This form is out of date: load the page again, and repeat.\n", status_code=403)
        return None


def _is_same_site(request: Request) -> bool:
    """Whether a form is of a page of this server.

    Browsers say so over https and on loopback (`Sec-Fetch-Site`), whatever a proxy makes of scheme and host. Without
    that the origin tells.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    return origin is None or origin == f"{request.url.scheme}://{request.url.netloc}"


def _basic(given: str) -> tuple[str, str]:
    try:
        username, _, password = base64.b64decode(given, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return username, password


def _path(request: Request) -> str:
    return f"{request.scope.get('root_path', '')}/"


def _unknown(options: ConsoleOptions) -> Response:
    if options.authenticate is not None:
        return PlainTextResponse("Sign in to the application first.\n", status_code=401)
    response = PlainTextResponse("The console needs credentials.\n", status_code=401)
    schemes = []
    assert options.credentials is not None
    if options.credentials.username is not None:
        schemes.append('Basic realm="Celery console", charset="UTF-8"')
    if options.credentials.token is not None:
        schemes.append('Bearer realm="Celery console"')
    response.headers["WWW-Authenticate"] = ", ".join(schemes)
    return response


def audit(visitor: Visitor, action: str, subject: str) -> None:
    """Write down who did what; control characters of names stay visible.

    Args:
        visitor: Who.
        action: What, such as `export`.
        subject: The ids or the name of what it was done to.
    """
    logger.info("console: %s %s %s", visitor.name.encode("unicode_escape").decode(), action, ascii(subject))
