"""Stress tests of the running server: fuzzing, resource exhaustion, overload, failures, soak.

`python -m tests.stress` runs every scenario and prints one table. A scenario is a function that
yields the results of its checks. Development only: the Bento does not contain this package.
"""
