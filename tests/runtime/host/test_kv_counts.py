"""What a server has acknowledged is there: no count of any pod is lost, also where it dies in between."""

from __future__ import annotations

from counting import count_over
from valkey import redis_server


def test_three_pods_with_two_workers_lose_no_count_while_the_server_is_killed(redis_program, tmp_path):
    """As `make bench` does it with 10,000 each. No sum is answered twice, and all that was acknowledged is there."""
    with redis_server(redis_program, tmp_path, durable=True) as server:
        outcome = count_over(server, "team", workers=6, times=1000, restarts=2)
    assert outcome.failed == []
    assert outcome.acknowledged == 6 * 1000
    assert outcome.twice == 0
    assert outcome.acknowledged <= outcome.held <= outcome.acknowledged + outcome.unknown
