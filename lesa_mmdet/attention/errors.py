"""What attention refuses: errors of its own, because it imports nothing of the package."""


class Refused(Exception):
    """What a caller can mend: its text says what is wrong, the value seen, and what is allowed."""


class RefusedValueError(Refused, ValueError):
    """Tensors, arguments or a backend that cannot be taken."""


class RefusedMemoryError(Refused, MemoryError):
    """What needs more memory than the device has."""
