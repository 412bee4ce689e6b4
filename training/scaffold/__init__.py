"""Write a bundle for another table: `make new` infers the record type from the data."""

from training.scaffold.command import new

__all__ = ["new"]
