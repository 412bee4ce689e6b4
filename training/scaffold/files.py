"""Write a new bundle: copies of this one's files under new names, and files made from the data."""

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training.errors import TrainingError
from training.project import ROOT, Project
from training.scaffold.record_module import docstring, quoted

# Files and folders that a bundle shares with this one. UNCHANGED stays the same byte for byte.
UNCHANGED = ["serving", "training"]
RENAMED = [
    ".gitignore",
    "Makefile",
    "bentofile.yaml",
    "deploy",
    "docs",
    "pyproject.toml",
    "requirements.in",
    "requirements.txt",
    "requirements-dev.in",
    "requirements-dev.txt",
    "requirements-ray.in",
    "requirements-ray.txt",
    "requirements-serve.in",
    "requirements-serve.txt",
    "service.py",
    "tests/__init__.py",
    "tests/conftest.py",
    "tests/contract",
    "tests/helpers/__init__.py",
    "tests/helpers/commands.py",
]
CODE = {".py", ".yaml"}
# Pages about this bundle's own record type.
LEFT_OUT = ["docs/MODEL_CARD.md", "docs/clients.md", "docs/your-own-model.md"]
TEMPLATES = {
    "README.md": "README.md.jinja",
    "record.py": "record.py.jinja",
    "train.py": "train.py.jinja",
    "data/README.md": "data.md.jinja",
    "data/model_card.md.jinja": "model_card.md.jinja",
    ".ci/run": "ci_run.jinja",
}
LINK = re.compile(r"\[([^][]+)\]\(([^)#:]+)(#[^)]*)?\)")


class Name(NamedTuple):
    """The name of a model in its forms."""

    model: str  # house_price

    @property
    def service(self) -> str:
        """As a class: HousePrice."""
        return "".join(word.capitalize() for word in self.model.split("_"))

    @property
    def dashed(self) -> str:
        """As Kubernetes takes it: house-price."""
        return self.model.replace("_", "-")

    @property
    def title(self) -> str:
        """As a heading: House price."""
        return self.model.replace("_", " ").capitalize()


def renamer(project: Project, name: str, target: str) -> Callable[[str], str]:
    """Return a function that replaces the names of this bundle in a text."""
    old, new = Name(project.name), Name(name)
    record, module = project.record_type.__name__, project.record_type.__module__
    summary = f'class {new.service}:\n    """Predicts {docstring(target)} from a record."""'
    replacements = {
        rf'class {old.service}:\n    """.*?"""': summary,
        rf"\b{old.service}\b": new.service,
        rf"(?<![a-z0-9]){old.model}(?![a-z0-9])": new.model,
        rf"(?<![a-z0-9]){old.dashed}(?![a-z0-9])": new.dashed,
        rf"\b{old.title}\b": new.title,
        rf"\bLabelled{record}\b": "LabelledRecord",
        rf"\b{record}(?=s?(Body)?\b)": "Record",
        rf"\b{module}(?=s?\b)": "record",
        r"the prices? of (?=one|many)": "",
        r"\btests/requirements\.txt": "requirements-dev.txt",
        r"\n# Only in this repository[\s\S]*": "",  # the end of the Makefile
    }
    # All at once: a new name may have one of the words that are replaced.
    pattern = re.compile("|".join(replacements))

    def new_text(match: re.Match[str]) -> str:
        return next(
            text
            for old_text, text in replacements.items()
            if re.compile(old_text).match(match.string, match.start())
        )

    return lambda text: pattern.sub(new_text, text)


def check_folder(out: Path) -> None:
    """Raise TrainingError unless a folder is empty or missing, and outside of this bundle."""
    if out.resolve().is_relative_to(ROOT.resolve()):
        raise TrainingError(f"{out} is inside of this bundle: choose a folder elsewhere")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"{out} is not an empty folder: choose one that is new or empty")


def check_name(project: Project, name: str) -> None:
    """Raise TrainingError if the code of a bundle uses a name for something else."""
    service = Name(name).service
    words = re.compile(rf"(?<![a-z0-9])({name}|{Name(name).dashed})(?![a-z0-9])|\b{service}\b")
    for file in shared_files(RENAMED) if name != project.name else ():
        if file.suffix in CODE and words.search((ROOT / file).read_text(encoding="utf-8")):
            raise TrainingError(f"{file} uses {name} for something else: choose another name")
    if service in ("RecordBody", "RecordsBody", "LabelledRecord"):
        raise TrainingError(f"service.py has another {service}: choose another name than {name}")


def write_bundle(project: Project, out: Path, data: str, values: dict[str, Any]) -> None:
    """Write a bundle into a folder that is empty or missing; raise TrainingError or OSError.

    `data` is the CSV file; `values` are those of the templates. The folder gets its name once all
    is written.
    """
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
        folder = Path(temporary) / "bundle"
        copy_files(folder, renamer(project, values["name"], values["target"]))
        render_files(folder, values)
        (folder / "data" / values["data_file"]).write_text(data, encoding="utf-8", newline="")
        remove_dead_links(folder)
        folder.rename(out)


def shared_files(paths: list[str]) -> Iterator[Path]:
    """Yield each file of these files and folders, relative to this bundle."""
    for path in (ROOT / each for each in paths):
        for file in [path] if path.is_file() else path.rglob("*"):
            relative = file.relative_to(ROOT)
            is_left_out = "__pycache__" in relative.parts or relative.as_posix() in LEFT_OUT
            if file.is_file() and not is_left_out:
                yield relative


def copy_files(folder: Path, rename: Callable[[str], str]) -> None:
    """Copy the files that this bundle shares with the new one."""
    for file in shared_files([*UNCHANGED, *RENAMED]):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, folder / file)
        if file.parts[0] not in UNCHANGED:
            text = (folder / file).read_text(encoding="utf-8")
            (folder / file).write_text(rename(text), encoding="utf-8")


def render_files(folder: Path, values: dict[str, Any]) -> None:
    """Write the files that depend on the data."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # noqa: S701 - it writes Python and Markdown
        keep_trailing_newline=True,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"docstring": docstring, "quoted": quoted, "shell": shlex.quote}
    for file, template in TEMPLATES.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        text = environment.get_template(template).render(values)
        (folder / file).write_text(text, encoding="utf-8")
    (folder / ".ci/run").chmod(0o755)


def remove_dead_links(folder: Path) -> None:
    """Replace each link to a page that the new bundle lacks by its text."""
    for page in folder.rglob("*.md"):
        text = page.read_text(encoding="utf-8")

        def live(link: re.Match[str], page: Path = page) -> str:
            return link[0] if (page.parent / link[2]).exists() else link[1]

        page.write_text(LINK.sub(live, text), encoding="utf-8")
