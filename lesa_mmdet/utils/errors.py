"""Errors that are the user's to mend. Tools print them as one sentence, without a traceback."""


class UserError(Exception):
    """What a user can mend: its text says what is wrong, the value seen, and what is allowed.

    Raised as one of the classes below, which are also what Python would raise, so that code that
    catches a ``ValueError`` catches it, too. Any other error is a bug and keeps its traceback.
    """


class UserValueError(UserError, ValueError):
    """A value, a config or a file's content that cannot be used."""


class UserTypeError(UserError, TypeError):
    """A value of the wrong type."""


class UserFileNotFoundError(UserError, FileNotFoundError):
    """A file or folder that is not there."""
