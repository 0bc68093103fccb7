"""The chain of one hook: which plugins are asked, in which order, and what their answers come to.

What the answers come to is in ``rules``. Failures are turned into answers here and nowhere else: a plugin that fails
closed stops the chain with the hook's refusing answer, one that fails open is as if it were not there.

There is one walk along a chain (``_walk``). Where all plugins are ready it is plain, synchronous code from the
call to the answer's bytes. Where one is not, the caller gets a ``Later``, which awaits that one and walks on. Plugins
that a call is not for are left out before the walk, by one look into a table. The answer is spliced of three pieces:
what the plugin said, who it was, and which bundle; nothing is written twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from hookline_api.hooks import OBSERVERS, Hook, closed
from hookline_runtime.call.decisions import Answer
from hookline_runtime.call.inputs import Call, read_call, request_id_of
from hookline_runtime.call.looks import look
from hookline_runtime.call.matching import MAX_KNOWN, Choice
from hookline_runtime.chain.rules import NOBODY, REWRITING, RULES, Step, deny_wins, first
from hookline_runtime.errors import CallError
from hookline_runtime.errors import bare as _bare
from hookline_runtime.guest.accelerator import scan
from hookline_runtime.host import recursion
from hookline_runtime.plugin.backlog import Asker, GoneError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hookline_api.bundle import BundlePlugin, LoadFailure, Stage
    from hookline_runtime.plugin.hook import PluginHook
    from hookline_runtime.plugin.plugin import Plugin


Later = Callable[[Asker], Awaitable[bytes]]
"""What is to be called, and awaited, for a decision that a plugin is not ready for yet. It is called once at the most;
until it is done, or dropped, it keeps its bundle."""


@dataclass(frozen=True, slots=True)
class Link:
    """One plugin of a bundle. Where the plugin could not be had, the link fails closed."""

    entry: BundlePlugin
    plugin: Plugin | None

    @property
    def name(self) -> str:
        """The plugin's name."""
        return self.entry.name


class _Asked:
    """One plugin in the chain of one hook."""

    __slots__ = ("entry", "hook", "name", "plugin", "signature", "telling")

    def __init__(self, link: Link, hook: Hook) -> None:
        self.entry = link.entry
        self.name = link.name
        self.plugin = link.plugin
        self.hook = None if link.plugin is None else link.plugin.hooks[hook]
        self.signature = _signature(link.name)
        self.telling = TELLING if link.entry.auth.tell_reason else b""
        """What ``decide`` adds to what this plugin decided."""

    def fails_open(self, hook: Hook, error: CallError) -> bool:
        """Whether the chain goes on without this plugin."""
        policy = getattr(self.entry.failure_policy, error.cause)
        return policy == "Open" if policy is not None else hook in OBSERVERS


def _signature(name: str | None) -> bytes:
    return b',"plugin":' + orjson.dumps(name) + b',"request_id":'


class _NotAsked:
    """Stands for the answer of a plugin that was not asked yet."""


_Links = tuple[_Asked, ...]


@dataclass(frozen=True, slots=True)
class _Alone:
    """The one plugin that is asked about a call, whatever it answers."""

    link: _Asked
    plugin: Plugin
    hook: PluginHook
    after_answer: bytes | None
    """What stands between the plugin's answer and the request id; None where a rule has to see the answer."""
    no_opinion: bytes | None
    """What stands in front of the request id where the plugin has no opinion; None where that is not all."""


@dataclass(frozen=True, slots=True)
class _Several:
    """Plugins that are asked about a call: any number, or one whose answer may lead to others."""

    links: _Links
    plugins: tuple[Plugin, ...]
    """Those that may run."""


@dataclass(frozen=True, slots=True)
class Way:
    """How calls of one hook are decided without parsing them."""

    hook: Hook
    look: bytes
    """What ``accelerator.scan`` looks for, to find such calls, and what ``match`` reads of them."""
    known: dict[bytes, _Alone | _Several] = field(default_factory=dict)
    """Who is asked, by what ``match`` reads."""


