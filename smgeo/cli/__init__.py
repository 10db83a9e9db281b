"""The command line: parse, call, print."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from smgeo.cli import data, hpc, maps, study
from smgeo.cli.console import console
from smgeo.cli.stopping import Stop, stopping_in_order
from smgeo.cli.words import check_words, shortened
from smgeo.errors import SmgeoError, SmgeoWarning, printable

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


def main() -> None:
    """Run the command line; an error that the user can fix is one paragraph on stderr, with exit code 1.

    Ctrl-C ends it with exit code 130, SIGTERM with 143, after the sentence that says how to go on.
    """
    with stopping_in_order() as stop:
        try:
            _run("--debug" in sys.argv)
        except BaseException as error:
            # typer turns Ctrl-C into exit code 130; others turn it into errors of their own.
            if stop.code is None and not (isinstance(error, SystemExit) and error.code == _INTERRUPTED):
                raise
            _end(stop)


def _end(stop: Stop) -> NoReturn:
    """Leave without the interpreter's clean-up, which waits for threads in C code and takes no second Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed
            stream.flush()
    stop.end()


def _run(debug: bool) -> None:
    warnings.showwarning = _say_warning
    try:
        check_words(sys.argv[1:])
        hpc.check_words(sys.argv[1:])
        app()
    except SmgeoError as error:
        if debug:
            raise
        print(f"smgeo: {shortened(str(error))}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # a folder that cannot be written to, a file under a file
        if debug or error.filename is None:
            raise
        print(f"smgeo: {shortened(printable(f'{error.strerror}: {error.filename}'))}", file=sys.stderr)
        sys.exit(1)


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
