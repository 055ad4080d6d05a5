"""What is asked of cells without a model: a map, clusters, the place of other cells on the map, what differs between two sets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scmulan.serving.asked import FileId, JobAsked, JobId, Rows, Seed


class View(JobAsked):
    """A job that asks no model; it goes beside those that do."""

    IN_PIECES = 0


Embedding = Annotated[JobId | None, Field(description="A job `embed` on the whole file, whose embedding is taken in place of the counts.")]


class Map(View):
    """A map of the cells of a file: of their counts, or of an embedding."""

    TASK = "map"
    file_id: FileId
    layout: Literal["pca", "umap"] = "umap"
    embedding: Embedding = None
    seed: Seed = 0


class Cluster(View):
    """Leiden clusters of the cells of a file, the largest first: by their counts, or by an embedding."""

    TASK = "cluster"
    file_id: FileId
    embedding: Embedding = None
    seed: Seed = 0


class Place(View):
    """Where the cells of another job's result lie on a map of counts."""

    TASK, ON_FILE = "place", False
    map_id: JobId
    job_id: JobId


class CellSet(BaseModel):
    """Cells of a file or of a job's result."""

    model_config = ConfigDict(extra="forbid")
    file_id: FileId | None = None
    job_id: JobId | None = None
    rows: Rows | None = None

    @model_validator(mode="after")
    def _one(self) -> CellSet:
        if (self.file_id is None) == (self.job_id is None):
            raise ValueError("needed either file_id or job_id")
        return self


class Compare(View):
    """Genes that differ between two sets of cells."""

    TASK, ON_FILE = "compare", False
    a: CellSet
    b: CellSet


VIEWS: dict[str, type[View]] = {one.TASK: one for one in (Map, Cluster, Place, Compare)}
