"""`acidburn unload`: a pool leaves Postgres, and comes back from the bucket."""

from acidburn_assets import settings
from acidburn_assets.adapters.postgres import count_vectors
from acidburn_assets.runtime import backends
from acidburn_assets_tests import samples
from acidburn_assets_tests.worlds import World, acidburn


def served(pool: str) -> int:
    """Vectors of a pool in Postgres."""
    return count_vectors(backends.connect_postgres(settings.load()), pool)


def test_a_pool_is_removed_and_loaded_again_from_the_bucket(copied_world: World) -> None:
    before = copied_world.snapshot()
    n_served, n_others = served("reference"), served("library")
    finished = acidburn("unload", "reference", "--yes")
    assert finished.code == 0, finished.err
    assert f"chunk_embeddings: {n_served} rows removed" in finished.out.splitlines()
    assert (served("reference"), served("library")) == (0, n_others)
    asked = acidburn("ask", samples.QUESTION, "--pool", "reference")
    assert asked.code == 1
    assert "nothing of the pool 'reference' is in Postgres" in asked.err
    loaded = acidburn("materialize", "reference")
    assert loaded.code == 0, loaded.err
    assert served("reference") == n_served
    assert copied_world.snapshot().changed_since(before) <= {"reference/retrieval_report.json"}
    assert acidburn("ask", "How do I castle?", "--pool", "reference").code == 0


def test_a_pool_that_is_not_there_is_named(world: World) -> None:
    finished = acidburn("unload", "libary", "--yes")
    assert finished.code == 1
    assert finished.out == ""
    assert finished.err.startswith("acidburn: nothing of the pool 'libary' is in Postgres")


def test_nothing_is_removed_without_a_yes(world: World) -> None:
    finished = acidburn("unload", "reference")
    assert finished.code != 0
    assert finished.out == ""
    assert served("reference") > 0
