"""The cluster of these tests is a Kubernetes as one knows it, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import ssl
import subprocess
import sys
import tarfile
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cluster import Access, Cluster, ClusterError, ControlPlane, NotPossibleHereError
from cluster.archive import machine, write_image
from cluster.processes import CGROUPS, marked, mounts_under
from waiting import PATIENCE_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def container(image: str, *command: str, **more: Any) -> dict[str, Any]:
    """A busybox that runs one of its programs."""
    return {"name": "main", "image": image, "command": ["/busybox", *command], **more}


def pod(name: str, *containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A pod that ends at once when it is deleted."""
    spec = {"terminationGracePeriodSeconds": 0, "containers": list(containers), **more}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def service(name: str, port: int, **more: Any) -> dict[str, Any]:
    """A service for the pods of that name, at port 80."""
    spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": port}], **more}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def wait(cluster: Access, namespace: str, name: str, condition: str = "condition=Ready") -> None:
    """Until the pod is ready."""
    cluster.kubectl("wait", f"--for={condition}", f"pod/{name}", f"--namespace={namespace}", "--timeout=170s")


def test_a_native_sidecar_runs_before_and_beside_its_pod(cluster: Access, namespace: str, busybox: str) -> None:
    """An init container with ``restartPolicy: Always`` serves the container that starts after it."""
    sidecar = container(busybox, "httpd", "-f", "-p", "9901", "-h", "/", restartPolicy="Always")
    sidecar |= {"name": "sidecar", "startupProbe": {"tcpSocket": {"port": 9901}, "periodSeconds": 1}}
    main = container(busybox, "sh", "-c", "/busybox wget -qO- http://127.0.0.1:9901/etc/hostname; /busybox sleep 600")
    cluster.apply(pod("proxy", main, initContainers=[sidecar]), namespace=namespace)
    wait(cluster, namespace, "proxy")
    statuses = cluster.get("pod", "proxy", f"--namespace={namespace}")["status"]
    assert statuses["initContainerStatuses"][0]["state"].keys() == {"running"}
    assert cluster.kubectl("logs", "proxy", "-c", "main", f"--namespace={namespace}").strip() == "proxy"


def test_a_projected_token_names_the_pod_to_its_audience(cluster: Access, namespace: str, busybox: str) -> None:
    """What the sidecar shows, and what the operator may believe of it."""
    source = {"serviceAccountToken": {"audience": "hookline", "path": "token", "expirationSeconds": 600}}
    mount = {"volumeMounts": [{"name": "identity", "mountPath": "/identity"}]}
    volume = {"name": "identity", "projected": {"sources": [source]}}
    cluster.apply(pod("proxy", container(busybox, "sleep", "600", **mount), volumes=[volume]), namespace=namespace)
    wait(cluster, namespace, "proxy")
    token = cluster.kubectl("exec", "proxy", f"--namespace={namespace}", "--", "/busybox", "cat", "/identity/token")
    status = cluster.review(token, "hookline")
    assert status["user"]["username"] == f"system:serviceaccount:{namespace}:default"
    assert status["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["proxy"]
    assert "authenticated" not in cluster.review(token, "another")


def test_a_deployment_is_reached_by_its_services_name(cluster: Access, namespace: str, busybox: str) -> None:
    """Readiness, cluster DNS, the service's address, and a name that does not exist, which is answered at once."""
    probe = {"readinessProbe": {"httpGet": {"path": "/etc/hostname", "port": 8080}, "periodSeconds": 1}}
    template = pod("web", container(busybox, "httpd", "-f", "-p", "8080", "-h", "/", **probe))
    template["metadata"].pop("name")
    template["spec"].pop("terminationGracePeriodSeconds")
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": template["metadata"], "spec": template["spec"]},
        },
    }
    cluster.apply(deployment, service("web", 8080, type="NodePort"), namespace=namespace)
    cluster.kubectl("rollout", "status", "deployment/web", f"--namespace={namespace}", "--timeout=170s")
    cluster.apply(pod("client", container(busybox, "sleep", "600")), namespace=namespace)
    wait(cluster, namespace, "client")
    inside = ("exec", "client", f"--namespace={namespace}", "--", "/busybox")
    for name in ("web", f"web.{namespace}.svc", f"web.{namespace}.svc.cluster.local"):
        assert cluster.kubectl(*inside, "wget", "-qO-", f"http://{name}/etc/hostname").startswith("web-")
    with pytest.raises(ClusterError, match="NXDOMAIN"):
        cluster.kubectl(*inside, "nslookup", "example.com.")


def test_an_image_is_loaded_by_hand(cluster: Access, namespace: str, need: Any, tmp_path: Path) -> None:
    """`make cluster-load`, under the name that the archive says: a pod runs it, and the node pulls nothing."""
    if not isinstance(cluster, Cluster):
        raise NotPossibleHereError("only a node of ours takes images by `make cluster-load`")
    program = Path(need("busybox", "busybox-static"))
    archive = write_image(tmp_path / "image.tar", name="by-hand:1", program=program, architecture=machine())
    command = [sys.executable, "-m", "cluster", "load", archive, "--folder", cluster.folder]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT / "testbed")}, check=True)
    cluster.apply(pod("main", container("by-hand:1", "sleep", "600", imagePullPolicy="Never")), namespace=namespace)
    wait(cluster, namespace, "main")


