"""`unrain demo`: a page on this machine to try it on."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from ..engine.errors import UnrainError
from ..engine.models import WEIGHTS, models
from ..opening import DEFAULT_MODEL, load_model, pick_device
from .interrupts import interrupt


def command(
    name: Annotated[
        str, typer.Option("-n", "--name", "--model", help="The model the page begins with, or a weights file.")
    ] = DEFAULT_MODEL,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8765,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, max=1024, help="CPU threads; by default all.")
    ] = None,
    max_upload: Annotated[int, typer.Option("--max-upload", min=1, help="Megabytes of one file.")] = 50,
    max_pixels: Annotated[
        int, typer.Option("--max-pixels", min=64, help="Refuse pictures, and clips with frames, of more pixels.")
    ] = 25_000_000,
    max_frames: Annotated[int, typer.Option("--max-frames", min=1, help="Take so many frames of a clip.")] = 150,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve a page to try it: drop a picture or a clip, and slide between before and after.

    Only this machine can reach it (127.0.0.1). Uploads lie in a temporary folder until the page has shown the result,
    or until ctrl-C ends the server.
    """
    from ..page.server import Server
    from ..page.wiping import Wiper

    if device != "auto":
        pick_device(device)
    wiper = Wiper(_offered(name), device, threads, max_pixels, max_frames)
    try:
        server = Server(wiper, port, max_upload * 10**6)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UnrainError(f"port {port} cannot be used: {reason}; --port 0 takes a free one") from error
    signal.signal(signal.SIGTERM, interrupt)  # a service manager's end removes the uploads too
    try:
        typer.echo(f"{server.url} is ready; ctrl-C ends it")
        if browser:
            typer.launch(server.url)
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()


def _offered(first: str) -> dict[str, str]:
    """What the page may choose, the first one chosen: the shipped networks, and a weights file given here."""
    shipped = {name: name for name in models() if (WEIGHTS / f"{name}.safetensors").is_file()}
    if first in shipped:
        return {first: first, **shipped}
    if not Path(first).is_file():
        raise UnrainError(
            f"{first} is neither a network with shipped weights ({', '.join(shipped)}) nor a weights file"
        )
    load_model(first)  # a mistake is said here, not on the page
    return {Path(first).name: first, **shipped}
