"""On a real API server pods come out injected, wrong resources are refused, and outages block nobody.

The way is the one of production: the chart's own webhook configurations, which name a Service; its certificate, which
the keeper made and introduced to the API server. Only the Service is an ExternalName that leads to this process.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import re
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from cluster import ClusterError
from hookline_operator.webhooks.certificates import CertificateKeeper
from waiting import PATIENCE_S
from webhook_configurations import SERVICE

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "operate" / "injection.md"
CONFIGURATION = "hookline-admission-tests"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
ASKS = {"hookline.dev/inject": "true"}
REQUIRES = {"hookline.dev/require-injection": "true"}
OUR_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"


def pod(**spec):
    """A pod that a restricted namespace accepts."""
    container = {
        "name": "web", "image": "nginx", "securityContext": {
            "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }  # fmt: skip
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [container], **spec}}


def plugin(**spec):
    """A WasmPlugin."""
    spec = {"source": {"oci": {"reference": "registry.example/p:1"}}, **spec}
    return {"apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "demo"}, "spec": spec}


async def test_a_pod_of_a_restricted_namespace_comes_out_injected(plane, hookline):
    """And without the API token in its sidecar, which the API server would mount."""
    async with plane.namespace("admission-restricted", **RESTRICTED, **ASKS) as namespace:
        stored = await plane.create(pod(), namespace)
        sidecar, *others = stored["spec"]["initContainers"]
        assert others == []
        assert sidecar["name"] == "hookline-sidecar"
        assert sidecar["restartPolicy"] == "Always"
        (web_,) = stored["spec"]["containers"]
        tokens = {m["mountPath"]: m["name"] for m in web_["volumeMounts"]}
        assert tokens["/run/hookline"] == "hookline-socket"
        assert tokens[OUR_TOKEN].startswith("kube-api-access")
        assert {m["mountPath"]: m["name"] for m in sidecar["volumeMounts"]}[OUR_TOKEN] == "hookline-identity"
        assert not [m for m in sidecar["volumeMounts"] if m["name"].startswith("kube-api-access")]
        assert stored["metadata"]["annotations"]["hookline.dev/operator-ca"] == hookline.keeper.bundle
        assert stored["metadata"]["labels"]["hookline.dev/sidecar"] == "true"


@pytest.mark.usefixtures("hookline")
async def test_labels_decide_who_gets_a_sidecar(plane):
    """The pod's own label first."""

    def labelled(value):
        found = pod()
        found["metadata"] = {"generateName": "web-", "labels": {"hookline.dev/inject": value}}
        return found

    async with plane.namespace("admission-plain") as namespace:
        assert "initContainers" not in (await plane.create(pod(), namespace))["spec"]
        assert "initContainers" in (await plane.create(labelled("true"), namespace))["spec"]
    async with plane.namespace("admission-asking", **ASKS) as namespace:
        assert "initContainers" in (await plane.create(pod(), namespace))["spec"]
        assert "initContainers" not in (await plane.create(labelled("false"), namespace))["spec"]


@pytest.mark.usefixtures("hookline")
async def test_what_was_injected_can_be_created_again_as_it_is(plane):
    """A copy of a stored pod, with the API server's own additions: nothing is added twice."""
    async with plane.namespace("admission-copies", **ASKS) as namespace:
        stored = await plane.create(pod(), namespace)
        copied = {**stored, "metadata": {key: stored["metadata"][key] for key in ("labels", "annotations")}}
        copied["metadata"]["name"] = "again"
        again = await plane.create(copied, namespace)
        assert again["spec"]["initContainers"] == stored["spec"]["initContainers"]
        # With the container taken out, its volumes are found again.
        bare = copy.deepcopy(copied)
        bare["metadata"]["name"] = "bare"
        bare["spec"]["initContainers"] = []
        assert (await plane.create(bare, namespace))["spec"]["volumes"] == stored["spec"]["volumes"]


