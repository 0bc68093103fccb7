"""One plugin of a bundle in this process: its instances, its circuit breaker, its permits, and what is counted.

What belongs here: what one plugin may use, and what becomes of its failures. What does not: other plugins, and HTTP.
"""
