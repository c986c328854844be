import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acidburn_assets.adapters import encoder, models, tokenizer
from acidburn_assets.core.errors import ConfigError, ModelError, ServiceUnavailable
from acidburn_assets_tests.adapters import tiny_model
from acidburn_assets_tests.adapters.sources import hub as fake_hub
from acidburn_assets_tests.adapters.sources.hub import TOKEN, Hub

NAME = "owner/tiny"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def editable(tiny: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny, tmp_path / "tiny")


class _ModelHandler(fake_hub._Handler):
    """Models have no prefix in the path of a file; weights are kept by their sha256."""

    def _answer(self) -> None:
        if not self.path.startswith("/api/"):
            self.path = "/datasets" + self.path
        super()._answer()

    def _send_json(self, answer: Any) -> None:
        weights = [entry for entry in answer if str(entry).find(".safetensors'") > 0]
        for entry in weights if isinstance(answer, list) else []:
            content = self.server.repositories[NAME].commits[self.server.sha][entry["path"]]
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"size": len(content), "oid": digest, "pointerSize": 130}
        super()._send_json(answer)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    # the client read these when it was imported; only its module can be told otherwise
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    # its retries wait for up to half a minute
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with fake_hub.running() as hub:
        hub.RequestHandlerClass = _ModelHandler
        yield hub


def push(hub: Hub, folder: Path, **extra: bytes) -> str:
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    hub.sha = hub.repository(NAME).push(files | extra)
    return hub.sha


def test_the_packaged_model_is_found_without_importing_its_package() -> None:
    files = models.find("minilm")
    assert (files.name, files.revision, files.is_on_hub) == ("minilm", "", False)
    assert (files.folder / "model.safetensors").is_file()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_PACKAGE", "no_such_package")
    with pytest.raises(ModelError, match="needs the package no-such-package; install it"):
        models.find("minilm")


def test_a_folder_is_called_by_its_own_name_only(tiny: Path) -> None:
    assert models.find(str(tiny)) == models.ModelFiles("tiny", "", tiny)


def test_a_folder_may_be_relative(tiny: Path) -> None:
    assert models.find(os.path.relpath(tiny)).folder == tiny


@pytest.mark.parametrize("model", ["nope", "/no/such/folder", "./nope", "a b/c", ""])
def test_what_is_no_model_is_told_what_would_be(model: str) -> None:
    with pytest.raises(ModelError, match=f"no model {model!r}: ACIDBURN_MODEL must be 'minilm'"):
        models.find(model)


def test_only_models_of_the_hub_have_revisions(tiny: Path) -> None:
    for model in ("minilm", str(tiny)):
        with pytest.raises(ConfigError, match="has no revisions"):
            models.find(model, revision="main")


def test_minilm_is_read_as_its_files_say() -> None:
    config = models.read_config(models.find("minilm"))
    assert config == models.ModelConfig(
        dim=384,
        pooling="mean",
        max_input_tokens=256,
        is_lowercased=False,
        query_prompt="",
        document_prompt="",
        transformer=".",
        weighted=(".",),
    )


