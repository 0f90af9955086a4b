"""What can go wrong, as types: the command line turns each into one sentence and exit code 2."""

from __future__ import annotations


class SenoscoreError(ValueError):
    """The user's or the file's mistake: says what is wrong, where, what was found, what to do."""


class SignatureError(SenoscoreError):
    """A signature, or a file of signatures, cannot be used as it stands."""


class InputDataError(SenoscoreError):
    """The data cannot be read, or cannot support what was asked of them."""


class ConfigError(SenoscoreError):
    """The configuration is not valid; the message lists every mistake by its dotted path."""


class SenoscoreWarning(UserWarning):
    """Something scientific was dropped, replaced or could not be judged."""
