"""A chord's body as it is kept in the database: so that it can be published without a header task's message."""

from __future__ import annotations

from typing import Any

from celery.canvas import maybe_signature
from celery.utils.log import get_logger
from kombu.serialization import dumps, loads, prepare_accept_content

from ...celery_compat import content_encoding
from .records import Header

logger = get_logger(__name__)


def encode_body(app: Any, body: Any, *, whole: bool = True) -> Header:
    """Return what is kept of a body.

    Args:
        app: The Celery app, whose `task_serializer` is used.
        body: The body's signature.
        whole: Whether its arguments may be kept; else only its id and name are.

    Returns:
        A header of which nothing but the body is known.
    """
    if body is None:
        return Header()
    payload = content_type = None
    try:
        if whole:
            content_type, _, payload = dumps(dict(body), serializer=app.conf.task_serializer)
    except Exception as exc:
        # Header tasks take it along, or sending them fails; this copy only serves clean-up.
        logger.debug("the body of a chord is not kept in the database: %s", exc)
    return Header(body=payload, body_encoding=content_type, body_id=body.id, body_name=body.get("task"))


def decode_body(app: Any, header: Header) -> Any:
    """Return the body's signature; None where it was not kept.

    Args:
        app: The Celery app, whose `accept_content` says what may be decoded.
        header: The kept facts about the header.

    Raises:
        kombu.exceptions.ContentDisallowed: The app does not accept what the body is encoded in.
    """
    if header.body is None or header.body_encoding is None:
        return None
    fields = loads(
        header.body,
        content_type=header.body_encoding,
        content_encoding=content_encoding(header.body_encoding),
        accept=prepare_accept_content(app.conf.accept_content),
    )
    return maybe_signature(fields, app=app)
