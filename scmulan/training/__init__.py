"""Pretraining: recipe, loss over legal ids, packed attention, loop, checkpoints. Knows ids only; imports no AnnData."""
