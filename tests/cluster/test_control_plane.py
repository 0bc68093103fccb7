"""The API server of the tests is a real one, and our CustomResourceDefinition is one that it takes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from cluster import ClusterError, ControlPlane
from cluster.binaries import binary
from cluster.pki import encoded
from waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CRD = ROOT / "crds" / "hookline.dev_wasmplugins.yaml"


@pytest.fixture(scope="module")
def wasmplugins(control_plane: ControlPlane) -> None:
    """The API server knows WasmPlugins."""
    control_plane.install_crd(CRD)


@pytest.fixture
def namespace(control_plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace per test."""
    with control_plane.namespace(request.node.name.replace("_", "-")[:60].strip("-")) as name:
        yield name


def plugin(**spec: Any) -> dict[str, Any]:
    """A WasmPlugin."""
    return {
        "apiVersion": "hookline.dev/v1alpha1",
        "kind": "WasmPlugin",
        "metadata": {"name": "demo"},
        "spec": {"selector": {"matchLabels": {"app": "proxy"}}, **spec},
    }


@pytest.mark.usefixtures("wasmplugins")
def test_the_crd_is_established_without_a_complaint(control_plane: ControlPlane) -> None:
    """Structural schema, CEL budgets, printer columns and names: the real API server has nothing against them."""
    conditions = control_plane.get("crd", "wasmplugins.hookline.dev")["status"]["conditions"]
    assert {c["type"]: c["status"] for c in conditions} == {"NamesAccepted": "True", "Established": "True"}


@pytest.mark.usefixtures("wasmplugins")
def test_a_plugin_is_applied_and_read_back(control_plane: ControlPlane, namespace: str) -> None:
    """Server-side apply, under the short name too, with the applier as owner of its fields."""
    control_plane.apply(plugin(source={"oci": {"reference": "registry.example/demo:1"}}), namespace=namespace)
    got = control_plane.get("wp", "demo", f"--namespace={namespace}", "--show-managed-fields")
    assert got["spec"]["source"]["oci"]["reference"] == "registry.example/demo:1"
    assert [m["manager"] for m in got["metadata"]["managedFields"]] == ["hookline-tests"]


@pytest.mark.usefixtures("wasmplugins")
def test_two_sources_are_refused_by_the_api_server(control_plane: ControlPlane, namespace: str) -> None:
    """The rule is in the CRD, so that it holds with the operator down."""
    two = {"oci": {"reference": "registry.example/demo:1"}, "configMap": {"name": "demo", "key": "plugin.wasm"}}
    with pytest.raises(ClusterError, match="exactly one"):
        control_plane.apply(plugin(source=two), namespace=namespace)
    with pytest.raises(ClusterError, match="exactly one"):
        control_plane.apply(plugin(source={}), namespace=namespace)


def test_a_token_is_good_for_its_audience_alone(control_plane: ControlPlane, namespace: str) -> None:
    """TokenRequest and TokenReview, as sidecars and the operator use them."""
    control_plane.kubectl("create", "serviceaccount", "proxy", f"--namespace={namespace}")
    token = control_plane.token(namespace, "proxy", "hookline")
    review = control_plane.review(token, "hookline")
    assert review["authenticated"]
    assert review["user"]["username"] == f"system:serviceaccount:{namespace}:proxy"
    assert "authenticated" not in control_plane.review(token, "another")
    assert "authenticated" not in control_plane.review(token[:-4] + "AAAA", "hookline")


def test_a_token_bound_to_a_pod_dies_with_it(control_plane: ControlPlane, namespace: str) -> None:
    """What a review says of the pod is what the operator trusts."""
    if not control_plane.has_controllers:
        pytest.skip("setup-envtest brings no controllers, which make the service account")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "proxy"},
        "spec": {"serviceAccountName": "proxy", "containers": [{"name": "c", "image": "i"}]},
    }
    control_plane.kubectl("create", "serviceaccount", "proxy", f"--namespace={namespace}")
    control_plane.apply(pod, namespace=namespace)
    uid = control_plane.get("pod", "proxy", f"--namespace={namespace}")["metadata"]["uid"]
    first, second = (control_plane.token(namespace, "proxy", "hookline", bound_pod=("proxy", uid)) for _ in range(2))
    extra = control_plane.review(first, "hookline")["user"]["extra"]
    assert extra["authentication.kubernetes.io/pod-name"] == ["proxy"]
    control_plane.kubectl("delete", "pod", "proxy", f"--namespace={namespace}", "--force", "--grace-period=0")
    # Not the first one: the API server remembers for ten seconds that a token was good.
    assert "authenticated" not in control_plane.review(second, "hookline")


