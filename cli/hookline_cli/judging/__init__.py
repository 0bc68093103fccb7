"""``hookline check``: manifests as the API server, the webhook and the operator would judge them, before they are sent.

The judging itself is the library's (``hookline_artifacts.judging``), which the webhook uses too. Here is what a person
at a terminal needs beside it: where in which file a thing stands, other objects of the same files, and the module.
"""
