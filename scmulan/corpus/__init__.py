"""The corpus: h5ad files to Parquet shards of cells under one manifest, and shards to packed training ids.

``build`` reads AnnData; ``shards`` and ``pack`` know ids only, so that training runs where no anndata is installed.
"""
