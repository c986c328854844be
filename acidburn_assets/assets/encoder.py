"""`encoder/model`: the embedding model in use; observing it says what its files are now.

A model's name says little: a folder's files change, a hub's newest commit moves. What is embedded
depends on the fingerprint, which is observed whenever something is made with the model.
"""

import dagster as dg

from acidburn_assets.assets import specs
from acidburn_assets.core.datasets import RESERVED
from acidburn_assets.io_managers import versions
from acidburn_assets.resources import EncoderResource

KEY = specs.key(RESERVED, "model")


def source() -> dg.SourceAsset:
    """The node; there is one for all datasets."""

    @dg.observable_source_asset(
        key=KEY,
        group_name=RESERVED,
        tags={"dagster/kind/huggingface": ""},
        description="The embedding model: weights, tokenizer, pooling and prompts.",
    )
    def observe(encoder: EncoderResource) -> dg.DataVersion:
        return dg.DataVersion(encoder.card().fingerprint)

    return observe


def observe_in_run(instance: dg.DagsterInstance, encoder: EncoderResource) -> None:
    """Records which model a run is about to use, before it makes anything."""
    versions.observe_revision(instance, KEY, encoder.card().fingerprint)
