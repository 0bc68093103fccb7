"""Differential fuzzing of the hook endpoint: the same bytes to a lane, and to the server alone.

    python -m fuzz_endpoint [--cases N] [--seed S]      (make fuzz)
    python -m fuzz_endpoint --seed S --only N           one case again, with all its bytes

Both endpoints run in this process, on transports without sockets and on a clock that is moved by hand, so that
time-outs cost no time and a case is the same each time. A case is a few requests, good and bad, cut into pieces
anywhere; both must send the same bytes and leave the connection in the same state. Three things are normal:

- What aiohttp does depends on how the bytes were cut: requests before a malformed one in the same packet are left
  unanswered, and the words about a malformed one quote the packet. So the lane may also do what aiohttp does with the
  same bytes in other packets, cut where requests end, and those words are not compared.
- Whether a request that is refused by its head ends the connection depends on whether its body was there already,
  which takes longer to be looked at where the client does not read the answers before it.
- A client that has shut down its sending side gets its answers from the lane, and not always from aiohttp. Where it
  does so in the moment in which it sends, what is malformed is answered by either or by none.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from endpoint_cases import Maker
from endpoint_rig import Rig, Step

SHRINKING_S = 20.0

_DATE: Final = re.compile(rb"\r\nDate: [^\r]+")
_MADE_ID: Final = re.compile(rb'("request_id":"|X-Hookline-Request-Id: )[0-9a-f]{16}(?=["\r])')
_MALFORMED: Final = re.compile(
    rb'\r\nContent-Length: \d+((?:\r\n[^\r]+)*\r\n\r\n[^\r]*"the request is malformed: )(?:[^"\\]|\\.)*"\}'
)


def comparable(sent: bytes) -> bytes:
    """Without the time, ids that were made up, and the words about what is malformed."""
    return _MALFORMED.sub(rb"\1", _MADE_ID.sub(rb"\1", _DATE.sub(b"", sent)))


def cut_at(steps: list[Step], ends: list[int]) -> list[Step]:
    """The same bytes, cut there too."""
    anew: list[Step] = []
    at = 0
    for kind, data in steps:
        begin = 0
        for end in ends:
            if at + begin < end < at + len(data):
                anew += [(kind, data[begin : end - at]), ("loop", b"")]
                begin = end - at
        anew.append((kind, data[begin:]))
        at += len(data)
    return anew


def differs(rig: Rig, steps: list[Step]) -> str | None:
    """What the lane and the server answer differently; None where all is the same."""
    ours, closed = rig.play(rig.with_lane, steps)
    if b"HTTP/1.1 500 " in ours:
        return f"the lane failed: {ours!r}"
    ours = comparable(ours)
    shuts = len(steps) > 1 and steps[-1][0] == "eof"
    hurries = shuts and steps[-2][0] not in {"loop", "wait"}
    theirs: dict[tuple[bytes, bool], None] = {}
    for other_steps in others(rig, steps):
        other, other_closed = rig.play(rig.without, other_steps)
        other = comparable(other)
        if (ours, closed) == (other, other_closed):
            return None
        if shuts and closed and other_closed and (ours.startswith(other) or (hurries and other.startswith(ours))):
            return None
        theirs[other, other_closed] = None
    found = "\n".join(f"  {sent!r}, closed: {shut}" for sent, shut in theirs)
    return f"the lane sent\n  {ours!r}, closed: {closed}\naiohttp sent one of\n{found}"


def others(rig: Rig, steps: list[Step]) -> Iterator[list[Step]]:
    """The same bytes cut as they are, then in other ways, also by a client that reads."""
    yield steps
    whole = b"".join(data for _, data in steps)
    ends = rig.ends(whole)
    reading = [step for step in steps if step[0] not in {"stall", "read"}]
    shut = [step for step in steps if step[0] == "eof"]
    for again in (steps, reading, [("data", whole), ("loop", b""), *shut]):
        for count in range(len(ends) + 1):
            yield cut_at(again, ends[:count])


def shrunk(rig: Rig, steps: list[Step]) -> list[Step]:
    """A smaller case that still differs."""

    def candidates(steps: list[Step]) -> Iterator[list[Step]]:
        for index, (kind, data) in enumerate(steps):
            yield steps[:index] + steps[index + 1 :]
            if kind == "data" and index + 1 < len(steps) and steps[index + 1][0] == "data":
                yield [*steps[:index], ("data", data + steps[index + 1][1]), *steps[index + 2 :]]
            size = len(data) // 2
            while size:
                for at in range(0, len(data), size):
                    yield [*steps[:index], (kind, data[:at] + data[at + size :]), *steps[index + 1 :]]
                size //= 2

    end = time.monotonic() + SHRINKING_S
    while time.monotonic() < end:
        smaller = next((each for each in candidates(steps) if time.monotonic() < end and differs(rig, each)), None)
        if smaller is None:
            break
        steps = smaller
    return steps


def run(cases: int, seed: str, *, first: int = 0, progress: Callable[[int], None] | None = None) -> Counter[str]:
    """So many cases; how often which status was answered. Raises AssertionError with the first case that differs."""
    rig = Rig()
    statuses: Counter[str] = Counter()
    try:
        for number in range(first, first + cases):
            steps = Maker(f"{seed}-{number}").case()
            difference = differs(rig, steps)
            if difference is not None:
                small = shrunk(rig, steps)
                lines = "\n".join(f"  {step}" for step in small)
                raise AssertionError(
                    f"case {number} of seed {seed} differs; in short:\n{lines}\n{differs(rig, small)}\n"
                    f"again: python -m fuzz_endpoint --seed {seed} --only {number}"
                )
            statuses.update(rig.statuses())
            if progress is not None:
                progress(number - first + 1)
    finally:
        rig.close()
    statuses["connections on which aiohttp answered"] = rig.handed_over
    return statuses


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Differential fuzzing of the hook endpoint")
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(2**32)))
    parser.add_argument("--only", type=int, help="the number of one case")
    options = parser.parse_args()
    if options.only is not None:
        for step in Maker(f"{options.seed}-{options.only}").case():
            print(step)
    begin = time.monotonic()

    def progress(done: int) -> None:
        if not done % 10_000:
            print(f"{done} cases, {done / (time.monotonic() - begin):.0f}/s", flush=True)

    cases, first = (options.cases, 0) if options.only is None else (1, options.only)
    print(f"seed {options.seed}", flush=True)
    try:
        counts = run(cases, options.seed, first=first, progress=progress)
    except AssertionError as error:
        print(error)
        return 1
    print(f"{cases} cases without a difference in {time.monotonic() - begin:.0f} s: {dict(counts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
