"""What the chart renders hangs together, whatever its values."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OPERATOR = {"app.kubernetes.io/name": "hookline", "app.kubernetes.io/component": "operator"}
# https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def violations(spec):
    """What of a pod's spec the Pod Security Standard "restricted" forbids."""
    pod = spec.get("securityContext", {})
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    found += [f"volume {each['name']}" for each in spec.get("volumes", []) if not set(each) - {"name"} <= VOLUMES]
    for container in (*spec["containers"], *spec.get("initContainers", [])):
        own = container.get("securityContext", {})
        merged = pod | own
        checks = {
            "privileged": not own.get("privileged"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": "ALL" in own.get("capabilities", {}).get("drop", []) and "add" not in own["capabilities"],
            "runAsNonRoot": merged.get("runAsNonRoot") is True,
            "runAsUser": merged.get("runAsUser") != 0,
            "seccompProfile": merged.get("seccompProfile", {}).get("type") in {"RuntimeDefault", "Localhost"},
            "hostPort": not any("hostPort" in port for port in container.get("ports", [])),
            "procMount": "procMount" not in own,
        }
        found += [f"{container['name']}: {name}" for name, fine in checks.items() if not fine]
    return found


def test_helm_finds_nothing_to_complain_about(helm):
    """`helm lint --strict`."""
    assert "0 chart(s) failed" in helm.run("lint", "--strict", helm.chart)


def test_every_pod_is_restricted(rendered):
    """As the Pod Security Standard says, and with a root that cannot be written."""
    pods = dict(rendered.pods())
    assert len(pods) == 2
    for name, pod in pods.items():
        assert violations(pod["spec"]) == [], name
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["resources"]["requests"]
            assert container["resources"]["limits"]["memory"]


def test_the_measure_of_restricted_measures(helm):
    """A pod without its security contexts is found out, item by item."""
    spec = helm.render().one("Deployment")["spec"]["template"]["spec"]
    del spec["securityContext"]
    for container in spec["containers"]:
        del container["securityContext"]
    spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
    words = ("volume host", "allowPrivilegeEscalation", "capabilities", "runAsNonRoot", "seccompProfile")
    assert [found.removeprefix("operator: ") for found in violations(spec)] == list(words)


def test_whoever_selects_the_operator_finds_it_and_nobody_else(rendered):
    """Deployment, Service, PDB, NetworkPolicy, spread and ServiceMonitor, by the labels of the pods themselves."""
    deployment = rendered.one("Deployment")
    template = deployment["spec"]["template"]
    selectors = [deployment["spec"]["selector"]["matchLabels"], rendered.one("Service")["spec"]["selector"]]
    selectors += [each["spec"]["selector"]["matchLabels"] for each in rendered.all("PodDisruptionBudget")]
    selectors += [each["spec"]["podSelector"]["matchLabels"] for each in rendered.all("NetworkPolicy")]
    spread = template["spec"]["topologySpreadConstraints"]
    selectors += [each["labelSelector"]["matchLabels"] for each in spread]
    (test_pod,) = rendered.all("Pod")
    for selector in selectors:
        assert selector.items() >= OPERATOR.items()
        assert selector.items() <= template["metadata"]["labels"].items()
        assert not selector.items() <= test_pod["metadata"]["labels"].items()
    for monitor in rendered.all("ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        assert selector.items() <= rendered.one("Service")["metadata"]["labels"].items()
        ports = {port["name"] for port in rendered.one("Service")["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def test_ports_have_the_names_that_are_asked_for(rendered):
    """Service, probes and NetworkPolicy name ports of the container; the flags listen on them."""
    (container,) = rendered.one("Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"https": 9443, "http": 8080}
    assert {port["targetPort"] for port in rendered.one("Service")["spec"]["ports"]} == set(ports)
    assert {container[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")} == {
        "http"
    }
    for policy in rendered.all("NetworkPolicy"):
        assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} == set(ports)
    assert "--listen=0.0.0.0:9443" in container["args"]
    assert "--health=0.0.0.0:8080" in container["args"]


def test_sidecars_and_api_server_pass_the_network_policy_from_anywhere(rendered):
    """9443 is open to all; egress is closed to nothing unless the values say so."""
    for policy in rendered.all("NetworkPolicy"):
        (https,) = [rule for rule in policy["spec"]["ingress"] if rule["ports"][0]["port"] == "https"]
        assert "from" not in https
        assert ("Egress" in policy["spec"]["policyTypes"]) == ("egress" in policy["spec"])


def test_a_rollout_never_takes_a_ready_operator_before_the_next_is_ready(rendered):
    """And a drain is never stopped for good, with one replica neither."""
    rolling = rendered.one("Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 1, "maxUnavailable": 0}
    for budget in rendered.all("PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_every_object_is_in_the_releases_namespace_or_in_a_watched_one(helm):
    """A namespace that nobody named is never touched."""
    cluster_wide = {
        "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition",
        "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
    }  # fmt: skip
    for each in helm.render({"watchNamespaces": ["shop"]}).objects:
        namespace = each["metadata"].get("namespace")
        assert (namespace is None) == (each["kind"] in cluster_wide), each["metadata"]
        assert namespace in {None, "hookline-system", "shop"}


def test_two_installations_for_different_namespaces_share_no_object(helm):
    """So one team's upgrade is not another's; but two for the whole cluster collide, as they should."""

    def keys(namespace, watched):
        values = {"watchNamespaces": watched, "crds": {"install": False}}
        objects = helm.render(values, namespace=namespace).objects
        return {(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects}

    assert not keys("team-a", ["a"]) & keys("team-b", ["b"])
    assert keys("team-a", []) & keys("team-b", [])


@pytest.mark.parametrize("release", ["hookline", "edge", "r" * 53, "my-hookline-" + "x" * 41])
def test_no_name_is_too_long(helm, release):
    """53 characters, which is what Helm allows a release, make a Service's name of 63 at the most."""
    for each in helm.render(release=release).objects:
        limit = 63 if each["kind"] in {"Service", "Pod"} else 253
        assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", each["metadata"]["name"])
        assert len(each["metadata"]["name"]) <= limit
        assert all(len(value) <= 63 for value in each["metadata"].get("labels", {}).values())


def test_the_operator_is_told_the_names_that_the_chart_gives(rendered):
    """Service, Lease, certificate, authority and webhooks, and the rights go to the same."""
    deployment = rendered.one("Deployment")
    pod = deployment["spec"]["template"]["spec"]
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in pod["containers"][0]["args"])
    assert flags["service"] == rendered.one("Service")["metadata"]["name"]
    assert flags["service-account"] == pod["serviceAccountName"]
    webhooks = [*rendered.all("MutatingWebhookConfiguration"), *rendered.all("ValidatingWebhookConfiguration")]
    assert {each["metadata"]["name"] for each in webhooks} == ({flags["webhooks"]} if flags["webhooks"] else set())
    for role in rendered.all("Role"):
        for rule in role["rules"]:
            (resource, *_) = rule["resources"]
            named = {"leases": ["lease"], "secrets": ["tls-secret", "key-secret"], "configmaps": ["ca-config-map"]}
            if resource in named and "resourceNames" in rule:
                assert rule["resourceNames"] == [flags[flag] for flag in named[resource]]


def test_the_pods_own_identity_comes_from_the_downward_api(rendered):
    """By the names of the operator's settings; and no Service of the namespace can name one too."""
    pod = rendered.one("Deployment")["spec"]["template"]["spec"]
    environment = {
        each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"]
        for each in pod["containers"][0]["env"]
        if "valueFrom" in each
    }
    assert environment == {
        "HOOKLINE_OWN_NAMESPACE": "metadata.namespace",
        "HOOKLINE_POD_NAME": "metadata.name",
        "HOOKLINE_POD_IP": "status.podIP",
    }
    assert pod["enableServiceLinks"] is False


def test_the_operator_knows_every_setting_that_it_is_given(helm):
    """Each flag and each variable, of all the values at once, by its own `--help`."""
    command = [sys.executable, "-c", "from hookline_operator.cli import main; main()", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"--[a-z][a-z-]+", told))
    values = {
        "watchNamespaces": ["a", "b"],
        "sidecar": {"image": {"pullPolicy": "Never"}, "resources": {"limits": {"cpu": 1}}},
    }
    (container,) = helm.render(values).one("Deployment")["spec"]["template"]["spec"]["containers"]
    given = {argument.split("=")[0] for argument in container["args"]}
    given |= {"--" + each["name"].removeprefix("HOOKLINE_").lower().replace("_", "-") for each in container["env"]}
    assert given <= known


def test_images_are_named_by_tag_or_by_digest(helm):
    """The chart's own version unless the values say otherwise."""

    def images(values):
        (container,) = helm.render(values).one("Deployment")["spec"]["template"]["spec"]["containers"]
        (sidecar,) = [each for each in container["args"] if each.startswith("--sidecar-image=")]
        return container["image"], sidecar.removeprefix("--sidecar-image=")

    version = yaml.safe_load((ROOT / "helm" / "Chart.yaml").read_text())["appVersion"]
    assert images({}) == (f"hookline-operator:{version}", f"hookline-sidecar:{version}")
    digest = "sha256:" + "b" * 64
    values = {"image": {"tag": "dev"}, "sidecar": {"image": {"tag": "dev", "digest": digest}}}
    assert images(values) == ("hookline-operator:dev", f"hookline-sidecar@{digest}")


def _open_to_all(policy):
    """The TCP ports that a policy leaves open to anybody."""
    found = set()
    for rule in policy["spec"]["ingress"]:
        if "from" not in rule:
            for port in rule["ports"]:
                if port["protocol"] == "TCP":
                    found |= set(range(port["port"], port.get("endPort", port["port"]) + 1))
    return found


def test_pods_with_sidecars_may_be_closed_but_for_their_own_ports(helm):
    """In each namespace: all that a pod serves stays open, the sidecar's ports are for whom the values name."""
    prometheus = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    values = {"sidecar": {"networkPolicy": {"enabled": True, "namespaces": ["shop", "bank"]}}}
    for metrics_from in ([], prometheus):
        values["sidecar"]["networkPolicy"]["metricsFrom"] = metrics_from
        policies = [
            each for each in helm.render(values).all("NetworkPolicy") if "-sidecars" in each["metadata"]["name"]
        ]
        assert [each["metadata"]["namespace"] for each in policies] == ["shop", "bank"]
        for policy in policies:
            assert policy["spec"]["podSelector"]["matchLabels"] == {"hookline.dev/sidecar": "true"}
            assert policy["spec"]["policyTypes"] == ["Ingress"]
            assert _open_to_all(policy) == set(range(1, 2**16)) - {9901, 9902}
            others = [rule for rule in policy["spec"]["ingress"] if "from" in rule]
            assert [(rule["from"], rule["ports"]) for rule in others] == [
                (prometheus, [{"protocol": "TCP", "port": 9902}]) for _ in metrics_from
            ]


def test_the_policy_of_pods_with_sidecars_opens_nothing_where_others_close(helm):
    """Policies add up: beside a namespace's own, this one allows the metrics, and no port more."""
    values = {"watchNamespaces": ["shop"], "sidecar": {"networkPolicy": {"enabled": True, "otherPorts": False}}}
    (policy,) = [each for each in helm.render(values).all("NetworkPolicy") if "-sidecars" in each["metadata"]["name"]]
    assert policy["metadata"]["namespace"] == "shop"
    assert not policy["spec"]["ingress"]


def test_without_a_namespace_the_policy_of_pods_with_sidecars_is_refused(helm):
    """And not left out in silence."""
    with pytest.raises(Exception, match=r"needs sidecar\.networkPolicy\.namespaces") as refused:
        helm.render({"sidecar": {"networkPolicy": {"enabled": True}}})
    assert type(refused.value).__name__ == "HelmError"
