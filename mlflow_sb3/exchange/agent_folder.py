"""Find the files of an agent that SB3, rl_zoo3 or huggingface_sb3 wrote."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from mlflow.exceptions import MlflowException

from mlflow_sb3.algorithms.algorithms import ALGORITHMS
from mlflow_sb3.exchange.zoo_yaml import read_zoo_yaml

ARGS_YAML = "args.yml"
"""rl_zoo3's file with the arguments of a training."""
CONFIG_YAML = "config.yml"
"""rl_zoo3's file with the hyperparameters of a training."""
ZOO_STATISTICS = "vecnormalize.pkl"
HUB_STATISTICS = "vec_normalize.pkl"
METRICS_ZIP = "train_eval_metrics.zip"
"""File of a Hugging Face repository that is no agent."""
_RESULTS_JSON = "results.json"
_BEST_ZIP = "best_model.zip"
_DATA = "data"
"""File in SB3's zip file with the attributes of the algorithm."""
_MEANINGS = {"algo": "algorithm", "env": "environment"}


@dataclass(frozen=True)
class AgentFolder:
    """The files of an agent, and what they say about it."""

    archive: Path
    """SB3's zip file, or a folder with its content."""
    algo: str
    """Key of ``ALGORITHMS``."""
    env_id: str
    statistics: Path | None = None
    """Pickle file of the ``VecNormalize``. None if the agent has none."""
    args: dict[str, Any] = field(default_factory=dict)
    """Content of ``args.yml``. Empty if there is no such file."""
    config: dict[str, Any] = field(default_factory=dict)
    """Content of ``config.yml``. Empty if there is no such file."""
    claimed_return: str = ""
    """Mean return in ``results.json``, which may be wrong. Empty if there is no such file."""

    def open_archive(self) -> io.BytesIO:
        """Return SB3's zip file. A folder with its content is packed again."""
        if self.archive.is_file():
            return io.BytesIO(self.archive.read_bytes())
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for path in sorted(self.archive.iterdir()):
                # Without the time of the file, so that equal content has an equal digest.
                archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes())
        packed.seek(0)
        return packed


def find_agent(path: Path, *, algo: str | None = None, env_id: str | None = None) -> AgentFolder:
    """Find the files of an agent.

    Args:
        path: SB3's zip file, or a folder of rl_zoo3 or of a Hugging Face repository. Of a zip file
            in such a folder, the other files in the folder are used too.
        algo: Key of ``ALGORITHMS``. By default, what the files say.
        env_id: Gymnasium id. By default, what the files say.

    Raises:
        MlflowException: There is no agent or more than one, a YAML file cannot be read, the
            statistics are missing, or the files do not name the algorithm or the environment.
    """
    if not path.exists():
        raise MlflowException.invalid_parameter_value(
            f"{str(path)!r} does not exist. Pass a zip file of SB3, a folder that rl_zoo3 wrote, "
            "such as logs/ppo/CartPole-v1_1, or a copy of a Hugging Face repository."
        )
    folder = path if path.is_dir() else path.parent
    archive = _find_archive(path) if path.is_dir() else path
    settings = _find_settings(folder)
    is_zoo = settings != folder
    args = _read_yaml(settings / ARGS_YAML)
    config = _read_yaml(settings / CONFIG_YAML) if args or is_zoo else {}
    card = _read_card(folder / "README.md")
    algo = algo or args.get("algo") or _guess_algo(archive, card)
    env_id = env_id or args.get("env") or card.get("env") or _guess_env_id(archive, algo)
    if env_id is None and is_zoo:
        env_id = settings.name
    if algo is None or env_id is None:
        name = "algo" if algo is None else "env"
        example = "'ppo'" if algo is None else "'CartPole-v1'"
        raise MlflowException.invalid_parameter_value(
            f"The files of {str(path)!r} do not name the {_MEANINGS[name]} of the agent. "
            f"Pass {name}, such as {name}={example}."
        )
    return AgentFolder(
        archive,
        algo,
        env_id,
        _find_statistics(settings, config),
        args,
        config,
        _read_claim(folder / _RESULTS_JSON),
    )


