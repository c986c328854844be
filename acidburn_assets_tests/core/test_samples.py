"""Samples of members: what is chosen depends on the members alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from acidburn_assets.core.samples import MemberSample, Place, rows_by_shard

MEMBERS = st.lists(
    st.tuples(st.binary(min_size=16, max_size=16), st.integers(0, 3), st.booleans()),
    unique_by=lambda member: member[0],
    max_size=40,
)


def sample_of(members, *, n_members, n_shards=1, wanted=()):
    sample = MemberSample(n_members=n_members, wanted=wanted)
    for shard in range(n_shards):
        part = members[shard::n_shards]
        sample.add(
            f"d/{shard:06d}",
            [chunk_id for chunk_id, _, _ in part],
            np.array([cluster for _, cluster, _ in part], dtype=np.int32),
            np.array([is_noise for _, _, is_noise in part], dtype=bool),
        )
    return sample


@given(members=MEMBERS, n_members=st.integers(1, 5), n_shards=st.integers(1, 4))
def test_the_smallest_ids_of_each_cluster_are_chosen_however_they_are_cut(
    members, n_members, n_shards
):
    chosen = sample_of(members, n_members=n_members, n_shards=n_shards).members()
    found = {cluster: [place.chunk_id for place in places] for cluster, places in chosen.items()}
    expected = {}
    for cluster in range(4):
        own = sorted(one for one, of, is_noise in members if of == cluster and not is_noise)
        if own:
            expected[cluster] = own[:n_members]
    assert found == expected


def test_noise_is_found_but_no_member():
    noise, member = b"n" * 16, b"m" * 16
    sample = sample_of([(noise, 0, True), (member, 0, False)], n_members=5, wanted=[noise])
    assert [place.chunk_id for place in sample.members()[0]] == [member]
    assert sample.found == {noise: Place(noise, "d/000000", 0)}


def test_rows_are_rising_and_each_once():
    places = [Place(b"a", "d/000001", 7), Place(b"b", "d/000001", 2), Place(b"a", "d/000001", 7)]
    rows = rows_by_shard(places)
    assert {shard: found.tolist() for shard, found in rows.items()} == {"d/000001": [2, 7]}
