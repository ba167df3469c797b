"""`outlast datastore`: make a directory a datastore, and check one."""

from pathlib import Path

import rich_click as click

from outlast.interfaces.output import OutlastGroup
from outlast.model.errors import OutlastError


@click.group(cls=OutlastGroup)
def datastore() -> None:
    """Shared directories that keep VMs' disks, registers and heartbeats."""


@datastore.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="What the settings files call it.")
@click.option("--domain", required=True, help="The fault domain that it belongs to.")
def init(path: Path, name: str, domain: str) -> None:
    """Make the mounted directory PATH a datastore. Once, on one host; doing it again changes nothing."""
    from outlast.drivers.datastore.identity import initialise

    identity = initialise(path, name, domain)
    click.echo(f"{path} is the datastore {identity.datastore} of the fault domain {identity.domain} ({identity.uuid})")


@datastore.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="What the settings files call it.")
@click.option("--domain", required=True, help="The fault domain that it should belong to.")
def check(path: Path, name: str, domain: str) -> None:
    """Say whether PATH is that datastore, here and now. May hang as long as the storage does."""
    from outlast.drivers.datastore.identity import problem_with

    try:
        problem = problem_with(str(path), name, domain)
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}"
    if problem:
        raise OutlastError(problem)
    click.echo(f"{path} is the datastore {name} of the fault domain {domain}")
