"""The only wiring: settings and registry in, Dagster definitions out.

Loads with an empty environment, in about a second, without importing a model's framework.
"""

import logging
from collections.abc import Mapping
from typing import Any

import dagster as dg

from acidburn_assets import asset_checks, jobs, settings
from acidburn_assets.assets import Definition, dataset_assets, pool_assets, shared_assets
from acidburn_assets.automation import Healer, Policy
from acidburn_assets.core.failures import Budget
from acidburn_assets.io_managers.base import Managers
from acidburn_assets.io_managers.objects import ParquetIOManagerFactory, RecordIOManagerFactory
from acidburn_assets.io_managers.slices import SliceIOManagerFactory
from acidburn_assets.resources import (
    ChunkerResource,
    EncoderResource,
    LabelerResource,
    PostgresResource,
    SourcesResource,
    StoreResource,
)
from acidburn_assets.runtime import backends
from acidburn_assets.runtime.backends import PATIENCE_SECONDS

_TICK_PATIENCE_SECONDS = 10
"""A tick that waits for a bucket holds up what needs none; it comes again soon."""


def build_resources(
    configured: settings.Settings, *, patience_seconds: float = PATIENCE_SECONDS
) -> dict[str, Any]:
    """Every resource and I/O manager, as the settings say.

    Args:
        configured: read once by the caller.
        patience_seconds: how long a bucket that does not answer is tried again.
    """
    store = StoreResource(url=configured.store_url, patience_seconds=patience_seconds)
    postgres = PostgresResource(target=configured.postgres_target)
    return {
        "store": store,
        "postgres": postgres,
        "sources": SourcesResource(),
        "encoder": EncoderResource(
            model=configured.acidburn_model,
            revision=configured.acidburn_model_revision,
            device=configured.acidburn_device,
            dtype=configured.acidburn_dtype,
            batch_tokens=configured.acidburn_batch_tokens,
            server_url=configured.acidburn_embeddings_url,
            server_model=configured.acidburn_embeddings_model,
            server_batch=configured.acidburn_embeddings_batch,
            server_requests=configured.acidburn_embeddings_requests,
        ),
        "chunker": ChunkerResource(
            model=configured.acidburn_model,
            revision=configured.acidburn_model_revision,
            processes=configured.acidburn_chunk_processes,
        ),
        "labeler": LabelerResource(
            model=configured.acidburn_label_model,
            base_url=configured.acidburn_label_base_url,
            budget_usd=configured.acidburn_label_budget_usd,
        ),
        "tables": ParquetIOManagerFactory(objects=store),
        "records": RecordIOManagerFactory(objects=store),
        "slices": SliceIOManagerFactory(postgres=postgres, objects=store),
    }


def _silent_logger() -> dg.LoggerDefinition:
    logger = logging.Logger("acidburn.progress")
    logger.addHandler(logging.NullHandler())
    return dg.LoggerDefinition(lambda _: logger, description="Heard by the command line only.")


def build_defs(
    overrides: Mapping[str, Any] | None = None,
    *,
    loggers: Mapping[str, dg.LoggerDefinition] | None = None,
) -> dg.Definitions:
    """The whole graph of the registry that the settings name.

    Args:
        overrides: resources that replace the configured ones, by name.
        loggers: besides Dagster's own.

    Raises:
        ConfigError: a setting or the registry is wrong.
    """
    configured = settings.load()
    registry = configured.registry
    assets: list[Definition] = shared_assets()
    for dataset in registry.datasets.values():
        assets += dataset_assets(dataset, registry, configured)
    for pool in registry.pools.values():
        assets += pool_assets(pool, registry, configured)
    healer = Healer(
        lambda: Managers(build_resources(configured, patience_seconds=_TICK_PATIENCE_SECONDS)),
        Policy(
            automation={
                **{dataset.name: dataset.automation for dataset in registry.datasets.values()},
                **{pool.name: pool.automation for pool in registry.pools.values()},
            },
            is_labelling_paid=bool(configured.xai_api_key.get_secret_value()),
        ),
        budget=Budget(wait_seconds=configured.acidburn_retry_seconds),
        interval_seconds=configured.acidburn_healing_seconds,
        listing_seconds=configured.acidburn_listing_seconds,
    )
    healed = [_heal(one, healer) for one in assets]
    resources = {**build_resources(configured), **(overrides or {})}
    return dg.Definitions(
        assets=healed,
        asset_checks=[
            *(check for pool in registry.pools.values() for check in asset_checks.build(pool)),
            *(
                asset_checks.build_quarantine(key)
                for one in assets
                if isinstance(one, dg.AssetsDefinition)
                for key in one.keys
            ),
        ],
        sensors=[healer.sensor([key for one in assets for key in _keys(one)])],
        jobs=jobs.build(
            lambda: Managers(build_resources(configured)),
            lambda: backends.open_store(configured),
            lambda: dg.Definitions(assets=healed, resources=resources).resolve_asset_graph(),
        ),
        schedules=jobs.schedules(),
        resources=resources,
        # one process a run: a killed run leaves no child behind, and a model is loaded once
        executor=dg.in_process_executor,
        # a run of the command line names this logger; re-executed from the UI it has no display
        loggers={"progress": _silent_logger(), **(loggers or {})},
    )


def _keys(definition: Definition) -> list[dg.AssetKey]:
    if isinstance(definition, dg.SourceAsset):
        return [definition.key]
    return sorted(definition.keys)


def _heal(definition: Definition, healer: Healer) -> Definition:
    """The same node, healed by itself; a source is nothing that could be made."""
    if isinstance(definition, dg.SourceAsset):
        return definition
    return definition.map_asset_specs(
        lambda spec: spec.replace_attributes(automation_condition=healer.condition())
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What `workspace.yaml` points at."""
    return build_defs()