def test_this_machine_reaches_node_ports_pods_and_services(cluster: Access, namespace: str, busybox: str) -> None:
    """So a test can be a client without being in the cluster."""
    if not isinstance(cluster, Cluster):
        raise NotPossibleHereError("the network of somebody else's cluster promises nothing to this machine")
    web = pod("web", container(busybox, "httpd", "-f", "-p", "8080", "-h", "/"))
    cluster.apply(web, service("web", 8080, type="NodePort"), namespace=namespace)
    wait(cluster, namespace, "web")
    spec = cluster.get("service", "web", f"--namespace={namespace}")["spec"]
    address = cluster.get("pod", "web", f"--namespace={namespace}")["status"]["podIP"]
    for authority in (
        f"{cluster.node_ip}:{spec['ports'][0]['nodePort']}",
        f"{spec['clusterIP']}:80",
        f"{address}:8080",
    ):
        assert fetched(f"http://{authority}/etc/hostname").strip() == b"web"


def fetched(url: str) -> bytes:
    """The body, once the node has the rules for the service: it refuses until then."""

    def asked() -> bytes:
        with DIRECTLY.open(url, timeout=PATIENCE_S) as answer:
            return bytes(answer.read())

    return until(asked, f"an answer of {url}", ignoring=(urllib.error.URLError,))


def test_pods_reach_what_a_test_starts_on_the_node(
    cluster: Access, namespace: str, busybox: str, tmp_path: Path
) -> None:
    """As the tests do with a registry."""
    (tmp_path / "file").write_text("from the node")
    cluster.spawn(["busybox", "httpd", "-f", "-p", f"{cluster.node_ip}:5000", "-h", tmp_path], name="files")
    try:
        fetch = f"until /busybox wget -qO- http://{cluster.node_ip}:5000/file; do /busybox sleep 0.1; done"
        cluster.apply(pod("client", container(busybox, "sh", "-c", fetch), restartPolicy="Never"), namespace=namespace)
        wait(cluster, namespace, "client", "jsonpath={.status.phase}=Succeeded")
        assert cluster.kubectl("logs", "client", f"--namespace={namespace}") == "from the node"
    finally:
        cluster.stop("files")


def test_an_oci_archive_is_loaded_under_any_name(cluster: Access, namespace: str, busybox: str, tmp_path: Path) -> None:
    """What buildah, skopeo and docker buildx write; the archive's own name does not matter."""
    del busybox  # only that it is there
    archive = oci_archive(tmp_path / "oci.tar", Path("/bin/busybox"))
    cluster.load_image(archive, "team/tools:2")
    cluster.apply(
        pod("tools", container("team/tools:2", "echo", "it runs"), restartPolicy="Never"), namespace=namespace
    )
    wait(cluster, namespace, "tools", "jsonpath={.status.phase}=Succeeded")
    assert cluster.kubectl("logs", "tools", f"--namespace={namespace}").strip() == "it runs"


