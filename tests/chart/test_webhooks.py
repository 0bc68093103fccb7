"""Which pods are asked about, by which entry, and what happens when nobody answers."""

from __future__ import annotations

from itertools import product

import pytest

REQUIRED, PODS, NAMESPACES = (
    "required.inject.hookline.dev",
    "pods.inject.hookline.dev",
    "namespaces.inject.hookline.dev",
)
POLICIES = "plugintrustpolicies.validate.hookline.dev"


def holds(selector, labels):
    """A label selector, as https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/ has it."""
    for expression in selector["matchExpressions"]:
        value = labels.get(expression["key"])
        if (value in expression["values"]) != (expression["operator"] == "In"):
            return False
    return True


def entries_for(rendered, *, namespace, labels=None, pod=None):
    """The names of the mutating entries that a new pod meets."""
    in_namespace = {"kubernetes.io/metadata.name": namespace} | (labels or {})
    return [
        entry["name"]
        for entry in rendered.one("MutatingWebhookConfiguration")["webhooks"]
        if holds(entry["namespaceSelector"], in_namespace) and holds(entry["objectSelector"], pod or {})
    ]


def asking(value):
    """The pod's label."""
    return {} if value is None else {"hookline.dev/inject": value}


def of_namespace(inject, require):
    """The namespace's labels."""
    found = asking(inject)
    return found if require is None else found | {"hookline.dev/require-injection": require}


EXPECTED = {
    (inject, require, pod): (
        None
        if pod == "false"
        else REQUIRED
        if require == "true"
        else PODS
        if pod == "true"
        else NAMESPACES
        if inject == "true"
        else None
    )
    for inject, require, pod in product(
        (None, "true", "false"), (None, "true", "false"), (None, "true", "false", "yes")
    )
}


@pytest.mark.parametrize(("case", "entry"), EXPECTED.items())
def test_a_pod_meets_one_entry_at_the_most(helm, case, entry):
    """The one that the labels of pod and namespace say."""
    inject, require, pod = case
    found = entries_for(helm.render(), namespace="shop", labels=of_namespace(inject, require), pod=asking(pod))
    assert found == ([entry] if entry else [])


@pytest.mark.parametrize("namespace", ["kube-system", "hookline-system"])
@pytest.mark.parametrize("case", EXPECTED)
def test_the_operator_and_the_clusters_own_pods_are_never_asked_about(helm, case, namespace):
    """Whatever the labels say, so that both can start when there is no operator."""
    inject, require, pod = case
    assert not entries_for(helm.render(), namespace=namespace, labels=of_namespace(inject, require), pod=asking(pod))


def test_a_deletion_is_asked_about_for_a_second_and_never_refused(helm):
    """A namespace that is deleted, or the garbage collector, waits for no operator."""
    entries = {each["name"]: each for each in helm.render().one("ValidatingWebhookConfiguration")["webhooks"]}
    of = {name: {verb for rule in each["rules"] for verb in rule["operations"]} for name, each in entries.items()}
    assert of == {
        "wasmplugins.validate.hookline.dev": {"CREATE", "UPDATE"},
        "deletions.validate.hookline.dev": {"DELETE"},
        "plugintrustpolicies.validate.hookline.dev": {"CREATE", "UPDATE", "DELETE"},
    }
    assert {each["failurePolicy"] for each in entries.values()} == {"Ignore"}
    assert entries["deletions.validate.hookline.dev"]["timeoutSeconds"] == 1
    assert entries["deletions.validate.hookline.dev"]["sideEffects"] == "None"


def test_in_a_watched_namespace_of_its_own_the_operators_pods_are_left_out_one_by_one(helm):
    """Proxies beside the operator get a sidecar; the operator and `helm test` say "false" themselves."""
    rendered = helm.render({"watchNamespaces": ["hookline-system"]})
    labels = of_namespace("true", "true")
    assert entries_for(rendered, namespace="hookline-system", labels=labels) == [REQUIRED]
    for _, pod in rendered.pods():
        assert not entries_for(rendered, namespace="hookline-system", labels=labels, pod=pod["metadata"]["labels"])


def test_pods_of_other_namespaces_than_the_watched_are_not_asked_about(helm):
    """Nor are their plugins."""
    rendered = helm.render({"watchNamespaces": ["shop", "bank"]})
    for namespace, found in {"shop": [PODS], "bank": [PODS], "other": []}.items():
        assert entries_for(rendered, namespace=namespace, pod=asking("true")) == found
    for validating in rendered.one("ValidatingWebhookConfiguration")["webhooks"]:
        if validating["name"] == POLICIES:  # in no namespace
            assert "namespaceSelector" not in validating
            continue
        for namespace, found in {"shop": True, "bank": True, "other": False}.items():
            assert holds(validating["namespaceSelector"], {"kubernetes.io/metadata.name": namespace}) is found


def test_pods_start_without_an_operator_unless_their_namespace_says_otherwise(helm):
    """And a plugin can be applied without one: the operator checks again."""
    rendered = helm.render()
    mutating = rendered.one("MutatingWebhookConfiguration")["webhooks"]
    assert {entry["name"]: entry["failurePolicy"] for entry in mutating} == {
        PODS: "Ignore",
        NAMESPACES: "Ignore",
        REQUIRED: "Fail",
    }
    validating = rendered.one("ValidatingWebhookConfiguration")["webhooks"]
    assert {entry["failurePolicy"] for entry in validating} == {"Ignore"}


def test_the_entries_reach_the_operators_service_and_leave_the_authority_to_it(helm):
    """No caBundle, so that no upgrade puts an old one back; short timeouts; no side effects."""
    rendered = helm.render({"webhooks": {"timeoutSeconds": 3}})
    service = rendered.one("Service")
    for kind, path in (("Mutating", "/webhooks/inject"), ("Validating", "/webhooks/validate")):
        for entry in rendered.one(f"{kind}WebhookConfiguration")["webhooks"]:
            where = {"name": service["metadata"]["name"], "namespace": "hookline-system", "port": 443}
            # Where policies are asked about, only the API server is told, by the operator.
            where |= {} if entry["name"] == POLICIES else {"path": path}
            assert entry["clientConfig"] == {"service": where}
            assert entry["sideEffects"] == "None"
            assert entry["timeoutSeconds"] == (1 if entry["name"].startswith("deletions.") else 3)
            assert entry.get("reinvocationPolicy") == ("IfNeeded" if kind == "Mutating" else None)
    assert {port["port"]: port["targetPort"] for port in service["spec"]["ports"]}[443] == "https"
