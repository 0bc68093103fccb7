"""Figures in docs/host-functions.md and docs/operate/sources.md are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hookline_api.bundle import BundlePlugin
from hookline_api.resources import Limits
from hookline_runtime.guest import backtrace
from hookline_runtime.guest.said import MAX_KEPT
from hookline_runtime.host import (
    basics,
    cache_store,
    guest_log,
    http_cache,
    http_client,
    http_message,
    kv,
    kv_functions,
    query,
)
from hookline_runtime.host import cache as cache_functions
from hookline_runtime.host.backends import postgres, postgres_values, sql_text, valkey
from hookline_runtime.plugin import budget, runs
from hookline_sidecar.hooks import worker

DOCS = Path(__file__).parents[2] / "docs"
FUNCTIONS = re.sub(r"\s+", " ", (DOCS / "host-functions.md").read_text())
AUTHORS = re.sub(r"\s+", " ", "".join((DOCS / "author" / name).read_text() for name in ("guest-abi.md", "hooks.md")))
SOURCES = re.sub(r"\s+", " ", (DOCS / "operate" / "sources.md").read_text())
KIB, MIB = 2**10, 2**20

SAID = [
    ("4 KiB a line, longer ones are cut", basics.MAX_LOG_LINE, 4096),
    ("20 lines a second of a plugin in one worker", guest_log.LINES_PER_SECOND, 20),
    ("4,096 bytes a call", basics._MAX_RANDOM, 4096),
    ("a path above 1 KiB", basics._MAX_PATH, KIB),
    ("32 metrics of a plugin", basics._MAX_METRICS, 32),
    ("16 MiB each of key and text", basics._MAX_HASHED, 16 * MIB),
    ("64 KiB for a key and for a value", (kv.MAX_KEY, kv.MAX_VALUE), (64 * KIB, 64 * KIB)),
    ("for a value, 1,024 keys", kv.MAX_KEYS, 1024),
    ("256 namespaces and 64 MiB together", (kv.MAX_NAMESPACES, kv.MAX_BYTES), (256, 64 * MIB)),
    ("more than 1 MiB of keys", kv_functions.MAX_LISTED, MIB),
    ("and one second", kv_functions.MOST_PATIENT_S, 1),
    ("64 KiB for a key, 1 MiB for a value", (cache_store.MAX_KEY, cache_store.MAX_VALUE), (64 * KIB, MIB)),
    ("of a sample of 16", cache_store.SAMPLE, 16),
    ("it gives up after 50 ms", cache_store.PATIENCE_S, 0.05),
    ("30 days; a longer time is cut to that", cache_functions._MAX_TTL_MS, 30 * 86_400_000),
    ("have at most 1 MiB each, and a source's name 256 bytes", (query.MAX_SQL, query.MAX_PARAMETERS, query._MAX_NAME),
     (MIB, MIB, 256)),
    ("at most 1,000 parameters, of 8,192 values together", (postgres_values.MAX_PARAMETERS, query._MAX_VALUES),
     (1000, 8192)),
    ("half of `limits.wait` at the most (and 5 s)", query._MOST_PATIENT_S, 5),
    ("256 KiB of text; 4,096 tables", (sql_text.MAX_TEXT, sql_text._MAX_TABLES), (256 * KIB, 4096)),
    ("8,192 columns, values or statements", sql_text._MAX_WEIGHT, 8192),
    ("for a text above 4 KiB", sql_text._SHORT_TEXT, 4096),
    ("1 MiB of body each way", http_message.MAX_BODY, MIB),
    ("100 headers and 32 KiB of them", (http_message.MAX_HEADERS, http_message.MAX_HEADER_BYTES), (100, 32 * KIB)),
    ("up to 8 KiB, in ASCII", http_message.MAX_URL, 8 * KIB),
    ("1 to 60000. Never more than nine tenths", (http_message.MAX_TIMEOUT_MS, http_client._OF_ITS_WAIT), (60_000, 0.9)),
    ("followed up to five times", http_client.MAX_REDIRECTS, 5),
    ("for this plugin in this worker, up to 4 MiB", http_cache.MAX_BYTES, 4 * MIB),
    ("32 requests on their way in each worker", http_client.CONCURRENCY, 32),
    ("and 1,024 that are on their way or wait for that", http_client.MAX_WAITING, 1024),
    ("at most 64 calls of a plugin wait at a time in one worker", runs._MAX_WAITING_THREADS, 64),
    ("`limits.memory + limits.input + limits.output + 4Mi`", budget.need(BundlePlugin(name="p")),
     Limits().memory + Limits().input + Limits().output + 4 * MIB),
    ("`limits.timeout` (default 100ms)", Limits().timeout, 100),
    ("`limits.wait` (default 1s)", Limits().wait, 1000),
    ("`limits.concurrency`, 16 in a pod by default", Limits().concurrency, 16),
]  # fmt: skip
"""What docs/host-functions.md says, what the code has, and what the sentence means."""

SAID_OF_SOURCES = [
    ("closed after ten minutes without one", postgres._IDLE_S, 600),
    ("after 0.2 s, then less often, up to every 10 s", (postgres._PAUSE_FIRST_S, postgres._PAUSE_LAST_S), (0.2, 10)),
    ("after 50 ms, then less often, up to every 2 s", (valkey._FIRST_PAUSE_S, valkey._LONGEST_PAUSE_S), (0.05, 2)),
    ("three requests in a row got no answer", http_client._FAILURES, 3),
]


SAID_TO_AUTHORS = [
    ("One call may have 1,024 buffers", guest_log._MAX_IOVECS, 1024),
    ("its first 64 KiB are looked at", guest_log._MAX_WRITTEN, 64 * KIB),
    ("of more than 64 lines the first and the last 32", guest_log._MAX_LINES, 64),
    ("share its 20 lines a second", guest_log.LINES_PER_SECOND, 20),
    ("A line is cut at 480 characters, and a function's name at 96", (MAX_KEPT, backtrace.MAX_NAME), (480, 96)),
    ("the innermost first; at most eight", backtrace.MAX_FRAMES, 8),
    ("the Events have the first 256 characters", worker._MAX_SENTENCE, 256),
]


@pytest.mark.parametrize(("sentence", "is_so", "meant"), SAID_TO_AUTHORS, ids=[each[0] for each in SAID_TO_AUTHORS])
def test_a_bound_of_what_a_guest_says_is_the_code_s(sentence, is_so, meant):
    """As the pages for authors have it."""
    assert sentence in AUTHORS
    assert is_so == meant


@pytest.mark.parametrize(("sentence", "is_so", "meant"), SAID, ids=[each[0] for each in SAID])
def test_a_bound_of_a_function_is_the_code_s(sentence, is_so, meant):
    """Who changes one of the two is told of the other."""
    assert sentence in FUNCTIONS
    assert is_so == meant


@pytest.mark.parametrize(("sentence", "is_so", "meant"), SAID_OF_SOURCES, ids=[each[0] for each in SAID_OF_SOURCES])
def test_a_pause_of_a_source_is_the_code_s(sentence, is_so, meant):
    """And when it counts as away."""
    assert sentence in SOURCES
    assert is_so == meant
