"""`acidburn doctor`: which back end is unusable, and how to mend it."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from acidburn_assets_tests.label_service import Service
from acidburn_assets_tests.s3_server import BUCKET, S3Key
from acidburn_assets_tests.worlds import World, acidburn

CHECKS = [
    "registry", "state folder", "object store", "Postgres", "model", "device", "labels", "answers",
]  # fmt: skip


def examine() -> tuple[int, dict[str, dict[str, object]]]:
    """Exit code and findings by name."""
    finished = acidburn("doctor", "--json")
    findings = [json.loads(line) for line in finished.out.splitlines()]
    return finished.code, {finding["name"]: finding for finding in findings}


def unusable(findings: dict[str, dict[str, object]]) -> list[str]:
    """Names of what cannot be used."""
    return [name for name, finding in findings.items() if not finding["is_usable"]]


def test_all_is_well_where_nothing_is_wrong(world: World) -> None:
    code, findings = examine()
    assert code == 0, findings
    assert list(findings) == CHECKS
    assert unusable(findings) == []
    assert "3 datasets" in str(findings["registry"]["remark"])
    assert "384-d" in str(findings["model"]["remark"])
    assert "keyless" in str(findings["labels"]["remark"])
    assert "keyless" in str(findings["answers"]["remark"])


def test_a_look_leaves_no_object(blank_world: World) -> None:
    assert acidburn("doctor").code == 0
    assert blank_world.snapshot().objects == {}


def test_a_person_sees_a_line_for_each(world: World) -> None:
    finished = acidburn("doctor")
    assert finished.code == 0
    assert [name for name in CHECKS if name not in finished.out] == []
    assert finished.err == ""


def test_a_postgres_that_is_away_is_named_and_the_rest_is_looked_at(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACIDBURN_POSTGRES", "host=127.0.0.1 port=1 dbname=nowhere password=hush")
    finished = acidburn("doctor")
    assert finished.code == 1
    assert finished.err == "Error: unusable: Postgres\n"
    code, findings = examine()
    assert (code, unusable(findings)) == (1, ["Postgres"])
    remark = str(findings["Postgres"]["remark"])
    assert "127.0.0.1:1" in remark
    assert "try again" in remark
    assert "hush" not in remark + finished.out


def test_a_broken_registry_is_named_and_the_rest_is_looked_at(copied_world: World) -> None:
    (copied_world.folder / "datasets.yaml").write_text("datasets: [")
    code, findings = examine()
    assert (code, unusable(findings)) == (1, ["registry"])
    assert "'datasets.yaml' is not YAML" in str(findings["registry"]["remark"])


def test_a_folder_that_cannot_be_written_is_named(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ACIDBURN_HOME", str(tmp_path / "file"))
    code, findings = examine()
    assert code == 1
    assert unusable(findings)[0] == "state folder"
    assert str(tmp_path / "file") in str(findings["state folder"]["remark"])


def test_a_wrong_key_id_leads_to_the_region_first(
    world: World, moto_endpoint: str, limited_key: S3Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B2 says InvalidAccessKeyId where the endpoint's region is another than the bucket's."""
    monkeypatch.setenv("B2_ENDPOINT", moto_endpoint)
    monkeypatch.setenv("B2_BUCKET", BUCKET)
    monkeypatch.setenv("B2_KEY_ID", "AKIAWRONG")
    monkeypatch.setenv("B2_APP_KEY", limited_key.secret)
    code, findings = examine()
    assert (code, unusable(findings)) == (1, ["object store"])
    remark = str(findings["object store"]["remark"])
    assert "the endpoint's region is not the bucket's" in remark
    assert moto_endpoint in remark
    assert limited_key.secret not in remark
    finished = acidburn("materialize", "manual")
    assert finished.code == 1
    (line,) = [line for line in finished.err.splitlines() if "InvalidAccessKeyId" in line]
    assert line.startswith("manual/plan: ")


def test_a_wrong_secret_is_told_apart_from_a_wrong_region(
    world: World, moto_endpoint: str, limited_key: S3Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B2_ENDPOINT", moto_endpoint)
    monkeypatch.setenv("B2_BUCKET", BUCKET)
    monkeypatch.setenv("B2_KEY_ID", limited_key.key_id)
    monkeypatch.setenv("B2_APP_KEY", "not-the-secret")
    code, findings = examine()
    assert (code, unusable(findings)) == (1, ["object store"])
    assert "B2_APP_KEY is not the secret" in str(findings["object store"]["remark"])


def test_a_model_that_is_nowhere_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACIDBURN_MODEL", "nobody/no-such-model")
    code, findings = examine()
    assert (code, unusable(findings)) == (1, ["model"])
    assert "nobody/no-such-model" in str(findings["model"]["remark"])


def test_an_embedding_server_that_is_away_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACIDBURN_EMBEDDINGS_URL", "http://127.0.0.1:1/v1")
    code, findings = examine()
    assert (code, unusable(findings)) == (1, ["device"])
    remark = str(findings["device"]["remark"])
    assert "the embedding server at http://127.0.0.1:1/v1 does not answer: no connection" in remark


def test_a_model_that_advises_is_asked_for_and_what_it_may_cost_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service()
    with closing(service):
        monkeypatch.setenv("XAI_API_KEY", "xai-5ecr3t")
        monkeypatch.setenv("ACIDBURN_LABEL_BASE_URL", service.url)
        code, findings = examine()
        assert code == 0, findings
        assert "at most $0.10 a question and $2.00 a day, of which $0.0000 are spent" in str(
            findings["answers"]["remark"]
        )
        monkeypatch.setenv("ACIDBURN_ASK_MODEL", "grok-4.7")
        code, findings = examine()
        assert (code, unusable(findings)) == (1, ["answers"])
        assert "check ACIDBURN_ASK_MODEL" in str(findings["answers"]["remark"])
        assert "xai-5ecr3t" not in str(findings)
        assert service.requests == []
        monkeypatch.setenv("ACIDBURN_ASK_BUDGET_USD", "0")
        code, findings = examine()
        assert code == 0
        assert "ACIDBURN_ASK_BUDGET_USD is 0" in str(findings["answers"]["remark"])
