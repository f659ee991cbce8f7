"""The arithmetic of the hosted model's fast engine, which the hosted pictures come from.

`quantise` rounds weights and inputs to fp8, `linear` multiplies them, `merge` puts LoRAs into a
weight, `blocks` are FLUX's blocks over given weights, `step` walks from noise to an 8 bit picture,
`strength` says how much of a LoRA is left after the rounding. Every rounding stands where the
hosted engine has it, so that a CPU gives the same bits; its GPU compiles some of them away.
"""
