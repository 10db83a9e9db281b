"""Job scripts: what is in them, that shells read them, what is refused, and that nothing in them runs but what was asked for."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import smgeo
from smgeo.cli import app
from smgeo.errors import SmgeoError
from smgeo.hpc.jobs.request import JobRequest, fit_request
from smgeo.hpc.sites.profile import find_sites, load_site, parse_site

SITES = sorted(find_sites())
ALL = {
    "run": ["quickstart"],
    "cube": ["quickstart", "lachish"],  # several: a job array
    "train": ["quickstart"],
    "tune": ["quickstart"],
    "predict": ["runs/a/models/rf", "grid.zarr", "maps"],
}
LAUNCHERS = ("srun", "pytorch-ddp", "horovod", "deepspeed", "tensorflow")


def everything(system):
    """Scripts of all workloads and launchers, with few options and with many, for one and for two nodes."""
    account = {"account": "soil1"} if load_site(system).account_required else {}
    many = {
        "time": "00:05:00",
        "cpus": 1,
        "memory": "2G",
        "dependency": "afterok:12:13,singleton",
        "mail": "a@b.org",
        "qos": "normal",
        "job_name": "soil",
        "stop_before_s": 60,
        "restarts": 2,
    }
    for nodes, options in itertools.product((1, 2), ({}, many)):
        for workload, arguments in ALL.items():
            yield smgeo.jobscript(system, workload, *arguments, nodes=nodes, **account, **options)
        for launcher in LAUNCHERS:
            command = ("python", "my train.py", "--name", "$(touch x)")
            yield smgeo.jobscript(system, "any", *command, nodes=nodes, launcher=launcher, **account, **options)
    for kind in ("venv", "conda", "container"):
        yield smgeo.jobscript(system, "run", "quickstart", **account, **{kind: "/a b/`c`;d"})
        yield smgeo.jobscript(system, "any", "python", array="0-9%2", **account, **{kind: "/a b/`c`;d"})


def shellcheck():
    found = shutil.which("shellcheck")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("shellcheck is not installed")
        pytest.skip("shellcheck is not installed (sudo apt install shellcheck)")
    return found


@pytest.mark.parametrize("system", SITES)
def test_shells_read_every_script(system, tmp_path):
    scripts = list(everything(system))
    assert len(scripts) == 4 * 10 + 6
    files = []
    for i, text in enumerate(scripts):
        assert text.startswith("#!/bin/bash")
        assert "\n\n#SBATCH" not in text
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        files.append(tmp_path / f"{i}.sh")
        files[-1].write_text(text, encoding="utf-8")
    done = subprocess.run([shellcheck(), "--severity=style", *files], capture_output=True, text=True)
    assert done.stdout == ""
    assert done.returncode == 0


def test_what_a_script_asks_for():
    text = smgeo.jobscript(
        "juwels", "tune", "quickstart", partition="booster", nodes=4, time="12:00:00", account="soil", out="runs/q"
    )
    header = re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE)
    assert header == [
        "--job-name=tune-quickstart",
        "--account=soil",
        "--partition=booster",
        "--nodes=4",
        "--ntasks-per-node=1",
        "--cpus-per-task=48",
        "--exclusive",
        "--gres=gpu:4",
        "--mem=0",
        "--time=12:00:00",
        "--output=tune-quickstart-%j.log",
        "--open-mode=append",
        "--signal=B:USR1@300",
        "--requeue",
    ]
    assert "set -euo pipefail" in text
    assert "module load GCC OpenMPI CUDA/12 MPI-settings/CUDA\n" in text
    assert f"python={sys.executable}\n" in text
    assert '-m smgeo tune "$recipe" --out runs/q --cluster juwels)' in text
    assert "a profile that was never tried there" in text


def test_a_short_job_is_told_in_its_last_quarter():
    assert "--signal=B:USR1@75\n" in smgeo.jobscript("testbed", "run", "quickstart", partition="short")
    assert "--signal=B:USR1@300\n" in smgeo.jobscript("testbed", "run", "quickstart", time="00:30:00")


@pytest.mark.parametrize("when", ["while the environment is made", "at work"])
def test_a_warning_is_not_lost(when, tmp_path):
    """A signal that comes before the program is started, or while it is at work: the job goes back to the queue."""
    program = tmp_path / "program"
    program.write_text(
        "#!/bin/bash\n[[ $3 == --version ]] && exit\ntrap 'echo kept; exit 130' TERM\nkill -USR1 $PPID\nsleep 20 & wait\n",
        encoding="utf-8",
    )
    program.chmod(0o755)
    (tmp_path / "scontrol").write_text('#!/bin/sh\n[ "$1" = show ] || echo "asked: $*"\n', encoding="utf-8")
    (tmp_path / "scontrol").chmod(0o755)
    site = tmp_path / "site.yaml"
    early = when != "at work"
    site.write_text(f"name: own\nsetup: ['{'kill -USR1 $$' if early else 'true'}']\n", encoding="utf-8")
    text = smgeo.jobscript(site, "run", "quickstart").replace(sys.executable, str(program))
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "9",
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "2",
        "SLURM_JOB_NODELIST": "n1",
    }
    done = subprocess.run(["bash", "-s"], input=text, text=True, capture_output=True, env=environment)
    assert done.returncode == (75 if early else 130)
    assert ("kept" in done.stdout) is not early
    # Of a job array one task.
    assert "asked: requeue 7_2" in done.stdout


def test_recipes_become_tasks_of_an_array():
    text = smgeo.jobscript("testbed", "cube", "quickstart", "lachish")
    assert "#SBATCH --array=0-1\n" in text
    assert "recipes=(quickstart lachish)\n" in text


def test_training_takes_a_process_for_each_gpu():
    text = smgeo.jobscript("juwels", "train", "quickstart", partition="booster", nodes=2, account="a", models=["gru"])
    assert '"$recipe" --model gru --cluster juwels --workers 8)' in text


WRONG = [
    ("vega", "run", {"nodes": 961}, r"--nodes 961: vega's partition cpu gives a job at most 960 nodes"),
    ("lumi", "run", {"partition": "largemem", "nodes": 2, "account": "a"}, "at most 1 nodes"),
    ("juwels", "run", {"partition": "bootser", "account": "a"}, "did you mean 'booster'"),
    ("testbed", "run", {"partition": "short", "time": "00:06:00"}, "at most 00:05:00"),
    ("testbed", "run", {"time": "2-00:00:00"}, "at most 1-00:00:00"),
    ("testbed", "run", {"time": "30"}, "HH:MM:SS"),
    ("testbed", "run", {"time": "00:00:00"}, "--time 0"),
    ("juwels", "run", {}, "--account is missing: juwels requires a project account"),
    ("juwels", "run", {"account": "a b"}, "account.*letters, digits"),
    ("testbed", "run", {"cpus": 5}, "a node of testbed's partition main has 4 cores"),
    ("testbed", "run", {"memory": "9G"}, "a node of testbed's partition main has 8G"),
    ("testbed", "run", {"memory": "lots"}, "K, M, G or T"),
    ("testbed", "run", {"memory": "64"}, "K, M, G or T"),
    ("testbed", "run", {"time": "20:00"}, "half an hour: 00:30:00"),
    ("testbed", "run", {"gpus": 1}, "has 0 GPUs"),
    ("vega", "run", {"partition": "gpu", "gpus": 5}, "a node of vega's partition gpu has 4 GPUs"),
    ("vega", "run", {"gpus": 1}, "partitions with GPUs: gpu"),
    ("testbed", "run", {"array": "0-9"}, "give several recipes"),
    ("testbed", "any", {"array": "x"}, "an array must look like"),
    ("testbed", "any", {"dependency": "after 12"}, "a dependency must look like"),
    ("testbed", "any", {"mail": "me"}, "a mail address must look like"),
    ("testbed", "any", {"mail_type": ("SOMETIMES",)}, "unknown mail type"),
    ("testbed", "any", {"tasks": 5}, "asks for only 4 CPUs of a node"),
    ("testbed", "run", {"tasks": 2}, "--tasks 2 applies only to `any`"),
    ("testbed", "run", {"launcher": "horovod"}, "--launcher horovod applies only to `any`"),
    ("testbed", "any", {"launcher": "mpirun"}, "launcher"),
    ("testbed", "run", {"nodes": 0}, "nodes"),
    ("generic", "run", {"nodes": 10**19}, "nodes: needs a number not above 1000000"),
    (
        "generic",
        "run",
        {"cpus": 10**9, "gpus": 10**9},
        "cpus: needs a number not above 65533.*gpus: needs a number not above",
    ),
    ("generic", "any", {"tasks": 65_534}, "tasks: needs a number not above 65533"),
    ("generic", "run", {"restarts": 10**9}, "restarts: needs a number not above 1000000"),
    ("generic", "run", {"account": "a" * 5000}, "account: has 5000 characters, and at most 1000"),
    ("generic", "run", {"job_name": "a" * 201}, "job_name: .* at most 200, a letter"),
    ("testbed", "run", {"venv": "/a", "conda": "b"}, "give only one of them"),
    ("testbed", "run", {"venv": "/a\nid"}, "one line"),
    (
        "testbed",
        "run",
        {"time": "00:04:00", "stop_before_s": 300},
        "--stop-before 300 s is not less than the wall time",
    ),
    ("testbed", "any", {"tasks": 2, "launcher": "pytorch-ddp"}, "pytorch-ddp takes one task on each node"),
    ("testbed", "train", {"nodes": 2, "models": ["rf"]}, "only networks are trained by several processes"),
    ("testbed", "run", {"nodes": 2, "container": "/a.sif"}, "would be started outside of it"),
    ("testbed", "run", {"venv": "~/envs/soil"}, "give the whole path"),
    ("generic", "run", {"partition": "a b"}, "partition"),
    ("testbed", "run", {"job_name": "x\n#SBATCH --wrap=id"}, "job_name"),
    ("testbed", "run", {"walltime": "01:00:00"}, "unknown key 'walltime'"),
    ("tesbed", "run", {}, "did you mean 'testbed'"),
    ("testbed", "runn", {}, "did you mean 'run'"),
    ("testbed", "train", {"models": ["gruu"]}, "did you mean 'gru'"),
    ("testbed", "run", {"models": ["gru"]}, "--model applies only to train and tune"),
]


@pytest.mark.parametrize(("system", "workload", "options", "message"), WRONG)
def test_a_wrong_request_names_its_limit(system, workload, options, message):
    words = ["hostname"] if workload == "any" else ["quickstart"]
    with pytest.raises(SmgeoError, match=message):
        smgeo.jobscript(system, workload, *words, **options)


def test_long_lists_are_no_fault():
    jobs = ":".join(str(number) for number in range(12_345_678, 12_345_978))
    tasks = ",".join(map(str, range(0, 900, 3)))
    text = smgeo.jobscript("generic", "any", "hostname", dependency=f"afterok:{jobs}", array=tasks)
    assert f"--dependency=afterok:{jobs}" in text
    assert f"--array={tasks}" in text


@pytest.mark.parametrize(
    ("workload", "words", "options", "message"),
    [
        ("run", [], {}, "takes a recipe"),
        ("run", ["nowhere.yaml"], {}, "recipe 'nowhere.yaml' not found"),
        ("predict", ["model"], {}, "MODEL CUBE OUT"),
        ("predict", ["a", "b", "c"], {"nodes": 2, "container": "i.sif"}, "ask for one node, or give --venv"),
        ("predict", ["a", "b", "c"], {"array": "0-1"}, "each task would write the same"),
        ("any", [], {}, "give the command"),
        ("any", ["a\nb"], {}, "line break"),
        ("run", ["quickstart", "lachish"], {"out": "x"}, "cannot share a folder"),
        ("run", ["quickstart", "quickstart"], {}, "must have different names"),
    ],
)
def test_a_wrong_workload_is_refused(workload, words, options, message):
    with pytest.raises(SmgeoError, match=message):
        smgeo.jobscript("testbed", workload, *words, **options)


def test_names_from_users_run_nothing(tmp_path, monkeypatch):
    """A recipe, folders, a model and an environment that are called by shell code: all of it arrives as the words it is."""
    monkeypatch.chdir(tmp_path)
    name = "a b'\"$(touch ran)`touch ran`;touch ran&.yaml"
    (tmp_path / name).write_bytes(smgeo.recipe.study.find_recipe("quickstart").read_bytes())
    fake = tmp_path / "py'thon $(touch ran)"
    fake.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done\n', encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    text = smgeo.jobscript("testbed", "run", name, out="o $(touch ran)", data="d;touch ran", extra=["$(touch ran)"])
    environment = {**os.environ, "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "n1"}
    done = subprocess.run(["bash"], input=text, text=True, capture_output=True, env=environment, check=True)
    told = done.stdout.splitlines()
    assert told[1:4] == ["-m", "smgeo", "--version"]
    words = ["-m", "smgeo", "run", name, "--out", "o $(touch ran)", "--data", "d;touch ran", "$(touch ran)"]
    assert told[5 : 5 + len(words)] == words
    assert "exit code 0" in told[-1]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("code", [0, 3])
def test_a_job_ends_with_the_exit_code_of_its_program(code, tmp_path, monkeypatch):
    # srun of its own, which starts what it is told: the last words that are no options.
    (tmp_path / "srun").write_text('#!/bin/bash\nwhile [[ $1 == -* ]]; do shift; done\nexec "$@"\n', encoding="utf-8")
    (tmp_path / "srun").chmod(0o755)
    text = smgeo.jobscript("generic", "any", "bash", "-c", f"exit {code}")
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NODELIST": "n1",
    }
    # Not a login shell, which would set PATH anew.
    done = subprocess.run(["bash", "-s"], input=text, text=True, capture_output=True, env=environment)
    assert done.returncode == code
    assert f"exit code {code}" in done.stdout


def test_the_command_line_takes_options_on_both_sides():
    runner = CliRunner()
    before = runner.invoke(app, ["jobscript", "--system", "testbed", "--nodes", "2", "run", "quickstart"])
    after = runner.invoke(app, ["jobscript", "run", "quickstart", "--system", "testbed", "--nodes", "2"])
    assert before.exit_code == after.exit_code == 0
    assert before.stdout == after.stdout == smgeo.jobscript("testbed", "run", "quickstart", nodes=2)
    own = runner.invoke(app, ["jobscript", "--system", "testbed", "any", "--", "python", "x.py", "--nodes", "9"])
    assert own.stdout == smgeo.jobscript("testbed", "any", "python", "x.py", "--nodes", "9")


def test_systems_are_listed():
    told = CliRunner().invoke(app, ["systems"])
    assert told.exit_code == 0
    assert all(name in told.stdout for name in SITES)


def test_a_job_that_has_its_nodes_alone_gets_all_their_memory():
    """SLURM gives an exclusive job the partition's default memory, if it does not ask for more."""
    site = "{name: whole, default_partition: a, partitions: {a: {exclusive: true, memory_gb: 8}, b: {memory_gb: 8, cores: 4}}}"
    whole = parse_site(site, "whole")
    assert fit_request(JobRequest(partition="a"), whole, "run").memory_request == "mem=0"
    assert fit_request(JobRequest(partition="a", memory="2G"), whole, "run").memory_request == "mem=2G"
    assert fit_request(JobRequest(partition="b"), whole, "run").memory_request is None
    assert fit_request(JobRequest(partition="b", memory="0"), whole, "run").memory_request == "mem=0"
    assert "#SBATCH --exclusive\n#SBATCH --mem=0\n" in smgeo.jobscript("generic", "any", "hostname")


