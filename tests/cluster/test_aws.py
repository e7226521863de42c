"""cluster/aws-a100.yaml is what Ray and EC2 take, holds no secret, opens nothing, and costs nothing while it is idle but its head."""

from __future__ import annotations

import contextlib
import copy
import re
import subprocess
from importlib.metadata import PackageNotFoundError, requires
from typing import Any

import botocore.session
import jsonschema
import pytest
import yaml
from botocore.validate import ParamValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.dashboard.consts import DEFAULT_JOB_START_TIMEOUT_SECONDS, RAY_JOB_START_TIMEOUT_SECONDS_ENV_VAR
from running import ROOT

from runtime.resources import Nodes, parse_node_types

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "cluster" / "aws-a100.yaml").read_text())
NODE_TYPES = CONFIG["available_node_types"]
WORKERS = {name: node for name, node in NODE_TYPES.items() if name != CONFIG["head_node_type"]}


def ec2_complaints(node_config: dict[str, Any]) -> str:
    """What EC2's RunInstances has against a node's configuration, which Ray hands on unread."""
    client = botocore.session.get_session().get_service_model("ec2")
    shape = client.operation_model("RunInstances").input_shape
    return str(ParamValidator().validate(node_config | {"MinCount": 1, "MaxCount": 1}, shape).generate_report())


def test_ray_takes_it() -> None:
    config = copy.deepcopy(CONFIG)
    validate_config(config | {"cluster_synced_files": []})
    validate_config(prepare_config(config))


@pytest.mark.parametrize("path", [(), ("available_node_types", "a100"), ("auth",)], ids=["top", "node", "auth"])
def test_ray_refuses_a_misspelt_field(path: tuple[str, ...]) -> None:
    config = copy.deepcopy(CONFIG)
    place: dict[str, Any] = config
    for key in path:
        place = place[key]
    place["min_wokers"] = 0
    with pytest.raises(jsonschema.ValidationError, match="min_wokers"):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("name", NODE_TYPES)
def test_ec2_takes_every_node(name: str) -> None:
    node_config = NODE_TYPES[name]["node_config"]
    assert ec2_complaints(node_config) == ""
    assert "Instancetype" in ec2_complaints(node_config | {"Instancetype": "p4d.24xlarge"})
    assert "Encryptd" in ec2_complaints(node_config | {"BlockDeviceMappings": [{"Ebs": {"Encryptd": True}}]})


def test_workers_start_at_none_and_have_a_limit() -> None:
    assert all(node["min_workers"] == 0 and node["max_workers"] >= 1 for node in WORKERS.values())
    assert CONFIG["max_workers"] == sum(node["max_workers"] for node in WORKERS.values())
    assert 0 < CONFIG["idle_timeout_minutes"] <= 10
    assert CONFIG["provider"]["cache_stopped_nodes"] is False
    assert NODE_TYPES[CONFIG["head_node_type"]]["resources"] == {"CPU": 0}


def test_training_is_on_a100_and_preprocessing_on_spot() -> None:
    assert WORKERS["a100"]["node_config"]["InstanceType"] == "p4d.24xlarge"
    assert WORKERS["a100"]["resources"] == {"CPU": 96, "GPU": 8}
    assert "InstanceMarketOptions" not in WORKERS["a100"]["node_config"]
    assert WORKERS["cpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "GPU" not in WORKERS["cpu"]["resources"]


def test_storage_is_reached_by_an_instance_role() -> None:
    for node in NODE_TYPES.values():
        assert node["node_config"]["IamInstanceProfile"]["Name"].startswith("vpp-ray-")
        assert node["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}


def test_ray_starts_with_a_token_and_the_dashboard_on_loopback() -> None:
    assert CONFIG["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    starts = [
        command
        for commands in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in CONFIG[commands]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token " in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]


def test_jobs_are_told_which_nodes_may_come() -> None:
    told = tuple(Nodes(node["resources"], node["max_workers"]) for node in WORKERS.values())
    starts = [CONFIG[f"{who}_start_ray_commands"][-1] for who in ("head", "worker")]
    assert [parse_node_types(re.search("VPP_NODE_TYPES='(.*?)'", start)[1]) for start in starts] == [told, told]


def test_a_job_may_wait_longer_for_a_gpu_than_ray_lets_it() -> None:
    (seconds,) = re.findall(f"{RAY_JOB_START_TIMEOUT_SECONDS_ENV_VAR}=(\\d+) ", CONFIG["head_start_ray_commands"][-1])
    assert int(seconds) > 10 * DEFAULT_JOB_START_TIMEOUT_SECONDS


def test_nodes_install_the_constraints_and_nothing_else() -> None:
    installs = [command for command in CONFIG["setup_commands"] if "pip install" in command]
    assert [command.split(" -r ")[1] for command in installs] == ["~/vpp/constraints.txt"]
    assert (ROOT / CONFIG["file_mounts"]["~/vpp/constraints.txt"]).is_file()
    pinned = (ROOT / "constraints.txt").read_text()
    for package in ("boto3", "botocore", "ray", "torch"):  # the autoscaler on the head calls EC2 through boto3
        assert f"\n{package}==" in pinned
    assert "+cpu" not in pinned


def test_lists_of_packages_that_are_locked_are_waited_for() -> None:
    (command,) = (command for command in CONFIG["setup_commands"] if "update" in command)
    locked = 'calls=0; sudo() { echo "$*"; calls=$((calls + 1)); test $calls = 3; }; sleep() { echo waits; }'
    done = subprocess.run(["bash", "-c", f"{locked}; {command}"], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == ["apt-get -qq update", "waits"] * 2 + ["apt-get -qq update"]


def test_the_constraints_can_be_installed_together() -> None:
    """As nodes do it, with all that each package asks for; of those that are installed here."""
    lines = (ROOT / "constraints.txt").read_text().split()
    pinned = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    of_nodes = {"python_version": "3.12", "python_full_version": "3.12.3", "extra": ""}
    conflicts = []
    for name in sorted(pinned):
        with contextlib.suppress(PackageNotFoundError):
            for asked in map(Requirement, requires(name) or []):
                found = pinned.get(canonicalize_name(asked.name))
                if found and (asked.marker is None or asked.marker.evaluate(of_nodes)) and found not in asked.specifier:
                    conflicts.append(f"{name} asks for {asked}, pinned is {found}")
    assert not conflicts
