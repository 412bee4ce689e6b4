"""Tests of the contract of each feature. They are generated from the record type of train.py."""
