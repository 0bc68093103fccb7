"""A client of a server with both webhooks."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from admission_reviews import SETTINGS
from hookline_operator.webhooks.admission import routes


class Checker:
    """Stands in for the operator's knowledge of modules."""

    def __init__(self):
        self.answer = None
        self.asked = []

    async def __call__(self, found):
        """As `check_config`."""
        self.asked.append(found)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer == "slow":
            await asyncio.sleep(3600)
        return self.answer


@pytest.fixture
def checker():
    """Says nothing, until a test gives it words."""
    return Checker()


@pytest.fixture
def current():
    """The settings of the moment, last."""
    return [SETTINGS]


@pytest.fixture
async def client(checker, current):
    """A client of a server with both webhooks."""
    app = web.Application()
    app.add_routes(routes(settings=lambda: current[-1], check_config=checker))
    async with TestClient(TestServer(app)) as found:
        yield found
