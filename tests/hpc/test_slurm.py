"""Jobs of a real SLURM: cubes by worker jobs, searches and training over nodes, stops and restarts."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import smgeo
from smgeo.cube.ledger import read_ledger
from smgeo.errors import SmgeoError
from smgeo.hpc.jobs.script import check_script, submit_script
from smgeo.hpc.sites.profile import load_site
from smgeo.hpc.workers import worker_jobs
from smgeo.hpc.workers.allocation import Allocation
from smgeo.hpc.workers.dask_cluster import dask_workers
from smgeo.prepare import prepare_cube
from smgeo.recipe.preparation import PrepareSpec


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def checksums(folder: Path) -> dict:
    """Of every region of a run's cubes."""
    found = {}
    for name in ("stations.zarr", "grid.zarr", "parts/1-geotiff.zarr"):
        records = read_ledger(folder / name)
        assert records is not None
        found[name] = records.regions
    return found


def submit(text: str, folder: Path, monkeypatch) -> int:
    monkeypatch.chdir(folder)
    return submit_script(text)


def log_of(folder: Path, job: int) -> str:
    return next(folder.glob(f"*-{job}.log")).read_text(encoding="utf-8")


def test_the_testbed_is_a_slurm_of_two_nodes(slurm):
    told = subprocess.run(
        ["srun", "--nodes=2", "printenv", "SLURMD_NODENAME"], capture_output=True, text=True, check=True
    )
    assert sorted(told.stdout.split()) == ["n1", "n2"]


def test_slurm_takes_scripts_of_every_workload(slurm):
    for nodes in (1, 2):
        for workload in ("run", "cube", "train", "tune"):
            told = check_script(smgeo.jobscript("testbed", workload, "quickstart", nodes=nodes))
            assert told[0] == "bash -n: no errors"
            assert "to start at" in told[1]
        for launcher in ("srun", "pytorch-ddp", "horovod", "deepspeed", "tensorflow"):
            check_script(smgeo.jobscript("testbed", "any", "hostname", launcher=launcher, nodes=nodes))
    check_script(smgeo.jobscript("testbed", "predict", "model", "cube.zarr", "maps"))
    with pytest.raises(SmgeoError, match="SLURM does not accept the script: .*partition"):
        check_script(smgeo.jobscript("generic", "any", "hostname", partition="nosuch"))


def test_a_job_whose_submission_got_no_answer_may_be_in_the_queue(slurm, tmp_path, monkeypatch):
    """The controller is stopped while sbatch hands the job over, and then goes on: the job is there, though sbatch failed."""
    here = Path(os.environ["SLURM_CONF"])
    config = tmp_path / "slurm.conf"
    config.write_text(here.read_text() + "MessageTimeout=2\n")
    monkeypatch.chdir(tmp_path)
    text = smgeo.jobscript("testbed", "any", "true", cpus=1, job_name="late")
    controller = int((here.parent / "slurmctld.pid").read_text())
    os.kill(controller, signal.SIGSTOP)
    try:
        with monkeypatch.context() as patch:
            patch.setenv("SLURM_CONF", str(config))
            with pytest.raises(
                SmgeoError, match=r"did not answer in time .*look with `squeue --me --name=late` before"
            ):
                submit_script(text)
    finally:
        os.kill(controller, signal.SIGCONT)
    slurm.until(lambda: list(tmp_path.glob("late-*.log")), 60, "the job that was accepted")


def test_a_submission_to_no_controller_says_both(slurm, tmp_path, monkeypatch):
    config = tmp_path / "slurm.conf"
    lines = Path(os.environ["SLURM_CONF"]).read_text()
    config.write_text(re.sub(r"(?m)^SlurmctldPort=.*$", "SlurmctldPort=1", lines) + "MessageTimeout=1\n")
    monkeypatch.setenv("SLURM_CONF", str(config))
    text = smgeo.jobscript("testbed", "any", "true", cpus=1, job_name="lost")
    with pytest.raises(
        SmgeoError,
        match=r"Unable to contact slurm controller.*look with `squeue --me --name=lost` .*Where there is no SLURM, run this on a login node",
    ):
        submit_script(text)
    monkeypatch.setattr("smgeo.hpc.sites.slurm._WAITS_S", (0,))
    with pytest.raises(SmgeoError, match=r"^no SLURM answers here .*; run this on a login node"):
        check_script(text)