def test_a_service_account_has_its_rights_alone(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    """RBAC is on: the operator's role is proven by what it may not do."""
    control_plane.kubectl("create", "serviceaccount", "proxy", f"--namespace={namespace}")
    config = control_plane.kubeconfig_for(namespace, "proxy", path=tmp_path / "kubeconfig")
    with pytest.raises(ClusterError, match="forbidden"):
        control_plane.kubectl(f"--kubeconfig={config}", "get", "secrets", f"--namespace={namespace}")
    control_plane.kubectl(
        "create", "rolebinding", "see", "--clusterrole=view", f"--serviceaccount={namespace}:proxy", f"-n{namespace}"
    )
    control_plane.kubectl(f"--kubeconfig={config}", "get", "configmaps", f"--namespace={namespace}")


def test_the_api_server_calls_webhooks_on_this_machine(control_plane: ControlPlane, namespace: str) -> None:
    """A webhook configuration with a ``url:`` reaches a server of the test."""
    asked: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Refuse everything, and remember what."""
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(review["request"]["name"])
            review["response"] = {
                "uid": review["request"]["uid"],
                "allowed": False,
                "status": {"message": "no, said I"},
            }
            body = json.dumps(review).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    pair = control_plane.pki.sign("webhook", "webhook", addresses=["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        control_plane.apply(
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingWebhookConfiguration",
                "metadata": {"name": namespace},
                "webhooks": [
                    {
                        "name": "configmaps.hookline.test",
                        "clientConfig": {
                            "url": f"https://127.0.0.1:{server.server_port}/",
                            "caBundle": encoded(control_plane.ca_file),
                        },
                        "rules": [
                            {
                                "apiGroups": [""],
                                "apiVersions": ["v1"],
                                "operations": ["CREATE"],
                                "resources": ["configmaps"],
                            }
                        ],
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                        "sideEffects": "None",
                        "admissionReviewVersions": ["v1"],
                    }
                ],
            }
        )
        try:
            refusal = _refusal(control_plane, namespace)
        finally:
            control_plane.kubectl("delete", "validatingwebhookconfiguration", namespace)
            server.shutdown()
    assert "no, said I" in refusal
    assert asked


def _refusal(control_plane: ControlPlane, namespace: str) -> str:
    """The API server takes a webhook into use within a second of its creation: create until one is refused."""
    for number in range(200):
        try:
            control_plane.kubectl("create", "configmap", f"c-{number}", f"--namespace={namespace}")
        except ClusterError as error:
            return str(error)
    return ""


def test_the_api_server_dies_and_comes_back_with_its_state(control_plane: ControlPlane, namespace: str) -> None:
    """At the same address, so that watchers find it again."""
    control_plane.kubectl("create", "configmap", "kept", f"--namespace={namespace}", "--from-literal=a=b")
    address = urlsplit(control_plane.server)
    control_plane.stop_apiserver()
    try:
        with pytest.raises(ConnectionRefusedError):
            http.client.HTTPSConnection(address.hostname or "", address.port, timeout=5).connect()
    finally:
        control_plane.start_apiserver()
    assert control_plane.get("configmap", "kept", f"--namespace={namespace}")["data"] == {"a": "b"}


def running_programs() -> set[str]:
    """The first words of all command lines; processes come and go while one looks."""
    programs = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            programs.add(os.fsdecode(file.read_bytes().split(b"\0")[0]))
    return programs


def test_the_programs_of_setup_envtest_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBEBUILDER_ASSETS names a folder of three programs, without controllers: so the tests need no Go."""
    for program in ("etcd", "kube-apiserver", "kubectl"):
        (tmp_path / program).symlink_to(binary(program))
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with ControlPlane() as plane:
        assert not plane.has_controllers
        assert {str(tmp_path / "etcd"), str(tmp_path / "kube-apiserver")} <= running_programs()
        plane.kubectl("create", "serviceaccount", "proxy")
        assert plane.review(plane.token("default", "proxy", "hookline"), "hookline")["authenticated"]


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "raise"])
def test_nothing_is_left_however_the_owner_ends(how: str) -> None:
    """Killed, terminated, or with an exception: processes and folder go, without anybody's help."""
    program = f"""
import os, signal
from cluster import ControlPlane
with ControlPlane() as plane:
    print(plane.folder, flush=True)
    if {how!r} == "raise":
        raise SystemExit(3)
    os.kill(os.getpid(), signal.{how if how != "raise" else "SIGTERM"})
    signal.pause()
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "testbed")}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE_S,
    )
    assert ended.stdout, ended.stderr
    folder = Path(ended.stdout.strip())
    subprocess.run(
        [sys.executable, "-c", _WAIT_UNTIL_GONE, str(folder)], env=environment, check=True, timeout=PATIENCE_S
    )


# The watchdog works beside us; this ends when nothing is left, and the timeout is the failure.
_WAIT_UNTIL_GONE = """
import sys, time
from pathlib import Path
from cluster.processes import marked
folder = Path(sys.argv[1])
while folder.exists() or list(marked(folder)):
    time.sleep(0.05)
"""
