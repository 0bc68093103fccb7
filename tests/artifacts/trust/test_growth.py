"""Permissions that grow: a new version that asks for more waits until somebody grants it, or has said that it may."""

from __future__ import annotations

import json

import pytest

from hookline_api.bundle import MAX_ASKS
from hookline_api.policies import PluginTrustPolicySpec
from hookline_artifacts.errors import ConfigError, IncreasedError, NotGrantedError, PolicyError
from hookline_artifacts.trust.policy import Policy
from signed_plugins import Rig, module

KV_GET = '(import "env" "kv_get" (func (param i32 i32 i32 i32) (result i32)))'
SHA256 = '(import "env" "sha256_hex" (func (param i32 i32 i32) (result i32)))'


def wasm(*asks, imports="", text="a"):
    """A module that asks for these permissions by words, and for others by what it imports."""
    return module(text, permissions=asks, imports=imports)


class Versions:
    """Versions of one plugin, one after the other."""

    def __init__(self, rig):
        self._rig = rig
        self._number = 0
        self.ran = None

    async def next(self, *asks, imports="", **spec):
        """Resolve the next version: the permissions that it runs with."""
        self._number += 1
        data = wasm(*asks, imports=imports, text=f"version {self._number}")
        given = {"previous": self.ran, **spec.pop("given", {})}
        found = await self._rig.file("p.wasm", data, given=given, **spec)
        self.ran = found.entry.artifact
        return found.entry.permissions


@pytest.fixture
def rig(tmp_path, fetcher):
    """Resolves plugins of a folder."""
    return Rig(tmp_path / "plugins", fetcher)


@pytest.fixture
def versions(rig):
    """A plugin's versions."""
    return Versions(rig)


async def test_a_version_that_asks_for_more_waits_and_goes_on_when_it_is_granted(versions):
    """The sentence has the difference and what to do; what ran is what the next one is compared with."""
    assert await versions.next("kv.read", permissions=["kv.read"]) == ["kv.read"]
    ran = versions.ran
    with pytest.raises(IncreasedError) as found:
        await versions.next("kv.read", "http.fetch", permissions=["kv.read"])
    assert str(found.value) == (
        "the new version asks for http.fetch, which the one before it did not: add it to spec.permissions, or set "
        "spec.permissionsPolicy to FollowArtifact"
    )
    assert versions.ran == ran
    both = await versions.next("kv.read", "http.fetch", permissions=["kv.read", "http.fetch"])
    assert both == ["http.fetch", "kv.read"]
    with pytest.raises(IncreasedError, match=r"asks for crypto, metrics, .*: add them to"):
        await versions.next("metrics", "crypto", "http.fetch", permissions=["kv.read", "http.fetch"])


async def test_a_wait_for_permissions_is_told_from_a_wrong_configuration(versions):
    """It is an error of its own kind, and of the wider kinds that callers know."""
    await versions.next()
    with pytest.raises(IncreasedError) as found:
        await versions.next("crypto")
    assert isinstance(found.value, NotGrantedError)
    assert isinstance(found.value, ConfigError)
    assert found.value.cause == "config"


async def test_what_a_version_imports_is_what_it_asks_for(versions):
    """Whether it says so or not: a manifest that is silent hides no growth."""
    await versions.next(imports=KV_GET, permissions=["kv.read"])
    assert versions.ran.asks == ["kv.read"]
    with pytest.raises(IncreasedError, match="asks for crypto, which"):
        await versions.next("kv.read", imports=KV_GET + SHA256, permissions=["kv.read"])
    assert await versions.next(imports=KV_GET + SHA256, permissions=["kv.read", "crypto"]) == ["crypto", "kv.read"]


async def test_the_first_version_waits_for_nobody(versions):
    """There is nothing that it could have grown from; what it imports is held against the resource as ever."""
    assert await versions.next("http.fetch") == []
    versions.ran = None
    with pytest.raises(NotGrantedError, match=r"imports env\.kv_get, which needs the permission kv\.read") as found:
        await versions.next(imports=KV_GET)
    assert not isinstance(found.value, IncreasedError)


async def test_what_was_asked_before_is_no_growth(versions):
    """Granted or not, and whatever was between: asking for less, and for the same in another order."""
    await versions.next("kv.read", "crypto")
    await versions.next("crypto", "kv.read")
    await versions.next("crypto")
    with pytest.raises(IncreasedError, match=r"kv\.read"):
        await versions.next("crypto", "kv.read")


async def test_a_revision_that_does_not_know_what_was_asked_holds_nothing(versions):
    """It was kept by an older version of Hookline; from the next one on it is known."""
    await versions.next("kv.read")
    versions.ran = versions.ran.model_copy(update={"asks": None})
    await versions.next("kv.read", "crypto")
    assert versions.ran.asks == ["crypto", "kv.read"]
    with pytest.raises(IncreasedError, match="metrics"):
        await versions.next("kv.read", "crypto", "metrics")


async def test_a_part_of_a_permission_grants_the_question_for_it(versions):
    """``query.execute:orders`` is what a resource gives to a plugin that asks for ``query.execute``."""
    await versions.next()
    source = {"name": "orders", "postgres": {"host": "db.test", "database": "d", "user": "u"}}
    granted = await versions.next("query.execute", permissions=["query.execute:orders"], dataSources=[source])
    assert granted == ["query.execute:orders"]


