"""Plugins of real pods ask real servers, which change their keys and passwords, are restarted, and go away."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from installation import until
from outside import new_password
from tokens import SigningKey, published

ANN = {"roles": ["staff"]}
ACME = {"tenant_id": "acme"}


QUERIES = 30  # what the scene lets a tenant ask in a day


def enough(load, more=300):
    """Back when the load has so many more answers."""
    wanted = len(load.answers) + more
    until(lambda: len(load.answers) >= wanted, f"{more} more answers")


def counted(scene, tenant, each):
    """What so many queries in each pod get, all pods at once: the number of each answer."""
    with ThreadPoolExecutor(2 * len(scene.pods)) as pool:
        return Counter(pool.map(lambda pod: scene.query(pod, tenant), scene.pods * each))


def together(scene):
    """Back when all workers count on the server: those whose server is away let through more together."""

    def count():
        fresh = f"together-{next(scene.numbers)}"
        return counted(scene, fresh, QUERIES)["continue"] == QUERIES

    until(count, "all pods count together")


def test_tokens_and_a_table_decide_alike_in_every_pod(scene):
    """The token says who it is, by the keys that its issuer publishes; the table says what they may."""
    ann, bob = scene.bearer("ann", **ANN), scene.bearer("bob", **ACME)
    assert set(scene.asks("reports", ann)) == {(200, "hello, ann")}
    assert set(scene.asks("secrets/1", ann)) == {(403, "")}
    assert set(scene.asks("reports/1", bob)) == {(200, "hello, bob")}
    assert set(scene.asks("orders", bob)) == {(403, "")}
    assert set(scene.asks("reports", scene.bearer("bob", tenant_id="another"))) == {(403, "")}
    stranger = SigningKey(name=scene.key.name)  # who says that it is the issuer's key
    for refused in (scene.bearer("ann", key=stranger, **ANN), scene.bearer("ann", aud="another", **ANN)):
        assert set(scene.asks("reports", refused)) == {(401, "")}
    assert set(scene.asks("reports", {})) <= {(401, ""), (403, "")}
    assert set(scene.sessions().values()) == {pod.address for pod in scene.pods}


def test_keys_are_rotated_while_clients_come(scene):
    """The issuer publishes another key, signs with it, and takes the old one back: nobody is sent away but the old."""
    old, new = scene.key, SigningKey(name="second")
    before, after = scene.bearer("ann", key=old, **ANN), scene.bearer("ann", key=new, **ANN)
    with scene.load(before) as load:
        scene.outside.publish(published(old, new))
        until(lambda: set(scene.asks("reports", after)) == {(200, "hello, ann")}, "the new key in each pod")
    assert load.bad("ann") == []
    with scene.load(after) as load:
        scene.key = new
        scene.outside.publish(published(new))
        until(lambda: set(scene.asks("reports", before)) == {(401, "")}, "the old key is gone from each pod")
    assert load.bad("ann") == []


def test_a_password_is_rotated_without_a_lost_call(scene):
    """In the database, then in the Secret: all pods come with the new one, and no client and no container notices."""
    headers, password = scene.bearer("ann", **ANN), new_password()
    scene.warm(headers)
    with scene.load(headers) as load:
        enough(load)
        before = scene.sessions()
        scene.alter_password(password)
        enough(load)
        scene.outside.passwords("postgres", hookline=password)

        def renewed():
            found = scene.sessions()
            return not set(found) & set(before) and set(found.values()) == {pod.address for pod in scene.pods}

        until(renewed, "each pod has connections by the new password alone")
        enough(load)
    assert load.bad("ann") == []
    assert [pod.restarts() for pod in scene.pods] == [0] * len(scene.pods)
    shown = scene.tenant.kubectl("get", "wasmplugin,wasmpluginrevision,event", "--output=yaml")
    assert password not in shown


def test_a_rate_counts_over_all_pods_and_outlives_the_server(scene):
    """All workers of all pods together let through what is allowed; a server that was killed has counted it."""
    assert counted(scene, "acme", QUERIES // 2) == {"continue": QUERIES, "block": QUERIES // 2}
    assert counted(scene, "another", 1) == {"continue": len(scene.pods)}
    scene.valkey.restarted()
    together(scene)
    assert counted(scene, "acme", 8) == {"block": 8 * len(scene.pods)}
    allowed = QUERIES - len(scene.pods)
    assert counted(scene, "another", QUERIES)["continue"] == allowed


def test_while_the_server_of_keys_is_away_the_resource_decides(scene):
    """``failurePolicy.store``: nobody, everybody, or as many as one pod may let through; then all together again."""
    policy = {"trap": "Closed", "timeout": "Closed", "overload": "Closed"}
    scene.valkey.away()
    try:
        scene.apply("tenant-rate", failurePolicy={**policy, "store": "Closed"})
        until(lambda: counted(scene, "shop", 1) == {"block": len(scene.pods)}, "nobody")
        scene.apply("tenant-rate", failurePolicy={**policy, "store": "Open"})
        until(lambda: counted(scene, "shop", QUERIES + 1) == {"continue": len(scene.pods) * (QUERIES + 1)}, "everybody")
        scene.apply("tenant-rate", failurePolicy={**policy, "store": "PodLocal"})
        until(lambda: counted(scene, "shop", QUERIES + 1)["block"] >= len(scene.pods), "each pod counts by itself")
        # Whom nobody has asked for yet gets the rate of each pod.
        assert counted(scene, "store", QUERIES + 1) == {
            "continue": len(scene.pods) * QUERIES, "block": len(scene.pods),
        }  # fmt: skip
        assert set(scene.asks("reports", scene.bearer("ann", **ANN))) == {(200, "hello, ann")}
    finally:
        scene.valkey.back()
        scene.apply("tenant-rate")
    scene.tenant.ready("tenant-rate")
    together(scene)


def test_a_database_that_is_away_is_told_and_nothing_is_unloaded(scene):
    """Nobody is let in without the table; ``kubectl describe`` says why; it passes by itself."""
    headers = scene.bearer("ann", **ANN)
    runs = [pod.runs()["grants"] for pod in scene.pods]
    scene.postgres.away()
    try:

        def told():
            refused = set(scene.asks("reports", headers)) == {(403, "")}
            text = scene.tenant.kubectl("describe", "wasmplugin", "grants")
            return refused and "DataSourceUnavailable" in text and scene.postgres.host in text

        until(told, "kubectl describe names the database")
        assert [pod.runs()["grants"] for pod in scene.pods] == runs
        assert set(scene.asks("reports", {"authorization": "Bearer nobody"})) <= {(401, ""), (403, "")}
    finally:
        scene.postgres.back()
    until(lambda: set(scene.asks("reports", headers)) == {(200, "hello, ann")}, "the table is read again")

    def passed():
        return "DataSourceUnavailable" not in str(scene.tenant.status("grants"))

    until(passed, "the status is well again")
    assert [pod.runs()["grants"] for pod in scene.pods] == runs
    assert [pod.restarts() for pod in scene.pods] == [0] * len(scene.pods)
