"""Opens the query engine of a pool from the settings, with the pools that verify it."""

from acidburn_assets.adapters.object_store import ObjectStore
from acidburn_assets.adapters.postgres import Postgres, pool_state
from acidburn_assets.core import keys
from acidburn_assets.core.datasets import Pool
from acidburn_assets.runtime import backends
from acidburn_assets.runtime.search import Engine
from acidburn_assets.settings import Settings


def open_engine(
    settings: Settings,
    name: str | None,
    *,
    patience_seconds: float = backends.TERMINAL_PATIENCE_SECONDS,
) -> Engine:
    """The query engine of a pool.

    Pools for verification are asked too where all that searching them takes has been made.

    Args:
        settings: registry, store, database and model.
        name: of the pool; None: the only knowledge pool.
        patience_seconds: how long a bucket that fails is tried again.

    Raises:
        ConfigError: no such pool, or several knowledge pools and none named.
        NotMaterialized, ModelError: as `Engine`.
    """
    # first of all: the model takes seconds to load
    pool = settings.registry.choose_pool(name)
    store = backends.open_store(settings, patience_seconds=patience_seconds)
    postgres = backends.open_postgres(settings)
    return Engine(
        store=store,
        postgres=postgres,
        encoder=backends.load_encoder(settings),
        pool=pool.name,
        verification=[
            other.name
            for other in settings.registry.pools.values()
            if other.tier == "verification" and other != pool and _is_made(store, postgres, other)
        ],
        advisor=backends.open_advisor(settings, store),
        usd_per_question=settings.acidburn_ask_usd_per_question,
    )


def _is_made(store: ObjectStore, postgres: Postgres, pool: Pool) -> bool:
    state = pool_state(postgres, pool.name)
    return (state is not None and state.n_chunks > 0) and all(
        store.head(keys.object_key(pool.name, asset, suffix=suffix)) is not None
        for asset, suffix in (
            ("cluster_map", ".json"),
            ("centroids", ".parquet"),
            ("lexicon", ".parquet"),
            ("cell_terms", ".parquet"),
        )
    )
