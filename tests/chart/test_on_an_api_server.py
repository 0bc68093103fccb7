"""The chart on a real API server: installed, upgraded, uninstalled, installed again. No pod runs here."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from charts import EXAMPLE, NAMESPACE, ROOT, Release, bundles, create, namespaced_pod, plugin_manifest, until
from cluster import ClusterError
from local_ports import reserve_ports
from waiting import PATIENCE_S

ACCOUNT = f"--as=system:serviceaccount:{NAMESPACE}:hookline-operator"
CRDS = ("wasmplugins.hookline.dev", "wasmpluginrevisions.hookline.dev", "plugintrustpolicies.hookline.dev")
# The Prometheus Operator's, whose definitions this API server lacks.
NOT_HERE = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
MONITORS_OFF = {name: {"enabled": False} for name in ("serviceMonitor", "podMonitor", "prometheusRule")}


@pytest.fixture(scope="module")
def plane(control_plane):
    """With the namespaces of these tests, and without what other tests left there of the definitions."""
    control_plane.kubectl("delete", "crd", *CRDS, "--ignore-not-found")
    names = (NAMESPACE, "chart-shop", "chart-restricted", "chart-plain", "chart-inject", "chart-require")
    for name in names:
        control_plane.kubectl("create", "namespace", name)
    labels = "pod-security.kubernetes.io/enforce=restricted"
    control_plane.kubectl("label", "namespace", "chart-restricted", NAMESPACE, labels)
    control_plane.kubectl("label", "namespace", "chart-inject", "hookline.dev/inject=true")
    control_plane.kubectl("label", "namespace", "chart-require", "hookline.dev/require-injection=true")
    until(lambda: [control_plane.get("serviceaccount", "default", "-n", name) for name in names])
    yield control_plane
    control_plane.kubectl("delete", "namespace", *names, "--wait=false")


@pytest.fixture(scope="module")
def release(helm, plane):
    """Installed with its defaults."""
    found = Release(helm, plane)
    found("install")
    yield found
    found("uninstall", "--ignore-not-found")


def test_the_api_server_takes_every_object_without_a_warning(rendered, plane):
    """Server-side and strictly: an unknown field, a wrong type or an invalid value would be refused."""
    objects = [each for each in rendered.objects if each["kind"] not in NOT_HERE]
    for each in objects:  # rendered for a namespace that is not there
        if "namespace" in each["metadata"]:
            each["metadata"]["namespace"] = NAMESPACE
    done = subprocess.run(
        [plane._kubectl, "--kubeconfig", plane.kubeconfig, "apply", "--server-side", "--dry-run=server",
         "--validate=strict", "--force-conflicts", "--filename=-"],
        input=yaml.safe_dump_all(objects), capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(objects)


def test_a_field_that_kubernetes_does_not_have_would_be_noticed(helm, plane):
    """So the test above is one."""
    deployment = helm.render().one("Deployment")
    deployment["metadata"]["namespace"] = NAMESPACE
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(ClusterError, match="readynessProbe"):
        plane.kubectl(
            "apply",
            "--server-side",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            "-",
            input=yaml.safe_dump(deployment),
        )


def test_the_pods_are_let_into_a_restricted_namespace(rendered, plane):
    """By Kubernetes' own admission of the Pod Security Standard."""
    for number, (_, template) in enumerate(rendered.pods()):
        spec = template["spec"] | {"serviceAccountName": "default", "priorityClassName": ""}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}"}, "spec": spec}
        create(plane, "chart-restricted", pod)
        pod["spec"] = spec | {"hostNetwork": True}
        with pytest.raises(ClusterError, match='violates PodSecurity "restricted:latest"'):
            create(plane, "chart-restricted", pod)


def test_the_notes_name_the_next_two_commands(release):
    """What `helm install` said at its end."""
    notes = release("status")
    assert "kubectl label namespace NAMESPACE hookline.dev/inject=true hookline.dev/require-injection=true" in notes
    assert "kubectl wait --namespace NAMESPACE --for=condition=Ready wasmplugins --all" in notes


