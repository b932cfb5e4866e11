"""What `detent deploy` reads and sends: samconfig.toml, template.yaml, and folders as zips."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from detent_infra.ops.packaging.archive import archive, code_folders, with_code
from detent_infra.ops.packaging.samconfig import SamConfig, parameters_of, read_samconfig
from detent_infra.ops.packaging.target import read_template
from detent_state_machine.errors import ConfigurationError

ROOT = Path(__file__).parents[2]


def folder(path: Path) -> Path:
    (path / "pkg").mkdir(parents=True)
    (path / "pkg/a.py").write_text("a = 1\n")
    (path / "pkg/run.sh").write_text("true\n")
    (path / "pkg/run.sh").chmod(0o755)
    return path


def test_the_same_folder_is_the_same_zip_whoever_makes_it_and_when(tmp_path: Path) -> None:
    one, other = folder(tmp_path / "one"), folder(tmp_path / "other")
    for file in other.rglob("*.py"):
        file.chmod(0o600)
        os.utime(file, (1, 1))
    zipped, again = archive(one, tmp_path / "1.zip"), archive(other, tmp_path / "2.zip")
    assert zipped.digest == again.digest
    assert zipped.size == zipped.file.stat().st_size
    with zipfile.ZipFile(zipped.file) as read:
        modes = {each.filename: each.external_attr >> 16 for each in read.infolist()}
    assert modes == {"pkg/a.py": 0o644, "pkg/run.sh": 0o755}
    (one / "pkg/a.py").write_text("a = 2\n")
    assert archive(one, tmp_path / "3.zip").digest != zipped.digest


def test_a_folder_that_is_not_there_is_told_with_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="detent package"):
        archive(tmp_path / "build", tmp_path / "1.zip")


def test_the_platforms_template_has_one_folder_and_only_that_is_replaced(tmp_path: Path) -> None:
    template = ROOT / "template.yaml"
    assert code_folders(template) == ["build/lambda/"]
    text = with_code(template, {"build/lambda/": "s3://bucket/key.zip"})
    assert text.replace("s3://bucket/key.zip", "build/lambda/") == template.read_text()
    made = tmp_path / "template.yaml"
    made.write_text(text)
    assert code_folders(made) == []
    assert read_template(made) is not None


TEMPLATE = """
Resources:
  One:
    Properties:
      CodeUri: "build/lambda/"  # ours
  Two:
    Properties:
      CodeUri: src/two
  Three:
    Properties:
      CodeUri: s3://theirs/three.zip
"""


def test_each_function_of_the_users_own_is_packaged_too(tmp_path: Path) -> None:
    file = tmp_path / "template.yaml"
    file.write_text(TEMPLATE)
    assert code_folders(file) == ["build/lambda/", "src/two"]
    text = with_code(file, {"build/lambda/": "s3://b/1", "src/two": "s3://b/2"})
    assert [line.split("CodeUri: ")[1] for line in text.splitlines() if "CodeUri" in line] == [
        "s3://b/1  # ours",
        "s3://b/2",
        "s3://theirs/three.zip",
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Properties: { CodeUri: src/two }", "in braces"),
        ("ContentUri: layer/", "sam build"),
        ("TemplateURL: ./inner.yaml", "sam build"),
    ],
)
def test_what_only_the_sam_cli_can_package_is_refused(line: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "template.yaml"
    file.write_text(f"Resources:\n  Two:\n    {line}\n")
    with pytest.raises(ConfigurationError, match=words):
        with_code(file, dict.fromkeys(code_folders(file), "s3://b/1"))


def test_samconfig_is_read_as_sam_reads_it(tmp_path: Path) -> None:
    assert read_samconfig(tmp_path) == SamConfig()
    (tmp_path / "samconfig.toml").write_text(
        """
version = 0.1
[default.global.parameters]
stack_name = "shop"
region = "eu-west-1"
[default.deploy.parameters]
region = "eu-north-1"
capabilities = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"]
parameter_overrides = "MaximumConcurrency=20 AlarmTopic='arn:aws:sns:a b'"
"""
    )
    assert read_samconfig(tmp_path) == SamConfig(
        stack="shop",
        region="eu-north-1",
        capabilities=("CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"),
        parameters={"MaximumConcurrency": "20", "AlarmTopic": "arn:aws:sns:a b"},
    )


@pytest.mark.parametrize("text", ["not toml", "[default.deploy.parameters]\nparameter_overrides = 3\n"])
def test_a_samconfig_that_makes_no_sense_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "samconfig.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"samconfig\.toml"):
        read_samconfig(tmp_path)


def test_a_parameter_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'App' is not a parameter"):
        parameters_of(["App"])
