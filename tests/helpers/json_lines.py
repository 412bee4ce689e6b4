"""Read files of JSON Lines."""

import json


def read_json_lines(path):
    """Return the values of the lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]