TELLING: Final = b',"tell_reason":true'
"""In what ``decide`` gives: the client may read the plugin's words. No plugin can write it: its own fields are read."""
_DONE: Final[dict[Stage, str]] = {"fetching": "fetched", "compiling": "compiled"}
_NOT_ASKED: Final = _NotAsked()
Opinion = Answer | CallError | None
Verdict = tuple[bytes, bytes]
"""What was decided, as JSON without its closing brace; and by whom, the text that follows it."""


class _Pause(NamedTuple):
    """Where a walk stopped."""

    links: _Links
    at: int
    """The place of the one that has to be awaited."""
    so_far: Step | None


class Chains:
    """The chains of one bundle. A new bundle has new ones; ``retire`` ends these after their last call.

    Its plugins are held until then, because a call that waits for the chain's first plugin still needs the
    second one when the bundle has long been replaced.
    """

    def __init__(self, version: str, links: list[Link]) -> None:
        self.version = version
        self._nobody = _signature(None)
        self._end_of_answer = b',"bundle":' + orjson.dumps(version) + b"}"
        self._plugins = [link.plugin for link in links if link.plugin is not None]
        for plugin in self._plugins:
            plugin.hold()
        self._failures: dict[str, LoadFailure] = {}
        """Why plugins are not there, where that is not what their entries say."""
        self._under_way = 0
        self._retired = False
        self._deciding: dict[Hook, Choice[_Asked]] = {}
        self._observing: dict[Hook, Choice[_Asked] | None] = {}
        self._largest: dict[Hook, int] = {}
        self._alone: dict[Hook, _Alone | None] = {}
        """Of the hooks that ask one plugin about every call, and no other."""
        self.ways: dict[Hook, Way] = {}
        """Of the hooks that have one."""
        self._telling: dict[bytes, bytes] = {}
        """``_Asked.telling`` by its signature, where there is any."""
        own = recursion.own(link.entry for link in links)
        for hook in Hook:
            asked = [_Asked(link, hook) for link in links if hook in link.entry.hooks]
            self._telling |= {each.signature: each.telling for each in asked if each.telling}
            self._largest[hook] = max((each.entry.limits.input for each in asked), default=0)
            aside = [each for each in asked if each.entry.mode == "Shadow" or hook in OBSERVERS]
            observing = [each for each in aside if each.plugin is not None]
            deciding = [(each, each.entry.match) for each in asked if each not in aside]
            watching = [(each, each.entry.match) for each in observing]
            # Who may ask a database is not asked about what such a plugin asks: it might go on for ever. But nobody has
            # proven yet who a client is that logs in.
            asking = [each for each in asked if each.entry.data_sources and hook is not Hook.AUTHENTICATE]
            self._deciding[hook] = Choice(deciding, own=own, left_out=asking)
            self._observing[hook] = Choice(watching, own=own, left_out=asking) if watching else None
            facts = self._deciding[hook].facts
            if not facts and not observing:
                self._alone[hook] = self._as_alone(hook, self._deciding[hook].items)
            if not observing and (wanted := look(hook, facts)) is not None:
                self.ways[hook] = Way(hook, wanted)

    def _as_alone(self, hook: Hook, asked: _Links) -> _Alone | None:
        if len(asked) != 1 or asked[0].plugin is None or asked[0].hook is None:
            return None
        after_answer = asked[0].signature if RULES[hook] in (first, deny_wins) else None
        no_opinion = NOBODY[hook] + self._nobody if hook is not Hook.CACHE_SET else None
        return _Alone(asked[0], asked[0].plugin, asked[0].hook, after_answer, no_opinion)

    def blame(self, failures: Mapping[str, LoadFailure]) -> None:
        """Why plugins are not there, by their names, instead of what their entries say."""
        self._failures = dict(failures)

    def has_deciders(self, hook: Hook) -> bool:
        """Whether any plugin may decide this hook."""
        return bool(self._deciding[hook].items)

    def largest_input(self, hook: Hook) -> int:
        """Bytes of the largest call that any plugin of the hook takes; 0 where there is none."""
        return self._largest[hook]

    def _answer_unread(self, hook: Hook, size: int) -> bytes:
        """The decision about a call that nobody looked into: an overload of each plugin, until one closes it."""
        call = Call(hook, b"", orjson.dumps(request_id_of(None)))
        observing = self._observing[hook]
        for link in observing.items if observing is not None else ():
            if link.plugin is not None and link.hook is not None:
                link.plugin.refuse_size(link.hook, size)
        for link in self._deciding[hook].items:
            if link.plugin is None or link.hook is None:
                return self._splice(call, self._not_there(call, link))
            error = link.plugin.refuse_size(link.hook, size)
            if not link.fails_open(hook, error):
                return self._splice(call, self._failed(call, link, error))
        return self._splice(call, (NOBODY[hook], self._nobody))

    def answer(
        self, hook: Hook, body: bytes, found: tuple[bytes, bytes] | None = None, unread: int = 0
    ) -> bytes | Later:
        """The decision about a proxy's bytes, as JSON: made now, on this thread, or a ``Later``; then nothing has run.

        ``found`` is what ``accelerator.scan`` says of the bytes, where the caller knows it. ``unread`` is the size of a
        body over ``largest_input`` that nobody has read; ``body`` is empty then.

        Raises InputError where the body is malformed, and nothing else: a failure of a plugin is an answer.
        """
        way = self.ways.get(hook)
        if way is None or (found is None and (found := scan(way.look, body)) is None):
            return self._answer_unread(hook, unread) if unread else self._answer_read(read_call(hook, body))
        quoted_id, key = found
        try:
            chosen = way.known[key]
        except KeyError:
            chosen = self._choose(way, key, Call(hook, body, quoted_id))
        if isinstance(chosen, _Several):
            for each in chosen.plugins:
                if not each.get_ready():
                    return self._later(self._answer_later, Call(hook, body, quoted_id))
            links = chosen.links
            opinion: Opinion | _NotAsked = _NOT_ASKED
        else:
            plugin = chosen.plugin
            if not plugin.get_ready():
                return self._later(self._answer_later, Call(hook, body, quoted_id))
            try:  # and not _ask_now, which costs as much as all else here
                opinion = plugin.call_now(chosen.hook, body)
            except CallError as error:
                opinion = _bare(error)
                if plugin.before is not None:
                    opinion = plugin.before.ask_now(plugin, chosen.hook, Call(hook, body, quoted_id), opinion)
            if opinion is None:
                if chosen.no_opinion is not None:
                    return b"".join((chosen.no_opinion, quoted_id, self._end_of_answer))
            elif chosen.after_answer is not None and isinstance(opinion, Answer):
                return b"".join((opinion.head, chosen.after_answer, quoted_id, self._end_of_answer))
            links = (chosen.link,)
        call = Call(hook, body, quoted_id)
        return self._splice(call, self._walk_now(call, links, opinion))

    def _choose(self, way: Way, key: bytes, call: Call) -> _Alone | _Several:
        """Find out who is asked about a call, and remember it for those that look like it."""
        hook, choice = way.hook, self._deciding[way.hook]
        asked = links = choice.of(call)
        if links and hook in REWRITING:
            call.rewritten = True  # as it may be behind the first
            asked = choice.of(call)
        chosen: _Alone | _Several | None = self._as_alone(hook, asked)
        if chosen is None:
            chosen = _Several(links, tuple(each.plugin for each in asked if each.plugin is not None))
        if len(way.known) >= MAX_KNOWN:
            way.known.clear()
        way.known[key] = chosen
        return chosen

    def _answer_read(self, call: Call) -> bytes | Later:
        """``answer`` of a call that was looked into."""
        verdict = self._verdict_now(call)
        return self._later(self._answer_later, call) if verdict is None else self._splice(call, verdict)

    def decide(self, hook: Hook, data: bytes, request_id: str) -> bytes | Later:
        """As ``answer``, of a call that is known to be right; what was decided alone, without its closing brace.

        Where the plugin that decided lets its words be told, ``TELLING`` is behind it.
        """
        alone = self._alone.get(hook)
        if alone is None:
            call = Call(hook, data, orjson.dumps(request_id))
            verdict = self._verdict_now(call)
            return self._later(self._decide_later, call) if verdict is None else self._decided(verdict)
        plugin = alone.plugin
        if not plugin.get_ready():
            return self._later(self._decide_later, Call(hook, data, orjson.dumps(request_id)))
        opinion: Opinion
        try:  # as in answer
            opinion = plugin.call_now(alone.hook, data)
        except CallError as error:
            opinion = _bare(error)
            if plugin.before is not None:
                call = Call(hook, data, orjson.dumps(request_id))
                opinion = plugin.before.ask_now(plugin, alone.hook, call, opinion)
        if alone.after_answer is not None and isinstance(opinion, Answer):
            return opinion.head + alone.link.telling
        return self._decided(self._walk_now(Call(hook, data, orjson.dumps(request_id)), (alone.link,), opinion))

    def _decided(self, verdict: Verdict) -> bytes:
        head, signature = verdict
        return head + self._telling.get(signature, b"")

    def _later(self, ask: Callable[[Call, contextlib.ExitStack, Asker], Awaitable[bytes]], call: Call) -> Later:
        call.forget()  # many may wait at the same time
        held = contextlib.ExitStack()
        held.enter_context(self.held())  # from here on; where nobody calls it, it goes with the last reference
        return functools.partial(ask, call, held)

    async def _answer_later(self, call: Call, held: contextlib.ExitStack, asker: Asker) -> bytes:
        """The decision, once every plugin that is asked had room for the call. Raises nothing.

        For an asker who is gone, a call to observe does not wait for room.
        """
        with held:
            return self._splice(call, await self._verdict(call, asker))

    async def _decide_later(self, call: Call, held: contextlib.ExitStack, asker: Asker) -> bytes:
        with held:
            return self._decided(await self._verdict(call, asker))

    def _verdict_now(self, call: Call) -> Verdict | None:
        hook = call.hook
        choice = self._deciding[hook]
        links = choice.of(call)
        # After a rewrite, plugins may be asked that the call as it came was not for.
        for link in choice.items if hook in REWRITING else links:
            if link.plugin is not None and not link.plugin.get_ready():
                return None
        observing = self._observing[hook]
        if observing is not None:
            watching = observing.of(call)
            for link in watching:
                if link.plugin is not None and link.plugin.backlog.must_wait(len(call.data)):
                    return None
            for link in watching:
                if link.plugin is not None:
                    link.plugin.backlog.add(hook, call.data)
        return self._walk_now(call, links, _NOT_ASKED)

    async def _verdict(self, call: Call, asker: Asker) -> Verdict:
        observing = self._observing[call.hook]
        watching = observing.of(call) if observing is not None else ()
        asked = self._deciding[call.hook].of(call)
        call.forget()
        if watching:
            await _show(watching, call, asker)
        walked = self._walk(call, asked, 0, None, _NOT_ASKED)
        while isinstance(walked, _Pause):
            links, at, so_far = walked
            opinion = await _ask(links[at], call, asker)
            if isinstance(opinion, GoneError):
                return self._failed(call, links[at], opinion)  # which nobody reads
            walked = self._walk(call, links, at, so_far, opinion)
        return walked

    @contextlib.contextmanager
    def held(self) -> Iterator[Chains]:
        """Keep these chains and their plugins for several calls, whatever is committed meanwhile."""
        self._under_way += 1
        try:
            yield self
        finally:
            self._end()

    def _end(self) -> None:
        self._under_way -= 1
        if self._retired and not self._under_way:
            self._release()

    def retire(self) -> None:
        """No call begins after this; the plugins are released when the last one ends. May be called again."""
        self._retired = True
        if not self._under_way:
            self._release()

    def _release(self) -> None:
        released, self._plugins = self._plugins, []
        for plugin in released:
            plugin.release()

    def _walk_now(self, call: Call, links: _Links, opinion: Opinion | _NotAsked) -> Verdict:
        """The whole walk, where every plugin is ready."""
        walked = self._walk(call, links, 0, None, opinion)
        assert not isinstance(walked, _Pause)  # noqa: S101 - there is nobody to wait for
        return walked

    def _walk(
        self, call: Call, links: _Links, at: int, so_far: Step | None, opinion: Opinion | _NotAsked
    ) -> Verdict | _Pause:
        """Go along the chain from one place, where the plugin there has perhaps said something already."""
        hook = call.hook
        while at < len(links):
            link = links[at]
            plugin = link.plugin
            if opinion is _NOT_ASKED:
                if plugin is None or link.hook is None:
                    return self._not_there(call, link)
                if not plugin.get_ready():
                    return _Pause(links, at, so_far)
                opinion = _ask_now(plugin, link.hook, call)
            at += 1
            if isinstance(opinion, Answer):
                rule = RULES[hook]
                if rule is first:
                    return opinion.head, link.signature
                so_far, stops = rule(call, (link, opinion), so_far)
                if stops:
                    break
                if hook in REWRITING:
                    links, at = self._deciding[hook].after(link, call), 0
            elif isinstance(opinion, CallError) and not link.fails_open(hook, opinion):
                return self._failed(call, link, opinion)
            opinion = _NOT_ASKED
        if hook is Hook.CACHE_SET and call.ttl_ms is not None and (so_far is None or so_far[1].action == "store"):
            head = Answer({"action": "store", "ttl_ms": call.ttl_ms}).head
            return head, self._nobody if so_far is None else so_far[0].signature
        if so_far is None:
            return NOBODY[hook], self._nobody
        return so_far[1].head, so_far[0].signature

    def _failed(self, call: Call, link: _Asked, error: CallError) -> Verdict:
        # The client learns who and why in a word; what happened in detail is the operator's.
        return self._closed(call, link, error.cause, f"plugin '{link.name}' failed ({error.cause})")

    def _not_there(self, call: Call, link: _Asked) -> Verdict:
        failure = self._failures.get(link.name, link.entry.failure)
        cause = failure.cause if failure else "fetch"
        if failure is not None and failure.stage is not None:  # nothing has failed: to ask again in a while will help
            return self._closed(call, link, cause, f"plugin '{link.name}' is being {_DONE[failure.stage]}; ask again")
        return self._closed(call, link, cause, f"plugin '{link.name}' is not loaded ({cause})")

    def _closed(self, call: Call, link: _Asked, cause: str, message: str) -> Verdict:
        return Answer(closed(call.hook, message) | {"failure": cause}).head, link.signature

    def _splice(self, call: Call, verdict: Verdict) -> bytes:
        return b"".join((*verdict, call.quoted_id, self._end_of_answer))


