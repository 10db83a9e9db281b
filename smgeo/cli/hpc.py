"""Commands for SLURM machines: job scripts, site profiles, and a SLURM on one machine."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from smgeo.cli.console import console
from smgeo.cli.options import DataFolder, RunFolder
from smgeo.errors import SmgeoError
from smgeo.files import JsonObject

if TYPE_CHECKING:
    from smgeo.hpc.sites.new_profile import Draft, Partition

systems = typer.Typer(invoke_without_command=True, help="List site profiles, or write a new one.")
testbed = typer.Typer(
    no_args_is_help=True, help="Start or stop a SLURM on this machine, to try recipes and job scripts."
)


def check_words(arguments: list[str]) -> None:
    """Refuse a user's own command that is not after `--`: its options would be read as those of the job.

    Raises
    ------
    SmgeoError
        If `jobscript ... any` has no `--`.
    """
    if "jobscript" in arguments and "any" in arguments and "--" not in arguments and "--help" not in arguments:
        raise SmgeoError(
            "any: put your own command after --: smgeo jobscript --system NAME any -- python train.py --epochs 5"
        )


# Options of `jobscript` that become fields of a `JobRequest`: type and help.
_JOB_OPTIONS: dict[str, tuple[object, str]] = {
    "partition": (str | None, "Partition, or several (a,b); the default one of the profile by default."),
    "nodes": (int | None, "Number of nodes; 1 by default."),
    "tasks": (int | None, "Number of processes on each node (only for `any`)."),
    "cpus": (int | None, "CPUs of each node; all by default."),
    "gpus": (int | None, "GPUs of each node; all by default."),
    "memory": (str | None, "Memory of each node, such as 32G."),
    "time": (str | None, "Wall time, HH:MM:SS or D-HH:MM:SS; one hour by default."),
    "account": (str | None, "Project account."),
    "qos": (str | None, "Quality of service."),
    "constraint": (str | None, "Features that the nodes must have; those of the partition by default."),
    "job_name": (str | None, "Name of the job and of its log."),
    "array": (str | None, "Tasks of a job array, such as 0-9 (only for `any`)."),
    "dependency": (str | None, "Jobs to wait for, such as afterok:123."),
    "mail": (str | None, "Address for SLURM's mail."),
    "mail_type": (list[str] | None, "Type of mail (repeatable); END, FAIL and REQUEUE by default."),
    "venv": (str | None, "Python environment to activate; the Python of this command by default."),
    "conda": (str | None, "Conda environment to activate."),
    "container": (str | None, "Apptainer image to run in."),
    "launcher": (str | None, "Launcher: srun, pytorch-ddp, horovod, deepspeed or tensorflow (only for `any`)."),
    "stop_before": (int | None, "Seconds before the end of the wall time at which the job is asked to stop."),
    "restarts": (int | None, "Number of times that the job may go back to the queue by itself."),
}


def _with_job_options(command: Callable[..., None]) -> Callable[..., None]:
    """Put the job's options in place of `**job` in the signature, where typer looks for them."""
    own = inspect.signature(command, eval_str=True)
    job = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, typer.Option(help=text)]
        )
        for name, (kind, text) in _JOB_OPTIONS.items()
    ]
    given = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    signature = own.replace(parameters=[*given, *job])
    command.__signature__ = signature  # type: ignore[attr-defined]  # any function may have one
    command.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
    return command


@_with_job_options
def jobscript_command(
    workload: Annotated[str, typer.Argument(help="run, cube, train, tune, predict or any.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            help="Recipe (several become the tasks of a job array); MODEL CUBE OUT; or a command after --.",
            metavar="ARG...",
        ),
    ] = None,
    *,
    system: Annotated[str, typer.Option(help="Site profile, by name or path; `smgeo systems` lists them.")] = "",
    out: RunFolder = None,
    data: DataFolder = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Model of the recipe (repeatable; only for train and tune).")
    ] = None,
    more: Annotated[list[str] | None, typer.Option(help="Extra argument for smgeo (repeatable).")] = None,
    submit: Annotated[
        bool, typer.Option("--submit", help="Submit the script, and print the number of the job.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Check the script with bash, and with SLURM if available.")
    ] = False,
    **job: object,
) -> None:
    """Write a SLURM batch script to standard output, check it, or submit it."""
    from smgeo.hpc.jobs.script import check_script, jobscript, submit_script

    if not system:
        raise SmgeoError(
            "--system is missing: give a site profile; `smgeo systems` lists them, and `generic` fits any SLURM"
        )
    options: JsonObject = {name: value or None if isinstance(value, list) else value for name, value in job.items()}
    options["stop_before_s"] = options.pop("stop_before", None)
    text = jobscript(
        system, workload, *(arguments or ()), out=out, data=data, models=model or (), extra=more or (), **options
    )
    if check:
        for line in check_script(text):
            print(line, file=sys.stderr)
    if submit:
        number = submit_script(text)
        print(number)
        print(f"submitted; the log will be {_log_name(text, number)}, in this folder", file=sys.stderr)
    elif not check:
        print(text, end="")


def _log_name(script: str, number: int) -> str:
    name = next(line for line in script.splitlines() if line.startswith("#SBATCH --output=")).partition("=")[2]
    return name.replace("%j", str(number)).replace("%A", str(number)).replace("%a", "TASK")


