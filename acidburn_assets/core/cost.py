"""What work and storage cost: tables of prices and rates, and the arithmetic on them.

Every table is dated by its source: prices move, so estimates order alternatives and catch mistakes
of size; they are not offers. What a dataset holds is `plan`'s to find out.
"""

from typing import NamedTuple

from acidburn_assets.core.term_weights import MAX_TERMS


class Architecture(NamedTuple):
    """The sizes of an encoder that decide how much arithmetic a token costs."""

    n_layers: int
    hidden: int
    feed_forward: int

    @property
    def n_gemm_params(self) -> int:
        """Weights that every token is multiplied with: four projections and two feed-forward
        matrices a layer; embeddings are looked up, not multiplied."""
        return self.n_layers * (4 * self.hidden**2 + 2 * self.hidden * self.feed_forward)


BGE_M3 = Architecture(n_layers=24, hidden=1024, feed_forward=4096)
MINILM = Architecture(n_layers=6, hidden=384, feed_forward=1536)

ARCHITECTURES = {
    "BAAI/bge-m3": BGE_M3,
    "minilm": MINILM,
    "sentence-transformers/all-MiniLM-L6-v2": MINILM,
}
"""Encoders whose sizes are known."""


class Gpu(NamedTuple):
    """A kind of rented box and how fast it embeds."""

    name: str
    n_gpus: int
    chunks_per_second: float  # bge-m3 and REFERENCE_TOKENS to a chunk
    usd_per_hour: float


REFERENCE_TOKENS = 2048

GPUS = (
    Gpu("RTX 4090", 1, 25.0, 0.35),
    Gpu("RTX 6000", 1, 25.0, 1.0),
    Gpu("4x A100 80GB", 4, 150.0, 5.0),
)
"""Source: measured on rented boxes with bge-m3, 2,048-token chunks and batch size 512."""

HOST_TOKENS_PER_SECOND = 600_000
"""A GPU is fed no faster: a small model waits for its tokenizer.
Source: measured, 98 to 125 ms on one core for 65,536 tokens (`tokenizers`)."""

BUCKET_USD_PER_TB_MONTH = 6.0
"""Source: Backblaze B2 pay-as-you-go, April 2026; a terabyte is 10^12 bytes."""

TEXT_ZSTD_RATIO = 0.33
"""Source: measured with zstd level 1 in Parquet: 0.26 to 0.27 (Python source), 0.33 (PEPs, RFCs),
0.34 (arXiv abstracts), 0.37 (newswire)."""

CHUNK_ROW_BYTES = 26.0
"""A row of the chunks table without its text. Source: measured 22 to 28, 16 of them the id."""

VECTOR_BYTES_PER_VALUE = 1771 / 1024
"""A value of a vector in the embeddings table, id included.
Source: measured, fp16 values in float32 with BYTE_STREAM_SPLIT and zstd at 1024-d."""

ASSIGNMENT_ROW_BYTES = 28.0
"""Chosen, not measured: id, two floats that hardly compress, cluster."""

TERM_BYTES = 3.5
"""A term of a chunk with its weight. Source: measured, 3.3 (PEPs, RFCs), 3.5 (arXiv abstracts)."""

_PAGE_BYTES = 8192
_PAGE_HEADER_BYTES = 24
_EMBEDDING_ROW_BYTES = 24 + 4 + 32 + 8 + 16  # header, line pointer, ids, two vectors
_SEARCHED_TERM_BYTES = 8
_EMBEDDING_INDEX_BYTES = 63  # primary key, cluster index
_TEXT_ROW_BYTES = 228  # without the text, with the primary key
_CLUSTER_ROW_BYTES = 123  # with the primary key
_TOAST_BYTES = 2000  # a longer text is compressed
_TOAST_RATIO = 0.62
"""Source for Postgres: its row layout, and measured with PostgreSQL 18 and pgvector 0.8.5: 2,794
bytes a row of 1,024-d vectors and 974 at 384-d without terms, 4,163 and 1,735 with those of texts
of 7,000 and 1,200 bytes; texts of 6,400 bytes (PEPs, RFCs) take 0.62 of
their size, other prose and code 0.41 (pglz) to 0.49 (lz4)."""


class PostgresPlan(NamedTuple):
    """A Supabase compute size."""

    name: str
    max_bytes: int  # recommended size of the database
    usd_per_month: float


POSTGRES_PLANS = (
    PostgresPlan("Free", 500 * 10**6, 0),
    PostgresPlan("Micro", 10 * 10**9, 10),
    PostgresPlan("Small", 50 * 10**9, 15),
    PostgresPlan("Medium", 100 * 10**9, 60),
    PostgresPlan("Large", 200 * 10**9, 110),
    PostgresPlan("XL", 500 * 10**9, 210),
    PostgresPlan("2XL", 10**12, 410),
    PostgresPlan("4XL", 2 * 10**12, 960),
    PostgresPlan("8XL", 4 * 10**12, 1870),
    PostgresPlan("12XL", 6 * 10**12, 2800),
    PostgresPlan("16XL", 10 * 10**12, 3730),
)
"""Source: Supabase's guide to compute and disk, November 2026. Disk is billed apart."""


