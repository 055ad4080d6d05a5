"""The model as its users see it: AnnData in, AnnData out, one method a task.

    model = scmulan.load("demo")
    cells = model.generate(organ="blood", cell_type="B cell", n=50)
    model.annotate(adata)

The methods stand by kind in ``tasks_model_*``. One that answers reads the cells (`tasks_opened`), asks for exact probabilities
(`tasks_answers`) and writes them into the AnnData; one that writes cells has them from `tasks_writing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from scmulan.cells import AnnData
from scmulan.engines.base import Advance, Engine
from scmulan.engines.opening import open_engine
from scmulan.errors import PromptError
from scmulan.model import load_checkpoint
from scmulan.tasks_asking import Answer, Asked, answer, requests_given
from scmulan.tasks_carrying import Circumstances
from scmulan.tasks_model_answering import AnsweringModel
from scmulan.tasks_model_changing import ChangingModel
from scmulan.tasks_model_editing import EditingModel
from scmulan.tasks_model_writing import WritingModel
from scmulan.tasks_opened import Ready
from scmulan.tasks_reading import Reader, Reading

if TYPE_CHECKING:
    from scmulan.search import CellIndex

__all__ = ["Model", "Ready", "load"]


def load(
    name: str | Path = "demo",
    *,
    adapter: str | Path | None = None,
    adapters: Mapping[str, str | Path] | None = None,
    device: str = "cpu",
    engine: Engine | str = "transformers",
) -> Model:
    """Open a model folder, or the embedded one by the name ``demo``.

    Parameters
    ----------
    adapter : folder of an adapter that was trained on this model, used from the start
    adapters : several by name; none is used before ``model.use(name)``
    engine : ``transformers``; ``vllm``; the URL of a vLLM server that has the same model; or an engine that is open

    Raises
    ------
    CheckpointError
        When the folder is missing, damaged, or has another tokenizer.
    """
    checkpoint = load_checkpoint(name)
    if isinstance(engine, str):
        folders = [*(adapters or {}).values(), *([] if adapter is None else [adapter])]
        engine = open_engine(checkpoint, engine, device=device, adapters=[Path(folder) for folder in folders])
    model = Model(checkpoint, engine)
    for called, folder in (adapters or {}).items():
        model.add_adapter(folder, called)
    model.use(None)
    if adapter is not None:
        model.add_adapter(adapter)
    return model


class Model(WritingModel, AnsweringModel, ChangingModel, EditingModel):
    """A checkpoint and the engine that runs it."""

    def finetune(self, cells: AnnData | str | Path, output: str | Path, **settings: Any) -> Model:
        """Train an adapter (or, with ``adapter=None``, all weights) on labelled cells, and go on with what was trained.

        Parameters
        ----------
        cells : AnnData, or a file or store of cells; labels in ``obs``
        output : folder that gets the split, the curve and the adapter, ``output/adapter``
        settings : lines of the recipe, as ``steps=200, adapter={"rank": 8}``; see ``scmulan.finetune_recipe.FinetuneRecipe``

        Returns
        -------
        This model with the adapter in use, under the output's name (``model.use(None)`` is the base again); a new one where all weights
        were trained.
        """
        from scmulan.finetune import finetune

        used = self.adapter
        self.use(None)  # stand-ins are the base's
        try:
            folder = finetune(cells, output, base=self.checkpoint.folder, generate=self.generate, **settings)
        finally:
            self.use(used)
        if (folder / "model.safetensors").is_file():
            return load(folder, device=str(getattr(self.engine, "device", "cpu")))
        self.add_adapter(folder, Path(output).resolve().name)
        return self

    def search(self, adata: AnnData, index: CellIndex | str | Path, *, k: int = 10, on_cell: Advance | None = None) -> pd.DataFrame:
        """The ``k`` nearest reference cells of each cell, by an index that this model made (`scmulan.search_build.index_cells`).

        Returns
        -------
        DataFrame (C x k)
            A row for each pair, nearest first: ``cell``, ``rank`` from 1, ``distance``, ``cell_id``, ``source``, ``dataset``, ``donor``
            and the fields of the reference cell.

        Raises
        ------
        CheckpointError
            When the index was made with another model or adapter, or a file of it is damaged.
        """
        from scmulan.search import search

        return search(self, adata, index, k=k, on_cell=on_cell)

    def transfer(
        self, adata: AnnData, index: CellIndex | str | Path, *, field: str = "cell_type", key_added: str | None = None, **settings: Any
    ) -> pd.DataFrame:
        """Labels by votes of the nearest reference cells; written into ``adata`` too.

        Parameters
        ----------
        field : whose labels; ``cell_type``, ``lineage``, ``organ`` ...
        key_added : column of ``obs``, ``scmulan_transferred_FIELD`` when not given; ``_probability`` and ``_beyond`` stand beside it
        settings : ``k``, ``beyond``, ``threshold`` and ``on_cell`` of `scmulan.search.transfer`

        Returns
        -------
        DataFrame (C, labels)
            Shares of the votes; a row adds up to 1, or to 0 where no neighbour has a label.
        """
        from scmulan.search import transfer

        return transfer(self, adata, index, field=field, key_added=key_added, **settings)

    def ask(
        self,
        adata: AnnData | str | None = None,
        question: str | None = None,
        *,
        request: Asked | None = None,
        index: Any = None,
        seed: int = 0,
    ) -> Answer:
        """A question in English, answered in sentences whose every number comes from a result.

        Parameters
        ----------
        adata : the cells that are asked about; may be left out where the question needs none
        question : one or several questions in English; or
        request : what to do, as ``Answer.request`` gives it or as plain data, ``{"task": "generate", "organ": "lung", "number": 10}``
        index : of reference cells, for questions after similar ones

        Returns
        -------
        Answer
            ``request`` (printable, to be corrected and given back), ``results``, ``text``, and the probability of the reading.

        Raises
        ------
        PromptError
            When there is no question, a request can't be read, or the model was trained without questions.
        """
        if isinstance(adata, str):
            adata, question = None, adata if question is None else question
        if request is None and question is None:
            raise PromptError("nothing was asked; needed a question, or request= with what to do")
        reading = (
            self.read_questions([question])[0]
            if request is None and question is not None
            else requests_given(request or (), list(self.prompts.fields))
        )
        return answer(reading, Circumstances(model=self, adata=adata, index=index, seed=seed))

    def read_questions(self, questions: Sequence[str]) -> list[Reading]:
        """How each question is read: the requests, and how probable they are; nothing is carried out."""
        if self.checkpoint.card.get("recipe", {}).get("packing", {}).get("questions", 0) < 1:
            raise PromptError(
                f"{self.checkpoint.folder.name}: this model was trained without questions (packing.questions in its recipe is 0); "
                "give request= instead, for example request={'task': 'annotate'}"
            )
        return Reader(self.opened).read(questions)
