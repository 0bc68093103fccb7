"""Coverage-guided fuzzing of every parser that reads a stranger's bytes.

``targets`` is the table of parsers with what each may raise and how many steps it may take, ``seeds`` what fuzzing
begins with, and ``python -m fuzzing`` (a part of ``make fuzz``) runs them with atheris. What it starts from and what it
found is kept in tests/fuzz/corpus, a folder for each target, and ``make test`` runs all of it again.
"""
