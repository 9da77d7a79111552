"""Indexes of unit vectors: the nearest by inner product, in memory or in a library made for it."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from editmem.errors import SpecError


class VectorIndex(Protocol):
    """What an external memory asks of an index. To use another vector database, give it these methods.

    Vectors have numbers in the order in which they were added; removing one moves the later ones up.
    """

    def __len__(self) -> int: ...

    def add(self, vectors: Tensor) -> None:
        """Add unit vectors, float32 `[n, d]`."""

    def remove(self, numbers: Tensor) -> None:
        """Take vectors out, int64 `[n]`."""

    def search(self, queries: Tensor, top: int) -> tuple[Tensor, Tensor]:
        """The nearest of each query.

        Args:
            queries: float32 `[Q, d]`, unit vectors.
            top: how many, at most `len`.

        Returns:
            inner products, float32 `[Q, top]`, best first, and numbers, int64 `[Q, top]`.
        """
        ...

    def save(self) -> Tensor:
        """All vectors, float32 `[N, d]`, in order."""
        ...

    def load(self, vectors: Tensor) -> None:
        """The inverse of `save`."""


class ExactIndex:
    """All vectors in one tensor, on the device of the host.

    Args:
        width: d.
    """

    def __init__(self, width: int) -> None:
        self._vectors = torch.zeros((0, width), dtype=torch.float32)

    def __len__(self) -> int:
        return self._vectors.shape[0]

    def add(self, vectors: Tensor) -> None:
        self._vectors = torch.cat([self._vectors.to(vectors.device), vectors.float()])

    def remove(self, numbers: Tensor) -> None:
        kept = torch.ones(len(self), dtype=torch.bool)
        kept[numbers.cpu()] = False
        self._vectors = self._vectors[kept.to(self._vectors.device)]

    def search(self, queries: Tensor, top: int) -> tuple[Tensor, Tensor]:
        self._vectors = self._vectors.to(queries.device)
        scores = queries.float() @ self._vectors.T
        order = scores.sort(dim=1, descending=True, stable=True)
        return order.values[:, :top], order.indices[:, :top]

    def save(self) -> Tensor:
        return self._vectors.contiguous()

    def load(self, vectors: Tensor) -> None:
        self._vectors = vectors.float().clone()


class FaissIndex:
    """An exact FAISS index of inner products (`IndexFlatIP`).

    Args:
        width: d.

    Raises:
        SpecError: if FAISS is not installed.
    """

    def __init__(self, width: int) -> None:
        try:
            import faiss
        except ImportError as error:
            raise SpecError("index='faiss' needs FAISS: pip install 'editmem[faiss]'") from error
        self._width, self._index = width, faiss.IndexFlatIP(width)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def __deepcopy__(self, memo: dict) -> "FaissIndex":
        clone = FaissIndex(self._width)
        clone.load(self.save())
        return clone

    def add(self, vectors: Tensor) -> None:
        self._index.add(_array(vectors))

    def remove(self, numbers: Tensor) -> None:
        self._index.remove_ids(numbers.cpu().numpy().astype(np.int64))  # type: ignore[arg-type]

    def search(self, queries: Tensor, top: int) -> tuple[Tensor, Tensor]:
        scores, numbers = self._index.search(_array(queries), top)
        return torch.from_numpy(scores).to(queries.device), torch.from_numpy(numbers).to(queries.device)

    def save(self) -> Tensor:
        return torch.from_numpy(self._index.reconstruct_n(0, len(self)).copy().reshape(len(self), self._width))

    def load(self, vectors: Tensor) -> None:
        self._index.reset()
        self.add(vectors)


def _array(vectors: Tensor) -> np.ndarray:
    return np.ascontiguousarray(vectors.detach().cpu().float().numpy())


class QdrantIndex:
    """A collection of a Qdrant database.

    Args:
        width: d.
        client: a `qdrant_client.QdrantClient`; None for a database within this process.
        collection: its name; made anew.

    Raises:
        SpecError: if the client library is not installed.
    """

    BATCH = 1000

    def __init__(self, width: int, client: Any = None, collection: str = "editmem") -> None:
        try:
            import qdrant_client
        except ImportError as error:
            raise SpecError("index='qdrant' needs Qdrant's client: pip install 'editmem[qdrant]'") from error
        self._width, self._name, self._models = width, collection, qdrant_client.models
        self._client = qdrant_client.QdrantClient(":memory:") if client is None else client
        # Within the process every search is exact.
        self._exact = None if client is None else self._models.SearchParams(exact=True)
        self._new()

    def _new(self) -> None:
        if self._client.collection_exists(self._name):
            self._client.delete_collection(self._name)
        parameters = self._models.VectorParams(size=self._width, distance=self._models.Distance.DOT)
        self._client.create_collection(self._name, vectors_config=parameters)
        self._ids: list[int] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._ids)

    def __deepcopy__(self, memo: dict) -> "QdrantIndex":
        clone = QdrantIndex(self._width)
        clone.load(self.save())
        return clone

    def add(self, vectors: Tensor) -> None:
        for part in vectors.split(self.BATCH):
            ids: list[Any] = list(range(self._next, self._next + len(part)))
            # Noted first: should this be interrupted, they are known and can be removed.
            self._ids += ids
            self._next += len(ids)
            self._client.upsert(self._name, self._models.Batch(ids=ids, vectors=_array(part).tolist()), wait=True)

    def remove(self, numbers: Tensor) -> None:
        dropped: list[Any] = [self._ids[number] for number in numbers.tolist()]
        if dropped:
            self._client.delete(self._name, self._models.PointIdsList(points=dropped), wait=True)
        self._ids = [point for point in self._ids if point not in set(dropped)]

    def search(self, queries: Tensor, top: int) -> tuple[Tensor, Tensor]:
        asked = [self._models.QueryRequest(query=q, limit=top, params=self._exact) for q in _array(queries).tolist()]
        number: dict[Any, int] = {point: i for i, point in enumerate(self._ids)}
        found = [answer.points for answer in self._client.query_batch_points(self._name, asked)]
        scores = torch.tensor([[point.score for point in points] for points in found], dtype=torch.float32)
        numbers = torch.tensor([[number[point.id] for point in points] for points in found])
        return scores.to(queries.device), numbers.to(queries.device)

    def save(self) -> Tensor:
        points = self._client.retrieve(self._name, self._ids, with_vectors=True)
        vectors = {point.id: point.vector for point in points}
        return torch.tensor([vectors[i] for i in self._ids], dtype=torch.float32).reshape(len(self), self._width)

    def load(self, vectors: Tensor) -> None:
        self._new()
        self.add(vectors)


INDEXES: dict[str, Callable[[int], VectorIndex]] = {"exact": ExactIndex, "faiss": FaissIndex, "qdrant": QdrantIndex}
"""What `MemeicSpec.index` may name; add a name for a database of your own, or for one on a server."""
