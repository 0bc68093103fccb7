"""A client for proxies that are written in Python: asks the sidecar's hooks, and is never open by accident.

>>> async with HookClient("/run/hookline/hooks.sock") as hooks:
...     decision = await hooks.pre_query(query="select 1", tables=["t"])
...     if decision.refuses:
...         ...

It needs the contract (``hookline_api``) and nothing else of this project. Described in docs/reference/client.md.

- ``client``: the calls, and the policy for calls without an answer;
- ``inputs``, ``decisions``: what goes and what comes, as types;
- ``pool``, ``connection``: which connection a call goes on, and the bytes on it;
- ``errors``: what can go wrong.
"""

from hookline_client.client import HookClient, Policy
from hookline_client.decisions import Decision
from hookline_client.errors import (
    DeadlineError,
    FailedError,
    HookError,
    LostError,
    MalformedError,
    OverloadError,
    RefusedError,
    UnreachableError,
)
from hookline_client.inputs import Context

__all__ = [
    "Context",
    "DeadlineError",
    "Decision",
    "FailedError",
    "HookClient",
    "HookError",
    "LostError",
    "MalformedError",
    "OverloadError",
    "Policy",
    "RefusedError",
    "UnreachableError",
]
