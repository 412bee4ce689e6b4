"""The score command on one machine."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pyarrow.fs import LocalFileSystem
from tqdm import tqdm

from serving.model import ModelReference
from training.project import Project
from training.request_body import make_body_type
from training.scoring.checks import check_paths
from training.scoring.readers import ArrowPath, Reader, open_reader
from training.scoring.scorer import Scorer
from training.scoring.writers import WRITERS, Writer, atomic_write


def score_file(project: Project, tag: str, data: Path, output: Path) -> bool:
    """Score the rows of a file with a stored model; return whether rows were rejected.

    Raise TrainingError, BentoMLException or OSError; `output` is then unchanged.
    """
    rejected = check_paths(data, output)
    model = ModelReference(tag, project.record_type).resolve()
    body = make_body_type(project.record_type)
    reader = open_reader(ArrowPath(LocalFileSystem(), str(data)), body)
    scorer = Scorer(model, body, data.suffix, output.suffix)
    if others := [name for name in reader.schema.names if name not in scorer.schemas]:
        print(f"Columns that are not features, kept in the output: {', '.join(others)}")
    with exit_on_signals(), atomic_write(output, rejected) as (scored_file, rejected_file):
        writer = WRITERS[output.suffix](scored_file, scorer.output_schema(reader.schema))
        n_scored, n_rejected = score_chunks(reader, scorer, writer, rejected_file)
    print(f"Scored {n_scored:,} of {n_scored + n_rejected:,} rows with {model.tag}: {output}")
    if n_rejected:
        print(f"Rejected {n_rejected:,}: {rejected} says why")
    return n_rejected > 0


def score_chunks(
    reader: Reader, scorer: Scorer, writer: Writer, rejected_file: BinaryIO
) -> tuple[int, int]:
    """Write the scored and the rejected rows; return the number of both."""
    n_scored = n_rejected = 0
    with tqdm(total=reader.size, desc="Scoring", unit=reader.size_unit, unit_scale=True) as bar:
        for chunk in reader.chunks():
            scored = scorer.score(chunk.table)
            writer.write(scored.table)
            errors = {chunk.numbers[index]: error for index, error in scored.errors.items()}
            for number, message in sorted((chunk.unreadable | errors).items()):
                rejected_file.write(to_line({reader.number_key: number, "message": message}))
                n_rejected += 1
            n_scored += len(scored.table)
            bar.update(chunk.size)
        writer.finish()
    return n_scored, n_rejected


def to_line(value: dict[str, Any]) -> bytes:
    """Return a value as a line of JSON."""
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Exit with SystemExit at SIGINT and SIGTERM, which removes temporary files."""

    def exit_on(number: int, _: Any) -> None:
        sys.exit(128 + number)

    handlers = {
        number: signal.signal(number, exit_on) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