@pytest.mark.parametrize(
    ("pooling", "dim", "name"),
    [
        ({"pooling_mode_cls_token": True}, 32, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, 32, "mean"),
        ({"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}, 64, "cls+max"),
        ({"pooling_mode": "lasttoken"}, 32, "lasttoken"),
        ({"pooling_mode": ["mean", "cls"]}, 64, "mean+cls"),
        ({}, 32, "mean"),
    ],
)
def test_pooling_is_read_in_the_old_and_the_new_spelling(
    editable: Path, pooling: dict[str, Any], dim: int, name: str
) -> None:
    write_json(editable / "1_Pooling" / "config.json", {"embedding_dimension": 32, **pooling})
    config = models.read_config(models.find(str(editable)))
    assert (config.dim, config.pooling) == (dim, name)


def test_a_model_may_be_cut_to_its_first_values(editable: Path) -> None:
    write_json(editable / "config_sentence_transformers.json", {"truncate_dim": 8})
    assert models.read_config(models.find(str(editable))).dim == 8


@pytest.mark.parametrize(
    ("declared", "positions", "model_type", "limit"),
    [
        (None, 66, "xlm-roberta", 64),
        (50, 66, "xlm-roberta", 50),
        (66, 66, "xlm-roberta", 64),
        (None, 66, "bert", 66),
        (10**30, 66, "bert", 66),
        (512, None, "t5", 512),
        (512, -1, "xlnet", 512),
    ],
)
def test_a_model_reads_what_its_positions_and_its_settings_allow(
    editable: Path, declared: int | None, positions: int | None, model_type: str, limit: int
) -> None:
    (editable / "tokenizer_config.json").unlink()
    write_json(editable / "sentence_bert_config.json", {"max_seq_length": declared})
    architecture = {"model_type": model_type, "pad_token_id": 1}
    if positions is not None:
        architecture["max_position_embeddings"] = positions
    write_json(editable / "config.json", architecture)
    assert models.read_config(models.find(str(editable))).max_input_tokens == limit


def test_a_model_without_any_limit_is_refused(editable: Path) -> None:
    (editable / "tokenizer_config.json").unlink()
    write_json(editable / "config.json", {"model_type": "t5"})
    with pytest.raises(ModelError, match="how many tokens it reads; write max_seq_length"):
        models.read_config(models.find(str(editable)))


def test_a_folder_of_another_kind_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no sentence-transformers model: .* has no modules.json"):
        models.read_config(models.find(str(tmp_path)))


@pytest.mark.parametrize("kinds", [["StaticEmbedding"], ["Transformer", "Pooling", "LSTM"], []])
def test_modules_we_cannot_feed_are_refused(editable: Path, kinds: list[str]) -> None:
    listed = [{"type": f"sentence_transformers.models.{kind}", "path": ""} for kind in kinds]
    write_json(editable / "modules.json", listed)
    with pytest.raises(ModelError, match=re.escape(f"has the modules {kinds}")):
        models.read_config(models.find(str(editable)))


def test_files_that_are_missing_or_broken_are_named(editable: Path) -> None:
    (editable / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json' is not JSON"):
        models.read_config(models.find(str(editable)))
    (editable / "config.json").unlink()
    with pytest.raises(ModelError, match=r"is incomplete: .*config\.json' is missing"):
        models.read_config(models.find(str(editable)))


def test_weights_are_hashed_whole_and_safetensors_are_preferred(editable: Path) -> None:
    (editable / "pytorch_model.bin").write_bytes(b"not these")
    card = encoder.describe_model(str(editable))
    content = (editable / "model.safetensors").read_bytes()
    assert card.weights_sha256 == hashlib.sha256(content).hexdigest()


def test_a_changed_weight_file_is_another_model(editable: Path) -> None:
    before = encoder.describe_model(str(editable)).fingerprint
    weights = editable / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    os.utime(weights, ns=(1, 1))
    assert encoder.describe_model(str(editable)).fingerprint != before


def test_weights_in_pieces_are_hashed_together(editable: Path) -> None:
    (editable / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors"}}
    write_json(editable / "model.safetensors.index.json", index)
    for number in (1, 2):
        (editable / f"model-{number}.safetensors").write_bytes(b"%d" % number)
    files = models.find(str(editable))
    names = models.weight_names(files, models.read_config(files))
    assert names == ["model-1.safetensors", "model-2.safetensors"]
    before = encoder.describe_model(str(editable)).fingerprint
    (editable / "model-2.safetensors").write_bytes(b"22")
    assert encoder.describe_model(str(editable)).fingerprint != before


def test_a_model_without_weights_says_where_they_would_be(editable: Path) -> None:
    (editable / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no weights: 'model\.safetensors' is not in"):
        encoder.describe_model(str(editable))


def test_a_model_of_the_hub_is_described_without_its_weights(hub: Hub, tiny: Path) -> None:
    sha = push(hub, tiny)
    card = encoder.describe_model(NAME, hub_endpoint=hub.endpoint)
    weights = (tiny / "model.safetensors").read_bytes()
    assert (card.name, card.revision) == (NAME, sha)
    assert card.fingerprint == encoder.describe_model(str(tiny)).fingerprint
    assert hub.sent_bytes < len(weights)


def test_a_model_of_the_hub_is_downloaded_once_and_then_needs_no_hub(
    hub: Hub, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = push(hub, tiny, **{"pytorch_model.bin": b"not these", "onnx/model.onnx": b"nor these"})
    loaded = encoder.load_encoder(NAME, device="cpu", hub_endpoint=hub.endpoint)
    assert loaded.card == encoder.describe_model(NAME, hub_endpoint=hub.endpoint)
    folder = models.find(NAME, hub_endpoint=hub.endpoint).folder
    assert not (folder / "pytorch_model.bin").exists()
    sent_bytes = hub.sent_bytes
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    again = encoder.load_encoder(NAME, revision=sha, device="cpu", hub_endpoint=hub.endpoint)
    assert again.card == loaded.card
    assert hub.sent_bytes == sent_bytes


def test_a_tokenizer_of_the_hub_comes_without_the_weights(hub: Hub, tiny: Path) -> None:
    push(hub, tiny)
    loaded = tokenizer.load_tokenizer(NAME, revision="main", hub_endpoint=hub.endpoint)
    assert loaded.fingerprint == tokenizer.load_tokenizer(str(tiny)).fingerprint
    assert hub.sent_bytes < (tiny / "model.safetensors").stat().st_size


def test_an_unknown_model_of_the_hub_is_named(hub: Hub) -> None:
    with pytest.raises(ModelError, match="no model 'owner/nope' on the hub, or it is private"):
        models.find("owner/nope", hub_endpoint=hub.endpoint)


def test_an_unknown_revision_is_named(hub: Hub, tiny: Path) -> None:
    push(hub, tiny)
    with pytest.raises(ModelError, match="'owner/tiny' has no revision 'v9'"):
        models.find(NAME, revision="v9", hub_endpoint=hub.endpoint)


def test_a_gated_model_asks_for_its_terms_and_a_token(hub: Hub, tiny: Path) -> None:
    push(hub, tiny)
    hub.repository(NAME).is_gated = True
    for token in ("", "hf_wrong"):
        with pytest.raises(ModelError, match=r"gated: accept its terms .* HF_TOKEN") as refused:
            models.find(NAME, hf_token=token, hub_endpoint=hub.endpoint)
        assert "hf_wrong" not in str(refused.value)
    assert models.find(NAME, hf_token=TOKEN, hub_endpoint=hub.endpoint).is_on_hub


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_in_trouble_may_be_asked_again(hub: Hub, status: int) -> None:
    hub.failures["/api/"] = status
    with pytest.raises(ServiceUnavailable, match=f"answered HTTP {status} for model 'owner/tiny'"):
        models.find(NAME, hub_endpoint=hub.endpoint)


@pytest.mark.parametrize("status", [401, 403])
def test_a_hub_that_refuses_is_not_asked_again(hub: Hub, status: int) -> None:
    hub.failures["/api/"] = status
    with pytest.raises(ModelError, match="HF_TOKEN"):
        models.find(NAME, hub_endpoint=hub.endpoint)


def test_a_hub_in_trouble_during_the_download_may_be_asked_again(hub: Hub, tiny: Path) -> None:
    push(hub, tiny)
    hub.failures["/resolve/"] = 500
    with pytest.raises(ServiceUnavailable, match="for model 'owner/tiny'"):
        models.find(NAME, hub_endpoint=hub.endpoint)


def assert_says_how_to_fetch(said: str, cache: Path) -> None:
    command = "hf download owner/tiny --include '*.json' --include '*.txt' --include '*.model' "
    command += "--include '*.safetensors' --include '*pytorch_model*.bin'"
    assert f"`{command}`" in said
    assert f"fills {str(cache / 'hub' / 'models--owner--tiny')!r}, from where it is read" in said
    assert "set ACIDBURN_MODEL=FOLDER" in said
    assert "ACIDBURN_MODEL=minilm, which comes with the package" in said


def test_no_network_may_pass(hub: Hub, tmp_path: Path) -> None:
    hub.server_close()
    with pytest.raises(ServiceUnavailable, match="hub did not answer for model") as refused:
        models.find(NAME, hub_endpoint=hub.endpoint)
    assert_says_how_to_fetch(str(refused.value), tmp_path)


def test_offline_says_how_to_fetch_and_where_it_would_be_read(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"HF_HUB_OFFLINE forbids .* unset it, or") as refused:
        models.find(NAME, hub_endpoint=hub.endpoint)
    assert_says_how_to_fetch(str(refused.value), tmp_path)
    with pytest.raises(ModelError, match="hf download owner/tiny --revision v2 --include"):
        models.find(NAME, revision="v2", hub_endpoint=hub.endpoint)


def test_what_the_command_fetches_is_read_offline(
    hub: Hub, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command of the advice, by the client's own program, on a machine of its own."""
    sha = push(hub, tiny, **{"onnx/model.onnx": b"not wanted"})
    patterns = [*models._SMALL_FILES, *models._WEIGHT_FILES]
    command = ["hf", "download", NAME, *(part for one in patterns for part in ("--include", one))]
    environment = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HOME": str(tmp_path),
        "PATH": "/usr/bin:/bin",
    }
    program = str(Path(sys.executable).with_name("hf"))
    finished = subprocess.run(
        [program, *command[1:]], env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    loaded = encoder.load_encoder(NAME, device="cpu", hub_endpoint=hub.endpoint)
    assert (loaded.card.name, loaded.card.revision) == (NAME, sha)


@pytest.mark.parametrize("kinds", [["Transformer"], ["Transformer", "Normalize"]])
def test_a_model_without_pooling_is_told_so(editable: Path, kinds: list[str]) -> None:
    listed = [{"type": f"sentence_transformers.models.{kind}", "path": ""} for kind in kinds]
    write_json(editable / "modules.json", listed)
    with pytest.raises(ModelError, match=r"'tiny' has no Pooling among its modules.* Add the one"):
        models.read_config(models.find(str(editable)))


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