def architecture_of(model: str, *, dim: int) -> Architecture:
    """The sizes of an encoder: known, or those usual for encoders of its dimension.

    BERT's rule holds for nearly every text encoder: 12 layers below 1,024 dimensions and 24 from
    there on, a feed-forward layer four times as wide. Source: Devlin et al. 2019, arXiv:1810.04805.

    Args:
        model: name, as in its card.
        dim: of its vectors.
    """
    usual = Architecture(n_layers=12 if dim < 1024 else 24, hidden=dim, feed_forward=4 * dim)
    return ARCHITECTURES.get(model, usual)


def flop_per_chunk(architecture: Architecture, n_tokens: float) -> float:
    """Floating point operations of one forward pass over a chunk.

    Args:
        architecture: of the encoder.
        n_tokens: of the chunk.

    Source: 2 FLOP per weight and token, and 4 x tokens x hidden per token and layer for attention;
    agrees with torch's FlopCounter on XLM-R large to 4 digits (1.649e12 at 2,048 tokens).
    """
    attention = 4 * n_tokens * architecture.hidden * architecture.n_layers
    return n_tokens * (2 * architecture.n_gemm_params + attention)


def chunks_per_second(gpu: Gpu, architecture: Architecture, *, tokens_per_chunk: float) -> float:
    """Rate at which a box embeds, scaled by arithmetic from what was measured with bge-m3.

    Args:
        gpu: kind of box.
        architecture: of the encoder.
        tokens_per_chunk: mean, above 0.
    """
    reference = flop_per_chunk(BGE_M3, REFERENCE_TOKENS)
    by_arithmetic = (
        gpu.chunks_per_second * reference / flop_per_chunk(architecture, tokens_per_chunk)
    )
    by_host = gpu.n_gpus * HOST_TOKENS_PER_SECOND / tokens_per_chunk
    return min(by_arithmetic, by_host)


def terms_in(n_text_bytes: float) -> float:
    """How many different terms a text has, by the law of Heaps.

    Source: fitted to two measurements: 88.6 in 1,207 bytes (arXiv abstracts), 315 in 7,129 (PEPs,
    RFCs).

    Args:
        n_text_bytes: UTF-8 bytes of the text.
    """
    return 0.559 * float(n_text_bytes**0.714)


def bucket_bytes(*, n_chunks: int, n_chunk_bytes: int, dim: int) -> int:
    """Size of a dataset's chunks, embeddings, term weights and assignments in the bucket.

    Args:
        n_chunks: rows of each table.
        n_chunk_bytes: UTF-8 bytes of all chunks' texts.
        dim: of the vectors.
    """
    if n_chunks == 0:
        return 0
    term_bytes = TERM_BYTES * terms_in(n_chunk_bytes / n_chunks)
    row_bytes = CHUNK_ROW_BYTES + dim * VECTOR_BYTES_PER_VALUE + ASSIGNMENT_ROW_BYTES + term_bytes
    return round(n_chunks * row_bytes + n_chunk_bytes * TEXT_ZSTD_RATIO)


def bucket_usd_per_month(n_bytes: int) -> float:
    """Price of keeping so many bytes in the bucket."""
    return n_bytes / 10**12 * BUCKET_USD_PER_TB_MONTH


def egress_usd(n_bytes: int) -> float:
    """Of reading so much out of the bucket, were none of it free.

    Source: Backblaze B2 pay-as-you-go, April 2026: $0.01 per GB beyond three times what is stored.
    """
    return n_bytes / 1e9 * 0.01


def postgres_bytes(*, n_chunks: int, n_chunk_bytes: int, dim: int, stores_text: bool = True) -> int:
    """Size of a dataset in Postgres, indexes included.

    Args:
        n_chunks: rows of each table.
        n_chunk_bytes: UTF-8 bytes of all chunks' texts.
        dim: of the vectors, at most 4,000.
        stores_text: whether the texts are there, or stay in the bucket.
    """
    if n_chunks == 0:
        return 0
    # a vector is not split between pages, so a row costs a page divided by the rows that fit
    text_bytes = n_chunk_bytes / n_chunks
    n_terms = min(MAX_TERMS, terms_in(text_bytes))
    row_bytes = _EMBEDDING_ROW_BYTES + 2 * dim + _SEARCHED_TERM_BYTES * n_terms
    # terms that do not fit a page beside the vector go elsewhere, and take as much there
    rows_per_page = max(1, int((_PAGE_BYTES - _PAGE_HEADER_BYTES) / row_bytes))
    embedding_bytes = _PAGE_BYTES / rows_per_page + _EMBEDDING_INDEX_BYTES
    if not stores_text:
        text_bytes = 0
    if text_bytes > _TOAST_BYTES:
        text_bytes *= _TOAST_RATIO
    return round(n_chunks * (embedding_bytes + _TEXT_ROW_BYTES + text_bytes + _CLUSTER_ROW_BYTES))


def postgres_plan(n_bytes: int) -> str:
    """Name of the smallest Supabase compute size that is recommended for so many bytes."""
    for plan in POSTGRES_PLANS:
        if n_bytes <= plan.max_bytes:
            return plan.name
    return f"more than {POSTGRES_PLANS[-1].name}"
