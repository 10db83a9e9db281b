"""The command line of machines with SLURM: job scripts, site profiles, a SLURM of one machine; parse, call, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from smgeo.cli.console import console
from smgeo.cli.options import DataFolder, RunFolder
from smgeo.errors import SmgeoError

systems = typer.Typer(invoke_without_command=True, help="List the site profiles there are, or write one.")
testbed = typer.Typer(no_args_is_help=True, help="A real SLURM on this machine, to try recipes and job scripts on.")


def check_words(arguments: list[str]) -> None:
    """Refuse a command of the user's own that does not stand after `--`: its options would be taken for those of the job.

    Raises
    ------
    SmgeoError
        If `jobscript ... any` comes without.
    """
    if "jobscript" in arguments and "any" in arguments and "--" not in arguments and "--help" not in arguments:
        raise SmgeoError(
            "any: the command of your own stands after --: smgeo jobscript --system NAME any -- python train.py --epochs 5"
        )


def jobscript_command(
    workload: Annotated[str, typer.Argument(help="run, cube, train, tune, predict or any.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            help="A recipe (several: one task of a job array each); MODEL CUBE OUT; or after -- a command.",
            metavar="ARG...",
        ),
    ] = None,
    system: Annotated[str, typer.Option(help="A site profile, by name or path; `smgeo systems` lists them.")] = "",
    partition: Annotated[str | None, typer.Option(help="The profile's own by default.")] = None,
    nodes: Annotated[int, typer.Option(help="Nodes.")] = 1,
    tasks: Annotated[int | None, typer.Option(help="Of `any`: processes on each node.")] = None,
    cpus: Annotated[int | None, typer.Option(help="CPUs of each node; all by default.")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs of each node; all by default.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory of each node, such as 32G.")] = None,
    time: Annotated[str | None, typer.Option(help="Wall time, HH:MM:SS or D-HH:MM:SS; one hour by default.")] = None,
    account: Annotated[str | None, typer.Option(help="The project that pays.")] = None,
    qos: Annotated[str | None, typer.Option(help="Quality of service.")] = None,
    job_name: Annotated[str | None, typer.Option(help="Name of the job and of its log.")] = None,
    array: Annotated[str | None, typer.Option(help="Of `any`: tasks of a job array, such as 0-9.")] = None,
    dependency: Annotated[str | None, typer.Option(help="Such as afterok:123.")] = None,
    mail: Annotated[str | None, typer.Option(help="Address for SLURM's mail.")] = None,
    mail_type: Annotated[
        list[str] | None, typer.Option(help="END, FAIL and REQUEUE by default (again for more).")
    ] = None,
    venv: Annotated[
        str | None, typer.Option(help="Python environment to activate; the Python of this command by default.")
    ] = None,
    conda: Annotated[str | None, typer.Option(help="Conda environment to activate.")] = None,
    container: Annotated[str | None, typer.Option(help="Apptainer image to run in.")] = None,
    launcher: Annotated[
        str | None, typer.Option(help="Of `any`: srun, pytorch-ddp, horovod, deepspeed or tensorflow.")
    ] = None,
    stop_before: Annotated[
        int | None, typer.Option(help="Seconds before the wall time's end at which the job is told to stop.")
    ] = None,
    restarts: Annotated[int | None, typer.Option(help="How often the job may go back to the queue by itself.")] = None,
    out: RunFolder = None,
    data: DataFolder = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Of train and tune: a model of the recipe (again for more).")
    ] = None,
    more: Annotated[list[str] | None, typer.Option(help="One more word for smgeo's command (again for more).")] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Submit it, and print the job's number.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Check it by bash and, where it is, by SLURM.")] = False,
) -> None:
    """Write a SLURM batch script to standard output, check it, or submit it."""
    from smgeo.hpc.jobs.script import check_script, jobscript, submit_script

    if not system:
        raise SmgeoError(
            "--system is missing: give a site profile; `smgeo systems` lists them, and `generic` fits any SLURM"
        )
    options: dict[str, Any] = {
        "partition": partition,
        "nodes": nodes,
        "tasks": tasks,
        "cpus": cpus,
        "gpus": gpus,
        "memory": memory,
        "time": time,
        "account": account,
        "qos": qos,
        "job_name": job_name,
        "array": array,
        "dependency": dependency,
        "mail": mail,
        "mail_type": mail_type or None,
        "venv": venv,
        "conda": conda,
        "container": container,
        "launcher": launcher,
        "stop_before_s": stop_before,
        "restarts": restarts,
    }
    text = jobscript(
        system, workload, *(arguments or ()), out=out, data=data, models=model or (), extra=more or (), **options
    )
    if check:
        for line in check_script(text):
            print(line, file=sys.stderr)
    if submit:
        number = submit_script(text)
        print(number)
        name = next(line for line in text.splitlines() if line.startswith("#SBATCH --output=")).partition("=")[2]
        log = name.replace("%j", str(number)).replace("%A", str(number)).replace("%a", "TASK")
        print(f"submitted; its log will be {log}, in this folder", file=sys.stderr)
    elif not check:
        print(text, end="")


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
    name: Annotated[str, typer.Argument(help="How the system is called.")],
    out: Annotated[Path | None, typer.Option(help="The file; ~/.config/smgeo/sites/NAME.yaml by default.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Take what SLURM says and the defaults, and ask nothing.")] = False,
) -> None:
    """Write a site profile: what SLURM says of the machine where it runs, and what it asks you."""
    from smgeo.hpc.sites.new_profile import check_new, describe_site, read_partitions, write_site
    from smgeo.hpc.sites.profile import user_folder

    path = out or user_folder() / f"{name}.yaml"
    check_new(path)
    partitions, default = read_partitions()
    if partitions:
        console.print(f"SLURM here has {len(partitions)} partition(s): {', '.join(partitions)}", markup=False)
    else:
        console.print(
            "SLURM does not answer here, so partitions are left out; run this on a login node, or write them in by hand",
            markup=False,
        )

    def ask(question: str, value: str) -> str:
        return value if yes else str(typer.prompt(question, default=value, show_default=bool(value)))

    answers = {
        "title": ask("What is it (name, centre)", name),
        "default_partition": ask("Default partition", default) if partitions else "",
        "account_required": "yes"
        if not yes and typer.confirm("Must a job name a project's account?", default=False)
        else "",
        "modules": ask("Modules to load, with spaces between (empty for none)", ""),
        "venv": ask("Python environment to activate (empty for the Python of each command)", ""),
        "host_suffix": ask("Suffix of a node's name on the fast network (empty for none)", ""),
        "scratch": ask("Scratch folder of each node (empty for /tmp)", ""),
        "internet": "yes" if not yes and typer.confirm("Do compute nodes reach the internet?", default=False) else "",
    }
    file = write_site(describe_site(name, partitions, answers), path)
    system = file if out else name
    console.print(f"profile: {file}; try it: smgeo jobscript --system {system} --check run quickstart", markup=False)


_TestbedFolder = Annotated[Path, typer.Option(help="Holds all that it writes.")]
_TESTBED = Path("~/.cache/smgeo/testbed")


@testbed.command("start")
def start_command(
    folder: _TestbedFolder = _TESTBED,
    nodes: Annotated[int, typer.Option(help="Nodes, all of them this machine.")] = 2,
    cpus: Annotated[int, typer.Option(help="CPUs of each node, as SLURM counts them.")] = 4,
    memory_mb: Annotated[int, typer.Option(help="Memory of each node, as SLURM counts it.")] = 8192,
) -> None:
    """Start SLURM on this machine; it needs Debian's slurm-wlm and munge, no root, and no system service."""
    from smgeo.hpc.sites.testbed import start_testbed

    config = start_testbed(folder, nodes, cpus, memory_mb)
    console.print(f"export SLURM_CONF={config}", markup=False)
    print(
        "SLURM is up; set the variable above in your shell, then sinfo, sbatch and `smgeo ... testbed` use it",
        file=sys.stderr,
    )


@testbed.command("stop")
def stop_command(folder: _TestbedFolder = _TESTBED) -> None:
    """Cancel its jobs and end it."""
    from smgeo.hpc.sites.testbed import stop_testbed

    ended = stop_testbed(folder)
    console.print("SLURM is stopped" if ended else f"no SLURM is at work in {folder}", markup=False)
