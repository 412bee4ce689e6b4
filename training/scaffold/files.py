"""Write a new bundle: adapted copies of the files of this one, and files made from the data."""

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from training.errors import TrainingError
from training.project import ROOT, Project
from training.scaffold.record_module import docstring, quoted
from training.templating import make_environment

UNCHANGED = ["serving", "training"]  # copied byte for byte
ADAPTED = [  # files and folders; in their copies, the names of this bundle are replaced
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
CODE_SUFFIXES = {".py", ".yaml"}
# Pages about the record type of this bundle, and about `make new`.
EXCLUDED_PAGES = ["docs/MODEL_CARD.md", "docs/clients.md", "docs/your-own-model.md"]
TEMPLATES = {  # by the file that is rendered
    "README.md": "README.md.jinja",
    "record.py": "record.py.jinja",
    "train.py": "train.py.jinja",
    "data/README.md": "data.md.jinja",
    "data/model_card.md.jinja": "model_card.md.jinja",
    ".ci/run": "ci_run.jinja",
}
# [text](path#anchor): the text, the path and the anchor.
LINK = re.compile(r"\[([^][]+)\]\(([^)#:]+)(#[^)]*)?\)")


class Name(NamedTuple):
    """The name of a model, and how it is written elsewhere."""

    model: str  # house_price

    @property
    def service(self) -> str:
        """The name of the Service: HousePrice."""
        return "".join(word.capitalize() for word in self.model.split("_"))

    @property
    def dashed(self) -> str:
        """The name in Kubernetes: house-price."""
        return self.model.replace("_", "-")

    @property
    def title(self) -> str:
        """The name in a heading: House price."""
        return self.model.replace("_", " ").capitalize()


def renamer(project: Project, name: str, target: str) -> Callable[[str], str]:
    """Return a function that replaces the names of this bundle in a text.

    The examples in the comments are for the bundle house_price, with the record type House in
    house.py, and for the new name car_price.
    """
    old, new = Name(project.name), Name(name)
    record, module = project.record_type.__name__, project.record_type.__module__
    summary = f'class {new.service}:\n    """Predicts {docstring(target)} from a record."""'
    replacements = {
        # The docstring of the Service says what it predicts.
        rf'class {old.service}:\n    """.*?"""': summary,
        # service:HousePrice -> service:CarPrice
        rf"\b{old.service}\b": new.service,
        # house_price:latest, house_price_proxy -> car_price:latest, car_price_proxy
        rf"(?<![a-z0-9]){old.model}(?![a-z0-9])": new.model,
        # name: house-price, house-price-tls -> name: car-price, car-price-tls
        rf"(?<![a-z0-9]){old.dashed}(?![a-z0-9])": new.dashed,
        # House price -> Car price
        rf"\b{old.title}\b": new.title,
        # LabelledHouse -> LabelledRecord
        rf"\bLabelled{record}\b": "LabelledRecord",
        # House, Houses, HouseBody, HousesBody -> Record, Records, RecordBody, RecordsBody
        rf"\b{record}(?=s?(?:Body)?\b)": "Record",
        # house.py, "from house import", houses -> record.py, "from record import", records
        rf"\b{module}(?=s?\b)": "record",
        # "Predict the price of one house." -> "Predict one record."
        r"the prices? of (?=one|many)": "",
        r"\btests/requirements\.txt": "requirements-dev.txt",
        # The end of the Makefile: targets whose files only this repository has.
        r"\n# Only in this repository[\s\S]*": "",
    }
    # One pattern for all: otherwise a word of the new name could be replaced in its turn. Each of
    # the patterns is a group of it.
    pattern = re.compile("|".join(f"({each})" for each in replacements))

    def new_text(match: re.Match[str]) -> str:
        """Return the replacement for the group that has matched."""
        pairs = zip(match.groups(), replacements.values(), strict=True)
        return next(text for group, text in pairs if group)

    return lambda text: pattern.sub(new_text, text)


def check_folder(out: Path) -> None:
    """Raise TrainingError unless a folder is outside this bundle, and missing or empty."""
    if out.resolve().is_relative_to(ROOT.resolve()):
        raise TrainingError(f"{out} is inside this bundle: choose a folder elsewhere")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"{out} is not an empty folder: choose one that is new or empty")


def check_name(project: Project, name: str) -> None:
    """Raise TrainingError if the code of a new bundle would use a name for two things."""
    service = Name(name).service
    if service in ("RecordBody", "RecordsBody", "LabelledRecord"):
        raise TrainingError(
            f"The new bundle has another {service}: choose another name than {name}"
        )
    if name == project.name:
        return  # its occurrences are names of the bundle
    words = re.compile(rf"(?<![a-z0-9])({name}|{Name(name).dashed})(?![a-z0-9])|\b{service}\b")
    for file in shared_files(ADAPTED):
        if file.suffix in CODE_SUFFIXES and words.search((ROOT / file).read_text(encoding="utf-8")):
            raise TrainingError(f"{file} uses {name} for something else: choose another name")


def write_bundle(project: Project, out: Path, data: str, values: dict[str, Any]) -> None:
    """Write a bundle into a folder that is empty or missing; raise OSError if that fails.

    `data` is the text of the CSV file; `values` are the variables of the templates. All is written
    to a temporary folder, which is then renamed: a failure leaves nothing behind.
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
    """Yield the path of each file to copy, relative to this bundle; `paths` may be folders."""
    for path in (ROOT / each for each in paths):
        for file in [path] if path.is_file() else path.rglob("*"):
            relative = file.relative_to(ROOT)
            is_excluded = relative.as_posix() in EXCLUDED_PAGES
            if file.is_file() and not is_excluded and "__pycache__" not in relative.parts:
                yield relative


def copy_files(folder: Path, rename: Callable[[str], str]) -> None:
    """Copy the shared files; replace the names in those that are ADAPTED."""
    for file in shared_files([*UNCHANGED, *ADAPTED]):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, folder / file)
        if file.parts[0] not in UNCHANGED:
            text = (folder / file).read_text(encoding="utf-8")
            (folder / file).write_text(rename(text), encoding="utf-8")


def render_files(folder: Path, values: dict[str, Any]) -> None:
    """Write the files that depend on the data."""
    filters = {"docstring": docstring, "quoted": quoted, "shell": shlex.quote}
    environment = make_environment(Path(__file__).parent / "templates", filters)
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
