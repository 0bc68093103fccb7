"""What kopf tells and what is there are compared: who is deaf is found out, and who is only slow is left alone."""

from __future__ import annotations

import logging

import pytest

from hookline_operator.cluster import plugin_watch
from hookline_operator.cluster.catalogue import Catalogue
from hookline_operator.cluster.plugin_watch import PluginWatch, Version
from hookline_operator.cluster.sight import Sights


def _plugin(name, version, *, uid=None, namespace="shop"):
    metadata = {"namespace": namespace, "name": name, "uid": uid or f"uid-{name}", "generation": 1,
                "resourceVersion": str(version)}  # fmt: skip
    return {"metadata": metadata, "spec": {"source": {"configMap": {"name": "one"}}}}


class Ears:
    """A watch whose two ears hear what a test says, at a time of the test's."""

    def __init__(self, monkeypatch, namespaces=()):
        self.now = 1000.0
        self.again = 0
        monkeypatch.setattr(plugin_watch.time, "monotonic", lambda: self.now)
        self.catalogue, self.sights = Catalogue(), Sights()
        self.watch = PluginWatch(None, self.catalogue, self.sights, namespaces=namespaces, kubeconfig=None)
        monkeypatch.setattr(self.watch._handlers, "begin_again", self._count)
        for each in self.watch.reflectors:
            each.synced.set()

    def _count(self):
        self.again += 1

    def kopf(self, found, *, gone=False):
        """One ear."""
        self.watch._seen(found, gone)

    def there(self, found, *, gone=False, of=0):
        """The other, which is right."""
        key = (found["metadata"]["namespace"], found["metadata"]["name"])
        if gone:
            del self.watch.reflectors[of].items[key]
        else:
            self.watch.reflectors[of].items[key] = Version.of(found)

    def after(self, seconds):
        """Compare every five seconds for as long as that."""
        for _ in range(int(seconds / 5)):
            self.now += 5
            self.watch._compare()

    @property
    def failures(self):
        """How often kopf was found to be deaf."""
        return sum(each.failures["deaf"] for each in self.sights.by_name()["wasmplugins"])


@pytest.fixture
async def ears(monkeypatch):
    """Of all namespaces."""
    return Ears(monkeypatch)


async def test_who_hears_all_is_left_alone(ears):
    """Whatever the order in which both hear of it."""
    ears.kopf(_plugin("a", 1))
    ears.there(_plugin("a", 1))
    ears.there(_plugin("a", 2))
    ears.watch._compare()
    ears.kopf(_plugin("a", 2))
    ears.kopf(_plugin("a", 2), gone=True)
    ears.watch._compare()
    ears.there(_plugin("a", 2), gone=True)
    ears.after(60)
    assert (ears.again, ears.failures) == (0, 0)


@pytest.mark.parametrize("missed", [_plugin("b", 5), _plugin("a", 5), _plugin("a", 5, uid="another")])
async def test_who_tells_nothing_any_more_begins_again(ears, missed):
    """A new plugin, a change, and one that was made anew: within half a minute, and later and later after that."""
    ears.kopf(_plugin("a", 1))
    ears.there(_plugin("a", 1))
    ears.after(30)
    ears.there(missed)
    ears.after(20)
    assert ears.again == 1
    ears.after(600)
    assert 3 <= ears.again <= 6
    ears.kopf(missed)
    before = ears.again
    ears.after(600)
    assert ears.again == before
    assert not ears.sights.troubles()


async def test_who_is_slow_is_left_alone_for_a_while(ears):
    """Five thousand plugins are told one after the other: to begin again would be to begin at the first."""
    ears.after(30)
    for number in range(20):
        ears.there(_plugin(f"p{number}", 1))
    for number in range(20):
        ears.kopf(_plugin(f"p{number}", 1))
        ears.after(5)
    assert ears.again == 0


async def test_one_that_is_never_told_is_missed_however_much_else_is(ears):
    """A watch that tells of all but one is deaf as well."""
    ears.there(_plugin("forgotten", 1))
    for number in range(60):
        ears.kopf(_plugin("busy", number))
        ears.there(_plugin("busy", number))
        ears.after(5)
    assert ears.again > 0


async def test_what_one_namespaces_watch_tells_says_nothing_of_anothers(monkeypatch):
    """Each has one of its own."""
    ears = Ears(monkeypatch, namespaces=("one", "two"))
    ears.after(30)
    ears.there(_plugin("a", 1, namespace="two"), of=1)
    for number in range(4):
        ears.kopf(_plugin("b", number, namespace="one"))
        ears.there(_plugin("b", number, namespace="one"))
        ears.after(5)
    assert ears.again == 1


async def test_who_knows_more_than_the_other_is_given_its_turn(ears):
    """It may be the reflector whose watch is dead, and that ends by itself."""
    ears.kopf(_plugin("a", 1))
    ears.there(_plugin("a", 1))
    ears.after(30)
    ears.kopf(_plugin("a", 2))
    ears.after(20)
    ears.there(_plugin("a", 2))
    ears.after(30)
    assert ears.again == 0


async def test_what_was_deleted_while_nobody_watched_leaves_the_catalogue(ears, caplog):
    """It is kopf's not to tell of that: said once, and no reason to begin again."""
    caplog.set_level(logging.INFO, "hookline")
    ears.kopf(_plugin("a", 1))
    ears.there(_plugin("a", 1))
    ears.after(10)
    ears.there(_plugin("a", 1), gone=True)
    ears.after(60)
    assert ears.catalogue.plugin(("shop", "a")) is None
    assert ears.again == 0
    assert [each.getMessage() for each in caplog.records] == ["plugin 'shop/a' was deleted while nobody watched"]


async def test_what_is_newer_than_the_other_has_read_is_not_forgotten(ears):
    """The reflector's watch hangs: that it has not heard of a new plugin does not make it gone, and unguarded."""
    reflector = ears.watch.reflectors[0]
    reflector._version = "1"
    ears.kopf(_plugin("new", 2))
    ears.after(20)
    assert ears.catalogue.plugin(("shop", "new")) is not None
    reflector._version = "2"  # it has read so far, and there is none
    ears.after(10)
    assert ears.catalogue.plugin(("shop", "new")) is None


async def test_what_was_refused_for_a_moment_is_begun_again_at_once(ears):
    """A definition that is not served for some seconds: the API server may have forgotten the watch of the other."""
    ears.after(30)
    ears.watch.reflectors[0].sight.failed("not_found", "no")
    ears.after(10)
    assert ears.again == 0
    ears.watch.reflectors[0].sight.answered()
    ears.after(60)
    assert ears.again == 1


async def test_while_what_is_there_is_not_known_nobody_is_called_deaf(ears):
    """The list fails: of that somebody else tells."""
    ears.there(_plugin("a", 1))
    ears.watch.reflectors[0].sight.failed("forbidden", "no")
    ears.after(60)
    assert (ears.again, ears.failures) == (0, 0)
