"""Write joined rows as data for the next training."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from serving.features import feature_schemas
from serving.record_errors import FieldError
from serving.records import Row
from training.errors import InvalidDataError
from training.export.rows import to_records
from training.monitoring.join import MAX_EXAMPLES, Joined
from training.monitoring.validation import Validator
from training.project import Project

CHUNK_ROWS = 20_000


def write_csv(joined: Joined, project: Project, path: Path) -> None:
    """Write the records that have an outcome as a CSV file that the train command reads.

    Leave out and count what is no valid row of the training data. Raise InvalidDataError or
    OSError.
    """
    if path.exists() and path.samefile(project.data):
        raise InvalidDataError(f"{path} is the training data: write to another file")
    known = joined.with_outcome()
    n_rows, faults = 0, Counter[str]()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(feature_schemas(project.labelled_type))
        for row in labelled_rows(known.rows(known.predictions.fits), project):
            if isinstance(row, tuple):
                writer.writerow(row)
                n_rows += 1
            else:
                faults.update(message for _, message in row)
    print(f"Wrote {n_rows:,} rows to {path}")
    if n_left_out := len(known.actual) - n_rows:
        examples = "; ".join(message for message, _ in faults.most_common(MAX_EXAMPLES))
        print(
            f"Left out {n_left_out:,} that are no valid {project.labelled_type.__name__}"
            f"{': ' * bool(examples)}{examples}"
        )


def labelled_rows(known: Joined, project: Project) -> Iterator[Row | list[FieldError]]:
    """Yield the row of each record with its outcome or, if it is invalid, its errors."""
    validator = Validator(project.labelled_type)
    for start in range(0, len(known.actual), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        records = to_records(project.record_type, known.predictions.features.iloc[part])
        values = known.actual.iloc[part].tolist()
        labelled = [
            record | {project.target: value} for record, value in zip(records, values, strict=True)
        ]
        yield from validator.validate(labelled)
