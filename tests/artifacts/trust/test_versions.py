"""Versions: their order, the lowest that may run, and a tag that moves back."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hookline_api.policies import PluginTrustPolicySpec
from hookline_api.trust import Verify
from hookline_artifacts.errors import PolicyError, VerifyError
from hookline_artifacts.trust.policy import Policy, too_low
from hookline_artifacts.trust.versions import is_below
from signed_plugins import Rig, module, plugin

IN_ORDER = [
    "0.0.1", "0.1.0", "0.9.9", "1.0.0-0", "1.0.0-1", "1.0.0-10", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta",
    "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.0.1", "1.0.1", "1.2.0", "1.10.0",
    "2.0.0-rc.1", "2.0.0", "10.0.0", "999999999.0.0",
]  # fmt: skip
"""As semver.org (2.0.0, 11) orders them, and its own examples."""
EQUAL = [("1.0.0", "v1.0.0"), ("1", "1.0.0"), ("1.2", "1.2.0"), ("1.0.0", "1.0.0+build.5"), ("1.0.0+a", "1.0.0+b")]
UNREADABLE = [
    "", "latest", "one", "1.x", "1..0", "1.0.0-", "1.0.0-ä", "v", "1.0.0 ", "1.0.0\n", "-1", "1.0.0.0.0", "\u0661.0.0",
    "9999999999.0.0", "1.0.0-" + "a" * 65,
]  # fmt: skip


def test_the_order_is_that_of_semver():
    """Each is below every later one, and not the other way round."""
    for low, high in itertools.combinations(IN_ORDER, 2):
        assert is_below(low, high), (low, high)
        assert not is_below(high, low), (low, high)


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_what_is_equal_is_not_below(one, other):
    """A leading v, missing numbers and builds change nothing."""
    assert not is_below(one, other)
    assert not is_below(other, one)


@pytest.mark.parametrize("odd", UNREADABLE, ids=ascii)
def test_a_version_that_cannot_be_read_is_below_all_that_can(odd):
    """So it never meets a minimum, and is never newer than what ran. Two of them are not compared."""
    assert is_below(odd, "0.0.0-0")
    assert not is_below("0.0.0-0", odd)
    assert not is_below(odd, odd)
    assert too_low(odd, "0.0.1") == f"the artifact is version {odd}, and 0.0.1 is the lowest that may run"
    with pytest.raises(ValidationError):
        Verify.model_validate({"minimumVersion": odd})


_PART = st.from_regex(r"[0-9A-Za-z-]{1,8}", fullmatch=True)
_VERSIONS = st.builds(
    lambda numbers, before: ".".join(map(str, numbers)) + ("-" + ".".join(before) if before else ""),
    st.lists(st.integers(0, 10**9 - 1), min_size=1, max_size=4),
    st.lists(_PART, max_size=4),
)


@given(one=_VERSIONS, two=_VERSIONS, three=_VERSIONS)
def test_it_is_an_order(one, two, three):
    """Of two at most one is below the other, and what is below a lower one is below the higher."""
    assert not (is_below(one, two) and is_below(two, one))
    if is_below(one, two) and is_below(two, three):
        assert is_below(one, three)
    if not is_below(one, two) and not is_below(two, one) and is_below(one, three):
        assert is_below(two, three)


@given(text=st.text(max_size=200))
def test_any_text_is_a_version_or_none(text):
    """What an artifact says of itself is a stranger's."""
    assert not is_below(text, text)
    is_below(text, "1.0.0")


# --- a plugin's version


@pytest.fixture
def rig(tmp_path, fetcher):
    """Resolves plugins of a folder."""
    return Rig(tmp_path / "plugins", fetcher)


def wasm(version):
    """A module that tells this version."""
    return module(f"of {version}", version=version)


@pytest.mark.parametrize("version", ["1.2.0", "v1.2", "1.2.1", "1.3.0-rc.1", "2.0"])
async def test_a_version_that_is_high_enough_runs(rig, version):
    """``minimumVersion`` is the lowest that may."""
    found = await rig.file("p.wasm", wasm(version), {"minimumVersion": "1.2"})
    assert found.entry.artifact.version == version


@pytest.mark.parametrize("version", ["1.1.9", "1.2.0-rc.1", "0.9", "latest", None])
async def test_a_lower_version_is_refused_though_nothing_else_is_wrong(rig, version):
    """Also the first time; one that tells none, or nothing that can be read, is refused too."""
    told = "tells no version" if version is None else f"is version {version}"
    with pytest.raises(VerifyError) as found:
        await rig.file("p.wasm", wasm(version), {"minimumVersion": "1.2"})
    assert str(found.value) == (f"spec.verify.minimumVersion: the artifact {told}, and 1.2 is the lowest that may run")