def oci_archive(target: Path, program: Path) -> Path:
    """An OCI image layout of one program."""
    blobs: dict[str, bytes] = {}

    def blob(media_type: str, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {
            "mediaType": f"application/vnd.oci.image.{media_type}",
            "digest": f"sha256:{digest}",
            "size": len(content),
        }

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as root:
        root.add(program, program.name)
    layers = blob("layer.v1.tar", layer.getvalue())
    config = {
        "architecture": machine(),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layers["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "config": blob("config.v1+json", json.dumps(config).encode()),
        "layers": [layers],
    }
    index = {"schemaVersion": 2, "manifests": [blob("manifest.v1+json", json.dumps(manifest).encode())]}
    index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    files = blobs | {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode()}
    with tarfile.open(target, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return target


@contextlib.contextmanager
def webhook(cluster: ControlPlane, address: str, name: str) -> Iterator[int]:
    """An admission webhook that refuses everything, on this machine; its port."""

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Refuse."""
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            review["response"] = {"uid": review["request"]["uid"], "allowed": False, "status": {"message": "said I"}}
            body = json.dumps(review).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    pair = cluster.pki.sign("e2e-webhook", "webhook", addresses=[name])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    with HTTPServer((address, 0), Hook) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_the_api_server_calls_a_webhook_through_its_service(cluster: Access, namespace: str) -> None:
    """By the service's name in the certificate and by its cluster address, and from there to this machine."""
    if not isinstance(cluster, Cluster):
        raise NotPossibleHereError("the API server of somebody else's cluster need not reach this machine")
    with webhook(cluster, cluster.gateway, f"hook.{namespace}.svc") as port:
        hook = service("hook", port)
        del hook["spec"]["selector"]
        hook["spec"]["ports"] = [{"port": 443, "targetPort": port}]
        endpoints = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "hook", "labels": {"kubernetes.io/service-name": "hook"}},
            "addressType": "IPv4",
            "ports": [{"port": port}],
            "endpoints": [{"addresses": [cluster.gateway], "conditions": {"ready": True}}],
        }
        cluster.apply(hook, endpoints, namespace=namespace)
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
        configuration = {
            "name": "configmaps.hookline.test",
            "clientConfig": {"service": {"name": "hook", "namespace": namespace}, "caBundle": cluster.ca},
            "rules": [rule],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
        cluster.apply(
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingWebhookConfiguration",
                "metadata": {"name": namespace},
                "webhooks": [configuration],
            }
        )
        try:
            refusal = ""
            # The API server takes a new webhook, and the node a new service, into use within a second or two.
            for number in range(200):
                try:
                    cluster.kubectl("create", "configmap", f"c-{number}", f"--namespace={namespace}")
                except ClusterError as error:
                    refusal = str(error)
                    if "said I" in refusal:
                        break
        finally:
            cluster.kubectl("delete", "validatingwebhookconfiguration", namespace)
    assert "said I" in refusal


def test_pods_outlive_the_api_server(cluster: Access, namespace: str, busybox: str) -> None:
    """It is killed and comes back with its state, and what ran runs on."""
    cluster.apply(pod("lasting", container(busybox, "sleep", "600")), namespace=namespace)
    wait(cluster, namespace, "lasting")
    before = cluster.get("pod", "lasting", f"--namespace={namespace}")["status"]["containerStatuses"][0]["containerID"]
    cluster.stop_apiserver()
    try:
        with pytest.raises(ClusterError):
            cluster.kubectl("get", "nodes")
    finally:
        cluster.start_apiserver()
    after = cluster.get("pod", "lasting", f"--namespace={namespace}")["status"]["containerStatuses"][0]
    assert after["containerID"] == before
    assert after["state"].keys() == {"running"}


TUNABLES = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")


def of_the_machine() -> dict[str, str]:
    """What a cluster could leave changed on this machine, its own folder aside."""
    values = {name: (Path("/proc/sys") / name).read_text() for name in TUNABLES}
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    return values | {"rules": "\n".join(line for line in rules.splitlines() if not line.startswith(("#", ":")))}


START = """
import json, sys, time
from cluster import Cluster
cluster = Cluster()
cluster.apply({
    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seen", "namespace": "default"}, "data": {"a": "b"},
})
print(json.dumps([str(cluster.folder), cluster.processes.state.cable, cluster.processes.state.cgroup]), flush=True)
if sys.argv[1:] == ["detach"]:
    cluster.detach()
else:
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["killed", "down"])
def test_nothing_is_left_of_a_cluster(cluster: Access, how: str) -> None:
    """Processes, mounts, cgroups, the cable, rules, settings: all as before, beside another cluster that lives on.

    Once with its owner killed, which is the watchdog's to see; once left running and taken away by command.
    """
    if not isinstance(cluster, Cluster):
        raise NotPossibleHereError("somebody else's cluster is used; ours needs root and Debian's containerd")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "testbed")}
    before = of_the_machine()
    argv = [sys.executable, "-c", START, *(["detach"] if how == "down" else [])]
    with subprocess.Popen(
        argv, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as owner:
        assert owner.stdout
        line = owner.stdout.readline()
        assert line, "the second cluster did not come up"
        folder, cable, cgroup = json.loads(line)
        assert list(marked(Path(folder)))
        assert Path(f"/sys/class/net/{cable}").exists()
        assert list(CGROUPS.glob(f"*/{cgroup}")) or (CGROUPS / cgroup).exists()
        assert of_the_machine() == before
        if how == "killed":
            owner.send_signal(signal.SIGKILL)
    if how == "down":
        # These two alone: a cluster that somebody keeps on this machine is none of a test's business.
        down = [sys.executable, "-m", "cluster", "down", folder, str(cluster.folder)]
        said = subprocess.run(
            down, env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE_S
        ).stderr
        assert f"{folder}: gone" in said
        assert f"{cluster.folder}: left alone" in said
    else:
        gone = f"import pathlib, time\nwhile pathlib.Path({folder!r}).exists(): time.sleep(0.05)"
        subprocess.run([sys.executable, "-c", gone], check=True, timeout=PATIENCE_S)
    assert not Path(folder).exists()
    assert not list(marked(Path(folder)))
    assert not mounts_under(Path(folder))
    assert not Path(f"/sys/class/net/{cable}").exists()
    assert not list(CGROUPS.glob(f"*/{cgroup}"))
    assert of_the_machine() == before
    assert cluster.get("node", "node")["metadata"]["name"] == "node"


def test_the_nodes_settings_are_its_own(cluster: Access) -> None:
    """The kubelet found what it wants, this machine has what it had: it does not reboot after a panic."""
    if not isinstance(cluster, Cluster):
        raise NotPossibleHereError("the node is somebody else's")
    faked = cluster.folder / "tunables" / "kernel" / "panic_on_oops"
    assert faked.read_text().strip() == "1"
