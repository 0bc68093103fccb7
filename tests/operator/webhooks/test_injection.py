"""A pod that asks for a sidecar gets one that works, or is told why not; the rest of it stays as it is.

``cases/injection`` holds a pod per file, and what becomes of it: all of it (``injected``), a part (``look``: mappings
by their keys, lists by position), single ``args`` of the sidecar, ``unchanged``, ``refused``, and its ``warnings``.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hookline_api.bundle import BundlePlugin
from hookline_api.quantities import parse_size
from hookline_operator.webhooks.annotations import ANNOTATIONS, AUTH_HEADERS, InjectionSettings
from hookline_operator.webhooks.container import CONTAINER
from hookline_operator.webhooks.injection import inject, patch
from hookline_operator.webhooks.pod_json import InjectionError, MalformedPodError
from hookline_runtime.plugin.budget import STORE, Plan, need
from hookline_sidecar.hooks.original import PROXIES

CASES = Path(__file__).parent / "cases"
DOCUMENT = Path(__file__).parents[3] / "docs" / "operate" / "injection.md"
SETTINGS = InjectionSettings(
    image="registry.example/hookline-sidecar:1",
    operator="https://hookline-operator.hookline-system.svc",
    operator_ca="THE CA",
)


def run(pod, *, namespace="shop"):
    """The answer about a pod."""
    return inject(pod, namespace=namespace, settings=SETTINGS)


def annotated(**annotations):
    """A pod with these annotations of ours."""
    names = {f"hookline.dev/{name.replace('_', '-')}": value for name, value in annotations.items()}
    return {"metadata": {"name": "web", "annotations": names}, "spec": {"containers": [{"name": "web", "image": "n"}]}}


def applied(document, operations):
    """RFC 6902, as far as whole fields go, written anew so that the patch is judged by something else."""
    document = copy.deepcopy(document)
    for operation in operations:
        *parents, last = [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].removeprefix("/").split("/")
        ]
        target = document
        for part in parents:
            target = target[part]
        assert operation["op"] in {"add", "replace"}
        assert operation["op"] == "add" or last in target, "only what is there can be replaced"
        target[last] = copy.deepcopy(operation["value"])
    return document


def assert_looks(found, expected, where=""):
    """That ``expected`` is a part of ``found``."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert key in found, f"{where}.{key}"
            assert_looks(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) >= len(expected), where
        for index, value in enumerate(expected):
            assert_looks(found[index], value, f"{where}[{index}]")
    else:
        assert found == expected, where


