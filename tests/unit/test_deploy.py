"""What goes to a cluster, held against the schemas of its engines where no engine runs, and against the server."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from dockerfile_parse import DockerfileParser

from export.serve_settings import ServeSettings

ROOT = Path(__file__).parents[2]
KUBERNETES = [*yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text(encoding="utf-8"))]
KSERVE = [*yaml.safe_load_all((ROOT / "deploy" / "kserve.yaml").read_text(encoding="utf-8"))]
SCHEMA = json.loads((ROOT / "tests" / "assets" / "kserve.schema.json").read_text(encoding="utf-8"))
PATHS = {"/v2/health/ready", "/v2/health/live"}


def pod(container: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [container], **spec}}


def deployed() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pod spec of the Deployment and its container."""
    spec = next(one for one in KUBERNETES if one["kind"] == "Deployment")["spec"]["template"]["spec"]
    return spec, spec["containers"][0]


def containers() -> list[dict[str, Any]]:
    return [deployed()[1], next(one for one in KSERVE if one["kind"] == "ServingRuntime")["spec"]["containers"][0]]


def instructions() -> list[dict[str, Any]]:
    parser = DockerfileParser(str(ROOT / "Dockerfile"), cache_content=True)
    return [one for one in parser.structure if one["instruction"] != "COMMENT"]


def last(name: str) -> str:
    return [str(one["value"]) for one in instructions() if one["instruction"] == name][-1]


@pytest.mark.parametrize("manifest", KUBERNETES, ids=lambda one: one["kind"])
def test_kubernetes_knows_every_field_of_its_manifests(manifest: dict[str, Any]) -> None:
    assert kubernetes_validate.validate(manifest, "1.31", strict=True) is not None


def test_a_manifest_with_a_misspelt_field_would_be_found() -> None:
    container = {**containers()[0], "livenesProbe": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod(container), "1.31", strict=True)


@pytest.mark.parametrize("manifest", KSERVE, ids=lambda one: one["kind"])
def test_kserve_knows_every_field_of_its_manifests(manifest: dict[str, Any]) -> None:
    jsonschema.validate(manifest, SCHEMA)
    for container in manifest["spec"].get("containers", []):
        assert kubernetes_validate.validate(pod(container), "1.31", strict=True) is not None


def test_the_inference_service_asks_for_what_its_runtime_offers() -> None:
    runtime, service = KSERVE
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert model["modelFormat"]["name"] == runtime["spec"]["supportedModelFormats"][0]["name"]


@pytest.mark.parametrize("container", containers(), ids=["kubernetes", "kserve"])
def test_a_container_starts_the_server_with_options_it_has(container: dict[str, Any]) -> None:
    options = {word.removeprefix("--").replace("-", "_") for word in container["args"] if word.startswith("--")}
    assert options <= set(ServeSettings.model_fields)
    port = int(container["args"][container["args"].index("--port") + 1])
    assert [one["containerPort"] for one in container["ports"]] == [port]
    assert container["args"][0].endswith(("=/models/shop", "=/mnt/models"))
    workers = container["args"][container["args"].index("--workers") + 1]
    assert container["resources"]["limits"]["cpu"] == container["resources"]["requests"]["cpu"] == workers


@pytest.mark.parametrize("container", containers(), ids=["kubernetes", "kserve"])
def test_a_container_is_probed_where_no_token_is_wanted(container: dict[str, Any]) -> None:
    probes = [probe["httpGet"]["path"] for name, probe in container.items() if name.endswith("Probe")]
    assert set(probes) == PATHS


@pytest.mark.parametrize("container", containers(), ids=["kubernetes", "kserve"])
def test_a_container_runs_without_root_and_writes_nothing_of_its_own(container: dict[str, Any]) -> None:
    security = deployed()[0]["securityContext"] | container["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert str(security["runAsUser"]) == last("USER").split(":")[0]


def test_a_pod_is_given_the_time_that_the_server_takes_to_drain() -> None:
    defaults = ServeSettings(bundles={"shop": Path("shop")})
    grace = deployed()[0]["terminationGracePeriodSeconds"]
    predictor = KSERVE[1]["spec"]["predictor"]["terminationGracePeriodSeconds"]
    for container, given in zip(containers(), (grace, predictor), strict=True):
        program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
        assert program == "sleep"
        assert given > int(seconds) + defaults.drain_delay_seconds + defaults.drain_seconds


def test_a_service_reaches_the_pods_and_a_budget_keeps_one() -> None:
    deployment, service, budget = KUBERNETES
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["ports"][0]["targetPort"] == deployed()[1]["ports"][0]["name"]
    assert budget["spec"]["minAvailable"] < deployment["spec"]["replicas"]


def test_the_image_is_slim_pinned_and_holds_the_serve_extra_alone() -> None:
    bases = [str(one["value"]).split()[0] for one in instructions() if one["instruction"] == "FROM"]
    assert {base for base in bases if not re.fullmatch(r"python:3\.\d+-slim", base)} == set()
    assert len(bases) == 2  # what built it stays behind
    installed = next(one["value"] for one in instructions() if "pip install" in str(one["value"]))
    assert ".[serve]" in installed
    assert "--constraint constraints.txt" in installed
    assert "--no-cache-dir" in installed


def test_the_image_runs_as_a_numbered_user_after_everything_is_installed() -> None:
    names = [one["instruction"] for one in instructions()]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", last("USER"))
    assert names.index("USER") > max(index for index, name in enumerate(names) if name in ("RUN", "COPY"))
    assert not {"ADD", "MAINTAINER"} & set(names)
    assert names.count("ENTRYPOINT") == names.count("CMD") == names.count("HEALTHCHECK") == 1


def test_the_image_is_started_and_stopped_in_a_way_that_signals_reach_it() -> None:
    assert json.loads(last("ENTRYPOINT")) == ["distill", "serve"]
    assert json.loads(last("CMD"))[1:] == ["--host", "0.0.0.0"]
    assert last("STOPSIGNAL") == "SIGTERM"
    check = json.loads(last("HEALTHCHECK").partition("CMD")[2])
    assert check[:2] == ["python", "-c"]
    compile(check[2], "HEALTHCHECK", "exec")
    assert "/v2/health/ready" in check[2]


def test_everything_that_is_copied_is_there_and_reaches_the_engine() -> None:
    copied = [
        words for one in instructions() if one["instruction"] == "COPY" for words in str(one["value"]).split()[:-1]
    ]
    sources = {word for word in copied if not word.startswith(("--", "/"))}
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert sources == {line.removeprefix("!") for line in let_in if line.startswith("!")}
    assert [name for name in sources if not (ROOT / name).exists()] == []
