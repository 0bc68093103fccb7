"""The supervisor's process: what should run, what does run, and who is told. It may be slow, fail, and be restarted.

What belongs here: sources, compiling, handing bundles to the workers, the admin surface. What does not: answering
hooks; no module of ``hooks`` is imported here, nor the other way round.
"""
