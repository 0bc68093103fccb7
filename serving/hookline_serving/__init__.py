"""HTTP servers that strangers cannot exhaust: the one way in which both programs serve.

A connection costs a server memory from its first packet on, and whoever opened it pays nothing for leaving it there.
So each server counts its connections by what they are doing (``census``), and each of these has an end: a head that
does not come, an answer that nobody reads, a silence. Where there are too many, one has to go: first those that have
not completed a request, the oldest first, then those that are idle, and those of the address that has the most before
those of others. So it is not one that somebody honest is using. What was closed, and why, is counted.

``bounds`` has the numbers with their reasons, ``crowds`` the connections that do the same. ``connection`` is a
connection of aiohttp's that tells the census what it does, ``bodies`` counts what has come of requests, ``media`` reads
what a request says that it is, and ``server`` serves an application on sockets, with or without TLS. Both programs use
this library; it knows neither.
"""

from hookline_serving.bodies import Bodies
from hookline_serving.bounds import Bounds, Closed
from hookline_serving.census import Census, Visit
from hookline_serving.connection import Connection, vouch
from hookline_serving.media import media_type
from hookline_serving.server import HttpServer

__all__ = ["Bodies", "Bounds", "Census", "Closed", "Connection", "HttpServer", "Visit", "media_type", "vouch"]
