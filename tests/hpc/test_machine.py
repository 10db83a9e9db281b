"""Addresses, what a job's allocation is, and what Dask and Ray are asked for: without a SLURM."""

from __future__ import annotations

import re
import socket
import stat

import pytest

from smgeo.errors import SmgeoError
from smgeo.hpc.machine import Cluster, LocalMachine, Workers
from smgeo.hpc.sites.network import find_address, port_of_job
from smgeo.hpc.sites.profile import NetworkSpec, load_site, parse_site
from smgeo.hpc.workers import allocation
from smgeo.hpc.workers.dask_cluster import job_options, write_certificates
from smgeo.hpc.workers.ray_nodes import ray_command
from smgeo.hpc.workers.submitted_job import SubmittedJob


def test_the_address_of_an_interface():
    assert find_address(NetworkSpec(interface="lo")) == "127.0.0.1"
    with pytest.raises(SmgeoError, match="'ib7' is not on"):
        find_address(NetworkSpec(interface="ib7"))


def test_the_address_of_a_name_with_a_suffix(monkeypatch):
    known = {"node7i": "10.1.0.7", "node7": "10.0.0.7"}
    monkeypatch.setattr(socket, "gethostname", lambda: "node7.cluster.org")
    monkeypatch.setattr(socket, "gethostbyname", lambda name: known[name.split(".")[0]])
    assert find_address(NetworkSpec(host_suffix="i")) == "10.1.0.7"
    assert find_address(NetworkSpec()) == "10.0.0.7"

    def unknown(name):
        raise OSError

    monkeypatch.setattr(socket, "gethostbyname", unknown)
    with pytest.raises(SmgeoError, match="node7i has no address"):
        find_address(NetworkSpec(host_suffix="i"))


def test_two_jobs_do_not_try_the_same_port_and_a_taken_one_is_passed_over():
    first, second = port_of_job(1, "127.0.0.1"), port_of_job(2, "127.0.0.1")
    assert first != second
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        assert port_of_job(1, "127.0.0.1") == first + 1


