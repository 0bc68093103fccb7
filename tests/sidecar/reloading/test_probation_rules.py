"""When a version goes back, when it has proven itself, and what of this outlives a restart."""

from __future__ import annotations

import json

import pytest

from hookline_api.bundle import Bundle, BundleArtifact, BundlePlugin
from hookline_sidecar.control.probation import Counts, Probations, Trial, _fails
from hookline_sidecar.messages import CallFailure, PluginFacts


@pytest.mark.parametrize(
    ("calls", "alone", "share", "back"),
    [(12, 5, 0.0, True), (12, 4, 0.0, False), (1000, 20, 0.0, False), (1000, 50, 0.0, True), (10, 5, 0.3, False),
     (10, 7, 0.3, True), (5, 5, 1.0, False)],
)  # fmt: skip
def test_when_a_version_goes_back(calls, alone, share, back):
    """Five of the first hundred, in proportion where more have come; not where as many failed before."""
    entry = BundlePlugin(name="p")
    trial = Trial(revision="r", before=entry, began=0.0, share=share)
    assert _fails(Counts(calls=calls, failed=alone, alone=alone), trial, entry.probation) is back


class _State:
    def __init__(self, kept=None):
        self.kept = kept

    def load_probation(self):
        return self.kept

    def save_probation(self, kept):
        self.kept = kept


def trapped(at):
    """A call that trapped, as a worker reports it."""
    return CallFailure(hook="pre_query", cause="trap", message="it trapped", at=at)


def facts(revision, fault):
    """What a worker reports of a plugin of that revision, whose newest fault is this one."""
    return PluginFacts(
        revision=revision, inline=True, paused={}, last_failure=fault, last_fault=fault, last_failures={}, denied={},
        refused={}, metrics={},
    )  # fmt: skip


class _Pod:
    """What one pod's workers count and say, and its clock."""

    def __init__(self):
        self.state, self.counts, self.now, self.said = _State(), Counts(), 1000.0, None
        self.revision = ""
        self.start()

    def start(self):
        """As after a restart of the supervisor."""
        reports = lambda: [{"p": facts(self.revision, self.said)}]  # noqa: E731
        self.made = Probations(self.state, count=lambda _: self.counts, reports=reports, clock=lambda: self.now)

    def runs(self, new, old=None):
        """Replace one version by another; what stands behind it."""
        running = Bundle.of([old]) if old is not None else None
        before = self.made.before(Bundle.of([new]), running)
        self.made.begin(Bundle.of([new]), before, {})
        self.revision = new.revision
        return [entry.revision for entry in before]

    def counted(self, calls, alone):
        """So many calls more, of which so many failed."""
        now = self.counts
        self.counts = Counts(now.calls + calls, now.failed + alone, now.alone + alone)
        self.said = trapped(self.now) if alone else self.said

    def look(self, entry):
        """What is decided."""
        return self.made.look(Bundle.of([entry]))


def _version(number, **settings):
    sha256 = f"{number:064x}"
    artifact = BundleArtifact(digest=f"sha256:{sha256}", sha256=sha256, size=1, layout="raw", reference="r")
    return BundlePlugin(name="p", artifact=artifact, hooks=["authorize"], **settings)


@pytest.fixture
def pod():
    """One."""
    return _Pod()


def test_it_proves_itself_by_calls_or_by_time(pod):
    """Whatever comes first; then nothing stands behind it."""
    one, two, three = _version(1), _version(2), _version(3)
    assert pod.runs(one) == []
    assert pod.runs(two, one) == [one.revision]
    pod.counted(99, 4)
    assert pod.look(two) == ({}, [])
    pod.counted(1, 0)
    assert pod.look(two) == ({"p": two.revision}, [])
    assert pod.runs(three, two) == [two.revision]
    pod.now += 301
    assert pod.look(three) == ({"p": three.revision}, [])
    assert not pod.made.of_bundle(Bundle.of([three]))


def test_what_is_refused_stays_so_until_something_else_is_wanted(pod):
    """Over a restart, and where a tag means something else for a while; another wish for another revision ends it."""
    one, two, three = _version(1), _version(2), _version(3)
    pod.runs(two, one)
    pod.counted(12, 5)
    assert pod.look(two) == ({}, ["p"])
    assert pod.made.refuse(two, "wish") == one
    pod.start()
    refused = pod.made.take_wish(two, "wish")
    told = refused.rolled_back
    assert (told.calls, told.failures, told.message) == (12, 5, "it trapped")
    assert refused.before == one
    assert pod.made.restored(Bundle.of([two])) == Bundle.of([one])
    assert pod.made.modules() == {one.artifact.sha256, two.artifact.sha256}
    assert pod.made.take_wish(one, "wish") is None
    assert pod.made.take_wish(two, "the same in other words") is not None
    assert pod.made.take_wish(three, "another") is None
    assert pod.made.take_wish(two, "wish") is None
    pod.start()
    assert pod.made.refused == {}


