"""The operator's rights are these and no more."""

from __future__ import annotations

import pytest

R = ("get", "list", "watch")
WATCHED = {
    ("hookline.dev", "wasmplugins"): {"list", "watch"},
    ("hookline.dev", "wasmplugins/status"): {"patch"},
    ("hookline.dev", "wasmpluginrevisions"): {"list", "watch", "create", "patch", "delete"},
    ("apps", "controllerrevisions"): {"list", "watch"},
    ("", "pods"): {*R},
    ("", "secrets"): {*R},
    ("", "configmaps"): {*R},
    ("", "serviceaccounts"): {"list", "watch"},
    ("", "events"): {"create"},
}
CLUSTER = {
    ("authentication.k8s.io", "tokenreviews"): {"create"},
    ("hookline.dev", "plugintrustpolicies"): {"list", "watch"},
    ("hookline.dev", "plugintrustpolicies/status"): {"patch"},
    ("", "namespaces"): {"list", "watch"},
}
OWN = {
    ("coordination.k8s.io", "leases"): {"create"},
    ("coordination.k8s.io", "leases", "hookline-operator"): {"get", "update"},
    ("", "secrets"): {"create", "get"},
    ("", "configmaps"): {"create", "get"},
    ("", "secrets", "hookline-operator-tls"): {"get", "update"},
    ("", "secrets", "hookline-operator-key"): {"get", "update"},
    ("", "configmaps", "hookline-ca"): {"get", "update"},
}


def webhooks(name):
    """On the configurations of that name alone."""
    kinds = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
    return {("admissionregistration.k8s.io", kind, name): {"get", "patch"} for kind in kinds}


def rights(role):
    """(group, resource[, name]) → verbs."""
    found = {}
    for rule in role["rules"]:
        assert set(rule) <= {"apiGroups", "resources", "resourceNames", "verbs"}
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for name in rule.get("resourceNames", [None]):
                    key = (group, resource) if name is None else (group, resource, name)
                    found.setdefault(key, set()).update(rule["verbs"])
    return found


def held(rendered):
    """What the operator's service account may do, by namespace; None is everywhere."""
    account = rendered.one("Deployment")["spec"]["template"]["spec"]["serviceAccountName"]
    roles = {
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]): each
        for each in (*rendered.all("Role"), *rendered.all("ClusterRole"))
    }
    found = {}
    for binding in (*rendered.all("RoleBinding"), *rendered.all("ClusterRoleBinding")):
        (subject,) = binding["subjects"]
        assert subject == {"kind": "ServiceAccount", "name": account, "namespace": "hookline-system"}
        namespace = binding["metadata"].get("namespace")
        key = (binding["roleRef"]["kind"], namespace, binding["roleRef"]["name"])
        for right, verbs in rights(roles[key]).items():
            found.setdefault(namespace, {}).setdefault(right, set()).update(verbs)
    return found


def test_the_whole_cluster_needs_these_rights_and_no_other(helm):
    """Compared with the list above, verb by verb."""
    everywhere = WATCHED | CLUSTER | webhooks("hookline-operator")
    assert held(helm.render()) == {None: everywhere, "hookline-system": OWN}


def test_watched_namespaces_need_rights_there_and_almost_none_in_the_cluster(helm):
    """Whose token is it, policies, the labels of namespaces and this release's own webhooks: no namespace has these."""
    rendered = helm.render({"watchNamespaces": ["shop", "bank"]})
    everywhere = CLUSTER | webhooks("hookline-operator-hookline-system")
    assert held(rendered) == {None: everywhere, "shop": WATCHED, "bank": WATCHED, "hookline-system": OWN}


def test_without_webhooks_there_is_no_right_to_them(helm):
    """A right follows its use."""
    assert held(helm.render({"webhooks": {"enabled": False}}))[None] == WATCHED | CLUSTER


def test_without_the_migration_there_is_no_right_to_what_other_controllers_keep(helm):
    """Not to ControllerRevisions, of which every StatefulSet has some; and the operator does not ask for them."""
    rendered = helm.render({"migration": {"controllerRevisions": False}})
    assert {group for group, *_ in held(rendered)[None]} == {
        "", "hookline.dev", "authentication.k8s.io", "admissionregistration.k8s.io",
    }  # fmt: skip
    (container,) = rendered.one("Deployment")["spec"]["template"]["spec"]["containers"]
    assert "--migrate-controller-revisions=false" in container["args"]


def test_no_right_is_a_wildcard_or_leads_to_more_rights(rendered):
    """Not in the roles for people either."""
    for role in (*rendered.all("Role"), *rendered.all("ClusterRole")):
        for (group, resource, *_), verbs in rights(role).items():
            assert "*" not in {group, resource, *verbs}
            assert not verbs & {"escalate", "bind", "impersonate"}
            assert resource.partition("/")[2] in {"", "status"}
            assert group != "rbac.authorization.k8s.io"


@pytest.mark.parametrize(("values", "count"), [({}, 2), ({"rbac": {"aggregate": False}}, 0)])
def test_who_may_edit_a_namespace_may_edit_its_plugins(helm, values, count):
    """By the cluster's own roles; not the status, which is the operator's."""
    roles = [
        each
        for each in helm.render(values).all("ClusterRole")
        if any(label.startswith("rbac.authorization.k8s.io/aggregate-to-") for label in each["metadata"]["labels"])
    ]
    assert len(roles) == count
    for role in roles:
        found = rights(role)
        revisions = found.pop(("hookline.dev", "wasmpluginrevisions"), set())
        assert set(found) == {("hookline.dev", "wasmplugins")}
        # A reader of plugins reads nothing new in them; that nobody writes them is what they are for.
        assert revisions == ({*R} if role["metadata"]["name"].endswith("-view") else set())


def test_the_service_account_gives_its_token_to_the_operator_alone(rendered):
    """Pods that merely name it get none."""
    for account in rendered.all("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    assert rendered.one("Deployment")["spec"]["template"]["spec"]["automountServiceAccountToken"] is True
    assert rendered.one("Pod")["spec"]["automountServiceAccountToken"] is False