@pytest.mark.parametrize("path", sorted(CASES.glob("*.yaml")), ids=lambda path: path.stem)
def test_pods_become_what_the_cases_say(path):
    """Input YAML, output YAML."""
    case = yaml.safe_load(path.read_text())
    assert {*case} <= {"promise", "pod", "injected", "look", "args", "unchanged", "refused", "warnings"}
    pod = copy.deepcopy(case["pod"])
    if "refused" in case:
        with pytest.raises(InjectionError) as refused:
            run(pod)
        assert str(refused.value) == case["refused"]
        return
    answer = run(pod)
    assert pod == case["pod"], "the input is not changed"
    assert list(answer.warnings) == case.get("warnings", [])
    if "injected" in case:
        assert answer.pod == case["injected"]
    assert_looks(answer.pod, case.get("look", {}))
    if case.get("unchanged"):
        assert answer.pod is pod
        assert patch(pod, answer.pod) == []
    else:
        assert {*case.get("args", [])} <= {*answer.pod["spec"]["initContainers"][0]["args"]}
        assert applied(pod, patch(pod, answer.pod)) == answer.pod


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("sidecar_image", "", "be an image"), ("sidecar_image", "a b", "be an image"),
        ("sidecar_image", "x/UP", "be an image"),
        ("sidecar_image", "oci-layout:/etc", "be an image"), ("sidecar_image", "oci://a.b/c", "be an image"),
        ("sidecar_image", "x" * 5000, "be an image"),
        ("sidecar_cpu_request", "0", "a number of processors"), ("sidecar_cpu_limit", "-1", "a number of processors"),
        ("sidecar_cpu_limit", "1e3", "a number of processors"), ("sidecar_cpu_request", "0m", "a number of"),
        ("sidecar_cpu_request", "\u0661", "a number of"), ("sidecar_cpu_request", "1\n", "a number of"),
        ("sidecar_memory_limit", "1MB", "be a size"), ("sidecar_memory_limit", "10Mi", "at least the 64Mi"),
        ("sidecar_memory_request", "1Gi", "set hookline.dev/sidecar-memory-limit to as much at least"),
        ("hook_port", "0", "be a port"), ("hook_port", "80", "a port from 1024"), ("hook_port", "65536", "be a port"),
        ("hook_port", "OFF", "or 'off'"), ("admin_port", "off", "be a port"), ("admin_port", "9901", "the same port"),
        ("hook_port", "\u0669\u0669\u0660\u0661", "be a port"), ("hook_port", "9901\n", "be a port"),
        ("sidecar_workers", "0", "between 1 and 64"), ("sidecar_workers", "65", "between 1 and 64"),
        ("sidecar_cache_memory", "3Mi", "a size from 4Mi to 256Mi"), ("sidecar_cache_memory", "257Mi", "to 256Mi"),
        ("sidecar_cache_memory", "much", "a size from 4Mi"), ("sidecar_cache_memory", "", "a size from 4Mi"),
        ("sidecar_workers", "two", "between 1 and 64"), ("sidecar_log_level", "trace", "one of debug"),
        ("trust_policy", "", "the name of a ConfigMap"), ("trust_policy", "a/b", "the name of a ConfigMap"),
        ("trust_policy", "x" * 254, "the name of a ConfigMap"), ("trust_policy", "a\n", "the name of a ConfigMap"),
    ],
)  # fmt: skip
def test_a_wrong_annotation_refuses_the_pod_with_a_sentence(name, value, says):
    """It names the annotation and says what would be right, in one line of bounded length."""
    with pytest.raises(InjectionError) as refused:
        run(annotated(**{name: value}))
    sentence = str(refused.value)
    assert sentence.startswith("pod shop/web: ")
    assert f"hookline.dev/{name.replace('_', '-')}" in sentence
    assert says in sentence
    assert "\n" not in sentence
    assert len(sentence) < 400


@pytest.mark.parametrize(
    "pod",
    [
        {"metadata": [], "spec": {}}, {"metadata": {}, "spec": "x"}, {"metadata": {"labels": {"a": 1}}, "spec": {}},
        {"metadata": {"annotations": ["a"]}, "spec": {}}, {"spec": {"containers": {}}},
        {"spec": {"containers": ["web"]}}, {"spec": {"initContainers": [None]}}, {"spec": {"volumes": "x"}},
        {"spec": {"containers": [{"volumeMounts": 3}]}}, {"spec": {"containers": [{"ports": [3]}]}},
    ],
)  # fmt: skip
def test_what_is_no_pod_is_called_malformed(pod):
    """No API server sends these."""
    with pytest.raises(MalformedPodError, match="the pod's"):
        run(pod)


def test_a_pod_of_too_many_containers_is_refused():
    """What is added to each is bounded."""
    with pytest.raises(InjectionError, match="more than 256 containers"):
        run({"spec": {"containers": [{"name": "x"}] * 257}})


def test_what_is_logged_about_a_pod_is_one_line():
    """Names come from whoever sends."""
    pod = {"metadata": {"name": "a\nb\x1b[31m" + "x" * 999, "annotations": {"hookline.dev/x": ""}}, "spec": {}}
    (warning,) = run(pod, namespace="s\nt").warnings
    assert warning.startswith("pod s?t/a?b?[31m")
    assert len(warning) < 500


def test_the_proxies_that_a_pod_may_name_are_those_that_a_sidecar_knows():
    """And no other: a sidecar would not start."""
    assert set(AUTH_HEADERS) == set(PROXIES)
    for name in AUTH_HEADERS:
        assert f"--auth-headers={name}" in run(annotated(auth_headers=name)).pod["spec"]["initContainers"][0]["args"]
    with pytest.raises(InjectionError, match="auth-headers is 'apache': it must be one of any, nginx"):
        run(annotated(auth_headers="apache"))


@pytest.mark.parametrize("policy", ["Never", "Always", None])
def test_the_pull_policy_is_the_operators(policy):
    """Or left to Kubernetes."""
    given_ = InjectionSettings(image="i:1", operator="https://o.n.svc", operator_ca="CA", image_pull_policy=policy)
    container = inject(annotated(), namespace="n", settings=given_).pod["spec"]["initContainers"][0]
    assert container.get("imagePullPolicy") == policy