def test_the_release_before_reads_what_is_kept_and_this_one_reads_both_names(pod):
    """A sidecar that is put back to it forgets no version that failed, and none that proves itself."""
    one, two = _version(1), _version(2)
    pod.runs(two, one)
    pod.counted(12, 5)
    pod.look(two)
    pod.made.refuse(two, "wish")
    refused = pod.made.refused
    kept = json.loads(pod.state.kept)
    assert kept["refused"]["p"]["told"]["revision"] == two.revision
    for name in ("told", "rolledBack"):
        text = json.dumps(kept).replace('"told"', f'"{name}"')
        pod.state.kept = text.encode()
        pod.start()
        assert pod.made.refused == refused


def test_going_back_is_no_new_version(pod):
    """The version before has nothing to prove, also where it is another that comes instead."""
    one, two, three = _version(1), _version(2), _version(3)
    pod.runs(two, one)
    pod.counted(5, 5)
    pod.look(two)
    pod.made.refuse(two, "wish")
    assert pod.runs(one, two) == []
    assert pod.runs(three, one) == [one.revision]


def test_a_restart_in_the_middle_keeps_what_stands_behind(pod):
    """And a whole sidecar that starts counts anew: its figures begin at nothing."""
    one, two = _version(1), _version(2)
    pod.counted(500, 0)
    pod.runs(two, one)
    pod.counted(50, 3)
    pod.start()
    assert pod.made.before(Bundle.of([two]), None) == [one]
    pod.counts = Counts()
    pod.counted(10, 5)
    assert pod.look(two) == ({}, ["p"])


def test_a_third_version_has_the_last_proven_one_behind_it(pod):
    """What is on probation itself can be gone back to by nobody."""
    one, two, three = _version(1), _version(2), _version(3)
    pod.runs(two, one)
    assert pod.runs(three, two) == [one.revision]
    assert pod.runs(one, three) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [({"mode": "Shadow"}, {}), ({}, {"mode": "Shadow"}), ({}, {"probation": {"calls": 0}}),
     ({"permissions": ["kv.read", "kv.write"]}, {"permissions": ["kv.read"]})],
    ids=["was a shadow", "is a shadow", "off", "may do less"],
)  # fmt: skip
def test_where_there_is_no_probation(pod, old, new):
    """What decided nothing must not come to decide, and a guest does not get back by failing what was taken from it."""
    assert pod.runs(_version(2, **new), _version(1, **old)) == []


def test_where_as_many_failed_before_nothing_goes_back(pod):
    """By the figures of its last minutes."""
    one, two = _version(1), _version(2)
    pod.look(one)
    pod.counted(100, 30)
    pod.runs(two, one)
    pod.counted(20, 8)
    assert pod.look(two) == ({}, [])
    pod.counted(20, 20)
    assert pod.look(two) == ({}, ["p"])


def test_one_call_that_failed_before_is_no_share(pod):
    """A version that was seldom asked, and failed once, does not keep the next one from going back."""
    one, two = _version(1), _version(2)
    pod.look(one)
    pod.counted(1, 1)
    pod.runs(two, one)
    pod.counted(10, 10)
    assert pod.look(two) == ({}, ["p"])


def test_of_few_calls_all_may_fail_and_no_more(pod):
    """``calls`` below ``maxFailures`` is a short probation, and not none."""
    settings = {"probation": {"calls": 3}}
    one, two = _version(1, **settings), _version(2, **settings)
    pod.runs(two, one)
    pod.counted(3, 3)
    assert pod.look(two) == ({}, ["p"])


def test_the_version_before_has_a_moment_to_answer(pod):
    """A hundred calls at once fail, and it answers them more slowly: that proves nothing; that it fails too does."""
    one, two = _version(1), _version(2)
    pod.runs(two, one)
    pod.counts = Counts(calls=100, failed=100, alone=0)
    assert pod.look(two) == ({}, [])
    pod.now += one.limits.timeout / 1000
    pod.said = trapped(pod.now)
    pod.counts = Counts(calls=100, failed=100, alone=5)
    assert pod.look(two) == ({}, ["p"])
    pod.counts = Counts(calls=100, failed=100, alone=0)
    pod.now += 60
    assert pod.look(two) == ({"p": two.revision}, [])


def test_workers_have_a_moment_to_say_why(pod):
    """It does not wait for their word for long."""
    one, two = _version(1), _version(2)
    pod.runs(two, one)
    pod.counted(5, 5)
    pod.said = None
    assert pod.look(two) == ({}, [])
    pod.now += 2
    assert pod.look(two) == ({}, ["p"])
    pod.made.refuse(two, "wish")
    assert pod.made.refused["p"].failure.message.endswith("(trap); the version before it goes on")


def test_what_workers_say_of_the_version_before_is_not_told_of_the_new_one(pod):
    """A worker that has not switched yet has had a failure since, of the version that it runs."""
    one, two = _version(1), _version(2)
    pod.runs(two, one)
    pod.counted(5, 5)
    pod.revision = one.revision
    assert pod.look(two) == ({}, [])


@pytest.mark.parametrize("kept", [b"", b"{", b"[]", b'{"trials": 1}', b'{"refused": {"p": {}}}', b"\xff" * 100])
def test_what_cannot_be_read_is_begun_anew(kept):
    """A damaged file in the state folder keeps no sidecar from starting."""
    made = Probations(_State(kept), count=lambda _: Counts(), reports=list)
    assert (made.trials, made.refused) == ({}, {})