SITE = """
name: ours
default_partition: cpu
memory_option: {memory}
gpu_option: {gpu}
modules: [Python]
partitions:
  cpu: {{cores: 64, memory_gb: 128, nodes: 40, time_limit: "1-00:00:00", gpus: 0}}
  long: {{cores: 48, memory_gb: 96, nodes: 4, time_limit: "4-00:00:00", gpus: 0, exclusive: true}}
  gpu: {{cores: 32, memory_gb: 256, nodes: 8, gpus: 4, gpu_type: a100, constraint: "ib&nvme", modules: [CUDA/12]}}
"""


def write_site(tmp_path, memory="mem", gpu="gres"):
    file = tmp_path / "ours.yaml"
    file.write_text(SITE.format(memory=memory, gpu=gpu))
    return file


def asked_of(site, **options):
    """The options of a script, and the modules that it loads."""
    lines = smgeo.jobscript(site, "any", "hostname", **options).splitlines()
    loaded = [line.split("module load ")[1] for line in lines if "module load " in line]
    return [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")], loaded


@pytest.mark.parametrize(
    ("memory", "options", "expected"),
    [
        ("mem", {"memory": "32G"}, "--mem=32G"),
        ("mem-per-cpu", {"memory": "32G"}, "--mem-per-cpu=512M"),
        ("mem-per-cpu", {"memory": "32G", "cpus": 10}, "--mem-per-cpu=3276M"),
        # SLURM counts 4 tasks of 2 CPUs.
        ("mem-per-cpu", {"memory": "32G", "cpus": 10, "tasks": 4}, "--mem-per-cpu=4096M"),
        # A job that has its nodes alone has all their CPUs, whatever it asks for.
        ("mem-per-cpu", {"memory": "48G", "cpus": 2, "partition": "long"}, "--mem-per-cpu=1024M"),
        ("mem-per-cpu", {"memory": "1M"}, "--mem-per-cpu=1M"),
        ("mem-per-cpu", {"memory": "0"}, "--mem-per-cpu=2048M"),
        ("mem-per-cpu", {"partition": "long"}, "--mem-per-cpu=2048M"),
        ("mem-per-cpu", {}, None),
        ("none", {}, None),
        ("none", {"partition": "long"}, None),
    ],
)
def test_memory_is_asked_for_in_the_sites_way(memory, options, expected, tmp_path):
    asked, _ = asked_of(write_site(tmp_path, memory=memory), **options)
    assert [a for a in asked if a.startswith("--mem")] == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        ("gres", ["--gres=gpu:a100:2"]),
        ("gpus-per-node", ["--gpus-per-node=a100:2"]),
        ("gpus", ["--gpus=a100:6", "--gpus-per-node=a100:2"]),
    ],
)
def test_gpus_are_asked_for_in_the_sites_way(gpu, expected, tmp_path):
    site = write_site(tmp_path, gpu=gpu)
    asked, loaded = asked_of(site, partition="gpu", gpus=2, nodes=3)
    assert [a for a in asked if "gpu" in a and "partition" not in a] == expected
    assert "--constraint=ib&nvme" in asked
    assert loaded == ["Python", "CUDA/12"]
    asked, loaded = asked_of(site)
    assert not [a for a in asked if "gpu" in a or "constraint" in a]
    assert loaded == ["Python"]
    with pytest.raises(SmgeoError, match="--gpus 5: a node of ours's partition gpu has 4 GPUs"):
        asked_of(site, partition="gpu", gpus=5)
    with pytest.raises(
        SmgeoError, match=r"--gpus 1: a node of ours's partition cpu,long has 0 GPUs; partitions with GPUs: gpu"
    ):
        asked_of(site, partition="cpu,long", gpus=1)


