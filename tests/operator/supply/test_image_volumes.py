"""A pod may name images with modules: they are mounted where the cluster can, else left out with a warning."""

from __future__ import annotations

import pytest
import yaml

from cluster.control_plane import ControlPlane
from cluster.errors import ClusterError, NotPossibleHereError
from cluster.fixtures import missing
from hookline_operator.webhooks.annotations import InjectionSettings
from hookline_operator.webhooks.injection import inject
from hookline_operator.webhooks.pod_json import InjectionError
from waiting import until

IMAGES = "guard=registry.example/guard:v1, other=registry.example/other@sha256:" + "a" * 64


def pod(images=IMAGES):
    """A pod with the annotation."""
    annotations = {"hookline.dev/image-volumes": images}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "annotations": annotations},
        "spec": {"containers": [{"name": "web", "image": "nginx"}]},
    }  # fmt: skip


def injected(found, *, image_volumes):
    """The answer of an operator that knows whether the cluster has them."""
    settings = InjectionSettings(
        image="registry.example/hookline-sidecar:1", operator="https://o.svc", operator_ca="CA",
        image_volumes=image_volumes,
    )  # fmt: skip
    return inject(found, namespace="default", settings=settings)


def volumes(found):
    """The image volumes of a pod."""
    return {each["name"]: each["image"] for each in found["spec"]["volumes"] if "image" in each}


def test_the_images_are_mounted_read_only_beside_the_state():
    """Into the sidecar alone."""
    found = injected(pod(), image_volumes=True)
    assert found.warnings == ()
    assert volumes(found.pod) == {
        "hookline-image-guard": {"reference": "registry.example/guard:v1", "pullPolicy": "IfNotPresent"},
        "hookline-image-other": {
            "reference": "registry.example/other@sha256:" + "a" * 64, "pullPolicy": "IfNotPresent",
        },
    }  # fmt: skip
    (sidecar,) = found.pod["spec"]["initContainers"]
    assert "--images=/var/lib/hookline-images" in sidecar["args"]
    mounts = [each for each in sidecar["volumeMounts"] if each["name"].startswith("hookline-image-")]
    assert [each["mountPath"] for each in mounts] == [f"/var/lib/hookline-images/{each}" for each in ("guard", "other")]
    assert all(each["readOnly"] is True for each in mounts)
    assert "hookline-image" not in str(found.pod["spec"]["containers"])


def test_without_image_volumes_the_pod_is_as_any_other():
    """With a warning; its modules come from the operator."""
    found = injected(pod(), image_volumes=False)
    (warning,) = found.warnings
    assert "the images of hookline.dev/image-volumes are not mounted" in warning
    assert volumes(found.pod) == {}
    assert "--images" not in str(found.pod)


@pytest.mark.parametrize(
    "text",
    ["guard", "guard=", "=r.test/a", "Guard=r.test/a", "a=r.test/a,a=r.test/b", "a=oci-layout:x", "a=r.test/A",
     ",".join(f"a{number}=r.test/a" for number in range(9)), "x" * 50 + "=r.test/a"],
)  # fmt: skip
def test_what_names_no_image_is_refused(text):
    """Whatever the cluster has."""
    for image_volumes in (True, False):
        with pytest.raises(InjectionError, match=r"the annotation hookline\.dev/image-volumes has"):
            injected(pod(text), image_volumes=image_volumes)


def create(plane, found):
    """The pod as a real API server would keep it."""
    where = ["--dry-run=server", "--namespace=default", "--filename=-", "--output=yaml"]
    return yaml.safe_load(plane.kubectl("create", *where, input=yaml.safe_dump(found)))


def mounts(found):
    """What of images is mounted into the sidecar."""
    (sidecar,) = found["spec"]["initContainers"]
    return [each["name"] for each in sidecar["volumeMounts"] if each["name"].startswith("hookline-image-")]


@pytest.fixture(scope="module")
def gated():
    """A real API server with the feature gate."""
    try:
        plane = ControlPlane(flags=["--feature-gates=ImageVolume=true"])
    except NotPossibleHereError as error:
        missing(error)
    with plane:
        until(
            lambda: plane.get("serviceaccount", "default", "--namespace=default"),
            "a default service account",
            ignoring=(ClusterError,),
        )
        yield plane


def test_a_real_api_server_with_the_gate_takes_the_pod_as_it_is(gated):
    """Each volume and each mount."""
    with_images = injected(pod(), image_volumes=True).pod
    kept = create(gated, with_images)
    assert volumes(kept) == volumes(with_images)
    assert mounts(kept) == mounts(with_images) == ["hookline-image-guard", "hookline-image-other"]


def test_a_real_api_server_without_the_gate_drops_them_and_takes_the_pod(control_plane):
    """With their mounts: the sidecar then finds no folder, and asks the operator. Nothing of it breaks a pod."""
    gates = control_plane.kubectl("get", "--raw", "/metrics")
    assert 'kubernetes_feature_enabled{name="ImageVolume",stage="BETA"} 0' in gates
    kept = create(control_plane, injected(pod(), image_volumes=True).pod)
    assert volumes(kept) == {}
    assert mounts(kept) == []
    assert mounts(create(control_plane, injected(pod(), image_volumes=False).pod)) == []
