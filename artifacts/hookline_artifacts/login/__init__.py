"""Who we are to a registry: what pull secrets and docker's own configuration hold, and what a registry asks for.

``access`` is what one plugin may use, ``keychain`` the order in which sources are tried, ``docker_config`` what a
document holds, ``helpers`` the programs that docker keeps passwords with, ``challenges`` what a registry asks for, and
``login`` answers that, candidate after candidate.
"""
