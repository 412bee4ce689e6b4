"""The score command on a Ray cluster, for files on a storage that all nodes can read."""

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import ray
from pyarrow.fs import FileSelector, FileSystem, FileType
from pydantic import BaseModel
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasink, TaskPoolStrategy

from serving.model import ModelReference
from serving.records import RequestBody
from training.errors import InvalidDataError, TrainingError
from training.project import ROOT, Project
from training.request_body import make_body_type
from training.scoring.batches import ERROR, BatchScorer, PortableModel
from training.scoring.checks import check_ending
from training.scoring.command import to_line
from training.scoring.readers import MAX_ROWS, ArrowPath, open_reader
from training.scoring.scorer import take
from training.scoring.writers import WRITERS

FILE, NUMBER = "source_file", "source_number"  # temporary columns: file, and line or row number
BLOCK_BYTES = 8 << 20  # of the rows that one task scores and writes
# Shares of a core. An actor, which scores, and two tasks, which read and write, fit on one core:
# 0.9 + 2 * 0.04 < 1. There are at most as many tasks of each kind as nodes (`count_nodes`), since
# the imports of each take seconds.
ACTOR_CPUS, TASK_CPUS = 0.9, 0.04
NOT_SHIPPED = [".git", ".venv*", "**/__pycache__", ".*_cache", "report", "tests", "benchmarks"]
COMPLETE = "_SUCCESS"  # marks a complete folder, as in Spark


def score_on_ray(project: Project, tag: str, data: str, output: str, address: str) -> bool:
    """Score a file, or the files of a folder, into a folder; return whether rows were rejected.

    Raise TrainingError, BentoMLException or OSError.
    """
    data, output = data.rstrip("/"), output.rstrip("/")
    data_ending, output_ending = check_ending(data), check_ending(output)
    files = list_files(data)
    rejected = f"{output.removesuffix(output_ending)}.rejected.jsonl"
    folders = new_folder(output), new_folder(rejected)
    body = make_body_type(project.record_type)
    schema = common_schema(files, body)
    model = PortableModel.from_store(ModelReference(tag, project.record_type))
    start(address)
    rows = read_files(files, project.record_type, schema)
    scored = score_rows(rows, model, project.record_type, (data_ending, output_ending))
    number_key = "row" if data_ending == ".parquet" else "line"
    sink = FolderSink(*folders, output_ending, number_key)
    write(scored, sink)
    n_rows = sink.n_scored + sink.n_rejected
    print(f"Scored {sink.n_scored:,} of {n_rows:,} rows with {model.tag}: {output}")
    if sink.n_rejected:
        print(f"Rejected {sink.n_rejected:,}: {rejected} says why")
    return sink.n_rejected > 0


def read_files(
    files: Sequence[ArrowPath], record_type: type[BaseModel], schema: pa.Schema
) -> Dataset:
    """Return the rows of files; each task reads one file."""
    numbers = [{"id": n} for n in range(len(files))]
    return ray.data.from_items(numbers, override_num_blocks=len(files)).map_batches(
        read_file,
        fn_args=[files, record_type, schema],
        batch_size=1,
        num_cpus=TASK_CPUS,
        compute=TaskPoolStrategy(count_nodes()),
    )


def score_rows(
    rows: Dataset, model: PortableModel, record_type: type[BaseModel], endings: tuple[str, str]
) -> Dataset:
    """Return rows with their predictions or errors; at most one actor per CPU scores them."""
    return rows.map_batches(
        BatchScorer,
        fn_constructor_args=[model, record_type, *endings, (FILE, NUMBER)],
        batch_format="pyarrow",
        batch_size=MAX_ROWS,
        compute=ActorPoolStrategy(min_size=1, max_size=int(ray.cluster_resources()["CPU"])),
        num_cpus=ACTOR_CPUS,
    )


def write(scored: Dataset, sink: "FolderSink") -> None:
    """Run all tasks and write their rows; raise TrainingError if one fails."""
    options = {"num_cpus": TASK_CPUS}
    try:
        scored.write_datasink(sink, ray_remote_args=options, concurrency=count_nodes())
    except ray.exceptions.RayError as error:
        # Ray puts the traceback of the task before the message: keep the last line.
        raise TrainingError(str(error).strip().rpartition("\n")[2]) from error


def count_nodes() -> int:
    """Return the number of nodes that are alive."""
    return sum(node["Alive"] for node in ray.nodes())


def start(address: str) -> None:
    """Connect to a cluster and send it this bundle's code; "local" starts a cluster."""
    code = {"working_dir": str(ROOT), "excludes": NOT_SHIPPED}
    ray.init(address, runtime_env=code, log_to_driver=False, ignore_reinit_error=True)
    context = DataContext.get_current()
    context.target_max_block_size = BLOCK_BYTES
    context.execution_options.preserve_order = True


def locate(address: str) -> ArrowPath:
    """Return the location of a path, or of a URI such as s3://bucket/folder."""
    if "://" not in address:
        address = Path(address).absolute().as_uri()
    return ArrowPath(*FileSystem.from_uri(address))


def list_files(address: str) -> list[ArrowPath]:
    """Return a file, or the files of a folder except hidden ones; raise InvalidDataError."""
    filesystem, path = locate(address)
    info = filesystem.get_file_info(path)
    infos = [info]
    if info.type == FileType.Directory:
        infos = filesystem.get_file_info(FileSelector(path, recursive=True))
    files = [
        ArrowPath(filesystem, each.path)
        for each in sorted(infos, key=lambda each: each.path)
        if each.type == FileType.File and each.base_name[0] not in "._"
    ]
    if not files:
        raise InvalidDataError(f"{address} is neither a file nor a folder with files")
    return files