def test_the_operators_settings_hold_where_the_pod_says_nothing():
    """And give way to its annotations."""
    own = InjectionSettings(
        image="i:1", operator="https://o.n.svc", operator_ca="CA", cpu_request="200m", cpu_limit="2",
        memory_request="256Mi", memory_limit="1Gi", log_level="debug",
    )  # fmt: skip
    container = inject(annotated(), namespace="n", settings=own).pod["spec"]["initContainers"][0]
    assert container["resources"] == {
        "requests": {"cpu": "200m", "memory": "256Mi"},
        "limits": {"cpu": "2", "memory": "1Gi"},
    }
    assert "--log-level=debug" in container["args"]
    container = inject(annotated(sidecar_cpu_limit="100m"), namespace="n", settings=own).pod["spec"]["initContainers"][
        0
    ]
    assert container["resources"]["requests"]["cpu"] == "100m"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"cpu_request": "much"}, "cpu-request is 'much': it must be a number"), ({"cpu_limit": "1m"}, "cpu-limit 1m"),
        ({"memory_limit": "100Mi"}, "memory-limit 100Mi"),
        ({"memory_request": ""}, "memory-request is '': it must be a size"),
        ({"log_level": "loud"}, "log-level is 'loud': it must be one of"),
    ],
)  # fmt: skip
def test_settings_that_no_pod_could_have_are_refused_at_the_start(wrong, says):
    """By the operator's command line, and not pod by pod."""
    with pytest.raises(ValueError, match=f"the sidecar's .*{says}"):
        InjectionSettings(image="i:1", operator="https://o.n.svc", operator_ca="CA", **wrong)


_name = st.sampled_from(["web", "envoy", "db", CONTAINER, "hookline-socket"])
_mount = st.fixed_dictionaries(
    {
        "name": _name,
        "mountPath": st.sampled_from(["/run/hookline", "/var/run/hookline/", "/run", "/data", "//run/x/.."]),
    },
    optional={"readOnly": st.booleans()},
)
_container = st.fixed_dictionaries(
    {"name": _name},
    optional={
        "volumeMounts": st.none() | st.lists(_mount, max_size=3),
        "ports": st.none() | st.lists(st.fixed_dictionaries({"containerPort": st.integers(9900, 9903)}), max_size=1),
        "restartPolicy": st.just("Always"),
    },
)
_volume = st.fixed_dictionaries(
    {"name": st.sampled_from(["data", "hookline-socket", "hookline-state", "hookline-identity"])},
    optional={"emptyDir": st.just({}), "secret": st.just({"secretName": "s"})},
)
_value = st.sampled_from(["true", "false", "9903", "off", "100Mi", "2", "debug", "localhost/x", ""])
_pods = st.fixed_dictionaries(
    {
        "spec": st.fixed_dictionaries(
            {"containers": st.lists(_container, min_size=1, max_size=3)},
            optional={
                "initContainers": st.none() | st.lists(_container, max_size=2),
                "volumes": st.none() | st.lists(_volume, max_size=3, unique_by=lambda volume: volume["name"]),
                "hostNetwork": st.booleans(),
                "os": st.sampled_from([{"name": "linux"}, {"name": "windows"}]),
                "dnsPolicy": st.sampled_from(["Default", "ClusterFirst"]),
            },
        )
    },
    optional={
        "metadata": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "name": _name,
                "labels": st.none()
                | st.dictionaries(st.sampled_from(["app", "hookline.dev/inject", "hookline.dev/sidecar"]), _value),
                "annotations": st.none()
                | st.dictionaries(st.sampled_from(["a~b/c", *ANNOTATIONS]), _value, max_size=2),
            },
        )
    },
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(_pods)
def test_injecting_twice_is_injecting_once_and_the_patch_gives_the_pod(pod):
    """Whatever the pod, and nothing that was there is lost."""
    before = copy.deepcopy(pod)
    try:
        once = run(pod)
    except InjectionError as refused:
        sentence = str(refused)
    else:
        sentence = None
    assert pod == before
    if sentence is not None:
        assert "\n" not in sentence
        return
    operations = patch(pod, once.pod)
    assert applied(pod, json.loads(json.dumps(operations))) == once.pod
    assert run(once.pod).pod == once.pod
    assert len(once.warnings) <= 5
    if not operations:
        return
    spec = once.pod["spec"]
    assert spec["initContainers"][0]["name"] == CONTAINER
    assert sum(each["name"] == CONTAINER for each in [*spec["containers"], *spec["initContainers"]]) == 1
    old = before["spec"]
    for field in ("containers", "initContainers", "volumes"):
        ours = [each["name"] for each in spec[field] if each["name"] != CONTAINER]
        theirs = [each["name"] for each in old.get(field) or []]
        assert [name for name in ours if name in theirs or not name.startswith("hookline-")] == theirs
    volumes = {volume["name"] for volume in spec["volumes"]}
    assert {"hookline-socket", "hookline-state", "hookline-identity"} <= volumes