@pytest.mark.usefixtures("hookline")
async def test_a_pod_that_cannot_be_injected_is_refused_where_its_author_looks(plane):
    """For a pod from kubectl; for a Deployment, the events of its ReplicaSet."""
    async with plane.namespace("admission-refused", **ASKS) as namespace:
        with pytest.raises(ClusterError, match="pod admission-refused/web: it uses its node's network"):
            await plane.create(pod(hostNetwork=True), namespace)
        template = {"metadata": {"labels": {"app": "web"}}, "spec": pod(hostNetwork=True)["spec"]}
        replicas = {
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template},
        }  # fmt: skip
        await plane.create(replicas, namespace)
        text = ""
        async with asyncio.timeout(PATIENCE_S):
            while "uses its node's network" not in text:
                text = await plane.kubectl("get", "events", "--output=json", namespace=namespace)
        assert "pod admission-refused/web-*: it uses its node's network" in text


async def test_a_wrong_plugin_is_refused_with_our_sentence(plane, hookline):
    """What the schema cannot say, all at once; what it can say, it says itself."""
    async with plane.namespace("admission-plugins") as namespace:

        async def refused(found):
            with pytest.raises(ClusterError) as error:
                await plane.kubectl("apply", "--filename=-", found=found, namespace=namespace)
            return str(error.value)

        text = await refused(plugin(source={"oci": {"reference": "a b"}}, verify={"keys": ["k"]}))
        assert "spec.source.oci.reference: 'a b' is not an artifact reference" in text
        assert "spec.verify.keys[0]: is not a public key in PEM" in text
        assert "give exactly one of oci, http, configMap" in await refused(plugin(source={}))
        hookline.wrong["demo"] = "threshold: 'x' is not of type 'integer'"
        assert "spec.config: threshold: 'x' is not" in await refused(plugin(config={"threshold": "x"}))
        hookline.wrong.clear()
        applied = await plane.kubectl("apply", "--filename=-", found=plugin(), namespace=namespace)
        assert "wasmplugin.hookline.dev/demo created" in applied
        assert "exactly one of oci" in await refused(
            plugin(source={"oci": {"reference": "r/p:1"}, "configMap": {"name": "m"}})
        )
        stored = json.loads(await plane.kubectl("get", "wp", "demo", "--output=json", namespace=namespace))
        await plane.kubectl("apply", "--filename=-", found=plugin(priority=3), namespace=namespace)
        # By its uid the operator knows that the API server asks, and may say what its module wants.
        assert hookline.asked[-1] == (namespace, "demo", stored["metadata"]["uid"])
        hookline.wrong["demo"] = "everything is wrong now"
        await plane.kubectl("label", "wp", "demo", "a=b", namespace=namespace)
        await plane.kubectl("delete", "wp", "demo", namespace=namespace)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"source": {}}, "spec.source: .*give exactly one of oci, http, configMap"),
        ({"source": {"oci": {"reference": "oci-layout:/x"}}}, "reference: .*oci-layout: is for manifest folders only"),
        ({"source": {"oci": {"reference": "r", "trackInterval": "1s"}}}, "trackInterval: .*1s is not between 10s"),
        ({"limits": {"timeout": "2h"}}, "spec.limits.timeout: .* 2h is not between 1ms and 1m"),
        ({"limits": {"timeout": "999999h99999999m"}}, "spec.limits.timeout: "),
        ({"limits": {"timeout": ""}}, "spec.limits.timeout: "),
        ({"limits": {"memory": "1Ki"}}, "spec.limits.memory: .*is not between 64Ki and 1Gi"),
        ({"limits": {"memory": 5}}, "spec.limits.memory: .*is not between 64Ki and 1Gi"),
        ({"limits": {"output": "1G"}}, "spec.limits.output: .*is not between 1 and 64Mi"),
        ({"rollout": {"deadline": "2h"}}, "spec.rollout.deadline: .*is not between 1s and 1h"),
        ({"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}, "In and NotIn need values"),
        ({"selector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}, "Exists and"),
        ({"egress": [{"host": "x.test"}]}, "egress needs the permission http.fetch"),
        ({"hooks": ["pre_quarry"]}, "hooks are authenticate, authorize"),
    ],
)  # fmt: skip
async def test_what_the_definition_can_say_it_says_itself(plane, spec, says):
    """Without a webhook, by CEL; a wrong value never gets as far as the operator."""
    with pytest.raises(ClusterError, match=says):
        await plane.create(plugin(**spec), "default", "--dry-run=server")


async def test_what_is_within_bounds_is_taken(plane):
    """At both ends, in each notation."""
    for spec in (
        {"limits": {"timeout": "1ms", "memory": "64Ki", "input": 1, "output": "64Mi"}},
        {"limits": {"timeout": "60s", "memory": 2**30, "input": "1", "output": 2**26}, "rollout": {"deadline": "1h"}},
        {"limits": {"timeout": "0h0m59s999ms", "memory": "1G"}},
        {"selector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": []}]}},
        {"source": {"oci": {"reference": "r/p:1", "trackInterval": "720h"}}},
    ):
        await plane.create(plugin(**spec), "default", "--dry-run=server")


