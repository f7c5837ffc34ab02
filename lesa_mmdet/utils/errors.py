"""Errors that are the user's to mend. Tools print them as one sentence, without a traceback."""

from ..attention.errors import Refused


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


class UserFileExistsError(UserError, FileExistsError):
    """A file or folder that is there already, and is not replaced."""


class UserPermissionError(UserError, PermissionError):
    """A file or folder that may not be read or written."""


class UserMemoryError(UserError, MemoryError):
    """What does not fit into memory."""


# What a user can mend: what is refused here or by attention, what the system says of files and the
# network, and what is not installed.
MENDABLE = (UserError, Refused, OSError, ImportError)