def _find_archive(folder: Path) -> Path:
    """Return SB3's zip file in a folder, or the folder with its content."""
    archives = sorted(
        path
        for path in folder.glob("*.zip")
        if path.name != METRICS_ZIP and not path.match("rl_model_*_steps.zip")
    )
    if folder / _BEST_ZIP in archives:
        return folder / _BEST_ZIP
    unpacked = sorted(path.parent for path in folder.glob(f"*/{_DATA}"))
    found = archives or unpacked
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise MlflowException.invalid_parameter_value(
            f"{str(folder)!r} has several agents: {names}. Pass the path of one of them."
        )
    raise MlflowException.invalid_parameter_value(
        f"{str(folder)!r} has no zip file of SB3. Pass the folder of one training, such as "
        "logs/ppo/CartPole-v1_1, or the path of a zip file."
    )


def _find_settings(folder: Path) -> Path:
    """Return the folder with the YAML files and the statistics.

    A Hugging Face repository has them at the top. rl_zoo3 writes them to a subfolder with the name
    of the environment.
    """
    if (folder / ARGS_YAML).exists():
        return folder
    for path in sorted(folder.glob(f"*/{CONFIG_YAML}")):
        name = path.parent.name
        if (folder / f"{name}.zip").exists() or folder.name.startswith(f"{name}_"):
            return path.parent
    return folder


def _read_yaml(path: Path) -> dict[str, Any]:
    return read_zoo_yaml(path) if path.exists() else {}


def _find_statistics(settings: Path, config: dict[str, Any]) -> Path | None:
    """Return the statistics of the agent.

    Like rl_zoo3, ignore them if ``config.yml`` does not have ``normalize``.
    """
    names = (ZOO_STATISTICS, HUB_STATISTICS)
    found = [settings / name for name in names if (settings / name).exists()]
    if not config:
        return found[0] if found else None
    if not config.get("normalize"):
        return None
    if not found:
        raise MlflowException.invalid_parameter_value(
            f"{settings / CONFIG_YAML} has normalize={config['normalize']!r}, but the statistics "
            f"are missing. Add {ZOO_STATISTICS} to {str(settings)!r}."
        )
    return found[0]


def _guess_algo(archive: Path, card: dict[str, str]) -> str | None:
    """Return the algorithm that the file, its folder or the model card names."""
    by_length = sorted(ALGORITHMS, key=len, reverse=True)
    for algo in by_length:
        if archive.name.lower().startswith(f"{algo}-"):
            return algo
    # rl_zoo3 writes logs/ppo/CartPole-v1_1/best_model.zip.
    folder = archive.absolute().parent.parent.name
    return folder if folder in ALGORITHMS else card.get("algo")


def _guess_env_id(archive: Path, algo: str | None) -> str | None:
    """Return the environment in a file name such as ``ppo-CartPole-v1.zip``."""
    name = archive.name.removesuffix(".zip")
    prefix = f"{algo}-"
    return name[len(prefix) :] if name.lower().startswith(prefix) else None


def _read_card(path: Path) -> dict[str, str]:
    """Return the algorithm and the environment in the header of a model card.

    Hugging Face names them as the model and the data set of the first result.
    """
    if not path.exists():
        return {}
    _, mark, rest = path.read_text(errors="replace").partition("---\n")
    try:
        model = yaml.safe_load(rest.partition("\n---")[0])["model-index"][0] if mark else {}
        name = str(model["name"]).lower()
        env_id = str(model["results"][0]["dataset"]["name"])
    except (yaml.YAMLError, LookupError, TypeError):
        return {}
    by_class = {entry.class_name.lower(): algo for algo, entry in ALGORITHMS.items()}
    algo = by_class.get(name)
    return {"env": env_id} | ({} if algo is None else {"algo": algo})


def _read_claim(path: Path) -> str:
    """Return the mean return in ``results.json`` with its standard deviation."""
    try:
        results = json.loads(path.read_text())
        return f"{float(results['mean_reward']):.2f} +/- {float(results['std_reward']):.2f}"
    except (OSError, LookupError, TypeError, ValueError):
        return ""
