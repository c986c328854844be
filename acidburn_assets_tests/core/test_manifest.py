import pytest

from acidburn_assets.core.errors import ModelError
from acidburn_assets.core.manifest import MadeBy, check_models

OURS = MadeBy("aaaa", 384)


def test_shards_of_one_model_may_be_sealed() -> None:
    check_models({"000000": OURS, "000001": OURS}, OURS, dataset="notes")


def test_shards_of_other_models_and_dimensions_are_named() -> None:
    shards = {
        "000000": OURS,
        "000001": MadeBy("bbbb", 1024),
        "000002": MadeBy("aaaa", 8),
        "000003": MadeBy("bbbb", 1024),
    }
    with pytest.raises(ModelError) as refused:
        check_models(shards, OURS, dataset="notes")
    said = str(refused.value)
    assert said.startswith("3 of 4 shards of 'notes' were embedded by another model than the")
    assert "bbbb (1024-d) made 2: 000001, 000003; aaaa (8-d) made 1: 000002. " in said
    assert "Materialize notes/embeddings of these shards again" in said


def test_many_shards_are_not_all_named() -> None:
    shards = {f"{index:06d}": MadeBy("bbbb", 384) for index in range(1_000)}
    with pytest.raises(
        ModelError, match=r"made 1000: 000000, .*000004, …\. Materialize"
    ) as refused:
        check_models(shards, OURS, dataset="notes")
    assert len(str(refused.value)) < 500
