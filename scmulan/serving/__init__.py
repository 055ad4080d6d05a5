"""The gateway of ``scmulan serve``: a model answered over HTTP, with files of cells from strangers and long work in jobs."""
