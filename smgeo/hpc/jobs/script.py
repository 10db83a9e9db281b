"""SLURM batch scripts for a site: checked, quoted, written from a template; their check and their submission."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smgeo.errors import SmgeoError, nearest
from smgeo.hpc.jobs.request import WORKLOADS, JobRequest, fit_request
from smgeo.hpc.sites.profile import Site, load_site
from smgeo.hpc.sites.templates import fill_template
from smgeo.recipe.spec import parse_spec
from smgeo.recipe.study import read_recipe

# What SLURM's programs say where none is configured, or its controller is down.
_NO_SLURM = ("configuration source", "Unable to contact slurm controller")


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
    **options: Any,
) -> str:
    """A SLURM batch script.

    Parameters
    ----------
    system : str or Path
        A site profile, by its name or by the path of its file (`smgeo systems` lists those there are).
    workload : {"run", "cube", "train", "tune", "predict", "any"}
        What the job does: a whole recipe, its cubes, the training of its models, the search of their parameters; a map by a model;
        or the user's own program.
    *arguments : str or Path
        A recipe, or several, each in a task of a job array; of `predict` the model, the cube and the output; of `any` the command.
    recipe, command
        The same by name.
    out, data : str or Path, optional
        As for `smgeo run`.
    models : sequence of str
        Of `train` and `tune`: models of the recipe, by default all.
    extra : sequence of str
        More words for the command of smgeo, such as `["--trials", "50"]`.
    **options
        `partition`, `nodes`, `tasks`, `cpus`, `gpus`, `memory`, `time`, `account`, `qos`, `job_name`, `array`, `dependency`, `mail`,
        `mail_type`, `venv`, `conda`, `container`, `launcher`, `stop_before_s`, `restarts`: the fields of `JobRequest`.

    Raises
    ------
    SmgeoError
        If a value is not as it must be, or beyond what the site allows; the message names the limit.

    Examples
    --------
    >>> print(jobscript("juwels", "any", "python", "x.py", account="soil", nodes=2).splitlines()[1])
    #SBATCH --job-name=any
    """
    site = load_site(system)
    if workload not in WORKLOADS:
        raise SmgeoError(f"unknown workload {workload!r}; {nearest(workload, WORKLOADS)} (all: {', '.join(WORKLOADS)})")
    request = parse_spec(JobRequest, {k: v for k, v in options.items() if v is not None}, "jobscript")
    recipes = [recipe] if isinstance(recipe, str | Path) else list(recipe)
    words = [str(w) for w in (*arguments, *recipes, *command)]
    for word in (*words, *extra, *models, *(str(v) for v in (out, data) if v is not None)):
        if "\0" in word or "\n" in word:
            raise SmgeoError(
                f"a word of the command holds a line break or a zero byte: {word!r}; rename the file, or leave it out"
            )
    header = fit_request(request, site, workload)
    values = {
        **request.model_dump(include={"qos", "dependency", "mail", "launcher", "array"}),
        **header,
        "mail_type": ",".join(request.mail_type),
        "site": site.name,
        "verified": site.verified,
        "version": importlib.metadata.version("smgeo"),
        "gpu_option": site.gpu_option,
        "modules": site.modules,
        "setup": site.setup,
        "variables": site.variables,
        "directives": site.directives,
        **_environment(request, site),
        "srun": site.launcher.srun,
        "mpi": site.launcher.mpi,
        "host_suffix": site.network.host_suffix,
    }
    if workload == "any":
        if not words:
            raise SmgeoError(
                "any: give the command that the job runs, after --: smgeo jobscript --system NAME any -- python train.py"
            )
        values |= {"words": words, "job_name": request.job_name or _job_name("any")}
        return fill_template("templates/any.sh.j2", values)
    return fill_template(
        "templates/smgeo.sh.j2",
        values | _smgeo_words(workload, words, site, system, header, request, out, data, models, extra),
    )


def _smgeo_words(
    workload: str,
    words: list[str],
    site: Site,
    system: str | Path,
    header: dict[str, Any],
    request: JobRequest,
    out: str | Path | None,
    data: str | Path | None,
    models: Sequence[str],
    extra: Sequence[str],
) -> dict[str, Any]:
    """The command of a workload of smgeo, and what depends on it: recipes are a job array where there are several."""
    options = [w for name, value in (("--out", out), ("--data", data)) if value is not None for w in (name, str(value))]
    if workload == "predict":
        if len(words) != 3:
            raise SmgeoError(f"predict takes MODEL CUBE OUT; got {len(words)} ({' '.join(words)})")
        if request.array is not None:
            raise SmgeoError("--array: predict is one map, and each task would write the same; leave it out")
        spread = header["nodes"] > 1
        _check_container(spread, request, site)
        cluster = ["--cluster", str(system)] if spread else []
        return {
            "workload": workload,
            "recipes": [],
            "words": [*words, *cluster, *extra],
            "spread": spread,
            "job_name": request.job_name or "predict",
        }
    if not words:
        raise SmgeoError(f"{workload} takes a recipe; got none")
    if request.array is not None:
        raise SmgeoError(
            f"--array: every task would {workload} the same recipe in the same folder; give several recipes, and each becomes a task"
        )
    checked = [read_recipe(word) for word in words]
    if len(words) > 1:
        if out is not None:
            raise SmgeoError(
                f"--out {out}: {len(words)} recipes cannot share a folder; leave it out, and each has runs/NAME"
            )
        if len({r.name for r in checked}) < len(checked):
            raise SmgeoError("recipes of one job array need names of their own, since their folders are called by them")
    for recipe in checked:
        for name in models:
            if name not in recipe.models:
                raise SmgeoError(
                    f"--model {name!r} is not in the recipe's models; {nearest(name, list(recipe.models))}"
                )
    if models and workload not in ("train", "tune"):
        raise SmgeoError(f"--model is for train and tune; {workload} takes all models of the recipe")
    options += [w for name in models for w in ("--model", name)]
    ranks = header["nodes"] * max(header["gpus"], 1)
    spread = header["nodes"] > 1 or (workload == "train" and ranks > 1)
    _check_container(spread, request, site)
    if workload == "train" and request.nodes > 1:
        for recipe in checked:
            if not recipe.networks & set(models or recipe.models):
                raise SmgeoError(
                    f"--nodes {request.nodes}: networks alone are trained by several processes, and recipe {recipe.name!r} asks for none; ask for 1"
                )
    if spread:
        options += ["--cluster", str(system)]
    if workload == "train" and ranks > 1:
        options += ["--workers", str(ranks)]
    return {
        "workload": workload,
        "recipes": words,
        "words": [*options, *extra],
        "spread": spread,
        "array": f"0-{len(words) - 1}" if len(words) > 1 else None,
        "job_name": request.job_name or _job_name(f"{workload}-{checked[0].name}"),
    }


def _check_container(spread: bool, request: JobRequest, site: Site) -> None:
    if spread and (request.container or site.container):
        raise SmgeoError(
            "--container: processes on several nodes (or GPUs) would be started outside of it; ask for one node, or give --venv instead"
        )


def _job_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:60]


def _environment(request: JobRequest, site: Site) -> dict[str, Any]:
    """The one of `venv`, `conda` and `container` that counts, the request's before the site's; and the name of Python in it."""
    asked = {k: getattr(request, k) for k in ("venv", "conda", "container")}
    if not any(asked.values()):
        asked = {k: getattr(site, k) for k in asked}
    return {**asked, "python": "python" if any(asked.values()) else sys.executable}


def check_script(text: str) -> list[str]:
    """What was checked of a script: `bash -n`, and where SLURM is, `sbatch --test-only`.

    Raises
    ------
    SmgeoError
        With what bash or SLURM says.
    """
    told = []
    _run(["bash", "-n"], text, "bash does not read the script")
    told.append("bash -n: no errors")
    if shutil.which("sbatch"):
        told.append(
            f"sbatch --test-only: {_run(['sbatch', '--test-only'], text, 'SLURM does not take the script').strip()}"
        )
    else:
        told.append("sbatch is not here, so SLURM was not asked")
    return told


def submit_script(text: str) -> int:
    """Submit a script from the current folder; the job's number.

    Raises
    ------
    SmgeoError
        If there is no `sbatch`, or SLURM refuses.
    """
    if not shutil.which("sbatch"):
        raise SmgeoError(
            "sbatch is not found, so nothing was submitted: run this on a login node of the system, or write the script to a file "
            "there and submit that"
        )
    return int(_run(["sbatch", "--parsable"], text, "SLURM does not take the job").split(";")[0])


def _run(command: Sequence[str], text: str, what: str) -> str:
    # Variables of a job that this is called from, and sbatch's own, would count more than the options of the script.
    kept = ("SLURM_CONF", "SLURM_JWT", *(() if "#SBATCH --account=" in text else ("SBATCH_ACCOUNT",)))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_")) or k in kept}
    done = subprocess.run(command, input=text, env=environment, capture_output=True, text=True)  # noqa: S603 - no shell
    told = " ".join((done.stderr or done.stdout).split())
    if done.returncode and any(words in told for words in _NO_SLURM):
        raise SmgeoError(
            f"no SLURM answers here ({told}); run this on a login node, or start one on this machine (`smgeo testbed start`) and set "
            "SLURM_CONF as it says"
        )
    if done.returncode:
        raise SmgeoError(f"{what}: {told}")
    return done.stdout or done.stderr
