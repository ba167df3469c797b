"""`outlast`: every command of it. Each group's module is loaded only when it is used, so that the hook starts fast."""

import rich_click as click

from outlast.lab.cli import lab


@click.group()
@click.version_option(package_name="outlast")
def main() -> None:
    """Keeps the virtual machines of a group of libvirt/QEMU hosts running, and never runs one twice."""


main.add_command(lab)
