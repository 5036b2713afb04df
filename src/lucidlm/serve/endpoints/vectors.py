"""`/v1/embeddings` and `/v1/rerank`: texts as vectors, and texts in the order of what they have to do with a query."""

from __future__ import annotations

from asyncio import to_thread
from base64 import b64encode
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from lucidlm.predict.pair_classifier import PairScorer
from lucidlm.serve.errors import ApiError
from lucidlm.serve.events import unless_gone
from lucidlm.serve.fields import Body, Text
from lucidlm.serve.models import ServedModel
from lucidlm.serve.state import note_of, state_of

router = APIRouter()

MOST_TEXTS = 2048


class EmbeddingsRequest(Body):
    """Texts that become vectors."""

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)] = Field(
        description="A text or several, not token ids: those of other tokenizers would mean something else here."
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1, description="Only as many as the model has.")


class RerankRequest(Body):
    """A query, and texts to be put in order."""

    query: Text = Field(min_length=1)
    documents: Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)]
    top_n: int | None = Field(default=None, ge=1, description="How many to return; left out: all.")
    return_documents: bool = True


@router.post("/v1/embeddings")
async def embeddings(asked: EmbeddingsRequest, request: Request) -> Response:
    """Turn texts into vectors."""
    state = state_of(request)
    model = state.models.able(asked.model, "embeddings")
    embedder = model.embedder
    assert embedder is not None
    if asked.dimensions not in (None, embedder.dimension):
        message = f"dimensions: {model.name} makes vectors of {embedder.dimension}, and no others"
        raise ApiError(message, param="dimensions")
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    _refuse_blank(texts, "input")
    read = sum(map(len, await to_thread(model.tokenizer.encode_batch, texts)))
    note_of(request).update(model=model.name, texts=len(texts), prompt_tokens=read)
    vectors = await unless_gone(request, model.call(lambda: embedder(texts)), state.config.timeout)
    data = [
        {"object": "embedding", "index": index, "embedding": _written(vector, asked.encoding_format)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": read, "total_tokens": read}
    return JSONResponse({"object": "list", "data": data, "model": model.name, "usage": usage})


@router.post("/v1/rerank")
async def rerank(asked: RerankRequest, request: Request) -> Response:
    """Put documents in the order of what they have to do with a query: by a model of pairs, or else by their vectors."""
    state = state_of(request)
    model = state.models.able(asked.model, "rerank")
    _refuse_blank([asked.query], "query")
    _refuse_blank(asked.documents, "documents")
    note_of(request).update(model=model.name, texts=len(asked.documents))
    scores = await unless_gone(request, model.call(lambda: _scores(model, asked)), state.config.timeout)
    order = np.argsort(-scores, kind="stable")[: asked.top_n]
    results: list[dict[str, Any]] = [
        {"index": place, "relevance_score": float(scores[place])} for place in map(int, order)
    ]
    if asked.return_documents:
        for result in results:
            result["document"] = {"text": asked.documents[result["index"]]}
    return JSONResponse({"object": "list", "model": model.name, "results": results})


def _scores(model: ServedModel, asked: RerankRequest) -> np.ndarray:
    """Return a number for each document, the larger the more it has to do with the query."""
    if isinstance(model.predictor, PairScorer):
        pairs = model.predictor([asked.query] * len(asked.documents), asked.documents)
        return np.array([pair.value for pair in pairs])
    assert model.embedder is not None
    query = model.embedder([asked.query], purpose="query")[0]
    documents = model.embedder(asked.documents, purpose="document")
    lengths = np.linalg.norm(documents, axis=1) * np.linalg.norm(query)
    return documents @ query / np.maximum(lengths, np.finfo(np.float32).tiny)


def _written(vector: np.ndarray, form: str) -> list[float] | str:
    return b64encode(vector.astype("<f4").tobytes()).decode() if form == "base64" else vector.tolist()


def _refuse_blank(texts: list[str], param: str) -> None:
    if (blank := next((place for place, text in enumerate(texts) if not text.strip()), None)) is not None:
        raise ApiError(f"{param}: text {blank + 1} is empty", param=param)
