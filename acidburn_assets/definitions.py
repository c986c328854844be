"""The only wiring: settings and registry in, Dagster definitions out.

Loads with an empty environment, in about a second, without importing a model's framework.
"""

import logging
from collections.abc import Mapping
from typing import Any

import dagster as dg

from acidburn_assets import asset_checks, settings
from acidburn_assets.assets import Definition, dataset_assets, pool_assets, shared_assets
from acidburn_assets.io_managers.objects import ParquetIOManagerFactory, RecordIOManagerFactory
from acidburn_assets.io_managers.slices import SliceIOManagerFactory
from acidburn_assets.resources import (
    EncoderResource,
    LabelerResource,
    PostgresResource,
    SourcesResource,
    StoreResource,
)


def build_resources(configured: settings.Settings) -> dict[str, Any]:
    """Every resource and I/O manager, as the settings say.

    Args:
        configured: read once by the caller.
    """
    store = StoreResource(url=configured.store_url)
    postgres = PostgresResource(target=configured.postgres_target)
    return {
        "store": store,
        "postgres": postgres,
        "sources": SourcesResource(),
        "encoder": EncoderResource(
            model=configured.acidburn_model,
            revision=configured.acidburn_model_revision,
            device=configured.acidburn_device,
            batch_tokens=configured.acidburn_batch_tokens,
        ),
        "labeler": LabelerResource(
            model=configured.acidburn_label_model,
            base_url=configured.acidburn_label_base_url,
            budget_usd=configured.acidburn_label_budget_usd,
        ),
        "tables": ParquetIOManagerFactory(objects=store),
        "records": RecordIOManagerFactory(objects=store),
        "slices": SliceIOManagerFactory(postgres=postgres),
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
    return dg.Definitions(
        assets=assets,
        asset_checks=[
            check for pool in registry.pools.values() for check in asset_checks.build(pool)
        ],
        resources={**build_resources(configured), **(overrides or {})},
        # one process a run: a killed run leaves no child behind, and a model is loaded once
        executor=dg.in_process_executor,
        # a run of the command line names this logger; re-executed from the UI it has no display
        loggers={"progress": _silent_logger(), **(loggers or {})},
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What `workspace.yaml` points at."""
    return build_defs()
