"""What is measured of a model's answers and cells, and the baselines printed beside it.

Everything here works on plain arrays: labels, and counts as cells × genes. It knows of no model, tokenizer or AnnData, so
the same function measures scmulan, a baseline and the real cells, and each figure can be had without the rest of the package.
"""
