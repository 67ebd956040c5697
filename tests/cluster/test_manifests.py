"""The files for Kubernetes and for rented machines: read, and held against the fields that their readers know."""

from __future__ import annotations

import copy
import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from tests.cluster.heads import ROOT

if TYPE_CHECKING:
    from pathlib import Path

MANIFESTS = ROOT / "cluster" / "kubernetes"
FILES = sorted([*MANIFESTS.glob("*.yaml"), ROOT / "cluster" / "aws.yaml"])

# Fields of ray.io/v1 in KubeRay 1.5 that may stand in a manifest.
RAY_JOB = {
    "activeDeadlineSeconds",
    "backoffLimit",
    "rayClusterSpec",
    "submitterPodTemplate",
    "metadata",
    "clusterSelector",
    "submitterConfig",
    "managedBy",
    "deletionStrategy",
    "entrypoint",
    "runtimeEnvYAML",
    "jobId",
    "submissionMode",
    "entrypointResources",
    "entrypointNumCpus",
    "entrypointNumGpus",
    "ttlSecondsAfterFinished",
    "shutdownAfterJobFinishes",
    "suspend",
}
RAY_CLUSTER = {
    "headGroupSpec",
    "workerGroupSpecs",
    "rayVersion",
    "enableInTreeAutoscaling",
    "autoscalerOptions",
    "headServiceAnnotations",
    "suspend",
    "authOptions",
}
HEAD_GROUP = {"serviceType", "headService", "enableIngress", "rayStartParams", "template"}
WORKER_GROUP = {
    "groupName",
    "replicas",
    "minReplicas",
    "maxReplicas",
    "numOfHosts",
    "rayStartParams",
    "template",
    "scaleStrategy",
    "idleTimeoutSeconds",
}
AUTOSCALER = {
    "resources",
    "image",
    "imagePullPolicy",
    "env",
    "envFrom",
    "volumeMounts",
    "securityContext",
    "idleTimeoutSeconds",
    "upscalingMode",
}


def read(file: Path) -> list[Any]:
    return list(YAML(typ="safe", pure=True).load_all(file))


def ray_cluster(name: str) -> dict[str, Any]:
    (manifest,) = read(MANIFESTS / name)
    spec: dict[str, Any] = manifest["spec"]
    return spec["rayClusterSpec"] if manifest["kind"] == "RayJob" else spec


def texts(value: Any) -> list[str]:
    """Return every text in a document."""
    if isinstance(value, dict):
        return [text for key, below in value.items() for text in [str(key), *texts(below)]]
    if isinstance(value, list):
        return [text for below in value for text in texts(below)]
    return [value] if isinstance(value, str) else []


