"""What a request means: the schema's fields, the frozen request, the plan.

Standard library only. Nothing here imports torch, ComfyUI or another folder of the pack, so a plan
costs milliseconds and can be made anywhere.
"""