async def _show(links: _Links, call: Call, asker: Asker) -> None:
    """Hand the call, as it came, to the plugins that only watch; they run off the reply's path.

    Whoever gives up while one of them has no room leaves the call behind for all of them.
    """
    plugins = [link.plugin for link in links if link.plugin is not None]
    while plugins:
        plugin = plugins.pop(0)
        try:
            await plugin.backlog.put(call.hook, call.data, asker)
        except asyncio.CancelledError:
            for each in plugins:
                each.backlog.leave(call.hook, call.data)
            raise


def _ask_now(plugin: Plugin, hook: PluginHook, call: Call) -> Opinion:
    try:
        return plugin.call_now(hook, call.data)
    except CallError as error:
        opinion = _bare(error)
    return opinion if plugin.before is None else plugin.before.ask_now(plugin, hook, call, opinion)


async def _ask(link: _Asked, call: Call, asker: Asker) -> Opinion:
    plugin, hook = link.plugin, link.hook
    assert plugin is not None  # noqa: S101 - the walk stopped for it
    assert hook is not None  # noqa: S101
    try:
        if plugin.waits:
            return await asker.run(plugin.call_on(hook, call.data))
        return await plugin.call_on(hook, call.data)
    except GoneError as error:
        return _bare(error)
    except CallError as error:
        opinion = _bare(error)
    return opinion if plugin.before is None else await plugin.before.ask(plugin, hook, call, opinion)