@pytest.mark.parametrize(
    ("variables", "gpus"),
    [({}, 0), ({"SLURM_GPUS_ON_NODE": "4"}, 4), ({"SLURM_JOB_GPUS": "0,1,3"}, 3), ({"SLURM_JOB_GPUS": "2"}, 1)],
)
def test_an_allocation_is_what_slurm_says(variables, gpus, monkeypatch):
    told = {"hostnames": "a1\na2\n", "job": "TRES=cpu=96,mem=8G,node=2"}
    monkeypatch.setattr(allocation, "ask_scontrol", lambda what, name: told[what])
    for name in ("SLURM_GPUS_ON_NODE", "SLURM_JOB_GPUS"):
        monkeypatch.delenv(name, raising=False)
    given = {"SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "a[1-2]", "SLURM_JOB_CPUS_PER_NODE": "64,48", **variables}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    found = allocation.Allocation.current()
    assert found == allocation.Allocation(12, ("a1", "a2"), 48, gpus, 4096)


def test_rays_resources_are_the_jobs():
    asked = {"cpus": 6, "gpus": 2, "memory": 6000, "object_store": 2500}
    head = ray_command("10.0.0.1", None, 20_100, asked, "/tmp/s")
    other = ray_command("10.0.0.2", {"address": "10.0.0.1:20100"}, 0, asked, "/tmp/t")
    assert "--head" in head
    assert "--port=20100" in head
    assert "--address=10.0.0.1:20100" in other
    assert "--head" not in other
    for command in (head, other):
        assert {"--num-cpus=6", "--num-gpus=2", "--memory=6000", "--object-store-memory=2500"} <= set(command)


def test_certificates_are_their_users_alone(tmp_path):
    files = write_certificates(tmp_path)
    assert len(files) == 7
    for file in set(files.values()):
        assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o600


def test_jobs_of_workers_are_as_the_profile_says(tmp_path, monkeypatch):
    monkeypatch.delenv("SBATCH_ACCOUNT", raising=False)
    options = job_options(load_site("testbed"), tmp_path)
    assert (options["queue"], options["cores"], options["memory"], options["walltime"]) == (
        "main",
        4,
        "8.0 GiB",
        "00:30:00",
    )
    with pytest.raises(SmgeoError, match="lacks workers.cores and workers.memory_gb"):
        job_options(load_site("juwels"), tmp_path, account="a")
    path = tmp_path / "own.yaml"
    path.write_text(
        "name: own\naccount_required: true\ndefault_partition: a\npartitions: {a: {cores: 16, memory_gb: 32}}\n",
        encoding="utf-8",
    )
    with pytest.raises(SmgeoError, match="--account is missing"):
        job_options(load_site(path), tmp_path)
    own = job_options(load_site(path), tmp_path, account="soil")
    assert (own["account"], own["cores"], own["processes"]) == ("soil", 16, 4)


@pytest.mark.parametrize(
    ("partition", "option", "expected"),
    [
        ("cores: 16, memory_gb: 31.5", "mem", ["--mem=32256M"]),
        ("cores: 16, memory_gb: 32", "mem-per-cpu", ["--mem-per-cpu=2048M"]),
        ("cores: 16, memory_gb: 32, exclusive: true", "mem", ["--mem=0"]),
        # Of the whole node, because the job has all its CPUs.
        ("cores: 64, memory_gb: 64, exclusive: true", "mem-per-cpu", ["--mem-per-cpu=1024M"]),
        ("cores: 16, memory_gb: 32", "none", []),
    ],
)
def test_jobs_of_workers_ask_for_memory_and_modules_as_other_jobs_do(partition, option, expected, tmp_path):
    own = "{cores: 16, memory_gb: 32}" if "64" in partition else "{}"
    site = parse_site(
        f"{{name: s, memory_option: {option}, workers: {own}, modules: [GCC Python], default_partition: a, partitions: {{a: {{{partition}, "
        "modules: [CUDA]}}}",
        "s",
    )
    options = {k: v for k, v in job_options(site, tmp_path).items() if k not in ("scheduler_options", "name")}
    script = SubmittedJob("tls://host:1", "0", **options).job_script()
    assert re.findall(r"(?m)^#SBATCH (--mem.*)$", script) == expected
    assert re.findall(r"(?m)^module load .*$", script) == ["module load GCC Python", "module load CUDA"]


def test_remote_sources_where_nodes_do_not_reach_the_internet(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    path = tmp_path / "own.yaml"
    text = "name: own\ndefault_partition: a\npartitions: {a: {cores: 1, memory_gb: 1}}\n"
    path.write_text(text, encoding="utf-8")
    told = []
    machine = Cluster(Workers(path), tmp_path / "work", told.append)
    with machine.cubes(remote=True):  # no SLURM is asked, so this process does it
        pass
    assert told == [
        "the profile of own says that partition a does not reach the internet: remote sources are read by this process"
    ]
    path.write_text(text + "login_internet: false\n", encoding="utf-8")
    with (
        pytest.raises(SmgeoError, match="nor does its login node"),
        Cluster(Workers(path), tmp_path).cubes(remote=True),
    ):
        pass


def test_processes_of_one_machine_have_numbers_and_end_together(tmp_path):
    count = LocalMachine().start(["/bin/sh", "-c", "echo $SLURM_PROCID"], tmp_path / "rank-%t.log", 3)
    while (code := count.ended) is None:
        pass
    assert code == 0
    assert [(tmp_path / f"rank-{i}.log").read_text().strip() for i in range(3)] == ["0", "1", "2"]
    fail = LocalMachine().start(
        ["/bin/sh", "-c", 'test "$SLURM_PROCID" = 0 && { echo broken; exit 3; }; sleep 600'],
        tmp_path / "fail-%t.log",
        2,
    )
    while (code := fail.ended) is None:
        pass
    assert code == 3
    assert "fail-0.log ends: broken" in fail.last_lines()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"count": 2, "account": "soil"}, "--workers, --account: applies only to workers of a cluster"),
        ({"system": "testbed", "count": 0}, "--workers must be 1 or more; got 0"),
    ],
)
def test_workers_need_a_machine(asked, message):
    with pytest.raises(SmgeoError, match=message):
        Workers(**asked)


def test_a_container_without_slurms_programs_knows_a_job_of_one_node(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    given = {"SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "n1.cluster", "SLURM_JOB_CPUS_PER_NODE": "3"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    found = allocation.Allocation.current()
    assert found is not None
    assert (found.job_id, found.nodes, found.cpus, found.memory_mb) == (12, ("n1.cluster",), 3, None)
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    with pytest.raises(SmgeoError, match="scontrol was not found in this job of several nodes"):
        allocation.Allocation.current()
    monkeypatch.delenv("SLURM_JOB_ID")
    assert allocation.Allocation.current() is None


def test_a_login_node_may_lack_the_interface_of_the_nodes(tmp_path):
    site = parse_site(
        "{name: s, default_partition: a, partitions: {a: {cores: 4, memory_gb: 4}}, network: {interface: ib7}}", "s"
    )
    said: list[str] = []
    options = job_options(site, tmp_path / "w", say=said.append)
    assert options["interface"] == "ib7"
    assert options["scheduler_options"]["host"] == find_address(NetworkSpec())
    assert "network.interface 'ib7' is not on this node" in said[0]
