"""What is wrong with a document, and what is legal and risky: the operator's webhook and the command line judge here.

Pure: a document goes in, sentences that begin with a field's path come out.
"""
