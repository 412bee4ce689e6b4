"""The new command: infer a record type from a table, and write a bundle with it."""

import json
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

from serving.features import MAX_INTEGER
from training.errors import InvalidDataError
from training.project import Project
from training.scaffold.columns import Column, InferredTable, infer_table
from training.scaffold.example import typical_record
from training.scaffold.files import Name, check_folder, check_name, write_bundle
from training.scaffold.record_module import TYPES, RecordModule
from training.scaffold.review import review
from training.scaffold.table import read_table


def new(
    project: Project, data: Path, target: str, name: str, out: Path, dropped: Collection[str]
) -> None:
    """Write a bundle for the table in a file; print what was inferred and what to check.

    Raise TrainingError or OSError, and write nothing, if the file, the name or the folder can't be
    used.
    """
    check_folder(out)
    check_name(project, name)
    try:
        table = infer_table(read_table(data), target, dropped)
    except InvalidDataError as error:
        raise InvalidDataError(f"{data}: {error}") from None
    print_table(table, data)
    write_bundle(project, out, table.frame.to_csv(index=False), template_values(table, data, name))
    print(
        f"\nWrote {out}. Its service and its tests run at once:\n"
        f"  cd {shlex.quote(str(out))}\n  make serve\n  make test\n"
        "Then correct record.py (descriptions, units, bounds), README.md, data/README.md and\n"
        "data/model_card.md.jinja."
    )


def template_values(table: InferredTable, data: Path, name: str) -> dict[str, object]:
    """Return the variables of the templates."""
    example = typical_record(table)
    return {
        "name": name,
        "title": Name(name).title,
        "target": table.target,
        "record": RecordModule(table, example),
        "has_strings": any(each.kind in ("category", "text") for each in table.features),
        "example": json.dumps(example, ensure_ascii=False),
        "source": data.name,
        "data_file": f"{name}.csv",
        "n_rows": len(table.frame),
        "n_unlabelled": table.n_unlabelled,
        "excluded": table.excluded,
    }


def describe_bounds(column: Column) -> str:
    """Return the valid values of a feature in words."""
    if column.kind == "category":
        return ", ".join(column.values)
    if column.kind == "text":
        return f"at most {column.max_length:,} characters"
    low, high = column.minimum, column.maximum
    if low is None or high is None:
        return "" if low is None else f"{low:,} or more"
    if high == MAX_INTEGER:
        return f"{'-2**53' if low == -MAX_INTEGER else f'{low:,}'} to 2**53"
    return f"{low:,} to {high:,}"


def print_table(table: InferredTable, data: Path) -> None:
    """Print what was inferred for each column, the excluded columns, and what to check."""
    summary = f"{len(table.frame):,} rows of {data} have the target {table.target}"
    if table.n_unlabelled:
        summary += f"; {table.n_unlabelled:,} have none, and are excluded"
    print(f"{summary}\n")
    rows = [("feature", "type", "bounds", "missing", "why")]
    rows += [
        (
            each.name,
            TYPES.get(each.kind, each.kind),
            describe_bounds(each),
            describe_missing(each),
            each.reason,
        )
        for each in table.features
    ]
    print_aligned(rows)
    if table.excluded:
        print("\nExcluded:")
        print_aligned([(f"  {name}", reason) for name, reason in table.excluded.items()])
    if remarks := review(table):
        print("\nCheck these columns (DROP=NAME excludes one):")
        print("\n".join(f"  {remark}" for remark in remarks))


def describe_missing(column: Column) -> str:
    """Return the number of missing values and, if not only empty cells, their texts in the file."""
    markers = f" ({', '.join(column.missing_markers)})" if column.missing_markers else ""
    return f"{column.n_missing:,}{markers}" if column.n_missing else "none"


def print_aligned(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows in columns. Cells but the last of a row are cut to 40 characters."""
    short = [
        [cell if len(cell) <= 40 or cell == row[-1] else f"{cell[:37]}..." for cell in row]
        for row in rows
    ]
    widths = [max(map(len, cells)) for cells in zip(*short, strict=True)]
    for row in short:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
