"""Packaging. The dependencies and their extras are read from the requirements files: there is no second list."""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

ROOT = Path(__file__).parent


def sections(path):
    """{extra: [requirement, …]} of a requirements file whose headings read ``# [extra] why``."""
    found, name = {}, None
    for line in (ROOT / path).read_text(encoding="utf-8").splitlines():
        heading = re.match(r"# \[(\w+)\]", line)
        name = heading.group(1) if heading else name
        requirement = line.split("#")[0].strip()
        if requirement:
            found.setdefault(name, []).append(requirement)
    return found


extras = sections("requirements.txt") | sections("test/requirements.txt")
version = re.search(r'__version__ = "(.+)"', (ROOT / "wenet_osum/__init__.py").read_text(encoding="utf-8")).group(1)

setup(
    name="wenet_osum",
    version=version,
    description="Training, decoding and scoring of speech understanding language models of the OSUM kind (arXiv 2501.13306)",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_namespace_packages(include=["wenet_osum", "wenet_osum.*"]),
    package_data={"": ["*.yaml", "*.html", "*.css", "*.js", "*.txt"]},
    install_requires=extras.pop("base"),
    extras_require=extras,
    entry_points={
        "console_scripts": ["wenet_osum = wenet_osum.__main__:main"],
        "vllm.general_plugins": ["wenet_osum = wenet_osum.hub.vllm:register"],
    },
)
