"""What every bundle promises of its features: these tests follow the record type of train.py."""