_odd = (
    st.none()
    | st.booleans()
    | st.integers(-1, 70_000)
    | st.text(max_size=3)
    | st.just([])
    | st.just({})
    | st.just([{}])
)
_odder = _odd | st.lists(
    st.dictionaries(st.sampled_from(["name", "ports", "volumeMounts", "emptyDir"]), _odd), max_size=2
)
_PORTS = [[{"containerPort": 9901, "protocol": []}], [{"containerPort": {}}], [{"containerPort": True}]]


@settings(max_examples=400)
@given(
    st.dictionaries(st.sampled_from(["name", "generateName", "labels", "annotations"]), _odd),
    st.dictionaries(
        st.sampled_from(["containers", "initContainers", "volumes", "os", "nodeSelector", "hostNetwork", "dnsPolicy"]),
        _odder,
    ),
    st.sampled_from(_PORTS),
)
def test_whatever_is_sent_as_a_pod_is_answered_in_a_sentence(metadata, spec, ports):
    """Or injected; nothing else is raised."""
    for pod in (
        {"metadata": metadata, "spec": spec},
        {"metadata": metadata, "spec": {**spec, "containers": [{"name": "web", "ports": ports}]}},
    ):
        sentence = ""
        try:
            answer = run(pod)
        except (InjectionError, MalformedPodError) as error:
            sentence = str(error)
        assert sentence or json.dumps(answer.pod)
        assert "\n" not in sentence


def _blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


def test_the_snippet_in_the_document_is_what_injection_makes():
    """By hand one gets the same; only the authority comes from a ConfigMap instead of an annotation."""
    (by_hand,) = [
        found
        for block in _blocks("yaml")
        for found in yaml.safe_load_all(block)
        if found.get("kind") == "Pod" and "initContainers" in found["spec"]
    ]
    plain = copy.deepcopy(by_hand)
    assert plain["metadata"]["labels"].pop("hookline.dev/sidecar") == "true"
    sidecar = plain["spec"].pop("initContainers")[0]
    plain["spec"]["volumes"] = [v for v in plain["spec"]["volumes"] if not v["name"].startswith("hookline-")]
    for container in plain["spec"]["containers"]:
        container["volumeMounts"] = [m for m in container["volumeMounts"] if m["name"] != "hookline-socket"]
    expected = run(plain).pod
    ca = {"configMap": {"name": "hookline-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
    expected["spec"]["volumes"][-1]["projected"]["sources"][1] = ca
    del expected["metadata"]["annotations"]
    expected["spec"]["initContainers"][0]["image"] = sidecar["image"]
    assert by_hand == expected
    assert sidecar["image"].startswith("hookline-sidecar:")


def test_the_documents_table_has_every_annotation():
    """With its name as it is written."""
    for name in ANNOTATIONS:
        assert f"| `{name}` |" in DOCUMENT.read_text()


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8, 64])
def test_what_a_sidecar_is_given_has_room_for_a_plugin_of_the_default_limits(workers):
    """In each of its workers, one that writes to the store; or the one who asks for it is told what to set."""
    kept = STORE + 2**23

    def fits(limit):
        plan = Plan.of(int(parse_size(limit)), workers=workers, state=kept)
        return need(BundlePlugin(name="p")) <= plan.most_guests

    given = run(annotated(sidecar_workers=str(workers)))
    assert given.warnings == ()
    assert fits(given.pod["spec"]["initContainers"][0]["resources"]["limits"]["memory"])
    [warning] = run(annotated(sidecar_workers=str(workers), sidecar_memory_limit="200Mi")).warnings
    assert not fits("200Mi")
    assert fits(re.search(r"sidecar-memory-limit to (\w+)", warning)[1])
