"""The new command: infer a bundle from a table, write it, and tell what to look at."""

import json
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

from serving.features import MAX_INTEGER
from training.errors import InvalidDataError
from training.project import Project
from training.scaffold.columns import Column, Columns, infer_columns
from training.scaffold.example import typical_record
from training.scaffold.files import Name, check_folder, check_name, write_bundle
from training.scaffold.record_module import RecordModule
from training.scaffold.review import review
from training.scaffold.table import read_table

SHOWN_TYPES = {
    "number": "float",
    "integer": "int",
    "boolean": "bool",
    "category": "category",
    "text": "str",
}


def new(
    project: Project, data: Path, target: str, name: str, out: Path, dropped: Collection[str]
) -> None:
    """Write a bundle for the table in a file; print what was inferred and what to look at.

    Raise TrainingError or OSError if the file, the name or the folder can't be used; nothing is
    written then.
    """
    check_folder(out)
    check_name(project, name)
    try:
        columns = infer_columns(read_table(data), target, dropped)
    except InvalidDataError as error:
        raise InvalidDataError(f"{data}: {error}") from None
    print_columns(columns, data)
    write_bundle(
        project, out, columns.frame.to_csv(index=False), template_values(columns, data, name)
    )
    print(
        f"\nWrote {out}. Its service and its tests run at once:\n"
        f"  cd {shlex.quote(str(out))}\n  make serve\n  make test\n"
        "Then correct record.py (descriptions, units, bounds), README.md, data/README.md and\n"
        "data/model_card.md.jinja."
    )


def template_values(columns: Columns, data: Path, name: str) -> dict[str, object]:
    """Return what the templates need to know."""
    return {
        "name": name,
        "title": Name(name).title,
        "target": columns.target,
        "record": RecordModule(columns),
        "has_strings": any(each.kind in ("category", "text") for each in columns.features),
        "example": json.dumps(typical_record(columns), ensure_ascii=False),
        "source": data.name,
        "data_file": f"{name}.csv",
        "n_rows": len(columns.frame),
        "n_unlabelled": columns.n_unlabelled,
        "left_out": columns.left_out,
    }


def describe_bounds(column: Column) -> str:
    """Return the legal values of a feature in words."""
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


def print_columns(columns: Columns, data: Path) -> None:
    """Print what was inferred for each column, what is left out, and what to look at."""
    n_rows = len(columns.frame)
    print(f"{n_rows:,} rows of {data} have the target {columns.target}", end="")
    print(f"; {columns.n_unlabelled:,} have none, and are left out" if columns.n_unlabelled else "")
    print()
    rows = [("feature", "type", "bounds", "gaps", "why")]
    rows += [
        (each.name, SHOWN_TYPES[each.kind], describe_bounds(each), gaps(each), each.reason)
        for each in columns.features
    ]
    print_aligned(rows)
    if columns.left_out:
        print("\nLeft out:")
        print_aligned([(f"  {name}", reason) for name, reason in columns.left_out.items()])
    if remarks := review(columns):
        print("\nLook at (DROP=NAME leaves a column out):")
        print("\n".join(f"  {remark}" for remark in remarks))


def gaps(column: Column) -> str:
    """Return the number of gaps, and what stands for them in the file if that is not nothing."""
    texts = f" ({', '.join(column.gap_texts)})" if column.gap_texts else ""
    return f"{column.n_gaps:,}{texts}" if column.n_gaps else "none"


def print_aligned(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows in columns, each as wide as its longest cell, or 40 characters."""
    short = [
        [cell if len(cell) <= 40 or cell == row[-1] else f"{cell[:37]}..." for cell in row]
        for row in rows
    ]
    widths = [max(map(len, cells)) for cells in zip(*short, strict=True)]
    for row in short:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
