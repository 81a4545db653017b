"""Options and wrappers that the commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone, tzinfo
from typing import TYPE_CHECKING, Any, TypeVar

import click
from celery.bin.base import CeleryCommand, handle_preload_options

from . import times

if TYPE_CHECKING:
    from celery import Celery

    from ..results import Results

Function = TypeVar("Function", bound=Callable[..., Any])

#: Options that choose tasks. Their names are those of the filters of `Results.find`.
FILTERS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--state",), {"multiple": True, "help": "A state, such as FAILURE; may be given more than once."}),
    (("--name",), {"multiple": True, "help": "A task's name; * stands for any text."}),
    (("--worker",), {"multiple": True, "help": "A worker's name; * stands for any text."}),
    (("--queue",), {"multiple": True, "help": "A queue's name; * stands for any text."}),
    (("--since",), {"help": "Not before this time: 30m, 2h, 7d (so long ago), 14:30, today, 2026-11-26T14:30."}),
    (("--until",), {"help": "Before this time, written alike."}),
    (("--error",), {"help": "The class of the exception, with or without its module; * stands for any text."}),
    (("--text",), {"help": "Text within the exception or the traceback, whatever the case."}),
    (("--tag", "tags"), {"multiple": True, "help": "A tag; tasks must have all that are given."}),
    (("--argument",), {"help": "Text within the arguments as they are stored."}),
    (("--root",), {"help": "The id of the first task of the workflow."}),
    (("--group",), {"help": "The id of the group."}),
    (("--parent",), {"help": "The id of the task that sent it."}),
    (("--periodic",), {"help": "The beat entry that sent it."}),
    (("--retry-of",), {"help": "The id of the task that it is a retry of."}),
    (("--min-runtime",), {"help": "How long it ran at least: seconds, or with units such as 90s, 5m."}),
)

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
YES = click.option("--yes", is_flag=True, help="Do not ask.")


class Command(CeleryCommand):
    """A command whose help ends with examples, as they are written."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        if self.examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"{'':>{formatter.current_indent}}{line}\n" for line in self.examples))
        super().format_epilog(ctx, formatter)


def command(name: str, *examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command.

    Args:
        name: Its name.
        examples: Arguments behind `celery -A proj surrealdb`.
    """
    lines = tuple(f"celery -A proj surrealdb {example}" for example in examples)
    return click.command(name, cls=Command, examples=lines)


def not_empty(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Check an option whose empty text would be taken for none, or for any; a callback of click's.

    Raises:
        click.BadParameter: It is empty.
    """
    if value == "":
        raise click.BadParameter("it is empty")
    return value


def filter_options(function: Function) -> Function:
    """Add the options that choose tasks."""
    for names, settings in reversed(FILTERS):
        function = click.option(*names, **settings)(function)
    return function


def filters(app: Celery, given: Mapping[str, Any]) -> dict[str, Any]:
    """Take the filters out of what was given on the command line.

    Raises:
        click.UsageError: A time or a duration is none.
    """
    wanted: dict[str, Any] = {}
    for names, _ in FILTERS:
        name = names[-1].removeprefix("--").replace("-", "_")
        value = given[name]
        if value in (None, ()):
            continue
        wanted[name] = list(value) if isinstance(value, tuple) else value
    now = datetime.now(timezone.utc)
    with usage():
        for name in ("since", "until"):
            if name in wanted:
                wanted[name] = times.moment(wanted[name], now, app.timezone)
        if "min_runtime" in wanted:
            wanted["min_runtime"] = times.seconds(wanted["min_runtime"])
    since, until = wanted.get("since"), wanted.get("until")
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since is not before --until: nothing can match")
    return wanted


@contextmanager
def usage() -> Iterator[None]:
    """Turn a time that is none into a message."""
    try:
        yield
    except times.NotATime as error:
        raise click.UsageError(str(error)) from None


def app_command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the app, and turn our errors into clear messages."""

    @handle_preload_options
    @functools.wraps(function)
    def wrapped(context: click.Context, /, *args: Any, **kwargs: Any) -> Any:
        app = context.obj.app
        with understood():
            app.loader.import_default_modules()
            app.finalize()
            return function(app, *args, **kwargs)

    return click.pass_context(wrapped)


def results_command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the stored results of the app, and turn our errors into clear messages."""

    @functools.wraps(function)
    def wrapped(app: Celery, *args: Any, **kwargs: Any) -> Any:
        from ..results import Results

        with Results(app) as results:
            return function(results, *args, **kwargs)

    return app_command(wrapped)


@contextmanager
def understood() -> Iterator[None]:
    """Turn what may go wrong into one sentence and an exit code."""
    from celery.exceptions import ImproperlyConfigured
    from kombu.exceptions import OperationalError

    from ..errors import InvalidFilter, SurrealDBBackendError
    from .terminal import safe

    try:
        yield
    except InvalidFilter as error:
        raise click.UsageError(safe(str(error))) from error
    except (SurrealDBBackendError, ImproperlyConfigured) as error:
        raise click.ClickException(safe(str(error))) from error
    except OperationalError as error:
        raise click.ClickException(safe(f"the message broker cannot be reached: {error}")) from error
    except OSError as error:
        if error.filename is None:
            raise
        raise click.ClickException(safe(f"{error.filename}: {error.strerror}")) from error


def zone_of(results: Results) -> tzinfo:
    """The time zone that times are shown in: the app's."""
    zone: tzinfo = results.app.timezone
    return zone
