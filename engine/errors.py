"""Errors a user can cause: the command line prints their text as one line and exits with 1. All others are bugs."""


class UnrainError(Exception):
    """What is wrong and what to do about it, in one line."""
