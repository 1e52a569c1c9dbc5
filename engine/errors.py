"""Errors a user can cause. The command line prints their text as one line and exits with 1; everything else is a bug."""


class UnrainError(Exception):
    """What is wrong and what to do about it, in one line."""
