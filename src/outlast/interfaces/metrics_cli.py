"""`outlast metrics`: what is to be known of this host and its fault domain, for Prometheus."""

import threading
from pathlib import Path

import rich_click as click
from prometheus_client import generate_latest, start_http_server

from outlast.interfaces.local_agent import SOCKET
from outlast.interfaces.metrics import registry_of
from outlast.model.errors import OutlastError, UsageError


@click.command()
@click.option("--listen", metavar="ADDRESS:PORT", help="Serve them there by HTTP, under /metrics, until it is ended.")
@SOCKET
def metrics(*, listen: str | None, path: Path) -> None:
    """Print the metrics of this host once, as node_exporter's textfile collector takes them; or serve them.

    Nothing of them is secret; whoever may read them is up to ADDRESS and the firewall.
    """
    registry = registry_of(path)
    if listen is None:
        click.echo(generate_latest(registry).decode(), nl=False)
        return
    address, port = _parts(listen)
    try:
        server, _ = start_http_server(port, address, registry)
    except OSError as error:
        raise OutlastError(f"nothing can listen at {listen}: {error.strerror}", "choose another address or port") from None
    click.echo(f"metrics are served at http://{listen}/metrics")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.shutdown()


def _parts(listen: str) -> tuple[str, int]:
    address, colon, port = listen.rpartition(":")
    if not colon or not address or not port.isdigit() or int(port) > 65_535:
        raise UsageError(f"--listen {listen} is not an address with a port", "write it as 127.0.0.1:9478 or [::1]:9478")
    return address.strip("[]"), int(port)
