"""`unrain`: finds the command's file, runs it, and turns every failure into one line and an exit code."""

import io
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..engine.console import complain
from ..engine.errors import UnrainError
from . import interrupts

# The order of `unrain --help`. A name is listed when its file is there.
COMMANDS = ("run", "demo", "eval", "convert", "models", "info", "train", "bench", "export")

HELP = {"help_option_names": ["-h", "--help"]}

# typer carries click inside since 0.26 and beside it before; the base class of its public error is the same in both.
ClickException: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


class CommandFiles(TyperGroup):
    """A group whose commands are imported on first use, so that `unrain run` never reads what `unrain train` needs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name in COMMANDS if Path(__file__).with_name(f"{name}.py").exists()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.list_commands(ctx):
            return None
        if cmd_name not in self.commands:
            one = typer.Typer(context_settings=HELP, add_completion=False)
            one.command(name=cmd_name)(import_module(f".{cmd_name}", __package__).command)
            self.commands[cmd_name] = typer.main.get_command(one)
        return self.commands[cmd_name]


app = typer.Typer(cls=CommandFiles, context_settings=HELP, no_args_is_help=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"unrain {__version__}")
        raise typer.Exit()


@app.callback()
def unrain(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error (works anywhere).")] = False,
) -> None:
    """A wiper for cameras: takes rain out of pictures and video."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code: 0 all done, 1 something failed, 2 bad usage, 130 interrupted.

    Without `arguments` the process is a command of its own: its ctrl-C and its stdout are set up for that.
    """
    if arguments is not None:
        return _run(list(arguments))
    interrupts.take_over()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr has it: a file's name may be no text
    try:
        return _run(sys.argv[1:])
    finally:
        interrupts.no_more()


def _run(words: list[str]) -> int:
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        code = app(words, prog_name="unrain", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except ClickException as error:
        context = getattr(error, "ctx", None)
        # No arguments at all: typer has the help text as the message.
        if not words:
            typer.echo(error.format_message(), err=True)
        else:
            command = context.command_path if context else "unrain"
            complain(f"{error.format_message().rstrip('.')} (see `{command} --help`)")
        return int(error.exit_code)
    except UnrainError as error:
        _trace(debug)
        complain(str(error))
        return 1
    except Exception as error:  # a bug or a broken installation: still one line, and a way to see more
        _trace(debug)
        complain(f"{type(error).__name__}: {error}" + ("" if debug else " (--debug shows where)"))
        return 1
    if code == 130:
        complain("interrupted")
    return code if isinstance(code, int) else 0


def _trace(debug: bool) -> None:
    if debug:
        traceback.print_exc()


if __name__ == "__main__":
    sys.exit(main())
