"""What the HTTP and the gRPC front both call."""

import asyncio
from collections.abc import Sequence
from itertools import islice

from pipeline import __version__
from pipeline.config import ServeConfig
from serve.server.batching import Batcher
from serve.server.errors import TimedOut, TooLarge
from serve.server.metrics import Metrics
from serve.server.protocol import (
    IndexEntry,
    InferRequest,
    InferResponse,
    ModelMetadata,
    ServerMetadata,
)
from serve.server.repository import Repository
from serve.server.text_model import TextModel, Texts
from serve.session import Row, TokenRow

__all__ = ["Service"]

# Tokenising up to so many characters holds the loop up for less than half a millisecond; more
# than that goes to a thread, which costs about a tenth of one.
_INLINE_CHARACTERS = 1024
# A thread takes so many at a time: all of a text is tokenised, also what the model will not read,
# and that takes fifty times its size; and between two parts a request can be given up.
_PART_CHARACTERS = 16_384


class Service:
    """The models, the queue before them, and the state of the server.

    Attributes:
        config: the settings.
        metrics: what Prometheus reads.
        repository: the models.
    """

    def __init__(
        self, config: ServeConfig, repository: Repository, batcher: Batcher, metrics: Metrics
    ) -> None:
        self.config = config
        self.metrics = metrics
        self.repository = repository
        self._batcher = batcher
        self._stopping = False

    async def infer(
        self, request: InferRequest, *, timeout_s: float | None = None
    ) -> InferResponse:
        """Answer a request.

        Args:
            request: the request.
            timeout_s: seconds that are left for it; ``--request-timeout-s`` if not given.

        Raises:
            RequestError: it cannot be answered; the class says why.
        """
        seconds = self.config.request_timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(seconds):
                model = self.repository.get(request.model, request.version)
                content = model.read(
                    request,
                    max_texts=self.config.max_request_texts,
                    max_text_chars=self.config.max_text_chars,
                )
                self._batcher.check_room(len(content))
                rows = await self._tokenise(model, content)
                logits = await self._batcher.submit(model, rows)
                if _is_long(content) and model.session.by_token:
                    # A window takes a tenth of a millisecond to look through for its best spans.
                    return await asyncio.to_thread(model.answer, request, logits)
                return model.answer(request, logits)
        except TimeoutError as error:
            raise TimedOut(
                f"no answer within {seconds:.3g} s; send fewer texts, or raise --request-timeout-s"
            ) from error

    def server_metadata(self) -> ServerMetadata:
        """Name, version and extensions."""
        return ServerMetadata(
            "smp-pipeline", __version__, ("model_repository", "binary_tensor_data")
        )

    def model_metadata(self, name: str, version: str) -> ModelMetadata:
        """What a model takes and gives.

        Raises:
            NotFound: there is no such model or version.
            Unavailable: it is not loaded.
        """
        return self.repository.get(name, version).metadata

    def live(self) -> bool:
        """Whether the process works; false never comes, as a dead one does not answer."""
        return True

    def ready(self) -> bool:
        """Whether all models of the command line are loaded and the server is not shutting down."""
        return not self._stopping and self.repository.ready()

    def model_ready(self, name: str, version: str) -> bool:
        """Whether a model answers.

        Raises:
            NotFound: there is no such model or version.
        """
        return not self._stopping and self.repository.model_ready(name, version)

    def index(self, *, ready_only: bool) -> list[IndexEntry]:
        """All models of the repository."""
        entries = self.repository.index()
        return [entry for entry in entries if entry.state == "READY" or not ready_only]

    async def load(self, name: str) -> None:
        """Load a model, or load it anew; the former one answers until the new one is there.

        Raises:
            NotFound: there is no directory of this name.
            Unavailable: it cannot be loaded; a former one goes on answering.
        """
        await self.repository.load(name)

    async def unload(self, name: str) -> None:
        """Take a model out of service; what it has accepted it still answers.

        Raises:
            NotFound: there is no such model.
        """
        await self.repository.unload(name)

    def stop(self) -> None:
        """Say not ready from now on, so that a load balancer sends no more."""
        self._stopping = True

    async def _tokenise(self, model: TextModel, content: Texts | list[TokenRow]) -> Sequence[Row]:
        if not isinstance(content, Texts):
            return content
        most = self.config.max_queue

        def rows_of(texts: Texts, left: int) -> list[Row]:
            """The rows of some texts, and one more than may be left at most."""
            return list(islice(model.tokenise(texts), left + 1))

        rows: list[Row] = []
        if _is_long(content):
            for part in content.parts(_PART_CHARACTERS):
                rows += await asyncio.to_thread(rows_of, part, most - len(rows))
                if len(rows) > most:
                    break
        else:
            rows = rows_of(content, most)
        if len(rows) > most:  # texts were counted before; contexts become several windows each
            raise TooLarge(
                f"the contexts of the request are more than {most} windows, and the queue of this "
                "server holds no more; send fewer or shorter ones, or raise --max-queue"
            )
        return rows


def _is_long(content: Texts | list[TokenRow]) -> bool:
    """Whether its texts would hold the loop up."""
    return isinstance(content, Texts) and content.characters > _INLINE_CHARACTERS