@pytest.mark.parametrize(
    ("verb", "resource", "where", "allowed"),
    [
        ("list", "wasmplugins", "chart-shop", True),
        ("patch", "wasmplugins/status", "chart-shop", True),
        ("patch", "wasmplugins", "chart-shop", False),
        ("delete", "wasmplugins", "chart-shop", False),
        ("watch", "secrets", "chart-shop", True),
        ("create", "secrets", "chart-shop", False),
        ("create", "secrets", NAMESPACE, True),
        ("update", "secrets/hookline-operator-tls", NAMESPACE, True),
        ("update", "secrets/hookline-operator-key", NAMESPACE, True),
        ("update", "secrets/other", NAMESPACE, False),
        ("update", "configmaps/hookline-ca", NAMESPACE, True),
        ("update", "configmaps/hookline-ca", "chart-shop", False),
        ("update", "leases/hookline-operator", NAMESPACE, True),
        ("update", "leases/other", NAMESPACE, False),
        ("delete", "wasmpluginrevisions", "chart-shop", True),
        ("list", "controllerrevisions", "chart-shop", True),
        ("create", "controllerrevisions", "chart-shop", False),
        ("patch", "controllerrevisions", "chart-shop", False),
        ("delete", "controllerrevisions", "chart-shop", False),
        ("create", "events", "chart-shop", True),
        ("create", "pods", "chart-shop", False),
        ("delete", "pods", "chart-shop", False),
        ("create", "pods/exec", "chart-shop", False),
        ("create", "serviceaccounts/token", "chart-shop", False),
        ("create", "tokenreviews", None, True),
        ("patch", "mutatingwebhookconfigurations/hookline-operator", None, True),
        ("patch", "mutatingwebhookconfigurations/other", None, False),
        ("list", "mutatingwebhookconfigurations", None, False),
        ("patch", "validatingwebhookconfigurations/hookline-operator", None, True),
        ("delete", "validatingwebhookconfigurations/hookline-operator", None, False),
        ("list", "plugintrustpolicies", None, True),
        ("patch", "plugintrustpolicies/status", None, True),
        ("update", "plugintrustpolicies", None, False),
        ("list", "namespaces", None, True),
        ("get", "namespaces", None, False),
        ("list", "nodes", None, False),
        ("get", "clusterroles", None, False),
    ],
)
@pytest.mark.usefixtures("release")
def test_the_api_server_grants_the_operator_this(plane, verb, resource, where, allowed):
    """Asked of the API server's own authorizer."""
    kind, _, rest = resource.partition("/")
    scope = [f"--namespace={where}"] if where else []
    what = [kind, f"--subresource={rest}"] if rest in {"status", "exec", "token"} else [resource]
    try:
        answer = plane.kubectl("auth", "can-i", verb, *what, ACCOUNT, *scope)
    except ClusterError as error:
        answer = str(error)
    assert answer.strip().splitlines()[-1].endswith("yes") is allowed, answer


EXPECTED = {
    ("chart-plain", None): None,
    ("chart-plain", "true"): "pods.inject.hookline.dev",
    ("chart-plain", "false"): None,
    ("chart-inject", None): "namespaces.inject.hookline.dev",
    ("chart-inject", "true"): "pods.inject.hookline.dev",
    ("chart-inject", "false"): None,
    ("chart-require", None): "required.inject.hookline.dev",
    ("chart-require", "true"): "required.inject.hookline.dev",
    ("chart-require", "false"): None,
}


@pytest.mark.usefixtures("release")
def test_without_an_operator_pods_start_but_where_the_namespace_forbids_it(plane):
    """No operator runs here. The API server takes a webhook into use within a second, so ask until it does."""

    def refused(namespace, value):
        try:
            create(plane, namespace, namespaced_pod(value))
        except ClusterError as error:
            return str(error)
        return ""

    until(lambda: "required.inject.hookline.dev" in refused("chart-require", None))
    for (namespace, value), entry in EXPECTED.items():
        answer = refused(namespace, value)
        assert bool(answer) == (entry == "required.inject.hookline.dev"), answer


