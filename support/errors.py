"""Errors that are the user's to mend."""


class UsageError(ValueError):
    """Something the user gave can't be used; the message is one line that names the flag or file."""


class DataError(UsageError):
    """A user's data cannot be used; the message is one line that names the file or flag."""


def first_line(error: Exception) -> str:
    """An error in one line."""
    return str(error).strip().split("\n")[0] or type(error).__name__
