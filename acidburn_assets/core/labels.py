"""Names for clusters without a model: keywords, a title and a quoted sentence, from texts alone.

Deterministic: the same texts give the same labels, byte for byte, in whatever order the members
come and whatever the hash seed. Works on a bounded sample of each cluster's members; drawing it
is the caller's part. What becomes of a label lives in `cluster_map`, labels that a model writes
in `adapters.labeler`.

A term is one to three words that stand together. Terms are ranked by class-based TF-IDF,
tf·log(1 + A/f), less what the neighbouring clusters share, less what reads as a verb, a unit, a
variable of an example or the first half of a phrase.
Source: Grootendorst, BERTopic: Neural topic modeling with a class-based TF-IDF procedure, 2022.

The constants were chosen by reading the titles of 132 clusters (Python documentation, newswire,
abstracts), by how often a title's embedding finds its own centroid first, and by how many members
lie nearest to it; `python -m benchmarks.label` measures both.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

MAX_KEYWORDS = 12
MAX_TITLE_WORDS = 7
MAX_TITLE_CHARS = 120
MIN_SUMMARY_CHARS, MAX_SUMMARY_CHARS = 20, 240
KEYLESS_VERSION = "keyless-2"
"""Raised when labels would be better than before: those of older maps are then made again."""

MAX_QUOTATION_CHARS = 240
"""Of a medoid that is shown beside a label. Chosen: three lines."""

MEMBER_CHARS = 1_200
"""Characters of a member that are read: with 200 members of 300 clusters, 72 MB of text at most.
Chosen: the first paragraphs of a passage say what it is about."""
MEDOID_CHARS = 2_000
"""Characters of a medoid in which a sentence is looked for. Chosen."""

_CANDIDATES = 80  # terms of a cluster that are looked at closely
_MAX_TERM_CHARS = 50
_MIN_TEXTS_SHARE = 0.03  # of the members must use a term
_NEIGHBOUR_WEIGHT = 3.0
_SHARE_POWER = 0.7
_PHRASE_SHARE = 0.6
_MIN_NAMING = 0.05  # below, a term is a verb nearly always
_UNIT_PENALTY = 0.9  # for what follows numbers
_DATED_PENALTY = 0.9  # for what numbers follow
_ALONE_SHARE, _ALONE_PENALTY = 0.3, 0.7  # for what stands alone more often
_LAST_SHARE = 0.25  # a word that less often ends its phrase stands for a phrase
_MODIFIED_SHARE = 0.1  # of its uses, in the phrase that says it better
_MAX_ACRONYM_CHARS = 5  # longer words in capitals are headings
_ENOUGH_WORDS, _MAX_PARTS = 5, 4  # of a title
_LEAST_SCORE = 0.2  # of its third part and on, against the first
_PHRASE_BONUS = 1.15  # of a phrase in a title
_MAX_MORE_WORDS = 4  # on either side of a phrase
_CONSTANT_SHARE = 0.75
_COMMON_SHARE = 0.5  # a term that more clusters have names none of them
_RELEVANCE = 0.7  # against diversity

_BREAK = 0  # the number of everything that a term does not cross
_CODE_BITS = 21  # three word numbers fit into one int64
_MAX_WORDS = 2**_CODE_BITS - 1


class Passage(NamedTuple):
    """A chunk as labels read it."""

    chunk_id: str  # hex
    doc_id: str
    text: str


class ClusterSample(NamedTuple):
    """What is read of a cluster."""

    members: Sequence[Passage]  # drawn at random
    medoids: Sequence[Passage]  # nearest to the centroid first


class Heuristic(NamedTuple):
    """A label made without a model."""

    title: str  # unique among the clusters described together
    keywords: tuple[str, ...]  # best first; none is part of another
    summary: str  # a sentence of a medoid, or its beginning where it has none
    summary_chunk_id: str | None  # hex: the chunk that is quoted


def members_wanted(n_clusters: int) -> int:
    """How many members of each cluster `describe` should be given.

    Time and memory follow the total, so many clusters get fewer members each: 200 up to 500
    clusters, never less than 40. Chosen, not measured.
    """
    return max(40, min(200, 100_000 // max(1, n_clusters)))


def quotation(text: str) -> str:
    """The beginning of a text, in one line; an ellipsis where it goes on."""
    return _shortened(" ".join(text[: 4 * MAX_QUOTATION_CHARS].split()), MAX_QUOTATION_CHARS)


def describe(
    samples: Mapping[int, ClusterSample], neighbours: Mapping[int, Sequence[int]]
) -> dict[int, Heuristic]:
    """Labels every cluster, each in contrast to its neighbours.

    Args:
        samples: by cluster id. Each is looked up once, in order of id, so that a lazy mapping
            keeps the texts of one cluster in memory at a time.
        neighbours: the nearest other clusters of each; ids without a sample are passed over.

    Returns:
        By cluster id, in order of id.
    """
    lexicon = _Lexicon()
    members: dict[int, _Stream] = {}
    quotes: dict[int, tuple[list[Passage], _Stream]] = {}
    for cluster_id in sorted(samples):
        sample = samples[cluster_id]
        members[cluster_id] = lexicon.read(sample.members or sample.medoids)
        sentences = list(_sentences(sample.medoids))
        quotes[cluster_id] = sentences, lexicon.read_in_order(sentences)
    words = lexicon.close()
    terms = {cluster_id: _count(stream, words) for cluster_id, stream in members.items()}
    scores = _score(terms, neighbours)
    ranked = {
        cluster_id: _rank(terms[cluster_id], scores[cluster_id], stream, words)
        for cluster_id, stream in members.items()
    }
    titles = _titles(ranked)
    labels = {}
    for cluster_id, (sentences, stream) in quotes.items():
        central = _central(sentences, stream, terms[cluster_id], scores[cluster_id], words)
        labels[cluster_id] = Heuristic(
            titles[cluster_id],
            tuple(term.text for term in ranked[cluster_id]),
            central.text if central else "",
            central.chunk_id if central else None,
        )
    return labels


def describe_groups(
    samples: Mapping[int, ClusterSample],
    groups: Mapping[int, Sequence[int]],
    neighbours: Mapping[int, Sequence[int]],
) -> dict[int, Heuristic]:
    """Labels groups of clusters, each in contrast to its neighbouring groups.

    Args:
        samples: by cluster id; the members of a group are drawn from its clusters in turn.
        groups: by group id, the clusters it holds.
        neighbours: by group id, the nearest other groups.

    Returns:
        By group id, in order of id.
    """
    merged = {}
    for group_id, cluster_ids in groups.items():
        parts = [samples[cluster_id] for cluster_id in sorted(cluster_ids)]
        n_each = -(-2 * members_wanted(len(groups)) // max(1, len(parts)))
        merged[group_id] = ClusterSample(
            [passage for part in parts for passage in part.members[:n_each]],
            [passage for part in parts for passage in part.medoids[:1]],
        )
    return describe(merged, neighbours)


# ---- words ----------------------------------------------------------------------------------

_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # kana and Han: written without spaces
_TOKEN = re.compile(
    r"(?:https?://|www\.)\S+"  # addresses name nothing
    r"|[^\W\d]\w*(?:\.[^\W\d]\w*)+"  # identifiers: numpy.linalg.svd, asyncio.Task
    rf"|[{_UNSPACED}]"
    rf"|[^\W{_UNSPACED}]+(?:[-'’][^\W{_UNSPACED}]+)*"
    r"|[^\w\s]+|\n\s*\n"  # what a term does not cross
)
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_SHORT_LINE = re.compile(r"^([^\n]{1,40})\n", re.MULTILINE)
"""A heading, a list item or code: a term does not go on after it. Lines of prose are longer."""


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SESSION_LINE = re.compile(r"^[ \t]*(?:>>>|\.\.\.|\$|In \[\d+\]:)(?:[ \t].*)?$", re.MULTILINE)
"""A line of an interpreter or a shell: what it names are the variables of an example."""
_EXPLAINED = re.compile(r"(?P<words>(?:\b[a-z]+[\s-]+){1,6})\((?P<acronym>[a-z]{2,6})\)")

_NUMERALS = _word_set("hundred thousand million billion trillion mln bln")

_CONNECTORS = _word_set("of and de du la des und et y")
"""Stop words that may stand inside a term: Bank of Japan, research and development."""

_SUBJECTS = _word_set(
    "can cannot could he i it may might must not she should they we which who will would you"
)
_DETERMINERS = _word_set("a an any each every his its our some the their these this those")
"""After one of the subjects or before one of these stands a verb, in English: `return the path`,
`we propose a model`. Verbs make poor names."""


class _Stream(NamedTuple):
    """The words of one cluster's texts; a break ends each text."""

    words: np.ndarray  # (n,) int32: numbers in the lexicon
    lengths: np.ndarray  # (n_texts,) int32: words of each text, its break included
    documents: np.ndarray  # (n_texts,) int32: which document a text is of

    def texts(self) -> np.ndarray:
        """Which text each word is of. (n,) int64."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


class _Words(NamedTuple):
    """The closed lexicon: one row for each word as it is written."""

    written: list[str]
    folded: np.ndarray  # (n_words,) int64: one number for all forms of a word
    is_name: np.ndarray  # (n_words,) bool: may be a term
    is_edge: np.ndarray  # (n_words,) bool: may begin and end a phrase
    is_inner: np.ndarray  # (n_words,) bool: may stand inside one
    is_subject: np.ndarray  # (n_words,) bool
    is_determiner: np.ndarray  # (n_words,) bool
    is_number: np.ndarray  # (n_words,) bool: 1,200 and million
    is_word: np.ndarray  # (n_words,) bool: no break, no punctuation, no address
    acronyms: Mapping[str, str]  # how those that are written small are meant: gnns, GNNs
    known: frozenset[str]  # all of `written`


class _Lexicon:
    """Numbers words in the order in which they are met."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"": _BREAK}
        self._acronyms: dict[str, str] = {}

    def read(self, passages: Sequence[Passage]) -> _Stream:
        """Reads members, whose order says nothing."""
        return self.read_in_order(sorted(passages))

    def read_in_order(self, passages: Sequence[Passage]) -> _Stream:
        numbers = self._numbers
        documents: dict[str, int] = {}
        words: list[int] = []
        lengths: list[int] = []
        for passage in passages:
            text = _beginning(passage.text)
            self._acronyms.update(_explained(text))
            tokens = _TOKEN.findall(text)
            for token in [token for token in tokens if _is_identifier(token)]:
                # the packages an identifier lies in are terms of their own
                parts = token.split(".")
                for n_parts in range(1, len(parts)):
                    tokens += ["", ".".join(parts[:n_parts])]
            tokens.append("")
            words += [numbers.setdefault(token, len(numbers)) for token in tokens]
            lengths.append(len(tokens))
            documents.setdefault(passage.doc_id, len(documents))
        return _Stream(
            np.array(words, np.int32),
            np.array(lengths, np.int32),
            np.array([documents[passage.doc_id] for passage in passages], np.int32),
        )

    def close(self) -> _Words:
        written = list(self._numbers)
        folds: dict[str, int] = {"": _BREAK}
        folded = np.zeros(len(written), np.int64)
        is_name, is_edge, is_inner, is_subject, is_determiner, is_number, is_word = np.zeros(
            (7, len(written)), bool
        )
        for number, word in enumerate(written):
            if not _is_word(word):
                continue
            lower = word.casefold()
            fold = folds.setdefault(_fold(lower), len(folds))
            is_known = lower not in STOP_WORDS and not _is_junk(word) and fold <= _MAX_WORDS
            folded[number] = min(fold, _MAX_WORDS)
            is_name[number] = is_known
            is_edge[number] = is_known and not _is_identifier(word)  # those stand alone
            is_inner[number] = is_edge[number] or lower in _CONNECTORS
            is_subject[number] = lower in _SUBJECTS
            is_determiner[number] = lower in _DETERMINERS
            is_number[number] = word[0].isdigit() or lower in _NUMERALS
            is_word[number] = True
        return _Words(
            written,
            folded,
            is_name,
            is_edge,
            is_inner,
            is_subject,
            is_determiner,
            is_number,
            is_word,
            self._acronyms,
            frozenset(written),
        )


