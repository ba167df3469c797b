"""How commands speak: errors as one message with its remedy and the right exit code; JSON on request."""

from typing import Any

import msgspec
import rich_click as click

from outlast.model.errors import OutlastError

AS_JSON = click.option(
    "-o",
    "--output",
    "as_json",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    callback=lambda _context, _option, output: output == "json",
)
"""The option of a command that says what came of it, as `as_json: bool`."""


class OutlastGroup(click.RichGroup):
    """A group whose commands turn `OutlastError` into a message without a traceback, and its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Click: run the command."""
        try:
            return super().invoke(ctx)
        except OutlastError as error:
            raise _Failure(error) from error


class _Failure(click.ClickException):
    """Click's way to end: prints the message, exits with the code."""

    def __init__(self, error: OutlastError) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code  # type: ignore[misc]


def show_json(value: object) -> None:
    """Print a value as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
