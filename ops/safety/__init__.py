"""The hosted model's safety check in bare torch: two networks, a rule, and what to do with hits.

decide.py     the rule and the actions (pure)
review.py     a batch through a checker
prepare.py    pictures as the networks want them
vision.py     the transformer both networks share
networks.py   the CompVis checker and the Falconsai classifier, from their files
weights.py    which files, from where, with which hash
opennsfw.py   a third, small checker, when its package is installed

Imports torch, numpy and PIL, never comfy, transformers or diffusers.
"""