@pytest.mark.usefixtures("release")
def test_the_api_server_asks_by_the_entry_that_the_labels_say(plane):
    """Each entry is made to fail in turn; the API server's own words name it."""
    configuration = plane.get("mutatingwebhookconfiguration", "hookline-operator")
    failing = json.loads(json.dumps(configuration))
    for entry in failing["webhooks"]:
        entry["failurePolicy"] = "Fail"
    plane.kubectl("replace", "--filename=-", input=json.dumps(failing))
    try:
        for (namespace, value), entry in EXPECTED.items():

            def asked(namespace=namespace, value=value):
                try:
                    create(plane, namespace, namespaced_pod(value))
                except ClusterError as error:
                    return str(error)
                return ""

            if entry is None:
                assert asked() == ""
            else:
                until(asked)
                assert f'failed calling webhook "{entry}"' in asked()
    finally:
        current = plane.get("mutatingwebhookconfiguration", "hookline-operator")
        configuration["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
        plane.kubectl("replace", "--filename=-", input=json.dumps(configuration))


def test_an_upgrade_leaves_the_certificate_authority_alone(release, plane, tmp_path):
    """The operator's own account writes it; `helm upgrade` changes what was asked for and nothing else."""
    ca = base64.b64encode(Path(plane.ca_file).read_bytes()).decode()
    operator = plane.kubeconfig_for(NAMESPACE, "hookline-operator", path=tmp_path / "operator.yaml")
    for kind, count in (("mutating", 3), ("validating", 3)):
        operations = [{"op": "add", "path": f"/webhooks/{n}/clientConfig/caBundle", "value": ca} for n in range(count)]
        patch = [
            "patch",
            f"{kind}webhookconfiguration",
            "hookline-operator",
            "--type=json",
            f"-p={json.dumps(operations)}",
        ]
        subprocess.run(
            [plane._kubectl, "--kubeconfig", operator, *patch], check=True, capture_output=True, timeout=PATIENCE_S
        )
    assert bundles(plane) == [ca] * 6
    release("upgrade", values={"replicas": 3, "webhooks": {"timeoutSeconds": 3}, "grafanaDashboard": {"enabled": True}})
    assert bundles(plane) == [ca] * 6
    assert plane.get("deployment", "hookline-operator", "-n", NAMESPACE)["spec"]["replicas"] == 3
    assert plane.get("mutatingwebhookconfiguration", "hookline-operator")["webhooks"][0]["timeoutSeconds"] == 3
    assert plane.get("configmap", "hookline-dashboard", "-n", NAMESPACE)


def test_plugins_outlive_the_chart_and_the_next_one_finds_them(release, plane):
    """Uninstalled first, nothing is stuck: plugins stay, can be deleted, and a second install takes over."""
    until(lambda: plane.kubectl("get", "wasmplugins", "-n", "chart-shop") or True)
    plane.apply(plugin_manifest(), namespace="chart-shop")
    uid = plane.get("wasmplugin", "authenticate", "-n", "chart-shop")["metadata"]["uid"]
    release("uninstall")
    kinds = "deployment,service,pdb,networkpolicy,role,rolebinding,configmap"
    left = plane.get(kinds, "-n", NAMESPACE, "-l", "app.kubernetes.io/managed-by=Helm")
    left["items"] += plane.get(
        "clusterrole,clusterrolebinding,mutatingwebhookconfiguration,validatingwebhookconfiguration",
        "-l", "app.kubernetes.io/instance=hookline",
    )["items"]  # fmt: skip
    assert [each["metadata"]["name"] for each in left["items"]] == []
    assert plane.get("wasmplugin", "authenticate", "-n", "chart-shop")["metadata"]["uid"] == uid
    # Pods of a namespace that required a sidecar start again.
    until(lambda: create(plane, "chart-require", namespaced_pod(None)) is None)

    release("install")
    assert plane.get("wasmplugin", "authenticate", "-n", "chart-shop")["metadata"]["uid"] == uid
    release("uninstall")
    plane.kubectl("delete", "wasmplugin", "authenticate", "-n", "chart-shop", "--timeout=170s")
    release("install")


def test_one_namespace_can_be_watched_and_everything_be_on(release, plane):
    """Upgrades from one shape of the chart to another leave nothing of the former."""
    release("upgrade", values={"watchNamespaces": ["chart-shop"]})
    roles = plane.get("clusterrole", "-l", "app.kubernetes.io/instance=hookline")["items"]
    assert {each["metadata"]["name"].removeprefix(f"hookline-operator-{NAMESPACE}-") for each in roles} == {
        "cluster",
        "edit",
        "view",
    }
    assert plane.kubectl("auth", "can-i", "list", "secrets", ACCOUNT, "--namespace=chart-shop").strip() == "yes"
    with pytest.raises(ClusterError):
        plane.kubectl("auth", "can-i", "list", "secrets", ACCOUNT, "--namespace=chart-plain")
    release("upgrade", values=yaml.safe_load((ROOT / "helm" / "values.yaml").read_text()) | {"logFormat": "text"})
    assert plane.kubectl("auth", "can-i", "list", "secrets", ACCOUNT, "--namespace=chart-plain").strip() == "yes"


def test_whoever_may_edit_a_namespace_may_edit_its_plugins(release, plane):
    """The cluster's roles take the chart's in, as the aggregation controller does."""
    release("upgrade", values={})
    plane.kubectl("create", "rolebinding", "ada", "--clusterrole=edit", "--user=ada", "--namespace=chart-shop")
    if not plane.has_controllers:
        pytest.skip("no controller manager here: nobody aggregates roles")

    def may(verb, what, *more):
        try:
            return "yes" in plane.kubectl("auth", "can-i", verb, what, "--as=ada", "--namespace=chart-shop", *more)
        except ClusterError:
            return False

    until(lambda: may("create", "wasmplugins"))
    until(lambda: may("get", "wasmpluginrevisions"))
    for verb in ("create", "update", "patch", "delete", "deletecollection"):
        assert not may(verb, "wasmpluginrevisions"), verb
    assert not may("patch", "wasmplugins", "--subresource=status")
    revision = {
        "apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPluginRevision", "metadata": {"name": "mine"},
        "plugin": "authenticate", "revision": 1, "digest": "sha256:0", "data": "{}",
    }  # fmt: skip
    with pytest.raises(ClusterError, match="cannot create resource"):
        plane.kubectl("create", "--as=ada", "-n", "chart-shop", "--filename=-", input=json.dumps(revision))
    assert not may("create", "roles")


def test_the_example_is_taken_as_it_is_in_a_restricted_namespace(plane):
    """Both files of examples/kubernetes; the pods of its Deployment too."""
    files = ["-f", EXAMPLE / "proxy.yaml", "-f", EXAMPLE / "wasmplugin.yaml"]
    plane.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-n", "chart-restricted", *files)
    (_, deployment, _) = yaml.safe_load_all((EXAMPLE / "proxy.yaml").read_text())
    template = deployment["spec"]["template"]
    create(plane, "chart-restricted", {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": "proxy"}})


@pytest.mark.parametrize("watched", [[], ["chart-shop"]], ids=["all namespaces", "one namespace"])
def test_the_operator_gets_along_with_these_rights(release, plane, tmp_path, watched):
    """As the chart's own account and with the chart's own flags: ready, a status written, nothing forbidden."""
    values = {"watchNamespaces": watched}
    release("upgrade", values=values)
    deployment = plane.get("deployment", "hookline-operator", "-n", NAMESPACE)
    flags = dict(each.split("=", 1) for each in deployment["spec"]["template"]["spec"]["containers"][0]["args"])
    health, https = reserve_ports(2)
    flags |= {
        "--health": f"127.0.0.1:{health}",
        "--listen": f"127.0.0.1:{https}",
        "--cache": f"{tmp_path}/cache",
        "--token": f"{tmp_path}/token",
        "--own-namespace": NAMESPACE,
        "--pod-name": "operator-0",
        "--pod-ip": "127.0.0.1",
        "--kubeconfig": str(plane.kubeconfig_for(NAMESPACE, "hookline-operator", path=tmp_path / "kubeconfig")),
    }
    Path(flags["--token"]).write_text(plane.token(NAMESPACE, "hookline-operator", "hookline.dev"))
    command = [Path(sys.executable).with_name("hookline-operator"), *(f"{key}={value}" for key, value in flags.items())]
    log = tmp_path / "log"
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:

            def ready():
                assert process.poll() is None, log.read_text()
                with (
                    contextlib.suppress(OSError),
                    contextlib.closing(
                        http.client.HTTPConnection("127.0.0.1", health, timeout=PATIENCE_S)
                    ) as connection,
                ):
                    connection.request("GET", "/readyz")
                    return connection.getresponse().status == 200
                return False

            until(ready)
            assert None not in bundles(plane, flags["--webhooks"])
            manifest = plugin_manifest()
            manifest["spec"]["source"]["oci"]["reference"] = "127.0.0.1:1/nowhere:1"
            plane.apply(manifest, namespace="chart-shop")
            plane.kubectl(
                "wait", "wasmplugin/authenticate", "-n", "chart-shop", "--for=condition=Ready=False", "--timeout=170s"
            )
            until(lambda: plane.get("events", "-n", "chart-shop")["items"])
            assert plane.get("lease", "hookline-operator", "-n", NAMESPACE)["spec"]["holderIdentity"]
        finally:
            plane.kubectl("delete", "wasmplugin", "authenticate", "-n", "chart-shop", "--ignore-not-found")
            process.terminate()
            process.wait(timeout=PATIENCE_S)
            sys.stdout.write(log.read_text())
    assert "orbidden" not in log.read_text()
