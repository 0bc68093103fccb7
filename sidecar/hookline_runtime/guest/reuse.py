"""A plugin's first instance, and what is tried with it: where its ``alloc`` puts inputs, and whether it frees them.

``Pooled`` uses instances again. A guest that never frees takes other memory for each input, until it comes to its own
stack and data, or to the end: after some thousand calls it decides wrongly, or not at all. So it is tried when the
plugin is loaded, with inputs of several sizes that are taken and given back as calls do, in an instance that is thrown
away. No hook runs. A guest with a collector, an arena or size classes comes to rest after some rounds; one that never
frees climbs with every round.

Before that, whatever the mode, a small input is taken: a module whose ``alloc`` traps, or answers what lies outside of
its memory, would fail its calls, and is not loaded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from hookline_api.abi import INPUT_REGION
from hookline_artifacts.errors import ConfigError, VerifyError
from hookline_runtime.errors import CallError, DeadlineError, OverloadError, TrapError

if TYPE_CHECKING:
    from hookline_runtime.guest.calls import Guest, Instance

_TRIED: Final = 64
"""Bytes of the input that each guest is tried with: none is so small that it could take no smaller one."""
_SIZES: Final = (1, 100, 1_500, 20_000, 100_000)
"""Of the inputs of a round, in bytes."""
_ROUNDS: Final = 64
"""After that many, 8 MB in all, a guest that has not come to rest does not free."""
_AT_REST: Final = 3
"""Rounds without an address that was not used before: as good as ever after."""
_PATIENCE_S: Final = 2.0
"""Processor time after which one round at rest is enough, and one that was not is the last: collectors take long."""

_INSTEAD: Final = "set isolation.mode: PerCall, where each call has fresh memory, or let dealloc free what alloc takes"


def first_instance(guest: Guest, *, timeout_ms: int, pooled: bool) -> Instance:
    """A fresh instance of a guest that may be used as its resource says. It has ``timeout_ms`` to come up.

    Raises VerifyError where no instance comes up, and ConfigError where instances are to be used again (``pooled``)
    and may not be.
    """
    instance = _fresh(guest, timeout_ms)
    if guest.info.is_component:  # its border has no alloc, and takes memory back by rules of its own
        return instance
    tries, used = INPUT_REGION not in guest.info.exports, guest.memory_map.static is not None
    if tries:
        instance = _try_alloc(guest, instance, timeout_ms, pooled=pooled)
    if used and _try_bounds(guest, instance):
        guest.keep_off(static=True)
    if pooled:
        _Trial(guest, timeout_ms).run()
    return _fresh(guest, timeout_ms, instead_of=instance) if used else instance


def _fresh(guest: Guest, timeout_ms: int, *, instead_of: Instance | None = None) -> Instance:
    try:
        return guest.instantiate(timeout_ms=timeout_ms, instead_of=instead_of)
    except CallError as error:
        raise VerifyError(
            f"the module's first instance failed: {error}; mend what its start function or _initialize does"
        ) from error


def _try_alloc(guest: Guest, instance: Instance, timeout_ms: int, *, pooled: bool) -> Instance:
    """Hand over a small input, the first of an instance as most are; a fresh instance.

    It is taken back where calls do so (``pooled``). What takes too long, or has no room (0), is left to the calls: a
    machine may be busy. So are larger inputs: a guest may be made for small ones. Raises VerifyError where it cannot be
    handed over: a trap, or a place outside of memory.
    """
    size = min(_TRIED, guest.limits.input)
    try:
        pointer = instance.take(size)
        if pointer + size > instance.memory:
            raise VerifyError(
                f"alloc({size}) answered {pointer} when it was tried, and the module's memory ends at "
                f"{instance.memory}: it has to answer where these bytes fit"
            )
        if pointer and pooled:
            instance.give_back(pointer, size)
    except TrapError as error:
        raise VerifyError(
            f"an input of {size} bytes was handed over when the module was tried, and {error}: mend alloc and dealloc"
        ) from None
    except CallError:
        pass
    return _fresh(guest, timeout_ms, instead_of=instance)


def _try_bounds(guest: Guest, instance: Instance) -> bool:
    """Take the largest input; whether it is put across the end of the module's data, or over its stack.

    A buffer for inputs among the data, whose bounds ``alloc`` knows, is the module's own affair. An ``alloc`` that
    hands out what is not there knows nothing of the module's data, and must keep off all of it.
    """
    static, size = guest.memory_map.static, guest.limits.input
    try:
        pointer = instance.take(size)
    except CallError:
        return False
    inside = static is not None and pointer < static[1]
    crosses = static is not None and inside and pointer + size > static[1]
    return bool(pointer) and (crosses or (inside and guest.own.touched_by(pointer, pointer + size)))


class _Trial:
    """Inputs are taken and given back, until their addresses come to rest or it is clear that they do not."""

    def __init__(self, guest: Guest, timeout_ms: int) -> None:
        self._guest = guest
        self._timeout_ms = timeout_ms
        self._sizes = [size for size in _SIZES if size <= guest.limits.input] or [guest.limits.input]
        self._lowest, self._highest = 2**32, 0
        self._inputs = 0

    def run(self) -> None:
        """Raises ConfigError where the guest does not take back what it gave."""
        instance = _fresh(self._guest, self._timeout_ms)
        begin, at_rest = time.thread_time(), 0
        try:
            while self._sizes and at_rest < _AT_REST:
                before = self._lowest, self._highest
                instance = self._round(instance)
                at_rest = at_rest + 1 if (self._lowest, self._highest) == before else 0
                late = time.thread_time() - begin > _PATIENCE_S
                if late and at_rest:
                    break
                if self._sizes and at_rest < _AT_REST and (late or self._inputs >= _ROUNDS * len(self._sizes)):
                    raise ConfigError(
                        f"isolation.mode: Pooled is for plugins that free what they take, and this one does not"
                        f"{'' if self._guest.frees else ' (it exports no dealloc)'}: {self._inputs} inputs were taken "
                        f"and given back one by one, they lay between {self._lowest} and {self._highest}, and the "
                        f"room was still growing; {_INSTEAD}"
                    )
        finally:
            instance.close()

    def _round(self, instance: Instance) -> Instance:
        """One input of each size; the instance that took them."""
        for place, size in enumerate(tuple(self._sizes)):
            pointer, error = self._try(instance, size)
            if error is None:
                self._inputs += 1
                self._lowest, self._highest = min(self._lowest, pointer), max(self._highest, pointer + size)
                continue
            instance = _fresh(self._guest, self._timeout_ms, instead_of=instance)
            if self._try(instance, size)[1] is None:
                raise ConfigError(
                    f"isolation.mode: Pooled is for plugins that free what they take, and this one has no room left "
                    f"after {self._inputs} inputs were taken and given back ({error}); {_INSTEAD}"
                )
            # A fresh instance has no room for that size either: such calls fail, whatever the mode.
            del self._sizes[place:]
            return _fresh(self._guest, self._timeout_ms, instead_of=instance)
        return instance

    def _try(self, instance: Instance, size: int) -> tuple[int, CallError | None]:
        """Where an input of that size was, or why it was nowhere.

        Raises ConfigError where it was inside the module's stack or data.
        """
        guest = self._guest
        try:
            pointer = instance.take(size)
        except DeadlineError:
            self._sizes.clear()  # its calls fail, and say so
            return 0, None
        except CallError as error:
            return 0, error
        wrong, stack = guest.own.refuse(pointer, size, instance.memory), guest.memory_map.stack
        in_stack = stack is not None and pointer < stack[1] and pointer + size > stack[0]
        if pointer and (in_stack or isinstance(wrong, OverloadError)):
            where = f"its own stack ({stack[0]} to {stack[1]})" if stack is not None and in_stack else "its own data"
            raise ConfigError(
                f"isolation.mode: Pooled is not for this plugin: alloc({size}) answered {pointer}, which is inside "
                f"{where}; {_INSTEAD}"
            )
        if wrong is None:
            try:
                instance.give_back(pointer, size)
            except CallError:
                self._sizes.clear()  # its calls fail, and say so
        return pointer, wrong