@systems.callback()
def _list_systems(context: typer.Context) -> None:
    if context.invoked_subcommand is not None:
        return
    from smgeo.hpc.sites.profile import find_sites, load_site, user_folder

    table = Table("name", "system", "partition", "nodes", "cores", "GPUs", "wall time", "account", "tried", "source")
    for name, file in find_sites().items():
        try:
            site = load_site(name)
        except SmgeoError as error:  # one bad file must not hide the others
            print(f"smgeo: {error}", file=sys.stderr)
            continue
        source = str(file) if file.parent == user_folder() else site.source
        for partition, limits in (site.partitions or {"SLURM's own": site.partition()[1]}).items():
            first = partition == (site.default_partition or "SLURM's own")
            known = (limits.nodes, limits.cores, limits.gpus, limits.time_limit)
            table.add_row(
                name,
                site.title if first else "",
                f"{partition}{' (default)' if first else ''}",
                *("?" if v is None else str(v) for v in known),
                "required" if site.account_required else "",
                "yes" if site.verified else "no",
                source if first else "",
            )
    console.print(table)


@systems.command("new")
def new_system_command(
    name: Annotated[str, typer.Argument(help="Name of the system.")],
    out: Annotated[Path | None, typer.Option(help="File to write; ~/.config/smgeo/sites/NAME.yaml by default.")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Use the defaults and what SLURM reports, without questions.")
    ] = False,
) -> None:
    """Write a site profile from what SLURM reports on this machine and from your answers, which are kept as they come."""
    from smgeo.hpc.sites.new_profile import Draft, check_new, describe_site, read_partitions, write_site
    from smgeo.hpc.sites.profile import user_folder

    path = out or user_folder() / f"{name}.yaml"
    check_new(name, path)
    partitions, default, left_out = read_partitions()
    for words in left_out:
        console.print(f"left out: {words}", markup=False)
    if partitions:
        console.print(f"SLURM here has {len(partitions)} partition(s): {', '.join(partitions)}", markup=False)
    else:
        console.print(
            "SLURM does not answer here, so partitions are left out; run this on a login node, or add them by hand",
            markup=False,
        )

    draft, answers = Draft(path), {"default_partition": default}
    if not yes:
        _ask_about_site(name, path, partitions, answers, draft)
    file = write_site(describe_site(name, partitions, answers), path, draft)
    system = file if out else name
    console.print(f"profile: {file}; try it: smgeo jobscript --system {system} --check run quickstart", markup=False)


def _ask_about_site(
    name: str, path: Path, partitions: Mapping[str, Partition], answers: dict[str, str], draft: Draft
) -> None:
    """Ask what SLURM does not know; `answers` are filled in and written to the draft one by one."""
    from smgeo.hpc.sites.new_profile import describe_site, read_last_draft

    last, before = read_last_draft(path)
    if last is not None:
        console.print(f"defaults are the answers in {last}; a space clears one", markup=False)

    def ask(key: str, question: str, value: str = "") -> None:
        default = before.get(key, value)
        answers[key] = str(typer.prompt(question, default=default, show_default=bool(default)))
        draft.write(describe_site(name, partitions, answers))

    def confirm(key: str, question: str) -> None:
        answers[key] = "yes" if typer.confirm(question, default=bool(before.get(key))) else ""
        draft.write(describe_site(name, partitions, answers))

    try:
        ask("title", "Title (name, centre)", name)
        if partitions:
            ask("default_partition", "Default partition", answers["default_partition"])
        confirm("account_required", "Does a job need a project account?")
        ask("modules", "Modules to load, separated by spaces (empty for none)")
        ask("venv", "Python environment to activate (empty for the Python that writes the script)")
        ask("host_suffix", "Suffix of a node's name on the fast network (empty for none)")
        ask("scratch", "Scratch folder of each node (empty for /tmp)")
        if partitions:
            confirm("internet", "Do compute nodes reach the internet?")
    except (KeyboardInterrupt, typer.Abort):
        if draft.file is not None:
            print(f"\nsmgeo: your answers so far are kept in {draft.file}", file=sys.stderr)
        raise


_TestbedFolder = Annotated[Path, typer.Option(help="Folder for everything that it writes.")]
_TESTBED = Path("~/.cache/smgeo/testbed")


@testbed.command("start")
def start_command(
    folder: _TestbedFolder = _TESTBED,
    nodes: Annotated[int, typer.Option(min=1, max=64, help="Number of nodes, all of them on this machine.")] = 2,
    cpus: Annotated[int, typer.Option(min=1, max=1024, help="CPUs of each node, as SLURM counts them.")] = 4,
    memory_mb: Annotated[
        int, typer.Option(min=1, max=2**30, help="Memory of each node in MB, as SLURM counts it.")
    ] = 8192,
) -> None:
    """Start SLURM on this machine, without root and without a system service; it needs Debian's slurm-wlm and munge."""
    from smgeo.hpc.sites.testbed import start_testbed

    config = start_testbed(folder, nodes, cpus, memory_mb)
    console.print(f"export SLURM_CONF={config}", markup=False)
    print(
        "SLURM is up; run the line above in your shell, then sinfo, sbatch and `smgeo ... testbed` use it",
        file=sys.stderr,
    )


@testbed.command("stop")
def stop_command(folder: _TestbedFolder = _TESTBED) -> None:
    """Cancel all jobs of the testbed and stop it."""
    from smgeo.hpc.sites.testbed import stop_testbed

    ended = stop_testbed(folder)
    console.print("SLURM is stopped" if ended else f"no SLURM is running in {folder}", markup=False)