async def test_a_policy_may_ask_for_a_version_too(rig):
    """By names of plugins; the strictest of all counts, and Audit only tells."""
    asked = [{"plugins": ["gu*"], "version": "1.0"}, {"plugins": ["guard", "x"], "version": "2.0"}]
    others = [{"plugins": ["other"], "version": "9.0"}]

    def policy(versions, mode="Enforce"):
        spec = PluginTrustPolicySpec.model_validate({"mode": mode, "minimumVersions": versions})
        return {"policies": [Policy(name="org", spec=spec)]}

    assert await rig.file("p.wasm", wasm("2.0.0"), given=policy(asked))
    assert await rig.file("p.wasm", wasm("1.0.0"), given=policy(others))
    with pytest.raises(PolicyError, match=r"'org' forbids it: the artifact is version 1\.5\.0, and 2\.0 is the lowest"):
        await rig.file("p.wasm", wasm("1.5.0"), given=policy(asked))
    found = await rig.file("p.wasm", wasm("1.5.0"), given=policy(asked, "Audit"))
    assert found.trust.audits == (("org", "the artifact is version 1.5.0, and 2.0 is the lowest that may run"),)


# --- a tag that moves


class Tag:
    """A tag in a registry, as it moves, and what ran of it."""

    def __init__(self, rig, server, oci):
        self._rig, self._server, self._oci = rig, server, oci
        self.ran = None

    async def to(self, version, verify=None, *, tag="v1", **more):
        """Resolve it after it was moved to this version: what runs then."""
        data = wasm(version)
        self._server.put(f"guard:{tag}", self._oci.manifest(data), data)
        source = {"oci": {"reference": f"{self._server.host}/guard:{tag}", "insecure": True}}
        given = {"previous": self.ran, "ask_again": True, **more}
        found = await self._rig.resolve(source, verify, given=given)
        self.ran = found.entry.artifact
        return self.ran.version


@pytest.fixture
def tag(rig, server, oci):
    """A tag in a registry."""
    return Tag(rig, server, oci)


async def test_a_tag_that_moves_on_is_followed(tag):
    """So is one that stays, or names a rebuild of the same version."""
    for version in ("1.0.0-rc.1", "1.0.0", "1.0.0", "1.0.0+build.2", "1.1.0", "2"):
        assert await tag.to(version) == version


@pytest.mark.parametrize("back", ["1.9.9", "2.0.0-rc.1", "0.1", None, "latest"])
async def test_a_tag_that_moves_back_is_refused(tag, back):
    """Whoever may push could bring an old fault back. What ran goes on, and a higher version is followed again."""
    await tag.to("2.0.0")
    now = "an artifact without a version" if back is None else f"version {back}"
    with pytest.raises(VerifyError) as found:
        await tag.to(back)
    assert str(found.value) == (
        f"the tag now names {now}, and version 2.0.0 ran before: name the version that you want in "
        "spec.source.oci.reference, or set spec.verify.allowDowngrade"
    )
    assert tag.ran.version == "2.0.0"
    assert await tag.to("2.0.1") == "2.0.1"


async def test_a_downgrade_that_the_resource_allows_is_followed(tag):
    """``allowDowngrade`` says so; ``minimumVersion`` still holds."""
    await tag.to("2.0.0")
    assert await tag.to("1.5.0", {"allowDowngrade": True}) == "1.5.0"
    with pytest.raises(VerifyError, match=r"1\.5 is the lowest that may run"):
        await tag.to("1.4.0", {"allowDowngrade": True, "minimumVersion": "1.5"})


async def test_another_reference_is_followed_wherever_it_leads(tag):
    """Somebody changed the resource by hand: that is how one goes back."""
    await tag.to("2.0.0")
    assert await tag.to("1.0.0", tag="v1.0.0") == "1.0.0"
    with pytest.raises(VerifyError, match=r"version 1\.0\.0 ran before"):
        await tag.to("0.9.0", tag="v1.0.0")


async def test_a_digest_is_no_tag_that_moves(rig, server, oci, tag):
    """By digest a resource names one artifact and no other."""
    await tag.to("2.0.0")
    data = wasm("1.0.0")
    digest = server.put("guard:old", oci.manifest(data), data)
    source = {"oci": {"reference": f"{server.host}/guard@{digest}", "insecure": True}}
    assert (await rig.resolve(source, given={"previous": tag.ran})).entry.artifact.version == "1.0.0"


@pytest.mark.parametrize("before", [None, "nightly"])
async def test_what_told_no_version_holds_nothing_back(tag, before):
    """There is nothing to compare with: an older revision did not keep one either."""
    await tag.to(before)
    assert await tag.to("0.1.0") == "0.1.0"


async def test_the_same_artifact_is_never_a_downgrade(tag):
    """Even where what is known of it says another version."""
    await tag.to("1.0.0")
    tag.ran = tag.ran.model_copy(update={"version": "9.0.0"})
    assert await tag.to("1.0.0") == "1.0.0"


async def test_the_version_is_the_modules_own_before_its_packages(rig, oci):
    """What is in the module's bytes cannot be changed beside them."""
    packed = oci.tar({"manifest.json": json.dumps({"version": "9.0.0"}).encode(), "plugin.wasm": wasm("1.0.0")})
    with pytest.raises(VerifyError, match=r"is version 1\.0\.0, and 2 is the lowest"):
        await rig.file("p.tar.gz", packed, {"minimumVersion": "2"})


def test_a_minimum_alone_asks_for_no_signature():
    """And a resource can have it without one."""
    verify = plugin({"file": {"path": "p"}}, {"minimumVersion": "1", "allowDowngrade": True}).spec.verify
    assert not verify.wanted
