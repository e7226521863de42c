"""Fields of KubeRay's resources with their types, and where a pod's template stands.

The v1 schemas of KubeRay 1.7.0: ray-operator/config/crd/bases/ray.io_rayclusters.yaml and ray.io_rayjobs.yaml of
github.com/ray-project/kuberay; the values of submissionMode: ray-operator/apis/ray/v1/rayjob_types.go. A tuple lists the
values that are allowed; `POD` is a Kubernetes pod template; `MAP` has any names; a list holds what each of its items has.
Names that cluster/kuberay.yaml has no use for are left out.
"""

from __future__ import annotations

from typing import Any

POD, MAP, CONTAINER = "pod template", "map", "parts of a container"

_GROUP = {"rayStartParams": MAP, "template": POD}

RAY_CLUSTER: dict[str, Any] = {
    "rayVersion": str,
    "authOptions": {"mode": ("disabled", "token"), "secretName": str},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {
        "version": ("v1", "v2"),
        "idleTimeoutSeconds": int,
        "upscalingMode": ("Default", "Aggressive", "Conservative"),
        "resources": CONTAINER,
        "securityContext": CONTAINER,
    },
    "headGroupSpec": _GROUP,
    "workerGroupSpecs": [
        _GROUP
        | {
            "groupName": str,
            "replicas": int,
            "minReplicas": int,
            "maxReplicas": int,
            "idleTimeoutSeconds": int,
            "priority": int,
        }
    ],
}

RAY_JOB: dict[str, Any] = {
    "clusterSelector": MAP,
    "submissionMode": ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    "entrypoint": str,
    "entrypointNumCpus": float,
    "entrypointNumGpus": float,
    "entrypointResources": str,
    "runtimeEnvYAML": str,
}

SPECS = {"RayCluster": RAY_CLUSTER, "RayJob": RAY_JOB}