def new_folder(address: str) -> ArrowPath:
    """Return a folder to write to; raise InvalidDataError if it is not new or empty."""
    folder = locate(address)
    selector = FileSelector(folder.path, allow_not_found=True)
    file_type = folder.filesystem.get_file_info(folder.path).type
    if file_type == FileType.File or folder.filesystem.get_file_info(selector):
        raise InvalidDataError(f"{address} exists already: remove it, or name another")
    return folder


def common_schema(files: Sequence[ArrowPath], body: type[RequestBody]) -> pa.Schema:
    """Return the schema of all files; raise InvalidDataError if they differ."""
    schemas = [open_reader(file, body).schema for file in files]
    common = schemas[0]
    if files[0].path.endswith(".jsonl"):  # any record may have other columns
        common = pa.unify_schemas(schemas)
    else:
        for file, schema in zip(files, schemas, strict=True):
            if schema != common:
                raise InvalidDataError(f"{file.path} has other columns than {files[0].path}")
    if reserved := [name for name in (FILE, NUMBER, ERROR) if name in common.names]:
        raise InvalidDataError(f"The column name {reserved[0]} is reserved: rename it")
    return common


def read_file(
    batch: dict[str, Any],
    files: Sequence[ArrowPath],
    record_type: type[BaseModel],
    schema: pa.Schema,
) -> Iterator[pa.Table]:
    """Yield the rows of the file whose index is in the batch, with FILE, NUMBER and ERROR."""
    file = files[batch["id"][0]]
    reader = open_reader(file, make_body_type(record_type), schema)
    for chunk in reader.chunks():
        yield add_source(chunk.table, file, chunk.numbers, [None] * len(chunk.table))
        errors = [json.dumps(message) for message in chunk.unreadable.values()]
        unreadable = take(schema.empty_table(), [None] * len(errors))  # rows of nulls
        yield add_source(unreadable, file, list(chunk.unreadable), errors)


def add_source(
    table: pa.Table, file: ArrowPath, numbers: Sequence[int], errors: Sequence[str | None]
) -> pa.Table:
    """Return rows of a file with the columns FILE, NUMBER and ERROR."""
    table = table.append_column(FILE, pa.repeat(pa.scalar(file.path), len(table)))
    table = table.append_column(NUMBER, pa.array(numbers, pa.int64()))
    return table.append_column(ERROR, pa.array(errors, pa.string()))


class Part(NamedTuple):
    """What one task has written, to files with hidden names."""

    task: int
    n_scored: int
    n_rejected: int
    scored: str  # name of the file, or ""
    rejected: str


class FolderSink(Datasink):
    """Writes the scored and the rejected rows to a folder each, one file per task.

    A task writes to files with hidden names, and the driver renames those of successful tasks.
    So a task that is repeated because its node was lost duplicates no row.
    """

    def __init__(
        self, scored: ArrowPath, rejected: ArrowPath, ending: str, number_key: str
    ) -> None:
        self.scored = scored
        self.rejected = rejected
        self.ending = ending
        self.number_key = number_key
        self.n_scored = self.n_rejected = 0

    def on_write_start(self, schema: pa.Schema | None = None) -> None:
        """Create the folders."""
        for folder in (self.scored, self.rejected):
            folder.filesystem.create_dir(folder.path)

    def write(self, blocks: Iterable[pa.Table], ctx: Any) -> Part:
        """Write the rows of a task."""
        table = pa.concat_tables(blocks)
        is_scored = table[ERROR].is_null()
        scored = table.filter(is_scored).drop_columns([FILE, NUMBER, ERROR])
        rejected = table.filter(pc.invert(is_scored)).select([FILE, NUMBER, ERROR])
        lines = [
            to_line(
                {"file": row[FILE], self.number_key: row[NUMBER], "message": json.loads(row[ERROR])}
            )
            for row in rejected.to_pylist()
        ]
        name = f".{uuid.uuid4().hex}"
        part = Part(ctx.task_idx, len(scored), len(rejected), "", "")
        if len(scored):
            part = part._replace(scored=name)
            with self.scored.filesystem.open_output_stream(f"{self.scored.path}/{name}") as file:
                writer = WRITERS[self.ending](file, scored.schema)
                writer.write(scored)
                writer.finish()
        if lines:
            part = part._replace(rejected=name)
            path = f"{self.rejected.path}/{name}"
            with self.rejected.filesystem.open_output_stream(path) as file:
                file.write(b"".join(lines))
        return part

    def on_write_failed(self, error: Exception) -> None:
        """Remove the folders."""
        for folder in (self.scored, self.rejected):
            folder.filesystem.delete_dir(folder.path)

    def on_write_complete(self, write_result: Any) -> None:
        """Rename the files, remove those of lost tasks, and mark the folders as complete."""
        parts = sorted(write_result.write_returns)
        self.n_scored = sum(part.n_scored for part in parts)
        self.n_rejected = sum(part.n_rejected for part in parts)
        complete(self.scored, [part.scored for part in parts], self.ending)
        complete(self.rejected, [part.rejected for part in parts], ".jsonl")
        if not self.n_rejected:
            self.rejected.filesystem.delete_dir(self.rejected.path)


def complete(folder: ArrowPath, names: Sequence[str], ending: str) -> None:
    """Rename the files with these names, remove the other hidden ones, and write COMPLETE."""
    filesystem, path = folder
    for number, name in enumerate(filter(None, names)):
        filesystem.move(f"{path}/{name}", f"{path}/part-{number:05}{ending}")
    for info in filesystem.get_file_info(FileSelector(path)):
        if info.base_name.startswith("."):
            filesystem.delete_file(info.path)
    with filesystem.open_output_stream(f"{path}/{COMPLETE}"):
        pass
