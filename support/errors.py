"""Errors that are the user's to mend."""


class UsageError(ValueError):
    """Something the user gave can't be used; the message is one line that names the flag or file."""

    status = 2  # the program's exit status


class DataError(UsageError):
    """A user's data cannot be used; the message is one line that names the file or flag."""


class NoGain(UsageError):
    """A discriminator can't choose samples: there is none, or it was not found to have a gain."""

    status = 3  # which tells a script that plain samples are what is left


def first_line(error: Exception) -> str:
    """An error in one line."""
    return str(error).strip().split("\n")[0] or type(error).__name__
