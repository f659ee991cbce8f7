"""FLUX in 8 bits: weights in e4m3 with a scale for each row, and the arithmetic on them.

`rows` quantises, `matmul` multiplies, `packed` keeps a scale inside its weight, `side` carries
LoRAs beside a weight, `layout` names the tensors of a checkpoint, `convert` turns one into another,
`cache` keeps the result.
"""
