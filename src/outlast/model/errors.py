"""The one error that is meant for people: what is wrong, and what to do about it."""


class OutlastError(Exception):
    """`message` names the thing that is wrong; `remedy` says what to do. `exit_code`: 2 for usage, 1 for the rest."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message if not remedy else f"{message}\n  -> {remedy}")
        self.message = message
        self.remedy = remedy


class UsageError(OutlastError):
    """Something was asked for, or configured, in a way that cannot work."""

    exit_code = 2
