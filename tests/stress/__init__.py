"""The trial of the service: hostile input, overload, faults and long runs, against the real server.

`python -m tests.stress` runs all of it and prints one table; each scenario is a module that yields
its rows. Development only: none of it is in the Bento.
"""
