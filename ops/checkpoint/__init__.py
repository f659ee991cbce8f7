"""Checkpoints of FLUX.1: the layouts they come in, one to int8 by rows, what is kept."""
