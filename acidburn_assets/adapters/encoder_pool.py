"""One model on several devices: a process for each, which stays for all windows to come.

Threads of one process would share one interpreter, and a GPU is kept busy by hundreds of small
calls a second. Windows are independent of each other, so whichever process is free takes the next.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple, cast

import numpy as np

from acidburn_assets.adapters.encoder import Dtype, SentenceEncoder, list_devices, load_encoder
from acidburn_assets.adapters.processes import open_processes
from acidburn_assets.core.embeddings import Encoded, Encoder, InputType
from acidburn_assets.core.errors import AcidburnError

_PIECES = 8
"""Of a window, so that its process tokenises one while the device computes another: with one piece
a GPU would wait for all of a window's tokens, a second in eight by arithmetic."""


class _Place(NamedTuple):
    """What a process loads, and where."""

    model: str
    revision: str
    device: str
    dtype: str
    batch_tokens: int
    hub_endpoint: str | None


class _Window(NamedTuple):
    texts: Sequence[str]
    input_type: InputType


_here: list[SentenceEncoder | AcidburnError] = []
"""Of a process of a pool: its encoder, or why it has none."""


class EncoderPool:
    """Several encoders of one model that work as one.

    Attributes:
        card: what the model is.
        device: where it runs, with commas.
        dtype: of its matrix products, the same everywhere.
        batch_tokens: most tokens of a batch at first, on each device.
    """

    def __init__(self, first: SentenceEncoder, places: Sequence[_Place]) -> None:
        """Use `load_encoders`."""
        self.card = first.card
        self.device = ",".join(place.device for place in places)
        self.dtype = first.dtype
        self.batch_tokens = first.batch_tokens
        self._first = first
        self._opened = ExitStack()
        self._processes = self._opened.enter_context(open_processes(_encode, places, begin=_load))

    def encode(self, texts: Sequence[str], input_type: InputType) -> Encoded:
        """As `SentenceEncoder.encode`, by this process on the first device: a query is not worth
        the others'."""
        return self._first.encode(texts, input_type)

    def embed_iter(
        self, windows: Iterable[Sequence[str]], input_type: InputType
    ) -> Iterator[Encoded]:
        """As `SentenceEncoder.embed_iter`; each device has windows of its own.

        Raises:
            ProcessLost: a device failed, or its process ended before its time.
        """
        latest = time.perf_counter()
        for encoded in self._processes.map(_Window(texts, input_type) for texts in windows):
            ready = time.perf_counter()
            yield encoded._replace(seconds=ready - latest)
            latest = ready

    def close(self) -> None:
        """Ends the processes; they also end with this one."""
        self._opened.close()


def load_encoders(
    model: str,
    *,
    revision: str = "",
    device: str = "auto",
    dtype: Dtype = "auto",
    batch_tokens: int = 0,
    hf_token: str = "",
    hub_endpoint: str | None = None,
) -> Encoder:
    """Loads a model onto all devices that were asked for.

    Args:
        model: as in `load_encoder`, like everything else but `device`.
        revision: of the model.
        device: `auto` and `cuda` are all GPUs; several are named with commas, `cuda:0,cuda:2`.
        dtype: of the matrix products, on all devices.
        batch_tokens: most tokens of a batch, on each device.
        hf_token: Hugging Face token.
        hub_endpoint: of the hub.

    Returns:
        A `SentenceEncoder` where it is one device, else an `EncoderPool`, whose processes start
        when they are needed.

    Raises:
        ModelError, ConfigError, ServiceUnavailable: as `load_encoder`.
    """
    devices = list_devices(device)
    first = load_encoder(
        model,
        revision=revision,
        device=devices[0],
        dtype=dtype,
        batch_tokens=batch_tokens,
        hf_token=hf_token,
        hub_endpoint=hub_endpoint,
    )
    if len(devices) == 1:
        return first
    # the same commit and number format as here, whatever is newest or fastest there
    places = [
        _Place(model, first.card.revision, device, first.dtype, first.batch_tokens, hub_endpoint)
        for device in devices
    ]
    return EncoderPool(first, places)


def _load(place: _Place) -> None:
    try:
        loaded: SentenceEncoder | AcidburnError = load_encoder(
            place.model,
            revision=place.revision,
            device=place.device,
            dtype=cast("Dtype", place.dtype),
            batch_tokens=place.batch_tokens,
            hub_endpoint=place.hub_endpoint,
        )
    except AcidburnError as error:
        loaded = error  # told with the first window: a process that ends now tells nothing
    _here.append(loaded)


def _encode(window: _Window) -> Encoded:
    loaded = _here[0]
    if isinstance(loaded, AcidburnError):
        raise loaded
    n_texts = len(window.texts)
    size = max(1, -(-n_texts // _PIECES))
    pieces = [window.texts[start : start + size] for start in range(0, max(n_texts, 1), size)]
    made = list(loaded.embed_iter(pieces, window.input_type))
    return Encoded(
        np.concatenate([piece.vectors for piece in made]),
        n_tokens=sum(piece.n_tokens for piece in made),
        n_truncated=sum(piece.n_truncated for piece in made),
        seconds=sum(piece.seconds for piece in made),
    )
