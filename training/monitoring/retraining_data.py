"""Write logged records with their outcomes as data for the next training."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from serving.features import feature_schemas
from training.data import to_records
from training.errors import InvalidDataError
from training.monitoring.join import MAX_EXAMPLES, JoinedPredictions
from training.monitoring.validation import Validated, Validator
from training.project import Project

CHUNK_ROWS = 20_000


def write_csv(joined: JoinedPredictions, project: Project, data_path: Path, path: Path) -> None:
    """Write the records that have an outcome to `path`, a CSV file that the train command reads.

    Exclude and count rows that are not valid training data. Raise OSError, or InvalidDataError if
    the file is that of the training data, `data_path` or the project's.
    """
    for data in (data_path, project.data):
        if path.exists() and data.exists() and path.samefile(data):
            raise InvalidDataError(f"{path} is the training data: write to another file")
    with_outcome = joined.with_outcome()
    n_rows, error_counts = 0, Counter[str]()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(feature_schemas(project.labelled_type))
        valid = with_outcome.select(with_outcome.predictions.is_valid)
        for row, messages in validate(valid, project):
            if row is None:
                error_counts.update(messages)
            else:
                writer.writerow(row)
                n_rows += 1
    print(f"Wrote {n_rows:,} rows to {path}")
    if n_excluded := len(with_outcome.outcome) - n_rows:
        examples = "; ".join(message for message, _ in error_counts.most_common(MAX_EXAMPLES))
        print(
            f"Excluded {n_excluded:,} that do not match {project.labelled_type.__name__}"
            f"{': ' * bool(examples)}{examples}"
        )


def validate(joined: JoinedPredictions, project: Project) -> Iterator[Validated]:
    """Yield the result for each record with its outcome, as a row of the training data."""
    validator = Validator(project.labelled_type)
    for start in range(0, len(joined.outcome), CHUNK_ROWS):
        chunk = slice(start, start + CHUNK_ROWS)
        records = to_records(project.record_type, joined.predictions.features.iloc[chunk])
        outcomes = joined.outcome.iloc[chunk].tolist()
        labelled = [
            record | {project.target: outcome}
            for record, outcome in zip(records, outcomes, strict=True)
        ]
        yield from validator.validate(labelled)
