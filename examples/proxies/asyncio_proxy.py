#!/usr/bin/env python3
"""A proxy that asks Hookline about every statement, in a protocol of toys: a line is a statement, a line its answer.

    python asyncio_proxy.py --hooks /run/hookline/hooks.sock primary=127.0.0.1:5432 eu-replica=127.0.0.1:5433

What a real proxy would keep of it is ``Session.answer``: which hooks are asked, in which order, and what becomes of
their decisions. Where the sidecar cannot be asked, the client's policy refuses the statement; nothing here has to
think of it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from dataclasses import dataclass, field

from hookline_client import Context, HookClient

Node = tuple[str, int]


@dataclass
class Session:
    """One client of the proxy."""

    hooks: HookClient
    nodes: dict[str, Node]
    context: Context
    upstreams: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=dict)

    async def answer(self, statement: str) -> bytes:
        """What the client gets for a statement."""
        before = await self.hooks.pre_query(query=statement, hook_context=self.context)
        if before.refuses:
            return f"ERROR {before.reason}".encode()
        if before.action == "cached":
            return before.data or b""
        query: str = before.value if before.action == "rewrite" else statement
        context: Context = {**self.context, "request_id": before.request_id}  # one id for all hooks of a statement
        where = await self.hooks.route(query=query, hook_context=context)
        if where.refuses:
            return f"ERROR {where.reason}".encode()
        node = where.target if where.action == "node" else "primary" if where.action == "default" else where.action
        started = time.monotonic_ns()
        answer, error = b"", None
        try:
            answer = await self._ask(node or "", query)
        except (OSError, LookupError) as failed:
            error = f"{node}: {type(failed).__name__}"
        await self.hooks.post_query(
            query=query,
            hook_context=context,
            success=error is None,
            target_node=node,
            elapsed_us=(time.monotonic_ns() - started) // 1000,
            response_bytes=len(answer),
            error=error,
        )
        return answer if error is None else f"ERROR {error}".encode()

    async def _ask(self, node: str, query: str) -> bytes:
        if node not in self.upstreams:
            self.upstreams[node] = await asyncio.open_connection(*self.nodes[node])
        reader, writer = self.upstreams[node]
        writer.write(query.encode() + b"\n")
        line = await reader.readline()
        if not line.endswith(b"\n"):
            self.upstreams.pop(node)[1].close()
            raise ConnectionResetError
        return line[:-1]

    def close(self) -> None:
        """End the connections to the nodes."""
        for _, writer in self.upstreams.values():
            writer.close()


async def serve(hooks: HookClient, nodes: dict[str, Node], listen: Node) -> None:
    """Run the proxy."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(hooks, nodes, {"client_id": str(writer.get_extra_info("peername")), "database": "shop"})
        with contextlib.closing(session), contextlib.closing(writer), contextlib.suppress(OSError, ValueError):
            while line := await reader.readline():
                writer.write(await session.answer(line.decode("utf-8", "replace").rstrip("\r\n")) + b"\n")
                await writer.drain()

    server = await asyncio.start_server(client, *listen, limit=2**20)
    async with server:
        print(f"listening on {listen[0]}:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


def _address(text: str) -> Node:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def main() -> None:
    """Read the command line, and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hooks", default="/run/hookline/hooks.sock", help="the sidecar's socket, or http://HOST:PORT")
    parser.add_argument("--listen", type=_address, default="127.0.0.1:6432", metavar="HOST:PORT")
    parser.add_argument("nodes", nargs="+", metavar="NAME=HOST:PORT", help="where statements go; one is 'primary'")
    options = parser.parse_args()
    nodes = {name: _address(where) for name, _, where in (each.partition("=") for each in options.nodes)}
    async with HookClient(options.hooks, timeout=0.5) as hooks:
        await serve(hooks, nodes, options.listen)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
