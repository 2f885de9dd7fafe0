"""``celery -A celery_app lanes exporter``: the lanes for Prometheus."""

from __future__ import annotations

import signal
import threading
from typing import Any

import click

from celery_app.settings import has_lanes

#: Beside celery-exporter, which has 9808; whoever has both need not choose.
PORT = 9809

MISSING = "lanes exporter needs prometheus_client: pip install 'ezai-lanes[exporter]'"


@click.command()
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(0, 65_535), help="0: any free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Whom to answer; 0.0.0.0: everybody.")
@click.pass_context
def exporter(ctx: click.Context, port: int, host: str) -> None:
    """Serve the lanes' metrics for Prometheus, until SIGINT or SIGTERM."""
    app = ctx.obj.app
    if not has_lanes(app):
        raise click.ClickException(f"{app!r} has no lanes: call celery_app.install(app) where it is made")
    over = threading.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: over.set())
    server = _serve(app, port, host)
    click.echo(f"The lanes' metrics are at http://{host}:{server.server_port}/metrics")
    over.wait()
    server.shutdown()


def _serve(app: Any, port: int, host: str) -> Any:
    try:
        from prometheus_client import CollectorRegistry, start_http_server

        from celery_app.metrics.prometheus import LanesCollector
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "prometheus_client":
            raise
        raise click.ClickException(MISSING) from None
    registry = CollectorRegistry()
    registry.register(LanesCollector(app))
    try:
        server, _thread = start_http_server(port, host, registry)
    except OSError as exc:
        raise click.ClickException(f"cannot listen on {host}:{port}: {exc.strerror or exc}") from None
    return server