# Of several processes one that fails ends the others, which then have an exit code of their own.
@pytest.mark.parametrize(("code", "nodes"), [(0, 2), (7, 1)])
def test_a_job_ends_with_its_programs_exit_code(slurm, code, nodes, tmp_path, monkeypatch):
    text = smgeo.jobscript(
        "testbed", "any", "bash", "-c", f"echo on $SLURMD_NODENAME; exit {code}", nodes=nodes, cpus=1
    )
    job = submit(text, tmp_path, monkeypatch)
    ended = slurm.wait(job)
    assert ended["ExitCode"] == f"{code}:0"
    log = log_of(tmp_path, job)
    seen = {name for name in ("n1", "n2") if f"on {name}\n" in log}
    assert len(seen) == nodes


def test_worker_jobs_that_end_before_a_worker_has_started_are_an_error(slurm, study, tmp_path):
    """A folder, a module or a Python that the nodes lack: SLURM ends each job at once, and Dask would wait for a worker."""
    (tmp_path / "bad.yaml").write_text(
        "name: bad\ndefault_partition: main\npartitions: {main: {cores: 4, memory_gb: 4, internet: true}}\n"
        "scratch: /proc/not-on-the-nodes\n"
    )
    command = [
        sys.executable,
        "-m",
        "smgeo",
        "cube",
        str(study()),
        "--out",
        "run",
        "--cluster",
        "bad.yaml",
        "--workers",
        "1",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert re.search(
        r"3 jobs of Dask workers ended one after the other .*: job \d+ is FAILED with exit code 1:0\.", last
    )
    assert re.search(r"smgeo-dask-\d+\.err ends: mktemp: .*/proc/not-on-the-nodes", last)
    assert not slurm.running("smgeo-dask")


FAILING_SBATCH = """#!/bin/sh
case "$*" in *--test-only*) exec {sbatch} "$@";; esac
echo call >> "$0.calls"
if [ "$(wc -l < "$0.calls")" {fails} ]; then
  {before}
  echo 'sbatch: error: Socket timed out on send/recv operation' >&2
  exit 1
fi
exec {sbatch} "$@"
"""


@pytest.fixture
def failing_sbatch(tmp_path, monkeypatch):
    """(which submissions fail, what happens before, the pauses in seconds) -> the file that counts the submissions."""

    def make(fails: str, before: str = ":", pause: float = 1) -> Path:
        sbatch, program = shutil.which("sbatch"), tmp_path / "bin" / "sbatch"
        program.parent.mkdir()
        program.write_text(FAILING_SBATCH.format(sbatch=sbatch, fails=fails, before=before.format(sbatch=sbatch)))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
        monkeypatch.setattr(worker_jobs, "_PAUSES_S", (pause, pause))
        return program.with_name("sbatch.calls")

    return make


@pytest.mark.parametrize(
    ("fails", "before", "pause", "calls"),
    [
        ("-le 1", ":", 1, 2),
        # SLURM took the job before sbatch gave up.
        ("-le 99", '{sbatch} "$@" > "$0.job"', 60, 1),
    ],
)
def test_a_worker_job_whose_submission_failed_is_submitted_again_or_found(
    slurm, failing_sbatch, fails, before, pause, calls, tmp_path
):
    submissions = failing_sbatch(fails, before, pause)
    said, lost = [], []
    with dask_workers(load_site("testbed"), tmp_path / "run", workers=1, say=said.append, lost=lost.append) as client:
        assert client.submit(sum, [1, 2]).result(timeout=120) == 3
    assert not lost
    assert submissions.read_text() == "call\n" * calls
    assert any("look with `squeue --me --name=smgeo-dask`" in line for line in said) == (calls > 1)
    # A job that smgeo does not know the number of ends with the run, too.
    assert slurm.until(lambda: not slurm.running("smgeo-dask"), 60, "workers end with the run")


@pytest.mark.parametrize(("fails", "good"), [("-le 99", 0), ("-gt 1", 1)])
def test_a_controller_that_takes_no_worker_jobs_is_an_error(slurm, failing_sbatch, fails, good, tmp_path):
    """dask-jobqueue would wait forever: it counts a job that was not submitted. Also after a job that worked, whose name it gives again."""
    from concurrent.futures import CancelledError

    submissions = failing_sbatch(fails)
    lost = []
    with dask_workers(load_site("testbed"), tmp_path / "run", workers=1, lost=lost.append) as client:
        if good:
            assert client.submit(sum, [1, 2]).result(timeout=120) == 3
            time.sleep(2 * worker_jobs._LOOK_S)  # the job is seen to be good
            subprocess.run(["scancel", *map(str, slurm.running("smgeo-dask"))], check=True)
            slurm.until(lambda: not client.scheduler_info()["workers"], 60, "the worker is gone")
        future = client.submit(sum, [3, 4])
        with pytest.raises(CancelledError):
            future.result(timeout=180)
    assert re.search(r"^3 jobs of Dask workers .* its submission failed: SLURM did not answer in time", lost[0])
    assert submissions.read_text() == "call\n" * (good + 3)


def test_a_shell_that_outlived_its_job_is_in_none(slurm, tmp_path, monkeypatch):
    job = submit(smgeo.jobscript("testbed", "any", "true", cpus=1), tmp_path, monkeypatch)
    slurm.wait(job)
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n1")
    monkeypatch.setenv("SLURM_JOB_CPUS_PER_NODE", "1")
    monkeypatch.setenv("SLURM_JOB_ID", "999999")
    assert Allocation.current() is None


def test_a_job_that_has_a_node_alone_gets_all_its_memory(slurm, tmp_path, monkeypatch):
    job = submit(smgeo.jobscript("generic", "any", "sleep", "1", partition="main"), tmp_path, monkeypatch)
    ended = slurm.wait(job)
    assert "mem=8G" in (ended.get("AllocTRES") or ended.get("TRES"))


def test_cubes_by_worker_jobs_equal_the_laptops_though_jobs_are_cancelled(slurm, study, tmp_path):
    recipe = study(world={"stations": 30, "days": 200, "shape": [48, 48], "seed": 0})
    smgeo.run(recipe, tmp_path / "laptop")
    out = tmp_path / "slurm"
    command = [sys.executable, "-m", "smgeo", "run", str(recipe), "--out", str(out), "--cluster", "testbed"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    cancelled = []
    while len(cancelled) < 2 and process.poll() is None:
        for job in slurm.running("smgeo-dask"):
            # At work, not only started.
            written = any("jsonl" in f.name and f.stat().st_size for f in out.rglob("smgeo_ledger/*"))
            if job not in cancelled and written and len(cancelled) < 2:
                subprocess.run(["scancel", str(job)], check=True)
                cancelled.append(job)
        time.sleep(0.1)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert len(cancelled) == 2
    assert "Dask dashboard: http" in told
    assert results_of(out) == results_of(tmp_path / "laptop")
    assert checksums(out) == checksums(tmp_path / "laptop")
    nodes = {slurm.job(int(f.stem.split("-")[-1]))["NodeList"] for f in out.rglob("smgeo-dask-*.out")}
    assert nodes == {"n1", "n2"}
    assert slurm.until(lambda: not slurm.running("smgeo-dask"), 30, "workers end with the run")
    logs = "".join(f.read_text() for f in out.rglob("smgeo-dask-*.err"))
    assert "BEGIN" not in logs  # no key of the workers' certificates


def test_a_map_by_two_nodes_equals_the_laptops(slurm, tmp_path, monkeypatch, make_station_cube, make_grid_cube):
    spec = PrepareSpec.model_validate({"fill": {"limit": 2}, "outliers": None, "scale": "minmax"})
    stations = [f"N/s{i}" for i in range(8)]
    prepared = prepare_cube(make_station_cube(stations=8, days=20), spec, ["s1_vv", "clay"], "sm", stations)
    model = smgeo.make_model("rf", trees=10).fit(prepared.windows(stations, 1, 0.0)).save(tmp_path / "rf")
    cube = smgeo.write_cube(make_grid_cube(days=20, height=300, width=260, gaps=0.3), tmp_path / "grid.zarr")
    smgeo.predict_map(smgeo.load_model(model), smgeo.open_cube(cube), tmp_path / "laptop.zarr")
    options = {"nodes": 2, "cpus": 1, "extra": ["--overviews"]}
    text = smgeo.jobscript("testbed", "predict", model, cube, tmp_path / "slurm.zarr", **options)
    job = submit(text, tmp_path, monkeypatch)
    ended, log = slurm.wait(job), log_of(tmp_path, job)
    assert ended["JobState"] == "COMPLETED", log
    assert "Dask dashboard: http" in log
    blocks = [read_ledger(tmp_path / f"{name}.zarr").regions for name in ("laptop", "slurm")]
    assert len(blocks[0]) == 9
    assert blocks[0] == blocks[1]
    assert xr.open_zarr(tmp_path / "slurm.zarr", group="2", consolidated=False).sizes["y"] == 150


@pytest.mark.soak
def test_a_search_runs_on_all_nodes_of_its_job(slurm, study, tmp_path, monkeypatch):
    search = {"ann": {"trials": 4, "epochs": 2, "scheduler": "none"}}
    recipe = study(models={"ann": {"units": 4}}, search=search)
    before = set(Path("/tmp").glob("smgeo-ray-*"))
    # Two jobs at once, each on both nodes: neither may meet the other's ports, sockets or trials. Their cubes are there, so
    # neither starts Dask.
    jobs = []
    for name in "ab":
        smgeo.build_cubes(recipe, tmp_path / name)
        text = smgeo.jobscript("testbed", "tune", recipe, nodes=2, cpus=1, out=tmp_path / name)
        jobs.append(submit(text, tmp_path, monkeypatch))
    for job, name in zip(jobs, "ab", strict=True):
        ended = slurm.wait(job, 420)
        log = log_of(tmp_path, job)
        assert ended["JobState"] == "COMPLETED", log
        trials = pd.read_parquet(tmp_path / name / "search" / "ann" / "trials.parquet")
        assert trials["status"].tolist() == ["finished"] * 4
        assert sorted(set(trials["node"])) == ["n1", "n2"]
        assert "RAY_AUTH_TOKEN" not in log
        assert "Ray: 2 node(s) of 1 CPU(s)" in log
        assert "Dask" not in log
    a, b = (pd.read_parquet(tmp_path / n / "search" / "ann" / "trials.parquet") for n in "ab")
    # The same seeds on the same machine, one thread a trial.
    assert np.array_equal(a["validation_rmse"], b["validation_rmse"])
    assert not set(a["pid"]) & set(b["pid"])
    assert set(Path("/tmp").glob("smgeo-ray-*")) <= before


@pytest.mark.soak
def test_a_search_that_is_told_to_stop_goes_back_to_the_queue_and_on(slurm, study, tmp_path, monkeypatch):
    search = {"ann": {"trials": 10, "epochs": 8, "scheduler": "none", "concurrent": 2}}
    recipe = study(models={"ann": {"units": 4}}, search=search)
    job = submit(smgeo.jobscript("testbed", "tune", recipe, out=tmp_path / "run", restarts=1), tmp_path, monkeypatch)
    table = tmp_path / "run" / "search" / "ann" / "trials.parquet"

    def finished():
        if not table.exists():
            return None
        trials = pd.read_parquet(io.BytesIO(table.read_bytes()))  # the file may be replaced meanwhile
        done = trials[trials["status"] == "finished"]
        return [done] if len(done) >= 2 else None

    (first,) = slurm.until(finished, 200, "two trials")
    # What SLURM does before the wall time ends.
    subprocess.run(["scancel", "--batch", "--signal=USR1", str(job)], check=True)
    slurm.until(lambda: slurm.job(job)["Restarts"] == "1", 60, "the job is back in the queue")
    ended = slurm.wait(job)
    log = log_of(tmp_path, job)
    assert ended["JobState"] == "COMPLETED", log
    assert "told to stop (the wall time ends soon)" in log
    assert "interrupted; the same command again continues" in log
    assert "exit code 143" in log
    assert "back to the queue" in log
    assert "start 2" in log
    trials = pd.read_parquet(table).set_index("trial")
    assert trials["status"].tolist() == ["finished"] * 10
    # Nothing finished was done again.
    kept = trials.loc[first["trial"]]
    assert kept["started"].tolist() == first["started"].tolist()
    assert kept["pid"].tolist() == first["pid"].tolist()
    assert kept["validation_rmse"].tolist() == first["validation_rmse"].tolist()


@pytest.mark.soak
def test_a_users_program_is_told_to_stop_and_goes_on(slurm, tmp_path, monkeypatch):
    program = tmp_path / "keeps.sh"
    program.write_text(
        "#!/bin/bash\n[[ -e kept ]] && { echo went on; exit 0; }\ntrap 'touch kept; echo kept; exit 1' TERM\ntouch there\nsleep 60 & wait\n",
        encoding="utf-8",
    )
    text = smgeo.jobscript("testbed", "any", "bash", str(program), restarts=1, cpus=1)
    job = submit(text, tmp_path, monkeypatch)
    slurm.until((tmp_path / "there").exists, 30, "the program")
    subprocess.run(["scancel", "--batch", "--signal=USR1", str(job)], check=True)
    ended = slurm.wait(job)
    log = log_of(tmp_path, job)
    assert ended["JobState"] == "COMPLETED", log
    assert ended["Restarts"] == "1"
    assert "kept" in log.splitlines()
    assert "went on" in log


def test_workers_that_slurm_refuses_are_not_waited_for(slurm, study, tmp_path):
    site = tmp_path / "own.yaml"
    site.write_text("name: own\nworkers: {cores: 64, memory_gb: 1}\n", encoding="utf-8")
    with pytest.raises(SmgeoError, match="SLURM does not accept the script"):
        smgeo.build_cubes(study(), tmp_path / "run", cluster=site)
    with pytest.raises(SmgeoError, match="cannot contain the path"):
        smgeo.build_cubes(study(), tmp_path / "a run $(id)", cluster="testbed")


def test_a_job_that_is_preempted_goes_on(slurm, tmp_path, monkeypatch):
    (tmp_path / "count.py").write_text(
        "import pathlib, time\n"
        "file = pathlib.Path('count')\n"
        "for n in range(int(file.read_text()) if file.exists() else 0, 40):\n"
        "    print('step', n, flush=True)\n"
        "    file.write_text(str(n + 1))\n"
        "    time.sleep(0.25)\n",
        encoding="utf-8",
    )
    text = smgeo.jobscript("testbed", "any", sys.executable, "count.py", restarts=3)
    job = submit(text, tmp_path, monkeypatch)
    slurm.until(lambda: (tmp_path / "count").exists(), 30, "the job's first steps")
    urgent = smgeo.jobscript("testbed", "any", "hostname", nodes=2, partition="urgent", job_name="urgent")
    first = submit(urgent, tmp_path, monkeypatch)
    assert slurm.wait(first)["JobState"] == "COMPLETED"
    ended = slurm.wait(job)
    log = log_of(tmp_path, job)
    assert ended["JobState"] == "COMPLETED", log
    assert ended["Restarts"] == "1"
    assert "preempted: back to the queue" in log
    steps = [int(line.split()[1]) for line in log.splitlines() if line.startswith("step ")]
    assert steps == sorted(steps)
    assert set(steps) == set(range(40))


@pytest.mark.soak
def test_nodes_that_do_not_come_are_named(slurm, tmp_path, monkeypatch):
    """Ray is started where the second node's daemon is stopped: its task never begins."""
    program = tmp_path / "wait.py"
    program.write_text(
        "from pathlib import Path\n"
        "from smgeo.hpc.workers.allocation import Allocation\n"
        "from smgeo.hpc.workers.ray_cluster import ray_nodes\n"
        "from smgeo.hpc.sites.profile import load_site\n"
        "Path('there').touch()\n"
        "while not Path('go').exists(): pass\n"
        "with ray_nodes(load_site('testbed'), Path('cluster').absolute(), Allocation.current(), print, start_s=25):\n"
        "    print('unexpected')\n",
        encoding="utf-8",
    )
    batch = f"#!/bin/bash\n#SBATCH --nodes=2\n#SBATCH --output=wait-%j.log\n{sys.executable} {program}\n"
    job = submit(batch, tmp_path, monkeypatch)
    slurm.until((tmp_path / "there").exists, 30, "the job")
    daemon = int((Path(os.environ["SLURM_CONF"]).parent / "n2" / "slurmd.pid").read_text())
    os.kill(daemon, signal.SIGSTOP)
    try:
        (tmp_path / "go").touch()
        # Not by `wait`: the job cannot end on a node that is stopped.
        log = slurm.until(
            lambda: "did not come" in (told := next(tmp_path.glob("wait-*.log")).read_text()) and told,
            90,
            "the message",
        )
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert "did not" in log
    slurm.wait(job)


def test_training_over_two_nodes_equals_training_by_one_process_though_a_worker_is_killed(
    slurm, study, tmp_path, monkeypatch
):
    """Three epochs of the same global batches, without dropout; after the first one of the two processes is killed."""
    # Small batches: an epoch lasts many times longer than the test takes to see that the first is over.
    recipe = study(
        models={"gru": {"units": 8, "epochs": 3, "dropout": 0.0, "input_dropout": 0.0, "batch_size": 4, "patience": 3}}
    )
    smgeo.train_recipe(recipe, tmp_path / "one")
    smgeo.build_cubes(recipe, tmp_path / "two")
    text = smgeo.jobscript("testbed", "train", recipe, nodes=2, out=tmp_path / "two")
    job = submit(text, tmp_path, monkeypatch)
    training = tmp_path / "two" / ".stages" / "training"

    def after_first_epoch():
        return [f for f in training.glob("start-0/epochs.jsonl") if f.read_text()]

    slurm.until(after_first_epoch, 200, "the first epoch")
    killed = subprocess.run(
        ["pkill", "--signal", "KILL", "--full", "--newest", f"smgeo.models.data_parallel {training}"]
    )
    assert killed.returncode == 0
    ended = slurm.wait(job)
    log = log_of(tmp_path, job)
    assert ended["JobState"] == "COMPLETED", log
    assert "all are started again from the last checkpoint" in log
    one, two = (smgeo.load_model(tmp_path / name / "models" / "gru") for name in ("one", "two"))
    assert one.training_["epochs"] == two.training_["epochs"] == 3
    for a, b in zip(one._model.get_weights(), two._model.get_weights(), strict=True):
        assert np.abs(a - b).max() <= 1e-4 * np.abs(a).max()
    assert np.allclose(one.history_["val_rmse"], two.history_["val_rmse"], rtol=1e-4)
    assert not training.exists()


def test_an_allocation_is_known_from_the_inside(slurm, tmp_path):
    code = "from smgeo.hpc.workers.allocation import Allocation; print(Allocation.current())"
    command = ["srun", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=3", sys.executable, "-c", code]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert all("nodes=('n1', 'n2'), cpus=3, gpus=0, memory_mb=6144" in line for line in told)
    assert len(told) == 2
    assert Allocation.current() is None
