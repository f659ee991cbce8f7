"""The arithmetic of the hosted model's fast engine, as far as it decides how strong a LoRA is.

`quantise` rounds weights to fp8, `merge` puts LoRAs into a weight, `strength` says how much of a
LoRA is left after the rounding. Every rounding stands where the hosted engine has it.
"""