def test_of_several_partitions_the_tightest_limits_count(tmp_path):
    site = write_site(tmp_path)
    asked, _ = asked_of(site, partition="cpu,long", time="23:00:00", nodes=4)
    assert "--partition=cpu,long" in asked
    assert {"--cpus-per-task=48", "--exclusive", "--mem=0"} <= set(asked)
    for options, words in (
        ({"nodes": 5}, "gives a job at most 4 nodes"),
        ({"time": "1-00:00:01"}, "at most 1-00:00:00"),
        ({"memory": "97G"}, "has 96G"),
    ):
        with pytest.raises(SmgeoError, match=words):
            asked_of(site, partition="cpu,long", **options)
    with pytest.raises(SmgeoError, match="the partitions differ in gpu_type, and a job has one; give one partition"):
        asked_of(site, partition="cpu,gpu")
    with pytest.raises(SmgeoError, match="--partition 'lnog' is not a partition of ours; did you mean 'long'"):
        asked_of(site, partition="cpu,lnog")


def test_memory_that_cannot_be_counted_by_cpu_is_refused(tmp_path):
    file = tmp_path / "bare.yaml"
    file.write_text("{name: bare, memory_option: mem-per-cpu, default_partition: a, partitions: {a: {}}}")
    with pytest.raises(SmgeoError, match=r"--memory 32G: bare's partition a counts memory by CPU.*give --cpus"):
        asked_of(file, memory="32G")
    with pytest.raises(SmgeoError, match=r"--memory 0: .*its profile lacks memory_gb or cores"):
        asked_of(file, memory="0")
    assert "--mem-per-cpu=4096M" in asked_of(file, memory="32G", cpus=8)[0]


