"""The two ways in which parsing fails, told apart by whether another try can help."""

from __future__ import annotations


class InputError(Exception):
    """The key or the file itself is the reason: another try ends the same way.

    The message is written for the person who uploaded the file and says what to do about it.
    """


class StorageError(Exception):
    """The storage did not answer or refused us: another try, later, may well succeed."""
