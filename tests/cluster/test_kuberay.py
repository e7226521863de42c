"""cluster/kuberay.yaml is what Kubernetes and KubeRay take, every job's command line is one its job takes, and it is closed."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from job_settings import SETTINGS
from kuberay_fields import CONTAINER, MAP, POD, SPECS
from ray.dashboard.consts import DEFAULT_JOB_START_TIMEOUT_SECONDS, RAY_JOB_START_TIMEOUT_SECONDS_ENV_VAR
from running import ROOT

from runtime.resources import Nodes, parse_node_types
from runtime.settings import load_settings

kubernetes_validate = pytest.importorskip("kubernetes_validate")

KUBERNETES = "1.33"
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "cluster" / "kuberay.yaml").read_text()))


def by_kind(kind: str) -> list[dict[str, Any]]:
    return [document for document in DOCUMENTS if document["kind"] == kind]


CLUSTER = by_kind("RayCluster")[0]["spec"]
GROUPS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]
JOBS = {document["metadata"]["name"]: document["spec"] for document in by_kind("RayJob")}


def containers(group: dict[str, Any]) -> list[dict[str, Any]]:
    return list(group["template"]["spec"]["containers"])


def complaints(document: dict[str, Any]) -> Iterator[str]:
    """What Kubernetes, or KubeRay's schema, would refuse in a document."""
    if document["apiVersion"] != "ray.io/v1":
        yield from _kubernetes_complaints(document)
        return
    if document["kind"] not in SPECS:
        yield f"kind {document['kind']}"
        return
    # Kubernetes itself checks names and labels, here of a document that it knows.
    yield from _kubernetes_complaints({"apiVersion": "v1", "kind": "ConfigMap", "metadata": document["metadata"]})
    yield from _spec_complaints(document["spec"], SPECS[document["kind"]], "spec")
    yield from (f"field {name}" for name in set(document) - {"apiVersion", "kind", "metadata", "spec"})


def _spec_complaints(value: Any, expected: Any, where: str) -> Iterator[str]:
    if expected == POD:
        yield from _kubernetes_complaints({"apiVersion": "v1", "kind": "PodTemplate", "template": value})
    elif expected == CONTAINER:
        container = {"name": "x", where.rsplit(".", 1)[-1]: value}
        yield from _kubernetes_complaints({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [container]}})
    elif expected == MAP:
        if not all(isinstance(key, str) and isinstance(text, str) for key, text in value.items()):
            yield f"{where}: expected texts, found {value}"
    elif isinstance(expected, dict):
        for name, part in value.items():
            if name not in expected:
                yield f"{where}.{name}: unknown field"
            else:
                yield from _spec_complaints(part, expected[name], f"{where}.{name}")
    elif isinstance(expected, list):
        for number, item in enumerate(value):
            yield from _spec_complaints(item, expected[0], f"{where}[{number}]")
    elif isinstance(expected, tuple):
        if value not in expected:
            yield f"{where}: expected one of {expected}, found {value!r}"
    elif not (type(value) is expected or (expected is float and type(value) is int)):
        yield f"{where}: expected {expected.__name__}, found {value!r}"


def _kubernetes_complaints(document: dict[str, Any]) -> Iterator[str]:
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield str(error)


@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=[f"{each['kind']}-{each['metadata']['name']}" for each in DOCUMENTS]
)
def test_kubernetes_and_kuberay_take_every_document(document: dict[str, Any]) -> None:
    assert not list(complaints(document))


@pytest.mark.parametrize(
    "path",
    [
        "authOptions.moed",
        "autoscalerOptions.resources.limit",
        "workerGroupSpecs.0.minReplica",
        "workerGroupSpecs.1.template.spec.nodeSelectors",
        "workerGroupSpecs.1.template.spec.containers.0.resource",
        "headGroupSpec.template.spec.containers.0.securityContext.runAsNonRot",
    ],
)
def test_a_misspelt_field_is_found(path: str) -> None:
    document = copy.deepcopy(by_kind("RayCluster")[0])
    *parents, name = path.split(".")
    place = document["spec"]
    for parent in parents:
        place = place[int(parent)] if parent.isdigit() else place[parent]
    place[name] = {}
    assert name in " ".join(complaints(document))


