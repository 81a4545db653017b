"""`celery -A proj surrealdb console`: the page in the browser."""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING, Any

import click
from celery.bin.base import CeleryCommand, handle_preload_options

from . import options

if TYPE_CHECKING:
    from ..console import Credentials

#: Secrets come from the environment: an argument stands in the list of processes.
PASSWORD, TOKEN = "SURREALDB_CONSOLE_PASSWORD", "SURREALDB_CONSOLE_TOKEN"


@click.command("console", cls=CeleryCommand)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    callback=options.not_empty,  # to a socket it is every address
    help="The address to listen on.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=5580, show_default=True, help="0 takes a free one.")
@click.option("--user", help=f"Who may look, with the password in ${PASSWORD}. A token goes into ${TOKEN}.")
@click.option("--allow-actions", is_flag=True, help="Let them retry, revoke and forget tasks, and change schedules.")
@click.option("--title", help="The name above every page; the app's if left out.")
@click.option("--root-path", default="", help="The path under which a proxy shows it, such as /console.")
@click.pass_context
@handle_preload_options
def console(
    context: click.Context,
    host: str,
    port: int,
    user: str | None,
    allow_actions: bool,
    title: str | None,
    root_path: str,
) -> None:
    r"""Show history, live tasks, workflows and schedules in the browser.

    \b
    celery -A proj surrealdb console
    SURREALDB_CONSOLE_PASSWORD=… celery -A proj surrealdb console --host 0.0.0.0 --user ada
    """
    credentials = _credentials(user)
    if credentials is None and not _is_loopback(host):
        raise click.ClickException(
            f"--host is {host!r}, which others reach, and there are no credentials: give --user with the password in "
            f"${PASSWORD}, or a token in ${TOKEN}, or listen on 127.0.0.1"
        )
    app = context.obj.app
    # As beat does: the project's modules say which tasks and entries there are.
    app.loader.import_default_modules()
    app.finalize()
    _serve(
        app,
        {
            "credentials": credentials,
            "allow_actions": allow_actions,
            "title": title or str(app.main or "Celery"),
        },
        {"host": host, "port": port, "root_path": root_path},
    )


def _serve(app: Any, options: dict[str, Any], listening: dict[str, Any]) -> None:
    try:
        import uvicorn

        from .. import console as pages
    except ImportError as error:
        raise click.ClickException(
            f"the console needs {error.name}: pip install 'surrealdb-celery-backend[console]'"
        ) from error
    from ..errors import SettingsError

    try:
        application = pages.app(app, **options)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    # Live updates end with the pages that ask for them; a stop need not wait for those.
    config = uvicorn.Config(application, log_level="info", timeout_graceful_shutdown=2, **listening)
    server = uvicorn.Server(config)
    server.run()
    if not server.started:
        raise click.ClickException(f"the console cannot listen on {listening['host']}:{listening['port']}")


def _credentials(user: str | None) -> Credentials | None:
    from ..console import Credentials
    from ..errors import SettingsError

    password, token = os.environ.get(PASSWORD) or None, os.environ.get(TOKEN) or None
    if user is None and token is None:
        if password is not None:
            raise click.ClickException(f"${PASSWORD} is set without --user: say whose password it is")
        return None
    try:
        return Credentials(username=user, password=password if user is not None else None, token=token)
    except SettingsError as error:
        raise click.ClickException(f"{error} (--user, ${PASSWORD}, ${TOKEN})") from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
