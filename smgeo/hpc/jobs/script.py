"""Write SLURM batch scripts for a site from a template, check them and submit them."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from smgeo.errors import SmgeoError, nearest
from smgeo.hpc.jobs.request import JobHeader, JobRequest, fit_request
from smgeo.hpc.sites.profile import Site, load_site
from smgeo.hpc.sites.slurm import LATE, run_slurm
from smgeo.hpc.sites.templates import fill_template
from smgeo.recipe.spec import parse_spec
from smgeo.recipe.study import Recipe, read_recipe

# Messages of SLURM's programs where none is configured, or its controller is down.
_NO_SLURM = ("configuration source", "Unable to contact slurm controller")
_START_ONE = (
    "run this on a login node, or start a SLURM on this machine (`smgeo testbed start`) and set SLURM_CONF as it prints"
)
# As smgeo writes them, and dask-jobqueue.
_ACCOUNT = re.compile(r"^#SBATCH (?:--account=|-A )", re.MULTILINE)
_JOB_NAME = re.compile(r"^#SBATCH (?:--job-name=|-J )(\S+)", re.MULTILINE)


def jobscript(
    system: str | Path,
    workload: str,
    *arguments: str | Path,
    recipe: str | Path | Sequence[str | Path] = (),
    command: Sequence[str] = (),
    out: str | Path | None = None,
    data: str | Path | None = None,
    models: Sequence[str] = (),
    extra: Sequence[str] = (),
    **options: object,
) -> str:
    """Return a SLURM batch script.

    Parameters
    ----------
    system : str or Path
        A site profile, by its name or the path of its file (`smgeo systems` lists the names).
    workload : {"run", "cube", "train", "tune", "predict", "any"}
        Job to do: a whole recipe, its cubes, the training of its models, the search of their parameters; a map of a model;
        or the user's own program.
    *arguments : str or Path
        A recipe, or several, each in one task of a job array; for `predict` the model, the cube and the output; for `any` the
        command.
    recipe, command
        The same by name.
    out, data : str or Path, optional
        As for `smgeo run`.
    models : sequence of str
        For `train` and `tune`: models of the recipe, by default all.
    extra : sequence of str
        Extra arguments for the command of smgeo, such as `["--trials", "50"]`.
    **options
        `partition`, `nodes`, `tasks`, `cpus`, `gpus`, `memory`, `time`, `account`, `qos`, `constraint`, `job_name`, `array`, `dependency`, `mail`,
        `mail_type`, `venv`, `conda`, `container`, `launcher`, `stop_before_s`, `restarts`: the fields of `JobRequest`.

    Raises
    ------
    SmgeoError
        If a value is invalid or exceeds a limit of the site; the message names the limit.

    Examples
    --------
    >>> print(jobscript("juwels", "any", "python", "x.py", account="soil", nodes=2).splitlines()[1])
    #SBATCH --job-name=any
    """
    site = load_site(system)
    if workload not in _WORKLOADS:
        raise SmgeoError(
            f"unknown workload {workload!r}; {nearest(workload, list(_WORKLOADS))} (all: {', '.join(_WORKLOADS)})"
        )
    request = parse_spec(JobRequest, {k: v for k, v in options.items() if v is not None}, "jobscript")
    recipes = [recipe] if isinstance(recipe, str | Path) else list(recipe)
    words = tuple(str(w) for w in (*arguments, *recipes, *command))
    for word in (*words, *extra, *models, *(str(v) for v in (out, data) if v is not None)):
        if "\0" in word or "\n" in word:
            raise SmgeoError(
                f"an argument of the command contains a line break or a zero byte: {word!r}; rename the file, or leave it out"
            )
    header = fit_request(request, site, workload)
    job = _Job(workload, words, str(system), site, request, header, out, data, tuple(models), tuple(extra))
    template, own = _WORKLOADS[workload](job)
    return fill_template(f"templates/{template}", {**_common_values(job), **own})


@dataclass(frozen=True)
class _Job:
    """Arguments of `jobscript`, checked as far as all workloads have them in common."""

    workload: str
    words: tuple[str, ...]
    system: str
    site: Site
    request: JobRequest
    header: JobHeader
    out: str | Path | None
    data: str | Path | None
    models: tuple[str, ...]
    extra: tuple[str, ...]

    def name(self, text: str) -> str:
        """Return the name of the job, by default made from `text`."""
        return self.request.job_name or re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:60]


# The name of a template, and the values that only this workload has.
_Filled = tuple[str, dict[str, object]]


def _common_values(job: _Job) -> dict[str, object]:
    """Return the values of a template that do not depend on the workload."""
    site, request = job.site, job.request
    return {
        **request.model_dump(include={"qos", "dependency", "mail", "launcher", "array"}),
        **asdict(job.header),
        "mail_type": ",".join(request.mail_type),
        "site": site.name,
        "verified": site.verified,
        "version": importlib.metadata.version("smgeo"),
        "setup": site.setup,
        "variables": site.variables,
        "directives": site.directives,
        **_environment(request, site),
        "srun": site.launcher.srun,
        "mpi": site.launcher.mpi,
        "host_suffix": site.network.host_suffix,
    }


def _environment(request: JobRequest, site: Site) -> dict[str, str | None]:
    """Return the one of `venv`, `conda` and `container` that applies, the request's before the site's, and the Python in it."""
    asked = {k: getattr(request, k) for k in ("venv", "conda", "container")}
    if not any(asked.values()):
        asked = {k: getattr(site, k) for k in asked}
    return {**asked, "python": "python" if any(asked.values()) else sys.executable}


def _fill_any(job: _Job) -> _Filled:
    if not job.words:
        raise SmgeoError(
            "any: give the command that the job runs, after --: smgeo jobscript --system NAME any -- python train.py"
        )
    return "any.sh.j2", {"words": job.words, "job_name": job.name("any")}


def _fill_predict(job: _Job) -> _Filled:
    if len(job.words) != 3:
        raise SmgeoError(f"predict takes MODEL CUBE OUT; got {len(job.words)} ({' '.join(job.words)})")
    if job.request.array is not None:
        raise SmgeoError("--array: predict writes one map, and each task would write the same; leave it out")
    spread = job.header.nodes > 1
    return _smgeo(job, [], [*job.words, *_cluster(job, spread)], spread, "predict")


def _fill_recipes(job: _Job) -> _Filled:
    """Fill in `run` and `cube`."""
    recipes = _read_recipes(job)
    if job.models:
        raise SmgeoError(f"--model applies only to train and tune; {job.workload} uses all models of the recipe")
    return _fill_recipe(job, recipes, spread=job.header.nodes > 1)


def _fill_tune(job: _Job) -> _Filled:
    return _fill_recipe(job, _read_recipes(job), spread=job.header.nodes > 1)


def _fill_train(job: _Job) -> _Filled:
    recipes, ranks = _read_recipes(job), job.header.ranks
    for recipe in recipes:
        if job.request.nodes > 1 and not recipe.networks & set(job.models or recipe.models):
            raise SmgeoError(
                f"--nodes {job.request.nodes}: only networks are trained by several processes, and recipe {recipe.name!r} trains "
                "none; ask for 1"
            )
    return _fill_recipe(job, recipes, spread=ranks > 1, workers=("--workers", str(ranks)) if ranks > 1 else ())


def _fill_recipe(job: _Job, recipes: Sequence[Recipe], spread: bool, workers: Sequence[str] = ()) -> _Filled:
    """Fill in a command of smgeo that takes recipes; several recipes become the tasks of a job array."""
    given = [
        w for name, value in (("--out", job.out), ("--data", job.data)) if value is not None for w in (name, str(value))
    ]
    given += [w for name in job.models for w in ("--model", name)]
    words = [*given, *_cluster(job, spread), *workers]
    template, values = _smgeo(job, job.words, words, spread, f"{job.workload}-{recipes[0].name}")
    return template, {**values, "array": f"0-{len(recipes) - 1}" if len(recipes) > 1 else None}


def _smgeo(job: _Job, recipes: Sequence[str], words: Sequence[str], spread: bool, name: str) -> _Filled:
    values: dict[str, object] = {
        "workload": job.workload,
        "recipes": list(recipes),
        "words": [*words, *job.extra],
        "spread": spread,
        "job_name": job.name(name),
    }
    return "smgeo.sh.j2", values


def _cluster(job: _Job, spread: bool) -> tuple[str, ...]:
    """Return the options that let smgeo start processes on the other nodes of its job."""
    if not spread:
        return ()
    if job.request.container or job.site.container:
        raise SmgeoError(
            "--container: processes on several nodes (or GPUs) would be started outside of it; ask for one node, or give --venv instead"
        )
    return ("--cluster", job.system)


def _read_recipes(job: _Job) -> list[Recipe]:
    """Read the recipes of a job, and check that they can share it and have its models."""
    if not job.words:
        raise SmgeoError(f"{job.workload} takes a recipe; got none")
    if job.request.array is not None:
        raise SmgeoError(
            f"--array: every task would {job.workload} the same recipe in the same folder; give several recipes, and each becomes "
            "a task"
        )
    recipes = [read_recipe(word) for word in job.words]
    if len(recipes) > 1 and job.out is not None:
        raise SmgeoError(
            f"--out {job.out}: {len(recipes)} recipes cannot share a folder; leave it out, and each gets runs/NAME"
        )
    if len({r.name for r in recipes}) < len(recipes):
        raise SmgeoError(
            "the recipes of a job array must have different names, because their folders are named after them"
        )
    for recipe in recipes:
        for name in job.models:
            if name not in recipe.models:
                raise SmgeoError(
                    f"--model {name!r} is not in the recipe's models; {nearest(name, list(recipe.models))}"
                )
    return recipes


_WORKLOADS: dict[str, Callable[[_Job], _Filled]] = {
    "run": _fill_recipes,
    "cube": _fill_recipes,
    "train": _fill_train,
    "tune": _fill_tune,
    "predict": _fill_predict,
    "any": _fill_any,
}


def check_script(text: str) -> list[str]:
    """Check a script with `bash -n` and, where SLURM is available, `sbatch --test-only`; return one line per check.

    Raises
    ------
    SmgeoError
        With the message of bash or SLURM.
    """
    _run(["bash", "-n"], text, "bash does not accept the script")
    report = ["bash -n: no errors"]
    if shutil.which("sbatch"):
        answer = _run(["sbatch", "--test-only"], text, "SLURM does not accept the script")
        report.append(f"sbatch --test-only: {answer.strip()}")
    else:
        report.append("sbatch was not found, so SLURM did not check the script")
    return report


def submit_script(text: str) -> int:
    """Submit a script from the current folder, and return the number of the job.

    Raises
    ------
    SmgeoError
        If there is no `sbatch`, SLURM refuses the job, or it does not answer in time: then the job may be in the queue all the same,
        because sbatch may have handed it over before it gave up.
    """
    if not shutil.which("sbatch"):
        raise SmgeoError(
            "sbatch was not found, so nothing was submitted: run this on a login node of the system, or write the script to a file "
            "and submit it there"
        )
    return int(_run(["sbatch", "--parsable"], text, "SLURM does not accept the job", submits=True).split(";")[0])


def _run(command: Sequence[str], text: str, what: str, *, submits: bool = False) -> str:
    # Variables of a job in which this is called, and those of sbatch itself, would override options of the script.
    kept = ("SLURM_CONF", "SLURM_JWT", *(() if _ACCOUNT.search(text) else ("SBATCH_ACCOUNT",)))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_")) or k in kept}
    try:
        done = run_slurm(command, text, environment, again=not submits)
    except SmgeoError as error:
        raise SmgeoError(f"{error}{_perhaps(text)}" if submits else str(error)) from None
    message = " ".join((done.stderr or done.stdout).split())
    no_slurm = any(words in message for words in _NO_SLURM)
    if done.returncode and submits and any(words in message for words in LATE):
        elsewhere = f". Where there is no SLURM, {_START_ONE}" if no_slurm else ""
        raise SmgeoError(f"SLURM did not answer in time ({message}){_perhaps(text)}{elsewhere}")
    if done.returncode and no_slurm:
        raise SmgeoError(f"no SLURM answers here ({message}); {_START_ONE}")
    if done.returncode:
        raise SmgeoError(f"{what}: {message}")
    return done.stdout or done.stderr


def _perhaps(text: str) -> str:
    """Return how to find out whether a job was submitted."""
    name = _JOB_NAME.search(text)
    look = f"squeue --me{f' --name={name[1]}' if name else ''}"
    return f"; the job may have been accepted all the same: look with `{look}` before you submit it again"