def test_the_job_has_fields_that_kuberay_knows_and_ends() -> None:
    (job,) = read(MANIFESTS / "rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert spec.keys() <= RAY_JOB
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["entrypoint"].startswith("python -m search.run --data /shared/")
    assert " --out /shared/" in spec["entrypoint"]


@pytest.mark.parametrize("name", ["rayjob.yaml", "raycluster.yaml"])
def test_the_cluster_has_fields_that_kuberay_knows(name: str) -> None:
    cluster = ray_cluster(name)
    assert cluster.keys() <= RAY_CLUSTER
    assert cluster["headGroupSpec"].keys() <= HEAD_GROUP
    assert cluster["autoscalerOptions"].keys() <= AUTOSCALER
    for group in cluster["workerGroupSpecs"]:
        assert group.keys() <= WORKER_GROUP
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert cluster["rayVersion"] == version("ray")
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


@pytest.mark.parametrize("name", ["rayjob.yaml", "raycluster.yaml"])
def test_the_cluster_asks_for_a_token_and_binds_the_pods_address(name: str) -> None:
    cluster = ray_cluster(name)
    assert cluster["authOptions"] == {"mode": "token"}
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["dashboard-host"] == "$POD_IP"
    (container,) = head["template"]["spec"]["containers"]
    (address,) = [variable for variable in container["env"] if variable["name"] == "POD_IP"]
    assert address["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    for probe in ("readinessProbe", "livenessProbe"):  # KubeRay's own ask localhost
        assert container[probe]["httpGet"] == {"path": "/api/gcs_healthz", "port": "dashboard"}


@pytest.mark.parametrize("name", ["rayjob.yaml", "raycluster.yaml"])
def test_pods_share_a_volume_are_not_root_and_ask_for_a_gpu(name: str) -> None:
    cluster = ray_cluster(name)
    (claim, policy) = read(MANIFESTS / "shared.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert policy["spec"]["podSelector"] == {"matchLabels": {"ray.io/is-ray-node": "yes"}}
    images = set()
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        images.add(container["image"])
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["shared"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]} == {
            "/shared": "shared",
            "/dev/shm": "memory",  # noqa: S108 - shared memory of a pod
        }
        assert container["envFrom"] == [{"secretRef": {"name": "cellsearch-keys", "optional": True}}]
        assert container["resources"]["requests"] == container["resources"]["limits"]
    assert len(images) == 1
    (worker,) = cluster["workerGroupSpecs"]
    assert worker["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_job_and_cluster_are_the_same_cluster() -> None:
    assert ray_cluster("rayjob.yaml") == ray_cluster("raycluster.yaml")


def test_the_launcher_takes_the_file_for_rented_machines() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    (asked,) = read(ROOT / "cluster" / "aws.yaml")
    whole = prepare_config(copy.deepcopy(asked))  # Ray's defaults filled in
    validate_config(whole)
    workers = whole["available_node_types"]["gpu"]["node_config"]
    assert workers["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert whole["file_mounts"] == {"/home/cellsearch/.ray/auth_token": "~/.ray/auth_token"}
    assert "--env RAY_AUTH_MODE=token" in whole["docker"]["run_options"]
    assert [option for option in whole["docker"]["run_options"] if option.startswith("--env SEARCH_STORAGE=s3://")]
    assert "--dashboard-host=127.0.0.1" in " ".join(whole["head_start_ray_commands"])
    assert f"ray[default]=={version('ray')}" in (ROOT / "cluster" / "aws.yaml").read_text()


def test_the_launcher_opens_no_port_of_the_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import boto3
    from moto import mock_aws
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.util import prepare_config

    (asked,) = read(ROOT / "cluster" / "aws.yaml")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray keeps the key for ssh there
    (tmp_path / ".ssh").mkdir()
    with mock_aws():
        ec2 = boto3.client("ec2", region_name=asked["provider"]["region"])
        made = ec2.create_security_group(GroupName="cellsearch", Description="cellsearch")["GroupId"]
        kinds = asked["available_node_types"].values()
        assert all(kind["node_config"]["SecurityGroupIds"] for kind in kinds)
        for kind in kinds:
            kind["node_config"]["SecurityGroupIds"] = [made]
        started = bootstrap_aws(prepare_config(asked))
        groups = ec2.describe_security_groups()["SecurityGroups"]
    assert [kind["node_config"]["SecurityGroupIds"] for kind in started["available_node_types"].values()] == [
        [made]
    ] * 2
    assert {group["GroupName"] for group in groups} == {"default", "cellsearch"}
    assert not [group for group in groups if group["IpPermissions"]]
    assert started["head_setup_commands"] == started["worker_setup_commands"] == []


def test_the_launchers_schema_finds_a_wrong_key() -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    (asked,) = read(ROOT / "cluster" / "aws.yaml")
    with pytest.raises(ValidationError, match="max_worker"):
        validate_config(prepare_config(copy.deepcopy(asked) | {"max_worker": 3}))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_secret_and_no_open_address_stands_in_a_file(file: Path) -> None:
    everywhere = ("0.0.0.0", "::/0")  # noqa: S104 - what must not be there
    for text in texts(read(file)):
        assert not any(address in text for address in everywhere)
        assert not re.fullmatch(r"[0-9a-f]{32,}|AKIA[0-9A-Z]{16}", text)
    keys = {text.lower() for text in texts(read(file))}
    assert not [key for key in keys if re.search(r"password|secret_access_key|api_key", key)]


def test_the_container_has_the_code_the_pins_and_no_root() -> None:
    recipe = (MANIFESTS / "Dockerfile").read_text()
    ignored = (MANIFESTS / "Dockerfile.dockerignore").read_text().split()
    for package in ("analysis", "cluster", "data_io", "postprocess", "search"):
        assert f"COPY {package} {package}\n" in recipe
        assert f"!{package}" in ignored
    assert ignored[0] == "*"
    assert "--constraint .ci/constraints.txt" in recipe
    assert recipe.index("USER cellsearch") > recipe.index("pip install")
    for source in re.findall(r"^COPY (.*) \S+$", recipe, re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists(), name
