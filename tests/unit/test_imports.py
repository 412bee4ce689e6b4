"""`find_imports`: the files of the project and the packages that modules import."""

import json
import shutil

import pytest

from tests.helpers.commands import ROOT, run

FILES = {
    "steps.py": "import json, features.dates\nfrom scaling import logs\nimport rarely",
    "features/__init__.py": "from . import names",
    "features/names.py": "",
    "features/dates.py": "import numpy as np\nfrom .names import __name__",
    "scaling/logs.py": "def to_logs():\n    import tqdm.auto\nto_logs()",
    "rarely.py": "def f():\n    import matplotlib",
    "other.py": "",
}
CODE = """
import json, sklearn.tree, steps
from serving.imports import find_imports
print(json.dumps([*map(sorted, find_imports(["steps", "sklearn.tree._tree"]))]))
"""


@pytest.fixture(scope="module")
def imports(tmp_path_factory):
    """The files and packages of a project; `scaling` is a folder without __init__.py."""
    project = tmp_path_factory.mktemp("project")
    for name, source in FILES.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(source)
    shutil.copytree(ROOT / "serving", project / "serving")
    return json.loads(run("python", "-c", CODE, cwd=project).stdout)


def test_files_of_imported_modules_of_the_project_are_found(imports):
    """Also indirectly imported files, and the `__init__.py` of their packages."""
    assert imports[0] == sorted(FILES.keys() - {"other.py"})


def test_packages_that_the_project_imports_are_found(imports):
    """Also inside functions that have run. To Python the folder `scaling` is a package."""
    assert imports[1] == ["json", "numpy", "scaling", "sklearn", "tqdm"]