@pytest.mark.parametrize("policy", ["Strict", "Lenient"])
async def test_lenient_holds_growth_too(versions, policy):
    """It denies what is not granted, and a version that asks for more is one that somebody has to look at."""
    await versions.next(permissionsPolicy=policy)
    with pytest.raises(IncreasedError, match=r"kv\.read"):
        await versions.next(imports=KV_GET, permissionsPolicy=policy)
    assert await versions.next(imports=KV_GET, permissionsPolicy=policy, permissions=["kv.read"]) == ["kv.read"]


async def test_follow_artifact_grants_what_is_asked_for(versions):
    """Beside what the resource lists, and no longer than it is asked for."""
    follow = {"permissionsPolicy": "FollowArtifact", "permissions": ["metrics"]}
    assert await versions.next("kv.read", **follow) == ["kv.read", "metrics"]
    assert await versions.next("kv.read", imports=SHA256, **follow) == ["crypto", "kv.read", "metrics"]
    assert await versions.next(**follow) == ["metrics"]


@pytest.mark.parametrize(
    "odd",
    [
        "root", "*", "kv.*", "kv.read\n", "KV.READ", "kv.read,kv.write", "../kv.read", "custom.", "query.execute:*",
        "query.execute:", "http.fetch:evil.test", "kv.read" * 20, "\u202ekv.read", "custom." + "a" * 90, "filesystem",
    ],
    ids=ascii,
)  # fmt: skip
async def test_follow_artifact_grants_nothing_that_is_no_permission(versions, odd):
    """An artifact may ask for any words. Those that mean nothing here grant nothing, and keep nothing from running."""
    granted = await versions.next(odd, "crypto", permissionsPolicy="FollowArtifact")
    assert "crypto" in granted
    assert set(granted) <= {"crypto", "kv.read"}
    assert all(len(each) <= 64 and each.isprintable() for each in versions.ran.asks)
    if "kv.read" in granted:
        assert odd.strip("\u202e\n") == "kv.read", "what nobody can see is left out, and the rest is asked for"


@pytest.mark.parametrize("words", [[1, None, {"a": 1}], "kv.read", {"kv.read": True}, [["kv.read"]], 7])
async def test_permissions_of_another_kind_ask_for_nothing(rig, oci, words):
    """Whatever JSON has where a list of words should be."""
    packed = oci.tar({"manifest.json": json.dumps({"permissions": words}).encode(), "plugin.wasm": wasm()})
    found = await rig.file("p.tar.gz", packed, permissionsPolicy="FollowArtifact")
    assert (found.entry.permissions, found.entry.artifact.asks) == ([], [])


async def test_a_thousand_words_are_not_all_kept(versions):
    """And the same thousand in the next version are no growth."""
    many = [f"custom.{number:04}" for number in range(1000)]
    assert await versions.next(*many, permissionsPolicy="FollowArtifact") == many[:32]
    assert len(versions.ran.asks) <= MAX_ASKS
    await versions.next(*many)
    with pytest.raises(IncreasedError, match="which the one before it did not"):
        await versions.next(*reversed(many))


async def test_packed_permissions_are_asked_for_like_the_modules_own(rig, oci):
    """In HeliosDB's spelling, too. The module's own section stands before them."""
    manifest = json.dumps({"permissions": ["kv_read", "http_fetch", "metric_inc"]}).encode()
    packed = oci.tar({"manifest.json": manifest, "plugin.wasm": wasm()})
    found = await rig.file("p.tar.gz", packed, permissionsPolicy="FollowArtifact")
    assert found.entry.permissions == ["http.fetch", "kv.read", "metrics"]
    own = oci.tar({"manifest.json": manifest, "plugin.wasm": wasm("crypto")})
    found = await rig.file("q.tar.gz", own, permissionsPolicy="FollowArtifact")
    assert found.entry.permissions == ["crypto"]


async def test_a_policy_bounds_what_follow_artifact_grants(rig):
    """It is judged by what would be granted, and not by what the resource lists; Audit tells and grants."""

    def policy(mode):
        spec = PluginTrustPolicySpec.model_validate({"mode": mode, "permissions": ["kv.read"]})
        return {"policies": [Policy(name="org", spec=spec)]}

    follow = {"permissionsPolicy": "FollowArtifact"}
    assert (await rig.file("a.wasm", wasm("kv.read"), given=policy("Enforce"), **follow)).entry.permissions
    with pytest.raises(PolicyError, match=r"'org' forbids it: spec\.permissions: http\.fetch may not be granted"):
        await rig.file("b.wasm", wasm("kv.read", "http.fetch"), given=policy("Enforce"), **follow)
    found = await rig.file("c.wasm", wasm("kv.read", "http.fetch"), given=policy("Audit"), **follow)
    assert found.entry.permissions == ["http.fetch", "kv.read"]
    assert [name for name, _ in found.trust.audits] == ["org"]


async def test_a_word_that_no_resource_can_grant_is_no_growth(versions):
    """The plugin would wait for ever: nobody may write it into ``spec.permissions``. It grants nothing either."""
    await versions.next()
    assert await versions.next("filesystem", "*", "query.execute:") == []
    with pytest.raises(IncreasedError, match=r"asks for custom\.own, which"):
        await versions.next("filesystem", "network", "custom.own")
    assert await versions.next("network", "custom.own", permissions=["custom.own"]) == ["custom.own"]
