"""`celery surrealdb metrics`: what Prometheus scrapes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from . import options

if TYPE_CHECKING:
    from ..results import Results


@options.command("metrics", "metrics --port 9808", "metrics --once")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    callback=options.not_empty,  # to a socket it is every address
    help="The address to listen on.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=9808, show_default=True, help="The port to listen on.")
@click.option("--lookback", type=click.FloatRange(0), default=3600, show_default=True, help="Seconds counted at first.")
@click.option("--once", is_flag=True, help="Print the metrics and end.")
@options.results_command
def metrics(results: Results, host: str, port: int, lookback: float, once: bool) -> None:
    """Serve Prometheus metrics of what is stored: states, run and queue times, chords, beat's lease.

    They come from the database, not from events, so nothing is lost while this does not run.
    """
    collector = results.metrics(lookback=lookback)
    from prometheus_client import CollectorRegistry, generate_latest, start_http_server

    registry = CollectorRegistry()
    registry.register(collector)
    if once:
        click.echo(generate_latest(registry).decode(), nl=False)
        return
    try:
        server, _ = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror}") from error
    click.echo(f"metrics: http://{host}:{server.server_port}/metrics")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        server.shutdown()
