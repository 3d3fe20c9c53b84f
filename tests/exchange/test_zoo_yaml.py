from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import yaml
from mlflow.exceptions import MlflowException

from mlflow_sb3.exchange.zoo_yaml import read_zoo_yaml


def test_an_ordered_dict_of_rl_zoo3_is_read(tmp_path: Path) -> None:
    values = OrderedDict(a=OrderedDict(b=[1, 2.5]), c="dict(net_arch=[64])", d=(4, "step"), e=None)
    (tmp_path / "config.yml").write_text(yaml.dump(values))

    read = read_zoo_yaml(tmp_path / "config.yml")

    assert "python/object/apply:collections.OrderedDict" in (tmp_path / "config.yml").read_text()
    assert read == {"a": {"b": [1, 2.5]}, "c": "dict(net_arch=[64])", "d": [4, "step"], "e": None}


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch canary']",
        "a: !!python/object/apply:collections.OrderedDict [[[!!python/name:os.system '', 1]]]",
        "!!python/object/new:subprocess.Popen [[touch, canary]]",
        "a: !!python/module:antigravity ''",
    ],
)
def test_no_other_tag_is_read(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "args.yml").write_text(text)

    with pytest.raises(MlflowException, match=r"args\.yml cannot be read: could not determine"):
        read_zoo_yaml(tmp_path / "args.yml")

    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- 1", "contains list, not keys and values"),
        ("a: [", r"cannot be read: .*expected the node content"),
        ("!!python/object/apply:collections.OrderedDict [3]", "OrderedDict with the arguments"),
    ],
)
def test_another_file_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "args.yml").write_text(text)

    with pytest.raises(MlflowException, match=problem):
        read_zoo_yaml(tmp_path / "args.yml")
