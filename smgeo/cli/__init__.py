"""The command line: parse, call, print."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Annotated

import typer

from smgeo.cli import data, hpc, maps, study
from smgeo.cli.console import console
from smgeo.errors import SmgeoError, SmgeoWarning

_INTERRUPTED = 130


app = typer.Typer(
    name="smgeo",
    help="Surface soil moisture at high resolution: from stations and rasters to maps with honest scores.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        import importlib.metadata
        import platform

        console.print(
            f"smgeo {importlib.metadata.version('smgeo')}, Python {platform.python_version()}, {platform.node()}"
        )
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print versions and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    context.obj = {"debug": debug}


def _say_warning(message: Warning | str, category: type[Warning], *where: object, **more: object) -> None:
    """Print a warning as one line on stderr; its place in the code does not help users."""
    said = "warning: " if issubclass(category, SmgeoWarning) else f"{category.__name__}: "
    print(f"smgeo: {said}{message}", file=sys.stderr)


def _stop_in_order(number: int, frame: FrameType | None) -> None:
    """End a command on SIGTERM (a job that is asked to stop) as Ctrl-C does: finished work is kept, and workers end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not end the clean-up
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's command in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)


def main() -> None:
    """Run the command line; an error that the user can fix is one paragraph on stderr, with exit code 1."""
    debug = "--debug" in sys.argv
    warnings.showwarning = _say_warning
    signal.signal(signal.SIGTERM, _stop_in_order)
    try:
        hpc.check_words(sys.argv[1:])
        app()
    except SmgeoError as error:
        if debug:
            raise
        print(f"smgeo: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # a folder that cannot be written to, a file under a file
        if debug or error.filename is None:
            raise
        print(f"smgeo: {error.strerror}: {error.filename}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as stop:
        # typer silently turns Ctrl-C into exit code 130.
        if stop.code == _INTERRUPTED:
            print("smgeo: interrupted; the same command again continues where this one stopped", file=sys.stderr)
        raise


COMMANDS: dict[str, Callable[..., None]] = {
    "run": study.run_command,
    "cube": study.cube_command,
    "tune": study.tune_command,
    "train": study.train_command,
    "simulate": data.simulate_command,
    "features": data.features_command,
    "predict": maps.predict_command,
    "show": maps.show_command,
    "evaluate": maps.evaluate_command,
    "audit": study.audit_command,
    "report": study.report_command,
    "info": data.info_command,
    "jobscript": hpc.jobscript_command,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(hpc.systems, name="systems")
app.add_typer(hpc.testbed, name="testbed")
