"""What the emulated system installs besides the package: its dependencies, its build tool, what the chosen tests need.

Usage: requirements.py PYPROJECT; prints one requirement per line.
"""

import sys
from pathlib import Path

import tomllib

EXTRAS = ("dicom-seg", "nifti", "signing")  # those of the package that are small; torch is not one of them
TESTS = ("pytest", "hypothesis", "jsonschema")

described = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
project = described["project"]
wanted = [*project["dependencies"], *described["build-system"]["requires"]]
for extra in EXTRAS:
    wanted += project["optional-dependencies"][extra]
wanted += [line for line in project["optional-dependencies"]["dev"] if line.startswith(TESTS)]
print("\n".join(line for line in wanted if "python_version < '3.11'" not in line))
