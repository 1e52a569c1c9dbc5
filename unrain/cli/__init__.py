"""The command line, one file per command.

`unrain NAME` is the function `command` of `unrain/cli/NAME.py`, written with typer's `Annotated` options; its docstring
is the help text. A command imports torch inside the function, never at the top of the file: `unrain --help` reads every
file. It raises UnrainError for what a user can put right and `typer.Exit(1)` when some of its work failed.
"""
