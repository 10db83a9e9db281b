"""Requests as SLURM reads them: what each way of asking for memory, GPUs, partitions and features gives there."""

from __future__ import annotations

import re
import subprocess

import pytest

import smgeo
from smgeo.errors import SmgeoError
from smgeo.hpc.jobs.script import check_script, submit_script
from smgeo.hpc.sites.profile import load_site
from smgeo.hpc.sites.testbed import start_testbed
from smgeo.hpc.workers.dask_cluster import job_options
from smgeo.hpc.workers.submitted_job import SubmittedJob

SITE = """
name: ours
default_partition: main
memory_option: {memory}
gpu_option: {gpu}
directives: ['{directive}']
partitions:
  main: {{cores: 4, memory_gb: 8, gpus: 3, gpu_type: {kind}, constraint: {constraint}}}
  short: {{cores: 4, memory_gb: 8, gpus: 3, gpu_type: {kind}, constraint: {constraint}, time_limit: "00:05:00"}}
  urgent: {{cores: 4, memory_gb: 8, gpus: 0, exclusive: true}}
"""


@pytest.fixture
def write_site(tmp_path, monkeypatch, slurm_with_gpus):
    """(values of the profile) -> its path; logs of jobs are beside it."""
    monkeypatch.chdir(tmp_path)

    def write(memory="mem", gpu="gres", kind="fake", constraint="testbed", directive="--open-mode=append"):
        file = tmp_path / "ours.yaml"
        file.write_text(
            SITE.format(memory=memory, gpu=gpu, kind=kind, constraint=constraint, directive=directive), encoding="utf-8"
        )
        return file

    return write


def held(slurm, site, **options) -> dict[str, str]:
    """SLURM's own record of a job, which passed `sbatch --test-only` and was then submitted to wait forever."""
    text = smgeo.jobscript(site, "any", "hostname", **options)
    assert "to start at" in check_script(text)[1]
    job = submit_script(text.replace("#SBATCH --time", "#SBATCH --hold\n#SBATCH --time"))
    try:
        return slurm.job(job)
    finally:
        subprocess.run(["scancel", str(job)], check=True)


@pytest.mark.parametrize(
    ("memory", "options", "expected"),
    [
        ("mem", {"memory": "2G", "cpus": 2, "gpus": 0}, {"MinMemoryNode": "2G"}),
        ("mem-per-cpu", {"memory": "2G", "cpus": 2, "gpus": 0}, {"MinMemoryCPU": "1G"}),
        ("mem-per-cpu", {"memory": "0", "gpus": 0}, {"MinMemoryCPU": "2G"}),
        # Counted by the 4 CPUs that a job gets with a node of its own: 4 GB for each of 2 would be refused.
        ("mem-per-cpu", {"memory": "8G", "cpus": 2, "partition": "urgent"}, {"MinMemoryCPU": "2G"}),
        ("mem-per-cpu", {"cpus": 2, "partition": "urgent"}, {"MinMemoryCPU": "2G"}),
        ("mem", {"cpus": 2, "partition": "urgent"}, {"MinMemoryNode": "0"}),
        # The partition's default, 2 GB for each CPU.
        ("none", {"cpus": 2, "gpus": 0}, {"MinMemoryCPU": "2G"}),
    ],
)
def test_slurm_reads_each_request_for_memory(slurm_with_gpus, write_site, memory, options, expected):
    job = held(slurm_with_gpus, write_site(memory=memory), **options)
    assert {k: v for k, v in job.items() if k.startswith("MinMemory")} == expected


@pytest.mark.parametrize("option", ["--account=soil", "-A soil"])
def test_the_account_of_a_script_is_before_that_of_the_environment(slurm_with_gpus, monkeypatch, tmp_path, option):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SBATCH_ACCOUNT", "other")
    for line, account in ((f"#SBATCH {option}", "soil"), ("", "other")):
        job = submit_script(f"#!/bin/sh\n#SBATCH --hold\n{line}\ntrue\n")
        assert slurm_with_gpus.job(job)["Account"] == account
        subprocess.run(["scancel", str(job)], check=True)


@pytest.mark.parametrize("partition", ["main", "urgent"])
@pytest.mark.parametrize("memory", ["mem", "mem-per-cpu", "none"])
def test_slurm_takes_the_jobs_of_workers(write_site, memory, partition, tmp_path):
    site = load_site(write_site(memory=memory))
    options = {
        k: v for k, v in job_options(site, tmp_path, partition).items() if k not in ("scheduler_options", "name")
    }
    script = SubmittedJob("tls://host:1", "0", **options).job_script()
    assert f" in partition {partition}" in check_script(script)[1]


@pytest.mark.parametrize(("gpu", "nodes"), [("gres", 2), ("gpus-per-node", 2), ("gpus", 1), ("gpus", 2)])
def test_slurm_gives_each_node_its_gpus(slurm_with_gpus, write_site, gpu, nodes, tmp_path):
    """Two of the three GPUs of each node: `--gpus=4` alone gives 3 and 1."""
    tell = ("bash", "-c", "echo $SLURMD_NODENAME has $SLURM_GPUS_ON_NODE")
    job = submit_script(smgeo.jobscript(write_site(gpu=gpu), "any", *tell, nodes=nodes, gpus=2, cpus=1))
    assert slurm_with_gpus.wait(job)["JobState"] == "COMPLETED"
    log = (tmp_path / f"any-{job}.log").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^n\d has .*$", log, re.MULTILINE)) == [f"n{i + 1} has 2" for i in range(nodes)]


def test_slurm_reads_several_partitions(slurm_with_gpus, write_site):
    job = held(slurm_with_gpus, write_site(), partition="main,short", time="00:04:00", cpus=1)
    assert job["Partition"] == "main,short"


@pytest.mark.parametrize(
    ("constraint", "nodes"),
    [
        ("n2", 1),
        ("testbed&n2", 1),
        ("n1|n2", 1),
        ("[n1|n2]", 1),
        ("testbed&[n1|n2]", 1),
        ("(testbed&n2)", 1),
        ("n2*1", 1),
        ("[n1*1&n2*1]", 2),
        ("[(n1&testbed)*1&n2*1]", 2),
    ],
)
def test_slurm_reads_each_form_of_a_constraint(slurm_with_gpus, write_site, constraint, nodes):
    job = held(slurm_with_gpus, write_site(), constraint=constraint, nodes=nodes, cpus=1)
    assert job["Features"] == constraint


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ({}, {"constraint": "n3"}, "Invalid feature"),
        ({}, {"constraint": "n1&n2"}, "node configuration is not available"),
        ({"kind": "a100"}, {}, "node configuration is not available"),
        ({"kind": "a100", "gpu": "gpus"}, {}, "node configuration is not available"),
        ({"directive": "--partition=main,nosuch"}, {}, "invalid partition"),
        ({"directive": "--mem-per-cpu=9G", "memory": "none"}, {}, "node configuration is not available"),
    ],
)
def test_slurm_refuses_what_its_nodes_lack(write_site, values, options, message):
    """Else the tests above would pass whatever a script asks for."""
    with pytest.raises(SmgeoError, match=f"SLURM does not accept the script: .*{message}"):
        check_script(smgeo.jobscript(write_site(**values), "any", "hostname", cpus=1, **options))


@pytest.mark.parametrize("gpus", [-1, 5])
def test_a_testbed_has_few_gpus(slurm_with_gpus, gpus, tmp_path):
    with pytest.raises(SmgeoError, match=f"gpus must be from 0 to 4; got {gpus}"):
        start_testbed(tmp_path, gpus=gpus)