async def test_with_the_operator_down_pods_and_plugins_are_created_all_the_same(plane, hookline):
    """But not where the namespace says that they must not be; and everything is right again afterwards."""
    await hookline.stop()
    async with (
        plane.namespace("admission-outage", **ASKS) as namespace,
        plane.namespace("admission-strict", **ASKS, **REQUIRES) as strict,
    ):
        assert "initContainers" not in (await plane.create(pod(), namespace))["spec"]
        await plane.create(plugin(verify={"keys": ["k"]}), namespace)
        with pytest.raises(ClusterError, match=r'failed calling webhook "required.inject.hookline.dev"'):
            await plane.create(pod(), strict)
        await hookline.start()
        again = pod()
        again["metadata"] = {"name": "again"}
        assert "initContainers" in (await plane.create(again, namespace))["spec"]
        assert "initContainers" in (await plane.create(again, strict))["spec"]


async def test_a_lost_certificate_is_made_anew_and_the_api_server_told(plane, hookline, kube):
    """Somebody deletes the Secret: pods are injected again after one look, with the new authority."""
    old = hookline.keeper.bundle
    await plane.kubectl("delete", "secret", "hookline-operator-tls", namespace=hookline.home)
    await hookline.keeper.sync()
    assert hookline.keeper.bundle != old
    async with plane.namespace("admission-renewed", **ASKS, **REQUIRES) as namespace:
        async with asyncio.timeout(PATIENCE_S):
            while True:  # until the API server has read what was patched
                try:
                    stored = await plane.create(pod(), namespace)
                    break
                except ClusterError:
                    await asyncio.sleep(0.1)
        assert stored["metadata"]["annotations"]["hookline.dev/operator-ca"] == hookline.keeper.bundle
    config = await kube.get(f"/api/v1/namespaces/{hookline.home}/configmaps/hookline-ca")
    assert config["data"]["ca.crt"] == hookline.keeper.bundle


async def test_replicas_that_start_together_share_one_authority_on_a_real_api_server(plane, kube):
    """Its conflicts are the real ones."""
    async with plane.namespace("admission-race") as namespace:
        keepers = [CertificateKeeper(kube, service=SERVICE, namespace=namespace) for _ in range(6)]
        await asyncio.gather(*(each.sync() for each in keepers))
        secret = await kube.get(f"/api/v1/namespaces/{namespace}/secrets/hookline-operator-tls")
        assert secret["type"] == "kubernetes.io/tls"
        held = base64.b64decode(secret["data"]["ca.crt"]).decode()
        assert {each.bundle for each in keepers} == {held}
        assert len(x509.load_pem_x509_certificates(held.encode())) == 1


async def test_the_documents_snippet_is_a_pod(plane):
    """As a reader would apply it."""
    (snippet,) = re.findall(r"^```yaml\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    async with plane.namespace("admission-by-hand") as namespace:
        stored = await plane.create(yaml.safe_load(snippet), namespace)
        sidecar = stored["spec"]["initContainers"][0]
        assert not [m for m in sidecar["volumeMounts"] if m["name"].startswith("kube-api-access")]