def test_a_site_that_takes_no_memory_refuses_it(tmp_path):
    with pytest.raises(SmgeoError, match=r"--memory 3G: ours's partition cpu takes no request for memory"):
        asked_of(write_site(tmp_path, memory="none"), memory="3G")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ib id",
        "ib;id",
        "a>b",
        "ib,nvme",
        "&ib",
        "ib&",
        "ib||n",
        "*2",
        "ib*",
        "ib*0",
        "ib*1*1",
        "(ib",
        "((ib))",
        "[a][b]",
        "[a]&[b]",
        "[]",
    ],
)
def test_a_constraint_of_another_form_is_refused(text, tmp_path):
    with pytest.raises(SmgeoError, match="constraint"):
        asked_of(write_site(tmp_path), constraint=text)


@pytest.mark.parametrize(
    "text", ["GPU_MEM:16GB", "(amd|intel)&ib", "[rack1*2|rack2*4]", "ib&[rack1|rack2]&nvme", "[(knl&flat)*4&haswell*1]"]
)
def test_a_constraint_is_passed_on(text, tmp_path):
    asked, _ = asked_of(write_site(tmp_path), constraint=text)
    assert f"--constraint={text}" in asked


def test_both_recipes_of_an_image_take_the_same_files_and_run_the_same_lines():
    folder = Path(__file__).parents[3]
    docker, apptainer = ((folder / "cluster" / "container" / n).read_text() for n in ("Dockerfile", "smgeo.def"))
    copied = {w for line in re.findall(r"^COPY (.*) /src", docker, re.MULTILINE) for w in line.split()}
    assert copied == set(re.findall(r"^ +(\S+) /src/\1$", apptainer, re.MULTILINE))
    assert {"pyproject.toml", "constraints.txt", "smgeo", "recipes", "cluster"} <= copied
    assert all((folder / name).exists() for name in copied)
    lines = "sh /src/cluster/container/install.sh && rm -r /src"
    assert f"RUN {lines}" in docker
    assert f"    {lines}" in apptainer
    subprocess.run([shellcheck(), str(folder / "cluster" / "container" / "install.sh")], check=True)
