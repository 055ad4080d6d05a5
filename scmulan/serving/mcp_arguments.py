"""The arguments that several tools share, as assistants are told of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MOST_TEXT = 200

Label = Annotated[str, Field(min_length=1, max_length=MOST_TEXT)]
Gene = Label
CellsFile = Annotated[str, Field(min_length=1, max_length=1000, description="Path of an .h5ad file, inside the server's folder.")]
Cells = Annotated[str | None, Field(max_length=1000, description="Path of an .h5ad file to write the cells into; else none is written.")]
CellsOrTable = Annotated[
    str | None,
    Field(max_length=1000, description="Path of a file to write: .h5ad for the cells with all that was said of each, .csv for the table."),
]
Table = Annotated[str | None, Field(max_length=1000, description="Path of a .csv file to write the whole table into.")]
Overwrite = Annotated[bool, Field(description="Whether `output` may be replaced.")]
Organism = Annotated[Label | None, Field(description="'human' or 'mouse', where the file does not say it, or wrong.")]
Columns = Annotated[
    dict[Label, Label] | None,
    Field(description="Column of obs for a field, where its usual names don't find it, as {'organ': 'tissue_of_origin'}."),
]
Only = Annotated[
    dict[Label, Label] | None,
    Field(description="Use only cells with these values of columns of obs, as {'perturbation': 'control'} or {'leiden': '3'}."),
]
Choice = Annotated[list[Label] | None, Field(min_length=1, max_length=500)]
Seed = Annotated[int, Field(ge=0, lt=2**63, description="Decides every random draw.")]
Fields = Annotated[
    dict[Label, Label] | None,
    Field(
        description="What the cells are, by field, as {'organ': 'blood', 'cell_type': 'B cell'}; fields left open are drawn as the "
        "training cells had them. Fields and labels that were learnt: model_info."
    ),
]
Temperature = Annotated[float, Field(ge=0, le=5, description="1 draws from the model as trained; 0 takes the likeliest.")]
Depth = Annotated[int | None, Field(ge=1, le=10_000_000, description="Counts a cell to aim at; drawn by the model when not given.")]
Number = Annotated[int, Field(ge=1, description="Cells to write.")]
NumberOfCells = Annotated[
    int | None, Field(ge=1, description="Cells to predict, from cells drawn evenly; one for each cell of the file when not given.")
]
Time = Annotated[Label, Field(description="The later time, as 'day 6'; one that the model has learnt (model_info).")]
Index = Annotated[Label, Field(description="Name of an index of reference cells (model_info).")]