def test_a_wrong_value_is_found() -> None:
    document = copy.deepcopy(by_kind("RayCluster")[0])
    document["spec"]["authOptions"]["mode"] = "tokens"
    document["spec"]["workerGroupSpecs"][0]["minReplicas"] = "0"
    assert len(list(complaints(document))) == 2


def test_workers_start_at_none_and_have_a_limit() -> None:
    for group in CLUSTER["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
    assert CLUSTER["enableInTreeAutoscaling"] is True
    assert CLUSTER["autoscalerOptions"]["version"] == "v2"
    assert CLUSTER["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}


def test_jobs_are_told_which_nodes_may_come() -> None:
    limits = [containers(group)[0]["resources"]["limits"] for group in CLUSTER["workerGroupSpecs"]]
    names = {"cpu": "CPU", "nvidia.com/gpu": "GPU"}
    resources = [{names[name]: float(each[name]) for name in names if name in each} for each in limits]
    numbers = [group["maxReplicas"] for group in CLUSTER["workerGroupSpecs"]]
    for group in GROUPS:
        (variable,) = (each for each in containers(group)[0]["env"] if each["name"] == "VPP_NODE_TYPES")
        assert parse_node_types(variable["value"]) == tuple(map(Nodes, resources, numbers))


def test_a_job_may_wait_longer_for_a_gpu_than_ray_lets_it() -> None:
    environment = {each["name"]: each["value"] for each in containers(CLUSTER["headGroupSpec"])[0]["env"]}
    assert int(environment[RAY_JOB_START_TIMEOUT_SECONDS_ENV_VAR]) > 10 * DEFAULT_JOB_START_TIMEOUT_SECONDS


def test_tokens_are_on_and_pods_have_no_rights() -> None:
    assert CLUSTER["authOptions"] == {"mode": "token"}
    (version,) = (line for line in (ROOT / "constraints.txt").read_text().split() if line.startswith("ray=="))
    assert version == f"ray=={CLUSTER['rayVersion']}"
    contexts = [CLUSTER["autoscalerOptions"]["securityContext"]]
    contexts += [
        container["securityContext"] for group in GROUPS for container in group["template"]["spec"]["containers"]
    ]
    assert all(context["runAsNonRoot"] and not context["allowPrivilegeEscalation"] for context in contexts)
    assert {group["template"]["spec"]["serviceAccountName"] for group in GROUPS} == {"vpp"}


def test_strangers_reach_no_port() -> None:
    (policy,) = by_kind("NetworkPolicy")
    assert policy["spec"]["podSelector"] == {
        "matchLabels": {"ray.io/cluster": by_kind("RayCluster")[0]["metadata"]["name"]}
    }
    own, operator = policy["spec"]["ingress"]
    assert own["from"] == [{"podSelector": policy["spec"]["podSelector"]}]
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert "Ingress" in policy["spec"]["policyTypes"]


def test_one_label_applies_the_cluster_or_one_job() -> None:
    for document in DOCUMENTS:
        expected = document["metadata"]["name"] if document["kind"] == "RayJob" else "cluster"
        assert document["metadata"]["labels"]["vpp"] == expected


def words_of_a_shell(command: str) -> list[str]:
    """What a shell makes of it, to which Ray gives every entrypoint."""
    show = """python() { printf '%s\\0' python "$@"; }"""
    done = subprocess.run(["sh", "-ec", f"{show}\n{command}"], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


@pytest.mark.parametrize("name", JOBS)
def test_the_jobs_command_line_is_one_that_it_takes(name: str) -> None:
    job = JOBS[name]
    assert job["clusterSelector"] == {"ray.io/cluster": by_kind("RayCluster")[0]["metadata"]["name"]}
    python, script, *arguments = words_of_a_shell(job["entrypoint"])
    section = Path(script).stem
    assert (python, script) == ("python", f"/opt/vpp/jobs/{section}.py")
    assert (ROOT / "jobs" / f"{section}.py").is_file()
    assert section == name.replace("-", "_")
    if section in SETTINGS:
        settings_class, defaults_for = SETTINGS[section]
        assert load_settings(settings_class, section, arguments, defaults_for) != settings_class()


def test_there_is_an_example_for_every_job_that_makes_something() -> None:
    assert set(SETTINGS) <= {name.replace("-", "_") for name in JOBS}
