"""A Secret or a ConfigMap that was only annotated is the same as before, and nothing happens."""

import base64
import json

import pytest

from hookline_operator.cluster.catalogue import Catalogue
from hookline_operator.cluster.kube import KubeError
from hookline_operator.cluster.objects import ClusterObjects, digest
from hookline_operator.cluster.revisions import Revision, Seal, body_of
from waiting import until_true

KEY = b"k" * 32
SECRET = ("Secret", "shop", "login")


class Api:
    """What is in the API: one Secret, of which each look is counted."""

    def __init__(self, version="1", **data):
        self.version, self.data, self.asked, self.broken = version, data, 0, False

    async def get(self, _where):
        """The Secret."""
        self.asked += 1
        if self.broken:
            raise KubeError(500, "away")
        data = {name: base64.b64encode(value.encode()).decode() for name, value in self.data.items()}
        return {"metadata": {"resourceVersion": self.version}, "data": data}


class World:
    """A catalogue with one plugin that takes a setting from the Secret, and what it is told of."""

    def __init__(self, api, *, contents=None, key=KEY):
        self.api, self.told = api, []
        self.catalogue = Catalogue()
        self.objects = ClusterObjects(api, self.catalogue, key=lambda: key)
        spec = {"configFrom": [{"secretRef": {"name": "login"}, "key": "k", "path": "p"}]}
        spec["source"] = {"oci": {"reference": "r.test/a:1"}}
        plugin = {"metadata": {"namespace": "shop", "name": "guard", "uid": "1", "generation": 1}, "spec": spec}
        self.catalogue.put_plugin(plugin, gone=False)
        artifact = {"digest": f"sha256:{'0' * 64}", "sha256": "0" * 64, "size": 8, "layout": "raw", "reference": "one"}
        template = {
            "plugin": "guard", "spec": spec, "artifact": artifact, "hooks": ["authenticate"], "imports": [],
            "inputs": {"Secret/login": "1"}, **({"contents": contents} if contents else {}),
        }  # fmt: skip
        body = body_of(
            namespace="shop", plugin="guard", uid="1", number=1, template=json.dumps(template).encode(), seal=Seal()
        )
        self.revision = Revision.of(body, Seal())
        self.catalogue.put_revision(("shop", self.revision.name), None, self.revision)
        self.catalogue.plugin_changed.append(self.told.append)

    def changes(self, version, **data):
        """The Secret has another version, and the watch says so."""
        self.api.version, self.api.data = version, data or self.api.data
        self.objects.put_version("Secret", ("shop", "login"), version)

    async def knows(self, version):
        """Return when the catalogue has heard of it."""
        await until_true(lambda: self.catalogue.versions.get(SECRET) == version, f"version {version}")

    @property
    def same(self):
        """Whether the revision's inputs count as unchanged."""
        return self.catalogue.inputs_now(self.revision) == self.revision.inputs


@pytest.fixture
async def world():
    """The Secret was read, as resolving does."""
    made = World(Api(k="hunter2"))
    made.changes("1")
    made.told.clear()
    await made.objects.secret("shop", "login")
    return made


def kept(api=None):
    """What a revision says of what was in the Secret."""
    data = {name: value.encode() for name, value in (api or Api(k="hunter2")).data.items()}
    return {"Secret/login": digest(KEY, SECRET, data)}


async def test_an_annotation_is_read_once_and_tells_nobody():
    """The plugin is not looked at, and its revision's inputs are as they were."""
    world = World(Api(k="hunter2"), contents=kept())
    world.changes("1")
    world.told.clear()
    world.changes("2")
    await world.knows("2")
    assert (world.told, world.same, world.api.asked) == ([], True, 1)
    await world.objects.secret("shop", "login")
    assert world.api.asked == 1


async def test_another_value_is_told(world):
    """It is another input, which is checked before any pod gets it."""
    world.changes("2", k="hunter3")
    await world.knows("2")
    assert (world.told, world.same) == ([("shop", "guard")], False)


async def test_a_value_that_comes_back_is_told_too():
    """What stood in its place meanwhile was news, and so is its end."""
    world = World(Api(k="hunter2"), contents=kept())
    world.changes("1")
    world.changes("2", k="hunter3")
    await world.knows("2")
    world.told.clear()
    world.changes("3", k="hunter2")
    await world.knows("3")
    assert (world.told, world.same) == ([("shop", "guard")], True)


async def test_what_was_only_annotated_while_no_operator_ran_is_the_same():
    """A new process knows nothing but the revision."""
    world = World(Api("7", k="hunter2"), contents=kept())
    world.changes("7")
    assert not world.same
    await world.objects.settle()
    assert world.same


async def test_what_was_changed_while_no_operator_ran_is_not():
    """The same of another value."""
    world = World(Api("7", k="hunter3"), contents=kept())
    world.changes("7")
    await world.objects.settle()
    assert not world.same


@pytest.mark.parametrize("contents", [None, {"Secret/login": "of another key"}])
async def test_a_revision_of_an_older_operator_or_an_older_key_goes_by_versions(contents):
    """As it always did: whatever is not known to be the same is checked again."""
    world = World(Api(k="hunter2"), contents=contents)
    world.changes("1")
    world.changes("2")
    await world.knows("2")
    assert not world.same


async def test_what_cannot_be_read_counts_as_changed(world):
    """Nothing is taken for the same that nobody has looked at."""
    world.api.broken = True
    world.changes("2")
    await world.knows("2")
    assert (world.told, world.same) == ([("shop", "guard")], False)


async def test_a_secret_that_goes_is_told_at_once(world):
    """There is nothing to read."""
    world.objects.put_version("Secret", ("shop", "login"), None)
    assert (world.told, world.same) == ([("shop", "guard")], False)


async def test_many_changes_are_a_few_looks(world):
    """Who is looked at already is looked at once more, and not once for each change."""
    before = world.api.asked
    for number in range(2, 100):
        world.changes(str(number))
    await world.knows("99")
    assert world.api.asked - before <= 2
    assert world.told == []


async def test_what_is_being_looked_at_is_not_handed_out_by_its_older_version(world):
    """DANGER: what somebody wrote a moment ago would go by the version that was checked."""
    world.objects._kept.drop((*SECRET, "1"))
    world.changes("2", k="hunter3")
    found = await world.objects.secret("shop", "login")
    assert found == {"k": b"hunter3"}
    assert world.catalogue.versions[SECRET] == "2"


def test_a_digest_tells_nothing():
    """It is another with another key, another object, and other borders between names and values."""
    one = digest(KEY, SECRET, {"a": b"bc"})
    others = [
        digest(b"x" * 32, SECRET, {"a": b"bc"}),
        digest(KEY, ("Secret", "shop", "other"), {"a": b"bc"}),
        digest(KEY, ("ConfigMap", "shop", "login"), {"a": b"bc"}),
        digest(KEY, SECRET, {"ab": b"c"}),
        digest(KEY, SECRET, {"a": b"bc", "d": b""}),
    ]
    assert len({one, *others}) == len(others) + 1
    assert digest(KEY, SECRET, {"b": b"1", "a": b"2"}) == digest(KEY, SECRET, {"a": b"2", "b": b"1"})
