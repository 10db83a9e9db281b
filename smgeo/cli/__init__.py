"""The command line: parse, call, print."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from smgeo.cli import data, hpc, maps, study
from smgeo.cli.console import console
from smgeo.cli.stopping import Stopping
from smgeo.errors import SmgeoError, SmgeoWarning

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
    """Run the command line; an error that the user can fix is one paragraph on stderr, with exit code 1."""
    debug = "--debug" in sys.argv
    warnings.showwarning = _say_warning
    with Stopping() as stopping:
        try:
            hpc.check_words(sys.argv[1:])
            app()
        except BaseException as error:
            stopping.exit_if_asked(error)
            if debug or not (words := _say_error(error)):
                raise
            print(f"smgeo: {words}", file=sys.stderr)
            sys.exit(1)


def _say_error(error: BaseException) -> str | None:
    """Return words for an error that the user can fix; None for others."""
    if isinstance(error, SmgeoError):
        return str(error)
    if (
        isinstance(error, OSError) and error.filename is not None
    ):  # a folder that cannot be written to, a file under a file
        return f"{error.strerror}: {error.filename}"
    return None


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