def _beginning(text: str) -> str:
    """What is read of a text: no line of a session, and after a short line an empty one."""
    if len(text) > MEMBER_CHARS:
        cut = text.rfind(" ", MEMBER_CHARS // 2, MEMBER_CHARS)
        text = text[: cut if cut > 0 else MEMBER_CHARS]
    return _SHORT_LINE.sub(r"\1\n\n", _SESSION_LINE.sub("", text))


def _explained(text: str) -> Iterator[tuple[str, str]]:
    """Acronyms that a text in small letters explains: graph neural networks (gnns) are GNNs."""
    for found in _EXPLAINED.finditer(text):
        written = found["acronym"]
        letters = written.removesuffix("s") if len(written) > 2 else written
        initials = re.split(r"[\s-]+", found["words"].rstrip(" \n-"))[-len(letters) :]
        if "".join(word[:1] for word in initials) == letters:
            yield written, letters.upper() + written[len(letters) :]


def _is_word(token: str) -> bool:
    return (token[:1].isalnum() or token[:1] == "_") and not _is_address(token)


def _is_identifier(token: str) -> bool:
    return "." in token and _is_word(token)


def _is_address(word: str) -> bool:
    return word.startswith(("http://", "https://", "www."))


def _fold(lower: str) -> str:
    """One form for singular and plural, by English rules; elsewhere a final s is lost at most."""
    if lower.endswith(("'s", "’s")):
        return lower[:-2]
    if len(lower) < 5 or not lower.isalpha() or not lower.endswith("s"):
        return lower
    if lower.endswith("ies"):
        return lower[:-3] + "y"
    if lower.endswith(("sses", "shes", "ches", "xes", "zes")):
        return lower[:-2]
    return lower if lower.endswith(("ss", "us", "is")) else lower[:-1]


def _is_junk(word: str) -> bool:
    """True of numbers, single letters and what bad scans leave."""
    if _IS_UNSPACED.fullmatch(word):
        return False
    if word[1:2] == ".":
        return True  # x.shape: an attribute of a variable
    n_letters = sum(map(str.isalpha, word))
    if n_letters < 2 or n_letters * 2 < len(word) or len(word) > 40:
        return True
    if re.search(r"(.)\1\1", word):
        return True
    is_plain = word.isascii() and word.isalpha() and len(word) > 5 and not word.isupper()
    return is_plain and not re.search(r"[aeiouy]", word, re.IGNORECASE)


# ---- terms ----------------------------------------------------------------------------------


class _Terms(NamedTuple):
    """The terms that several members of one cluster use."""

    codes: np.ndarray  # (t,) int64 ascending: up to three folded word numbers
    weights: np.ndarray  # (t,) float64: occurrences, damped within a document
    shares: np.ndarray  # (t,) float64 in [0, 1]: of the texts, damped within a document
    total: float  # weight of all words of the cluster


def _ngrams(stream: _Stream, words: _Words, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the terms of n words, (m,) int64, and where they begin, (m,) int64."""
    n_starts = max(0, len(stream.words) - n + 1)
    columns = [stream.words[offset : offset + n_starts] for offset in range(n)]
    if n == 1:
        is_term = words.is_name[columns[0]]
    else:
        is_term = words.is_edge[columns[0]] & words.is_edge[columns[-1]]
    for column in columns[1:-1]:
        is_term &= words.is_inner[column]
    starts = np.flatnonzero(is_term)
    codes = np.zeros(len(starts), np.int64)
    for offset, column in enumerate(columns):
        codes |= words.folded[column[starts]] << (_CODE_BITS * offset)
    return codes, starts


def _stems(code: int) -> tuple[int, ...]:
    """The folded words of a term."""
    numbers = (code >> (_CODE_BITS * offset) & _MAX_WORDS for offset in range(3))
    return tuple(number for number in numbers if number != _BREAK)


def _count(stream: _Stream, words: _Words) -> _Terms:
    """Counts a cluster's terms; a document with m uses weighs sqrt(m), not m.

    So one long document does not name the cluster. Where there are several documents, a term
    must occur in two of them.
    """
    found = [_ngrams(stream, words, n) for n in (1, 2, 3)]
    codes, term = np.unique(np.concatenate([code for code, _ in found]), return_inverse=True)
    text = stream.texts()[np.concatenate([start for _, start in found])]
    n_texts = max(1, len(stream.documents))
    n_documents = int(stream.documents.max(initial=0)) + 1

    used_in, counts = np.unique(
        term * n_documents + stream.documents[text], return_counts=True
    )  # (term, document) pairs
    weights = np.bincount(used_in // n_documents, np.sqrt(counts), len(codes))
    n_term_documents = np.bincount(used_in // n_documents, minlength=len(codes))

    used_by = np.unique(term * n_texts + text)  # (term, text) pairs
    n_term_texts = np.bincount(used_by // n_texts, minlength=len(codes))
    used_in, counts = np.unique(
        used_by // n_texts * n_documents + stream.documents[used_by % n_texts], return_counts=True
    )
    uses = np.bincount(used_in // n_documents, np.sqrt(counts), len(codes))
    shares = uses / max(1.0, float(np.sqrt(np.bincount(stream.documents)).sum()))

    floor = min(n_texts, max(2, int(np.ceil(n_texts * _MIN_TEXTS_SHARE))))
    kept = (n_term_texts >= floor) & (n_term_documents >= min(2, n_documents))
    is_word = codes < 2**_CODE_BITS
    return _Terms(codes[kept], weights[kept], shares[kept], float(weights[is_word].sum()))


def _score(
    terms: Mapping[int, _Terms], neighbours: Mapping[int, Sequence[int]]
) -> dict[int, np.ndarray]:
    """Scores each cluster's terms, (t,) float64, 0 for those that name nothing."""
    if not terms:
        return {}
    codes, place = np.unique(
        np.concatenate([found.codes for found in terms.values()]), return_inverse=True
    )
    weights = np.concatenate([found.weights for found in terms.values()])
    mean_total = sum(found.total for found in terms.values()) / len(terms)
    rarity = np.log1p(mean_total / np.bincount(place, weights, len(codes)))
    is_common = np.bincount(place, minlength=len(codes)) > _COMMON_SHARE * len(terms)
    if len(terms) < 8:
        is_common[:] = False  # what most of a few clusters have may still be the subject of one
    scores = {}
    for cluster_id, found in terms.items():
        around = [terms[other] for other in neighbours.get(cluster_id, ()) if other in terms]
        elsewhere = np.zeros(len(found.codes))
        for other in around:
            _, mine, theirs = np.intersect1d(
                found.codes, other.codes, assume_unique=True, return_indices=True
            )
            elsewhere[mine] += other.shares[theirs] / len(around)
        rows = np.searchsorted(codes, found.codes)
        score = (
            (found.weights / max(found.total, 1.0))
            * rarity[rows]
            * found.shares
            / (found.shares + _NEIGHBOUR_WEIGHT * elsewhere)
            * found.shares**_SHARE_POWER  # what few members say does not name them all
        )
        # a cluster that has nothing of its own is named for what it shares
        scores[cluster_id] = score if is_common[rows].all() else np.where(is_common[rows], 0, score)
    return scores


# ---- keywords and titles --------------------------------------------------------------------


class _Keyword(NamedTuple):
    text: str  # as it is most often written
    stems: frozenset[int]
    score: float
    share: float
    code: int
    is_modifier: bool


class _Uses(NamedTuple):
    """Where a term stands, and as what."""

    n_words: int
    starts: np.ndarray  # (u,) int64: where its uses begin in the stream
    form: str  # as it is written most often
    is_modifier: bool  # a word that seldom ends its phrase: causal
    naming: float  # in (0, 1]: how well it names things


def _rank(terms: _Terms, scores: np.ndarray, stream: _Stream, words: _Words) -> list[_Keyword]:
    """A cluster's keywords, best first."""
    best = np.lexsort((terms.codes, -scores))[:_CANDIDATES]
    best = best[scores[best] > 0]
    uses = _uses(terms.codes[best], stream, words)
    candidates = []
    for place in best.tolist():
        code = int(terms.codes[place])
        form, naming = uses[code].form, uses[code].naming
        if any(_is_participle(part) for part in form.split()[1:]):
            continue  # `instance named` is no phrase; `masked array` is one
        stems = _stems(code)
        if len(form) > _MAX_TERM_CHARS or len(set(stems)) < len(stems) or naming < _MIN_NAMING:
            continue
        if _is_weak(form) or _is_participle(form) or form.endswith("ly"):
            naming *= 0.3
        candidates.append(
            _Keyword(
                form,
                frozenset(stems),
                float(scores[place]) * naming,
                float(terms.shares[place]),
                code,
                uses[code].is_modifier,
            )
        )
    chosen = _diverse(_whole_phrases(candidates))
    return _apart([_completed(keyword, uses[keyword.code], stream, words) for keyword in chosen])


def _is_weak(form: str) -> bool:
    return all(word in WEAK_WORDS for word in form.casefold().split())


def _completed(keyword: _Keyword, uses: _Uses, stream: _Stream, words: _Words) -> _Keyword:
    """A phrase with the words that nearly always stand around it.

    Federal Savings and Loan Insurance Corp: no more than three words of it are counted.
    """
    if uses.n_words < 2:
        return keyword
    starts, begin, end = uses.starts, 0, uses.n_words  # as offsets from a start
    for _ in range(_MAX_MORE_WORDS):
        is_same = _is_constant(_before(starts + begin, stream), words)
        if is_same.any():
            starts, begin = starts[is_same], begin - 1
    for _ in range(_MAX_MORE_WORDS):
        is_same = _is_constant(stream.words[starts + end], words)
        if is_same.any():
            starts, end = starts[is_same], end + 1
    while begin < 0 and not words.is_edge[stream.words[starts[0] + begin]]:
        begin += 1
    while end > uses.n_words and not words.is_edge[stream.words[starts[0] + end - 1]]:
        end -= 1
    n_words = end - begin
    if n_words == uses.n_words or n_words > MAX_TITLE_WORDS:
        return keyword
    form = _form(starts + begin, n_words, stream, words)
    if len(form) > _MAX_TERM_CHARS:
        return keyword
    stems = words.folded[stream.words[starts[0] + begin : starts[0] + end]].tolist()
    return keyword._replace(text=form, stems=keyword.stems | frozenset(stems))


def _is_constant(around: np.ndarray, words: _Words) -> np.ndarray:
    """Where the word stands that nearly all of these are, if it may stand inside a phrase."""
    numbers, counts = np.unique(around, return_counts=True)
    most = int(counts.argmax())
    is_nearly_all = len(around) > 1 and counts[most] >= _CONSTANT_SHARE * len(around)
    is_same: np.ndarray = around == numbers[most]
    if not is_nearly_all or not words.is_inner[numbers[most]]:
        is_same[:] = False
    return is_same


def _apart(keywords: Sequence[_Keyword]) -> list[_Keyword]:
    """Without those that are part of a better one."""
    kept: list[_Keyword] = []
    for keyword in keywords:
        text = keyword.text.casefold()
        others = [other.text.casefold() for other in kept]
        if not any(text in other or other in text for other in others):
            kept.append(keyword)
    return kept


def _is_participle(word: str) -> bool:
    return len(word) > 4 and word.endswith("ed") and not word.endswith("eed")


def _uses(codes: np.ndarray, stream: _Stream, words: _Words) -> dict[int, _Uses]:
    """Where and how each term is used."""
    uses = {}
    for n in (1, 2, 3):
        found, starts = _ngrams(stream, words, n)
        is_wanted = np.isin(found, codes)
        found, starts = found[is_wanted], starts[is_wanted]
        starts = starts[np.argsort(found, kind="stable")]
        present, counts = np.unique(found, return_counts=True)
        ends = np.cumsum(counts)
        for code, begin, end in zip(present.tolist(), ends - counts, ends, strict=True):
            mine = starts[begin:end]
            last_share = float(np.mean(~words.is_name[stream.words[mine + n]]))
            uses[code] = _Uses(
                n_words=n,
                starts=mine,
                form=_form(mine, n, stream, words),
                is_modifier=n == 1 and last_share < _LAST_SHARE,
                naming=_naming(mine, n, stream, words),
            )
    return uses


def _before(starts: np.ndarray, stream: _Stream) -> np.ndarray:
    """The word before each place, (u,) int32; a break at the beginning."""
    return np.where(starts > 0, stream.words[np.maximum(starts - 1, 0)], _BREAK)


def _naming(starts: np.ndarray, n: int, stream: _Stream, words: _Words) -> float:
    """How well a term names things.

    A name is seldom a verb, often the last word of its phrase, no unit (31 mln stg), and spoken of
    in sentences: what stands alone between brackets and commas is a variable or of a table.
    """
    before, after = _before(starts, stream), stream.words[starts + n]  # it ends in a break
    n_verbs = (words.is_subject[before] | words.is_determiner[after]).sum()
    last_share = float(np.mean(~words.is_name[after]))
    alone_share = float(np.mean(~words.is_word[before] & ~words.is_word[after]))
    naming = (1 - n_verbs / (len(starts) + 1)) ** 2 * (0.4 + 0.6 * last_share)
    naming *= (1 - _UNIT_PENALTY * float(np.mean(words.is_number[before]))) ** 2
    naming *= 1 - _DATED_PENALTY * float(np.mean(words.is_number[after]))
    if n == 1 and words.is_edge[stream.words[starts[0]]]:  # identifiers stand so
        naming *= 1 - _ALONE_PENALTY * max(0.0, alone_share - _ALONE_SHARE) / (1 - _ALONE_SHARE)
    return float(naming)


def _form(starts: np.ndarray, n: int, stream: _Stream, words: _Words) -> str:
    """How a term is written most often; a capital at the beginning of a sentence says nothing."""
    rows = stream.words[starts[:, None] + np.arange(n)].tolist()
    is_inside = words.is_word[_before(starts, stream)].tolist()
    written = [tuple(words.written[number] for number in row) for row in rows]
    small = [tuple(map(str.casefold, texts)) for texts in written]
    best = _most_common(small)
    inside = [
        texts
        for texts, one, within in zip(written, small, is_inside, strict=True)
        if one == best and within
    ]
    parts = list(
        _most_common(
            inside or [texts for texts, one in zip(written, small, strict=True) if one == best]
        )
    )
    if not inside and parts[0].istitle() and "".join(parts[1:]) == "".join(best[1:]):
        parts[0] = _small(parts[0], words)
    parts = [_small(part, words) if _is_shouted(part) else part for part in parts]
    parts[-1] = re.sub("['’]s$", "", parts[-1])
    return _join([words.acronyms.get(part, part) for part in parts])


def _most_common(texts: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    counts = Counter(texts)
    return min(counts, key=lambda one: (-counts[one], one))


def _is_shouted(word: str) -> bool:
    return word.isupper() and len(word) > _MAX_ACRONYM_CHARS


def _small(word: str, words: _Words) -> str:
    """A word in small letters, where somebody writes it so."""
    return word.lower() if word.lower() in words.known else word


def _join(parts: Sequence[str]) -> str:
    text = parts[0]
    for part in parts[1:]:
        is_unspaced = _IS_UNSPACED.fullmatch(part) and _IS_UNSPACED.fullmatch(text[-1])
        text += part if is_unspaced else " " + part
    return text


def _whole_phrases(candidates: Sequence[_Keyword]) -> list[_Keyword]:
    """Drops terms that a longer one says better: `zip` where most uses are of `zip file`."""
    kept = list(candidates)
    for whole in sorted(candidates, key=lambda term: (term.text.count("."), len(term.stems))):
        place = next(place for place, term in enumerate(kept) if term.text == whole.text)
        covered = [
            part
            for part in kept
            if _is_part(part, whole)
            and (
                whole.share >= (_MODIFIED_SHARE if part.is_modifier else _PHRASE_SHARE) * part.share
                or kept[place].score >= part.score
            )
        ]
        score = max([kept[place].score, *(part.score for part in covered)])
        kept[place] = whole._replace(score=score)
        kept = [term for term in kept if term not in covered]
    return sorted(kept, key=lambda keyword: (-keyword.score, keyword.text))


def _is_part(part: _Keyword, whole: _Keyword) -> bool:
    """True of a word of a phrase, and of the package of an identifier."""
    return part.stems < whole.stems or whole.text.startswith(part.text + ".")


def _diverse(candidates: Sequence[_Keyword]) -> list[_Keyword]:
    """Maximal marginal relevance over shared words.

    Source: Carbonell and Goldstein, The use of MMR, SIGIR 1998.
    """
    rest = list(candidates)
    chosen: list[_Keyword] = []
    while rest and len(chosen) < MAX_KEYWORDS:
        gains = [
            _RELEVANCE * keyword.score / candidates[0].score
            - (1 - _RELEVANCE) * max((_overlap(keyword, other) for other in chosen), default=0.0)
            for keyword in rest
        ]
        best = rest.pop(gains.index(max(gains)))
        chosen = _apart([*chosen, best])
    return chosen


def _overlap(one: _Keyword, other: _Keyword) -> float:
    return len(one.stems & other.stems) / len(one.stems | other.stems)


def _titles(ranked: Mapping[int, Sequence[_Keyword]]) -> dict[int, str]:
    """Composes titles, each unlike all others."""
    owners: dict[frozenset[int], int] = {}
    titles = {}
    for cluster_id, keywords in ranked.items():
        parts = _title_parts(keywords)
        owner = owners.get(_all_stems(parts))
        if owner is not None:
            shared = {keyword.text for keyword in ranked[owner]}
            own = [keyword for keyword in keywords if keyword.text not in shared]
            for keyword in (*own, *keywords):
                if keyword not in parts:
                    parts = [*parts, keyword]
                    break
        title = ", ".join(part.text for part in parts)
        if not parts or _all_stems(parts) in owners:
            title = f"{title} ({cluster_id})" if parts else f"Cluster {cluster_id}"
        owners.setdefault(_all_stems(parts), cluster_id)
        titles[cluster_id] = _capitalised(title)
    return titles


def _title_parts(keywords: Sequence[_Keyword]) -> list[_Keyword]:
    """The first keywords that add words of their own: five words, seven at most."""
    parts: list[_Keyword] = []
    n_words = 0
    for keyword in sorted(keywords, key=_title_order):
        n_more = len(keyword.text.split())
        if n_words >= _ENOUGH_WORDS or n_words + n_more > MAX_TITLE_WORDS:
            continue
        if len(", ".join([*(part.text for part in parts), keyword.text])) > MAX_TITLE_CHARS // 2:
            continue
        if any(_is_akin(keyword, part) for part in parts):
            continue
        if parts and keyword.text.casefold() in WEAK_WORDS:
            continue
        if len(parts) >= 2 and keyword.score < _LEAST_SCORE * parts[0].score:
            break
        if len(parts) == _MAX_PARTS:
            break
        parts.append(keyword)
        n_words += n_more
    return parts


def _title_order(keyword: _Keyword) -> tuple[float, str]:
    """Phrases say more than words."""
    bonus = _PHRASE_BONUS if " " in keyword.text else 1.0
    return -bonus * keyword.score, keyword.text


def _is_akin(one: _Keyword, other: _Keyword) -> bool:
    """True of terms that share a word or a beginning: logging, logger; zipfile, zip file."""
    if one.stems & other.stems:
        return True
    beginnings = [
        {word[:5] for word in (text.replace(" ", ""), *text.split()) if len(word) >= 5}
        for text in (one.text.casefold(), other.text.casefold())
    ]
    return bool(beginnings[0] & beginnings[1])


def _all_stems(keywords: Sequence[_Keyword]) -> frozenset[int]:
    return frozenset().union(*(keyword.stems for keyword in keywords))


def _capitalised(title: str) -> str:
    """A sentence's capital, unless the title begins with an identifier."""
    first = title.split(" ")[0].rstrip(",")
    is_name = not first.islower() or not first.replace("-", "").isalpha()
    return title if is_name else title[0].upper() + title[1:]


# ---- summaries ------------------------------------------------------------------------------

_SENTENCE_END = re.compile(r"(?<=[.!?][\"'”’)])\s+|(?<=[.!?])\s+|(?<=[。！？])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Za-z]|al|cf|Corp|Co|Dr|ed|eds|e\.g|Eq|etc|Fig|Gen|Gov|i\.e|Inc|Jr|Ltd|Mr|Mrs|Ms"
    r"|Nos?|pp?|Prof|Rep|Sec|Sen|Sr|St|vol|vs))\.$"
)
_LEANS_BACK = re.compile(
    r"(?:And|But|He|Her|His|However|It|Its|She|So|Such|That|Then|There|These|They|This|Those|Thus)\b",
    re.IGNORECASE,
)


def _sentences(medoids: Sequence[Passage]) -> Iterator[Passage]:
    """Sentences that can be quoted, as passages; without any, the first medoid's beginning."""
    n_found = 0
    for passage in medoids:
        text = _SHORT_LINE.sub(r"\1\n\n", passage.text[:MEDOID_CHARS])
        is_cased = any(map(str.isupper, text))
        for block in re.split(r"\n\s*\n", text):
            for sentence in _split(" ".join(block.split())):
                if _reads_well(sentence, is_cased=is_cased):
                    n_found += 1
                    yield passage._replace(text=sentence)
    if n_found or not medoids:
        return
    first = next((passage for passage in medoids if passage.text.strip()), None)
    if first is not None:
        begun = " ".join(first.text[:MEDOID_CHARS].split())
        yield first._replace(text=_shortened(begun, MAX_SUMMARY_CHARS))


def _split(text: str) -> Iterator[str]:
    start = 0
    for end in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text, start, end.start()):
            yield text[start : end.start()]
            start = end.end()
    yield text[start:]


def _reads_well(sentence: str, *, is_cased: bool) -> bool:
    """True of a whole sentence of prose: no table, no code, no fragment."""
    if not MIN_SUMMARY_CHARS <= len(sentence) <= MAX_SUMMARY_CHARS:
        return False
    if sentence.rstrip("\"'”’)")[-1:] not in tuple(".!?。！？") or sentence.endswith("..."):
        return False
    if is_cased and sentence[0].islower():
        return False
    if not (sentence[0].isalnum() or sentence[0] in "\"'“‘("):
        return False
    n_prose = sum(character.isalpha() or character == " " for character in sentence)
    return n_prose >= 0.85 * len(sentence)


def _shortened(text: str, n_chars: int) -> str:
    if len(text) <= n_chars:
        return text
    cut = text.rfind(" ", 0, n_chars - 1)
    return text[: cut if cut > 0 else n_chars - 1] + "…"


def _central(
    sentences: Sequence[Passage],
    stream: _Stream,
    terms: _Terms,
    scores: np.ndarray,
    words: _Words,
) -> Passage | None:
    """The sentence that says most of what the cluster is about in the fewest words."""
    if not sentences:
        return None
    gains = np.zeros(len(sentences))
    sentence_of = stream.texts()
    if len(scores):
        for n in (1, 2, 3):
            codes, starts = _ngrams(stream, words, n)
            place = np.minimum(np.searchsorted(terms.codes, codes), len(scores) - 1)
            is_known = terms.codes[place] == codes
            pairs = np.unique(
                np.stack([sentence_of[starts][is_known], place[is_known]]), axis=1
            )  # a word said twice counts once
            gains += np.bincount(pairs[0], scores[pairs[1]], len(sentences))
    n_chars = np.array([len(sentence.text) for sentence in sentences])
    gains /= np.sqrt(n_chars + 60)  # chosen: neither three words nor a whole paragraph
    for number, sentence in enumerate(sentences):
        if _LEANS_BACK.match(sentence.text):
            gains[number] *= 0.6  # `It` and `This` speak of a sentence that is not quoted
    return sentences[int(gains.argmax())]


# ---- English --------------------------------------------------------------------------------

STOP_WORDS = _word_set(
    """
    a about above according across actually after afterwards again against ago all almost alone
    along already also although always am among an and another any anybody anyhow anyone
    anything anyway are aren't around as aside ask at away back be became because become been
    before beforehand begin behind being believe below beside besides best better between beyond
    both but by called came can can't cannot certain certainly come could couldn't did didn't
    different do does doesn't doing don't done down due during e.g each eg either else elsewhere
    enough especially etc even ever every everybody everyone everything except far few find
    first five following for former found four from further gave general get gets getting give
    given gives go goes going gone good got great had hadn't hardly has hasn't have haven't
    having he he's hence her here hers herself him himself his hither how however i i'd i'll i'm
    i.e i've ie if in inc indeed instead into is isn't it it'd it'll it's its itself just keep
    kept kind knew know known last later latter least less let let's like likely little look
    looking made mainly make makes making many may maybe me mean means meanwhile might mine more
    moreover most mostly mr mrs ms much must my myself named namely near nearly necessary need
    needed needs neither never nevertheless new next nine no nobody non none nor not nothing now
    nowhere of off often oh okay old on once one ones only onto or other others otherwise ought
    our ours ourselves out over own part particular particularly per perhaps place please
    possible probably put quite rather re really regarding said same saw say saying says second
    see seem seemed seems seen self sent seven several shall she should shouldn't show showed
    shown shows similarly simply since six so some somebody somehow someone something sometimes
    somewhat somewhere soon still such sure t take taken taking tell ten than that that's the
    their theirs them themselves then there thereby therefore these they thing things think
    third this those though three through throughout thus till to together told too took toward
    towards tried try trying twice two under unless unlike until unto up upon us use used useful
    uses using usually various very via vs want wants was wasn't way ways we we'd we'll we're
    we've well went were weren't what whatever when whence whenever where whereas whereby
    wherein wherever whether which while whither who whoever whole whom whose why will wish with
    within without won't would wouldn't yes yet you you'd you'll you're you've your yours
    yourself yourselves arg args bool cls def example examples false import int kwargs none note
    notes param parameter parameters params raise raised raises return returned returning
    returns str true cc chap chapter com doi dr edu esq fig figs figure hon html http https ibid
    nbsp nd org page pages pdf pp rd section st table th vol www
    """
)
"""English words, and marks of print and code, that name nothing. Frequent words of other
languages occur in most clusters and fall by that rule."""

WEAK_WORDS = _word_set(
    """
    adding additional approach april argument arguments august available base based basis both
    call calls case cases check code common complete contain containing contains count current
    currently custom data december default depending detail earlier effect element elements end
    entries equal error exist existing exists experiments extensive february form framework
    friday full function functions group high implementation include included includes including
    information instance issue item items january july june kind large len level line list long
    low main major march message method methods mode model models monday multiple need november
    number numbers object objects october operation option optional options order pair paper
    pass performance point present problem problems process program provide provided provides
    real recent result results role run saturday sec separate september series set sets simple
    single size small specific specified standard start state study successful sunday support
    supported supports system systems task tasks term terms test text thursday time total
    tuesday type types unavailable unit user value values version wednesday work worse year
    years
    """
)
"""Words that name something only beside another: `model`, but not `language model`."""
