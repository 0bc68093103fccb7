"""The twelve hooks' inputs and answers as types of each language.

``model`` reads the contract. Every other module is a language, with ``TARGET`` (the file that it writes, below the
repository) and ``render(contract)`` (that file's text). ``write_sdk`` finds them.
"""
